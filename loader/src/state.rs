//! Where a loader is: under a kilobyte of JSON, the same on every rank.
//!
//! ```text
//! {"granary_loader":1,"order":1,"data":"9f3c5a0d2b7e1846","seed":7,"batch_samples":256,
//!  "shuffle":{"method":"window","run_bytes":8388608,"lanes":0,"mix_samples":32},"epoch":2,"batch":1031,"given":[1033]}
//! ```
//!
//! | field | what |
//! |---|---|
//! | `granary_loader` | the format: 1 |
//! | `order` | the version of [`order`] |
//! | `data` | digest of data sets, versions, selections, weights and the epoch's length |
//! | `seed`, `shuffle`, `batch_samples` | as in the options |
//! | `epoch`, `batch` | the first global batch that was not given; a rank without a part of an uneven last batch may be at the next epoch's beginning already |
//! | `given` | batches behind it that were given, since others straggled; only with `overtake`, and then each rank has its own |

use serde::{Deserialize, Serialize};

use granary_core::{Error, Kind, Result};

use crate::order::shuffle::Shuffle;
use crate::order::{self, shuffle::Method};

pub const FORMAT: u32 = 1;
/// Longest state that is read, in bytes.
pub const STATE_BYTES_MAX: usize = 4096;

/// The last epoch: with 2^40 samples each, positions are within 63 bits.
pub const EPOCH_MAX: u64 = 1 << 22;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    pub granary_loader: u32,
    pub order: u32,
    pub data: String,
    pub seed: u64,
    pub batch_samples: u64,
    pub shuffle: Shuffle,
    pub epoch: u64,
    pub batch: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub given: Vec<u64>,
}

/// What a loader is set to: what a state must agree with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    pub data: u64,
    pub seed: u64,
    pub batch_samples: u64,
    pub shuffle: Shuffle,
    /// Whether the order is another one with another `batch_samples`.
    pub depends_on_batch: bool,
}

impl State {
    pub fn new(setting: &Setting, epoch: u64, batch: u64, given: Vec<u64>) -> State {
        State {
            granary_loader: FORMAT,
            order: order::VERSION,
            data: format!("{:016x}", setting.data),
            seed: setting.seed,
            batch_samples: setting.batch_samples,
            shuffle: setting.shuffle,
            epoch,
            batch,
            given,
        }
    }

