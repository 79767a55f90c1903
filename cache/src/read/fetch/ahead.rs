//! How much may be fetched that nobody waits for: the policies' word, and the room for it.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use granary_core::NamespaceId;
use granary_core::limits::CHUNK_BYTES;

#[cfg(test)]
use super::Courtesy;
use super::{Fetcher, RUN_CHUNKS_MAX};

impl Fetcher {
    /// Whether so much may be fetched that nobody asked for.
    pub(super) fn has_room_ahead(&self, ns: NamespaceId, bytes: u64) -> bool {
        self.memory.used() + bytes <= self.memory.max() / 2 && self.disk.has_room_ahead(ns, bytes)
    }

    /// A request ended: fetches ahead are as many as it takes to keep the store busy.
    pub(super) fn note_fetched(&self, bytes: u64, took: Duration) {
        let now = self.clock.monotonic();
        let window = {
            let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
            pace.on_fetched(bytes, took, now);
            pace.window()
        };
        self.window.store(window, Ordering::Relaxed);
        self.courtesy.lock().unwrap_or_else(PoisonError::into_inner).on_got(bytes, took);
        self.adjust_ahead(now);
    }

    /// Somebody begins to wait: since when.
    pub(super) fn note_asked(&self) -> Duration {
        let now = self.clock.monotonic();
        self.courtesy.lock().unwrap_or_else(PoisonError::into_inner).on_asked(now);
        self.adjust_ahead(now);
        now
    }

    /// Somebody waited for these bytes since `asked`.
    pub(super) fn note_waited(&self, bytes: u64, asked: Duration) {
        let now = self.clock.monotonic();
        self.courtesy.lock().unwrap_or_else(PoisonError::into_inner).on_demand(bytes, asked, now);
        self.adjust_ahead(now);
    }

    /// What is fetched ahead never takes all places that the store has for us: who comes then would wait in front of it.
    pub(super) fn adjust_ahead(&self, now: Duration) {
        let places = self.store.gets_at_once().map_or(self.slots_max, |places| places.min(self.slots_max));
        let most = ahead_slots(places.max(1), self.window());
        let slots = self.courtesy.lock().unwrap_or_else(PoisonError::into_inner).slots(most, now);
        if self.ahead_slots.swap(slots, Ordering::Relaxed) != slots {
            self.gate.set_ahead_max(slots);
        }
    }

    #[cfg(test)]
    pub fn gives_way_to_nobody(&self) {
        *self.courtesy.lock().unwrap_or_else(PoisonError::into_inner) = Courtesy::none();
    }

    /// Bytes that are worth having under way.
    pub fn window(&self) -> u64 {
        self.window.load(Ordering::Relaxed)
    }
}

/// Slots that fetches ahead may hold: for so many bytes under way, in runs of 4 MiB and a little, and never the last quarter.
pub(super) fn ahead_slots(slots_max: u32, window: u64) -> u32 {
    let runs =
        (window / (RUN_CHUNKS_MAX as u64 * CHUNK_BYTES)).saturating_add(2).min(u64::from(slots_max)) as u32;
    runs.min(slots_max - slots_max.div_ceil(4))
}
