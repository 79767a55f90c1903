//! What one process has of a data set: the place, threads, open shards.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use granary_core::{Clock, Error, Kind, Result};
use granary_packer::dataset::{self, DataSet};
use granary_packer::index::Index;
use granary_packer::manifest::Manifest;
use granary_packer::place::Place;
use memmap2::Mmap;
use prometheus_client::registry::Registry;
use tokio::runtime::{self, Runtime};

use super::SourceOptions;
use crate::fetch::{self, Asked, Fetching, Ranges};
use crate::node::{self, NodeStore, NodeStoreParts};
use crate::sample::{Files, Held, OpenShard, Sample};

/// Shards open at once: each is two mappings, and Linux allows a process 65,530.
const OPEN_MAX: usize = 8192;
const THREADS_MAX: usize = 16;
/// Samples that are worth a thread of their own.
const SAMPLES_A_THREAD: usize = 128;

/// A sample by where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Want {
    pub shard: u32,
    /// In the shard's index.
    pub sample: u32,
    /// In the version.
    pub number: u64,
}

#[derive(Debug)]
pub(crate) struct Home {
    data: DataSet,
    /// What it is read through, if that is the node.
    node: Option<Arc<NodeStore>>,
    /// None of a folder, and when the caller has one.
    runtime: Option<Runtime>,
    registry: Registry,
    threads: usize,
    /// Extensions of the files that are given; empty: all.
    members: Vec<Vec<u8>>,
    /// Guards the table; a shard is opened outside of it, perhaps twice.
    shards: RwLock<HashMap<u32, Arc<OpenShard>>>,
}

impl Home {
    /// With a manifest nothing is asked of the store.
    pub fn open(
        text: &str,
        options: &SourceOptions,
        clock: Arc<dyn Clock>,
        manifest: Option<Arc<Manifest>>,
    ) -> Result<Home> {
        let mut registry = Registry::default();
        let (place, node) = match node::root_of(text) {
            Some(root) => {
                let socket = options.socket.clone().unwrap_or_else(|| PathBuf::from(node::SOCKET));
                let (root, place) = (root.to_owned(), options.place.clone());
                let parts = NodeStoreParts { socket, root, place, clock, known: manifest.is_some() };
                let store = Arc::new(NodeStore::new(parts, &mut registry));
                (Place::of_store(store.clone()), Some(store))
            }
            None => (Place::open_metered(text, &options.place, clock, &mut registry)?, None),
        };
        let kept =
            dataset::Options { index_folder: options.index_folder.clone(), ..dataset::Options::default() };
        let folder = place.folder().is_some();
        let runtime = if folder {
            runtime::Builder::new_current_thread()
        } else {
            runtime::Builder::new_multi_thread()
        }
        .worker_threads(threads(options).min(4))
        .thread_name("granary-source")
        .enable_all()
        .build()
        .map_err(|e| Error::io("cannot start the threads that read a data set", e))?;
        let data = match manifest {
            Some(manifest) => DataSet::of_manifest(place, (*manifest).clone(), kept),
            None => runtime.block_on(DataSet::open_with(place, options.version, kept))?,
        };
        let mut home = Home::given(data, options);
        (home.runtime, home.registry, home.node) = ((!folder).then_some(runtime), registry, node);
        Ok(home)
    }

    pub fn given(data: DataSet, options: &SourceOptions) -> Home {
        Home {
            data,
            node: None,
            runtime: None,
            registry: Registry::default(),
            threads: threads(options),
            members: options.members.iter().map(|member| member.clone().into_bytes()).collect(),
            shards: RwLock::default(),
        }
    }

    pub fn data(&self) -> &DataSet {
        &self.data
    }

    pub fn is_folder(&self) -> bool {
        self.data.place().folder().is_some()
    }

    /// Whether a disk cache of the loader's own helps: neither in a folder nor where the node has one.
    pub fn wants_cache(&self) -> bool {
        !self.is_folder() && self.node.is_none()
    }

    /// Whether somebody keeps what is asked for, and likes to know when it is wanted again.
    pub fn is_kept_elsewhere(&self) -> bool {
        self.node.is_some()
    }

    /// When bytes of a shard that will be asked for are wanted again: of each piece, as [`Ask::Bytes`](node::wire::Ask::Bytes) has it.
    pub fn wanted_again(&self, shard: u32, range: &Range<u64>, next: &[u32]) {
        if let (Some(node), Ok(shard)) = (&self.node, self.data.shard(shard)) {
            node.wanted_again(&shard.path, range, next);
        }
    }

    /// Bytes of a shard were not what they should be.
    pub fn doubt(&self, shard: u32, range: Range<u64>) {
        if let (Some(node), Ok(shard)) = (&self.node, self.data.shard(shard)) {
            node.doubt(&shard.path, range);
        }
    }

    pub fn metrics(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }

