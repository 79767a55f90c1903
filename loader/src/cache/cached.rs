//! Ranges of shards, from the cache's folder or else from the store.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use granary_core::{Clock, Error, Kind, Result};
use tokio::sync::Semaphore;

use super::disk::{Disk, Locked};
use super::evict::{Decision, Evict};
use super::oracle::Oracle;
use super::{CHUNK_BYTES, CacheOptions, shard_folder};
use crate::fetch::{Direct, Ranges};
use crate::source::Home;
use crate::stats::Counters;

/// Threads that wait for other processes' locks at once. Who finds no place fetches without a lock: perhaps twice, never wrong.
const WAITING_MAX: usize = 64;

/// What the sources of a loader share of the cache.
#[derive(Debug)]
pub(crate) struct Cache {
    disk: Disk,
    oracle: Arc<Oracle>,
    clock: Arc<dyn Clock>,
    /// Guards the sum; held while the folder is looked through, by a thread that may wait.
    evict: Mutex<Evict>,
    waiting: Semaphore,
}

/// A data set's ranges through a cache.
#[derive(Debug)]
pub(crate) struct Cached {
    home: Arc<Home>,
    direct: Direct,
    cache: Arc<Cache>,
    counters: Arc<Counters>,
}

impl Cache {
    pub fn open(options: &CacheOptions, oracle: Arc<Oracle>, clock: Arc<dyn Clock>) -> Result<Cache> {
        let evict = Mutex::new(Evict::new(options.bytes_max));
        let disk = Disk::open(&options.folder)?;
        Ok(Cache { disk, oracle, clock, evict, waiting: Semaphore::new(WAITING_MAX) })
    }

    /// Keeps a chunk if it is worth it. A cache that cannot be written fails no read.
    fn keep(&self, folder: &str, chunk: u64, payload: &[u8]) {
        let wanted = self.oracle.wanted(folder, chunk, 0);
        let bytes = payload.len() as u64;
        let mut evict = self.evict.lock().unwrap_or_else(PoisonError::into_inner);
        if evict.decide(bytes, wanted) == Decision::MakeRoom
            && let Err(e) = self.make_room(&mut evict)
        {
            tracing::warn!("{e}; what is fetched is not kept");
            return;
        }
        if evict.decide(bytes, wanted) != Decision::Keep {
            return;
        }
        match self.disk.keep(folder, chunk, payload) {
            Ok(()) => evict.kept(bytes),
            Err(e) => tracing::warn!("{e}; what is fetched is not kept"),
        }
    }

    /// While another process does it, only looks how much there is.
    fn make_room(&self, evict: &mut Evict) -> Result<()> {
        let locked = self.disk.lock_eviction()?;
        let all = self.disk.list()?;
        if locked.is_none() {
            evict.seen(all.iter().map(|kept| kept.bytes).sum());
            return Ok(());
        }
        let now = self.clock.now().unix_ms() / 1000;
        let uses: Vec<_> = all
            .iter()
            .map(|kept| {
                let modified =
                    kept.modified.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
                (kept.bytes, self.oracle.wanted(&kept.shard, kept.chunk, now.saturating_sub(modified)))
            })
            .collect();
        for at in evict.make_room(&uses) {
            self.disk.remove(&all[at].shard, all[at].chunk);
        }
        Ok(())
    }
}

impl Cached {
    pub fn new(home: Arc<Home>, cache: Arc<Cache>, part_bytes: u64, counters: Arc<Counters>) -> Cached {
        Cached { direct: Direct::new(home.clone(), part_bytes), home, cache, counters }
    }

    /// The folder of a shard and its bytes.
    fn shard(&self, number: u32) -> Result<(String, u64)> {
        let shard = self.home.data().shard(number)?;
        Ok((shard_folder(&self.home.data().manifest().data_set(), shard), shard.bytes))
    }

    /// Chunks of a shard that the folder has.
    async fn read(&self, folder: &str, bytes: u64, chunks: Vec<u64>) -> Result<Vec<Option<Bytes>>> {
        let (cache, folder) = (self.cache.clone(), folder.to_owned());
        let read = move || chunks.iter().map(|&n| cache.disk.read(&folder, n, len(bytes, n))).collect();
        blocking(read).await
    }

    /// A lock, unless too many wait for one.
    async fn lock(&self, folder: &str, chunks: Range<u64>) -> Result<Option<Locked>> {
        let (cache, folder) = (self.cache.clone(), folder.to_owned());
        blocking(move || match cache.disk.lock(&folder, chunks.clone(), false) {
            Ok(None) => match cache.waiting.try_acquire() {
                Ok(_place) => cache.disk.lock(&folder, chunks, true),
                Err(_) => Ok(None),
            },
            locked => locked,
        })
        .await?
    }

