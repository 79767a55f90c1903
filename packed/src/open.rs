//! Opening a version: its indexes are brought here, its tree order is made unless it is here already.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use granary_core::{Error, Kind, NamespaceId, Result};
use granary_meta::{Metadata, PackedSource};
use granary_packer::dataset::{DataSet, Options};
use granary_packer::index::Index;
use granary_packer::manifest::{self, Manifest};
use granary_packer::place::Place;
use granary_store::Store;

use crate::metadata::PackedMetadata;
use crate::opening::Opening;
use crate::order::{self, Identity, Order, Skipped};
use crate::shards::{ShardStore, Shards, file_names};
use crate::tree::{Owner, Tree};

/// Look-ups in a mounted tree go to any of its indexes: those of some million files stay mapped.
const INDEX_RESIDENT_BYTES_MAX: u64 = 256 << 20;

/// Indexes that are fetched at once.
const FETCHES_MAX: usize = 8;
/// Shards of one mount: each index is a mapping, of which Linux allows a process 65,530.
const SHARDS_MAX: usize = 48 << 10;
const INDEXES: &str = "indexes";

/// A version that is open.
pub struct Packed {
    pub version: u64,
    pub data_set: [u8; 16],
    pub meta: Arc<dyn Metadata>,
    /// Where the read cache has the namespace's objects from.
    pub store: Arc<dyn Store>,
}

/// The version that a mount now would show.
///
/// Errors: `NotFound` when there is no data set, or not this version; `Corrupt`; `Unsupported` when a newer program wrote it;
/// what the store says.
pub async fn manifest_of(place: &Place, source: &PackedSource) -> Result<Manifest> {
    let found = match source.version {
        Some(version) => manifest::read(place, version).await,
        None => manifest::latest(place).await.and_then(|latest| {
            latest.ok_or_else(|| {
                Error::new(
                    Kind::NotFound,
                    format!("{place} holds no data set; make one there with `granary pack`, or of tars with `granary index`"),
                )
            })
        }),
    };
    found.map_err(|e| e.context(format_args!("cannot read the packed data set {}", source.url)))
}

/// Opens the version of this manifest, and tells `opening` how far it is; when nobody waits for it any more, it ends. `dir` is the namespace's own on this node, made if missing; what is in it of other versions
/// is removed.
///
/// Errors: those of indexes and the store; `Unsupported` for more shards than one process can map, and for indexes without
/// checksums of their tars; what the disk says.
pub async fn open(
    ns: NamespaceId,
    place: Place,
    manifest: Manifest,
    owner: Owner,
    dir: &Path,
    opening: &Arc<Opening>,
) -> Result<Packed> {
    let guard = opening.guard();
    if manifest.shards().len() > SHARDS_MAX {
        return Err(Error::new(
            Kind::Unsupported,
            format!(
                "{place} has {} shards, and a mount can show {SHARDS_MAX}; pack it with larger shards",
                manifest.shards().len()
            ),
        ));
    }
    let index_folder = dir.join(INDEXES);
    std::fs::create_dir_all(&index_folder)
        .map_err(|e| Error::io(format!("cannot make {}", index_folder.display()), e))?;
    let options = Options {
        index_folder: Some(index_folder.clone()),
        index_bytes_max: u64::MAX,
        index_resident_bytes_max: INDEX_RESIDENT_BYTES_MAX,
    };
    let data = DataSet::of_manifest(place.clone(), manifest, options);
    let manifest = data.manifest().clone();
    let shards = 0..manifest.shards().len() as u32;
    opening.expect_indexes(u64::from(shards.end));
    let fetches = shards.map(|shard| {
        let data = data.clone();
        async move { data.index(shard).await.inspect(|_| opening.indexed()) }
    });
    let indexes: Vec<Index> = futures::stream::iter(fetches).buffered(FETCHES_MAX).try_collect().await?;
    let files: Vec<PathBuf> =
        manifest.shards().iter().map(|shard| index_file(&place, &index_folder, shard)).collect();
    let known = Arc::new(Shards::new(ns, &manifest, indexes.iter().cloned().zip(files.iter().cloned()))?);
    let entries = |index: &Index| u64::from(index.file_count()) + u64::from(index.other_count());
    opening.expect_entries(indexes.iter().map(entries).sum());
    let (dir, of, at) = (dir.to_owned(), manifest.clone(), opening.clone());
    let (tree, bytes) = blocking(move || {
        let order = order_of(&dir, &of, &indexes, &at)?;
        remove_others(&dir, &of, &files);
        let bytes = living_bytes(&of, &indexes)?;
        Ok((Tree::new(order, indexes, owner)?, bytes))
    })
    .await?;
    guard.keep();
    let meta = PackedMetadata::new(ns, tree, known.clone(), file_names(&manifest), owner, bytes);
    let store = ShardStore::new(ns, known, place);
    let (version, data_set) = (manifest.version(), manifest.data_set());
    Ok(Packed { version, data_set, meta: Arc::new(meta), store: Arc::new(store) })
}

