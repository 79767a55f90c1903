//! What is where in a folder, and what is kept free in it. Decides only; does no I/O.

use std::sync::Arc;

use granary_core::NamespaceId;

use super::{ChunkFile, ChunkKey, Unread};
use crate::read::lru::Lru;
use crate::read::policy::S3Fifo;
use crate::read::stats::{ReadStats, add};

#[derive(Debug)]
pub(super) struct State {
    pub(super) policy: S3Fifo<ChunkKey>,
    pub(super) open: Lru<ChunkKey, Arc<ChunkFile>>,
    /// All are in `policy`.
    pub(super) unread: Unread,
    /// Room made for files that are being written.
    pub(super) reserved: u64,
}

/// Whether there is room for a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Made,
    /// The disk has none, or pins have it.
    None,
    /// Its namespace has its maximum and nothing of its own can go now, or the rest is others' minimums.
    HeldByShares,
}

impl State {
    /// Takes room for `bytes` out of the budget, if there will be any once all that is not held has left. At a namespace's maximum,
    /// or when all that could leave for it is held, its own oldest leave; they are added to `gone`.
    pub(super) fn place_for(
        &mut self,
        bytes: u64,
        ns: Option<NamespaceId>,
        budget: u64,
        gone: &mut Vec<(ChunkKey, u64)>,
    ) -> Place {
        let wanted = self.reserved.saturating_add(bytes);
        if wanted.saturating_add(self.policy.pinned_bytes()) > budget {
            return Place::None;
        }
        if let Some(ns) = ns {
            gone.extend(self.policy.evict_for(ns, bytes));
            if bytes > self.policy.room_of(ns).0 {
                return Place::HeldByShares;
            }
            let short = wanted.saturating_add(self.policy.held_bytes()).saturating_sub(budget);
            if short > 0 {
                gone.extend(self.policy.evict_held_of(ns, short));
            }
            if wanted.saturating_add(self.policy.held_bytes()) > budget {
                return Place::HeldByShares;
            }
            self.policy.reserve(ns, bytes);
        }
        self.reserved = wanted;
        Place::Made
    }

    pub(super) fn touch(&mut self, ns: NamespaceId, key: ChunkKey, frame: u32, stats: &ReadStats) -> bool {
        if !self.unread.is_empty()
            && let Some(bytes) = self.unread.remove(&key)
        {
            add(&stats.prefetch_useful, 1);
            add(&stats.prefetch_used_bytes, bytes);
        }
        self.policy.touch(&key, frame, ns)
    }
}
