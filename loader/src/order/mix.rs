//! Several data sets in one line, each with its part of every stretch: which one is next, computed from the position.

use granary_core::{Error, Kind, Result};

/// Weights count in parts of this; of weights that are smaller whole numbers, exactly.
const PARTS: u64 = 10_000;
/// Data sets in one mix.
pub const SOURCES_MAX: usize = 64;

/// A pattern that repeats: in each period every data set has its exact number of places, spread as evenly as can be (each
/// place goes to the one that is furthest behind its due).
#[derive(Clone, Debug)]
pub struct Mix {
    /// Each place's data set, and which of its places in the period this is.
    pattern: Vec<(u32, u32)>,
    counts: Vec<u32>,
    /// Of each data set, its places in the period.
    places: Vec<Vec<u32>>,
}

impl Mix {
    /// One alone.
    pub fn one() -> Mix {
        Mix { pattern: vec![(0, 0)], counts: vec![1], places: vec![vec![0]] }
    }

    /// `weights`: one for each, relative to each other; 70 and 30 are the same as 0.7 and 0.3.
    ///
    /// Errors: `Invalid` for none, too many, or a weight that is no number above zero or smaller than 1/10,000 of all.
    pub fn new(weights: &[f64]) -> Result<Mix> {
        let counts = counts(weights)?;
        let period: u64 = counts.iter().sum();
        let mut due = vec![0_i64; counts.len()];
        let mut given = vec![0_u32; counts.len()];
        let mut pattern = Vec::with_capacity(period as usize);
        let mut places = vec![Vec::new(); counts.len()];
        for _ in 0..period {
            let mut next = 0;
            for (source, &count) in counts.iter().enumerate() {
                due[source] += count as i64;
                if due[source] > due[next] {
                    next = source;
                }
            }
            due[next] -= period as i64;
            places[next].push(pattern.len() as u32);
            pattern.push((next as u32, given[next]));
            given[next] += 1;
        }
        Ok(Mix { pattern, counts: given, places })
    }

    pub fn sources(&self) -> usize {
        self.counts.len()
    }

    /// The data set at a position of the endless line, and how many of its own were before.
    pub fn at(&self, position: u64) -> (usize, u64) {
        let period = self.pattern.len() as u64;
        let (source, nth) = self.pattern[(position % period) as usize];
        let count = u64::from(self.counts[source as usize]);
        (source as usize, position / period * count + u64::from(nth))
    }

    /// Where in the endless line a data set's sample with so many of its own before it is: [`at`](Mix::at) backwards.
    pub fn place(&self, source: usize, nth: u64) -> u64 {
        let count = u64::from(self.counts[source]);
        let in_period = self.places[source][(nth % count) as usize];
        nth / count * self.pattern.len() as u64 + u64::from(in_period)
    }

    /// Of `samples` in a line, about so many are of a data set; at least one.
    pub fn share(&self, source: usize, samples: u64) -> u64 {
        let share = u128::from(samples) * u128::from(self.counts[source]) / self.pattern.len() as u128;
        (share as u64).max(1)
    }

    /// What tells one mix from another.
    pub fn words(&self) -> impl Iterator<Item = u64> + '_ {
        self.counts.iter().map(|&count| u64::from(count))
    }
}

/// Whole numbers in the weights' proportions, without a common divisor.
fn counts(weights: &[f64]) -> Result<Vec<u64>> {
    let bad = |message: String| Err(Error::new(Kind::Invalid, message));
    if weights.is_empty() || weights.len() > SOURCES_MAX {
        return bad(format!("a mix is of 1 to {SOURCES_MAX} data sets; these are {}", weights.len()));
    }
    if let Some(weight) = weights.iter().find(|w| !(w.is_finite() && **w > 0.0)) {
        return bad(format!("the weight {weight} is not above zero; leave that data set out of the mix"));
    }
    let sum: f64 = weights.iter().sum();
    let whole = weights.iter().all(|w| w.fract() == 0.0) && sum <= PARTS as f64;
    let counts: Vec<u64> = if whole {
        weights.iter().map(|&w| w as u64).collect()
    } else {
        // Largest remainders: each gets the whole parts of its due, the rest go to those with most left over.
        let due: Vec<f64> = weights.iter().map(|w| w / sum * PARTS as f64).collect();
        let mut counts: Vec<u64> = due.iter().map(|d| (d + 1e-6).floor() as u64).collect();
        let mut order: Vec<usize> = (0..due.len()).collect();
        order.sort_by(|&a, &b| {
            (due[b] - counts[b] as f64).total_cmp(&(due[a] - counts[a] as f64)).then(a.cmp(&b))
        });
        let missing = PARTS.saturating_sub(counts.iter().sum());
        for &source in order.iter().cycle().take(missing as usize) {
            counts[source] += 1;
        }
        counts
    };
    if let Some(at) = counts.iter().position(|&count| count == 0) {
        return bad(format!(
            "the weight {} is less than 1/{PARTS} of all; leave it out, or give it more",
            weights[at]
        ));
    }
    let divisor = counts.iter().fold(0, |a, &b| gcd(a, b));
    Ok(counts.into_iter().map(|count| count / divisor).collect())
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proportions_are_exact_and_spread() {
        for (weights, expected) in [
            (&[0.7, 0.2, 0.1][..], &[7, 2, 1][..]),
            (&[70.0, 20.0, 10.0], &[7, 2, 1]),
            (&[1.0, 1.0], &[1, 1]),
            (&[1.0 / 3.0, 2.0 / 3.0], &[3333, 6667]),
            (&[5.0], &[1]),
        ] {
            let mix = Mix::new(weights).unwrap();
            assert_eq!(mix.counts, expected);
            let period = mix.pattern.len();
            // In order within each, without a gap, over two periods; after any number of places nobody is a place behind or before its due.
            let mut next = vec![0_u64; weights.len()];
            for position in 0..2 * period {
                let (source, nth) = mix.at(position as u64);
                assert_eq!(nth, next[source], "{weights:?} at {position}");
                assert_eq!(mix.place(source, nth), position as u64, "{weights:?}");
                next[source] += 1;
                for (given, &count) in next.iter().zip(expected) {
                    let due = (position + 1) as f64 * f64::from(count) / period as f64;
                    assert!(
                        (due - *given as f64).abs() <= 1.0,
                        "{weights:?} at {position}: {given} of {due}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_no_weight_is_refused() {
        for (weights, why) in [
            (&[][..], "1 to 64 data sets"),
            (&[1.0, 0.0], "not above zero"),
            (&[1.0, f64::NAN], "not above zero"),
            (&[1.0, 0.000_001], "less than 1/10000"),
        ] {
            let e = Mix::new(weights).unwrap_err();
            assert!(e.kind() == Kind::Invalid && e.to_string().contains(why), "{e}");
        }
    }
}