/// Where a shard's index lies on this machine.
fn index_file(place: &Place, folder: &Path, shard: &manifest::Shard) -> PathBuf {
    match place.local_path(&shard.index_path()) {
        Some(path) => path,
        None => folder.join(granary_packer::dataset::index_file_name(shard)),
    }
}

fn order_path(dir: &Path, manifest: &Manifest) -> PathBuf {
    dir.join(format!("{:010}-{:016x}.order", manifest.version(), manifest.digest()))
}

/// The order as it is here, or made anew.
fn order_of(dir: &Path, manifest: &Manifest, indexes: &[Index], opening: &Opening) -> Result<Order> {
    let (path, of) = (
        order_path(dir, manifest),
        Identity { data_set: manifest.data_set(), version: manifest.version(), digest: manifest.digest() },
    );
    match Order::open(&path, &of) {
        Ok(order) => return Ok(order),
        Err(e) if e.kind() == Kind::NotFound => {}
        Err(e) => tracing::warn!("{e}; it is made anew"),
    }
    let shards = indexes.iter().zip(manifest.shards());
    let shards = shards.map(|(index, shard)| order::Shard { index, dead_files: &shard.dead_files });
    let skipped = order::make(&path, of, shards, opening)?;
    if skipped != Skipped::default() {
        tracing::warn!(
            version = manifest.version(),
            odd_paths = skipped.odd_paths,
            devices = skipped.devices,
            replaced = skipped.replaced,
            "not all that a data set's shards have is in its tree; all of it is in .shards"
        );
    }
    Order::open(&path, &of)
}

/// What other versions left in the namespace's directory. Nobody has them open: a node shows one version of a namespace.
fn remove_others(dir: &Path, manifest: &Manifest, indexes: &[PathBuf]) {
    let order = order_path(dir, manifest);
    let indexes: std::collections::HashSet<&PathBuf> = indexes.iter().collect();
    for folder in [dir.to_owned(), dir.join(INDEXES)] {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for path in entries.flatten().map(|entry| entry.path()) {
            let is_file = path.symlink_metadata().is_ok_and(|meta| meta.is_file());
            if is_file
                && path != order
                && !indexes.contains(&path)
                && let Err(e) = std::fs::remove_file(&path)
            {
                tracing::warn!("{} of an earlier version stays: {e}", path.display());
            }
        }
    }
}

/// Bytes of the files that live.
fn living_bytes(manifest: &Manifest, indexes: &[Index]) -> Result<u64> {
    let mut bytes = 0u64;
    for (index, shard) in indexes.iter().zip(manifest.shards()) {
        bytes = bytes.saturating_add(index.header().payload_bytes);
        for file in shard.dead_files.iter() {
            bytes = bytes.saturating_sub(index.file(file)?.length);
        }
    }
    Ok(bytes)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(e) => Err(Error::new(Kind::Bug, "opening a packed data set ended early").with_source(e)),
    }
}
