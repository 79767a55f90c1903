//! Room in a folder: what has to leave so that something may come.

use std::sync::atomic::Ordering;

use granary_core::NamespaceId;
use granary_core::limits::CHUNK_BYTES;

use super::state::Place;
use super::{Folder, RUN_CHUNKS};
use crate::read::policy::SMALL_SHARE;
use crate::read::stats::add;

impl Folder {
    /// Whether so much may be fetched ahead, and kept, without pushing out what was fetched ahead before: when the cache is full,
    /// half of the policy's small queue may wait for its readers; the same of a namespace that has all of its maximum.
    pub fn has_room_ahead(&self, ns: NamespaceId, bytes: u64) -> bool {
        let state = self.state();
        let (room, most) = state.policy.room_of(ns);
        let held = state.policy.held_against(ns).saturating_add(state.reserved + bytes);
        if bytes > most || held > self.budget() {
            return false;
        }
        if bytes > room {
            let ahead_max = (most / (2 * SMALL_SHARE)).max(2 * u64::from(RUN_CHUNKS) * CHUNK_BYTES);
            if state.unread.bytes_of(ns) + bytes > ahead_max {
                return false;
            }
        }
        let full = state.policy.bytes() + state.reserved + bytes > self.budget();
        let unread = state.unread.len() as u64 * CHUNK_BYTES;
        if self.failing.load(Ordering::Relaxed) {
            return false; // it would be fetched for nothing
        }
        !full || unread + bytes <= self.limits.bytes_max / (2 * SMALL_SHARE)
    }

    /// Others need the disk: makes `bytes` free beside what is always left free, if the cache takes so much. Where the rest is
    /// not enough, what minimums and pins hold leaves too: what is written has nowhere else to go, and they are in the store.
    pub fn shrink(&self, bytes: u64) {
        self.reserve(0, None, Some(bytes));
    }

    /// Makes room for `bytes` of a namespace and keeps it for the caller, who gives it back under the lock; `beside`: others need
    /// so many more than are left free always, and what minimums and pins hold leaves for them where nothing else is left.
    pub(super) fn reserve(&self, bytes: u64, ns: Option<NamespaceId>, beside: Option<u64>) -> Place {
        if let Err(e) = self.check_place() {
            if self.is_alive() {
                self.die(&e.to_string());
            }
            return Place::None;
        }
        let (free, min) = rustix::fs::statvfs(&self.dir).map_or((u64::MAX, 0), |s| {
            let total = s.f_blocks.saturating_mul(s.f_frsize);
            let min = self.limits.free_min.near(total).saturating_add(beside.unwrap_or(0));
            (s.f_bavail.saturating_mul(s.f_frsize), min)
        });
        let mut state = self.state();
        let room = state.policy.bytes().saturating_add(free).saturating_sub(min);
        let budget = self.budget().min(room);
        let mut gone = Vec::new();
        let place = state.place_for(bytes, ns, budget, &mut gone);
        let keep = budget.saturating_sub(state.reserved);
        gone.extend(state.policy.evict_to(keep, budget));
        if beside.is_some() && state.policy.bytes() > keep {
            gone.extend(state.policy.evict_all_to(keep, budget));
        }
        if beside.is_some() && state.policy.bytes() > keep {
            state.policy.unpin_all();
            gone.extend(state.policy.evict_all_to(keep, budget));
            let pinned = self.pins();
            pinned.keys().for_each(|key| state.policy.set_pinned(key, true));
        }
        let mut closed = Vec::new();
        let (mut wasted, mut wasted_bytes) = (0, 0);
        for (key, _) in &gone {
            closed.extend(state.open.remove(key));
            if let Some(bytes) = state.unread.remove(key) {
                wasted += 1;
                wasted_bytes += bytes;
                state.policy.forget_ghost(key);
            }
        }
        drop(state);
        drop(closed);
        add(&self.common.stats.prefetch_wasted, wasted);
        add(&self.common.stats.prefetch_wasted_bytes, wasted_bytes);
        add(&self.common.stats.evicted_bytes, gone.iter().map(|(_, size)| size).sum());
        self.unlink(&gone.iter().map(|(key, _)| *key).collect::<Vec<_>>());
        place
    }

    /// Bytes that may lie here.
    pub(super) fn budget(&self) -> u64 {
        self.limits.bytes_max.saturating_sub(self.beside.load(Ordering::Relaxed))
    }
}
