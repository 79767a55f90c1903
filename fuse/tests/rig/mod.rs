//! A namespace over memory, mounted for real. Needs root and /dev/fuse.
#![allow(dead_code, clippy::unwrap_used)] // each test file uses its part; helpers of tests are tests

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use granary_cache::{ReadCache, Tree, TreeParts};
use granary_core::limits::Limits;
use granary_core::{ByteBudget, Clock, NamespaceKind, NodeId, SystemClock};
use granary_fuse::mount::MountParts;
use granary_fuse::vfs::VfsOptions;
use granary_fuse::{Metrics, Mode, MountOptions, Mounted, Op, Stop, Vfs, mount};
use granary_meta::engine::memory::MemoryEngine;
use granary_meta::local::Volume;
use granary_meta::{Durability, Metadata, NewNamespace, VolumeInfo};
use granary_store::FaultStore;
use granary_store::memory::MemoryStore;

pub struct Rig {
    // In the order of their end: the mount before the tree before the runtime.
    mounted: Option<Mounted>,
    pub metrics: Arc<Metrics>,
    pub tree: Arc<Tree>,
    pub volume: Arc<Volume>,
    pub store: Arc<FaultStore>,
    pub runtime: tokio::runtime::Runtime,
    dir: tempfile::TempDir,
}

/// What may differ between tests.
#[derive(Clone, Debug)]
pub struct Setup {
    pub mode: Mode,
    pub options: String,
    pub bytes_max: u64,
    pub limits: Limits,
    /// Files this size and smaller are small.
    pub small_file_bytes_max: u64,
    /// Where the stage is, if not beside the mountpoint.
    pub stage_dir: Option<PathBuf>,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            mode: Mode::Work,
            options: String::new(),
            bytes_max: 0,
            limits: Limits { cache_free_bytes_min: 0, cache_free_percent_min: 0, ..Limits::default() },
            small_file_bytes_max: 1 << 20,
            stage_dir: None,
        }
    }
}

/// Which way requests come in this run: through `/dev/fuse`, or as GRANARY_TRANSPORT says. A kernel without fails the tests.
pub fn transport() -> String {
    std::env::var("GRANARY_TRANSPORT").unwrap_or_else(|_| "dev".to_owned())
}

pub fn work() -> Rig {
    Rig::new(&Setup::default())
}

pub fn data() -> Rig {
    Rig::new(&Setup { mode: Mode::Data, options: "mode=data".into(), ..Setup::default() })
}

impl Rig {
    pub fn new(setup: &Setup) -> Rig {
        Rig::over(setup, |meta| meta)
    }

    /// With the metadata that `wrap` makes of the namespace's.
    pub fn over(setup: &Setup, wrap: impl FnOnce(Arc<dyn Metadata>) -> Arc<dyn Metadata>) -> Rig {
        assert!(
            rustix::process::geteuid().is_root() && Path::new("/dev/fuse").exists(),
            "these tests mount for real: run them as root where /dev/fuse is"
        );
        let dir = tempfile::tempdir().unwrap();
        let mountpoint = dir.path().join("mnt");
        std::fs::create_dir(&mountpoint).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let limits = Limits { small_file_bytes_max: setup.small_file_bytes_max, ..setup.limits.clone() };

        let engine = MemoryEngine::new();
        let info = VolumeInfo { uuid: "0".repeat(32), store_url: "memory:".into(), created_unix_ms: 1 };
        Volume::init(&*engine, &info).unwrap();
        let volume = Volume::open(engine, clock.clone(), &limits).unwrap();
        let name = "user/alice".parse().unwrap();
        let new = NewNamespace {
            name,
            uid: 0,
            gid: 0,
            mode: 0o755,
            bytes_max: setup.bytes_max,
            inodes_max: 0,
            durability: Durability::Local,
            trash_ms: granary_meta::TRASH_MS_DEFAULT,
            packed: None,
        };
        let namespace = volume.create_namespace(new).unwrap();
        let meta = wrap(volume.namespace_by_id(namespace.id).unwrap());

        let store = Arc::new(FaultStore::new(Arc::new(MemoryStore::new(clock.clone())), 1));
        let memory = ByteBudget::new(limits.memory_bytes_max);
        let tree = runtime.block_on(async {
            let reads = ReadCache::open(
                &dir.path().join("cache"),
                &limits,
                store.clone(),
                clock.clone(),
                memory.clone(),
            )
            .unwrap();
            let mut next = 1_u128;
            let parts = TreeParts {
                stage_dir: setup.stage_dir.clone().unwrap_or_else(|| dir.path().join("stage")),
                node: NodeId(7),
                limits: limits.clone(),
                meta: meta.clone(),
                store: store.clone(),
                reads,
                clock: clock.clone(),
                random: Box::new(move || {
                    next += 1;
                    next
                }),
                memory: memory.clone(),
                runtime: tokio::runtime::Handle::current(),
            };
            Tree::open(parts).await.unwrap()
        });
        let options = MountOptions::parse(&format!("transport={},{}", transport(), setup.options)).unwrap();
        assert_eq!(options.mode_for(NamespaceKind::User), setup.mode);
        let vfs_options = VfsOptions {
            mode: setup.mode,
            read_only: options.read_only,
            atime: options.atime,
            acl: options.acl,
            name: "user/alice".into(),
            ..VfsOptions::default()
        };
        let vfs = Vfs::new(meta, tree.clone(), vfs_options, clock);
        let metrics = Metrics::new("user/alice");
        let parts = MountParts {
            vfs,
            mountpoint,
            options,
            metrics: metrics.clone(),
            runtime: runtime.handle().clone(),
        };
        let mounted = mount(parts).unwrap();
        assert_eq!(mounted.carrier().name(), transport());
        Rig { mounted: Some(mounted), metrics, tree, volume, store, runtime, dir }
    }

    pub fn mounted(&self) -> &Mounted {
        self.mounted.as_ref().unwrap()
    }

    pub fn root(&self) -> PathBuf {
        self.mounted().path().to_path_buf()
    }

    /// A directory outside the mount that goes with the rig.
    pub fn outside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    pub fn stop(&self, how: Stop) -> granary_core::Result<()> {
        self.runtime.block_on(self.mounted().stop(how))
    }

    /// The requests that `work` makes, RELEASE and FORGET left out: they come when the kernel likes.
    pub fn requests<T>(&self, work: impl FnOnce() -> T) -> (T, Vec<(Op, u64)>) {
        let late = [Op::Release, Op::Forget];
        let before: Vec<u64> = Op::ALL.iter().map(|&op| self.metrics.count(op)).collect();
        let result = work();
        let made = Op::ALL.iter().zip(before).map(|(&op, before)| (op, self.metrics.count(op) - before));
        (result, made.filter(|&(op, n)| n > 0 && !late.contains(&op)).collect())
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(mounted) = self.mounted.take() {
            let stopped = self.runtime.block_on(mounted.stop(Stop::Abort));
            let shut = self.runtime.block_on(self.tree.shutdown());
            if !std::thread::panicking() {
                stopped.unwrap();
                shut.unwrap();
            }
        }
    }
}

/// Waits until `condition` holds; it must within a minute.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let clock = SystemClock;
    let end = clock.monotonic() + Duration::from_secs(60);
    while !condition() {
        assert!(clock.monotonic() < end, "it did not happen: {what}");
        std::thread::yield_now();
    }
}

/// Bytes that tell where they belong.
pub fn pattern(len: usize, seed: u64) -> Vec<u8> {
    (0..len as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(seed) >> 29) as u8).collect()
}

pub fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> i32 {
    result.unwrap_err().raw_os_error().unwrap()
}
