//! The members of a tar, from any reader.

use std::io::Read;

use granary_core::{Error, Kind, Result};

use super::{BLOCK_BYTES, Member, Parser, Step, padded};

/// Goes through a tar once. Between two members the payload can be read; what is not read is passed over.
pub struct Members<R> {
    from: R,
    /// For messages.
    name: String,
    parser: Parser,
    /// Where in the tar the next byte is.
    at: u64,
    /// Where the last member's first header began.
    header_at: u64,
    payload: u64,
    padding: u64,
    ended: bool,
}

impl<R: Read> Members<R> {
    /// `name` is what the tar is called in messages.
    pub fn new(from: R, name: &str) -> Members<R> {
        Members {
            from,
            name: name.to_owned(),
            parser: Parser::default(),
            at: 0,
            header_at: 0,
            payload: 0,
            padding: 0,
            ended: false,
        }
    }

    /// The next entry; `None` at the end.
    ///
    /// Errors: `Corrupt` (damaged or cut), `Unsupported` (sparse and the like), each with tar and offset; what the reader says.
    pub fn next_member(&mut self) -> Result<Option<Member>> {
        if self.ended {
            return Ok(None);
        }
        self.pass_over(self.payload + self.padding)?;
        (self.payload, self.padding) = (0, 0);
        self.header_at = self.at;
        let mut block = [0; BLOCK_BYTES];
        loop {
            let block_at = self.at;
            if self.fill(&mut block)? < BLOCK_BYTES {
                return Err(self.cut(block_at));
            }
            let located = |e: Error| e.context(format_args!("{} at byte {block_at}", self.name));
            match self.parser.block(&block).map_err(located)? {
                Step::Next => {}
                Step::Skip(bytes) => {
                    self.pass_over(padded(bytes))?;
                    self.header_at = self.at;
                }
                Step::Extension(bytes) => {
                    let mut extension = vec![0; padded(bytes) as usize];
                    if self.fill(&mut extension)? < extension.len() {
                        return Err(self.cut(block_at));
                    }
                    let located = |e: Error| e.context(format_args!("{} at byte {block_at}", self.name));
                    self.parser.extension(&extension[..bytes as usize]).map_err(located)?;
                }
                Step::Member(member) => {
                    self.payload = member.size;
                    self.padding = member
                        .size
                        .checked_next_multiple_of(BLOCK_BYTES as u64)
                        .and_then(|end| end.checked_sub(member.size))
                        .ok_or_else(|| {
                            Error::new(
                                Kind::Corrupt,
                                format!("{} at byte {block_at}: a size is impossible", self.name),
                            )
                        })?;
                    return Ok(Some(member));
                }
                Step::End => {
                    self.ended = true;
                    return Ok(None);
                }
            }
        }
    }

    /// Bytes of the last member's payload; 0 when none is left.
    ///
    /// Errors: `Corrupt` when the tar ends within it; what the reader says.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let wanted = self.payload.min(buffer.len() as u64) as usize;
        if wanted == 0 {
            return Ok(0);
        }
        let got = self.read_some(&mut buffer[..wanted])?;
        if got == 0 {
            return Err(self.cut(self.header_at));
        }
        self.payload -= got as u64;
        Ok(got)
    }

    /// Where in the tar the next byte is: right after [`Members::next_member`], where the payload begins.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Where the last member's first header begins.
    pub fn header_at(&self) -> u64 {
        self.header_at
    }

    fn pass_over(&mut self, mut bytes: u64) -> Result<()> {
        let mut buffer = [0; 8192];
        while bytes > 0 {
            let wanted = bytes.min(buffer.len() as u64) as usize;
            match self.read_some(&mut buffer[..wanted])? {
                0 => return Err(self.cut(self.header_at)),
                got => bytes -= got as u64,
            }
        }
        Ok(())
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read_some(&mut buffer[filled..])? {
                0 => break,
                got => filled += got,
            }
        }
        Ok(filled)
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            match self.from.read(buffer) {
                Ok(got) => {
                    self.at += got as u64;
                    return Ok(got);
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::io(format!("cannot read {} at byte {}", self.name, self.at), e)),
            }
        }
    }

    fn cut(&self, at: u64) -> Error {
        Error::new(
            Kind::Corrupt,
            format!(
                "{} is cut: it ends at byte {}, in the entry or before the end mark that should be at byte {at}; \
                 get a whole copy of it",
                self.name, self.at
            ),
        )
    }
}
