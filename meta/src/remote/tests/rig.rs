//! A service that can be restarted, and clients of it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use granary_core::limits::Limits;
use granary_core::{Clock, EntryName, Error, Ino, Kind, NodeId, Result, SystemClock};
use tokio::sync::{mpsc, oneshot};

use super::super::{Client, ClientLimits, ClientOptions, RemoteNamespace};
use super::proxy::Proxy;
use crate::engine::{Engine, MemoryEngine};
use crate::lease::{Holder, LeaseKind, Lost, Scope};
use crate::server::{Authenticate, ServeLimits, ServeOptions, serve};
use crate::service::{Identity, Rights, Service, ServiceOptions};
use crate::types::*;
use crate::{Metadata, Tuning, Volume};

pub const NAME: &str = "group/asr";

/// `admin`, or `USER` and `USER:read`, members of group asr but for mallory.
pub struct Names;

impl Authenticate for Names {
    fn check(&self, bearer: &str) -> Result<Identity> {
        let (user, rights) = match bearer.split_once(':') {
            _ if bearer == "admin" => ("admin", Rights::Admin),
            None => (bearer, Rights::ReadWrite),
            Some((user, "read")) => (user, Rights::ReadOnly),
            Some(_) => return Err(Error::new(Kind::Denied, "forged")),
        };
        let groups = if user == "mallory" { vec![] } else { vec!["asr".into()] };
        let token = format!("token-of-{user}");
        let user = user.to_owned();
        Ok(Identity { user, groups, rights, namespaces: None, token, parent: None, expires: None })
    }
}

pub fn random(seed: u64) -> Box<dyn FnMut() -> u64 + Send> {
    let mut state = seed;
    Box::new(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state ^ (state >> 29)
    })
}

/// What runs at the moment.
struct Running {
    service: Arc<Service>,
    stop: oneshot::Sender<()>,
    ended: tokio::task::JoinHandle<Result<()>>,
    address: SocketAddr,
}

pub struct Rig {
    engine: Mutex<Arc<MemoryEngine>>,
    pub clock: Arc<dyn Clock>,
    options: ServiceOptions,
    limits: ServeLimits,
    running: Mutex<Option<Running>>,
    pub proxy: Proxy,
    nodes: AtomicU64,
}

impl Rig {
    pub async fn start() -> Rig {
        // What is removed is gone at once, so that a test can look.
        let options = ServiceOptions { linger: Duration::ZERO, ..ServiceOptions::default() };
        Rig::start_with(Arc::new(SystemClock), options, ServeLimits::default()).await
    }

    pub async fn start_with(clock: Arc<dyn Clock>, options: ServiceOptions, limits: ServeLimits) -> Rig {
        let engine = Arc::new(MemoryEngine::default());
        let info =
            VolumeInfo { uuid: "0".repeat(32), store_url: "file:///nowhere".into(), created_unix_ms: 0 };
        Volume::init(&*engine, &info).unwrap();
        let proxy = Proxy::start().await;
        let running = Mutex::new(None);
        let engine = Mutex::new(engine);
        let rig = Rig { engine, clock, options, limits, running, proxy, nodes: AtomicU64::new(1) };
        rig.start_service().await;
        let volume = rig.service().volume().clone();
        for name in [NAME, "user/alice"] {
            let (bytes_max, inodes_max, durability) = (0, 0, Durability::Local);
            let name = name.parse().unwrap();
            let (uid, gid, mode, trash_ms) = (0, 0, 0o755, TRASH_MS_DEFAULT);
            let new = NewNamespace {
                name,
                uid,
                gid,
                mode,
                bytes_max,
                inodes_max,
                durability,
                trash_ms,
                packed: None,
            };
            volume.create_namespace(new).unwrap();
        }
        rig
    }

    pub async fn start_service(&self) {
        let engine: Arc<dyn Engine> = self.engine.lock().unwrap().clone();
        let volume = Volume::open_served(engine, self.clock.clone(), &Limits::default(), Tuning::default());
        let service = Service::start(
            volume.unwrap(),
            self.clock.clone(),
            random(self.nodes.load(Ordering::SeqCst)),
            self.options.clone(),
        )
        .unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let options = ServeOptions {
            listeners: vec![listener],
            tls: None,
            limits: self.limits,
            clock: self.clock.clone(),
            version: "test".into(),
        };
        let serving = serve(service.clone(), options, Arc::new(Names), async move {
            let _ = stopped.await;
        });
        let ended = tokio::spawn(serving);
        self.proxy.set_target(address);
        *self.running.lock().unwrap() = Some(Running { service, stop, ended, address });
    }

    pub fn service(&self) -> Arc<Service> {
        self.running.lock().unwrap().as_ref().unwrap().service.clone()
    }

    /// Of the service itself, without the proxy.
    pub fn address(&self) -> SocketAddr {
        self.running.lock().unwrap().as_ref().unwrap().address
    }

