//! Tiny files with and without copies of their bytes in the metadata: creating, draining, the database's size, and reading them
//! cold at random by one thread, over RocksDB in a temporary folder and a store in memory whose GETs take a while:
//! `cargo run --release -p granary-cache --example tiny [FILES [BYTES [READS [MILLISECONDS]]]]`. Without a kernel.

use std::fmt::Display;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use granary_cache::{PathHint, ReadCache, Tree, TreeParts};
use granary_core::limits::Limits;
use granary_core::{ByteBudget, Clock, EntryName, Ino, NodeId, Result, SystemClock};
use granary_meta::engine::RocksEngine;
use granary_meta::{
    Durability, FileType, LocalNamespace, Metadata, NamespaceChange, NewInode, NewNamespace, PolicyChange,
    Volume, VolumeInfo,
};
use granary_store::memory::MemoryStore;
use granary_store::{ObjectMeta, Store};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// A store far away.
#[derive(Debug)]
struct Distant {
    inner: MemoryStore,
    latency: Duration,
    gets: AtomicU64,
}

#[async_trait]
impl Store for Distant {
    async fn get(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        self.gets.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(self.latency).await;
        self.inner.get(key, range).await
    }
    async fn put(&self, key: &str, parts: Vec<Bytes>) -> Result<()> {
        self.inner.put(key, parts).await
    }
    async fn head(&self, key: &str) -> Result<ObjectMeta> {
        self.inner.head(key).await
    }
    async fn delete(&self, keys: Vec<String>) -> Result<()> {
        self.inner.delete(keys).await
    }
    async fn list(&self, prefix: &str, after: Option<&str>, max: usize) -> Result<Vec<ObjectMeta>> {
        self.inner.list(prefix, after, max).await
    }
    fn describe(&self) -> String {
        "memory".to_owned()
    }
}

struct Sizes {
    files: u64,
    bytes: usize,
    reads: u64,
    latency: Duration,
}

/// One run's folder and store.
struct Place {
    dir: PathBuf,
    store: Arc<Distant>,
    limits: Limits,
}

struct Up {
    volume: Arc<Volume>,
    space: Arc<LocalNamespace>,
    tree: Arc<Tree>,
}

impl Place {
    /// With a namespace in it that keeps copies, or not.
    fn make(latency: Duration, inline: bool) -> Result<Place> {
        let dir = std::env::temp_dir().join(format!("granary-tiny-{}", std::process::id()));
        let inner = MemoryStore::new(Arc::new(SystemClock));
        let store = Arc::new(Distant { inner, latency, gets: AtomicU64::new(0) });
        let limits = Limits { small_period_ms: 3_600_000, ..Limits::default() };
        let engine = RocksEngine::open(dir.join("meta"))?;
        let info = VolumeInfo { uuid: "0".repeat(32), store_url: "memory:".into(), created_unix_ms: 0 };
        Volume::init(&*engine, &info)?;
        let volume = Volume::open(engine, Arc::new(SystemClock), &limits)?;
        let (name, durability) = ("user/tiny".parse()?, Durability::Local);
        let (uid, gid, mode, bytes_max, inodes_max, trash_ms) = (0, 0, 0o755, 0, 0, 0);
        let new =
            NewNamespace { name, uid, gid, mode, bytes_max, inodes_max, durability, trash_ms, packed: None };
        volume.create_namespace(new)?;
        let inline_bytes_max = Some(if inline { 2048 } else { 0 });
        let policy = PolicyChange { inline_bytes_max, ..PolicyChange::default() };
        let change = NamespaceChange { policy, ..NamespaceChange::default() };
        volume.set_namespace(&"user/tiny".parse()?, change)?;
        volume.shutdown()?;
        Ok(Place { dir, store, limits })
    }

