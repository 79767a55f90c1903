//! What of a data set decides the order: how many samples and bytes each shard has, and a digest of it all.

use std::sync::Arc;

use granary_core::{Error, Kind, Result};

use super::permutation::key;

/// A sample by its shard and its number among the shard's samples that take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Spot {
    pub shard: u32,
    pub sample: u32,
}

/// 16 bytes a shard, nothing a sample; with lengths 2 bytes a sample.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Samples before each shard, and last the number of all.
    starts: Vec<u64>,
    bytes: Vec<u64>,
    digest: u64,
    /// Of each sample, as [`length_code`](super::buckets::length_code) has it.
    lengths: Option<Arc<[u16]>>,
}

impl Shape {
    /// `shards`: samples and bytes of each, in the data set's order. `digest`: of what they hold, so that another data set
    /// is known as such.
    ///
    /// Errors: `Invalid` when there are 2^40 samples or more.
    pub fn new(shards: impl IntoIterator<Item = (u32, u64)>, digest: &[u8]) -> Result<Shape> {
        let (mut starts, mut bytes) = (vec![0_u64], Vec::new());
        let mut words = Vec::new();
        for (samples, size) in shards {
            starts.push(starts[starts.len() - 1] + u64::from(samples));
            bytes.push(size);
            words.extend([u64::from(samples), size]);
        }
        if starts[starts.len() - 1] >= 1 << 40 || bytes.len() > u32::MAX as usize {
            return Err(Error::new(
                Kind::Invalid,
                "a data set may have 2^40 samples in 2^32 shards; make several, and mix them",
            ));
        }
        words.extend(digest.chunks(8).map(|chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_le_bytes(word)
        }));
        Ok(Shape { starts, bytes, digest: key(&words), lengths: None })
    }

    /// With the length of each sample, as [`length_code`](super::buckets::length_code) has it.
    ///
    /// Errors: `Bug` when there are not as many.
    pub fn with_lengths(self, lengths: Vec<u16>) -> Result<Shape> {
        if lengths.len() as u64 != self.samples() {
            let (lengths, samples) = (lengths.len(), self.samples());
            return Err(Error::new(Kind::Bug, format!("there are {lengths} lengths of {samples} samples")));
        }
        Ok(Shape { lengths: Some(lengths.into()), ..self })
    }

    /// Of a sample; none when lengths are not known.
    pub fn length(&self, spot: Spot) -> Option<u16> {
        self.lengths.as_ref()?.get(self.number(spot) as usize).copied()
    }

    /// A digest of the lengths; none when they are not known.
    pub fn lengths_digest(&self) -> Option<u64> {
        let words: Vec<u64> = self.lengths.as_ref()?.iter().map(|&length| u64::from(length)).collect();
        Some(key(&words))
    }

    pub fn samples(&self) -> u64 {
        self.starts[self.starts.len() - 1]
    }

    pub fn shards(&self) -> u32 {
        self.bytes.len() as u32
    }

    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Bytes of all shards.
    pub fn bytes(&self) -> u64 {
        self.bytes.iter().sum()
    }

    pub fn shard_samples(&self, shard: u32) -> u32 {
        (self.starts[shard as usize + 1] - self.starts[shard as usize]) as u32
    }

    pub fn shard_bytes(&self, shard: u32) -> u64 {
        self.bytes[shard as usize]
    }

    /// The number over all shards of a shard's first sample.
    pub fn shard_start(&self, shard: u32) -> u64 {
        self.starts[shard as usize]
    }

    /// `number`: below [`samples`](Shape::samples).
    pub fn locate(&self, number: u64) -> Spot {
        debug_assert!(number < self.samples());
        let shard = self.starts.partition_point(|&start| start <= number) - 1;
        Spot { shard: shard as u32, sample: (number - self.starts[shard]) as u32 }
    }

    pub fn number(&self, spot: Spot) -> u64 {
        self.starts[spot.shard as usize] + u64::from(spot.sample)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_shards_hold_no_sample() {
        let shape = Shape::new([(0, 10), (3, 10), (0, 10), (0, 10), (2, 10), (0, 1)], b"d").unwrap();
        let spots: Vec<(u32, u32)> =
            (0..5).map(|n| shape.locate(n)).map(|spot| (spot.shard, spot.sample)).collect();
        assert_eq!(spots, [(1, 0), (1, 1), (1, 2), (4, 0), (4, 1)]);
        assert!((0..5).all(|n| shape.number(shape.locate(n)) == n));
        assert_eq!((shape.samples(), shape.shards(), shape.bytes()), (5, 6, 51));
    }

    #[test]
    fn the_digest_tells_data_sets_apart() {
        let digest =
            |shards: &[(u32, u64)], of: &[u8]| Shape::new(shards.iter().copied(), of).unwrap().digest();
        let first = digest(&[(3, 10), (2, 10)], b"0123456789");
        assert_eq!(first, digest(&[(3, 10), (2, 10)], b"0123456789"));
        for other in [
            digest(&[(2, 10), (3, 10)], b"0123456789"),
            digest(&[(3, 10), (2, 11)], b"0123456789"),
            digest(&[(3, 10), (2, 10)], b"0123456780"),
        ] {
            assert_ne!(first, other);
        }
    }
}
