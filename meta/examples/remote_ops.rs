//! How many metadata operations a second go through the service over loopback, client and service in one process, over
//! RocksDB in a temporary folder: `cargo run --release -p granary-meta --example remote_ops [SECONDS]`.
//!
//! Each client is one node with one thread and a directory of its own. Latency is what that thread waits for a call.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use granary_core::limits::Limits;
use granary_core::{Clock, EntryName, Error, Ino, Kind, NodeId, Result, SystemClock};
use granary_meta::engine::RocksEngine;
use granary_meta::remote::{Client, ClientLimits, ClientOptions, RemoteNamespace};
use granary_meta::server::{Authenticate, ServeLimits, ServeOptions, serve};
use granary_meta::service::{Identity, Rights, Service, ServiceOptions};
use granary_meta::{
    Durability, FileType, Metadata, NewInode, NewNamespace, RenameMode, SetAttr, Tuning, Volume, VolumeInfo,
};
use tokio::runtime::Runtime;

/// Everybody is the administrator.
struct Open;

impl Authenticate for Open {
    fn check(&self, _: &str) -> Result<Identity> {
        Ok(Identity {
            user: "bench".into(),
            groups: Vec::new(),
            rights: Rights::Admin,
            token: "bench".into(),
            expires: None,
        })
    }
}

fn random(mut seed: u64) -> Box<dyn FnMut() -> u64 + Send> {
    Box::new(move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed ^ (seed >> 29)
    })
}

/// Nanoseconds of CPU of the whole process.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|s| s.parse::<u64>().ok()).unwrap_or(0);
    (ticks(11) + ticks(12)) * 10_000_000
}

fn start_service(volume: Arc<Volume>, runtime: &Runtime) -> Result<(SocketAddr, Arc<Service>)> {
    let clock = Arc::new(SystemClock);
    let service = Service::start(volume, clock.clone(), random(1), ServiceOptions::default())?;
    let io = |e| Error::io("cannot listen on loopback", e);
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).map_err(io)?;
    let address = listener.local_addr().map_err(io)?;
    let limits = ServeLimits { frames_per_second_max: u32::MAX, ..Default::default() };
    let options =
        ServeOptions { listeners: vec![listener], tls: None, limits, clock, version: "bench".into() };
    let served = service.clone();
    runtime.spawn(async move {
        if let Err(e) = serve(served, options, Arc::new(Open), std::future::pending()).await {
            eprintln!("the service ended: {e}");
        }
    });
    Ok((address, service))
}

async fn connect(address: SocketAddr, node: u64) -> Result<Arc<Client>> {
    Client::connect(ClientOptions {
        urls: vec![format!("http://{address}")],
        token: Arc::new(|| Ok("bench".into())),
        tls_ca: None,
        node: NodeId(node),
        name: format!("node-{node}"),
        data_address: None,
        clock: Arc::new(SystemClock),
        random: random(node + 7),
        limits: ClientLimits::default(),
    })
    .await
}

/// One client's part: its directory, and how many files it made there.
struct Worker {
    space: Arc<RemoteNamespace>,
    client: Arc<Client>,
    dir: Ino,
    files: u64,
}

fn file(i: u64) -> Vec<u8> {
    format!("file-{i:08}").into_bytes()
}

fn new(kind: FileType) -> NewInode {
    NewInode { kind, mode: 0o755, umask: 0, uid: 0, gid: 0, rdev: 0, target: vec![] }
}

impl Worker {
    async fn begin(address: SocketAddr, node: u64) -> Result<Worker> {
        let client = connect(address, node).await?;
        let space = client.namespace(&"user/bench".parse()?).await?;
        let name = format!("{node}-{}", SystemClock.monotonic().as_nanos()).into_bytes();
        let dir = space.create(Ino::ROOT, EntryName::new(&name)?, new(FileType::Directory), false).await?.ino;
        Ok(Worker { space, client, dir, files: 0 })
    }

    async fn create(&mut self, i: u64) -> Result<()> {
        let name = file(i);
        let name = EntryName::new(&name)?;
        match self.space.lookup(self.dir, name).await {
            Err(e) if e.kind() == Kind::NotFound => {}
            other => return Err(Error::new(Kind::Bug, format!("{other:?}"))),
        }
        let attr = self.space.create(self.dir, name, new(FileType::File), true).await?;
        self.space.close(attr.ino);
        self.files = i + 1;
        Ok(())
    }

    /// A change of attributes: the cheapest call that cannot be answered from what is kept.
    async fn chmod(&mut self, _: u64) -> Result<()> {
        let set = SetAttr { mode: Some(0o700), ..Default::default() };
        self.space.setattr(self.dir, set).await.map(drop)
    }

