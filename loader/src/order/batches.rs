//! An epoch cut into global batches, and each of them among ranks.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use granary_core::{Error, Kind, Result};

/// What happens to samples that do not fill a last global batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tail {
    /// It is filled with the first of the epoch, which are given twice: every rank has as many.
    #[default]
    Pad,
    /// They are left out: every rank has as many. Another epoch leaves out others.
    Drop,
    /// It is shorter: ranks differ by one sample, and some may have no last batch.
    Uneven,
}

impl Tail {
    pub const NAMES: [&str; 3] = ["pad", "drop", "uneven"];

    pub fn name(self) -> &'static str {
        Tail::NAMES[self as usize]
    }
}

impl std::str::FromStr for Tail {
    type Err = Error;

    fn from_str(name: &str) -> Result<Tail> {
        match name {
            "pad" => Ok(Tail::Pad),
            "drop" => Ok(Tail::Drop),
            "uneven" => Ok(Tail::Uneven),
            other => Err(Error::new(
                Kind::Invalid,
                format!("{other:?} is no way to treat the tail; it is one of {}", Tail::NAMES.join(", ")),
            )),
        }
    }
}

/// How an epoch of so many samples is cut. Plain numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batches {
    pub samples: u64,
    /// Samples of a global batch, over all ranks.
    pub batch: u64,
    pub tail: Tail,
}

impl Batches {
    /// Global batches of an epoch.
    pub fn count(&self) -> u64 {
        match self.tail {
            Tail::Drop => self.samples / self.batch,
            Tail::Pad | Tail::Uneven => self.samples.div_ceil(self.batch),
        }
    }

    /// The positions of a rank's part of a global batch. Those at [`samples`](Batches::samples) and beyond are padding: the position
    /// less `samples`, as often as it takes, is that of the sample given again. May be empty.
    pub fn part(&self, batch: u64, rank: u32, ranks: u32) -> Range<u64> {
        let start = batch * self.batch;
        let len = match self.tail {
            Tail::Uneven => self.batch.min(self.samples - start),
            Tail::Pad | Tail::Drop => self.batch,
        };
        let cut = |rank: u32| start + (u128::from(len) * u128::from(rank) / u128::from(ranks)) as u64;
        cut(rank)..cut(rank + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Ranks' parts, one after the other, are the batch; batches, one after the other, the epoch.
        #[test]
        fn parts_join_to_the_epoch(samples in 1_u64..500, batch in 1_u64..80, ranks in 1_u32..20, tail in 0..3) {
            let tail = [Tail::Pad, Tail::Drop, Tail::Uneven][tail as usize];
            let batches = Batches { samples, batch, tail };
            let mut next = 0;
            let mut counts = vec![0; ranks as usize];
            for b in 0..batches.count() {
                for rank in 0..ranks {
                    let part = batches.part(b, rank, ranks);
                    prop_assert_eq!(part.start, next);
                    next = part.end;
                    counts[rank as usize] += part.end - part.start;
                }
            }
            let expected = match tail {
                Tail::Pad => samples.next_multiple_of(batch),
                Tail::Drop => samples / batch * batch,
                Tail::Uneven => samples,
            };
            prop_assert_eq!(next, expected);
            if batch % u64::from(ranks) == 0 && tail != Tail::Uneven {
                prop_assert!(counts.iter().all(|&count| count == counts[0]));
            }
        }
    }
}