    pub fn to_json(&self) -> String {
        // Plain numbers and short names: it cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Errors: `Invalid` when it is no state; `Unsupported` when a newer program wrote it.
    pub fn from_json(text: &str) -> Result<State> {
        let no_state =
            |why: String| Error::new(Kind::Invalid, format!("this is no state of a loader: {why}"));
        if text.len() > STATE_BYTES_MAX {
            return Err(no_state(format!("it has {} bytes", text.len())));
        }
        // The version first: a newer format may have fields that we do not know.
        let any: serde_json::Value = serde_json::from_str(text).map_err(|e| no_state(e.to_string()))?;
        let newer = |name: &str, ours: u32| {
            any.get(name).and_then(|v| v.as_u64()).is_some_and(|v| v > u64::from(ours))
        };
        if newer("granary_loader", FORMAT) {
            return Err(Error::new(
                Kind::Unsupported,
                "the state was written by a newer version of Granary; resume with that version",
            ));
        }
        serde_json::from_value(any).map_err(|e| no_state(e.to_string()))
    }

    /// The first batch that was not given, in batches as `setting` has them, and those behind it that were.
    ///
    /// Errors: `Invalid` says what does not agree, and what to do.
    pub fn check(&self, setting: &Setting) -> Result<(u64, Vec<u64>)> {
        let refuse = |what: String| {
            Err(Error::new(Kind::Invalid, format!("the state cannot be gone on with: {what}")))
        };
        if self.order != order::VERSION {
            return refuse(format!(
                "it is of version {} of the order, this program has version {}, where batches are others; finish the epoch with \
                 the version of Granary that began it",
                self.order,
                order::VERSION
            ));
        }
        if self.data != format!("{:016x}", setting.data) {
            return refuse(format!(
                "it is of other data ({}, these are {:016x}): another data set, version, filter, weight or length of the epoch; give \
                 the same as before, with the version that was used",
                self.data, setting.data
            ));
        }
        if self.seed != setting.seed {
            return refuse(format!(
                "its seed is {}, and this loader's is {}; give the same",
                self.seed, setting.seed
            ));
        }
        if self.shuffle != setting.shuffle {
            return refuse(format!(
                "it was shuffled by {}, and this loader shuffles by {}; give the same",
                described(&self.shuffle),
                described(&setting.shuffle)
            ));
        }
        if self.epoch > EPOCH_MAX {
            return refuse(format!("epoch {} cannot be", self.epoch));
        }
        if self.batch_samples == setting.batch_samples {
            return Ok((self.batch, self.given.clone()));
        }
        let samples = self.batch.checked_mul(self.batch_samples);
        match samples {
            Some(samples)
                if !setting.depends_on_batch
                    && self.given.is_empty()
                    && setting.batch_samples > 0
                    && samples.is_multiple_of(setting.batch_samples) =>
            {
                Ok((samples / setting.batch_samples, Vec::new()))
            }
            _ => refuse(format!(
                "its global batches have {} samples, this loader's have {}; give batch size times ranks as before",
                self.batch_samples, setting.batch_samples
            )),
        }
    }
}

fn described(shuffle: &Shuffle) -> String {
    match shuffle.method {
        Method::Window => format!(
            "window (run_bytes {}, lanes {}, mix_samples {})",
            shuffle.run_bytes, shuffle.lanes, shuffle.mix_samples
        ),
        method => method.name().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting() -> Setting {
        Setting { data: 5, seed: 7, batch_samples: 256, shuffle: Shuffle::default(), depends_on_batch: true }
    }

    #[test]
    fn it_is_short_and_comes_back() {
        let state =
            State::new(&Setting { seed: u64::MAX, ..setting() }, u64::MAX, u64::MAX, (0..32).collect());
        let json = state.to_json();
        assert!(json.len() < 1024, "{}", json.len());
        assert_eq!(State::from_json(&json).unwrap(), state);
        let plain = State::new(&setting(), 2, 1031, vec![]).to_json();
        assert_eq!(
            plain,
            "{\"granary_loader\":1,\"order\":1,\"data\":\"0000000000000005\",\"seed\":7,\"batch_samples\":256,\
             \"shuffle\":{\"method\":\"window\",\"run_bytes\":8388608,\"lanes\":0,\"mix_samples\":32},\"epoch\":2,\"batch\":1031}"
        );
    }

    #[test]
    fn what_does_not_agree_is_named() {
        let state = State::new(&setting(), 2, 10, vec![12]);
        assert_eq!(state.check(&setting()).unwrap(), (10, vec![12]));
        let full = Shuffle::from(Method::Full);
        for (other, why) in [
            (Setting { data: 6, ..setting() }, "of other data"),
            (Setting { seed: 8, ..setting() }, "its seed is 7"),
            (Setting { shuffle: full, ..setting() }, "this loader shuffles by full"),
            (Setting { batch_samples: 128, ..setting() }, "have 256 samples, this loader's have 128"),
        ] {
            let e = state.check(&other).unwrap_err();
            assert!(e.kind() == Kind::Invalid && e.to_string().contains(why), "{e}");
        }
        assert!(State { epoch: u64::MAX, ..state.clone() }.check(&setting()).is_err());
        let e = State { order: 2, ..state }.check(&setting()).unwrap_err();
        assert!(e.to_string().contains("version 2 of the order"), "{e}");
    }

    #[test]
    fn where_batches_do_not_decide_the_order_others_go_on_from_the_same_sample() {
        let free = Setting { depends_on_batch: false, ..setting() };
        let state = State::new(&free, 0, 3, vec![]);
        assert_eq!(state.check(&Setting { batch_samples: 128, ..free }).unwrap().0, 6);
        assert!(state.check(&Setting { batch_samples: 512, ..free }).is_err());
    }

    #[test]
    fn what_is_no_state_is_refused() {
        for (text, kind) in [
            ("", Kind::Invalid),
            ("[]", Kind::Invalid),
            ("{\"granary_loader\":1}", Kind::Invalid),
            ("{\"granary_loader\":2,\"what\":1}", Kind::Unsupported),
        ] {
            assert_eq!(State::from_json(text).unwrap_err().kind(), kind, "{text}");
        }
        assert!(State::from_json(&" ".repeat(5000)).is_err());
    }
}
