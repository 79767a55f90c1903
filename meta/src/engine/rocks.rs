//! RocksDB: the embedded engine. One column family, write-ahead log on, every write atomic, fsync when asked.
//!
//! Memory is bounded: two memtables, one block cache that also holds index and filter blocks. Descriptors are bounded by
//! `max_open_files`. RocksDB checksums its blocks and its log, so the records above carry no checksum of their own.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use granary_core::{Error, Kind, Result};
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, DB, DBAccess, DBCompressionType, DBIteratorWithThreadMode,
    Direction, IteratorMode, LogLevel, LruCacheOptions, Options, ReadOptions, WriteBatch, WriteOptions,
};

use super::{Engine, Look, Snapshot, Visit, Write, closed, prefix_end};

/// Index, filter and data blocks in memory.
const BLOCK_CACHE_BYTES: usize = 32 << 20;
const BLOCK_CACHE_SHARD_BITS: i32 = 2;
/// One memtable; two of them.
const MEMTABLE_BYTES: usize = 16 << 20;
const MEMTABLES: i32 = 2;
/// The log is cut (by flushing memtables) when it is longer than this.
const LOG_BYTES_MAX: u64 = 128 << 20;
const OPEN_FILES_MAX: i32 = 256;
/// RocksDB's own text log: two files of a MiB.
const INFO_LOG_BYTES: usize = 1 << 20;

/// A RocksDB database in a folder of its own.
pub struct RocksEngine {
    dir: PathBuf,
    /// `None` once closed. A lock for reading during each call, for writing by `close`, which so waits for them.
    db: RwLock<Option<DB>>,
}

impl std::fmt::Debug for RocksEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RocksEngine").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl RocksEngine {
    /// Opens the database in `dir`, made if it is missing. `Busy` when another process has it.
    pub fn open(dir: impl AsRef<Path>) -> Result<Arc<dyn Engine>> {
        let dir = dir.as_ref().to_path_buf();
        std::fs::create_dir_all(&dir)
            .map_err(|e| Error::io(format!("cannot make metadata directory {}", dir.display()), e))?;
        let db = DB::open(&options(), &dir).map_err(|e| opening(&dir, e))?;
        Ok(Arc::new(RocksEngine { dir, db: RwLock::new(Some(db)) }))
    }

    fn with<T>(&self, what: &str, f: impl FnOnce(&DB) -> Result<T, rocksdb::Error>) -> Result<T> {
        let guard = self.db.read().unwrap_or_else(PoisonError::into_inner);
        let db = guard.as_ref().ok_or_else(closed)?;
        f(db).map_err(|e| failed(&self.dir, what, e))
    }
}

fn options() -> Options {
    let mut table = BlockBasedOptions::default();
    // Few shards: with the default of 64, a shard is smaller than a table's filter, which was then read and hashed again
    // for every lookup (measured: 40 us instead of 4).
    let mut cache = LruCacheOptions::default();
    cache.set_capacity(BLOCK_CACHE_BYTES);
    cache.set_num_shard_bits(BLOCK_CACHE_SHARD_BITS);
    table.set_block_cache(&Cache::new_lru_cache_opts(&cache));
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    // Index and filter in parts of a few KiB, so that of a large volume only what is used is in the cache.
    table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    table.set_partition_filters(true);
    table.set_metadata_block_size(4 << 10);
    table.set_pin_top_level_index_and_filter(true);
    table.set_bloom_filter(10.0, false);
    table.set_block_size(8 << 10);
    table.set_format_version(5);

    let mut o = Options::default();
    o.create_if_missing(true);
    o.set_block_based_table_factory(&table);
    o.set_compression_type(DBCompressionType::Lz4);
    o.set_write_buffer_size(MEMTABLE_BYTES);
    o.set_max_write_buffer_number(MEMTABLES);
    o.set_max_total_wal_size(LOG_BYTES_MAX);
    o.set_max_open_files(OPEN_FILES_MAX);
    o.set_max_background_jobs(2);
    o.set_level_compaction_dynamic_level_bytes(true);
    // Written back as it is made, so that a flush or compaction does not stall an fsync behind it.
    o.set_bytes_per_sync(1 << 20);
    o.set_keep_log_file_num(2);
    o.set_max_log_file_size(INFO_LOG_BYTES);
    o.set_log_level(LogLevel::Warn);
    o.set_stats_dump_period_sec(0);
    o
}

