//! A node's stage, brought into the volume and the store by another process than that node, on another machine perhaps.
//!
//! It is done under that node's identity, since extents name the node whose disk has their bytes, and by the same code as at its
//! own start. With a metadata service that is a session of its own: what an older session of the node still holds is recalled, or
//! taken when it is silent for the lease time. If that node lives after all, and works with a copy of this directory, the two
//! take turns by leases as any two nodes, and each change is applied once.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use granary_cache::{ReadCache, RecoveryWatch, Tree, TreeParts};
use granary_core::{ByteBudget, Clock, Kind, NamespaceId, NodeId, SystemClock};
use granary_store::Store;
use prometheus_client::registry::Registry;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::exit::{Failure, Outcome};
use crate::node::clients::{ClientParts, Clients};
use crate::node::source::{Reached, Source};
use crate::progress::{Steps, describe_recovery};
use crate::removal::stage_dir;
use crate::settings::Settings;
use crate::units::show_bytes;
use crate::wire::{RecoverReport, RecoveredSpace};
use crate::{randomness, volume};

/// How often progress is told.
const TELL_INTERVAL: Duration = Duration::from_secs(1);

/// Whose cache directory it is.
#[derive(Clone, Debug)]
pub struct Whose {
    pub node: NodeId,
    /// The volume's uuid.
    pub volume: String,
}

/// Recovers everything in the cache directory of `settings`, which the caller has locked.
pub fn run(settings: &Settings, whose: &Whose) -> Outcome<RecoverReport> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::io("cannot start the command's runtime", &e))?;
    let outcome = runtime.block_on(async {
        let source = connect(settings, whose.node).await?;
        let outcome = Work::begin(settings, whose, &source).await;
        let outcome = match outcome {
            Ok(work) => work.all().await,
            Err(failure) => Err(failure),
        };
        let closed = source.shutdown().await;
        outcome.and_then(|report| closed.map(|()| report))
    });
    runtime.shutdown_timeout(Duration::from_secs(2));
    outcome
}

async fn connect(settings: &Settings, node: NodeId) -> Outcome<Source> {
    if settings.meta.service().is_none() {
        return Ok(Source::Local(volume::open(settings)?));
    }
    let seeds = StdRng::from_rng(&mut randomness::generator()?);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (settings, data_address, keeping, resume) = (settings.clone(), None, None, None);
    let parts = ClientParts { settings, node, data_address, clock, seeds, keeping, resume };
    Ok(Source::Service(Clients::connect(parts).await?))
}

struct Work<'a> {
    settings: &'a Settings,
    source: &'a Source,
    node: NodeId,
    store: Arc<dyn Store>,
    reads: Arc<ReadCache>,
    clock: Arc<dyn Clock>,
    memory: ByteBudget,
    watch: RecoveryWatch,
    steps: Steps,
}

