//! The files of a folder: how they are found, written and removed.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::Ordering;

use granary_core::NamespaceId;
use granary_core::limits::CHUNK_BYTES;

use super::state::Place;
use super::{ChunkKey, Folder, charge};

impl Folder {
    /// Writes a file and makes its entry. False when there is no room or the disk does not take it. `ahead`: nobody asked for
    /// these bytes of it yet.
    pub(super) fn put(
        &self,
        ns: NamespaceId,
        key: ChunkKey,
        slices: Vec<IoSlice<'_>>,
        len: u64,
        ahead: Option<u64>,
    ) -> bool {
        let size = charge(len);
        let kept = match self.reserve(size, Some(ns), None) {
            Place::Made => self.write(ns, key, slices, size, ahead),
            Place::HeldByShares => return false,
            Place::None => {
                self.warn_once("keep anything in", &self.path(key), &io::ErrorKind::StorageFull.into());
                false
            }
        };
        self.failing.store(!kept, Ordering::Relaxed);
        kept
    }

    /// Writes a file for which there is room: `size` of it, which it takes or gives back.
    pub(super) fn write(
        &self,
        ns: NamespaceId,
        key: ChunkKey,
        mut slices: Vec<IoSlice<'_>>,
        size: u64,
        ahead: Option<u64>,
    ) -> bool {
        let path = self.path(key);
        let temporary =
            path.with_file_name(format!(".new-{}", self.temporary.fetch_add(1, Ordering::Relaxed)));
        let mut write = || -> io::Result<()> {
            write_all(&mut create(&temporary)?, &mut slices)?;
            fs::rename(&temporary, &path)
        };
        let written = write();
        let mut state = self.state();
        state.reserved -= size;
        state.policy.release(ns, size);
        if let Err(e) = written {
            drop(state);
            self.failed(&e);
            self.warn_once("write to", &path, &e);
            // Its error would say no more than the first one.
            let _ = fs::remove_file(&temporary);
            return false;
        }
        if !self.is_alive() {
            return false;
        }
        state.policy.insert(key, size, ns);
        let pinned = self.pins().came(&key, size);
        state.policy.set_pinned(&key, pinned);
        if let Some(bytes) = ahead {
            state.unread.insert(key, bytes, ns);
        }
        let old = state.open.remove(&key);
        drop(state);
        drop(old);
        self.works();
        true
    }

    pub(super) fn unlink(&self, keys: &[ChunkKey]) {
        for &key in keys {
            let path = self.path(key);
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    self.failed(&e);
                    self.warn_once("delete from", &path, &e);
                }
                _ => {}
            }
        }
    }
}

/// Finds the cache's files in one of its directories and deletes every other file.
pub(super) fn scan(dir: &Path, found: &mut Vec<(ChunkKey, u64, (i64, i64))>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = match entry.metadata() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        if !metadata.is_file() {
            continue;
        }
        let key = entry.file_name().to_str().and_then(ChunkKey::parse);
        let in_place = |key: &ChunkKey| dir.ends_with(format!("{:02x}", key.object.0 & 0xff));
        match key.filter(in_place) {
            Some(key) if metadata.len() > 0 && metadata.len() <= 2 * CHUNK_BYTES => {
                found.push((key, metadata.len(), (metadata.mtime(), metadata.mtime_nsec())));
            }
            _ => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

/// A new file only its owner may read, in a directory that is made when it is missing. The cache's own directory is not: who
/// moved that away wants it back in its place.
pub(super) fn create(path: &Path) -> io::Result<File> {
    let open = || OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    match (open(), path.parent()) {
        (Err(e), Some(dir)) if e.kind() == io::ErrorKind::NotFound => {
            match DirBuilder::new().mode(0o700).create(dir) {
                // Another thread was faster.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                made => made?,
            }
            open()
        }
        (result, _) => result,
    }
}

fn write_all(file: &mut File, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    IoSlice::advance_slices(&mut slices, 0); // skips empty ones at the front
    while !slices.is_empty() {
        match file.write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => IoSlice::advance_slices(&mut slices, n),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
