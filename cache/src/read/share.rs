//! A namespace's part of the read cache.

/// What of the node's read cache one namespace has at least, and may have at most, in bytes as the cache's budget counts them.
///
/// What others read does not push out chunks of a namespace that has no more than its minimum; only what is written and has no
/// room on the disk does, after all else. At its maximum a namespace makes room among its own chunks. Clean copies of whole
/// files, which a large file gets after it was read through, take of the cache's budget and count for no namespace.
///
/// On several disks each has its part of both, by its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheShare {
    pub bytes_min: u64,
    /// `u64::MAX`: none.
    pub bytes_max: u64,
}

impl Default for CacheShare {
    /// No minimum, no maximum.
    fn default() -> CacheShare {
        CacheShare { bytes_min: 0, bytes_max: u64::MAX }
    }
}

impl CacheShare {
    /// What a disk of `disk_bytes` has of it, of a cache of `bytes`. Rounded down: all parts are not more than the whole.
    pub(super) fn part(self, disk_bytes: u64, bytes: u64) -> CacheShare {
        let part = |of: u64| (u128::from(of) * u128::from(disk_bytes) / u128::from(bytes.max(1))) as u64;
        CacheShare {
            bytes_min: part(self.bytes_min),
            bytes_max: if self.bytes_max == u64::MAX { u64::MAX } else { part(self.bytes_max) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_not_more_than_the_whole() {
        let share = CacheShare { bytes_min: 10 << 40, bytes_max: 21 << 40 };
        let (disks, sum) = ([7 << 40, 1 << 30, 20 << 40], (27 << 40) + (1 << 30));
        let parts = disks.map(|disk| share.part(disk, sum));
        for (whole, parts) in
            [(share.bytes_min, parts.map(|p| p.bytes_min)), (share.bytes_max, parts.map(|p| p.bytes_max))]
        {
            let all: u64 = parts.iter().sum();
            assert!(all <= whole && whole - all < 3, "{all} of {whole}");
        }
        assert_eq!(CacheShare::default().part(1, 2), CacheShare::default());
    }
}
