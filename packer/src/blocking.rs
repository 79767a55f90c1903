//! Reading shards from threads that may wait: a file of this machine, or an object through the store.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use bytes::Bytes;
use granary_core::{Error, Kind, Result};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::place::Place;

/// Bytes asked for at once when a shard is read from end to end.
const STEP_BYTES: u64 = 8 << 20;

/// A shard whose bytes are read.
#[derive(Debug)]
pub struct ShardBytes {
    place: Place,
    name: String,
    runtime: Handle,
    local: Option<(File, PathBuf)>,
    bytes: u64,
}

impl ShardBytes {
    /// Errors: `NotFound`; what disk or store says. Not to be called on a thread of the runtime.
    pub fn open(place: &Place, name: &str, runtime: &Handle) -> Result<ShardBytes> {
        let (place, name, runtime) = (place.clone(), name.to_owned(), runtime.clone());
        let Some(path) = place.local_path(&name) else {
            let bytes = runtime.block_on(place.head(&name))?.size;
            return Ok(ShardBytes { place, name, runtime, local: None, bytes });
        };
        let cannot = |e: io::Error| match e.kind() {
            io::ErrorKind::NotFound => Error::new(Kind::NotFound, format!("{} is not there", path.display())),
            _ => Error::io(format!("cannot open {}", path.display()), e),
        };
        let file = File::open(&path).map_err(cannot)?;
        let bytes = file.metadata().map_err(cannot)?.len();
        Ok(ShardBytes { place, name, runtime, local: Some((file, path)), bytes })
    }

    /// How long it is.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// For messages.
    pub fn describe(&self) -> String {
        format!("{}/{}", self.place, self.name)
    }

    /// Exactly these bytes.
    ///
    /// Errors: `Corrupt` when it has fewer; what disk or store says.
    pub fn read(&self, range: Range<u64>) -> Result<Bytes> {
        let Some((file, path)) = &self.local else {
            return self.runtime.block_on(self.place.get(&self.name, range));
        };
        if range.start > range.end || range.end > self.bytes {
            return Err(Error::new(
                Kind::Corrupt,
                format!("{} is cut: bytes {range:?} were asked of {}", path.display(), self.bytes),
            ));
        }
        let mut buffer = vec![0; (range.end - range.start) as usize];
        file.read_exact_at(&mut buffer, range.start)
            .map_err(|e| Error::io(format!("cannot read {} at byte {}", path.display(), range.start), e))?;
        Ok(buffer.into())
    }

    /// All of it, one byte after another.
    pub fn sequential(&self) -> Sequential<'_> {
        Sequential { of: self, at: 0, ready: Bytes::new(), coming: None }
    }
}

/// Reads a shard from end to end; in a bucket the next part is on its way while one is used.
#[derive(Debug)]
pub struct Sequential<'a> {
    of: &'a ShardBytes,
    /// Where what is to be asked for next begins.
    at: u64,
    ready: Bytes,
    coming: Option<JoinHandle<Result<Bytes>>>,
}

impl Sequential<'_> {
    fn ask(&mut self) -> Option<JoinHandle<Result<Bytes>>> {
        let range = self.at..self.of.bytes.min(self.at + STEP_BYTES);
        if range.is_empty() {
            return None;
        }
        self.at = range.end;
        let (place, name) = (self.of.place.clone(), self.of.name.clone());
        Some(self.of.runtime.spawn(async move { place.get(&name, range).await }))
    }

    fn refill(&mut self) -> Result<()> {
        if self.of.local.is_some() {
            let range = self.at..self.of.bytes.min(self.at + STEP_BYTES / 8);
            self.at = range.end;
            self.ready = self.of.read(range)?;
            return Ok(());
        }
        let Some(coming) = self.coming.take().or_else(|| self.ask()) else { return Ok(()) };
        self.coming = self.ask();
        let came = self.of.runtime.block_on(coming);
        self.ready =
            came.map_err(|e| Error::new(Kind::Bug, "a read was ended before it was done").with_source(e))??;
        Ok(())
    }
}

impl Drop for Sequential<'_> {
    fn drop(&mut self) {
        if let Some(coming) = &self.coming {
            coming.abort();
        }
    }
}

impl Read for Sequential<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ready.is_empty() {
            self.refill().map_err(io::Error::other)?;
        }
        let n = buffer.len().min(self.ready.len());
        buffer[..n].copy_from_slice(&self.ready[..n]);
        let _ = self.ready.split_to(n);
        Ok(n)
    }
}
