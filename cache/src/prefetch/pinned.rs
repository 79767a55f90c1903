//! Trees that stay on the node: which chunks are pinned for them.
//!
//! Files' bytes move from object to object (drain, compaction), so what is pinned is looked up anew now and then: the new chunks
//! are pinned before the old ones are let go, and what both have stays.

use std::collections::BTreeSet;
use std::sync::Mutex;

use granary_core::limits::CHUNK_BYTES;
use granary_core::{Ino, ObjectId, Result};

use super::warm::Counts;
use crate::tree::Tree;
use crate::util::lock;

/// The chunks that are pinned for one tree, each once. Bounded by what pins may take of the cache.
#[derive(Debug, Default)]
pub struct PinnedChunks {
    /// Guards the set, and that what is in it is pinned once.
    chunks: Mutex<BTreeSet<(ObjectId, u32)>>,
}

impl PinnedChunks {
    pub fn bytes(&self) -> u64 {
        lock(&self.chunks).len() as u64 * CHUNK_BYTES
    }
}

impl Tree {
    /// Pins the chunks of these regular files, and fetches what of them is not here.
    ///
    /// Errors: `NoSpace` when pins may not take so much of the cache; those of [`Tree::warm`].
    pub async fn pin(&self, files: &[Ino], pinned: &PinnedChunks) -> Result<Counts> {
        let shared = self.shared();
        for &ino in files {
            for (object, range) in shared.spans(ino).await? {
                let chunks = (range.start / CHUNK_BYTES) as u32..range.end.div_ceil(CHUNK_BYTES) as u32;
                let mut known = lock(&pinned.chunks);
                for index in chunks {
                    if !known.contains(&(object, index)) {
                        shared.reads.pin_chunks(shared.ns, object, index..index + 1)?;
                        known.insert((object, index));
                    }
                }
            }
        }
        self.warm(files).await
    }

    /// Lets go of them.
    pub fn unpin(&self, pinned: &PinnedChunks) {
        let shared = self.shared();
        for (object, index) in std::mem::take(&mut *lock(&pinned.chunks)) {
            shared.reads.unpin_chunks(shared.ns, object, index..index + 1);
        }
    }
}