    /// Starts a node, with nothing in its read cache if `cache` is new.
    async fn start(&self, cache: &str) -> Result<Up> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let engine = RocksEngine::open(self.dir.join("meta"))?;
        let volume = Volume::open(engine, clock.clone(), &self.limits)?;
        let space = volume.namespace(&"user/tiny".parse()?)?;
        let memory = ByteBudget::new(self.limits.memory_bytes_max);
        let store: Arc<dyn Store> = self.store.clone();
        let folder = self.dir.join(cache);
        let reads = ReadCache::open(&folder, &self.limits, store.clone(), clock.clone(), memory.clone())?;
        let mut random = SmallRng::seed_from_u64(clock.now().unix_ms());
        let parts = TreeParts {
            stage_dir: self.dir.join("stage"),
            node: NodeId(1),
            limits: self.limits.clone(),
            meta: space.clone(),
            store,
            reads,
            clock,
            random: Box::new(move || random.random()),
            memory,
            runtime: tokio::runtime::Handle::current(),
        };
        Ok(Up { volume, space, tree: Tree::open(parts).await? })
    }

    async fn stop(&self, up: Up) -> Result<()> {
        up.tree.shutdown().await?;
        up.volume.shutdown()
    }

    fn gets(&self) -> u64 {
        self.store.gets.load(Ordering::Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Best effort: it is a temporary folder.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn line(what: &str, value: impl Display) {
    println!("  {what:<44} {value:>10}");
}

fn folder_bytes(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|e| e.metadata().ok()).map(|m| m.len()).sum()
}

fn name(i: u64) -> String {
    format!("sample-{i:08}.json")
}

async fn create(up: &Up, sizes: &Sizes, random: &mut SmallRng) -> Result<()> {
    let mut bytes = vec![0; sizes.bytes];
    for i in 0..sizes.files {
        // Half of it random, so that the database's compression finds what it finds in most data.
        random.fill(&mut bytes[..sizes.bytes / 2]);
        bytes[sizes.bytes / 2..].fill(b'a' + (i % 26) as u8);
        let (kind, name) = (FileType::File, name(i));
        let new = NewInode { kind, mode: 0o644, umask: 0, uid: 1, gid: 1, rdev: 0, target: Vec::new() };
        let attr = up.space.create(Ino::ROOT, EntryName::new(name.as_bytes())?, new, true).await?;
        let hint = PathHint { dir: Ino::ROOT, name: name.into_bytes() };
        let file = up.tree.created(&attr, hint, false)?;
        file.write(0, &bytes, false).await?;
        up.tree.close(file).await?;
        up.space.close(attr.ino);
    }
    Ok(())
}

async fn read(up: &Up, sizes: &Sizes, random: &mut SmallRng) -> Result<()> {
    for _ in 0..sizes.reads {
        let name = name(random.random_range(0..sizes.files));
        let attr = up.space.lookup(Ino::ROOT, EntryName::new(name.as_bytes())?).await?;
        let file = up.tree.file(&attr, None).await?;
        let len = match file.read_ready(0, 1 << 16) {
            Some(ready) => ready?.len(),
            None => file.read(0, 1 << 16).await?.len(),
        };
        assert_eq!(len, sizes.bytes);
        up.tree.close(file).await?;
    }
    Ok(())
}

async fn run(sizes: &Sizes, inline: bool, seed: u64) -> Result<()> {
    println!("{}", if inline { "with copies" } else { "without" });
    let place = Place::make(sizes.latency, inline)?;
    let mut random = SmallRng::seed_from_u64(seed);
    let since = |start: Duration| (SystemClock.monotonic() - start).as_secs_f64();

    let up = place.start("cache-of-the-writer").await?;
    let start = SystemClock.monotonic();
    create(&up, sizes, &mut random).await?;
    line("create, write, close: files/s", (sizes.files as f64 / since(start)) as u64);
    let start = SystemClock.monotonic();
    up.tree.sync().await?;
    line("drain of all: files/s", (sizes.files as f64 / since(start)) as u64);
    place.stop(up).await?;

    let up = place.start("cache-of-the-reader").await?;
    line("database: bytes/file", folder_bytes(&place.dir.join("meta")) / sizes.files);
    let (start, gets) = (SystemClock.monotonic(), place.gets());
    read(&up, sizes, &mut random).await?;
    line("cold, at random, one thread: files/s", (sizes.reads as f64 / since(start)) as u64);
    line("GETs", place.gets() - gets);
    let start = SystemClock.monotonic();
    read(&up, sizes, &mut random).await?;
    line("as many others then: files/s", (sizes.reads as f64 / since(start)) as u64);
    place.stop(up).await
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let argument = |n, default| std::env::args().nth(n).and_then(|s| s.parse().ok()).unwrap_or(default);
    let sizes = Sizes {
        files: argument(1, 200_000),
        bytes: argument(2, 1024) as usize,
        reads: argument(3, 1000),
        latency: Duration::from_millis(argument(4, 12)),
    };
    println!("{} files of {} bytes, GETs take {:?}", sizes.files, sizes.bytes, sizes.latency);
    for seed in 0..3 {
        run(&sizes, false, seed).await?;
        run(&sizes, true, seed).await?;
    }
    Ok(())
}
