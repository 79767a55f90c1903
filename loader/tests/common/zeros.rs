//! Data sets of zeros in virtual time: indexes without their tars, over a link that takes as long as a store's does.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use granary_core::limits::Limits;
use granary_core::{Clock, Result, Timestamp};
use granary_loader::{Source, SourceOptions};
use granary_packer::dataset::{self, DataSet};
use granary_packer::index::{Builder, NewFile};
use granary_packer::key::Grouping;
use granary_packer::manifest::{Manifest, Runs, Shard};
use granary_packer::place::Place;
use granary_store::{MemoryStore, ObjectMeta, Store};
use prometheus_client::registry::Registry;

/// Tokio's time, which stands while anything can be done.
#[derive(Debug)]
pub struct VirtualClock(tokio::time::Instant);

impl VirtualClock {
    pub fn new() -> VirtualClock {
        VirtualClock(tokio::time::Instant::now())
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        let time = self.monotonic();
        Timestamp { secs: time.as_secs() as i64, nanos: time.subsec_nanos() }
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

/// The index of a shard of files of zeros of these lengths, each a sample.
pub async fn put_index(store: &dyn Store, number: u32, lengths: &[u64]) -> Shard {
    let mut builder = Builder::new(Grouping::Stem, &std::env::temp_dir());
    let zeros = vec![0; lengths.iter().copied().max().unwrap_or(0) as usize];
    let mut at = 0;
    let mut last = (0, granary_core::crc32c(b""));
    for (sample, &length) in lengths.iter().enumerate() {
        let path = format!("{number:03}-{sample:06}.npz");
        if last.0 != length {
            last = (length, granary_core::crc32c(&zeros[..length as usize]));
        }
        let (offset, crc32c) = (at + 512, last.1);
        let file =
            NewFile { path: path.as_bytes(), offset, length, crc32c, mode: 0, mtime: 0, uid: 0, gid: 0 };
        builder.push(&file).unwrap();
        at = offset + length.next_multiple_of(512);
    }
    let index = builder.seal(at).unwrap();
    let shard = Shard {
        path: format!("shards/{number:06}.tar"),
        bytes: at,
        files: lengths.len() as u32,
        samples: lengths.len() as u32,
        index_bytes: index.bytes(),
        index_crc32c: index.crc32c(),
        dead_samples: Runs::default(),
        dead_files: Runs::default(),
    };
    store.put(&shard.index_path(), vec![index.to_bytes().unwrap()]).await.unwrap();
    shard
}

/// How long bytes are under way.
#[async_trait]
pub trait Link: Debug + Send + Sync + 'static {
    /// Returns when they have come. `shard`: of a tar, and not of what is small.
    async fn bring(&self, bytes: u64, shard: bool);
}

/// Tars of zeros behind a link. What else there is is kept as it was put.
#[derive(Debug)]
pub struct ZeroStore<L> {
    pub link: L,
    small: MemoryStore,
    zeros: Bytes,
}

impl<L> ZeroStore<L> {
    /// `request_bytes_max`: of one request for a part of a tar.
    pub fn new(link: L, request_bytes_max: usize) -> ZeroStore<L> {
        ZeroStore { link, small: MemoryStore::default(), zeros: vec![0; request_bytes_max].into() }
    }
}

#[async_trait]
impl<L: Link> Store for ZeroStore<L> {
    async fn get(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        let (bytes, shard) = (range.end - range.start, key.ends_with(".tar"));
        self.link.bring(bytes, shard).await;
        match shard {
            true => Ok(self.zeros.slice(..bytes as usize)),
            false => self.small.get(key, range).await,
        }
    }

    async fn put(&self, key: &str, parts: Vec<Bytes>) -> Result<()> {
        self.small.put(key, parts).await
    }

    async fn head(&self, key: &str) -> Result<ObjectMeta> {
        self.small.head(key).await
    }

    async fn delete(&self, keys: Vec<String>) -> Result<()> {
        self.small.delete(keys).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, max: usize) -> Result<Vec<ObjectMeta>> {
        self.small.list(prefix, after, max).await
    }

    fn describe(&self) -> String {
        "zeros:".to_owned()
    }
}

/// A data set of these shards, read through the stack of production with so many of a hundred requests hedged.
pub async fn source(
    store: Arc<dyn Store>,
    shards: Vec<Shard>,
    hedge_percent_max: u64,
    clock: &Arc<VirtualClock>,
) -> Source {
    let limits = Limits { hedge_percent_max, ..Limits::default() };
    let store = granary_store::stacked(store, &limits, clock.clone(), &mut Registry::default());
    let manifest = Manifest::new(1, [1; 16], Grouping::Stem, "simulation", shards).unwrap();
    let data = DataSet::of_manifest(Place::of_store(store), manifest, dataset::Options::default());
    Source::of_data_set(data, SourceOptions::default()).await.unwrap()
}