    /// For callers that wait; never from within a runtime.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        match &self.runtime {
            Some(runtime) => runtime.block_on(future),
            None => futures::executor::block_on(future),
        }
    }

    fn opened(&self, shard: u32) -> Option<Arc<OpenShard>> {
        self.shards.read().unwrap_or_else(PoisonError::into_inner).get(&shard).cloned()
    }

    fn keep(&self, number: u32, shard: OpenShard) -> Arc<OpenShard> {
        let shard = Arc::new(shard);
        let mut shards = self.shards.write().unwrap_or_else(PoisonError::into_inner);
        if shards.len() >= OPEN_MAX {
            // Any half of them: order is shuffled, so none is more likely to be wanted.
            let mut keep = false;
            shards.retain(|_, _| {
                keep = !keep;
                keep
            });
        }
        shards.insert(number, shard.clone());
        shard
    }

    /// A shard of a folder, mapped.
    fn shard_now(&self, number: u32) -> Result<Arc<OpenShard>> {
        if let Some(shard) = self.opened(number) {
            return Ok(shard);
        }
        let of = self.data.shard(number)?;
        let index = self.data.index_now(number)?.ok_or_else(|| {
            Error::new(Kind::Bug, format!("{} is no folder, and is read as one", self.data.place()))
        })?;
        let path = self.data.place().local_path(&of.path).ok_or_else(|| {
            Error::new(
                Kind::Corrupt,
                format!("{}: a shard cannot be called {:?}", self.data.place(), of.path),
            )
        })?;
        let cannot = |e| Error::io(format!("cannot open the shard {}", path.display()), e);
        let file = File::open(&path).map_err(cannot)?;
        let found = file.metadata().map_err(cannot)?.len();
        if found != of.bytes {
            return Err(Error::new(
                Kind::Corrupt,
                format!(
                    "{} has {found} bytes, and the data set's manifest says {}; it was changed after it was packed",
                    path.display(),
                    of.bytes
                ),
            ));
        }
        // SAFETY: a shard has its name only when it is whole, and is never written over. If somebody else cuts it, a read of the
        // lost pages ends the process by a signal, which is no undefined behaviour.
        let bytes = match found {
            0 => Bytes::new(),
            _ => Bytes::from_owner(unsafe { Mmap::map(&file) }.map_err(cannot)?),
        };
        Ok(self.keep(number, self.open_shard(index, number, Some(bytes))))
    }

    fn open_shard(&self, index: Index, number: u32, bytes: Option<Bytes>) -> OpenShard {
        let path = self.data.shard(number).map_or("?", |shard| &shard.path);
        let name = format!("{}/{path}", self.data.place());
        OpenShard { grouping: index.grouping(), index, name, bytes }
    }

    /// A shard of a bucket: its index.
    pub async fn shard(&self, number: u32) -> Result<Arc<OpenShard>> {
        if let Some(shard) = self.opened(number) {
            return Ok(shard);
        }
        if self.is_folder() {
            return self.shard_now(number);
        }
        let index = match self.data.index(number).await {
            // What came wrong once is asked for once more, as samples are.
            Err(e) if e.kind() == Kind::Corrupt => self.data.index(number).await?,
            index => index?,
        };
        Ok(Arc::new(self.open_shard(index, number, None)))
    }

    /// Which files of a sample are given: those that live and were asked for.
    pub fn files(&self, shard: &OpenShard, want: &Want) -> Result<Files> {
        let all = shard.index.sample(want.sample)?;
        let dead = &self.data.shard(want.shard)?.dead_files;
        if dead.is_empty() && self.members.is_empty() {
            return Ok(Files::All(all));
        }
        let mut files = Vec::with_capacity(all.len());
        for file in all.filter(|&file| !dead.contains(file)) {
            let extension = shard.grouping.split(shard.index.file(file)?.path).1;
            if self.members.is_empty() || self.members.iter().any(|member| member == extension) {
                files.push(file);
            }
        }
        Ok(Files::Some(files.into()))
    }

    /// A sample of a mapped shard, verified.
    pub fn mapped(&self, want: &Want) -> Result<Sample> {
        let shard = self.shard_now(want.shard)?;
        let files = self.files(&shard, want)?;
        let sample =
            Sample { source: 0, number: want.number, shard, files, held: Held::Mapped, arrays: None };
        sample.verify()?;
        Ok(sample)
    }

    /// Many, by several threads when they are worth it.
    pub fn mapped_many(&self, wants: &[Want]) -> Result<Vec<Sample>> {
        let threads = (wants.len() / SAMPLES_A_THREAD).clamp(1, self.threads);
        let read =
            |wants: &[Want]| wants.iter().map(|want| self.mapped(want)).collect::<Result<Vec<Sample>>>();
        if threads == 1 {
            return read(wants);
        }
        let part = wants.len().div_ceil(threads);
        std::thread::scope(|scope| {
            let (first, rest) = wants.split_at(part);
            let others: Vec<_> = rest.chunks(part).map(|wants| scope.spawn(move || read(wants))).collect();
            let mut samples = read(first)?;
            samples.reserve(rest.len());
            for other in others {
                let read = other
                    .join()
                    .map_err(|_| Error::new(Kind::Bug, "a thread that reads samples panicked"))?;
                samples.extend(read?);
            }
            Ok(samples)
        })
    }

    /// Samples of a bucket, each verified or with its error.
    pub async fn fetch(self: &Arc<Home>, wants: &[Want]) -> Vec<Result<Sample>> {
        let items = fetch::items(self, wants).await;
        let rules = fetch::Rules::default();
        let ranges: Arc<dyn Ranges> = Arc::new(fetch::Direct::new(self.clone(), rules.request_bytes_max));
        let plan = fetch::planned(&items, &rules);
        let asked: Vec<Arc<Asked>> =
            plan.requests.iter().map(|request| Asked::send(&ranges, request, None)).collect();
        let mut samples = Vec::with_capacity(wants.len());
        for (item, requests) in items.into_iter().zip(plan.of_item) {
            let requests = requests.into_iter().map(|request| asked[request].clone()).collect();
            samples.push(Fetching::new(ranges.clone(), item, requests).sample().await);
        }
        samples
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Not waited for: the caller may be a task of another runtime.
            runtime.shutdown_background();
        }
    }
}

pub(super) fn threads(options: &SourceOptions) -> usize {
    match options.threads {
        0 => std::thread::available_parallelism().map_or(1, |n| n.get()).min(THREADS_MAX),
        threads => threads.min(256),
    }
}
