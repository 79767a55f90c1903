//! Making batches ahead of their use.

use std::sync::Arc;

use granary_core::{ByteBudget, BytePermit, Error, Kind, Result};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::Shared;
use super::line::{Line, Part};
use super::progress::Progress;
use super::ready::{Outcome, Ready};
use crate::batch::{Batch, Made};
use crate::cache::{Cache, Cached, Oracle};
use crate::depth::Depth;
use crate::fetch::{self, Direct, Fetched, Ranges, Rules};
use crate::options::Options;
use crate::order::shuffle::Method;
use crate::order::stream::Pick;
use crate::source::{Home, Want};
use crate::stats::Counters;

const THREADS_MAX: usize = 16;
/// What one request should bring: at 100 MB/s and 30 ms to the first byte, most of its time bytes move.
const REQUEST_BYTES: u64 = 4 << 20;
/// Stretches that memory has room for: one is given while others are fetched.
const STRETCHES: u64 = 4;

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
    ready: Arc<Ready>,
    /// Batches that are fetched together.
    stretch: u64,
}

/// A batch that is to be made, its samples each by source and place among that source's items.
#[derive(Debug)]
struct Job {
    place: u64,
    part: Part,
    samples: Vec<(usize, usize)>,
}

impl Engine {
    /// Errors: what opening a data set in this process says; threads that cannot be started.
    pub fn start(shared: Arc<Shared>, from: &Progress, handle: Option<Handle>) -> Result<Engine> {
        let homes = shared.sources.iter().map(|source| source.home()).collect::<Result<Vec<_>>>()?;
        let oracle = Arc::new(Oracle::new(shared.line.stream().clone(), &shared.sources));
        let ranges = ranges(&shared, &homes, &oracle)?;
        let mapped: Vec<bool> = homes.iter().map(|home| home.is_folder()).collect();
        let (stretch, depth) = bounds(&shared.options, &shared.line, &mapped);
        let first = shared.line.place(from.epoch, from.next);
        let taken = from.given.iter().map(|&at| shared.line.place(from.epoch, at)).collect();
        let ready = Arc::new(Ready::new(first, taken, depth, shared.clock.clone()));
        let budget = ByteBudget::new(shared.options.memory_bytes_max);
        let work = Arc::new(Work {
            shared: shared.clone(),
            homes,
            ranges,
            oracle,
            budget,
            ready: ready.clone(),
            stretch,
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
        Some(options) if homes.iter().any(|home| !home.is_folder()) => {
            Some(Arc::new(Cache::open(options, oracle.clone(), shared.clock.clone())?))
        }
        _ => None,
    };
    let part = shared.options.request_bytes_max;
    let of = |home: &Arc<Home>| -> Arc<dyn Ranges> {
        match &cache {
            Some(cache) => Arc::new(Cached::new(home.clone(), cache.clone(), part, shared.counters.clone())),
            None => Arc::new(Direct::new(home.clone(), part)),
        }
    };
    Ok(homes.iter().map(of).collect())
}

/// Threads that make batches, of a number that was set.
fn threads(set: u32) -> usize {
    match set {
        0 => std::thread::available_parallelism().map_or(1, |n| n.get()).min(THREADS_MAX),
        threads => threads as usize,
    }
}

fn runtime(threads: usize) -> Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("granary-loader")
        .enable_all()
        .build()
        .map_err(|e| Error::io("cannot start the loader's threads", e))
}

/// Batches of a stretch, and how many may be ready or under way. `mapped`: of each data set, whether its bytes are lent.
pub(crate) fn bounds(options: &Options, line: &Line, mapped: &[bool]) -> (u64, Depth) {
    let (min, max) = (u64::from(options.ahead_batches_min), u64::from(options.ahead_batches_max));
    if mapped.iter().all(|mapped| *mapped) {
        // Making one is work and no waiting: more than keep all threads busy only take memory.
        let threads = threads(options.threads) as u64;
        return (1, Depth::new(min.max(2 * threads), max.min(8 * threads)));
    }
    let (mut bytes, mut samples, mut lanes) = (0, 0, 0);
    for (source, mapped) in mapped.iter().enumerate() {
        let order = line.stream().order(source);
        bytes += order.shape().bytes();
        samples += order.shape().samples();
        lanes += if *mapped { 0 } else { order.lanes() };
    }
    let batch_bytes = (bytes / samples.max(1) * line.part_samples()).max(1);
    let own_lanes = lanes.div_ceil(u64::from(options.ranks)).max(1);
    let fits = (options.memory_bytes_max / batch_bytes).max(1);
    let long = (REQUEST_BYTES * own_lanes).div_ceil(batch_bytes);
    // Samples from anywhere are near each other only when most of the data set is wanted.
    let whole = mapped
        .iter()
        .enumerate()
        .any(|(source, mapped)| !mapped && line.stream().order(source).method() == Method::Full);
    let long = if whole { line.epoch_end() } else { long };
    // No further than the next epoch: what is small is not fetched again and again for nothing.
    let stretch = long.min(fits / STRETCHES).min(max / 2).min(line.epoch_end()).max(1);
    (stretch, Depth::new(min.max(2 * stretch), max.min(fits)))
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
    let mut tasks = JoinSet::new();
    let mut place = first;
    loop {
        if !work.ready.may_begin(place).await {
            place += 1;
            continue;
        }
        let batches = work.stretch.min(line.left(place));
        while tasks.try_join_next().is_some() {}
        begin(&work, place, batches, &mut tasks).await;
        place += batches;
    }
}

/// Looks up and fetches a stretch's samples together, and makes each batch when its own are there.
async fn begin(work: &Arc<Work>, place: u64, batches: u64, tasks: &mut JoinSet<()>) {
    let line = &work.shared.line;
    let mut wants: Vec<Vec<Want>> = vec![Vec::new(); work.homes.len()];
    let mut jobs = Vec::with_capacity(batches as usize);
    let from = line.part(place);
    work.oracle.begun(from.epoch, from.positions.start);
    for place in place..place + batches {
        let part = line.part(place);
        let samples = line.picks(&part).into_iter().map(|pick| wanted(work, &pick, &mut wants)).collect();
        match samples {
            Ok(samples) => jobs.push(Job { place, part, samples }),
            Err(e) => work.ready.put(place, (Err(e), None)),
        }
    }
    let rules = Rules { request_bytes_max: work.shared.options.request_bytes_max, ..Rules::default() };
    let mut fetched = Vec::with_capacity(wants.len());
    let mut planned = Vec::with_capacity(wants.len());
    let mut bytes = 0;
    for (home, wants) in work.homes.iter().zip(&wants) {
        let items = if home.is_folder() { Vec::new() } else { fetch::items(home, wants).await };
        let plan = Fetched::planned(&items, &rules);
        bytes += plan.bytes();
        let counters = &work.shared.counters;
        Counters::add(&counters.requests, plan.requests.len() as u64);
        Counters::add(&counters.request_bytes, plan.bytes());
        planned.push((items, plan));
    }
    let permit = if bytes > 0 { Some(Arc::new(work.budget.acquire(bytes).await)) } else { None };
    for (source, (items, plan)) in planned.into_iter().enumerate() {
        fetched.push(Fetched::of_plan(work.ranges[source].clone(), items, plan));
    }
    let (fetched, wants) = (Arc::new(fetched), Arc::new(wants));
    for job in jobs {
        tasks.spawn(make(work.clone(), job, fetched.clone(), wants.clone(), permit.clone()));
    }
}

fn wanted(work: &Work, pick: &Pick, wants: &mut [Vec<Want>]) -> Result<(usize, usize)> {
    let source = pick.source as usize;
    wants[source].push(work.shared.sources[source].want(pick.spot)?);
    Ok((source, wants[source].len() - 1))
}

async fn make(
    work: Arc<Work>,
    job: Job,
    fetched: Arc<Vec<Fetched>>,
    wants: Arc<Vec<Vec<Want>>>,
    permit: Option<Arc<BytePermit>>,
) {
    let mut promise = Promise { ready: &work.ready, place: job.place, kept: false };
    let mut samples = Vec::with_capacity(job.samples.len());
    for &(source, item) in &job.samples {
        let home = &work.homes[source];
        let mut sample = match home.is_folder() {
            true => home.mapped(&wants[source][item]),
            false => fetched[source].sample(item).await,
        };
        if let Ok(sample) = &mut sample {
            sample.source = source as u32;
        }
        samples.push(sample);
    }
    // The requests' own hold on their bytes ends here; samples have theirs.
    drop(fetched);
    let Job { part, .. } = job;
    let made = Batch::make(part.epoch, part.number, samples, part.padding, work.shared.options.on_error);
    promise.keep((made, permit));
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
            self.ready.put(self.place, (Err(e), None));
        }
    }
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