    /// Stops the service as SIGTERM does.
    pub async fn stop_service(&self) {
        let running = self.running.lock().unwrap().take().unwrap();
        running.stop.send(()).unwrap();
        running.ended.await.unwrap().unwrap();
        let volume = running.service.volume().clone();
        drop(running.service);
        tokio::task::spawn_blocking(move || volume.shutdown()).await.unwrap().unwrap();
    }

    pub async fn restart_service(&self) {
        self.stop_service().await;
        self.reopen();
        self.start_service().await;
    }

    /// Ends the service as kill -9 does, and starts the next: what it had not written is lost, and its clients hear
    /// nothing of it.
    pub async fn kill_service(&self) {
        self.proxy.close().await;
        let running = self.running.lock().unwrap().take().unwrap();
        self.reopen();
        running.ended.abort();
        assert!(running.ended.await.is_err_and(|e| e.is_cancelled()));
        self.start_service().await;
        self.proxy.heal();
    }

    /// What was written survives the process.
    fn reopen(&self) {
        let mut engine = self.engine.lock().unwrap();
        *engine = Arc::new(engine.crash(usize::MAX));
    }

    pub fn options(&self, token: &str) -> ClientOptions {
        let node = self.nodes.fetch_add(1, Ordering::SeqCst);
        let token = token.to_owned();
        ClientOptions {
            urls: vec![format!("http://{}", self.proxy.address())],
            token: Arc::new(move || Ok(token.clone())),
            tls_ca: None,
            node: NodeId(node),
            name: format!("node-{node}"),
            data_address: None,
            clock: self.clock.clone(),
            random: random(node),
            limits: ClientLimits { backoff_ms_min: 1, backoff_ms_max: 20, ..Default::default() },
            resume: None,
            on_session: None,
        }
    }

    pub async fn client(&self, token: &str) -> Arc<Client> {
        Client::connect(self.options(token)).await.unwrap()
    }

    /// A client of its own, and the shared namespace.
    pub async fn space(&self) -> (Arc<Client>, Arc<RemoteNamespace>) {
        let client = self.client("bob").await;
        let space = client.namespace(&NAME.parse().unwrap()).await.unwrap();
        (client, space)
    }

    pub fn calls(&self) -> u64 {
        self.service().stats().calls.iter().map(|(_, count)| count).sum()
    }

    pub async fn end(self) {
        self.stop_service().await;
    }
}

pub fn name(text: &str) -> EntryName<'_> {
    EntryName::new(text.as_bytes()).unwrap()
}

pub fn new(kind: FileType) -> NewInode {
    NewInode { kind, mode: 0o755, umask: 0, uid: 0, gid: 0, rdev: 0, target: vec![] }
}

pub async fn create(space: &RemoteNamespace, dir: Ino, text: &str) -> Result<Attr> {
    space.create(dir, name(text), new(FileType::File), false).await
}

pub async fn list(space: &RemoteNamespace, dir: Ino) -> Vec<String> {
    let (mut all, mut cookie) = (Vec::new(), 0);
    loop {
        let page = space.readdir(dir, cookie, 100, false).await.unwrap();
        let Some(last) = page.last() else { return all };
        cookie = last.cookie;
        all.extend(page.iter().map(|e| String::from_utf8(e.name.clone()).unwrap()));
    }
}

/// What a holder was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Recall(Scope, LeaseKind),
    Lost(Lost),
}

/// Tells the test of recalls; answers each when the test lets it, if it is to wait.
pub struct Watcher {
    told: mpsc::UnboundedSender<Told>,
    gate: Option<Arc<tokio::sync::Semaphore>>,
}

impl Watcher {
    pub fn set(space: &RemoteNamespace) -> mpsc::UnboundedReceiver<Told> {
        let (told, tells) = mpsc::unbounded_channel();
        space.set_holder(Arc::new(Watcher { told, gate: None }));
        tells
    }

    /// Each recall waits for a permit.
    pub fn set_gated(
        space: &RemoteNamespace,
    ) -> (mpsc::UnboundedReceiver<Told>, Arc<tokio::sync::Semaphore>) {
        let (told, tells) = mpsc::unbounded_channel();
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        space.set_holder(Arc::new(Watcher { told, gate: Some(gate.clone()) }));
        (tells, gate)
    }
}

#[async_trait]
impl Holder for Watcher {
    async fn recall(&self, scope: Scope, wanted: LeaseKind) {
        let _ = self.told.send(Told::Recall(scope, wanted));
        if let Some(gate) = &self.gate {
            gate.acquire().await.unwrap().forget();
        }
    }

    async fn lost(&self, why: Lost) {
        let _ = self.told.send(Told::Lost(why));
    }
}

/// Longer than anything here takes: who waits so long waits for ever.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), what).await.expect("it did not happen")
}

/// The future is ready at its first poll: nobody was asked.
#[track_caller]
pub fn at_once<T>(what: impl Future<Output = T>) -> T {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(what).poll(&mut cx) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("it asked the service"),
    }
}
