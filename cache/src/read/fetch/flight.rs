//! A chunk on its way: the end of those who wait, and the end of the task that fetches it.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use granary_core::id::object_key;
use granary_core::limits::{CHUNK_BYTES, FRAME_BYTES};
use granary_core::{Error, Kind, NamespaceId, Result};
use granary_meta::ObjectInfo;
use tokio::sync::watch;

use super::{Class, Fetcher, Shareable, frame_number};
use crate::read::disk::ChunkKey;
use crate::read::stats::add;
use crate::read::sums::{FrameSums, chunk_range};

/// What a flight's waiters are told; `None` until then.
type Outcome = Option<Shareable<Bytes>>;

/// A chunk on its way.
#[derive(Debug)]
pub(in crate::read) struct Flight {
    pub(super) outcome: watch::Receiver<Outcome>,
    /// Bytes of the chunk.
    pub(super) len: u64,
    class: Class,
    /// Nobody asked for it yet.
    pub(super) ahead: AtomicBool,
    /// Somebody waits for its end; set under the lock of the table.
    wanted: AtomicBool,
    /// A reader waits for it.
    raised: AtomicBool,
    /// Its run's place in the queue; 0: it is not there yet.
    ticket: AtomicU64,
    /// The object was removed meanwhile: the chunk must not stay on disk.
    pub(super) removed: AtomicBool,
}

impl Flight {
    pub(super) fn new(outcome: watch::Receiver<Outcome>, len: u64, class: Class) -> Flight {
        Flight {
            outcome,
            len,
            class,
            ahead: (class == Class::Ahead).into(),
            wanted: (class != Class::Ahead).into(),
            raised: false.into(),
            ticket: 0.into(),
            removed: false.into(),
        }
    }

    pub(super) fn ticket(&self) -> u64 {
        self.ticket.load(Ordering::SeqCst)
    }

    /// A reader waits for it from now on; whether it is the first who asked for something fetched ahead. Under the lock of the
    /// table.
    pub(super) fn want(&self) -> bool {
        self.wait_for();
        self.raised.store(true, Ordering::SeqCst);
        self.ahead.swap(false, Ordering::SeqCst)
    }

    /// Somebody waits for it who has time. Under the lock of the table.
    pub(super) fn wait_for(&self) {
        self.wanted.store(true, Ordering::SeqCst);
    }

    /// Returns when it came and is on disk, if it can be kept there.
    pub(super) async fn landed(&self) -> Result<()> {
        self.bytes().await?;
        let mut outcome = self.outcome.clone();
        while outcome.changed().await.is_ok() {}
        Ok(())
    }

    /// The whole chunk, verified.
    pub async fn bytes(&self) -> Result<Bytes> {
        let mut outcome = self.outcome.clone();
        match outcome.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(Ok(bytes))) => Ok(bytes.clone()),
            Ok(Some(Err(e))) => Err(e.duplicate()),
            Ok(None) | Err(_) => Err(Error::new(
                Kind::Unavailable,
                "a fetch from the store was given up because the node process is stopping; try again",
            )),
        }
    }
}

/// The task's end of a run of adjacent flights. Dropping it takes them out of the table.
pub(super) struct Landing {
    pub(super) fetcher: Arc<Fetcher>,
    pub(super) ns: NamespaceId,
    pub(super) object: ObjectInfo,
    pub(super) first: u32,
    pub(super) flights: Vec<(Arc<Flight>, watch::Sender<Outcome>)>,
}

impl Landing {
    /// The error under a message that names the object.
    pub(super) fn named(&self, e: Error) -> Error {
        let key = object_key(self.ns, self.object.kind, self.object.id);
        e.context(format!("cannot read object {key} in {}", self.fetcher.store.describe()))
    }