impl<'a> Work<'a> {
    /// Refuses a directory of another volume.
    async fn begin(settings: &'a Settings, whose: &Whose, source: &'a Source) -> Outcome<Work<'a>> {
        let info = source.volume()?;
        if info.uuid != whose.volume {
            return Err(Failure::of_kind(
                Kind::Invalid,
                format!(
                    "{} belongs to another volume ({}; the metadata in {} is of {}); give --meta of that volume",
                    settings.cache.display(),
                    whose.volume,
                    settings.meta,
                    info.uuid
                ),
            ));
        }
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store = volume::store(&info.store_url, settings, clock.clone(), &mut Registry::default())?;
        volume::check_marker(&*store, &info).await?;
        let memory = ByteBudget::new(settings.limits.memory_bytes_max);
        let cache = settings.cache.join("read");
        let reads = ReadCache::open(&cache, &settings.limits, store.clone(), clock.clone(), memory.clone())?;
        let (watch, steps) = (RecoveryWatch::default(), Steps::new());
        Ok(Work { settings, source, node: whose.node, store, reads, clock, memory, watch, steps })
    }

    /// One namespace after the other, each however the others end.
    async fn all(&self) -> Outcome<RecoverReport> {
        let mut namespaces = Vec::new();
        for id in staged(&self.settings.cache)? {
            namespaces.push(self.one(id).await);
        }
        let clean = namespaces
            .iter()
            .all(|space| space.left.is_none() && space.kept_aside.is_empty() && space.damaged_bytes == 0);
        Ok(RecoverReport { node: self.node.to_string(), clean, namespaces })
    }

    async fn one(&self, id: NamespaceId) -> RecoveredSpace {
        let dir = stage_dir(&self.settings.cache, id);
        let mut space = RecoveredSpace { namespace: dir.display().to_string(), ..RecoveredSpace::default() };
        let reached = match self.source.by_id(id).await {
            Ok(reached) => reached,
            Err(failure) => {
                let failure = match failure.is(Kind::NotFound) {
                    true => failure.context(
                        "its namespace was removed, or is not granted to this token (an administrator's reaches all)",
                    ),
                    false => failure,
                };
                return RecoveredSpace { left: Some(failure), ..space };
            }
        };
        space.namespace = reached.info.name.to_string();
        match self.open(id, reached).await {
            Ok(tree) => self.store(&tree, &mut space).await,
            Err(failure) => space.left = Some(failure),
        }
        space
    }

    async fn open(&self, id: NamespaceId, reached: Reached) -> Outcome<Arc<Tree>> {
        let parts = TreeParts {
            stage_dir: stage_dir(&self.settings.cache, id),
            node: self.node,
            limits: self.settings.limits.clone(),
            meta: reached.meta,
            store: self.store.clone(),
            reads: self.reads.clone(),
            clock: self.clock.clone(),
            random: Box::new(randomness::bits(randomness::generator()?)),
            memory: self.memory.clone(),
            runtime: tokio::runtime::Handle::current(),
        };
        let opened = self.telling(Tree::open_watched(parts, &self.watch), || {
            let line = self.watch.now().unwrap_or_default().into();
            (describe_recovery(&line), line.bytes, line.bytes_total)
        });
        Ok(opened.await?)
    }

    /// Uploads what the tree found, and closes it.
    async fn store(&self, tree: &Arc<Tree>, space: &mut RecoveredSpace) {
        let dirty = tree.status().dirty_bytes;
        let name = space.namespace.clone();
        let stored = self.telling(tree.sync(), || {
            let status = tree.status();
            let done = dirty.saturating_sub(status.dirty_bytes);
            let failing = status.error.map_or_else(String::new, |e| format!(" (trying again: {e})"));
            let text = format!("storing {name}: {} of {}{failing}", show_bytes(done), show_bytes(dirty));
            (text, done, dirty)
        });
        let stored = stored.await;
        let (recovered, status) = (tree.recovered(), tree.status());
        (space.replayed, space.stage_files) = (recovered.replayed, recovered.files);
        (space.stored_bytes, space.stored_objects) = (status.uploaded_bytes, status.uploaded_objects);
        (space.damaged_bytes, space.dirty_bytes) = (recovered.lost, status.dirty_bytes);
        space.kept_aside = tree.kept_aside();
        let closed = tree.shutdown().await;
        space.left = stored.and(closed).err().map(Failure::from);
    }

    /// Tells once a second how far the work is.
    async fn telling<T>(&self, work: impl Future<Output = T>, now: impl Fn() -> (String, u64, u64)) -> T {
        tokio::pin!(work);
        let mut tick = tokio::time::interval(TELL_INTERVAL);
        tick.tick().await; // the first comes at once
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = tick.tick() => {
                    let (text, done, total) = now();
                    self.steps.on_line(&text, done, total);
                }
            }
        }
    }
}

/// Namespaces with a stage in the directory.
pub fn staged(cache: &Path) -> Outcome<Vec<NamespaceId>> {
    let stage = cache.join("stage");
    let cannot = |e: &std::io::Error| Failure::io(format!("cannot look into {}", stage.display()), e);
    let entries = match std::fs::read_dir(&stage) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(cannot(&e)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.map_err(|e| cannot(&e))?.file_name();
        let id = name.to_str().filter(|n| n.len() == 8).and_then(|n| u32::from_str_radix(n, 16).ok());
        found.extend(id.map(NamespaceId));
    }
    found.sort_unstable();
    Ok(found)
}
