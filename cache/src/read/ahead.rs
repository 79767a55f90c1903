//! What is fetched before it is asked for, on a guess.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};

use granary_core::limits::CHUNK_BYTES;
use granary_core::{NamespaceId, ObjectId};
use granary_meta::ObjectInfo;

use super::parts::chunks_within;
use super::{BEYOND_MAX, ReadCache};
use crate::prefetch::objects::{self, Objects, Wish};

impl ReadCache {
    /// Fetches in the background what of `range` is not cached, after all demand reads. Where that ends because too much waits
    /// already: from there on it is to be asked for again.
    pub fn prefetch(&self, ns: NamespaceId, object: &ObjectInfo, range: Range<u64>) -> Option<u64> {
        let chunks = chunks_within(&(range.start..range.end.min(object.payload_len)));
        let accepted = self.fetcher.prefetch(ns, object, chunks.clone());
        let refused = chunks.start + accepted;
        (refused < chunks.end).then(|| (u64::from(refused) * CHUNK_BYTES).max(range.start))
    }

    /// Bytes that are worth having under way, by what the store gave lately.
    pub fn window(&self) -> u64 {
        self.fetcher.window()
    }

    /// Objects of this namespace behind whose end reads go on: each once.
    pub(crate) fn take_beyond(&self, ns: NamespaceId) -> Vec<ObjectId> {
        if !self.has_beyond.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let mut beyond = self.beyond.lock().unwrap_or_else(PoisonError::into_inner);
        let (mine, others): (Vec<_>, Vec<_>) = beyond.drain(..).partition(|(of, _)| *of == ns);
        self.has_beyond.store(!others.is_empty(), Ordering::Relaxed);
        *beyond = others;
        mine.into_iter().map(|(_, object)| object).collect()
    }

    /// The reads of `before` will go on in this object.
    pub(crate) fn go_on(&self, ns: NamespaceId, before: ObjectId, object: &ObjectInfo) {
        let chunks = self.ahead().adopt(before, object);
        self.fetch_ahead(ns, object, chunks);
    }

    pub(super) fn ahead(&self) -> MutexGuard<'_, Objects> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the policy of a read, and does what it wishes.
    pub(super) fn tell(
        &self,
        mut ahead: MutexGuard<'_, Objects>,
        ns: NamespaceId,
        object: &ObjectInfo,
        range: &Range<u64>,
        missed: bool,
    ) {
        if range.is_empty() {
            return;
        }
        let used_bytes = self.fetcher.stats.prefetch_used_bytes.load(Ordering::Relaxed);
        let window = self.window();
        let Wish { chunks, next, beyond } =
            ahead.on_read(&objects::Read { ns, object, range, missed, window, used_bytes });
        drop(ahead);
        self.fetch_ahead(ns, object, chunks);
        if let Some(next) = next {
            self.fetch_ahead(ns, &next, Some(chunks_within(&(0..next.payload_len))));
        }
        if beyond {
            let mut beyond = self.beyond.lock().unwrap_or_else(PoisonError::into_inner);
            if beyond.len() < BEYOND_MAX {
                beyond.push((ns, object.id));
            }
            self.has_beyond.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn fetch_ahead(&self, ns: NamespaceId, object: &ObjectInfo, chunks: Option<Range<u32>>) {
        let Some(chunks) = chunks else { return };
        let accepted = self.fetcher.prefetch(ns, object, chunks.clone());
        if accepted < chunks.end - chunks.start {
            self.ahead().on_refused(object.id, chunks.start + accepted);
        }
    }
}
