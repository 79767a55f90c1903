//! A loader's settings. Plain values, validated once.

use serde::{Deserialize, Serialize};

use granary_core::{Error, Kind, Result};

use crate::cache::CacheOptions;
use crate::order::batches::Tail;
use crate::order::shuffle::Shuffle;

/// What happens when a sample cannot be read. A store that does not answer, or refuses us, is always raised: no sample is bad then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// The batch is an error; asking again tries the batch again.
    #[default]
    Raise,
    /// The batch is shorter. One without a sample is not given.
    Skip,
    /// The next good sample of the rank's part stands in, or the one before; when there is none the batch is skipped.
    Substitute,
}

impl OnError {
    pub const NAMES: [&str; 3] = ["raise", "skip", "substitute"];

    pub fn name(self) -> &'static str {
        OnError::NAMES[self as usize]
    }
}

impl std::str::FromStr for OnError {
    type Err = Error;

    fn from_str(name: &str) -> Result<OnError> {
        match name {
            "raise" => Ok(OnError::Raise),
            "skip" => Ok(OnError::Skip),
            "substitute" => Ok(OnError::Substitute),
            other => Err(Error::new(
                Kind::Invalid,
                format!("{other:?} is no way to treat errors; it is one of {}", OnError::NAMES.join(", ")),
            )),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Samples of a global batch: of all ranks together.
    pub batch_samples: u64,
    pub seed: u64,
    /// This rank of so many.
    pub rank: u32,
    pub ranks: u32,
    /// This worker process of so many of the rank: it gives every so manieth batch of the rank. Threads are cheaper.
    pub worker: u32,
    pub workers: u32,
    pub tail: Tail,
    pub shuffle: Shuffle,
    /// How often data sets come, relative to each other; empty: by their numbers of samples.
    pub weights: Vec<f64>,
    /// Samples of an epoch, all ranks together; none: as many as the data sets have together.
    pub epoch_samples: Option<u64>,
    pub on_error: OnError,
    /// So many batches may pass one that straggles. 0: in order.
    pub overtake: u32,
    /// Batches that are ready or under way, at least and at most; between them as the consumer's waiting says.
    pub ahead_batches_min: u32,
    pub ahead_batches_max: u32,
    /// What was fetched and not given.
    pub memory_bytes_max: u64,
    /// What was decoded and not given; the batch that is given next may be beyond it.
    pub decoded_bytes_max: u64,
    /// Longest request to a store; neighbours are joined up to it, and a longer sample is got in parts, side by side.
    pub request_bytes_max: u64,
    /// Threads that read, verify, decode and make batches; 0: one a processor, up to 16.
    pub threads: u32,
    /// A folder on this machine's disk for what comes from a bucket; none: everything is fetched each epoch. Not used for what comes through the
    /// node, which has a cache.
    pub cache: Option<CacheOptions>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            batch_samples: 1,
            seed: 0,
            rank: 0,
            ranks: 1,
            worker: 0,
            workers: 1,
            tail: Tail::default(),
            shuffle: Shuffle::default(),
            weights: Vec::new(),
            epoch_samples: None,
            on_error: OnError::default(),
            overtake: 0,
            ahead_batches_min: 4,
            ahead_batches_max: 4096,
            memory_bytes_max: 768 << 20,
            // Some batches of 256 photographs of 500 x 375.
            decoded_bytes_max: 1 << 30,
            request_bytes_max: 8 << 20,
            threads: 0,
            cache: None,
        }
    }
}

impl Options {
    /// Errors: `Invalid` names the setting and its bounds.
    pub fn check(&self) -> Result<()> {
        let bad = |message: String| Err(Error::new(Kind::Invalid, message));
        self.shuffle.check()?;
        if let Some(cache) = &self.cache {
            cache.check()?;
        }
        for (what, this, of) in [("rank", self.rank, self.ranks), ("worker", self.worker, self.workers)] {
            if this >= of {
                return bad(format!("{what} {this} of {of} cannot be; they are numbered from 0"));
            }
        }
        if self.batch_samples < u64::from(self.ranks) {
            return bad(format!(
                "a global batch of {} samples has none for some of {} ranks; give batch size times ranks",
                self.batch_samples, self.ranks
            ));
        }
        if self.overtake > 64 {
            return bad(format!("overtake is {}; it must be 0 to 64", self.overtake));
        }
        if self.ahead_batches_min == 0 || self.ahead_batches_min > self.ahead_batches_max {
            return bad(format!(
                "ahead_batches_min is {}; it must be 1 to ahead_batches_max, {}",
                self.ahead_batches_min, self.ahead_batches_max
            ));
        }
        let memory =
            [("memory_bytes_max", self.memory_bytes_max), ("decoded_bytes_max", self.decoded_bytes_max)];
        for (what, bytes) in memory {
            if bytes < 1 << 20 {
                return bad(format!("{what} is {bytes}; it must be 1048576 or more"));
            }
        }
        if !(64 << 10..=1 << 30).contains(&self.request_bytes_max) {
            return bad(format!(
                "request_bytes_max is {}; it must be 65536 to 1073741824",
                self.request_bytes_max
            ));
        }
        Ok(())
    }
}
