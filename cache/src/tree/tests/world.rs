//! A node to play with: crash it, cut its power, break its disk or its store.

use std::path::PathBuf;
use std::sync::Arc;

use granary_core::limits::Limits;
use granary_core::{ByteBudget, EntryName, Ino, NamespaceName, NodeId, TestClock};
use granary_meta::engine::{FaultyEngine, MemoryEngine};
use granary_meta::types::Durability;
use granary_meta::{Attr, FileType, LocalNamespace, Metadata, NewInode, NewNamespace, Volume, VolumeInfo};
use granary_store::{FaultStore, MemoryStore};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;

use crate::stage::disk::power::{FailingDisk, Loss};
use crate::{File, PathHint, ReadCache, Tree, TreeParts};

pub const NODE: NodeId = NodeId(0xabc);

/// Nothing leaves by itself: the test's clock stands still.
pub fn limits() -> Limits {
    Limits {
        small_file_bytes_max: 8 << 10,
        log_segment_bytes_max: 64 << 10,
        memory_bytes_max: 64 << 20,
        cache_free_bytes_min: 0,
        cache_free_percent_min: 0,
        ..Limits::default()
    }
}

pub struct World {
    pub dir: TempDir,
    pub limits: Limits,
    pub clock: Arc<TestClock>,
    pub memory_store: Arc<MemoryStore>,
    pub store: Arc<FaultStore>,
    pub disk: Arc<FailingDisk>,
    pub engine: Arc<MemoryEngine>,
    pub name: NamespaceName,
    pub up: Option<Up>,
    seed: u64,
    caches: u64,
}

/// What runs.
pub struct Up {
    pub faulty: Arc<FaultyEngine>,
    pub volume: Arc<Volume>,
    pub meta: Arc<LocalNamespace>,
    pub reads: Arc<ReadCache>,
    pub tree: Arc<Tree>,
}

impl World {
    pub async fn new() -> World {
        World::with(limits(), 0, Durability::Local).await
    }

    pub async fn with(limits: Limits, bytes_max: u64, durability: Durability) -> World {
        let clock = Arc::new(TestClock::default());
        let engine = Arc::new(MemoryEngine::default());
        let uuid = "0123456789abcdef0123456789abcdef".into();
        Volume::init(&*engine, &VolumeInfo { uuid, store_url: "memory:".into(), created_unix_ms: 5 })
            .unwrap();
        let name: NamespaceName = "user/a".parse().unwrap();
        let volume = Volume::open(engine.clone(), clock.clone(), &limits).unwrap();
        for n in [name.clone(), "user/b".parse().unwrap()] {
            let (mode, trash_ms) = (0o755, 0);
            let new = NewNamespace {
                name: n,
                uid: 1,
                gid: 1,
                mode,
                bytes_max,
                inodes_max: 0,
                durability,
                trash_ms,
                packed: None,
            };
            volume.create_namespace(new).unwrap();
        }
        volume.shutdown().unwrap();
        let engine = Arc::new(engine.crash(usize::MAX)); // a closed engine stays closed
        let memory_store = Arc::new(MemoryStore::new(clock.clone()));
        let mut world = World {
            dir: tempfile::tempdir().unwrap(),
            limits,
            clock,
            store: Arc::new(FaultStore::new(memory_store.clone(), 1)),
            memory_store,
            disk: Arc::new(FailingDisk::default()),
            engine,
            name,
            up: None,
            seed: 0,
            caches: 0,
        };
        world.start().await;
        world
    }

    pub fn stage_dir(&self) -> PathBuf {
        self.dir.path().join("stage")
    }

    pub async fn start(&mut self) {
        let faulty = FaultyEngine::new(self.engine.clone());
        let volume = Volume::open(faulty.clone(), self.clock.clone(), &self.limits).unwrap();
        let meta = volume.namespace(&self.name).unwrap();
        let memory = ByteBudget::new(self.limits.memory_bytes_max);
        let reads = ReadCache::open(
            &self.dir.path().join(format!("cache-{}", self.caches)),
            &self.limits,
            self.store.clone(),
            self.clock.clone(),
            memory.clone(),
        )
        .unwrap();
        let tree = self.tree(&self.stage_dir(), meta.clone(), reads.clone()).await;
        crate::tree::scrub::run(tree.shared.clone()).await; // with the tree's own, and never behind it
        self.up = Some(Up { faulty, volume, meta, reads, tree });
    }

    pub async fn tree(
        &mut self,
        dir: &std::path::Path,
        meta: Arc<LocalNamespace>,
        reads: Arc<ReadCache>,
    ) -> Arc<Tree> {
        self.seed += 1;
        let mut random = SmallRng::seed_from_u64(self.seed);
        let parts = TreeParts {
            stage_dir: dir.to_owned(),
            node: NODE,
            limits: self.limits.clone(),
            meta,
            store: self.store.clone(),
            reads,
            clock: self.clock.clone(),
            random: Box::new(move || random.random()),
            memory: ByteBudget::new(self.limits.memory_bytes_max),
            runtime: tokio::runtime::Handle::current(),
        };
        Tree::open_on(parts, self.disk.clone()).await.unwrap()
    }

