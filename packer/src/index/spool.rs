//! A section that is being built: in memory while it is small, else in an unnamed file, mapped when it is whole.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use granary_core::{Error, Result};
use memmap2::Mmap;

use crate::limits::SPOOL_MEMORY_BYTES_MAX;

#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
    memory: Vec<u8>,
    /// Bytes that went to the file already come before those in memory.
    file: Option<File>,
    len: u64,
}

#[derive(Debug)]
pub enum Spooled {
    Memory(Vec<u8>),
    Mapped(Mmap),
}

impl Spool {
    pub fn new(dir: &Path) -> Spool {
        Spool { dir: dir.to_owned(), memory: Vec::new(), file: None, len: 0 }
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    /// Appends what `write` puts into the buffer.
    ///
    /// Errors: what the disk says.
    pub fn append(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        let before = self.memory.len();
        write(&mut self.memory);
        self.len += (self.memory.len() - before) as u64;
        if self.memory.len() > SPOOL_MEMORY_BYTES_MAX { self.spill() } else { Ok(()) }
    }

    fn spill(&mut self) -> Result<()> {
        let spilled = self.write_out();
        spilled.map_err(|e| Error::io(format!("cannot keep a part of an index in {}", self.dir.display()), e))
    }

    fn write_out(&mut self) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(tempfile::tempfile_in(&self.dir)?),
        };
        file.write_all(&self.memory)?;
        self.memory.clear();
        Ok(())
    }

    pub fn finish(mut self) -> Result<Spooled> {
        if self.file.is_some() && !self.memory.is_empty() {
            self.spill()?;
        }
        let Some(file) = self.file else { return Ok(Spooled::Memory(self.memory)) };
        // SAFETY: the file has no name and its descriptor ends here, so nobody can change it.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| {
            Error::io(format!("cannot read back a part of an index in {}", self.dir.display()), e)
        })?;
        Ok(Spooled::Mapped(map))
    }
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.memory.extend_from_slice(bytes);
        self.len += bytes.len() as u64;
        if self.memory.len() > SPOOL_MEMORY_BYTES_MAX {
            self.write_out()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Spooled {
    /// Without a copy: what is mapped stays so until the last of them is dropped.
    pub fn into_bytes(self) -> Bytes {
        match self {
            Spooled::Memory(bytes) => bytes.into(),
            Spooled::Mapped(map) => Bytes::from_owner(map),
        }
    }
}

impl std::ops::Deref for Spooled {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Spooled::Memory(bytes) => bytes,
            Spooled::Mapped(map) => map,
        }
    }
}