    /// Tells its place in the queue to those who may want to raise it; the ticket, if somebody wanted to before.
    pub(super) fn board(&self, ticket: u64) -> Option<u64> {
        self.flights.iter().for_each(|(flight, _)| flight.ticket.store(ticket, Ordering::SeqCst));
        self.flights.iter().any(|(flight, _)| flight.raised.load(Ordering::SeqCst)).then_some(ticket)
    }

    /// Asked under the lock of the table, so that it stays true until that is given back.
    pub(super) fn is_wanted(&self) -> bool {
        self.flights.iter().any(|(flight, _)| flight.wanted.load(Ordering::SeqCst))
    }

    /// Takes the run out of the table; nobody knows of it any more.
    pub(super) fn withdraw(&mut self, flights: &mut HashMap<ChunkKey, Arc<Flight>>) {
        for at in 0..self.flights.len() {
            flights.remove(&self.key(at));
        }
        self.flights.clear();
    }

    fn key(&self, at: usize) -> ChunkKey {
        ChunkKey { object: self.object.id, index: self.first + at as u32 }
    }

    /// Bytes of the payload that are on their way.
    pub(super) fn range(&self) -> Range<u64> {
        let last = self.first + self.flights.len() as u32 - 1;
        chunk_range(self.first, self.object.payload_len).start..chunk_range(last, self.object.payload_len).end
    }

    pub(super) fn chunks<'a>(&'a self, bytes: &'a Bytes) -> impl Iterator<Item = (usize, Bytes)> + 'a {
        let size = CHUNK_BYTES as usize;
        (0..self.flights.len()).map(move |at| (at, bytes.slice(at * size..bytes.len().min((at + 1) * size))))
    }

    /// Tells those who wait: each chunk has its own outcome.
    pub(super) fn publish(&self, fetched: &Fetched) {
        for (at, chunk) in self.chunks(&fetched.bytes) {
            let outcome = match &fetched.bad[at] {
                None => Ok(chunk),
                Some(e) => Err(e.clone()),
            };
            self.flights[at].1.send_replace(Some(outcome));
        }
    }

    pub(super) fn publish_error(&self, e: Error) {
        let e = Arc::new(e);
        for (_, sender) in &self.flights {
            sender.send_replace(Some(Err(e.clone())));
        }
    }

    /// Writes the chunks to the cache's disk; what cannot be kept there stays in memory for a while.
    pub(super) fn keep(&self, fetched: &Fetched) {
        let (disk, id, sums) = (&self.fetcher.disk, self.object.id, &fetched.sums);
        if !disk.contains_sums(id) {
            disk.insert_sums(self.ns, sums);
        }
        for (at, chunk) in self.chunks(&fetched.bytes).filter(|(at, _)| fetched.bad[*at].is_none()) {
            let (key, flight) = (self.key(at), &self.flights[at].0);
            let ahead = flight.ahead.load(Ordering::SeqCst);
            if ahead {
                add(&self.fetcher.stats.prefetched_bytes, chunk.len() as u64);
            }
            let kept = disk.insert(self.ns, key, &[&chunk], sums.of_chunk(key.index), ahead);
            if !kept && matches!(flight.class, Class::Demand) {
                for (i, frame) in chunk.chunks(FRAME_BYTES as usize).enumerate() {
                    self.fetcher.frames.insert(
                        id,
                        frame_number(key.index, i as u32),
                        Bytes::copy_from_slice(frame),
                    );
                }
            }
        }
        if self.flights.iter().any(|(flight, _)| flight.removed.load(Ordering::SeqCst)) {
            self.fetcher.forget(id);
        }
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut flights = self.fetcher.flights();
        for at in 0..self.flights.len() {
            flights.remove(&self.key(at));
        }
    }
}

/// What came of a run.
pub(super) struct Fetched {
    pub(super) bytes: Bytes,
    pub(super) sums: Arc<FrameSums>,
    /// For each chunk why it must not be used, if so.
    pub(super) bad: Vec<Option<Arc<Error>>>,
}
