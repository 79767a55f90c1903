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

mod courtesy;
mod flight;
mod pace;
mod slots;
mod transfer;
mod turns;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::WeakShared;
use granary_core::limits::{CHUNK_BYTES, FRAME_BYTES};
use granary_core::{ByteBudget, BytePermit, Clock, Error, Kind, NamespaceId, ObjectId, Result};
use granary_meta::ObjectInfo;
use granary_store::Store;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use courtesy::Courtesy;
use flight::{Flight, Landing};
use pace::Pace;
use slots::{Gate, Place, Slots};
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

/// What a fetch holds while its bytes are in flight.
struct Permits {
    _slots: Slots,
    _memory: BytePermit,
    /// Payload and footer may be asked for at once.
    parallel: bool,
}

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

    /// Bytes `range` of a chunk from memory or disk. Reads of one or two frames leave them in memory.
    pub fn local(&self, ns: NamespaceId, key: ChunkKey, range: &Range<u64>) -> Option<Bytes> {
        let first = (range.start / FRAME_BYTES) as u32;
        let end = range.end.div_ceil(FRAME_BYTES) as u32;
        let (from, len) = ((range.start % FRAME_BYTES) as usize, (range.end - range.start) as usize);
        let (bytes, from_memory) = match end - first {
            1 => self.frame(ns, key, first)?,
            // A small file across a boundary: its neighbours are in the same two frames.
            2 if len <= FRAME_BYTES as usize => {
                let (a, a_from_memory) = self.frame(ns, key, first)?;
                let (b, b_from_memory) = self.frame(ns, key, first + 1)?;
                let joined = [a.get(from..)?, b.get(..len.checked_sub(a.len() - from)?)?].concat();
                self.count_hit(a_from_memory && b_from_memory);
                return Some(joined.into());
            }
            _ => match self.disk.read_frames(ns, key, first..end) {
                Some(bytes) => (bytes, false),
                None => (self.frames_in_memory(key, first..end)?, true),
            },
        };
        if from + len > bytes.len() {
            return None; // the copy is of a shorter object than metadata tells of; the fetch will say so
        }
        self.count_hit(from_memory);
        Some(bytes.slice(from..from + len))
    }

    fn frame(&self, ns: NamespaceId, key: ChunkKey, frame: u32) -> Option<(Bytes, bool)> {
        let number = frame_number(key.index, frame);
        if let Some(bytes) = self.frames.get(key.object, number) {
            self.disk.touch_soon(ns, key, frame);
            return Some((bytes, true));
        }
        let bytes = self.disk.read_frames(ns, key, frame..frame + 1)?;
        self.frames.insert(key.object, number, bytes.clone());
        Some((bytes, false))
    }

    /// Where chunks that the disk did not take are.
    fn frames_in_memory(&self, key: ChunkKey, frames: Range<u32>) -> Option<Bytes> {
        let mut joined = BytesMut::new();
        for frame in frames {
            joined.extend_from_slice(&self.frames.get(key.object, frame_number(key.index, frame))?);
        }
        Some(joined.freeze())
    }

    fn count_hit(&self, from_memory: bool) {
        add(if from_memory { &self.stats.memory_hits } else { &self.stats.disk_hits }, 1);
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

    /// Puts a run into the queue; `false`, and the run is over, when too many wait there.
    fn start(self: &Arc<Self>, landing: Landing, class: Class) -> bool {
        let apart = self.is_footer_apart(&landing);
        // The footer that another fetch is getting costs nothing.
        let slots = if apart && !self.footers().contains_key(&landing.object.id) { 2 } else { 1 };
        let slots = slots.min(self.slots_max);
        let place = match self.gate.enter(landing.ns, class, slots) {
            Some(place) => place,
            None => match self.give_up(landing) {
                None => return false,
                // Somebody began to wait for it.
                Some(wanted) => return self.start(wanted, Class::Demand),
            },
        };
        let raise = landing.board(place.ticket);
        let asked = (class == Class::Demand).then(|| self.note_asked());
        self.tasks
            .spawn_on(self.clone().fly(landing, place, apart && self.slots_max > 1, asked), &self.runtime);
        if let Some(ticket) = raise {
            self.gate.raise(ticket);
        }
        true
    }

    /// Ends a run that nobody waits for; given back when somebody does.
    fn give_up(&self, mut landing: Landing) -> Option<Landing> {
        let mut flights = self.flights();
        if landing.is_wanted() {
            return Some(landing);
        }
        landing.withdraw(&mut flights);
        None
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

    /// Whether so much may be fetched that nobody asked for.
    fn has_room_ahead(&self, ns: NamespaceId, bytes: u64) -> bool {
        self.memory.used() + bytes <= self.memory.max() / 2 && self.disk.has_room_ahead(ns, bytes)
    }

    /// Memory that a run takes.
    fn bytes_in_flight(&self, object: &ObjectInfo, run: &Range<u32>) -> u64 {
        let from = chunk_range(run.start, object.payload_len).start;
        let payload = chunk_range(run.end - 1, object.payload_len).end - from;
        in_flight(object, payload) + footer_len(object)
    }

    /// Whether the run's footer is to be asked for beside it. Of a compressed object both cannot be asked for at once.
    fn is_footer_apart(&self, landing: &Landing) -> bool {
        self.known_sums(landing.ns, &landing.object).is_none()
            && landing.range().end < landing.object.payload_len
            && !is_compressed(&landing.object)
    }

    /// Memory for a run whose turn has come; `None` when it is not worth its memory now, and nobody waits for it.
    async fn memory_for(&self, landing: Landing, class: Class) -> Option<(Landing, BytePermit)> {
        let range = landing.range();
        let footer = match self.known_sums(landing.ns, &landing.object) {
            Some(_) => 0,
            None => footer_len(&landing.object),
        };
        let bytes = in_flight(&landing.object, range.end - range.start) + footer;
        let mut landing = landing;
        if class == Class::Ahead {
            let memory =
                if self.has_room_ahead(landing.ns, bytes) { self.memory.try_acquire(bytes) } else { None };
            match memory {
                Some(memory) => return Some((landing, memory)),
                None => {
                    landing = match self.give_up(landing) {
                        Some(wanted) => wanted,
                        None => {
                            add(&self.stats.prefetch_refused, 1);
                            add(&self.stats.prefetch_refused_bytes, bytes);
                            return None;
                        }
                    }
                }
            }
        }
        let memory = self.memory.acquire(bytes).await;
        Some((landing, memory))
    }

    /// One fetch, from its place in the queue to disk. `asked`: since when somebody waits for it.
    async fn fly(self: Arc<Self>, landing: Landing, place: Place, parallel: bool, asked: Option<Duration>) {
        let Some(slots) = place.turn().await else { return };
        let Some((landing, memory)) = self.memory_for(landing, slots.class).await else { return };
        let permits = Permits { _slots: slots, _memory: memory, parallel };
        match self.fetch(&landing, permits.parallel).await {
            Ok(fetched) => {
                landing.publish(&fetched);
                if let Some(asked) = asked {
                    self.note_waited(fetched.bytes.len() as u64, asked);
                }
                let keep = self.runtime.spawn_blocking(move || landing.keep(&fetched));
                if let Err(e) = keep.await
                    && e.is_panic()
                {
                    tracing::error!("writing to the read cache ended early: {e}");
                }
            }
            Err(e) => landing.publish_error(e),
        }
        drop(permits);
    }

    /// A request ended: fetches ahead are as many as it takes to keep the store busy.
    fn note_fetched(&self, bytes: u64, took: Duration) {
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
    fn note_asked(&self) -> Duration {
        let now = self.clock.monotonic();
        self.courtesy.lock().unwrap_or_else(PoisonError::into_inner).on_asked(now);
        self.adjust_ahead(now);
        now
    }

    /// Somebody waited for these bytes since `asked`.
    fn note_waited(&self, bytes: u64, asked: Duration) {
        let now = self.clock.monotonic();
        self.courtesy.lock().unwrap_or_else(PoisonError::into_inner).on_demand(bytes, asked, now);
        self.adjust_ahead(now);
    }

    /// What is fetched ahead never takes all places that the store has for us: who comes then would wait in front of it.
    fn adjust_ahead(&self, now: Duration) {
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

    /// Takes an object's chunks that are known to be right: those of `payload`, in parts.
    pub fn insert(&self, ns: NamespaceId, payload: &[Bytes], sums: FrameSums) {
        self.disk.insert_sums(ns, &sums);
        let mut parts = payload.iter().map(|part| &part[..]);
        let mut rest: &[u8] = &[];
        for index in 0..sums.payload_len.div_ceil(CHUNK_BYTES) as u32 {
            let range = chunk_range(index, sums.payload_len);
            let mut want = (range.end - range.start) as usize;
            let mut slices = Vec::new();
            while want > 0 {
                if rest.is_empty() {
                    let Some(part) = parts.next() else { return };
                    rest = part;
                }
                let (now, later) = rest.split_at(rest.len().min(want));
                slices.push(now);
                want -= now.len();
                rest = later;
            }
            let key = ChunkKey { object: sums.object, index };
            self.disk.insert(ns, key, &slices, sums.of_chunk(index), false);
        }
        self.sums().insert(sums.object, Arc::new(sums));
    }

    /// Drops these chunks of an object.
    pub fn evict(&self, object: ObjectId, chunks: Range<u32>) {
        let keys: Vec<ChunkKey> = chunks.map(|index| ChunkKey { object, index }).collect();
        self.frames.remove(object);
        self.disk.forget(&keys);
    }

    /// Drops everything of an object, what is on its way too.
    pub fn remove(&self, object: ObjectId) {
        for (key, flight) in self.flights().iter() {
            if key.object == object {
                flight.removed.store(true, Ordering::SeqCst);
            }
        }
        self.forget(object);
    }

    fn forget(&self, object: ObjectId) {
        self.sums().remove(&object);
        self.frames.remove(object);
        self.disk.remove(object);
    }

    /// Returns when no fetch is under way.
    pub async fn idle(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.tasks.reopen();
    }
}

/// Slots that fetches ahead may hold: for so many bytes under way, in runs of 4 MiB and a little, and never the last quarter.
fn ahead_slots(slots_max: u32, window: u64) -> u32 {
    let runs =
        (window / (RUN_CHUNKS_MAX as u64 * CHUNK_BYTES)).saturating_add(2).min(u64::from(slots_max)) as u32;
    runs.min(slots_max - slots_max.div_ceil(4))
}

/// What is asked for first of a compressed object's end: enough for most footers.
const COMPRESSED_FOOTER_BYTES: u64 = 64 << 10;

/// An object is compressed only if that made it shorter than its payload.
fn is_compressed(object: &ObjectInfo) -> bool {
    object.total_len < object.payload_len
}

/// Memory for so many payload bytes on their way: compressed ones are there twice for a moment.
fn in_flight(object: &ObjectInfo, payload: u64) -> u64 {
    if is_compressed(object) { 2 * payload } else { payload }
}

fn footer_len(object: &ObjectInfo) -> u64 {
    match is_compressed(object) {
        true => COMPRESSED_FOOTER_BYTES,
        false => object.total_len - object.payload_len,
    }
}

/// A frame's number in its object.
fn frame_number(chunk: u32, frame: u32) -> u32 {
    chunk * CHUNK_FRAMES as u32 + frame
}
