//! A sample: a view of bytes that lie in a mapped shard or in what was fetched of one. Nothing is copied or built until it is asked for.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use granary_core::{Error, Kind, Result};
use granary_packer::index::{File, Index};
use granary_packer::key::Grouping;

use crate::decode::Array;

/// A shard that is open: its index and, where it is on this machine's disk, all of its bytes.
#[derive(Debug)]
pub struct OpenShard {
    pub(crate) index: Index,
    pub(crate) grouping: Grouping,
    /// For messages: the data set and the tar.
    pub(crate) name: String,
    /// Mapped.
    pub(crate) bytes: Option<Bytes>,
}

/// The files of a sample that were asked for and live, by their numbers in the shard.
#[derive(Clone, Debug)]
pub(crate) enum Files {
    All(Range<u32>),
    Some(Box<[u32]>),
}

impl Files {
    pub fn len(&self) -> usize {
        match self {
            Files::All(range) => range.len(),
            Files::Some(numbers) => numbers.len(),
        }
    }

    pub fn get(&self, at: usize) -> Option<u32> {
        match self {
            Files::All(range) => range.clone().nth(at),
            Files::Some(numbers) => numbers.get(at).copied(),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.len()).filter_map(|at| self.get(at))
    }
}

/// Where a sample's bytes are.
#[derive(Clone, Debug)]
pub(crate) enum Held {
    /// In the mapped shard.
    Mapped,
    /// Ranges of the shard: where each begins, and its bytes.
    Fetched(Arc<[(u64, Bytes)]>),
}

/// One sample. Its bytes stay as long as anybody has it, and clones share them; arrays are copied.
#[derive(Clone, Debug)]
pub struct Sample {
    pub(crate) source: u32,
    pub(crate) number: u64,
    pub(crate) shard: Arc<OpenShard>,
    pub(crate) files: Files,
    pub(crate) held: Held,
    /// Of each file what was decoded of it; none: nothing was to be decoded.
    pub(crate) arrays: Option<Box<[Option<Array>]>>,
}

/// One file of a sample.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// What follows the key and its dot in the path: `jpg`, `seg.png`.
    pub extension: &'a [u8],
    /// As the tar has it.
    pub path: &'a [u8],
    pub bytes: &'a [u8],
}

impl Sample {
    /// Which of the loader's data sets it is of; 0 for one of a [`Source`](crate::Source).
    pub fn source(&self) -> u32 {
        self.source
    }

    /// Its number in the data set's version.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// What its files' paths have in common; most often UTF-8.
    ///
    /// Errors: `Corrupt`.
    pub fn key(&self) -> Result<&[u8]> {
        match self.files.get(0) {
            Some(file) => Ok(self.shard.grouping.split(self.shard.index.file(file)?.path).0),
            None => Ok(&[]),
        }
    }

    /// Files it has; of those that were asked for.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    pub fn is_empty(&self) -> bool {
        self.files.len() == 0
    }

    /// One file, in the shard's order.
    ///
    /// Errors: `Invalid` when there are fewer; `Corrupt`.
    pub fn member(&self, at: usize) -> Result<Member<'_>> {
        let file = self.file(at)?;
        Ok(Member {
            extension: self.shard.grouping.split(file.path).1,
            path: file.path,
            bytes: self.slice(&file)?,
        })
    }

    /// One file's bytes, shared and not copied.
    ///
    /// Errors: as [`Sample::member`].
    pub fn bytes(&self, at: usize) -> Result<Bytes> {
        let file = self.file(at)?;
        let (start, bytes) = self.holding(&file)?;
        let from = (file.offset - start) as usize;
        Ok(bytes.slice(from..from + file.length as usize))
    }

    /// What was decoded of a file; `None` when it was not to be, and when it was taken.
    pub fn array(&self, at: usize) -> Option<&Array> {
        self.arrays.as_ref()?.get(at)?.as_ref()
    }

    /// The same, given away.
    pub fn take_array(&mut self, at: usize) -> Option<Array> {
        self.arrays.as_mut()?.get_mut(at)?.take()
    }

    /// The place among its files of the one with this extension.
    ///
    /// Errors: `Corrupt`.
    pub fn find(&self, extension: &[u8]) -> Result<Option<usize>> {
        for (at, file) in self.files.iter().enumerate() {
            if self.shard.grouping.split(self.shard.index.file(file)?.path).1 == extension {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// Bytes of all its files.
    ///
    /// Errors: `Corrupt`.
    pub fn payload_bytes(&self) -> Result<u64> {
        self.files.iter().map(|file| Ok(self.shard.index.file(file)?.length)).sum()
    }

    /// Every file against its checksum in the index.
    ///
    /// Errors: `Corrupt` names the shard, the file and what to do.
    pub fn verify(&self) -> Result<()> {
        for number in self.files.iter() {
            let file = self.shard.index.file(number)?;
            let found = granary_core::crc32c(self.slice(&file)?);
            if found != file.crc32c {
                return Err(Error::new(
                    Kind::Corrupt,
                    format!(
                        "{}: {:?} at byte {} has the checksum {found:08x}, and its index says {:08x}; `granary verify` finds \
                         all such files, and the shard must be packed again",
                        self.shard.name,
                        String::from_utf8_lossy(file.path),
                        file.offset,
                        file.crc32c
                    ),
                ));
            }
        }
        Ok(())
    }

    fn file(&self, at: usize) -> Result<File<'_>> {
        match self.files.get(at) {
            Some(number) => self.shard.index.file(number),
            None => Err(Error::new(
                Kind::Invalid,
                format!("the sample has {} files; there is none at {at}", self.files.len()),
            )),
        }
    }

    /// The range that a file lies in.
    fn holding(&self, file: &File<'_>) -> Result<(u64, &Bytes)> {
        let inside = |start: u64, bytes: &Bytes| {
            start <= file.offset && file.offset + file.length <= start + bytes.len() as u64
        };
        let found = match (&self.held, &self.shard.bytes) {
            (Held::Mapped, Some(bytes)) => Some((0, bytes)).filter(|_| inside(0, bytes)),
            (Held::Mapped, None) => None,
            (Held::Fetched(ranges), _) => ranges
                .iter()
                .map(|(start, bytes)| (*start, bytes))
                .find(|(start, bytes)| inside(*start, bytes)),
        };
        found.ok_or_else(|| {
            Error::new(
                Kind::Corrupt,
                format!(
                    "{}: {:?} ends at byte {}, where the shard does not reach; it was cut, pack it again",
                    self.shard.name,
                    String::from_utf8_lossy(file.path),
                    file.offset + file.length
                ),
            )
        })
    }

    fn slice(&self, file: &File<'_>) -> Result<&[u8]> {
        let (start, bytes) = self.holding(file)?;
        let from = (file.offset - start) as usize;
        Ok(&bytes[from..from + file.length as usize])
    }
}
