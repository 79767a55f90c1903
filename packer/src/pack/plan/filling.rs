//! A shard that is being filled.

use super::{ENTRIES_MAX, ShardPlan, TAIL_BYTES};
use crate::limits::NAMES_BYTES_MAX;
use crate::pack::entry::Entry;

/// The shard that is being filled, and the sample at its end.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Filling {
    at: u64,
    pub(super) entries: u32,
    pub(super) bytes: u64,
    payload_bytes: u64,
    names_bytes: u64,
}

impl Filling {
    pub(super) fn add(&mut self, entry: &Entry, bytes: u64) {
        self.entries += 1;
        self.bytes += bytes;
        self.payload_bytes += entry.length;
        self.names_bytes += entry.path.len() as u64;
    }

    /// What is behind the first `before` of it.
    pub(super) fn since(&self, before: &Filling, at: u64) -> Filling {
        Filling {
            at,
            entries: self.entries - before.entries,
            bytes: self.bytes - before.bytes,
            payload_bytes: self.payload_bytes - before.payload_bytes,
            names_bytes: self.names_bytes - before.names_bytes,
        }
    }

    pub(super) fn fits(&self, shard_bytes: u64) -> bool {
        self.bytes + TAIL_BYTES <= shard_bytes
            && self.entries <= ENTRIES_MAX
            && self.names_bytes <= NAMES_BYTES_MAX / 2
    }

    pub(super) fn plan(&self) -> ShardPlan {
        let Filling { at, entries, bytes, payload_bytes, .. } = *self;
        ShardPlan { at, entries, bytes: bytes + TAIL_BYTES, payload_bytes }
    }
}
