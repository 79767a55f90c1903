//! Runs: neighbours in a shard that stay together in time. A shard is cut into runs of like numbers of samples.

use super::shape::{Shape, Spot};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub shard: u32,
    pub first: u32,
    pub samples: u32,
}

/// How shards are cut: 8 bytes a shard.
#[derive(Clone, Debug)]
pub struct Runs {
    /// Runs before each shard, and last the number of all.
    before: Vec<u64>,
}

impl Runs {
    /// Each shard is one.
    pub fn of_shards(shape: &Shape) -> Runs {
        Runs::cut(shape, |_| 1)
    }

    /// As many as make runs of about so many bytes; none without a sample.
    pub fn of_bytes(shape: &Shape, run_bytes: u64) -> Runs {
        Runs::cut(shape, |shard| {
            let runs = shape.shard_bytes(shard).div_ceil(run_bytes.max(1));
            runs.clamp(1, u64::from(shape.shard_samples(shard)).max(1))
        })
    }

    fn cut(shape: &Shape, runs: impl Fn(u32) -> u64) -> Runs {
        let mut before = vec![0];
        for shard in 0..shape.shards() {
            before.push(before[shard as usize] + runs(shard));
        }
        Runs { before }
    }

    pub fn count(&self) -> u64 {
        self.before[self.before.len() - 1]
    }

    /// The run of a number below [`count`](Runs::count). One of an empty shard has no samples.
    pub fn get(&self, shape: &Shape, number: u64) -> Run {
        let shard = self.before.partition_point(|&before| before <= number) - 1;
        let (in_shard, runs) = (number - self.before[shard], self.before[shard + 1] - self.before[shard]);
        let samples = u64::from(shape.shard_samples(shard as u32));
        let first = in_shard * samples / runs;
        Run {
            shard: shard as u32,
            first: first as u32,
            samples: ((in_shard + 1) * samples / runs - first) as u32,
        }
    }

    /// The number of the run that holds a sample.
    pub fn holding(&self, shape: &Shape, spot: Spot) -> u64 {
        let shard = spot.shard as usize;
        let runs = self.before[shard + 1] - self.before[shard];
        let samples = u64::from(shape.shard_samples(spot.shard));
        self.before[shard] + ((u64::from(spot.sample) + 1) * runs - 1) / samples
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_cover_each_sample_once() {
        let shape = Shape::new([(10, 4000), (0, 512), (1, 100_000), (7, 1), (1000, 7_777)], b"").unwrap();
        for runs in [Runs::of_shards(&shape), Runs::of_bytes(&shape, 1000), Runs::of_bytes(&shape, 1)] {
            let mut next = 0;
            for number in 0..runs.count() {
                let run = runs.get(&shape, number);
                for sample in run.first..run.first + run.samples {
                    let spot = Spot { shard: run.shard, sample };
                    assert_eq!(shape.number(spot), next);
                    assert_eq!(runs.holding(&shape, spot), number);
                    next += 1;
                }
            }
            assert_eq!(next, shape.samples());
        }
        assert_eq!(Runs::of_bytes(&shape, 1000).count(), 4 + 1 + 1 + 1 + 8);
    }
}
