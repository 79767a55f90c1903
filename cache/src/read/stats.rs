//! What the read cache counts.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counters since the cache was opened; each goes up only.
        #[derive(Debug, Default)]
        pub struct ReadStats { $($(#[$doc])* pub $name: AtomicU64,)* }

        /// [`ReadStats`] at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct ReadSnapshot { $($(#[$doc])* pub $name: u64,)* }

        impl ReadStats {
            pub fn snapshot(&self) -> ReadSnapshot {
                ReadSnapshot { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }

        impl ReadSnapshot {
            /// Every counter with its name, for a metrics registry.
            pub fn named(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

counters! {
    /// Reads of a chunk answered from memory.
    memory_hits,
    /// Reads of a chunk answered from the node's disk.
    disk_hits,
    /// Reads of a chunk that waited for the store.
    misses,
    /// GETs sent to the store, footers included.
    gets,
    /// Bytes these GETs brought, footers included.
    fetched_bytes,
    /// Microseconds these GETs took in all, retries included.
    get_micros,
    /// Bytes on disk that left for others.
    evicted_bytes,
    /// Chunks and checksum tables on disk that were damaged and dropped.
    local_corrupt,
    /// Chunks that could not be had because the object in the store is damaged (its footer, or they themselves).
    object_corrupt,
    /// Chunks fetched ahead and read later.
    prefetch_useful,
    /// Chunks fetched ahead that left the cache unread.
    prefetch_wasted,
    /// Prefetches not made because too many waited, or memory or room on disk were short.
    prefetch_refused,
    /// Bytes of chunks fetched ahead that came; of these, those read since, and those that left the cache unread.
    prefetched_bytes,
    prefetch_used_bytes,
    prefetch_wasted_bytes,
    /// Bytes of prefetches not made.
    prefetch_refused_bytes,
    /// Bytes fetched by `granary warmup`.
    warmed_bytes,
    /// Bytes fetched because a program announced that it will read them.
    announced_bytes,
    /// Chunks that could not be kept on disk (full, failing, or larger than the budget).
    uncached,
}

pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}
