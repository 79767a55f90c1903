//! The node process: one a machine. It has the volume's metadata or a way to it, its store, the cache directory and every mount, and
//! listens on a UNIX socket for the commands.
//!
//! | part | what it does |
//! |---|---|
//! | [`source`], [`clients`] | where metadata comes from: its own process, or a service, by whose token |
//! | `shown`, `kept_tokens` | which token a connection shows; those for one namespace alone, kept for the next start |
//! | [`data`] | what is staged here, for other nodes, and theirs for us |
//! | [`tls`] | certificates and keys from files |
//! | [`place`], [`lock`], [`identity`] | the cache directory becomes ours alone, has room, and belongs to this volume |
//! | [`mounts`], [`table`] | the one task that mounts and unmounts, in order; the table that others look at |
//! | `unopened` | what is staged of namespaces that cannot be opened |
//! | [`keeping`] | the process that holds the mounts, so that they outlive this one |
//! | [`packed`], `opener` | namespaces that show a packed data set; their opening, for which no other mount waits |
//! | [`mountpoint`] | what must be true of a directory before it is mounted on |
//! | [`server`], [`peer`], [`api`] | the socket, who is there, what they may ask |
//! | [`lend`] | files of the cache for loaders of this machine |
//! | [`backups`] | the metadata is saved in the store by itself |
//! | [`warmup`] | trees that are brought into the cache before they are read |
//! | [`metrics`] | what Prometheus sees |
//! | [`signals`], [`shutdown`] | how it ends |
//! | [`notify`] | telling the starter that it is ready, or why not |

pub mod api;
pub mod backups;
pub mod clients;
pub mod data;
mod empty;
pub mod identity;
pub mod keeping;
mod kept_tokens;
mod lend;
pub mod lock;
pub mod metrics;
pub mod mountpoint;
pub mod mounts;
pub mod notify;
mod opener;
pub mod openings;
pub mod packed;
pub mod peer;
pub mod place;
pub mod server;
mod shown;
pub mod shutdown;
pub mod signals;
pub mod source;
mod sync;
pub mod table;
pub mod tls;
mod unopened;
pub mod warmup;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use granary_cache::{ReadCache, RecoveryWatch};
use granary_core::{ByteBudget, Clock, Failpoint, NodeId, SystemClock};
use granary_meta::VolumeInfo;
use granary_packed::Router;
use granary_store::Store;
use prometheus_client::registry::Registry;
use rand::Rng;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rustix::process::{Resource, Rlimit};

use crate::exit::{Failure, Outcome};
use crate::settings::Settings;
use crate::{failpoints, log, randomness, volume};
use clients::{ClientParts, Clients};
use data::Data;
use keeping::Keeping;
use mounts::Mounts;
use notify::Starter;
use place::Turn;
use signals::Stop;
use source::Source;
use warmup::Warmups;
use warmup::pins::Pins;

/// How often who waits for the node is told how far it is.
const RECOVERY_INTERVAL: Duration = Duration::from_secs(1);

/// The whole node, for those who serve its socket.
pub struct Node {
    pub settings: Settings,
    pub volume: VolumeInfo,
    pub source: Source,
    pub store: Arc<dyn Store>,
    pub reads: Arc<ReadCache>,
    pub clock: Arc<dyn Clock>,
    pub id: NodeId,
    pub mounts: Mounts,
    pub warmups: Warmups,
    pub pins: Arc<Pins>,
    pub registry: Registry,
    pub stop: Stop,
    pub keeping: Option<Arc<Keeping>>,
    /// What it gave back at the start, until that is served again.
    inherited: Mutex<Vec<keeping::Entry>>,
    /// Monotonic time of the start.
    started: Duration,
}