fn opening(dir: &Path, e: rocksdb::Error) -> Error {
    let text = e.to_string();
    if text.contains("LOCK") || text.contains("lock hold by current process") {
        return Error::new(
            Kind::Busy,
            format!(
                "metadata directory {} is in use by another process (granary node?): stop it or use its socket",
                dir.display()
            ),
        )
        .with_source(e);
    }
    failed(dir, "open", e)
}

fn failed(dir: &Path, what: &str, e: rocksdb::Error) -> Error {
    let text = e.to_string();
    let (kind, mend) = if text.contains("No space left") {
        (Kind::NoSpace, "free space on its disk, then restart")
    } else if e.kind() == rocksdb::ErrorKind::Corruption {
        (Kind::Corrupt, "restore it from a copy; do not delete files in it")
    } else {
        (Kind::Io, "look at the disk and at the file LOG in it")
    };
    Error::new(kind, format!("cannot {what} metadata in {}; {mend}", dir.display())).with_source(e)
}

fn write_options(sync: bool) -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(sync);
    options
}

fn span<'a>(prefix: &'a [u8], from: &'a [u8]) -> (IteratorMode<'a>, ReadOptions) {
    let mut read = ReadOptions::default();
    if let Some(end) = prefix_end(prefix) {
        read.set_iterate_upper_bound(end);
    }
    (IteratorMode::From(from.max(prefix), Direction::Forward), read)
}

fn visit_all<D: DBAccess>(
    dir: &Path,
    items: DBIteratorWithThreadMode<'_, D>,
    prefix: &[u8],
    visit: &mut Visit<'_>,
) -> Result<()> {
    for item in items {
        let (key, value) = item.map_err(|e| failed(dir, "scan", e))?;
        if !key.starts_with(prefix) || !visit(&key, &value)? {
            break;
        }
    }
    Ok(())
}

/// RocksDB's snapshot: what it sees is kept on disk until it goes.
struct Moment<'a> {
    dir: &'a Path,
    at: rocksdb::Snapshot<'a>,
}

impl Snapshot for Moment<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.at.get(key).map_err(|e| failed(self.dir, "read", e))
    }

    fn scan(&self, prefix: &[u8], from: &[u8], visit: &mut Visit<'_>) -> Result<()> {
        let (mode, read) = span(prefix, from);
        visit_all(self.dir, self.at.iterator_opt(mode, read), prefix, visit)
    }
}

impl Engine for RocksEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.with("read", |db| db.get(key))
    }

    fn scan(&self, prefix: &[u8], from: &[u8], visit: &mut Visit<'_>) -> Result<()> {
        let guard = self.db.read().unwrap_or_else(PoisonError::into_inner);
        let db = guard.as_ref().ok_or_else(closed)?;
        // An iterator is a snapshot of the moment it is made.
        let (mode, read) = span(prefix, from);
        visit_all(&self.dir, db.iterator_opt(mode, read), prefix, visit)
    }

    fn snapshot(&self, look: &mut Look<'_>) -> Result<()> {
        let guard = self.db.read().unwrap_or_else(PoisonError::into_inner);
        let db = guard.as_ref().ok_or_else(closed)?;
        look(&Moment { dir: &self.dir, at: db.snapshot() })
    }

    fn write(&self, batch: Vec<Write>, sync: bool) -> Result<()> {
        let mut rocks = WriteBatch::default();
        for write in batch {
            match write {
                Write::Put(key, value) => rocks.put(key, value),
                Write::Delete(key) => rocks.delete(key),
                Write::DeletePrefix(prefix) => match prefix_end(&prefix) {
                    Some(end) => rocks.delete_range(prefix, end),
                    None => {
                        return Err(Error::new(Kind::Bug, "a prefix of bytes 255 only cannot be deleted"));
                    }
                },
            }
        }
        self.with("write", |db| db.write_opt(rocks, &write_options(sync)))
    }

    fn sync(&self) -> Result<()> {
        self.with("sync", |db| db.flush_wal(true))
    }

    fn close(&self) -> Result<()> {
        let taken = self.db.write().unwrap_or_else(PoisonError::into_inner).take();
        match taken {
            Some(db) => db.flush_wal(true).map_err(|e| failed(&self.dir, "sync", e)),
            None => Ok(()),
        }
    }
}
