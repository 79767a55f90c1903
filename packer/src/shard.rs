//! Writing a shard: the tar's bytes to any sink, the index on the way, the trailer at the end.

use std::io::Write;
use std::path::Path;

use granary_core::{Error, Kind, Result};

use crate::index::{Builder, NewFile, NewOther, Sealed};
use crate::key::Grouping;
use crate::tar::{self, Entry, padded};
use crate::trailer::{TRAILER_BYTES, Trailer};

/// Which shard it is, for its trailer.
#[derive(Clone, Debug)]
pub struct Identity {
    pub data_set: [u8; 16],
    pub number: u32,
    /// What it is called below the data set.
    pub name: String,
}

/// A file whose header is written and whose payload is not, wholly.
#[derive(Debug)]
struct Open {
    path: Vec<u8>,
    offset: u64,
    size: u64,
    crc: u32,
    written: u64,
    mode: u32,
    mtime: i64,
    uid: u32,
    gid: u32,
}

/// Writes one shard. The same calls give the same bytes. After an error the shard is worth nothing.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    builder: Builder,
    at: u64,
    open: Option<Open>,
    scratch: Vec<u8>,
}

/// A shard whose bytes are all in the sink, not yet flushed or synced.
#[derive(Debug)]
pub struct Finished<W> {
    pub out: W,
    pub index: Sealed,
    pub trailer: Trailer,
    /// Bytes of the shard, trailer and all.
    pub bytes: u64,
}

impl<W: Write> Writer<W> {
    /// `out` is written in many small parts: give a buffered one. Large indexes take unnamed files in `work_dir`.
    pub fn new(out: W, grouping: Grouping, work_dir: &Path) -> Writer<W> {
        Writer { out, builder: Builder::new(grouping, work_dir), at: 0, open: None, scratch: Vec::new() }
    }

    /// Bytes written so far.
    pub fn bytes(&self) -> u64 {
        self.at
    }

    pub fn file_count(&self) -> u32 {
        self.builder.file_count()
    }

    pub fn sample_count(&self) -> u32 {
        self.builder.sample_count()
    }

    /// A whole file.
    ///
    /// Errors: as [`Writer::begin`], [`Writer::write`] and [`Writer::end`].
    pub fn file(&mut self, entry: &Entry<'_>, payload: &[u8]) -> Result<u32> {
        self.begin(entry)?;
        self.write(payload)?;
        self.end()
    }

    /// Writes the header of a file of `entry.size` bytes, which [`Writer::write`] brings.
    ///
    /// Errors: those of [`tar::encode`]; `Bug` while another file is open, or when it is no file; what the sink says.
    pub fn begin(&mut self, entry: &Entry<'_>) -> Result<()> {
        if self.open.is_some() || entry.kind != b'0' {
            return Err(Error::new(Kind::Bug, "a shard's file was begun within another, or is none"));
        }
        self.header(entry)?;
        self.open = Some(Open {
            path: entry.path.to_vec(),
            offset: self.at,
            size: entry.size,
            crc: 0,
            written: 0,
            mode: entry.mode,
            mtime: entry.mtime,
            uid: entry.uid,
            gid: entry.gid,
        });
        Ok(())
    }

    /// The next bytes of the payload.
    ///
    /// Errors: `Invalid` when they are more than was said; what the sink says.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(open) = &mut self.open else {
            return Err(Error::new(Kind::Bug, "bytes came for a shard's file that was not begun"));
        };
        if open.size - open.written < bytes.len() as u64 {
            return Err(resized(open, "more"));
        }
        open.crc = granary_core::crc32c_append(open.crc, bytes);
        open.written += bytes.len() as u64;
        self.put(bytes)
    }

    /// Ends the file, and returns its number.
    ///
    /// Errors: `Invalid` when bytes are missing; those of [`Builder::push`]; what the sink says.
    pub fn end(&mut self) -> Result<u32> {
        let Some(open) = self.open.take() else {
            return Err(Error::new(Kind::Bug, "a shard's file was ended that was not begun"));
        };
        if open.written != open.size {
            return Err(resized(&open, "fewer"));
        }
        let number = self.builder.push(&NewFile {
            path: &open.path,
            offset: open.offset,
            length: open.size,
            crc32c: open.crc,
            mode: open.mode,
            mtime: open.mtime,
            uid: open.uid,
            gid: open.gid,
        })?;
        let padding = (padded(open.size) - open.size) as usize;
        self.put(&tar::END[..padding])?;
        Ok(number)
    }

    /// A directory, link or pipe.
    ///
    /// Errors: as [`Writer::begin`].
    pub fn other(&mut self, entry: &Entry<'_>) -> Result<()> {
        if self.open.is_some() || entry.kind == b'0' || entry.size != 0 {
            return Err(Error::new(Kind::Bug, "a shard's directory or link came within a file, or is one"));
        }
        self.header(entry)?;
        self.builder.push_other(&NewOther {
            path: entry.path,
            target: entry.target,
            kind: entry.kind,
            mode: entry.mode,
            mtime: entry.mtime,
            uid: entry.uid,
            gid: entry.gid,
        })
    }

    /// Writes the end and the trailer, and makes the index.
    ///
    /// Errors: those of [`Builder::seal`]; what the sink says.
    pub fn finish(mut self, identity: Identity) -> Result<Finished<W>> {
        if self.open.is_some() {
            return Err(Error::new(Kind::Bug, "a shard was finished within a file"));
        }
        self.put(&tar::END)?;
        let bytes = self.at + TRAILER_BYTES as u64;
        let index = self.builder.seal(bytes)?;
        let trailer = Trailer {
            data_set: identity.data_set,
            name: identity.name,
            number: identity.number,
            files: index.header().files,
            samples: index.header().samples,
            payload_bytes: index.header().payload_bytes,
            tar_bytes: self.at,
            index_bytes: index.bytes(),
            index_crc32c: index.crc32c(),
        };
        self.out.write_all(&trailer.encode()?).map_err(cannot)?;
        Ok(Finished { out: self.out, index, trailer, bytes })
    }

    fn header(&mut self, entry: &Entry<'_>) -> Result<()> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        tar::encode(entry, &mut scratch)?;
        self.put(&scratch)?;
        self.scratch = scratch;
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(cannot)?;
        self.at += bytes.len() as u64;
        self.builder.bytes(bytes)
    }
}