/// What mounting needs of the node.
pub struct Parts {
    pub settings: Settings,
    pub source: Source,
    /// The volume's, and those of the packed data sets that are open.
    pub store: Arc<Router>,
    pub reads: Arc<ReadCache>,
    pub clock: Arc<dyn Clock>,
    pub id: NodeId,
    pub memory: ByteBudget,
    /// Told how far the bringing back of what is staged is.
    pub watch: Arc<RecoveryWatch>,
    /// The way to other nodes, when they share the volume.
    pub data: Option<Data>,
    /// Who holds the mounts, if somebody is to.
    pub keeping: Option<Arc<Keeping>>,
    /// Seeds the generators of object ids. The lock guards its state, for a few instructions.
    pub seeds: Mutex<StdRng>,
}

impl Parts {
    /// A generator of its own for each tree.
    pub fn random(&self) -> Box<dyn FnMut() -> u128 + Send> {
        let mut seeds = self.seeds.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Box::new(randomness::bits(StdRng::from_rng(&mut *seeds)))
    }
}

/// Runs the node until it is told to stop, once it is its turn.
pub fn run(settings: Settings, turn: Turn, starter: &Starter) -> Outcome<()> {
    raise_open_files();
    // Before the log, which may be in it.
    let lock = place::take(&settings, turn)?;
    log::start(&settings)?;
    failpoints::arm()?;
    let outcome = run_locked(settings, starter);
    if let Err(failure) = &outcome
        && starter.waits()
    {
        tracing::error!("the node ends: {failure}");
    }
    drop(lock);
    outcome
}

fn run_locked(settings: Settings, starter: &Starter) -> Outcome<()> {
    lock::check_room(&settings.cache, settings.limits.cache_free_min())?;
    let workers = std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 4));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .max_blocking_threads(64)
        .thread_name("granary")
        .enable_all()
        .build()
        .map_err(|e| Failure::io("cannot start the node's runtime", &e))?;
    let outcome = runtime.block_on(serve(settings, starter));
    // What is left are readers of a store that does not answer; nothing of theirs is lost.
    runtime.shutdown_timeout(Duration::from_secs(2));
    outcome
}

async fn serve(settings: Settings, starter: &Starter) -> Outcome<()> {
    // Watched first: a signal that comes while the node starts stops it cleanly as soon as it has started.
    let stop = Stop::default();
    signals::watch(&stop)?;
    // Bound early, so that a second node at this socket is told before it touches anything. Those who connect wait.
    let gate = server::bind(&settings.socket)?;
    let metrics_listener = metrics::listen(settings.metrics).await?;
    let node = Arc::new(open(settings, stop).await?);
    recover(&node, starter).await?;
    Failpoint::StartBeforeReady.reach();
    let servers = server::start(&node, gate, metrics_listener);
    if let Source::Local(volume) = &node.source {
        let (volume, store, clock) = (volume.clone(), node.store.clone(), node.clock.clone());
        backups::start(volume, store, clock, node.settings.backup, &node.stop.begin);
    }
    tracing::info!(
        node = %node.id,
        volume = node.volume.uuid,
        "serving {} at {}",
        node.store.describe(),
        node.settings.socket.display()
    );
    starter.ready();
    tokio::select! {
        () = node.stop.begin.cancelled() => {}
        () = node.stop.leave.cancelled() => shutdown::leave(&node).await,
    }
    starter.stopping();
    shutdown::run(&node, servers).await
}