    pub fn up(&self) -> &Up {
        self.up.as_ref().unwrap()
    }

    /// The metadata's engine, to let it fail.
    pub fn faulty(&self) -> &FaultyEngine {
        &self.up().faulty
    }

    pub fn tree_ref(&self) -> &Tree {
        &self.up().tree
    }

    pub fn meta(&self) -> &LocalNamespace {
        &self.up().meta
    }

    /// Everything of the process is gone at once; what was written to disk, synced or not, stays.
    pub async fn kill(&mut self) {
        let survivor = self.engine.crash(usize::MAX);
        self.engine = Arc::new(survivor);
        self.stop_hard().await;
        self.start().await;
    }

    /// The machine loses power: of the metadata's unsynced batches `keep` stay, of each file's unsynced bytes the first part.
    pub async fn cut_power(&mut self, keep: usize, part: f64) {
        self.lose_power(keep, Loss::Tails(part)).await;
        self.start().await;
    }

    /// The same, and it does not start again yet.
    pub async fn lose_power(&mut self, keep: usize, loss: Loss) {
        let survivor = self.engine.crash(keep);
        self.engine = Arc::new(survivor);
        self.stop_hard().await;
        self.disk.cut(loss);
    }

    async fn stop_hard(&mut self) {
        let up = self.up.take().unwrap();
        up.tree.stop().await;
        drop(up);
    }

    /// As `granary umount` ends.
    pub async fn stop(&mut self) {
        let up = self.up.take().unwrap();
        up.tree.shutdown().await.unwrap();
        up.volume.shutdown().unwrap();
        self.engine = Arc::new(self.engine.crash(0));
    }

    /// The node's object cache is lost.
    pub async fn restart_with_empty_cache(&mut self) {
        self.stop().await;
        self.caches += 1; // what still runs of the old one may still write to its folder
        self.start().await;
    }

    /// The node's disk is lost, and all of it that is not in the store.
    pub async fn restart_from_the_store(&mut self) {
        self.stop().await;
        std::fs::remove_dir_all(self.stage_dir()).unwrap();
        self.disk.forget();
        self.caches += 1;
        self.start().await;
    }

    pub async fn create(&self, name: &str, large: bool) -> Arc<File> {
        let new = NewInode {
            kind: FileType::File,
            mode: 0o644,
            umask: 0,
            uid: 1,
            gid: 1,
            rdev: 0,
            target: Vec::new(),
        };
        let attr = self
            .meta()
            .create(Ino::ROOT, EntryName::new(name.as_bytes()).unwrap(), new, false)
            .await
            .unwrap();
        let hint = PathHint { dir: Ino::ROOT, name: name.as_bytes().to_vec() };
        self.tree_ref().created(&attr, hint, large).unwrap()
    }

    pub async fn attr(&self, name: &str) -> Option<Attr> {
        match self.meta().lookup(Ino::ROOT, EntryName::new(name.as_bytes()).unwrap()).await {
            Ok(mut attr) => {
                self.tree_ref().overlay(&mut attr);
                Some(attr)
            }
            Err(_) => None,
        }
    }

    pub async fn open(&self, name: &str) -> Arc<File> {
        let attr = self.meta().lookup(Ino::ROOT, EntryName::new(name.as_bytes()).unwrap()).await.unwrap();
        self.tree_ref().file(&attr, None).await.unwrap()
    }

    pub async fn close(&self, file: Arc<File>) {
        self.tree_ref().close(file).await.unwrap();
    }

    /// Opens, reads all of it in one go, closes.
    pub async fn content(&self, name: &str) -> Vec<u8> {
        let file = self.open(name).await;
        let bytes = file.read(0, 1 << 30).await.unwrap();
        assert_eq!(bytes.len() as u64, file.size());
        self.close(file).await;
        bytes.to_vec()
    }

    pub async fn write_new(&self, name: &str, content: &[u8]) {
        let file = self.create(name, false).await;
        file.write(0, content, false).await.unwrap();
        self.close(file).await;
    }

    pub async fn unlink(&self, name: &str) {
        let attr = self.meta().unlink(Ino::ROOT, EntryName::new(name.as_bytes()).unwrap()).await.unwrap();
        if attr.nlink == 0 {
            self.tree_ref().forget(attr.ino);
        }
    }

    /// The engine's and the stage's state agree with each other and with the store.
    pub async fn check(&self) {
        let problems = self.up().volume.check(&self.name).unwrap();
        assert!(problems.is_empty(), "{problems:?}");
    }
}

/// Bytes that tell their place.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            (x >> 32) as u8
        })
        .collect()
}
