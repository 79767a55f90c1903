//! Decoded values, in unnamed files of the work directory until they are packed. A file takes the values of several containers, one
//! container after another, so there are as many files as threads; what a killed process leaves is nothing.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use granary_core::{Error, Kind, Result};

/// Bytes written at once.
const BUFFER_BYTES: usize = 1 << 20;

/// All values of a source.
#[derive(Debug, Default)]
pub struct Spools {
    /// Guards where the containers' values are; held for a look or a change.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Files that no thread writes, and how long each is.
    free: Vec<(Arc<File>, u64)>,
    /// Where a container's values begin.
    places: HashMap<u32, (Arc<File>, u64)>,
}

/// One container's values being kept.
#[derive(Debug)]
pub struct Spool {
    number: u32,
    dir: PathBuf,
    file: Arc<File>,
    base: u64,
    /// Bytes of it so far, those in the buffer too.
    len: u64,
    buffer: Vec<u8>,
}

impl Spools {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets all values.
    pub fn clear(&self) {
        *self.state() = State::default();
    }

    /// Begins a container. Errors: what the disk of `dir` says.
    pub fn begin(&self, number: u32, dir: &Path) -> Result<Spool> {
        let free = self.state().free.pop();
        let (file, base) = match free {
            Some(free) => free,
            None => (Arc::new(tempfile::tempfile_in(dir).map_err(|e| cannot(dir, e))?), 0),
        };
        Ok(Spool { number, dir: dir.to_owned(), file, base, len: 0, buffer: Vec::new() })
    }

    /// The container has no more. Errors: as [`Spool::keep`].
    pub fn end(&self, mut spool: Spool) -> Result<()> {
        spool.flush()?;
        let mut state = self.state();
        state.places.insert(spool.number, (spool.file.clone(), spool.base));
        state.free.push((spool.file, spool.base + spool.len));
        Ok(())
    }

    /// Bytes that [`Spool::keep`] put `at` this place.
    ///
    /// Errors: what the disk says.
    pub fn read(&self, number: u32, at: u64, into: &mut [u8]) -> Result<()> {
        let place = self.state().places.get(&number).cloned();
        let (file, base) = place
            .ok_or_else(|| Error::new(Kind::Bug, "a Parquet file's values were read before its scan"))?;
        file.read_exact_at(into, base + at)
            .map_err(|e| Error::io("cannot read values back from the work directory", e))
    }
}

impl Spool {
    /// Keeps a value, and tells where among the container's.
    ///
    /// Errors: what the disk says.
    pub fn keep(&mut self, value: &[u8]) -> Result<u64> {
        let at = self.len;
        self.buffer.extend_from_slice(value);
        self.len += value.len() as u64;
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush()?;
        }
        Ok(at)
    }

    fn flush(&mut self) -> Result<()> {
        let at = self.base + self.len - self.buffer.len() as u64;
        self.file.write_all_at(&self.buffer, at).map_err(|e| cannot(&self.dir, e))?;
        self.buffer.clear();
        Ok(())
    }
}

fn cannot(dir: &Path, e: std::io::Error) -> Error {
    let mend = "make room there, as much as the columns have bytes, or name another folder (--work)";
    Error::io(format!("cannot keep values in {}; {mend}", dir.display()), e)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_several_containers_are_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let spools = Spools::default();
        let large = vec![7; BUFFER_BYTES + 5];
        let mut a = spools.begin(0, dir.path()).unwrap();
        let mut b = spools.begin(5, dir.path()).unwrap();
        assert_eq!((a.keep(b"one").unwrap(), b.keep(b"x").unwrap(), a.keep(b"two").unwrap()), (0, 0, 3));
        spools.end(a).unwrap();
        let mut c = spools.begin(2, dir.path()).unwrap();
        assert_eq!((c.keep(&large).unwrap(), c.keep(b"end").unwrap()), (0, large.len() as u64));
        spools.end(b).unwrap();
        spools.end(c).unwrap();
        let read = |number, at, len| {
            let mut bytes = vec![0; len];
            spools.read(number, at, &mut bytes).map(|()| bytes)
        };
        assert_eq!(read(0, 3, 3).unwrap(), b"two");
        assert_eq!(read(5, 0, 1).unwrap(), b"x");
        assert!(read(2, 0, large.len()).unwrap() == large);
        assert_eq!(read(2, large.len() as u64, 3).unwrap(), b"end");
        assert_eq!(read(9, 0, 1).unwrap_err().kind(), Kind::Bug);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "the files have no names");
    }
}
