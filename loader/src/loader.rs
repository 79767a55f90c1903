//! Batches for training: in an order that only data, seed and epoch decide, made ahead of their use, resumed at any sample.
//!
//! ```text
//! order (which samples) -> driver (what is begun, within depth and memory) -> requests -> batches -> ready -> next_batch
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | `line` | the batches of one rank and worker as numbers from 0, over all epochs |
//! | `progress` | which of them were given |
//! | `ahead` | what is asked for together |
//! | `again` | when it is wanted again |
//! | `bounds` | how much is under way |
//! | `engine` | making batches ahead: the driver |
//! | `decoding` | files of a batch to arrays, by several threads |
//! | `ready` | those that are made |
//!
//! What is begun has two bounds: a number of batches (`depth`) and bytes (`memory_bytes_max`; what lies in mapped shards
//! counts nothing). The batch that comes next is begun without room for its bytes too: memory may be full of what comes after it. The next epoch
//! waits until this one's batches are made, so that it takes nothing of the link from what is wanted now, and a program that ends with the
//! epoch has fetched nothing for nothing; an epoch that is shorter than what may be under way does not. A batch is made as soon as its own bytes are there: one that straggles holds up those behind it only in `next_batch`, which gives
//! them first if `overtake` allows it.
//!
//! Threads and sockets belong to one process. In a child made by `fork` everything is made anew when the child first asks, and goes on from where
//! the parent was. (A thread of the parent that is within a call in the moment of `fork` may leave a lock held in the child: fork between calls.)

mod again;
pub(crate) mod ahead;
pub(crate) mod bounds;
mod decoding;
mod engine;
pub(crate) mod line;
mod progress;
mod ready;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use granary_core::{Clock, Result, SystemClock};

use crate::batch::Batch;
use crate::options::Options;
use crate::order::stream::{Stream, StreamOptions};
use crate::process::PerProcess;
use crate::source::Source;
use crate::state::{EPOCH_MAX, Setting, State};
use crate::stats::{self, Counters, Stats};

use engine::Engine;
use line::Line;
use progress::Progress;

/// What [`Loader::next_batch_within`] found.
#[derive(Debug)]
pub enum Next {
    Batch(Batch),
    /// The epoch is over; asking again begins the next.
    End,
    /// Nothing is ready yet.
    NotYet,
}

/// See the module. Methods may be called by many threads; batches go to whoever asks.
#[derive(Debug)]
pub struct Loader {
    shared: Arc<Shared>,
    /// Guards what was given; held to look at it and to change it, never while waiting.
    progress: Mutex<Progress>,
    engine: PerProcess<EngineSlot>,
    /// One caller after the other takes a batch, so that each has another.
    turn: tokio::sync::Mutex<()>,
    /// Where its tasks run; none: threads of its own.
    handle: Option<tokio::runtime::Handle>,
}

/// This process's engine; none after `load_state`, `set_epoch` or an error, until a batch is asked for.
#[derive(Debug, Default)]
struct EngineSlot(Mutex<Option<Arc<Engine>>>);

/// What engine and callers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub sources: Vec<Source>,
    pub options: Options,
    pub line: Line,
    pub counters: Arc<Counters>,
    pub clock: Arc<dyn Clock>,
    setting: Setting,
}

impl Loader {
    /// Begins at the first batch of epoch 0. Nothing is read before the first batch is asked for.
    ///
    /// Errors: `Invalid` for settings that cannot be, and for data sets without samples.
    pub fn new(sources: Vec<Source>, options: Options) -> Result<Loader> {
        Loader::new_with(sources, options, Arc::new(SystemClock), None)
    }

    /// The same by another clock, with its tasks in a runtime that the caller has: then only [`next`](Loader::next) may be used for batches.
    ///
    /// Errors: as [`Loader::new`].
    pub fn new_with(
        sources: Vec<Source>,
        options: Options,
        clock: Arc<dyn Clock>,
        handle: Option<tokio::runtime::Handle>,
    ) -> Result<Loader> {
        options.check()?;
        let stream = stream(&sources, &options)?;
        let setting = Setting {
            data: stream.digest(),
            seed: options.seed,
            batch_samples: options.batch_samples,
            shuffle: options.shuffle,
            depends_on_batch: stream.depends_on_batch(),
        };
        let line = Line::new(stream, &options)?;
        let progress = Mutex::new(Progress::new(0, 0));
        let shared = Arc::new(Shared { sources, options, line, counters: Arc::default(), clock, setting });
        Ok(Loader { shared, progress, engine: PerProcess::default(), turn: Default::default(), handle })
    }

    /// The next batch of this rank; `None` once at the end of each epoch, after which the next begins.
    ///
    /// Errors: with `on_error = raise`, the first sample's that could not be read: asking again tries the batch again.
    pub fn next_batch(&self) -> Result<Option<Batch>> {
        loop {
            // Woken now and then, so that a caller sees signals; each time only looks whether the batch is there.
            match self.next_batch_within(Duration::from_secs(3600))? {
                Next::Batch(batch) => return Ok(Some(batch)),
                Next::End => return Ok(None),
                Next::NotYet => {}
            }
        }
    }

    /// The same, waiting no longer than `time`.
    ///
    /// Errors: as [`Loader::next_batch`].
    pub fn next_batch_within(&self, time: Duration) -> Result<Next> {
        let engine = self.engine()?;
        engine.block_on(async {
            match tokio::time::timeout(time, self.take()).await {
                Ok(next) => next,
                Err(_) => Ok(Next::NotYet),
            }
        })
    }

