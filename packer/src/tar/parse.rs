//! Headers to members, without I/O: the parser is told blocks and says what comes next.

use granary_core::{Error, Kind, Result};

use super::pax::Pax;
use super::{BLOCK_BYTES, checksum, number};
use crate::limits::{PATH_BYTES_MAX, TAR_EXTENSION_BYTES_MAX};

/// An entry of a tar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Without leading `./` and trailing slashes; otherwise as the tar has it, which may be absolute or lead anywhere.
    pub path: Vec<u8>,
    pub target: Vec<u8>,
    /// `0` for every regular file, else the type flag of a link, device, directory or pipe.
    pub kind: u8,
    /// Bytes of the payload, which follows the header.
    pub size: u64,
    pub mode: u32,
    pub mtime: i64,
    pub uid: u32,
    pub gid: u32,
}

impl Member {
    pub fn is_file(&self) -> bool {
        self.kind == b'0'
    }
}

/// What comes after a block.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// The next block is wanted.
    Next,
    /// So many bytes, and their padding, belong to the header: [`Parser::extension`] wants them.
    Extension(u64),
    /// So many bytes, and their padding, are of no interest.
    Skip(u64),
    /// An entry; its payload follows.
    Member(Member),
    /// The tar ended.
    End,
}

/// Told one block after another, beginning with the first of the tar.
#[derive(Debug, Default)]
pub struct Parser {
    long_path: Option<Vec<u8>>,
    long_target: Option<Vec<u8>>,
    local: Option<Pax>,
    global: Pax,
    /// The type of the extension whose bytes are awaited.
    awaited: u8,
    /// A block of zeros came.
    zeros: bool,
}

impl Parser {
    /// Errors: `Corrupt` says what is wrong with the block, `Unsupported` what cannot be read; neither says where.
    pub fn block(&mut self, block: &[u8; BLOCK_BYTES]) -> Result<Step> {
        if block.iter().all(|&b| b == 0) {
            if self.pending() {
                return Err(corrupt("it ends behind a header that announces another"));
            }
            return Ok(if std::mem::replace(&mut self.zeros, true) { Step::End } else { Step::Next });
        }
        if self.zeros {
            return Err(corrupt("a single block of zeros, which ends no tar, is followed by something else"));
        }
        let stored = number::get(&block[148..156]);
        let signed: i64 = block
            .iter()
            .enumerate()
            .map(|(at, &b)| if (148..156).contains(&at) { 32 } else { i64::from(b as i8) })
            .sum();
        if stored != Some(i64::from(checksum(block))) && stored != Some(signed) {
            return Err(corrupt("the checksum of the header does not match"));
        }
        let size = match number::get(&block[124..136]) {
            Some(size) if size >= 0 => size as u64,
            _ => return Err(corrupt("the size in the header is no number")),
        };
        match block[156] {
            kind @ (b'L' | b'K' | b'x' | b'X' | b'g') => {
                if size > TAR_EXTENSION_BYTES_MAX {
                    return Err(corrupt("a header's extension has more than 1 MiB"));
                }
                self.awaited = kind;
                Ok(Step::Extension(size))
            }
            // A volume's label.
            b'V' => Ok(Step::Skip(size)),
            kind => self.member(block, kind, size).map(Step::Member),
        }
    }

    /// Whether something was announced that has not come.
    pub fn pending(&self) -> bool {
        self.long_path.is_some() || self.long_target.is_some() || self.local.is_some()
    }

    /// The bytes that [`Step::Extension`] asked for, without their padding.
    ///
    /// Errors: as [`Parser::block`].
    pub fn extension(&mut self, bytes: &[u8]) -> Result<()> {
        let text = || {
            let text = bytes.split(|&b| b == 0).next().unwrap_or_default();
            match text.len() {
                0 => Err(corrupt("a long name is empty")),
                length if length > PATH_BYTES_MAX => Err(too_long(text)),
                _ => Ok(Some(text.to_vec())),
            }
        };
        match self.awaited {
            b'L' => self.long_path = text()?,
            b'K' => self.long_target = text()?,
            b'g' => self.global.read(bytes).map_err(corrupt)?,
            _ => self.local.get_or_insert_default().read(bytes).map_err(corrupt)?,
        }
        Ok(())
    }

