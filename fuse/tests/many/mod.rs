//! Several nodes on one namespace, each with a stage and a kernel mount of its own, in one process. Needs root and
//! /dev/fuse.
#![allow(dead_code, clippy::unwrap_used)] // each test file uses its part; helpers of tests are tests

#[path = "../../../cache/src/tree/tests/leases.rs"]
pub mod leases;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};

use async_trait::async_trait;
use granary_cache::{Peers, ReadCache, Tree, TreeParts};
use granary_core::limits::Limits;
use granary_core::{ByteBudget, Clock, Ino, NamespaceId, NodeId, SystemClock};
use granary_fuse::mount::MountParts;
use granary_fuse::vfs::VfsOptions;
use granary_fuse::{Metrics, Mode, MountOptions, Mounted, Stop, Vfs, mount};
use granary_meta::engine::memory::MemoryEngine;
use granary_meta::local::Volume;
use granary_meta::{Durability, Extent, NewNamespace, Place, VolumeInfo};
use granary_store::memory::MemoryStore;

use leases::{Client, Service};

/// Asks the other trees of the process.
type Trees = Arc<OnceLock<Vec<(NodeId, Weak<Tree>)>>>;

struct Neighbours(Trees);

#[async_trait]
impl Peers for Neighbours {
    async fn read(
        &self,
        _ns: NamespaceId,
        ino: Ino,
        part: &Extent,
        whole: &Extent,
    ) -> granary_core::Result<Option<bytes::Bytes>> {
        let (Place::Log { node, .. } | Place::StageFile { node }) = part.place else { return Ok(None) };
        let trees = self.0.get().unwrap();
        let tree = trees.iter().find(|(id, _)| *id == node).and_then(|(_, tree)| tree.upgrade()).unwrap();
        tree.staged(ino, part, whole).await
    }
}

pub struct Node {
    mounted: Option<Mounted>,
    pub vfs: Arc<Vfs>,
    pub metrics: Arc<Metrics>,
    pub tree: Arc<Tree>,
    pub session: Arc<Client>,
}

impl Node {
    pub fn root(&self) -> PathBuf {
        self.mounted.as_ref().unwrap().path().to_path_buf()
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }
}

pub struct Cluster {
    // In the order of their end.
    pub nodes: Vec<Node>,
    pub volume: Arc<Volume>,
    pub runtime: tokio::runtime::Runtime,
    dir: tempfile::TempDir,
}

impl Cluster {
    pub fn new(nodes: usize, mode: Mode) -> Cluster {
        Cluster::with(
            nodes,
            mode,
            Limits {
                small_file_bytes_max: 64 << 10,
                cache_free_bytes_min: 0,
                cache_free_percent_min: 0,
                ..Limits::default()
            },
        )
    }

    pub fn with(nodes: usize, mode: Mode, limits: Limits) -> Cluster {
        assert!(
            rustix::process::geteuid().is_root() && Path::new("/dev/fuse").exists(),
            "these tests mount for real: run them as root where /dev/fuse is"
        );
        let dir = tempfile::tempdir().unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let engine = MemoryEngine::new();
        let info = VolumeInfo { uuid: "0".repeat(32), store_url: "memory:".into(), created_unix_ms: 1 };
        Volume::init(&*engine, &info).unwrap();
        let volume = Volume::open(engine, clock.clone(), &limits).unwrap();
        let new = NewNamespace {
            name: "group/asr".parse().unwrap(),
            uid: 0,
            gid: 0,
            mode: 0o755,
            bytes_max: 0,
            inodes_max: 0,
            durability: Durability::Local,
            trash_ms: granary_meta::TRASH_MS_DEFAULT,
            packed: None,
        };
        let id = volume.create_namespace(new).unwrap().id;
        let service = Service::new(volume.namespace_by_id(id).unwrap(), runtime.handle().clone());
        let store = Arc::new(MemoryStore::new(clock.clone()));
        let trees = Arc::new(OnceLock::new());
        let nodes: Vec<Node> = (0..nodes)
            .map(|n| {
                let base = dir.path().join(format!("node{n}"));
                let mountpoint = base.join("mnt");
                std::fs::create_dir_all(&mountpoint).unwrap();
                let session = service.session();
                let memory = ByteBudget::new(limits.memory_bytes_max);
                let tree = runtime.block_on(async {
                    let reads = ReadCache::open(
                        &base.join("cache"),
                        &limits,
                        store.clone(),
                        clock.clone(),
                        memory.clone(),
                    )
                    .unwrap();
                    let mut next = (n as u128 + 1) << 64;
                    let parts = TreeParts {
                        stage_dir: base.join("stage"),
                        node: NodeId(n as u64 + 1),
                        limits: limits.clone(),
                        meta: session.clone(),
                        store: store.clone(),
                        reads,
                        clock: clock.clone(),
                        random: Box::new(move || {
                            next += 1;
                            next
                        }),
                        memory,
                        runtime: tokio::runtime::Handle::current(),
                    };
                    Tree::open(parts).await.unwrap()
                });
                tree.set_peers(Arc::new(Neighbours(trees.clone())));
                let options = MountOptions::parse(if mode == Mode::Data { "mode=data" } else { "" }).unwrap();
                let vfs_options = VfsOptions { mode, name: "group/asr".into(), ..VfsOptions::default() };
                let vfs = Vfs::new(session.clone(), tree.clone(), vfs_options, clock.clone());
                let metrics = Metrics::new("group/asr");
                let parts = MountParts {
                    vfs: vfs.clone(),
                    mountpoint,
                    options,
                    metrics: metrics.clone(),
                    runtime: runtime.handle().clone(),
                };
                Node { mounted: Some(mount(parts).unwrap()), vfs, metrics, tree, session }
            })
            .collect();
        let known =
            nodes.iter().zip(1..).map(|(node, id)| (NodeId(id), Arc::downgrade(&node.tree))).collect();
        assert!(trees.set(known).is_ok());
        Cluster { nodes, volume, runtime, dir }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            let mounted = node.mounted.take().unwrap();
            let stopped = self.runtime.block_on(mounted.stop(Stop::Abort));
            if !std::thread::panicking() {
                stopped.unwrap();
            }
        }
        for node in &self.nodes {
            let shut = self.runtime.block_on(node.tree.shutdown());
            if !std::thread::panicking() {
                shut.unwrap();
            }
        }
    }
}