fn cannot(e: std::io::Error) -> Error {
    Error::io("cannot write a shard", e)
}

fn resized(open: &Open, how: &str) -> Error {
    Error::new(
        Kind::Invalid,
        format!(
            "{:?} changed while it was read: it has {how} than the {} bytes it had; pack it again when nothing writes it",
            String::from_utf8_lossy(&open.path),
            open.size
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Index;
    use crate::tar::Members;

    fn entry(path: &str, size: usize) -> Entry<'_> {
        Entry {
            path: path.as_bytes(),
            target: b"",
            kind: b'0',
            size: size as u64,
            mode: 0o644,
            mtime: 5,
            uid: 1,
            gid: 2,
        }
    }

    fn writer() -> Writer<Vec<u8>> {
        Writer::new(Vec::new(), Grouping::Stem, &std::env::temp_dir())
    }

    fn identity() -> Identity {
        Identity { data_set: [3; 16], number: 4, name: "shards/000004.tar".to_owned() }
    }

    #[test]
    fn tar_index_and_trailer_agree() {
        let mut shard = writer();
        let payloads = [b"seven".repeat(300), Vec::new(), b"x".to_vec()];
        for (path, payload) in ["a/1.jpg", "a/1.cls", &"long/".repeat(70)].iter().zip(&payloads) {
            shard.file(&entry(path.trim_end_matches('/'), payload.len()), payload).unwrap();
        }
        shard.other(&Entry { kind: b'2', target: b"1.jpg", ..entry("a/link", 0) }).unwrap();
        let finished = shard.finish(identity()).unwrap();
        assert_eq!(finished.bytes, finished.out.len() as u64);
        let trailer = Trailer::parse_end(&finished.out, finished.bytes).unwrap();
        assert_eq!(trailer, Some(finished.trailer));
        let index = Index::from_bytes(finished.index.to_bytes().unwrap()).unwrap();
        index.verify().unwrap();
        assert_eq!((index.file_count(), index.sample_count(), index.other_count()), (3, 2, 1));
        let framed = index.framed_bytes().unwrap();
        assert_eq!(framed, finished.bytes - TRAILER_BYTES as u64);
        assert_eq!(index.frame(0).unwrap(), granary_core::crc32c(&finished.out[..framed as usize]));
        assert_eq!(index.frame(1).unwrap_err().kind(), Kind::Invalid);

        let mut members = Members::new(&finished.out[..], "s");
        for (n, payload) in payloads.iter().enumerate() {
            let member = members.next_member().unwrap().unwrap();
            let file = index.file(n as u32).unwrap();
            assert_eq!((&member.path[..], members.at(), member.size), (file.path, file.offset, file.length));
            let bytes = &finished.out[file.offset as usize..][..file.length as usize];
            assert_eq!((bytes, granary_core::crc32c(bytes)), (&payload[..], file.crc32c));
        }
        assert_eq!(members.next_member().unwrap().unwrap().target, b"1.jpg");
        assert!(members.next_member().unwrap().is_none());
    }

    #[test]
    fn files_that_change_size_are_refused() {
        let mut shard = writer();
        shard.begin(&entry("f", 3)).unwrap();
        shard.write(b"ab").unwrap();
        assert!(shard.write(b"cd").unwrap_err().to_string().contains("changed while it was read"));
        let mut shard = writer();
        shard.begin(&entry("f", 3)).unwrap();
        assert!(shard.end().unwrap_err().to_string().contains("fewer than the 3 bytes"));
    }

    #[test]
    fn an_empty_shard_is_one() {
        let finished = writer().finish(identity()).unwrap();
        assert_eq!(finished.bytes, 1024 + 512);
        let index = Index::from_bytes(finished.index.to_bytes().unwrap()).unwrap();
        index.verify().unwrap();
        assert_eq!((index.file_count(), index.sample_count()), (0, 0));
    }
}
