//! A way through one container, from its beginning to its end.

use bytes::Bytes;
use granary_core::{Error, Kind, Result};

use super::Containers;

/// Bytes read ahead while a container is gone through.
const AHEAD_BYTES: u64 = 1 << 20;

/// Goes through one container.
#[derive(Debug)]
pub struct Cursor<'a> {
    of: &'a Containers,
    number: u32,
    at: u64,
    end: u64,
    /// Bytes from `at` on that are here already.
    ready: Bytes,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(of: &'a Containers, number: u32) -> Cursor<'a> {
        Cursor { of, number, at: 0, end: of.container(number).bytes, ready: Bytes::new() }
    }
}

impl Cursor<'_> {
    /// Where the next byte is.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// How long the container is.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The next bytes, which stay the next.
    ///
    /// Errors: `Corrupt` when the container ends before them; what the place says.
    pub fn peek(&mut self, len: u64) -> Result<Bytes> {
        if (self.ready.len() as u64) < len {
            if self.end - self.at < len {
                return Err(Error::new(
                    Kind::Corrupt,
                    format!(
                        "it is cut: {len} bytes should follow byte {}, and it ends at byte {}",
                        self.at, self.end
                    ),
                ));
            }
            let until = self.end.min(self.at + len.max(AHEAD_BYTES));
            self.ready = match self.of.place.folder() {
                Some(_) => {
                    let mut buffer = vec![0; (until - self.at) as usize];
                    self.of.files.read(
                        &self.of.place,
                        self.of.container(self.number),
                        self.number,
                        self.at,
                        &mut buffer,
                    )?;
                    buffer.into()
                }
                None => {
                    let name = &self.of.containers[self.number as usize].name;
                    self.of.runtime.block_on(self.of.place.get(name, self.at..until))?
                }
            };
        }
        Ok(self.ready.slice(..len as usize))
    }

    /// The next bytes. Errors: as [`Cursor::peek`].
    pub fn take(&mut self, len: u64) -> Result<Bytes> {
        let bytes = self.peek(len)?;
        self.skip(len)?;
        Ok(bytes)
    }

    /// Goes on behind the next bytes, without reading them.
    ///
    /// Errors: `Corrupt` when the container ends before.
    pub fn skip(&mut self, len: u64) -> Result<()> {
        if self.end - self.at < len {
            return Err(Error::new(
                Kind::Corrupt,
                format!(
                    "it is cut: {len} bytes should follow byte {}, and it ends at byte {}",
                    self.at, self.end
                ),
            ));
        }
        self.at += len;
        let held = (self.ready.len() as u64).min(len);
        self.ready = self.ready.slice(held as usize..);
        Ok(())
    }
}
