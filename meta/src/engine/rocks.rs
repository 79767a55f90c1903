//! RocksDB: the embedded engine. One column family, write-ahead log on, every write atomic, fsync when asked.
//!
//! Memory is bounded: two memtables, one block cache that also holds index and filter blocks. Descriptors are bounded by
//! `max_open_files`. RocksDB checksums its blocks and its log, so the records above carry no checksum of their own.
//!
//! After a failed write RocksDB takes no more until it is opened again. [`Engine::revive`] does that, once a file as large as
//! opening may need could be written beside it; the database's sequence number, which counts all records ever written, then
//! tells whether everything is there that was acknowledged.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

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
/// Of a memtable, for its Bloom filter: some 10 bits for each record of 60 bytes.
const MEMTABLE_FILTER_SHARE: f64 = 0.02;
const MEMTABLES: i32 = 2;
/// The log is cut (by flushing memtables) when it is longer than this.
const LOG_BYTES_MAX: u64 = 128 << 20;
const OPEN_FILES_MAX: i32 = 256;
/// RocksDB's own text log: two files of a MiB.
const INFO_LOG_BYTES: usize = 1 << 20;
/// Opening writes what the log holds into a table, and this much at most beside it.
const OPENING_BYTES: u64 = 1 << 20;

/// A RocksDB database in a folder of its own.
pub struct RocksEngine {
    dir: PathBuf,
    /// A lock for reading during each call, for writing by `close` and `revive`, which so wait for them.
    db: RwLock<State>,
    /// RocksDB's number of the last record that was acknowledged.
    acknowledged: AtomicU64,
    /// Snapshots that somebody looks at, perhaps for long.
    looks: AtomicUsize,
}

enum State {
    Open(DB),
    /// It was to be opened again, and could not be.
    Unopened(Error),
    Closed,
}

impl std::fmt::Debug for RocksEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RocksEngine").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl RocksEngine {
    /// Opens the database in `dir`, made if it is missing and closed to others: all names and some bytes are in it. `Busy` when another process has it.
    pub fn open(dir: impl AsRef<Path>) -> Result<Arc<dyn Engine>> {
        let dir = dir.as_ref().to_path_buf();
        make(&dir).map_err(|e| Error::io(format!("cannot make metadata directory {}", dir.display()), e))?;
        let db = DB::open(&options(), &dir).map_err(|e| opening(&dir, e))?;
        let acknowledged = AtomicU64::new(db.latest_sequence_number());
        Ok(Arc::new(RocksEngine {
            dir,
            db: RwLock::new(State::Open(db)),
            acknowledged,
            looks: AtomicUsize::new(0),
        }))
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.db.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, what: &str, f: impl FnOnce(&DB) -> Result<T, rocksdb::Error>) -> Result<T> {
        f(self.state().db()?).map_err(|e| failed(&self.dir, what, e))
    }

    /// Refuses while the disk would not take what opening the database again may write.
    fn probe(&self) -> Result<()> {
        let in_memory = match &*self.state() {
            State::Open(db) => {
                let sizes = db.property_int_value(rocksdb::properties::CUR_SIZE_ALL_MEM_TABLES);
                sizes.ok().flatten().unwrap_or(LOG_BYTES_MAX)
            }
            State::Unopened(_) => MEMTABLE_BYTES as u64,
            State::Closed => return Err(closed()),
        };
        let path = self.dir.join("granary.probe");
        let written = write_probe(&path, in_memory + OPENING_BYTES);
        // One that stays is written over by the next.
        let _ = std::fs::remove_file(&path);
        written.map_err(|e| {
            Error::io(
                format!(
                    "metadata in {} cannot be written; free some space on its disk, or repair it",
                    self.dir.display()
                ),
                e,
            )
        })
    }
}

impl State {
    fn db(&self) -> Result<&DB> {
        match self {
            State::Open(db) => Ok(db),
            State::Unopened(e) => Err(e.duplicate()),
            State::Closed => Err(closed()),
        }
    }
}

fn make(dir: &Path) -> io::Result<()> {
    if let Some(parent) = dir.parent() {
        std::fs::create_dir_all(parent)?;
    }
    match std::fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

fn write_probe(path: &Path, bytes: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    let zeros = vec![0; 1 << 20];
    let mut left = bytes;
    while left > 0 {
        let n = left.min(zeros.len() as u64);
        file.write_all(&zeros[..n as usize])?;
        left -= n;
    }
    file.sync_all()
}

/// Counts a look at a snapshot for as long as it lasts.
struct Looking<'a>(&'a AtomicUsize);

impl<'a> Looking<'a> {
    fn begin(looks: &'a AtomicUsize) -> Looking<'a> {
        looks.fetch_add(1, Ordering::SeqCst);
        Looking(looks)
    }
}

impl Drop for Looking<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
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
    // A name that is to be made is looked for first, and is nowhere: that is not to search the memtable.
    o.set_memtable_prefix_bloom_ratio(MEMTABLE_FILTER_SHARE);
    o.set_memtable_whole_key_filtering(true);
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
    let (kind, mend) = if text.contains("No space left") || text.contains("quota exceeded") {
        (Kind::NoSpace, "free some space on its disk")
    } else if text.contains("Read-only file system") {
        (Kind::ReadOnly, "its disk was made read-only: look why, and mount it writable")
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
        let guard = self.state();
        let db = guard.db()?;
        // An iterator is a snapshot of the moment it is made.
        let (mode, read) = span(prefix, from);
        visit_all(&self.dir, db.iterator_opt(mode, read), prefix, visit)
    }

    fn snapshot(&self, look: &mut Look<'_>) -> Result<()> {
        let guard = self.state();
        let db = guard.db()?;
        let _looking = Looking::begin(&self.looks);
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
        let written = self.with("write", |db| {
            db.write_opt(rocks, &write_options(sync))?;
            Ok(db.latest_sequence_number())
        })?;
        self.acknowledged.fetch_max(written, Ordering::SeqCst);
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        self.with("sync", |db| db.flush_wal(true))
    }

    fn revive(&self) -> Result<()> {
        if self.looks.load(Ordering::SeqCst) > 0 {
            return Err(Error::new(Kind::Busy, "the metadata is being read (a backup?); it is tried again"));
        }
        self.probe()?;
        let mut state = self.db.write().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Closed) {
            return Err(closed());
        }
        // RocksDB locks the folder: the old one goes first.
        *state = State::Unopened(Error::new(Kind::Unavailable, "the metadata is being opened again"));
        match DB::open(&options(), &self.dir) {
            Ok(db) => *state = State::Open(db),
            Err(e) => {
                let e = opening(&self.dir, e);
                *state = State::Unopened(e.duplicate());
                return Err(e);
            }
        }
        let there = state.db()?.latest_sequence_number();
        drop(state);
        if there < self.acknowledged.load(Ordering::SeqCst) {
            return Err(Error::new(
                Kind::Corrupt,
                format!(
                    "the disk of the metadata in {} lost what was written last; look at it, and restart granary, which then \
                     goes on as after a power loss",
                    self.dir.display()
                ),
            ));
        }
        self.sync()
    }

    fn close(&self) -> Result<()> {
        let mut state = self.db.write().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *state, State::Closed) {
            State::Open(db) => db.flush_wal(true).map_err(|e| failed(&self.dir, "sync", e)),
            State::Unopened(e) => Err(e),
            State::Closed => Ok(()),
        }
    }
}
