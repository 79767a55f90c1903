//! How samples are shuffled: the settings.

use serde::{Deserialize, Serialize};

use granary_core::{Error, Kind, Result};

use super::buckets::BATCHES_MAX;

/// How far apart samples may be moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// As the data set has them.
    None,
    /// Shards in random order, each from its first sample to its last.
    Shards,
    /// Runs of neighbours in random order, many at once side by side: batches are mixed, and requests long.
    #[default]
    Window,
    /// Every sample anywhere. One request a sample, unless the data are near.
    Full,
}

impl Method {
    pub const NAMES: [&str; 4] = ["none", "shards", "window", "full"];

    pub fn name(self) -> &'static str {
        Method::NAMES[self as usize]
    }
}

impl std::str::FromStr for Method {
    type Err = Error;

    fn from_str(name: &str) -> Result<Method> {
        match name {
            "none" => Ok(Method::None),
            "shards" => Ok(Method::Shards),
            "window" => Ok(Method::Window),
            "full" => Ok(Method::Full),
            other => Err(Error::new(
                Kind::Invalid,
                format!("{other:?} is no way to shuffle; it is one of {}", Method::NAMES.join(", ")),
            )),
        }
    }
}

/// Plain values; whoever resumes must have the same. `run_bytes`, `lanes` and `mix_samples` are for [`Method::Window`] only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shuffle {
    pub method: Method,
    /// Bytes of neighbours in a shard that stay together in time. Longer: fewer shards' indexes are needed at once. In a data set that
    /// has not two such runs for each lane they are shorter, down to 1 MiB; a smaller one is shuffled as a whole.
    pub run_bytes: u64,
    /// Runs open at once, over all ranks; 0: one for each sample of a global batch up to 64, beyond that one for eight.
    pub lanes: u32,
    /// So many samples of a run, one after the other, are mixed among themselves, or as many as are an eighth of a run.
    pub mix_samples: u32,
    /// Batches among which samples are moved so that those of a batch are of like length ([`buckets`](super::buckets)); 0: none are. Data sets must
    /// know their samples' lengths.
    #[serde(skip_serializing_if = "is_none")]
    pub bucket_batches: u32,
}

fn is_none(batches: &u32) -> bool {
    *batches == 0
}

/// Lanes by default, if the batch has as many samples.
const LANES: u64 = 64;
/// Above that, so many samples of a batch share a lane.
const LANE_SAMPLES: u64 = 8;

impl Default for Shuffle {
    fn default() -> Shuffle {
        Shuffle { method: Method::Window, run_bytes: 8 << 20, lanes: 0, mix_samples: 32, bucket_batches: 0 }
    }
}

impl From<Method> for Shuffle {
    fn from(method: Method) -> Shuffle {
        Shuffle { method, ..Shuffle::default() }
    }
}

impl Shuffle {
    /// Errors: `Invalid` names the setting and its bounds.
    pub fn check(&self) -> Result<()> {
        let bad = |message: String| Err(Error::new(Kind::Invalid, message));
        if self.run_bytes < 1 << 12 {
            return bad(format!("run_bytes is {}; it must be 4096 or more", self.run_bytes));
        }
        if !(1..=1 << 20).contains(&self.mix_samples) {
            return bad(format!("mix_samples is {}; it must be 1 to 1048576", self.mix_samples));
        }
        if self.bucket_batches > BATCHES_MAX {
            return bad(format!("bucket_batches is {}; it must be 0 to {BATCHES_MAX}", self.bucket_batches));
        }
        Ok(())
    }

    /// Lanes of a global batch of so many samples: at least one, at most one a sample.
    pub fn lanes_of(&self, batch: u64) -> u64 {
        let lanes = match self.lanes {
            0 => LANES.max(batch / LANE_SAMPLES),
            lanes => u64::from(lanes),
        };
        lanes.clamp(1, batch.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_follow_the_batch() {
        let lanes = |batch| Shuffle::default().lanes_of(batch);
        assert_eq!([1, 32, 64, 256, 512, 4096].map(lanes), [1, 32, 64, 64, 64, 512]);
        assert_eq!(Shuffle { lanes: 7, ..Shuffle::default() }.lanes_of(4), 4);
    }

    #[test]
    fn names_are_read_and_others_refused() {
        for name in Method::NAMES {
            assert_eq!(name.parse::<Method>().unwrap().name(), name);
        }
        let e = "random".parse::<Method>().unwrap_err();
        assert_eq!(e.to_string(), "\"random\" is no way to shuffle; it is one of none, shards, window, full");
    }
}
