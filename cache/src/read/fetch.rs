//! Getting chunks from the store: each once however many ask, verified before anybody sees it.
//!
//! A *flight* is a chunk on its way: whoever needs the chunk finds it in the table of flights and waits for its
//! outcome. The fetch is a task of its own and goes on when the one who started it goes away (an interrupted read); the
//! flight ends when its chunk is on disk, so that nobody asks the store again in between.
//!
//! What bounds it, and why it cannot get stuck. A fetch takes one or two slots (its chunks, and the object's footer when that
//! is not known), then memory for all of its bytes at once, then asks the store, and waits for nothing else of ours: except
//! for a footer that another fetch is getting, which has all it needs already. So whoever holds a slot or memory
//! here gets on. Memory is shared with uploads, which never wait for a fetch while they hold some: a caller of
//! [`ReadCache::read`](super::ReadCache::read) must not hold a part of the budget, because the read may wait for it.
//!
//! Demand goes first ([`turns`]): what is fetched ahead waits behind it, takes at most three quarters of the slots, as many as
//! bandwidth and latency of the store call for ([`pace`]), fewer while somebody waits who would wait for them ([`courtesy`]), and is
//! given up when its turn comes while half of the memory is taken or the disk has no room for what nobody has asked for yet. A
//! chunk that somebody begins to wait for is raised.
//!
//! | module | noun |
//! |---|---|
//! | `local` | what is here already |
//! | `flight` | a chunk on its way, and a run of them |
//! | `journey` | one fetch, from its place in the queue to disk |
//! | `transfer` | what it asks of the store, and how the answer is verified |
//! | `turns`, `slots` | whose fetch is next |
//! | `pace`, `courtesy`, `ahead` | how much may be fetched that nobody waits for |
//! | `keep` | what comes and goes without a fetch |
//! | `lend` | whole chunks for another process |

mod ahead;
mod courtesy;
mod flight;
mod journey;
mod keep;
mod lend;
mod local;
mod pace;
mod slots;
mod transfer;
mod turns;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::WeakShared;
use granary_core::{ByteBudget, Clock, Error, Kind, NamespaceId, ObjectId, Result};
use granary_meta::ObjectInfo;
use granary_store::Store;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use ahead::ahead_slots;
use courtesy::Courtesy;
use flight::{Flight, Landing};
use journey::{COMPRESSED_FOOTER_BYTES, is_compressed};
pub use lend::LentChunk;
use pace::Pace;
use slots::Gate;
use transfer::FooterFuture;
pub(super) use turns::Class;

use super::disk::{ChunkKey, Disk};
use super::lru::Lru;
use super::memory::MemoryFrames;
use super::stats::{ReadStats, add};
use super::sums::{CHUNK_FRAMES, FrameSums, chunk_range};

/// Adjacent missing chunks are got by one GET of at most so many: 4 MiB, one stripe of RGW.
pub(super) const RUN_CHUNKS_MAX: usize = 4;
/// Objects whose checksums are in memory, about 1 KiB each.
const SUMS_MAX: usize = 2048;

type Shareable<T> = Result<T, Arc<Error>>;

/// What [`Fetcher`] is made of.
#[derive(Debug)]
pub(super) struct Fetcher {
    pub store: Arc<dyn Store>,
    pub disk: Disk,
    pub frames: MemoryFrames,
    pub stats: Arc<ReadStats>,
    clock: Arc<dyn Clock>,
    memory: ByteBudget,
    gate: Gate,
    slots_max: u32,
    /// Guards what is known of the store's throughput; and what it says, for those who only look.
    pace: Mutex<Pace>,
    window: AtomicU64,
    /// Guards what is known of how long readers wait.
    courtesy: Mutex<Courtesy>,
    /// Slots for what is fetched ahead, as the gate was told last.
    ahead_slots: AtomicU32,
    /// Guards the table of chunks on their way; taken before the disk's lock, never after it.
    flights: Mutex<HashMap<ChunkKey, Arc<Flight>>>,
    /// Guards the checksums of objects used last.
    sums: Mutex<Lru<ObjectId, Arc<FrameSums>>>,
    /// Guards the table of footers on their way. Weak: those who wait for one drive it.
    footers: Mutex<HashMap<ObjectId, WeakShared<FooterFuture>>>,
    runtime: Handle,
    tasks: TaskTracker,
}

