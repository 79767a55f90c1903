//! The folder: chunks are read, kept, listed and removed; locks are taken. Everything here waits for the disk.

use std::fs::{self, File};
use std::io::Write;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use granary_core::{Error, Result};

use super::chunk::{self, HEADER_BYTES};

const SUFFIX: &str = ".chunk";

#[derive(Debug)]
pub(crate) struct Disk {
    folder: PathBuf,
}

/// A chunk that is kept.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    /// The folder of its shard.
    pub shard: String,
    pub chunk: u64,
    pub bytes: u64,
    pub modified: SystemTime,
}

/// Held as long as it lives.
#[derive(Debug)]
pub(crate) struct Locked {
    _file: File,
}

impl Disk {
    /// Makes the folder if it is missing.
    pub fn open(folder: &Path) -> Result<Disk> {
        fs::create_dir_all(folder).map_err(|e| cannot("make the cache folder", folder, e))?;
        Ok(Disk { folder: folder.to_owned() })
    }

    fn path(&self, shard: &str, number: u64) -> PathBuf {
        self.folder.join(shard).join(format!("{number:08x}{SUFFIX}"))
    }

    /// A chunk of so many bytes; `None` when it is not there, and when it is damaged, which removes it.
    pub fn read(&self, shard: &str, number: u64, bytes: u64) -> Option<Bytes> {
        let path = self.path(shard, number);
        let file = fs::read(&path).ok()?;
        let payload = chunk::payload(file.into(), bytes);
        if payload.is_none() {
            tracing::warn!("{} is damaged; it is fetched again", path.display());
            let _ = fs::remove_file(&path);
        }
        payload
    }

    /// Keeps a chunk: whole under its name, or not.
    pub fn keep(&self, shard: &str, number: u64, payload: &[u8]) -> Result<()> {
        let folder = self.folder.join(shard);
        let cannot = |e| cannot("keep a chunk in the cache folder", &folder, e);
        fs::create_dir_all(&folder).map_err(cannot)?;
        let mut file = tempfile::Builder::new().prefix("new-").tempfile_in(&folder).map_err(cannot)?;
        file.write_all(&chunk::header(payload)).map_err(cannot)?;
        file.write_all(payload).map_err(cannot)?;
        // Not synced: what a crash leaves half is found by its checksum, and fetched again.
        file.persist(self.path(shard, number)).map_err(|e| cannot(e.error))?;
        Ok(())
    }

    /// One that is not there is no error.
    pub fn remove(&self, shard: &str, number: u64) {
        let _ = fs::remove_file(self.path(shard, number));
    }

    /// All chunks of all data sets. What is removed meanwhile is left out.
    pub fn list(&self) -> Result<Vec<Kept>> {
        let mut all = Vec::new();
        let failed = |e| cannot("list the cache folder", &self.folder, e);
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_type().is_ok_and(|kind| kind.is_dir())
                && let Ok(shard) = entry.file_name().into_string()
            {
                self.list_shard(&shard, &mut all);
            }
        }
        Ok(all)
    }

    fn list_shard(&self, shard: &str, all: &mut Vec<Kept>) {
        let Ok(entries) = fs::read_dir(self.folder.join(shard)) else { return };
        for entry in entries.flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            let (name, modified) = (entry.file_name(), meta.modified().unwrap_or(SystemTime::UNIX_EPOCH));
            let number = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
            if let Some(chunk) = number.and_then(|number| u64::from_str_radix(number, 16).ok()) {
                all.push(Kept { shard: shard.to_owned(), chunk, bytes: meta.len(), modified });
            }
        }
    }

    /// Payload bytes of one shard's chunks.
    pub fn shard_bytes(&self, shard: &str) -> Result<u64> {
        let mut all = Vec::new();
        self.list_shard(shard, &mut all);
        Ok(all.iter().map(|kept| kept.bytes.saturating_sub(HEADER_BYTES as u64)).sum())
    }

    /// Locks chunks of a shard against everybody else who locks them, other threads too. `None` when `wait` is false and somebody has one.
    pub fn lock(&self, shard: &str, chunks: Range<u64>, wait: bool) -> Result<Option<Locked>> {
        let folder = self.folder.join(shard);
        let cannot = |e| cannot("lock the cache folder", &folder, e);
        fs::create_dir_all(&folder).map_err(cannot)?;
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(folder.join("lock"))
            .map_err(cannot)?;
        // A lock of the open file (fcntl(2), "Open file description locks"): of a range, and it ends with the file.
        let range = libc::flock {
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: chunks.start as libc::off_t,
            l_len: (chunks.end - chunks.start) as libc::off_t,
            l_pid: 0,
        };
        let command = if wait { libc::F_OFD_SETLKW } else { libc::F_OFD_SETLK };
        loop {
            // SAFETY: the descriptor is open, and the kernel only reads the structure.
            if unsafe { libc::fcntl(file.as_raw_fd(), command, &range) } == 0 {
                return Ok(Some(Locked { _file: file }));
            }
            let e = std::io::Error::last_os_error();
            match e.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EAGAIN | libc::EACCES) if !wait => return Ok(None),
                _ => return Err(cannot(e)),
            }
        }
    }

    /// Who removes chunks; `None` when somebody else does.
    pub fn lock_eviction(&self) -> Result<Option<Locked>> {
        let path = self.folder.join("evict.lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(|e| cannot("lock the cache folder", &self.folder, e))?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Locked { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(cannot("lock the cache folder", &self.folder, e.into())),
        }
    }
}

fn cannot(what: &str, folder: &Path, e: std::io::Error) -> Error {
    Error::io(format!("cannot {what} {}", folder.display()), e)
}