    async fn warm_stat(&mut self, i: u64) -> Result<()> {
        let name = file(i % self.files.max(1));
        self.space.lookup(self.dir, EntryName::new(&name)?).await.map(drop)
    }

    async fn rename(&mut self, i: u64) -> Result<()> {
        let (from, to) = (file(i % self.files.max(1)), b"other".to_vec());
        let (from, to) = (EntryName::new(&from)?, EntryName::new(&to)?);
        self.space.rename(self.dir, from, self.dir, to, RenameMode::Replace).await?;
        self.space.rename(self.dir, to, self.dir, from, RenameMode::Replace).await.map(drop)
    }

    async fn readdir(&mut self, _: u64) -> Result<()> {
        // What was made since is not listed yet: the tail is asked for.
        self.space.readdir(self.dir, 0, 128, false).await.map(drop)
    }
}

/// Runs `f` on all workers at once and prints calls a second, and how long one takes.
fn measure<F>(what: &str, workers: &mut [Worker], time: Duration, calls_each: u64, f: F)
where
    F: AsyncFn(&mut Worker, u64) -> Result<()> + Sync,
{
    let (begin, cpu) = (SystemClock.monotonic(), cpu_ns());
    let mut each: Vec<Duration> = std::thread::scope(|scope| {
        let threads: Vec<_> = workers
            .iter_mut()
            .map(|worker| {
                let f = &f;
                scope.spawn(move || {
                    let mut all = Vec::new();
                    let mut i = worker.files * u64::from(what.starts_with("create"));
                    while SystemClock.monotonic() - begin < time {
                        let at = SystemClock.monotonic();
                        if let Err(e) = futures::executor::block_on(f(worker, i)) {
                            eprintln!("{what}: {e}");
                            break;
                        }
                        all.push(SystemClock.monotonic() - at);
                        i += 1;
                    }
                    all
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    });
    let taken = SystemClock.monotonic() - begin;
    each.sort_unstable();
    let at = |part: usize| {
        each.get(each.len().saturating_sub(1) * part / 100).copied().unwrap_or_default() / calls_each as u32
    };
    let calls = each.len() as u64 * calls_each;
    println!(
        "{what:<34} {:>3} clients {:>9.0} calls/s  p50 {:>7.1} us  p99 {:>8.1} us  CPU {:>6.1} us/call",
        workers.len(),
        calls as f64 / taken.as_secs_f64(),
        at(50).as_nanos() as f64 / 1000.0,
        at(99).as_nanos() as f64 / 1000.0,
        (cpu_ns() - cpu) as f64 / 1000.0 / calls.max(1) as f64,
    );
}

fn main() -> Result<()> {
    let seconds: f64 = std::env::args().nth(1).and_then(|s| s.parse().ok()).unwrap_or(3.0);
    let time = Duration::from_secs_f64(seconds);
    let dir = std::env::temp_dir().join(format!("granary-remote-ops-{}", std::process::id()));
    let engine = RocksEngine::open(&dir)?;
    let info = VolumeInfo { uuid: "0".repeat(32), store_url: "file:///nowhere".into(), created_unix_ms: 0 };
    Volume::init(&*engine, &info)?;
    let volume = Volume::open_served(engine, Arc::new(SystemClock), &Limits::default(), Tuning::default())?;
    volume.create_namespace(NewNamespace {
        name: "user/bench".parse()?,
        uid: 0,
        gid: 0,
        mode: 0o755,
        bytes_max: 0,
        inodes_max: 0,
        durability: Durability::Local,
    })?;
    let runtime = Runtime::new().map_err(|e| Error::io("cannot start the runtime", e))?;
    let (address, service) = start_service(volume, &runtime)?;
    for clients in [1u64, 8, 32] {
        let begun = (0..clients).map(|node| runtime.block_on(Worker::begin(address, node + 100 * clients)));
        let mut workers = begun.collect::<Result<Vec<_>>>()?;
        let all = &mut workers[..];
        measure("lookup of a missing name + create", all, time, 1, async |w, i| w.create(i).await);
        measure("chmod", all, time, 1, async |w, i| w.chmod(i).await);
        measure("rename", all, time, 2, async |w, i| w.rename(i).await);
        measure("readdir of 128, warm", all, time, 1, async |w, i| w.readdir(i).await);
        measure("stat, warm", all, time, 1, async |w, i| w.warm_stat(i).await);
        for worker in workers {
            runtime.block_on(worker.client.close());
        }
    }
    println!("{:?}", service.stats());
    runtime.block_on(async { service.stop() })?;
    // The folder is ours alone; what cannot be removed stays in the system's folder for such.
    let _ = std::fs::remove_dir_all(&dir);
    Ok(())
}
