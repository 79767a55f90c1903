//! The metadata service without mounts: many clients that each wait for one call after another.

use std::sync::Arc;

use anyhow::{Result, ensure};
use granary_core::{EntryName, Ino, NodeId, SystemClock};
use granary_meta::remote::{Client, ClientLimits, ClientOptions, RemoteNamespace};
use granary_meta::{FileType, Metadata, NewInode, RenameMode};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::clock::Stopwatch;
use crate::stop;

/// Where the service is, and who asks.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub url: String,
    pub token: String,
    pub namespace: String,
}

/// One client: a node of its own, with a directory of its own.
struct Worker {
    client: Arc<Client>,
    space: Arc<RemoteNamespace>,
    dir: Ino,
}

/// Clients of one service, all at once.
pub struct Clients {
    runtime: Runtime,
    workers: Vec<Arc<Worker>>,
    /// Files in each directory.
    files: usize,
}

fn new(kind: FileType) -> NewInode {
    NewInode { kind, mode: 0o755, umask: 0, uid: 0, gid: 0, rdev: 0, target: vec![] }
}

async fn join(endpoint: Endpoint, node: u64) -> Result<Worker> {
    let token = endpoint.token.clone();
    let mut random = SmallRng::seed_from_u64(node);
    let client = Client::connect(ClientOptions {
        urls: vec![endpoint.url.clone()],
        token: Arc::new(move || Ok(token.clone())),
        tls_ca: None,
        node: NodeId(node),
        name: format!("client-{node}"),
        data_address: None,
        clock: Arc::new(SystemClock),
        random: Box::new(move || random.random()),
        limits: ClientLimits::default(),
        resume: None,
        on_session: None,
    })
    .await?;
    let space = client.namespace(&endpoint.namespace.parse()?).await?;
    let name = format!("client-{node}");
    let dir =
        space.create(Ino::ROOT, EntryName::new(name.as_bytes())?, new(FileType::Directory), false).await?;
    Ok(Worker { client, space, dir: dir.ino })
}

impl Clients {
    /// `first` tells these clients' nodes from those of others.
    pub fn gather(endpoint: &Endpoint, count: usize, first: u64) -> Result<Clients> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let workers = runtime.block_on(async {
            let mut workers = Vec::with_capacity(count);
            for node in (first..).take(count) {
                workers.push(Arc::new(join(endpoint.clone(), node).await?));
            }
            Ok::<_, anyhow::Error>(workers)
        })?;
        Ok(Clients { runtime, workers, files: 0 })
    }

    /// Runs `calls` for all clients at once, each with its number; calls a second of all together.
    fn rate<F, W>(&self, calls: F) -> Result<f64>
    where
        F: Fn(Vec<Arc<Worker>>, usize) -> W,
        W: Future<Output = Result<u64>> + Send + 'static,
    {
        stop::check()?;
        let watch = Stopwatch::start();
        let done = self.runtime.block_on(async {
            let mut all = JoinSet::new();
            for number in 0..self.workers.len() {
                all.spawn(calls(self.workers.clone(), number));
            }
            let mut done = 0;
            while let Some(one) = all.join_next().await {
                done += one??;
            }
            Ok::<_, anyhow::Error>(done)
        })?;
        Ok(done as f64 / watch.seconds())
    }

    /// Each client makes files in its directory.
    pub fn create(&mut self, files: usize) -> Result<f64> {
        let rate = self.rate(|workers, number| async move {
            let me = &workers[number];
            for i in 0..files {
                let name = format!("f{i}");
                let made =
                    me.space.create(me.dir, EntryName::new(name.as_bytes())?, new(FileType::File), true);
                me.space.close(made.await?.ino);
            }
            Ok(files as u64)
        })?;
        self.files = files;
        Ok(rate)
    }

    /// Each client looks at every file of its neighbour, of which it knows nothing yet.
    pub fn stat(&self) -> Result<f64> {
        let files = self.files;
        self.rate(|workers, number| async move {
            let (me, dir) = (&workers[number], workers[(number + 1) % workers.len()].dir);
            for i in 0..files {
                me.space.lookup(dir, EntryName::new(format!("f{i}").as_bytes())?).await?;
            }
            Ok(files as u64)
        })
    }

    /// Each client gives its files, `files` of them, other names.
    pub fn rename(&self, files: usize) -> Result<f64> {
        self.rate(|workers, number| async move {
            let me = &workers[number];
            for i in 0..files {
                let (from, to) = (format!("f{i}"), format!("g{i}"));
                let (from, to) = (EntryName::new(from.as_bytes())?, EntryName::new(to.as_bytes())?);
                me.space.rename(me.dir, from, me.dir, to, RenameMode::NoReplace).await?;
            }
            Ok(files as u64)
        })
    }

    /// Each client lists the directory of its neighbour on the other side; names a second.
    pub fn readdir(&self) -> Result<f64> {
        let files = self.files;
        self.rate(|workers, number| async move {
            let (me, dir) = (&workers[number], workers[(number + workers.len() - 1) % workers.len()].dir);
            let (mut cookie, mut seen) = (0, 0);
            loop {
                let page = me.space.readdir(dir, cookie, 4096, false).await?;
                let Some(last) = page.last() else { break };
                cookie = last.cookie;
                seen += page.len() as u64;
            }
            ensure!(seen == files as u64, "{seen} of {files} names were listed");
            Ok(seen)
        })
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        for worker in &self.workers {
            self.runtime.block_on(worker.client.close());
        }
    }
}
