//! What all uploads have in common: their turn, the PUT, and the move of the metadata's extents.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use granary_core::{BytePermit, Failpoint, Ino, Result};
use granary_meta::{Extent, Move, ObjectInfo, Place};
use granary_store::format::Sealed;

use super::inline::Copies;
use super::slots::Slot;
use crate::extent_map::clip;
use crate::tree::Shared;
use crate::util::lock;

/// Who waits for the rate looks again after this long at most: it may change.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// An object that was put, and the staged extents whose bytes are in it, each with its offset in the payload.
pub(super) struct Uploaded {
    pub sealed: Sealed,
    pub moves: Vec<Move>,
    /// Of the tiny files among them.
    pub copies: Copies,
}

impl Uploaded {
    pub fn info(&self) -> ObjectInfo {
        let i = self.sealed.info;
        ObjectInfo { id: i.id, kind: i.kind, payload_len: i.payload_len, total_len: i.total_len }
    }
}

/// The bytes of an upload whose turn it is; what is dropped before it began gives its place in the order back.
#[derive(Debug)]
pub(super) struct Paced<'a> {
    shared: &'a Shared,
    reserved: u64,
    begun: bool,
}

impl Paced<'_> {
    /// So many bytes are sent now.
    pub fn begin(&mut self, bytes: u64) {
        self.begun = true;
        lock(&self.shared.drain.pace).correct(bytes as i64 - self.reserved as i64);
    }
}

impl Drop for Paced<'_> {
    fn drop(&mut self) {
        if !self.begun {
            lock(&self.shared.drain.pace).correct(-(self.reserved as i64));
        }
    }
}

/// The time from an upload's place among those at once to its end, for the drain's rate.
#[derive(Debug)]
pub(super) struct Measured<'a> {
    shared: &'a Shared,
    /// That are in the store.
    pub bytes: u64,
}

impl Drop for Measured<'_> {
    fn drop(&mut self) {
        lock(&self.shared.drain.rate).end(self.bytes, self.shared.clock.monotonic());
    }
}

impl Shared {
    /// Waits for a place among the namespace's uploads at once.
    pub(super) async fn slot(&self) -> Slot<'_> {
        self.drain.slots.take(|| self.policy().uploads_max).await
    }

    /// Waits until the namespace may send `bytes` more.
    pub(super) async fn pace(&self, bytes: u64) -> Paced<'_> {
        let bytes_per_s = || self.policy().upload_bytes_per_s_max;
        let place = lock(&self.drain.pace).reserve(bytes, self.clock.monotonic(), bytes_per_s());
        let paced = Paced { shared: self, reserved: bytes, begun: false };
        loop {
            let wait = lock(&self.drain.pace).wait(place, self.clock.monotonic(), bytes_per_s());
            if wait == Duration::ZERO {
                return paced;
            }
            tokio::time::sleep(wait.clamp(Duration::from_millis(1), LOOK_AGAIN)).await;
        }
    }

    /// Waits until an upload may hold so many bytes.
    pub(super) async fn memory_for(&self, bytes: u64) -> (BytePermit, BytePermit) {
        // First the namespace's own share, so that it holds nothing of the others' while it waits for that.
        (self.drain.memory.acquire(bytes).await, self.memory.acquire(bytes).await)
    }

    pub(super) fn measure(&self) -> Measured<'_> {
        lock(&self.drain.rate).begin(self.clock.monotonic());
        Measured { shared: self, bytes: 0 }
    }

    /// How fast the drain is, in bytes a second; 0 while that is not known.
    pub(crate) fn drain_rate(&self) -> u64 {
        lock(&self.drain.rate).bytes_per_s(self.clock.monotonic()).unwrap_or(0)
    }

    pub(super) async fn put(&self, sealed: &Sealed) -> Result<()> {
        Failpoint::DrainBeforePut.reach();
        self.store.put(&sealed.key(), sealed.parts()).await?;
        Failpoint::DrainAfterPut.reach();
        self.drain.uploaded_bytes.fetch_add(sealed.info.total_len, Ordering::Relaxed);
        self.drain.uploaded_objects.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Puts the object into the read cache, for readers of the files in it.
    pub(super) fn keep_for_reading(&self, uploaded: &Uploaded) {
        self.reads.insert(self.ns, &uploaded.info(), &uploaded.sealed.payload, &uploaded.sealed.footer);
    }

    /// Tells the metadata where the bytes are now, then the files in use.
    pub(super) async fn relocate(&self, uploaded: &Uploaded) -> Result<()> {
        let info = uploaded.info();
        self.objects.learn(info);
        let effects = self.meta.relocate(info, uploaded.moves.clone()).await?;
        Failpoint::DrainAfterRelocate.reach();
        let mut by_ino: BTreeMap<Ino, Vec<(Extent, Place)>> = BTreeMap::new();
        for (m, parts) in uploaded.moves.iter().zip(effects) {
            for (offset, len) in parts {
                let part = clip(&m.from, offset, offset + len);
                let at = m.to_offset + (offset - m.from.offset);
                by_ino
                    .entry(m.ino)
                    .or_default()
                    .push((part, Place::Object { kind: info.kind, id: info.id, offset: at }));
            }
        }
        for (ino, parts) in by_ino {
            if let Some(file) = self.table.find(ino) {
                file.moved(&parts);
            }
        }
        Ok(())
    }
}
