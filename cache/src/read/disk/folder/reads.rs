//! Reading a folder's files: each is verified on its way out, and dropped when it is damaged.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use granary_core::limits::FRAME_BYTES;
use granary_core::{NamespaceId, ObjectId};

use super::{BadCopy, ChunkFile, ChunkKey, Folder};
use crate::read::stats::add;
use crate::read::sums::FrameSums;

impl Folder {
    /// Bytes of a chunk, verified, for who copies them elsewhere: that is no use of the chunk.
    pub fn copy_of(&self, key: ChunkKey, range: &Range<u64>) -> Option<Bytes> {
        let open = {
            let mut state = self.state();
            if !state.policy.contains(&key) {
                return None;
            }
            state.open.get(&key).cloned()
        };
        let first = (range.start / FRAME_BYTES) as u32;
        let end = range.end.div_ceil(FRAME_BYTES) as u32;
        let read = || match open {
            Some(chunk) => chunk.read_frames(first..end),
            None => ChunkFile::open(File::open(self.path(key))?, key)?.read_frames(first..end),
        };
        let bytes = read().map_err(|e| self.drop_bad_copy(key, &e)).ok()?;
        let from = (range.start % FRAME_BYTES) as usize;
        let to = from + (range.end - range.start) as usize;
        (to <= bytes.len()).then(|| bytes.slice(from..to))
    }

    /// These frames of a chunk, verified; `None` when the chunk is not here, or was damaged and is no more.
    pub fn read_frames(&self, ns: NamespaceId, key: ChunkKey, frames: Range<u32>) -> Option<Bytes> {
        let open = {
            let mut state = self.state();
            if !state.touch(ns, key, frames.start, &self.common.stats) {
                return None;
            }
            // Who reads it here says nothing of when it comes again.
            state.policy.unwant(&key);
            state.open.get(&key).cloned()
        };
        let read = || {
            let chunk = match open {
                Some(chunk) => chunk,
                None => self.open_chunk(key)?,
            };
            chunk.read_frames(frames)
        };
        let bytes = read().map_err(|e| self.drop_bad_copy(key, &e)).ok()?;
        self.works();
        Some(bytes)
    }

    /// A descriptor of a chunk's file for another process, which counts as a read of it: of its own, so that nothing that is done to it
    /// changes ours, and of the chunk that its name says. The payload is not looked at. `None` when the chunk is not here.
    pub fn lend(&self, ns: NamespaceId, key: ChunkKey) -> Option<File> {
        if !self.state().touch(ns, key, 0, &self.common.stats) {
            return None;
        }
        let open = || Ok::<_, BadCopy>(ChunkFile::open(File::open(self.path(key))?, key)?.into_file());
        let file = open().map_err(|e| self.drop_bad_copy(key, &e)).ok()?;
        self.works();
        Some(file)
    }

    fn open_chunk(&self, key: ChunkKey) -> Result<Arc<ChunkFile>, BadCopy> {
        let chunk = Arc::new(ChunkFile::open(File::open(self.path(key))?, key)?);
        let mut state = self.state();
        // Not when it was removed meanwhile: its descriptor would keep the space.
        let old = if state.policy.contains(&key) { state.open.insert(key, chunk.clone()) } else { None };
        drop(state);
        drop(old);
        Ok(chunk)
    }

    fn drop_bad_copy(&self, key: ChunkKey, why: &BadCopy) {
        let path = self.path(key);
        match why {
            BadCopy::Damaged(why) => {
                tracing::warn!(file = %path.display(), why, "dropped a damaged copy from the read cache");
                add(&self.common.stats.local_corrupt, 1);
            }
            // Somebody emptied the directory, or the race told of above: nothing to report.
            BadCopy::Disk(e) if e.kind() == io::ErrorKind::NotFound => {}
            BadCopy::Disk(e) => {
                self.failed(e);
                self.warn_once("read", &path, e);
            }
        }
        self.forget(&[key]);
    }

    pub fn read_sums(&self, ns: NamespaceId, object: ObjectId) -> Option<FrameSums> {
        let key = ChunkKey::sums(object);
        if !self.state().touch(ns, key, 0, &self.common.stats) {
            return None;
        }
        let read = || {
            let sums =
                FrameSums::decode(&fs::read(self.path(key))?).map_err(|e| BadCopy::Damaged(e.to_string()))?;
            if sums.object == object {
                Ok(sums)
            } else {
                Err(BadCopy::Damaged("it is another object's".into()))
            }
        };
        read().map_err(|e| self.drop_bad_copy(key, &e)).ok()
    }
}
