//! Making batches ahead of their use.

use std::ops::Range;
use std::sync::Arc;

use granary_core::{ByteBudget, BytePermit, Error, Kind, Result};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::Shared;
use super::again::{Again, samples_in};
use super::ahead::{Ahead, Given};
use super::bounds::{Bounds, threads};
use super::decoding::Decoding;
use super::line::Part;
use super::progress::Progress;
use super::ready::{Outcome, Ready};
use crate::batch::{Batch, Made};
use crate::cache::{Cache, Cached, Oracle};
use crate::fetch::{self, Asked, Direct, Fetching, Ranges, Rules};
use crate::sample::Sample;
use crate::source::{Home, Want};
use crate::stats::Counters;

/// Tasks and threads that make batches. Dropping it ends them.
#[derive(Debug)]
pub(crate) struct Engine {
    ready: Arc<Ready>,
    shared: Arc<Shared>,
    _driver: AbortOnDropHandle<()>,
    /// None when the caller has one.
    runtime: Option<Runtime>,
}

/// What the driver and its tasks have.
#[derive(Debug)]
struct Work {
    shared: Arc<Shared>,
    homes: Vec<Arc<Home>>,
    ranges: Vec<Arc<dyn Ranges>>,
    oracle: Arc<Oracle>,
    budget: ByteBudget,
    decoding: Decoding,
    ready: Arc<Ready>,
    bounds: Bounds,
}

/// How a sample is got: from a mapped shard, or by requests; and of which data set it is.
#[derive(Debug)]
enum Getting {
    Mapped(usize, Want),
    Fetching(usize, Fetching),
}

impl Engine {
    /// Errors: what opening a data set in this process says; threads that cannot be started.
    pub fn start(shared: Arc<Shared>, from: &Progress, handle: Option<Handle>) -> Result<Engine> {
        let homes = shared.sources.iter().map(|source| source.home()).collect::<Result<Vec<_>>>()?;
        let oracle = Arc::new(Oracle::new(shared.line.stream().clone(), &shared.sources));
        let ranges = ranges(&shared, &homes, &oracle)?;
        let mapped: Vec<bool> = homes.iter().map(|home| home.is_folder()).collect();
        let bounds = Bounds::new(&shared.options, &shared.line, &mapped);
        let first = shared.line.place(from.epoch, from.next);
        let taken = from.given.iter().map(|&at| shared.line.place(from.epoch, at)).collect();
        let ready = Arc::new(Ready::new(first, taken, bounds.depth.clone(), shared.clock.clone()));
        let budget = ByteBudget::new(shared.options.memory_bytes_max);
        let work = Arc::new(Work {
            shared: shared.clone(),
            homes,
            ranges,
            oracle,
            budget,
            decoding: Decoding::new(&shared, ready.clone()),
            ready: ready.clone(),
            bounds,
        });
        let runtime = match handle {
            Some(_) => None,
            None => Some(runtime(threads(shared.options.threads))?),
        };
        let handle = handle.as_ref().or(runtime.as_ref().map(Runtime::handle));
        let driver = drive(work, first);
        let driver = match handle {
            Some(handle) => handle.spawn(driver),
            None => unreachable!("there is a runtime where there is no handle"),
        };
        Ok(Engine { ready, shared, _driver: AbortOnDropHandle::new(driver), runtime })
    }

    pub async fn take(&self, places: &[u64]) -> (u64, Result<Made>) {
        self.ready.take(places, &self.shared.counters).await
    }

    pub fn ready(&self) -> (u64, u64) {
        self.ready.counts()
    }

    /// For callers that wait.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        match &self.runtime {
            Some(runtime) => runtime.handle().block_on(future),
            None => futures::executor::block_on(future),
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Not waited for: a read of a disk may take as long as it likes.
            runtime.shutdown_background();
        }
    }
}

/// How each data set's bytes are got.
fn ranges(shared: &Shared, homes: &[Arc<Home>], oracle: &Arc<Oracle>) -> Result<Vec<Arc<dyn Ranges>>> {
    let cache = match &shared.options.cache {
        Some(options) if homes.iter().any(|home| home.wants_cache()) => {
            Some(Arc::new(Cache::open(options, oracle.clone(), shared.clock.clone())?))
        }
        _ => None,
    };
    let part = shared.options.request_bytes_max;
    let of = |home: &Arc<Home>| -> Arc<dyn Ranges> {
        match &cache {
            Some(cache) if home.wants_cache() => {
                Arc::new(Cached::new(home.clone(), cache.clone(), part, shared.counters.clone()))
            }
            _ => Arc::new(Direct::new(home.clone(), part)),
        }
    };
    Ok(homes.iter().map(of).collect())
}

