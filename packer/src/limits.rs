//! Every bound of the formats in one place.

/// Files in one shard. Sorting a shard's paths takes 4 bytes of memory for each.
pub const SHARD_FILES_MAX: u32 = 16 << 20;
/// Bytes of one shard: payload offsets are 32 bits of 512-byte blocks.
pub const SHARD_BYTES_MAX: u64 = (u32::MAX as u64) * 512;
/// Bytes of one path inside a shard, as Linux has it.
pub const PATH_BYTES_MAX: usize = 4096;
/// Bytes of all paths of one shard.
pub const NAMES_BYTES_MAX: u64 = u32::MAX as u64;
/// Different pairs of user and group in one shard.
pub const OWNERS_MAX: usize = u16::MAX as usize;
/// Bytes of an index: what a hostile one may make us fetch.
pub const INDEX_BYTES_MAX: u64 = 8 << 30;
/// Bytes of an index that stays in memory when there is no folder for it.
pub const INDEX_MEMORY_BYTES_MAX: u64 = 4 << 20;
/// Bytes that are resident of an index that is mapped, or of all those of a data set that is open.
pub const INDEX_RESIDENT_BYTES_MAX: u64 = 16 << 20;
/// Bytes of one manifest.
pub const MANIFEST_BYTES_MAX: u64 = 1 << 30;
/// Shards of one data set.
pub const SHARDS_MAX: usize = 4 << 20;
/// Bytes of a tar's extension (a long name, pax records).
pub const TAR_EXTENSION_BYTES_MAX: u64 = 1 << 20;
/// Bytes of an index's part that stay in memory while it is built; what is more goes to an unnamed file.
pub const SPOOL_MEMORY_BYTES_MAX: usize = 4 << 20;