/// Brings back what is staged, and tells whoever waits for the node how far it is.
async fn recover(node: &Node, starter: &Starter) -> Outcome<()> {
    let inherited =
        std::mem::take(&mut *node.inherited.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    let work = async {
        // Programs wait for these.
        if !inherited.is_empty() {
            node.mounts.resume(inherited).await?;
            if let Source::Local(volume) = &node.source {
                volume.free_orphans()?;
            }
        }
        node.mounts.recover().await?;
        node.source.settle();
        Ok(())
    };
    tokio::pin!(work);
    let mut tick = tokio::time::interval(RECOVERY_INTERVAL);
    tick.tick().await; // the first comes at once
    loop {
        tokio::select! {
            outcome = &mut work => return outcome,
            _ = tick.tick() => {
                if let Some(step) = node.mounts.watch().now() {
                    starter.recovering(step.into());
                }
            }
        }
    }
}

async fn open(settings: Settings, stop: Stop) -> Outcome<Node> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let started = clock.monotonic();
    let mut generator = randomness::generator()?;
    let fresh = NodeId(generator.next_u64());
    let keeping = match settings.keeper {
        Some(who) => {
            let settings = settings.clone();
            Some(blocking(move || Keeping::start(&settings, who)).await?)
        }
        None => None,
    };
    let inherited = match keeping.clone() {
        Some(keeping) => blocking(move || keeping.all()).await?,
        None => Vec::new(),
    };
    let (mut data_listener, mut clients) = (None, None);
    let source = match settings.meta.service() {
        None if inherited.is_empty() => Source::Local(volume::open_anew(&settings)?),
        None => Source::Local(volume::open(&settings)?),
        Some(_) => {
            data_listener = data::listen(&settings).await?;
            let data_address = data_listener.as_ref().map(|data| data.address.clone());
            // A new cache directory is written only when the volume is known, but the service must be told who comes.
            let node = identity::read(&settings.cache)?.map_or(fresh, |(node, _)| node);
            let (settings, clock) = (settings.clone(), clock.clone());
            let seeds = StdRng::from_rng(&mut generator);
            let (keeping, resume) = (keeping.clone(), keeping::own_session(&inherited));
            let parts = ClientParts { settings, node, data_address, clock, seeds, keeping, resume };
            Source::Service(clients.insert(Clients::connect(parts).await?).clone())
        }
    };
    let info = source.volume()?;
    let id = identity::identify(&settings.cache, &info.uuid, || fresh.0)?;
    let mut registry = Registry::default();
    let store = volume::store(&info.store_url, &settings, clock.clone(), &mut registry)?;
    volume::check_marker(&*store, &info).await?;
    let memory = ByteBudget::new(settings.limits.memory_bytes_max);
    let router = Arc::new(Router::new(store.clone()));
    let reads = ReadCache::open_on(
        &settings.cache.join("read"),
        &settings.cache_dirs,
        &settings.limits,
        router.clone(),
        clock.clone(),
        memory.clone(),
    )?;
    let data = clients
        .map(|clients| Data::start(&settings, data_listener, &clients, id, clock.clone(), &stop.begin))
        .transpose()?;
    let parts = Parts {
        data,
        keeping: keeping.clone(),
        settings: settings.clone(),
        source: source.clone(),
        store: router,
        reads: reads.clone(),
        clock: clock.clone(),
        id,
        memory: memory.clone(),
        watch: Arc::default(),
        seeds: Mutex::new(generator),
    };
    let mounts = Mounts::start(parts);
    metrics::register(&mut registry, mounts.table(), reads.clone(), &settings.cache, memory, clock.clone());
    let warmups = Warmups::new(stop.begin.clone());
    let pins = Pins::open(&settings.cache, mounts.table(), clock.clone(), &stop.begin)?;
    Ok(Node {
        settings,
        volume: info,
        source,
        store,
        reads,
        clock,
        id,
        mounts,
        warmups,
        pins,
        registry,
        stop,
        keeping,
        inherited: Mutex::new(inherited),
        started,
    })
}

/// Descriptors: as many as the system lets us have. Passthrough files, cache files and connections share them.
pub(crate) fn raise_open_files() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(e) = rustix::process::setrlimit(Resource::Nofile, wanted) {
        tracing::warn!("cannot raise the limit of open files from {:?}: {e}", limit.current);
    }
}

/// Runs what waits for a disk or a database beside the runtime's own threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Outcome<T> + Send + 'static,
) -> Outcome<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| {
        Err(Failure::failed(format!("a bug in granary: a task ended early ({e}); please report it")))
    })
}