fn runtime(threads: usize) -> Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("granary-loader")
        .enable_all()
        .build()
        .map_err(|e| Error::io("cannot start the loader's threads", e))
}

/// Begins batch after batch, as long as there is room.
async fn drive(work: Arc<Work>, first: u64) {
    // However it ends, nobody waits for what does not come.
    let ready = work.ready.clone();
    let _end = OnDrop(|| ready.end());
    let line = &work.shared.line;
    if line.epoch_end() == 0 {
        return;
    }
    let mut ahead = Ahead::new(work.bounds.part_bytes.clone(), work.bounds.horizon());
    let mut tasks = JoinSet::new();
    let mut place = first;
    loop {
        let new_epoch = line.of_place(place).1 == 0 && work.bounds.epoch_by_epoch;
        if !work.ready.may_begin(place, new_epoch).await {
            ahead.skip(line, place);
            place += 1;
            continue;
        }
        let batches = work.bounds.stretch.min(line.left(place));
        while tasks.try_join_next().is_some() {}
        if let Err(e) = begin(&work, &mut ahead, place, batches, &mut tasks).await {
            for place in place..place + batches {
                work.ready.put(place, (Err(e.duplicate()), Vec::new()));
            }
        }
        place += batches;
    }
}

/// Looks up and asks for a stretch's samples, and those beside them that come later; makes each batch when its own are there.
///
/// Errors: of a data set's numbers only, before anything was asked for.
async fn begin(
    work: &Arc<Work>,
    ahead: &mut Ahead<Getting>,
    place: u64,
    batches: u64,
    tasks: &mut JoinSet<()>,
) -> Result<()> {
    let line = &work.shared.line;
    let from = line.part(place);
    work.oracle.begun(from.epoch, from.positions.start);
    let step = ahead.begin(line, place..place + batches);
    let mut groups = Vec::with_capacity(work.homes.len());
    for (source, wishes) in step.wishes.iter().enumerate() {
        let wants = wishes.iter().map(|wish| work.shared.sources[source].want(wish.spot));
        groups.push(Group::new(work, source, wants.collect::<Result<Vec<Want>>>()?).await);
    }
    // In the order of the first batch that waits for each, over all data sets: see `memory`.
    let mut requests = Vec::new();
    for (source, group) in groups.iter().enumerate() {
        for (request, first) in group.plan.first_items().into_iter().enumerate() {
            // What brings nothing for the stretch itself is asked for when it is wanted.
            if first < step.own[source] {
                requests.push((step.wishes[source][first].batch, source, request, first));
            }
        }
    }
    requests.sort_by_key(|&(batch, ..)| batch);
    let options = &work.shared.options;
    let again = Again {
        line,
        ahead: &*ahead,
        asked: &step.asked,
        now: line.stream().place(from.epoch, from.positions.start),
        end: place + batches,
        loaders: u64::from(options.ranks) * u64::from(options.workers),
    };
    for &(_, source, request, first) in &requests {
        groups[source].tell(work, &again, request, first);
    }
    let mut requests = requests.into_iter().peekable();
    for (place, (part, given)) in (place..).zip(step.batches) {
        while let Some((_, source, request, _)) = requests.next_if(|&(batch, ..)| batch <= place) {
            groups[source].send(work, request, place).await;
        }
        let got = given.into_iter().map(|given| match given {
            Given::Kept(getting) => getting,
            Given::Asked(source, item) => groups[source].getting(work, item),
        });
        let samples = got.collect();
        tasks.spawn(make(work.clone(), place, part, samples));
    }
    for (source, (wishes, own)) in step.wishes.iter().zip(step.own).enumerate() {
        for (item, wish) in wishes.iter().enumerate().skip(own) {
            if groups[source].is_sent(item) {
                ahead.keep(wish, groups[source].getting(work, item));
            }
        }
    }
    Ok(())
}

/// A stretch's wishes of one data set, and what was sent for them.
struct Group {
    source: usize,
    wants: Vec<Want>,
    /// None of a folder, and those that were given away.
    items: Vec<Option<Result<fetch::Item>>>,
    plan: fetch::Plan,
    asked: Vec<Option<Arc<Asked>>>,
}

impl Group {
    async fn new(work: &Work, source: usize, wants: Vec<Want>) -> Group {
        let home = &work.homes[source];
        let items = if home.is_folder() { Vec::new() } else { fetch::items(home, &wants).await };
        let rules = Rules { request_bytes_max: work.shared.options.request_bytes_max, ..Rules::default() };
        let plan = fetch::planned(&items, &rules);
        let asked = vec![None; plan.requests.len()];
        Group { source, wants, items: items.into_iter().map(Some).collect(), plan, asked }
    }

