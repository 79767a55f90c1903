//! `Core`: a running loader. The package's `Loader` is what users have.

use std::path::PathBuf;
use std::time::Duration;

use granary_core::{Error, Kind, Result};
use granary_loader::{CacheOptions, Decode, Method, Next, Options, Shuffle, State, Stats, cache};
use pyo3::prelude::*;
use serde::Serialize;

use crate::batch::Batch;
use crate::error::OrRaise;
use crate::source::Source;

/// How long a batch is waited for before Python is asked whether a signal came (Ctrl-C).
const SIGNALS_MS: u64 = 100;
/// What a cache folder may have when nobody says.
const CACHE_BYTES_MAX: u64 = 64 << 30;

#[pyclass(frozen, module = "granary._granary")]
pub struct Core {
    loader: granary_loader::Loader,
}

/// Numbers for a log.
#[derive(Serialize)]
struct Progress {
    epoch: u64,
    /// Of the next batch, and of how many: global ones of the epoch.
    batch: u64,
    epoch_batches: u64,
    epoch_samples: u64,
    /// What part of the data is on this machine: 1 for a folder, what the cache has for a bucket.
    readiness: f64,
    #[serde(flatten)]
    stats: Stats,
}

impl Core {
    fn readiness(&self) -> Result<f64> {
        let (mut here, mut all) = (0, 0);
        for source in self.loader.sources() {
            let bytes = source.manifest().bytes();
            all += bytes;
            here += match &self.loader.options().cache {
                _ if !source.name().starts_with("s3://") => bytes,
                Some(options) => cache::held_bytes(options, source.manifest())?.min(bytes),
                None => 0,
            };
        }
        Ok(if all == 0 { 1.0 } else { here as f64 / all as f64 })
    }

    fn progress_now(&self) -> Result<String> {
        let state = self.loader.state();
        let progress = Progress {
            epoch: state.epoch,
            batch: state.batch,
            epoch_batches: self.loader.epoch_batches(),
            epoch_samples: self.loader.epoch_samples(),
            readiness: self.readiness()?,
            stats: self.loader.progress_stats(),
        };
        serde_json::to_string(&progress)
            .map_err(|e| Error::new(Kind::Bug, "progress that is no JSON").with_source(e))
    }
}

#[pymethods]
impl Core {
    #[new]
    #[pyo3(signature = (
        sources, *, batch_size, seed, rank, ranks, worker, workers, shuffle, bucket_batches, tail, weights, epoch_samples, on_error,
        overtake, memory_bytes, decode, decoded_bytes, cache_dir, cache_bytes, threads
    ))]
    #[expect(clippy::too_many_arguments, reason = "Python's keywords")]
    fn new(
        py: Python<'_>,
        sources: Vec<Py<Source>>,
        batch_size: u64,
        seed: u64,
        rank: u32,
        ranks: u32,
        worker: u32,
        workers: u32,
        shuffle: &str,
        bucket_batches: u32,
        tail: &str,
        weights: Option<Vec<f64>>,
        epoch_samples: Option<u64>,
        on_error: &str,
        overtake: u32,
        memory_bytes: Option<u64>,
        decode: Option<&str>,
        decoded_bytes: Option<u64>,
        cache_dir: Option<PathBuf>,
        cache_bytes: Option<u64>,
        threads: Option<u32>,
    ) -> PyResult<Core> {
        let defaults = Options::default();
        let decode = decode.map(Decode::from_json).transpose().or_raise(py)?;
        let options = Options {
            batch_samples: batch_size,
            seed,
            rank,
            ranks,
            worker,
            workers,
            tail: tail.parse().or_raise(py)?,
            shuffle: Shuffle { bucket_batches, ..shuffle.parse::<Method>().or_raise(py)?.into() },
            weights: weights.unwrap_or_default(),
            epoch_samples,
            on_error: on_error.parse().or_raise(py)?,
            overtake,
            memory_bytes_max: memory_bytes.unwrap_or(defaults.memory_bytes_max),
            decoded_bytes_max: decoded_bytes.unwrap_or(defaults.decoded_bytes_max),
            threads: threads.unwrap_or(defaults.threads),
            cache: cache_dir
                .map(|folder| CacheOptions { folder, bytes_max: cache_bytes.unwrap_or(CACHE_BYTES_MAX) }),
            ..defaults
        };
        // What a data set was opened with holds, unless the loader is told another.
        let source = |source: &Py<Source>| match &decode {
            Some(_) => source.get().source().with_decode(decode.clone()),
            None => source.get().source().clone(),
        };
        let sources = sources.iter().map(source).collect();
        let loader = py.detach(|| granary_loader::Loader::new(sources, options)).or_raise(py)?;
        Ok(Core { loader })
    }

    #[getter]
    fn epoch(&self) -> u64 {
        self.loader.epoch()
    }

    #[getter]
    fn epoch_batches(&self) -> u64 {
        self.loader.epoch_batches()
    }

    /// The next batch of this epoch, or nothing at its end; then the next one's first.
    fn next(&self, py: Python<'_>) -> PyResult<Option<Batch>> {
        loop {
            let next = py.detach(|| self.loader.next_batch_within(Duration::from_millis(SIGNALS_MS)));
            match next.or_raise(py)? {
                Next::Batch(batch) => return Ok(Some(Batch::new(batch))),
                Next::End => return Ok(None),
                Next::NotYet => py.check_signals()?,
            }
        }
    }

    fn set_epoch(&self, py: Python<'_>, epoch: u64) {
        py.detach(|| self.loader.set_epoch(epoch));
    }

    /// JSON.
    fn state(&self, py: Python<'_>) -> String {
        py.detach(|| self.loader.state().to_json())
    }

    fn load_state(&self, py: Python<'_>, state: &str) -> PyResult<()> {
        py.detach(|| self.loader.load_state(&State::from_json(state)?)).or_raise(py)
    }

    /// JSON.
    fn progress(&self, py: Python<'_>) -> PyResult<String> {
        py.detach(|| self.progress_now()).or_raise(py)
    }

    fn metrics(&self, py: Python<'_>) -> String {
        py.detach(|| self.loader.metrics())
    }
}
