//! One sync instead of two: the log's newest bytes go to the metadata's engine too, whose next sync makes both durable.
//!
//! Two files that are synced side by side take two to three times as long as one (measured on ext4). So an fsync of a small
//! file hands what the log has since its own last sync to the engine, if that is in this process, and syncs the engine alone.
//! The committer syncs the log once a second, and then the engine's copy is dropped. At start, before the log is looked into,
//! what the engine has is written to where it was.
//!
//! A copy that was to be dropped and came back by a power loss does no harm: its records are older than what the metadata says
//! of their inodes, as their bytes were moved, or their inodes removed, before the log let go of them.

use granary_core::{Failpoint, NodeId, Result};
use granary_meta::Metadata;
use granary_meta::types::Redo;
use tokio::sync::Mutex;

use super::Log;

/// More than this is synced sooner than it is written twice.
const ONCE_BYTES_MAX: u64 = 64 << 10;
/// Kept in the engine between two syncs of the log.
const KEPT_BYTES_MAX: u64 = 4 << 20;

/// What the engine has of the log.
#[derive(Debug, Default)]
pub(crate) struct Handed {
    /// In the order of the log; the lock is held until the engine has it in memory, never over a sync.
    kept: Mutex<Vec<Kept>>,
}

/// Bytes from `offset` to `end` of a segment.
#[derive(Clone, Copy, Debug)]
struct Kept {
    segment: u64,
    offset: u64,
    end: u64,
}

impl Handed {
    /// Hands over what the log has not synced. At return with `true` the next sync of the metadata makes every record
    /// durable that was appended before the call; with `false` the log must be synced for that.
    pub async fn hand_over(&self, log: &Log, meta: &dyn Metadata, node: NodeId) -> Result<bool> {
        let mut kept = self.kept.lock().await;
        let Some(tail) = log.unsynced() else { return Ok(false) };
        let is_synced = |k: &Kept| k.segment != tail.segment || k.end <= tail.synced;
        let (synced, mut left): (Vec<Kept>, Vec<Kept>) = kept.iter().partition(|k| is_synced(k));
        let from = left.last().map_or(tail.synced, |last| last.end);
        let more = tail.end - from;
        let all = left.iter().map(|k| k.end - k.offset).sum::<u64>() + more;
        if more > ONCE_BYTES_MAX || all > KEPT_BYTES_MAX {
            return Ok(false);
        }
        let mut keep = Vec::new();
        if more > 0 {
            let Some(bytes) = log.read(tail.segment, from, more as usize)? else { return Ok(false) };
            keep.push(Redo { segment: tail.segment, offset: from, bytes: bytes.into() });
            left.push(Kept { segment: tail.segment, offset: from, end: tail.end });
        }
        if !meta.keep_redo(node, keep, &places(&synced)).await? {
            return Ok(false);
        }
        Failpoint::LogHandedOver.reach();
        *kept = left;
        Ok(true)
    }

    /// The log was synced: drops what the engine has of it needlessly, durably with its next sync.
    pub async fn drop_synced(&self, log: &Log, meta: &dyn Metadata, node: NodeId) -> Result<()> {
        let mut kept = self.kept.lock().await;
        let Some(tail) = log.unsynced() else { return Ok(()) };
        let is_synced = |k: &Kept| k.segment != tail.segment || k.end <= tail.synced;
        let (synced, left): (Vec<Kept>, Vec<Kept>) = kept.iter().partition(|k| is_synced(k));
        if !synced.is_empty() {
            meta.keep_redo(node, Vec::new(), &places(&synced)).await?;
            *kept = left;
        }
        Ok(())
    }
}

fn places(kept: &[Kept]) -> Vec<(u64, u64)> {
    kept.iter().map(|k| (k.segment, k.offset)).collect()
}
