//! Trees that stay on the node: which chunks are pinned for them.
//!
//! Files' bytes move from object to object. What a compaction moves is pinned in its new place before it is there. What the drain
//! moves, and files that come and go, are looked up anew now and then: the new chunks are pinned before the old ones are let
//! go, and what both have stays.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, Weak};

use granary_core::limits::CHUNK_BYTES;
use granary_core::{Ino, ObjectId, Result};
use granary_meta::{Move, Place};

use super::warm::Counts;
use crate::tree::{Shared, Tree};
use crate::util::lock;

/// The chunks that are pinned for one tree, each once. Bounded by what pins may take of the cache.
#[derive(Debug, Default)]
pub struct PinnedChunks {
    /// Guards the set, and that what is in it is pinned once.
    chunks: Mutex<BTreeSet<(ObjectId, u32)>>,
}

/// The chunks of an object that have these bytes.
fn chunks(object: ObjectId, offset: u64, len: u64) -> impl Iterator<Item = (ObjectId, u32)> {
    let range = offset / CHUNK_BYTES..(offset + len).div_ceil(CHUNK_BYTES);
    range.map(move |index| (object, index as u32))
}

impl PinnedChunks {
    pub fn bytes(&self) -> u64 {
        lock(&self.chunks).len() as u64 * CHUNK_BYTES
    }

    fn pin(
        &self,
        shared: &Shared,
        known: &mut BTreeSet<(ObjectId, u32)>,
        chunk: (ObjectId, u32),
    ) -> Result<()> {
        if !known.contains(&chunk) {
            shared.reads.pin_chunks(shared.ns, chunk.0, chunk.1..chunk.1 + 1)?;
            known.insert(chunk);
        }
        Ok(())
    }

    /// What these moves take out of pinned chunks is pinned where it goes.
    fn follow(&self, shared: &Shared, to: ObjectId, moves: &[Move]) -> Result<()> {
        let mut known = lock(&self.chunks);
        for m in moves {
            let Place::Object { id, offset, .. } = m.from.place else { continue };
            if chunks(id, offset, m.from.len).any(|chunk| known.contains(&chunk)) {
                for chunk in chunks(to, m.to_offset, m.from.len) {
                    self.pin(shared, &mut known, chunk)?;
                }
            }
        }
        Ok(())
    }
}

/// The sets of a namespace that are in use.
#[derive(Debug, Default)]
pub(crate) struct PinnedSets {
    /// Guards the list; a set's own lock is taken after it was given back.
    sets: Mutex<Vec<Weak<PinnedChunks>>>,
}

impl PinnedSets {
    fn join(&self, set: &Arc<PinnedChunks>) {
        let mut sets = lock(&self.sets);
        if !sets.iter().any(|known| known.as_ptr() == Arc::as_ptr(set)) {
            sets.retain(|known| known.strong_count() > 0);
            sets.push(Arc::downgrade(set));
        }
    }

    fn all(&self) -> Vec<Arc<PinnedChunks>> {
        lock(&self.sets).iter().filter_map(Weak::upgrade).collect()
    }
}

impl Shared {
    /// Bytes will be in another object from now on. Where pins may take no more, the next look at the tree says so.
    pub(crate) fn pin_moved(&self, to: ObjectId, moves: &[Move]) {
        for set in self.pinned.all() {
            if let Err(e) = set.follow(self, to, moves) {
                tracing::debug!(ns = %self.ns, error = %e, "what compaction moved out of pinned chunks is not pinned yet");
            }
        }
    }
}

impl Tree {
    /// Pins the chunks of these regular files, and fetches what of them is not here.
    ///
    /// Errors: `NoSpace` when pins may not take so much of the cache; those of [`Tree::warm`].
    pub async fn pin(&self, files: &[Ino], pinned: &Arc<PinnedChunks>) -> Result<Counts> {
        let shared = self.shared();
        shared.pinned.join(pinned);
        for &ino in files {
            for (object, range) in shared.spans(ino).await? {
                let mut known = lock(&pinned.chunks);
                for chunk in chunks(object, range.start, range.end - range.start) {
                    pinned.pin(shared, &mut known, chunk)?;
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
