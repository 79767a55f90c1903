//! Every bound in one place, with its unit in its name. A plain struct, filled from flags, environment or
//! `granary.toml`, validated once at the edge.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};

/// Longest payload of one object, in bytes. With its footer an object stays within 16 MiB, four of RGW's 4 MiB stripes.
pub const OBJECT_PAYLOAD_MAX: u64 = 15 << 20;
/// Longest object, in bytes: payload, footer and trailer.
pub const OBJECT_BYTES_MAX: u64 = 16 << 20;
/// Bytes covered by one checksum in an object's footer, and in the read cache.
pub const FRAME_BYTES: u64 = 64 << 10;
/// The read cache's unit of fetching: an aligned range of an object.
pub const CHUNK_BYTES: u64 = 1 << 20;
/// Longest file, in bytes (as ext4 with 4 KiB blocks).
pub const FILE_BYTES_MAX: u64 = 16 << 40;
/// Hard links to one file (as ext4).
pub const LINKS_MAX: u32 = 65_000;
/// Bytes in one extended attribute's value, and in a symlink's target.
pub const XATTR_BYTES_MAX: usize = 65_536;
pub const SYMLINK_BYTES_MAX: usize = 4095;
/// Bytes of the longest file of which the metadata may keep a copy beside its inode.
pub const INLINE_BYTES_MAX: u64 = 2048;
/// Files of one namespace that programs announced and did not read yet, on one node: about 50 bytes of memory each.
pub const ANNOUNCED_FILES_MAX: usize = 1 << 20;
/// Orders that they may be in, of all users and of one.
pub const ANNOUNCED_ORDERS_MAX: usize = 64;
pub const ANNOUNCED_ORDERS_OF_USER_MAX: usize = 16;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Files up to this size go through the stage log into packs; larger ones have a stage file and become blocks.
    pub small_file_bytes_max: u64,
    /// A small file's bytes leave for the store this long after they were written, at the latest.
    pub small_period_ms: u64,
    /// A large file leaves for the store after this long without writes.
    pub large_period_ms: u64,
    /// One namespace's bytes on the node's disk not yet in the store. Its writers wait at it.
    pub dirty_bytes_max: u64,
    /// One namespace's files not yet in the store. Its writers wait at it.
    pub dirty_files_max: u64,
    /// Disk space of the read cache.
    pub cache_bytes_max: u64,
    /// Free space on the cache disk that is left to others, in bytes, and as a part of the disk: the larger counts.
    pub cache_free_bytes_min: u64,
    pub cache_free_percent_min: u64,
    /// Memory for data in flight: fetches, packs being built, uploads. A process that is not told takes it from its control group
    /// and machine, [`memory_share`](crate::budget::memory_share).
    pub memory_bytes_max: u64,
    /// PUTs at once, of one namespace. The store may bear fewer: the process finds out how many.
    pub uploads_max: u32,
    /// Bytes a second that one namespace sends to the store; 0: no limit.
    pub upload_bytes_per_s_max: u64,
    /// Bytes read and written per second to rewrite objects that are mostly dead. 0: they stay.
    pub compaction_bytes_per_s: u64,
    /// Objects are looked through for those every so often while some are found, and up to 16 times as rarely while not.
    pub compaction_period_ms: u64,
    /// GETs at once. The store may bear fewer: the process finds out how many.
    pub fetches_max: u32,
    /// GETs of 100 that may be sent a second time because the first has no answer yet. 0: none is.
    pub hedge_percent_max: u64,
    /// How long making a connection to the store may take.
    pub store_connect_ms_max: u64,
    /// How long the store may take to begin its answer to a request that was sent whole.
    pub store_first_byte_ms_max: u64,
    /// How long no byte may move in the middle of a request or an answer.
    pub store_stall_ms_max: u64,
    /// One stage log segment is sealed at this size.
    pub log_segment_bytes_max: u64,
    /// Open descriptors of the read cache and the stage.
    pub open_files_max: u32,
    /// The engine's group commit without anybody asking: how long an acknowledged operation may be in memory only.
    pub commit_interval_ms: u64,
    /// How long acknowledged operations and data may be without an fsync on the node's disk.
    pub sync_interval_ms: u64,
    /// A store request is tried again for at most this long.
    pub retry_ms_max: u64,
    /// How long an object stays after its last byte died: a read that looked up its place before may still be under way, and a
    /// straggling request takes at most half of this.
    pub dead_object_grace_ms: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            small_file_bytes_max: 1 << 20,
            small_period_ms: 2_000,
            large_period_ms: 30_000,
            dirty_bytes_max: 16 << 30,
            dirty_files_max: 1_000_000,
            cache_bytes_max: 64 << 30,
            cache_free_bytes_min: 1 << 30,
            cache_free_percent_min: 10,
            memory_bytes_max: 256 << 20,
            uploads_max: 4,
            upload_bytes_per_s_max: 0,
            compaction_bytes_per_s: 32 << 20,
            compaction_period_ms: 60_000,
            // Little's law: 3 GB/s of chunks of 1 MiB, each taking 35 ms (30 ms to the first byte), are 100 at once.
            fetches_max: 128,
            hedge_percent_max: 5,
            store_connect_ms_max: 5_000,
            store_first_byte_ms_max: 15_000,
            store_stall_ms_max: 15_000,
            log_segment_bytes_max: 32 << 20,
            open_files_max: 512,
            commit_interval_ms: 50,
            sync_interval_ms: 1_000,
            retry_ms_max: 30_000,
            dead_object_grace_ms: 60_000,
        }
    }
}

