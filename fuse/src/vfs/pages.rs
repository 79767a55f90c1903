//! Which content version of a file the kernel's page cache holds, so that an open may keep the pages. Pages are dropped by
//! not keeping them: there is no invalidation to send.
//!
//! All changes through this mount keep the kernel's pages right (buffered writes go through them, direct writes and
//! truncations drop them), except passthrough writes, which the page cache does not see: those make the kernel forget.

use std::sync::{Mutex, MutexGuard, PoisonError};

use granary_core::Ino;

const SHARDS: usize = 64;
/// Files remembered per shard; a later file takes over the slot of an earlier one, which costs that one its pages once.
/// 64 * 16,384 * 16 bytes = 16 MiB of address space, resident as used.
const SLOTS: usize = 16_384;

/// A bounded table of inode to version.
#[derive(Debug)]
pub struct Pages {
    /// Guards the slots of its inodes, for a few instructions.
    shards: Vec<Mutex<Box<[Slot]>>>,
}

/// `ino` 0: empty.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    ino: u64,
    version: u64,
}

impl Default for Pages {
    fn default() -> Pages {
        Pages {
            shards: (0..SHARDS)
                .map(|_| Mutex::new(vec![Slot::default(); SLOTS].into_boxed_slice()))
                .collect(),
        }
    }
}

impl Pages {
    fn slot(&self, ino: Ino) -> (MutexGuard<'_, Box<[Slot]>>, usize) {
        let shard = self.shards[ino.0 as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner);
        (shard, ino.0 as usize / SHARDS % SLOTS)
    }

    /// A cached open at `version`: whether the pages that the kernel has are of that version. From now on they are.
    pub fn keep(&self, ino: Ino, version: u64) -> bool {
        let (mut shard, at) = self.slot(ino);
        let slot = &mut shard[at];
        let kept = slot.ino == ino.0 && slot.version == version;
        *slot = Slot { ino: ino.0, version };
        kept
    }

    /// The kernel has no wrong pages of a file that was created this moment.
    pub fn created(&self, ino: Ino, version: u64) {
        let (mut shard, at) = self.slot(ino);
        shard[at] = Slot { ino: ino.0, version };
    }

    /// The content changed through the kernel, from a state whose pages were right.
    pub fn changed_by_kernel(&self, ino: Ino, version: u64) {
        let (mut shard, at) = self.slot(ino);
        if shard[at].ino == ino.0 {
            shard[at].version = version;
        }
    }

    /// The content changed without the page cache: what the kernel has must be dropped at the next open.
    pub fn forget(&self, ino: Ino) {
        let (mut shard, at) = self.slot(ino);
        if shard[at].ino == ino.0 {
            shard[at] = Slot::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_kept_for_the_same_version_only() {
        let pages = Pages::default();
        let ino = Ino(70);
        assert!(!pages.keep(ino, 1), "never seen");
        assert!(pages.keep(ino, 1));
        assert!(!pages.keep(ino, 2), "changed elsewhere");
        pages.changed_by_kernel(ino, 3);
        assert!(pages.keep(ino, 3));
        pages.forget(ino);
        pages.changed_by_kernel(ino, 4);
        assert!(!pages.keep(ino, 4), "what was forgotten is not brought back by a change");
        pages.created(Ino(71), 1);
        assert!(pages.keep(Ino(71), 1));
    }

    #[test]
    fn another_file_in_the_same_slot_costs_pages_never_truth() {
        let pages = Pages::default();
        let (a, b) = (Ino(5), Ino(5 + (SHARDS * SLOTS) as u64));
        pages.created(a, 1);
        assert!(!pages.keep(b, 1));
        assert!(!pages.keep(a, 1));
        pages.forget(b);
        assert!(pages.keep(a, 1));
    }
}