    /// [`next_batch`](Loader::next_batch) for tasks.
    ///
    /// Errors: as [`Loader::next_batch`].
    pub async fn next(&self) -> Result<Option<Batch>> {
        match self.take().await? {
            Next::Batch(batch) => Ok(Some(batch)),
            Next::End | Next::NotYet => Ok(None),
        }
    }

    async fn take(&self) -> Result<Next> {
        let shared = &self.shared;
        let _turn = self.turn.lock().await;
        loop {
            let (epoch, wanted) = {
                let mut progress = self.progress();
                let end = shared.line.epoch_end();
                if progress.is_over(end) {
                    progress.next_epoch();
                    return Ok(Next::End);
                }
                (progress.epoch, progress.wanted(end, shared.options.overtake))
            };
            let places = wanted.iter().map(|&at| shared.line.place(epoch, at)).collect::<Vec<u64>>();
            // Each time anew: another caller may have set another place meanwhile.
            let (place, made) = self.engine()?.take(&places).await;
            let at = shared.line.of_place(place).1;
            let made = match made {
                Ok(made) => made,
                Err(e) => {
                    // The batch is tried again when it is asked for again, by an engine that begins there.
                    self.reset();
                    return Err(e);
                }
            };
            let counters = &shared.counters;
            if !self.progress().give(epoch, at) {
                // Another thread, or another place of the line meanwhile: what was taken is not wanted any more.
                continue;
            }
            Counters::add(&counters.overtaken, u64::from(at != wanted[0]));
            Counters::add(&counters.skipped, u64::from(made.batch.skipped));
            Counters::add(&counters.substituted, u64::from(made.batch.substituted));
            counters.errors(&made.errors);
            if made.batch.samples.is_empty() {
                continue;
            }
            Counters::add(&counters.batches, 1);
            Counters::add(&counters.samples, made.batch.samples.len() as u64);
            Counters::add(&counters.bytes, made.bytes);
            return Ok(Next::Batch(made.batch));
        }
    }

    /// Where it is: what was given is not given again by a loader that has this state.
    pub fn state(&self) -> State {
        let progress = self.progress();
        let number = |at| self.shared.line.number(at);
        let given = progress.given.iter().map(|&at| number(at)).collect();
        State::new(&self.shared.setting, progress.epoch, number(progress.next), given)
    }

    /// Goes on where another loader was, also one of another rank, of other numbers of ranks or of workers.
    ///
    /// Errors: `Invalid` when data, seed, shuffle or batch are not the same.
    pub fn load_state(&self, state: &State) -> Result<()> {
        let (batch, given) = state.check(&self.shared.setting)?;
        let line = &self.shared.line;
        let given = given.into_iter().filter_map(|number| line.own(number)).collect();
        let next = line.first_from(batch);
        self.reset();
        *self.progress() = Progress::with(state.epoch, next, given);
        Ok(())
    }

    /// Begins this epoch, at its first batch; of those beyond [`EPOCH_MAX`] that one. Nothing is done if the loader is there.
    pub fn set_epoch(&self, epoch: u64) {
        let epoch = epoch.min(EPOCH_MAX);
        let mut progress = self.progress();
        if (progress.epoch, progress.next, progress.given.is_empty()) != (epoch, 0, true) {
            *progress = Progress::new(epoch, 0);
            drop(progress);
            self.reset();
        }
    }

    /// The epoch that is under way.
    pub fn epoch(&self) -> u64 {
        self.progress().epoch
    }

    /// Batches that this rank and worker has in an epoch, empty ones of an uneven tail too.
    pub fn epoch_batches(&self) -> u64 {
        self.shared.line.epoch_end()
    }

    /// Samples of an epoch, all ranks together, without padding.
    pub fn epoch_samples(&self) -> u64 {
        self.shared.line.stream().epoch_samples()
    }

    pub fn options(&self) -> &Options {
        &self.shared.options
    }

    pub fn sources(&self) -> &[Source] {
        &self.shared.sources
    }

    /// What it has done since it was made.
    pub fn progress_stats(&self) -> Stats {
        let mut stats = self.shared.counters.stats();
        let of_stores = self.shared.sources.iter().map(Source::metrics);
        stats.hedges = of_stores.map(|text| stats::value_of(&text, "granary_store_hedges_total")).sum();
        if let Some(engine) = self.engine.get().and_then(|slot| slot.now()) {
            (stats.ready_batches, stats.ahead_batches) = engine.ready();
        }
        stats
    }

    /// The same, and what the stores tell, in Prometheus' text.
    pub fn metrics(&self) -> String {
        let own = self.progress_stats().prometheus();
        stats::joined([own].into_iter().chain(self.shared.sources.iter().map(Source::metrics)))
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn engine(&self) -> Result<Arc<Engine>> {
        let slot = self.engine.get_or_make(|| Ok(EngineSlot::default()))?;
        let mut slot = slot.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = &*slot {
            return Ok(engine.clone());
        }
        let from = self.progress().clone();
        let engine = Arc::new(Engine::start(self.shared.clone(), &from, self.handle.clone())?);
        *slot = Some(engine.clone());
        Ok(engine)
    }

    /// The engine ends; the next batch begins another where the progress is.
    fn reset(&self) {
        if let Some(slot) = self.engine.get() {
            *slot.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}

/// The line of samples of these data sets.
pub(crate) fn stream(sources: &[Source], options: &Options) -> Result<Stream> {
    let of_stream = StreamOptions {
        shuffle: options.shuffle,
        seed: options.seed,
        batch: options.batch_samples,
        weights: options.weights.clone(),
        epoch_samples: options.epoch_samples,
    };
    Stream::new(sources.iter().map(|source| source.shape().clone()).collect(), &of_stream)
}

impl EngineSlot {
    fn now(&self) -> Option<Arc<Engine>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