    fn member(&mut self, block: &[u8; BLOCK_BYTES], kind: u8, size: u64) -> Result<Member> {
        let pax = self.local.take().unwrap_or_default().or(&self.global);
        let (long_path, long_target) = (self.long_path.take(), self.long_target.take());
        let path = pax.path.or(long_path).unwrap_or_else(|| short_path(block));
        let target = pax.target.or(long_target).unwrap_or_else(|| text(&block[157..257]).to_vec());
        let is_directory = path.ends_with(b"/");
        let path = tidy(&path).to_vec();
        if path.len() > PATH_BYTES_MAX || target.len() > PATH_BYTES_MAX {
            return Err(too_long(&path));
        }
        let unsupported = |why: &str| {
            Err(Error::new(
                Kind::Unsupported,
                format!("{:?} {why}; unpack the tar and make shards of it with `granary pack`", lossy(&path)),
            ))
        };
        if kind == b'S' || pax.sparse {
            return unsupported("is stored as a sparse file, whose bytes do not lie one after another");
        }
        let kind = match kind {
            // Before POSIX directories were files whose name ends with a slash.
            b'0' | b'\0' if is_directory => b'5',
            b'0' | b'\0' | b'7' => b'0',
            b'1'..=b'6' => kind,
            b'M' | b'N' => return unsupported("goes over several volumes"),
            b'D' => return unsupported("is a directory of an incremental backup"),
            other => return unsupported(&format!("is of the unknown type {:?}", char::from(other))),
        };
        if path.is_empty() && kind != b'5' {
            return Err(corrupt("an entry has no name"));
        }
        let id = |field: &[u8], of: Option<u32>, what: &str| match of {
            Some(id) => Ok(id),
            None => number::get(field)
                .and_then(|n| u32::try_from(n).ok())
                .ok_or_else(|| corrupt(format!("the {what} of {:?} is no number", lossy(&path)))),
        };
        let mtime = match pax.mtime {
            Some(mtime) => mtime,
            None => number::get(&block[136..148])
                .ok_or_else(|| corrupt(format!("the time of {:?} is no number", lossy(&path))))?,
        };
        let mode = number::get(&block[100..108])
            .ok_or_else(|| corrupt(format!("the mode of {:?} is no number", lossy(&path))))?;
        let uid = id(&block[108..116], pax.uid, "user")?;
        let gid = id(&block[116..124], pax.gid, "group")?;
        Ok(Member {
            target,
            kind,
            // Only files have a payload; what the field of others says counts for nothing.
            size: if kind == b'0' { pax.size.unwrap_or(size) } else { 0 },
            mode: (mode & 0o7777) as u32,
            mtime,
            uid,
            gid,
            path,
        })
    }
}

fn short_path(block: &[u8; BLOCK_BYTES]) -> Vec<u8> {
    let name = text(&block[..100]);
    let prefix = text(&block[345..500]);
    // GNU's own headers use the place of the prefix for other things.
    if &block[257..263] == b"ustar\0" && !prefix.is_empty() {
        return [prefix, b"/", name].concat();
    }
    name.to_vec()
}

fn text(field: &[u8]) -> &[u8] {
    field.split(|&b| b == 0).next().unwrap_or_default()
}

fn tidy(mut path: &[u8]) -> &[u8] {
    while let Some(rest) = path.strip_prefix(b"./") {
        path = rest;
        while let Some(rest) = path.strip_prefix(b"/") {
            path = rest;
        }
    }
    while let [rest @ .., b'/'] = path {
        path = rest;
    }
    if path == b"." { &[] } else { path }
}

fn lossy(path: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(path)
}

fn too_long(text: &[u8]) -> Error {
    Error::new(
        Kind::NameTooLong,
        format!("the name {:?}… has more than 4,096 bytes", lossy(&text[..text.len().min(64)])),
    )
}

fn corrupt(why: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(Kind::Corrupt, why)
}
