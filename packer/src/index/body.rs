//! An index's bytes, mapped or in memory, each 64 KiB checked when it is first touched.

use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use granary_core::{Error, Kind, Result};
use memmap2::Mmap;

use super::corrupt;
use super::resident::{Mapping, Resident};

/// Bytes under one checksum.
pub const BLOCK_BYTES: u64 = 64 << 10;

enum Bytewise {
    Mapped(Arc<Mapping>),
    Owned(Bytes),
}

pub struct Body {
    bytes: Bytewise,
    /// What the sums cover, and where they are.
    body: Range<u64>,
    sums: Range<u64>,
    /// A bit for each block that was found good. Relaxed: who misses a bit checks once more.
    good: Box<[AtomicU64]>,
}

impl Body {
    /// Errors: `NotFound`; what the disk says.
    pub fn map(path: &Path, within: &Arc<Resident>) -> Result<Body> {
        let cannot = |e: std::io::Error| match e.kind() {
            std::io::ErrorKind::NotFound => Error::new(
                Kind::NotFound,
                format!("{} is not there; make it with `granary index`", path.display()),
            ),
            _ => Error::io(format!("cannot open the index {}", path.display()), e),
        };
        Body::map_opened(&File::open(path).map_err(cannot)?, within).map_err(cannot)
    }

    /// Errors: what the disk says.
    pub fn map_file(file: &File, within: &Arc<Resident>) -> Result<Body> {
        Body::map_opened(file, within).map_err(|e| Error::io("cannot map an index", e))
    }

    fn map_opened(file: &File, within: &Arc<Resident>) -> std::io::Result<Body> {
        if file.metadata()?.len() == 0 {
            return Ok(Body::owned(Bytes::new()));
        }
        // SAFETY: the file is not written while it is mapped: indexes are replaced by renaming another one over them. If
        // somebody else cuts it, a read of the lost pages ends the process by a signal, which is no undefined behaviour.
        let map = unsafe { Mmap::map(file) }?;
        Ok(Body::new(Bytewise::Mapped(Mapping::new(map, within))))
    }

    pub fn owned(bytes: Bytes) -> Body {
        Body::new(Bytewise::Owned(bytes))
    }

    fn new(bytes: Bytewise) -> Body {
        Body { bytes, body: 0..0, sums: 0..0, good: Box::default() }
    }

    /// All of it, not checked: what is looked at was [`touch`](Body::touch)ed before.
    pub fn all(&self) -> &[u8] {
        match &self.bytes {
            Bytewise::Mapped(mapping) => mapping.bytes(),
            Bytewise::Owned(bytes) => bytes,
        }
    }

    /// Says where the sums are and what they cover. Both lie within the bytes.
    ///
    /// Errors: `Corrupt` when the sums do not match their own checksum.
    pub fn set_sums(&mut self, body: Range<u64>, sums: Range<u64>, crc: u32) -> Result<()> {
        self.touch(&sums);
        if granary_core::crc32c(&self.all()[sums.start as usize..sums.end as usize]) != crc {
            return Err(corrupt("the checksum of its sums does not match"));
        }
        let blocks = (sums.end - sums.start) / 4;
        self.good = (0..blocks.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        (self.body, self.sums) = (body, sums);
        Ok(())
    }

    /// Bytes of a range within the body, checked.
    pub fn get(&self, range: Range<u64>) -> Result<&[u8]> {
        self.check(&range)?;
        Ok(&self.all()[range.start as usize..range.end as usize])
    }

    /// Errors: `Corrupt` when a block of the range does not match its sum, or the range leaves the body.
    pub fn check(&self, range: &Range<u64>) -> Result<()> {
        if range.start < self.body.start || range.end > self.body.end || range.start > range.end {
            return Err(corrupt("a number in it points outside of it"));
        }
        if range.is_empty() {
            return Ok(());
        }
        let first = (range.start - self.body.start) / BLOCK_BYTES;
        let last = (range.end - 1 - self.body.start) / BLOCK_BYTES;
        for block in first..=last {
            let start = self.body.start + block * BLOCK_BYTES;
            self.touch(&(range.start.max(start)..range.end.min(start + BLOCK_BYTES)));
            let (word, bit) = (&self.good[(block / 64) as usize], 1u64 << (block % 64));
            if word.load(Ordering::Relaxed) & bit == 0 {
                self.check_block(block)?;
                word.fetch_or(bit, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    #[cold]
    fn check_block(&self, block: u64) -> Result<()> {
        let start = self.body.start + block * BLOCK_BYTES;
        let end = (start + BLOCK_BYTES).min(self.body.end);
        let at = (self.sums.start + block * 4) as usize;
        self.touch(&(at as u64..at as u64 + 4));
        self.touch(&(start..end));
        let sum = &self.all()[at..at + 4];
        if granary_core::crc32c(&self.all()[start as usize..end as usize]).to_le_bytes() != sum {
            return Err(corrupt(format!("its bytes {start}..{end} do not match their checksum")));
        }
        Ok(())
    }

    /// These bytes, which are within it, are going to be looked at.
    pub fn touch(&self, range: &Range<u64>) {
        if let Bytewise::Mapped(mapping) = &self.bytes
            && range.start < range.end
        {
            mapping.touch(range);
        }
    }

    /// Does what looks at all of it here and there: all that is mapped is resident meanwhile, whatever the bound.
    pub fn sweep<T>(&self, work: impl FnOnce() -> T) -> T {
        match &self.bytes {
            Bytewise::Mapped(mapping) => mapping.sweep(work),
            Bytewise::Owned(_) => work(),
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.bytes {
            Bytewise::Mapped(_) => "mapped",
            Bytewise::Owned(_) => "owned",
        };
        write!(f, "Body({} bytes, {kind})", self.all().len())
    }
}
