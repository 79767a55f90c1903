//! Where a shard's bytes go: into a file that gets its name when it is whole, or into an object put whole or in parts.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use granary_core::{Error, Failpoint, Kind, Result};
use granary_store::{Store, Upload};
use rustix::fs::FlockOperation;
use tokio::runtime::Handle;

use crate::place::Place;

/// Larger objects are put in parts.
pub const WHOLE_BYTES_MAX: u64 = 64 << 20;
/// Bytes of a part, at least.
pub const PART_BYTES_MIN: u64 = 16 << 20;
/// Where the store keeps what is being written; no data set's name begins with it.
const TEMPORARY: &str = ".granary-tmp";

/// One shard being written. Segments come in any order, from several threads.
#[derive(Debug)]
pub enum Output {
    File {
        file: File,
        temporary: PathBuf,
        path: PathBuf,
    },
    /// Guards the segments that came; held to add one.
    Whole {
        store: Arc<dyn Store>,
        runtime: Handle,
        key: String,
        segments: Mutex<BTreeMap<u32, Bytes>>,
    },
    Parts {
        upload: Upload,
        runtime: Handle,
    },
}

impl Output {
    /// A shard of `bytes` that will be called `name`.
    ///
    /// Errors: what the disk or the store says.
    pub fn create(place: &Place, name: &str, bytes: u64, runtime: &Handle) -> Result<Output> {
        if let Some(folder) = place.folder() {
            let path = folder.join(name);
            let temporary = folder.join(TEMPORARY).join(format!("pack-{}", name.replace('/', "-")));
            // What a killed pack left has this name too: it is written anew.
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&temporary);
            let file = file.map_err(|e| cannot(&path, e))?;
            return Ok(Output::File { file, temporary, path });
        }
        let store = place.store().clone();
        if bytes <= WHOLE_BYTES_MAX {
            let (runtime, key) = (runtime.clone(), name.to_owned());
            return Ok(Output::Whole { store, runtime, key, segments: Mutex::default() });
        }
        let upload = runtime.block_on(Upload::begin(store, name))?;
        Ok(Output::Parts { upload, runtime: runtime.clone() })
    }

    /// Bytes a segment should have.
    pub fn segment_bytes(place: &Place, shard_bytes: u64, wanted: u64) -> u64 {
        if place.folder().is_some() || shard_bytes <= WHOLE_BYTES_MAX {
            return wanted;
        }
        // At most 9,000 of the 10,000 parts that S3 takes.
        wanted.max(PART_BYTES_MIN).max(shard_bytes.div_ceil(9_000))
    }

    /// Writes a segment: the first `bytes` of `buffer`, from `at` on. The buffer is for other use afterwards.
    pub fn write(&self, number: u32, at: u64, buffer: &mut Vec<u8>, bytes: usize) -> Result<()> {
        match self {
            Output::File { file, path, .. } => {
                file.write_all_at(&buffer[..bytes], at).map_err(|e| cannot(path, e))
            }
            Output::Whole { segments, .. } => {
                let copy = Bytes::copy_from_slice(&buffer[..bytes]);
                segments.lock().unwrap_or_else(PoisonError::into_inner).insert(number, copy);
                Ok(())
            }
            Output::Parts { upload, runtime } => {
                let mut whole = std::mem::take(buffer);
                whole.truncate(bytes);
                let part = Bytes::from(whole);
                runtime.block_on(upload.part(number, vec![part.clone()]))?;
                if let Ok(again) = part.try_into_mut() {
                    *buffer = again.into();
                }
                Ok(())
            }
        }
    }

    /// Writes the last segment and gives the shard its name, durably.
    pub fn finish(&self, number: u32, at: u64, mut last: Vec<u8>) -> Result<()> {
        let bytes = last.len();
        self.write(number, at, &mut last, bytes)?;
        Failpoint::PackBeforeShard.reach();
        match self {
            Output::File { file, temporary, path } => {
                let named = || -> io::Result<()> {
                    file.sync_all()?;
                    fs::rename(temporary, path)?;
                    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
                };
                named().map_err(|e| cannot(path, e))
            }
            Output::Whole { store, runtime, key, segments } => {
                let segments = std::mem::take(&mut *segments.lock().unwrap_or_else(PoisonError::into_inner));
                runtime.block_on(store.put(key, segments.into_values().collect()))
            }
            Output::Parts { upload, runtime } => runtime.block_on(upload.finish()),
        }
    }

    /// Drops what was written. Best effort: what cannot be dropped is never taken for a shard.
    pub fn abort(&self) {
        match self {
            Output::File { temporary, .. } => drop(fs::remove_file(temporary)),
            Output::Whole { segments, .. } => segments.lock().unwrap_or_else(PoisonError::into_inner).clear(),
            Output::Parts { upload, runtime } => {
                if let Err(e) = runtime.block_on(upload.abort()) {
                    tracing::warn!("an unfinished shard stays in the store: {e}");
                }
            }
        }
    }
}

/// Keeps other packs away from a folder; gone with the process that holds it.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Makes ready what shards are written into, and takes the folder's lock. A bucket has neither.
///
/// Errors: `Busy` while another pack writes there; what the disk says.
pub fn prepare(place: &Place) -> Result<Option<Lock>> {
    let Some(folder) = place.folder() else { return Ok(None) };
    for name in [TEMPORARY, "shards"] {
        fs::create_dir_all(folder.join(name)).map_err(|e| cannot(&folder.join(name), e))?;
    }
    let path = folder.join(TEMPORARY).join("pack.lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|e| cannot(&path, e))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(Lock { _file: file })),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::new(
            Kind::Busy,
            format!("another granary packs into {}; wait until it is done", folder.display()),
        )),
        Err(e) => Err(cannot(&path, e.into())),
    }
}

/// Removes what killed packs left, once a pack is done and nobody else writes.
pub fn tidy(place: &Place) {
    let Some(entries) = place.folder().and_then(|folder| fs::read_dir(folder.join(TEMPORARY)).ok()) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with("pack-") {
            drop(fs::remove_file(entry.path()));
        }
    }
}

fn cannot(path: &Path, e: io::Error) -> Error {
    let doing = format!("cannot write {}", path.display());
    match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::new(
            Kind::NoSpace,
            format!("{doing}: its disk is full; make room and run it again: finished shards are kept"),
        ),
        io::ErrorKind::PermissionDenied => Error::new(
            Kind::Denied,
            format!("{doing}: permission denied; pack where you have the right to write"),
        ),
        _ => Error::io(doing, e),
    }
}