/// Settings and the least and greatest value of each.
const RANGES: [(&str, u64, u64); 25] = [
    ("small_file_bytes_max", 4 << 10, 8 << 20),
    ("small_period_ms", 1, 3_600_000),
    ("large_period_ms", 1, 86_400_000),
    ("dirty_bytes_max", 64 << 20, 1 << 50),
    ("dirty_files_max", 100, 1 << 32),
    ("cache_bytes_max", 64 << 20, 1 << 50),
    ("cache_free_percent_min", 0, 90),
    ("memory_bytes_max", 64 << 20, 1 << 40),
    ("uploads_max", 1, 256),
    ("upload_bytes_per_s_max", 1 << 10, 1 << 50),
    ("compaction_bytes_per_s", 1 << 10, 1 << 50),
    ("compaction_period_ms", 1, 86_400_000),
    ("fetches_max", 1, 1024),
    ("hedge_percent_max", 0, 50),
    ("store_connect_ms_max", 1, 600_000),
    ("store_first_byte_ms_max", 1, 600_000),
    ("store_stall_ms_max", 1, 600_000),
    ("log_segment_bytes_max", 1 << 20, 1 << 30),
    ("open_files_max", 16, 1 << 20),
    ("commit_interval_ms", 1, 60_000),
    ("sync_interval_ms", 1, 600_000),
    ("retry_ms_max", 1, 86_400_000),
    ("dead_object_grace_ms", 1, 86_400_000),
    ("compression", 1, 3),
    ("inline_bytes_max", 1, INLINE_BYTES_MAX),
];

/// Refuses a value of a setting that cannot work, naming it, the reason and what would do.
pub(crate) fn check(name: &'static str, value: u64) -> Result<()> {
    match RANGES.into_iter().find(|(known, ..)| *known == name) {
        Some((_, min, max)) if value < min || value > max => Err(Error::new(
            Kind::Invalid,
            format!("setting {name} = {value} cannot work; give a value from {min} to {max}"),
        )),
        _ => Ok(()),
    }
}

/// How much of a disk is left to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreeMin {
    pub bytes: u64,
    pub percent: u64,
}

/// Caches go when the free space is less than what is left to others and one part in this many of it more, so that they are
/// gone before anybody has to wait.
const NEAR_PART: u64 = 8;
/// That part is no smaller than this: a few uploads' worth.
const NEAR_BYTES_MIN: u64 = 8 << 20;

impl FreeMin {
    /// Bytes of a disk of `total` bytes.
    pub fn of(self, total: u64) -> u64 {
        self.bytes.max((u128::from(total) * u128::from(self.percent) / 100) as u64)
    }

    /// Caches leave so much free.
    pub fn near(self, total: u64) -> u64 {
        let min = self.of(total);
        min.saturating_add((min / NEAR_PART).max(NEAR_BYTES_MIN))
    }
}

impl Limits {
    pub fn cache_free_min(&self) -> FreeMin {
        FreeMin { bytes: self.cache_free_bytes_min, percent: self.cache_free_percent_min }
    }

    /// Refuses values that cannot work, naming the setting, the reason and what would do.
    pub fn validate(&self) -> Result<()> {
        let values = [
            ("small_file_bytes_max", self.small_file_bytes_max),
            ("small_period_ms", self.small_period_ms),
            ("large_period_ms", self.large_period_ms),
            ("dirty_bytes_max", self.dirty_bytes_max),
            ("dirty_files_max", self.dirty_files_max),
            ("cache_bytes_max", self.cache_bytes_max),
            ("cache_free_percent_min", self.cache_free_percent_min),
            ("memory_bytes_max", self.memory_bytes_max),
            ("uploads_max", u64::from(self.uploads_max)),
            ("compaction_period_ms", self.compaction_period_ms),
            ("dead_object_grace_ms", self.dead_object_grace_ms),
            ("fetches_max", u64::from(self.fetches_max)),
            ("hedge_percent_max", self.hedge_percent_max),
            ("store_connect_ms_max", self.store_connect_ms_max),
            ("store_first_byte_ms_max", self.store_first_byte_ms_max),
            ("store_stall_ms_max", self.store_stall_ms_max),
            ("log_segment_bytes_max", self.log_segment_bytes_max),
            ("open_files_max", u64::from(self.open_files_max)),
            ("commit_interval_ms", self.commit_interval_ms),
            ("sync_interval_ms", self.sync_interval_ms),
            ("retry_ms_max", self.retry_ms_max),
        ];
        values.into_iter().try_for_each(|(name, value)| check(name, value))?;
        let rates = [
            ("upload_bytes_per_s_max", self.upload_bytes_per_s_max),
            ("compaction_bytes_per_s", self.compaction_bytes_per_s),
        ];
        // 0 has a meaning of its own.
        rates.into_iter().filter(|(_, rate)| *rate > 0).try_for_each(|(name, rate)| check(name, rate))?;
        if self.cache_free_bytes_min > 1 << 50 {
            return Err(Error::new(Kind::Invalid, "setting cache_free_bytes_min is larger than any disk"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_impossible_sizes_are_named() {
        Limits::default().validate().unwrap();
        let e = Limits { dirty_bytes_max: 1, ..Limits::default() }.validate().unwrap_err();
        assert!(e.to_string().contains("dirty_bytes_max = 1"), "{e}");
        assert!(Limits { cache_free_percent_min: 91, ..Limits::default() }.validate().is_err());
    }

    #[test]
    fn of_what_is_left_free_the_larger_counts() {
        let min = FreeMin { bytes: 1 << 30, percent: 10 };
        assert_eq!((min.of(5 << 30), min.of(20 << 30)), (1 << 30, 2 << 30));
        assert_eq!(min.near(20 << 30), (2 << 30) + (256 << 20));
        assert_eq!(FreeMin { bytes: 0, percent: 0 }.near(u64::MAX), 8 << 20);
    }
}
