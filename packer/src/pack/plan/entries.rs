//! A plan's entries, read again.

use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use granary_core::{Error, Kind, Result};

use super::BUFFER_BYTES;
use crate::pack::entry::{self, Entry};
use crate::pack::sort::In;

/// Reads a shared file from a place of its own.
#[derive(Debug)]
struct At {
    file: Arc<File>,
    at: u64,
}

impl Read for At {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let got = self.file.read_at(buffer, self.at)?;
        self.at += got as u64;
        Ok(got)
    }
}

/// Entries of a plan, one after another.
#[derive(Debug)]
pub struct Entries {
    records: In<BufReader<At>>,
    left: u64,
}

impl Entries {
    pub(super) fn new(file: Arc<File>, at: u64, left: u64) -> Entries {
        Entries { records: In::new(BufReader::with_capacity(BUFFER_BYTES, At { file, at })), left }
    }

    /// The next; `None` at the end.
    ///
    /// Errors: what the work directory's disk says.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        match self.records.next_record()? {
            Some(record) => Ok(Some(entry::decode(record)?.1)),
            None => Err(Error::new(Kind::Bug, "the plan ends before its entries do")),
        }
    }
}