impl Fetcher {
    #[allow(clippy::too_many_arguments)] // all are handed through from `ReadCache::open`
    pub fn new(
        store: Arc<dyn Store>,
        disk: Disk,
        frames: MemoryFrames,
        stats: Arc<ReadStats>,
        clock: Arc<dyn Clock>,
        memory: ByteBudget,
        fetches_max: u32,
        runtime: Handle,
    ) -> Fetcher {
        let slots_max = fetches_max.max(1);
        let pace = Pace::new((memory.max() / 2).max(1));
        Fetcher {
            store,
            disk,
            frames,
            stats,
            clock,
            memory,
            gate: Gate::new(slots_max, ahead_slots(slots_max, pace.window())),
            slots_max,
            window: AtomicU64::new(pace.window()),
            pace: Mutex::new(pace),
            courtesy: Mutex::new(Courtesy::new()),
            ahead_slots: AtomicU32::new(0),
            flights: Mutex::default(),
            sums: Mutex::new(Lru::new(SUMS_MAX)),
            footers: Mutex::default(),
            runtime,
            tasks: TaskTracker::new(),
        }
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<ChunkKey, Arc<Flight>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sums(&self) -> MutexGuard<'_, Lru<ObjectId, Arc<FrameSums>>> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn footers(&self) -> MutexGuard<'_, HashMap<ObjectId, WeakShared<FooterFuture>>> {
        self.footers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Flights of these chunks (in order), started where nobody did. `None` for a chunk that came to disk meanwhile, unless
    /// `force` says that it cannot be read there. And whether one was started.
    pub fn demand(
        self: &Arc<Self>,
        ns: NamespaceId,
        object: &ObjectInfo,
        chunks: &[u32],
        force: bool,
    ) -> (Vec<Option<Arc<Flight>>>, bool) {
        let mut found = Vec::with_capacity(chunks.len());
        let mut landings: Vec<Landing> = Vec::new();
        let mut wanted = Vec::new();
        {
            let mut flights = self.flights();
            for &index in chunks {
                let key = ChunkKey { object: object.id, index };
                if let Some(flight) = flights.get(&key) {
                    if flight.want() {
                        add(&self.stats.prefetch_useful, 1);
                        add(&self.stats.prefetched_bytes, flight.len);
                        add(&self.stats.prefetch_used_bytes, flight.len);
                    }
                    wanted.push(flight.ticket());
                    found.push(Some(flight.clone()));
                } else if !force && self.disk.contains(key) {
                    found.push(None);
                } else {
                    found.push(Some(self.depart(
                        &mut flights,
                        &mut landings,
                        ns,
                        object,
                        index,
                        Class::Demand,
                    )));
                }
            }
        }
        add(&self.stats.misses, found.iter().flatten().count() as u64);
        wanted.sort_unstable();
        wanted.dedup(); // chunks of one run have one ticket
        wanted.into_iter().for_each(|ticket| self.gate.raise(ticket));
        let started = !landings.is_empty();
        for landing in landings {
            self.start(landing, Class::Demand);
        }
        (found, started)
    }

    /// Enters a flight into the table, as part of the last run when it is next to it.
    fn depart(
        self: &Arc<Self>,
        flights: &mut HashMap<ChunkKey, Arc<Flight>>,
        landings: &mut Vec<Landing>,
        ns: NamespaceId,
        object: &ObjectInfo,
        index: u32,
        class: Class,
    ) -> Arc<Flight> {
        let (sender, outcome) = watch::channel(None);
        let range = chunk_range(index, object.payload_len);
        let flight = Arc::new(Flight::new(outcome, range.end - range.start, class));
        flights.insert(ChunkKey { object: object.id, index }, flight.clone());
        let departed = (flight.clone(), sender);
        match landings.last_mut() {
            Some(l) if l.flights.len() < RUN_CHUNKS_MAX && l.first + l.flights.len() as u32 == index => {
                l.flights.push(departed);
            }
            _ => landings.push(Landing {
                fetcher: self.clone(),
                ns,
                object: *object,
                first: index,
                flights: vec![departed],
            }),
        }
        flight
    }

    /// Fetches of these chunks what is neither here nor on its way, after all demand. How many chunks from the first on need no
    /// other call: fewer when too much waits to be fetched.
    pub fn prefetch(self: &Arc<Self>, ns: NamespaceId, object: &ObjectInfo, chunks: Range<u32>) -> u32 {
        let mut wanted = chunks.start;
        while wanted < chunks.end {
            let run = self.first_missing_run(object.id, wanted..chunks.end);
            if run.is_empty() {
                break;
            }
            let bytes = self.bytes_in_flight(object, &run);
            // None departed: too many wait, or somebody was faster; what is left is asked for again.
            if !self.has_room_ahead(ns, bytes)
                || self.depart_run(ns, object, run.clone(), Class::Ahead).is_empty()
            {
                add(&self.stats.prefetch_refused, 1);
                add(&self.stats.prefetch_refused_bytes, bytes);
                return run.start - chunks.start;
            }
            wanted = run.end;
        }
        chunks.end.saturating_sub(chunks.start)
    }

    /// Fetches in its class, announced or background, what of these chunks is not here, and returns when all is on disk: how many
    /// bytes came. What was on its way is waited for, too.
    ///
    /// Errors: those of a read; `NoSpace` when the cache does not keep what came.
    pub async fn bring(
        self: &Arc<Self>,
        ns: NamespaceId,
        object: &ObjectInfo,
        chunks: Range<u32>,
        class: Class,
    ) -> Result<u64> {
        let counter = match class {
            Class::Announced => &self.stats.announced_bytes,
            _ => &self.stats.warmed_bytes,
        };
        let (mut wanted, mut bytes) = (chunks.start, 0);
        while wanted < chunks.end {
            let run = self.first_missing_run(object.id, wanted..chunks.end);
            self.join(object.id, wanted..run.start).await?;
            let departed = self.depart_run(ns, object, run.clone(), class);
            // None: somebody else was faster, and is waited for in the next turn.
            wanted = run.start + departed.len() as u32;
            for (index, flight) in run.zip(departed) {
                flight.landed().await?;
                if !self.disk.contains(ChunkKey { object: object.id, index }) {
                    return Err(Error::new(
                        Kind::NoSpace,
                        "the node's read cache cannot keep it; free space on its disk, raise cache_bytes_max, or look at cache_shares, \
                         if that has a maximum for it or minimums for others",
                    ));
                }
                self.disk.settle(ChunkKey { object: object.id, index });
                bytes += flight.len;
                add(counter, flight.len);
            }
        }
        Ok(bytes)
    }

    /// Waits for what of these chunks is on its way, without raising it.
    async fn join(&self, object: ObjectId, chunks: Range<u32>) -> Result<()> {
        for index in chunks {
            let flight = {
                let flights = self.flights();
                let flight = flights.get(&ChunkKey { object, index }).cloned();
                flight.inspect(|flight| flight.wait_for())
            };
            if let Some(flight) = flight {
                flight.landed().await?;
            }
        }
        Ok(())
    }

    /// Enters a run into the table, up to the first chunk that somebody started meanwhile, and starts it. Empty also when too
    /// many fetches wait.
    fn depart_run(
        self: &Arc<Self>,
        ns: NamespaceId,
        object: &ObjectInfo,
        run: Range<u32>,
        class: Class,
    ) -> Vec<Arc<Flight>> {
        let (mut landings, mut departed) = (Vec::new(), Vec::new());
        {
            let mut flights = self.flights();
            for index in run {
                if !self.is_missing(&flights, ChunkKey { object: object.id, index }) {
                    break;
                }
                departed.push(self.depart(&mut flights, &mut landings, ns, object, index, class));
            }
        }
        let started = landings.pop().is_none_or(|landing| self.start(landing, class));
        if started { departed } else { Vec::new() }
    }

    /// The first adjacent chunks of a range, at most `RUN_CHUNKS_MAX`, that are neither on disk nor on their way.
    fn first_missing_run(&self, object: ObjectId, chunks: Range<u32>) -> Range<u32> {
        let flights = self.flights();
        let missing = |index: u32| self.is_missing(&flights, ChunkKey { object, index });
        let start = chunks.clone().find(|i| missing(*i)).unwrap_or(chunks.end);
        let most = chunks.end.min(start.saturating_add(RUN_CHUNKS_MAX as u32));
        start..(start..most).find(|i| !missing(*i)).unwrap_or(most)
    }

    fn is_missing(&self, flights: &HashMap<ChunkKey, Arc<Flight>>, key: ChunkKey) -> bool {
        !flights.contains_key(&key) && !self.disk.contains(key)
    }

    /// Returns when no fetch is under way.
    pub async fn idle(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.tasks.reopen();
    }
}

/// A frame's number in its object.
fn frame_number(chunk: u32, frame: u32) -> u32 {
    chunk * CHUNK_FRAMES as u32 + frame
}