    /// Whoever keeps the bytes of a request learns when they are wanted again. `item`: one of its own.
    fn tell(&self, work: &Work, again: &Again<'_, Getting>, number: usize, item: usize) {
        let (home, request) = (&work.homes[self.source], &self.plan.requests[number]);
        if let (true, Some(Some(Ok(item)))) = (home.is_kept_elsewhere(), self.items.get(item)) {
            let source = &work.shared.sources[self.source];
            let spots = |range: Range<u64>| {
                // Of a damaged index nothing is said; who reads the sample is told.
                let samples = samples_in(&item.shard.index, &range).unwrap_or_default();
                samples.into_iter().filter_map(|sample| source.spot(request.shard, sample)).collect()
            };
            let next = again.next(self.source, &request.range, spots);
            home.wanted_again(request.shard, &request.range, &next);
        }
    }

    /// `place`: of the first batch that waits for it.
    async fn send(&mut self, work: &Work, number: usize, place: u64) {
        let request = &self.plan.requests[number];
        let bytes = request.range.end - request.range.start;
        let memory = work.memory(bytes, place).await;
        Counters::add(&work.shared.counters.requests, 1);
        Counters::add(&work.shared.counters.request_bytes, bytes);
        self.asked[number] = Some(Asked::send(&work.ranges[self.source], request, memory));
    }

    fn is_sent(&self, item: usize) -> bool {
        self.plan.of_item.get(item).is_some_and(|of| of.iter().all(|&request| self.asked[request].is_some()))
    }

    /// Once for each item, after its requests were sent.
    fn getting(&mut self, work: &Work, item: usize) -> Getting {
        let source = self.source;
        let Some(known) = self.items.get_mut(item) else { return Getting::Mapped(source, self.wants[item]) };
        let gone = || Err(Error::new(Kind::Bug, "a sample was asked for once, and is wanted twice"));
        let known = known.take().unwrap_or_else(gone);
        let requests = self.plan.of_item[item].iter().filter_map(|&request| self.asked[request].clone());
        Getting::Fetching(source, Fetching::new(work.ranges[source].clone(), known, requests.collect()))
    }
}

impl Work {
    /// Memory for a request that the batch at `place` is the first to wait for. None for the batch that is given next: what memory is full of
    /// comes after it, and leaves after it. All batches before it have their requests, so it does become the next.
    async fn memory(&self, bytes: u64, place: u64) -> Option<BytePermit> {
        tokio::select! {
            biased;
            memory = self.budget.acquire(bytes) => Some(memory),
            () = self.ready.is_next(place) => None,
        }
    }
}

impl Getting {
    async fn sample(&self, work: &Work) -> Result<Sample> {
        let (source, sample) = match self {
            Getting::Mapped(source, want) => (source, work.homes[*source].mapped(want)),
            Getting::Fetching(source, fetching) => (source, fetching.sample().await),
        };
        sample.map(|sample| Sample { source: *source as u32, ..sample })
    }
}

async fn make(work: Arc<Work>, place: u64, part: Part, getting: Vec<Getting>) {
    let mut promise = Promise { ready: &work.ready, place, kept: false };
    let mut samples = Vec::with_capacity(getting.len());
    for one in &getting {
        samples.push(one.sample(&work).await);
    }
    let mut held: Vec<Arc<Asked>> = Vec::new();
    for one in &getting {
        if let Getting::Fetching(_, fetching) = one {
            held.extend(fetching.requests().iter().cloned());
        }
    }
    held.sort_unstable_by_key(Arc::as_ptr);
    held.dedup_by(|a, b| Arc::ptr_eq(a, b));
    drop(getting);
    let (samples, memory) = work.decoding.decoded(place, samples).await;
    let made = Batch::make(part.epoch, part.number, samples, part.padding, work.shared.options.on_error);
    promise.keep((made.map(|made| Made { _decoded: memory, ..made }), held));
}

/// A batch that somebody waits for: if its task ends without it, by a bug, that is told.
struct Promise<'a> {
    ready: &'a Ready,
    place: u64,
    kept: bool,
}

impl Promise<'_> {
    fn keep(&mut self, outcome: Outcome) {
        self.kept = true;
        self.ready.put(self.place, outcome);
    }
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        if !self.kept {
            let e = Error::new(Kind::Bug, "a batch could not be made; the log says why");
            self.ready.put(self.place, (Err(e), Vec::new()));
        }
    }
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