    /// Fetches what is missing, neighbours together, and keeps it.
    async fn fill(
        &self,
        shard: u32,
        folder: &str,
        bytes: u64,
        first: u64,
        chunks: &mut [Option<Bytes>],
    ) -> Result<()> {
        let missing = |chunks: &[Option<Bytes>]| -> Vec<u64> {
            (first..).zip(chunks).filter(|(_, chunk)| chunk.is_none()).map(|(n, _)| n).collect()
        };
        let wanted = missing(chunks);
        let (Some(&from), Some(&to)) = (wanted.first(), wanted.last()) else { return Ok(()) };
        let locked = match self.lock(folder, from..to + 1).await {
            Ok(locked) => locked,
            Err(e) => {
                tracing::warn!("{e}; another process may fetch the same");
                None
            }
        };
        // Who had the lock before us fetched them, perhaps.
        let found = self.read(folder, bytes, wanted.clone()).await?;
        for (number, chunk) in wanted.into_iter().zip(found) {
            chunks[(number - first) as usize] = chunk;
        }
        let mut groups: Vec<Range<u64>> = Vec::new();
        for number in missing(chunks) {
            match groups.last_mut() {
                Some(group) if group.end == number => group.end += 1,
                _ => groups.push(number..number + 1),
            }
        }
        let fetch = groups.iter().map(|group| {
            self.direct.get(shard, group.start * CHUNK_BYTES..bytes.min(group.end * CHUNK_BYTES))
        });
        let fetched = futures::future::try_join_all(fetch).await?;
        let mut keep = Vec::new();
        for (group, all) in groups.into_iter().zip(fetched) {
            for number in group.clone() {
                let start = ((number - group.start) * CHUNK_BYTES) as usize;
                let chunk = all.slice(start..start + len(bytes, number) as usize);
                Counters::add(&self.counters.cache_miss_bytes, chunk.len() as u64);
                keep.push((number, chunk.clone()));
                chunks[(number - first) as usize] = Some(chunk);
            }
        }
        let (cache, folder) = (self.cache.clone(), folder.to_owned());
        // The lock goes with them: if this task is dropped now, they are kept all the same before another looks.
        let keep_all = move || {
            keep.iter().for_each(|(number, chunk)| cache.keep(&folder, *number, chunk));
            drop(locked);
        };
        blocking(keep_all).await
    }
}

#[async_trait]
impl Ranges for Cached {
    async fn get(&self, shard: u32, range: Range<u64>) -> Result<Bytes> {
        let (folder, bytes) = self.shard(shard)?;
        if range.is_empty() || range.end > bytes {
            return self.direct.get(shard, range).await;
        }
        let (first, last) = (range.start / CHUNK_BYTES, (range.end - 1) / CHUNK_BYTES);
        let mut chunks = self.read(&folder, bytes, (first..=last).collect()).await?;
        let hits = chunks.iter().flatten().map(|chunk| chunk.len() as u64).sum();
        Counters::add(&self.counters.cache_hit_bytes, hits);
        self.fill(shard, &folder, bytes, first, &mut chunks).await?;
        let from = (range.start - first * CHUNK_BYTES) as usize;
        let len = (range.end - range.start) as usize;
        if let [Some(only)] = &chunks[..] {
            // A small part does not hold the memory of a whole chunk.
            let part = only.slice(from..from + len);
            return Ok(if len < only.len() / 2 { Bytes::copy_from_slice(&part) } else { part });
        }
        let mut all = BytesMut::with_capacity(len);
        for (number, chunk) in (first..).zip(chunks.into_iter().flatten()) {
            let start = range.start.max(number * CHUNK_BYTES) - number * CHUNK_BYTES;
            let end = (range.end - number * CHUNK_BYTES).min(chunk.len() as u64);
            all.extend_from_slice(&chunk[start as usize..end as usize]);
        }
        Ok(all.freeze())
    }

    fn forget(&self, shard: u32, range: Range<u64>) {
        let Ok((folder, _)) = self.shard(shard) else { return };
        for number in range.start / CHUNK_BYTES..range.end.div_ceil(CHUNK_BYTES) {
            self.cache.disk.remove(&folder, number);
        }
    }
}

/// Bytes of a chunk of a shard.
fn len(shard_bytes: u64, number: u64) -> u64 {
    shard_bytes.saturating_sub(number * CHUNK_BYTES).min(CHUNK_BYTES)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let ended = |_| Error::new(Kind::Interrupted, "the loader ended while it used its cache");
    tokio::task::spawn_blocking(work).await.map_err(ended)
}
