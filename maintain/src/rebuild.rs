//! Metadata from the bucket alone: the last resort, when neither metadata nor a backup is left.
//!
//! Objects say whose bytes they hold: a pack of each range its inode, the directory's inode and a name, a block its inode. The
//! newest object wins where two have the same range. What objects do not say is lost: directories' names, owners and modes,
//! links, attributes, lengths that end in a hole; and what was deleted or moved since comes back where it was.
//!
//! | found | becomes |
//! |---|---|
//! | a namespace's id | `dataset/rebuilt-<id>`, owned by root, closed to others |
//! | a file that was in the root | `/<name>` |
//! | a file of another directory | `/directory-<inode>/<name>` |
//! | two of one name | the newer has it, the older `<name>.inode-<inode>` |
//! | a file whose objects have no name | `/nameless/inode-<inode>` |
//!
//! Ranges that no object has, below the end of a file, read as `EIO`: they may have been holes, or bytes of an object that is
//! lost. Inodes get new numbers, so that nothing that a node kept of the old ones is taken for the new.

mod pieces;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use futures::StreamExt;
use granary_core::id::parse_object_key;
use granary_core::limits::Limits;
use granary_core::{
    Clock, EntryName, Error, Ino, Kind, NamespaceId, NodeId, ObjectId, ObjectKind, Result, Timestamp,
};
use granary_meta::engine::{Engine, Write};
use granary_meta::machine::{self, EngineView, Operation, Records};
use granary_meta::record::{Key, Value, volume as records};
use granary_meta::{
    Commit, Durability, Extent, FileType, LocalNamespace, Metadata, Move, NewInode, NewNamespace, ObjectInfo,
    Place, Volume, VolumeInfo,
};
use granary_store::format::Footer;
use granary_store::{ObjectMeta, Store, inspect};
use serde::{Deserialize, Serialize};

use crate::backup::restore::{NAMESPACES_SKIPPED, SKIPPED};
use crate::fresh::FreshFolder;
use crate::progress::Progress;
use pieces::{FilePieces, Files};

const KEYS_AT_ONCE: usize = 1000;
const FOOTERS_AT_ONCE: usize = 16;
/// Damaged objects that are told one by one.
const DAMAGED_TOLD_MAX: usize = 1000;
/// Where the bytes are that nobody has.
const NOWHERE: Place = Place::StageFile { node: NodeId(0) };

/// What was made of one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rebuilt {
    pub namespace: String,
    pub files: u64,
    pub bytes: u64,
    pub objects: u64,
    /// Objects in which nothing is newest.
    pub superseded_objects: u64,
    pub nameless_files: u64,
    /// Files that had another's name, which is newer.
    pub renamed_files: u64,
    /// Files with ranges that no object has.
    pub files_with_gaps: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RebuildReport {
    pub namespaces: Vec<Rebuilt>,
    /// What could not be read of objects: at most 1,000.
    pub damaged: Vec<String>,
    pub damaged_objects: u64,
}

/// Makes metadata in a new folder of what the store has.
///
/// Errors: `Exists` when the folder is not empty; what the store says. Nothing is left then.
pub async fn run(
    store: &dyn Store,
    folder: &Path,
    clock: Arc<dyn Clock>,
    info: &VolumeInfo,
    progress: &Arc<Progress>,
) -> Result<RebuildReport> {
    let fresh = FreshFolder::begin(folder)?;
    let report = fill(store, fresh.engine(), clock, info, progress).await?;
    fresh.settle()?;
    Ok(report)
}

type Listed = BTreeMap<NamespaceId, Vec<(ObjectId, ObjectKind, ObjectMeta)>>;

async fn fill(
    store: &dyn Store,
    engine: &Arc<dyn Engine>,
    clock: Arc<dyn Clock>,
    info: &VolumeInfo,
    progress: &Arc<Progress>,
) -> Result<RebuildReport> {
    let _wanted = progress.while_wanted();
    Volume::init(&**engine, info)?;
    progress.step("listing the store", 0);
    let listed = list(store, progress).await?;
    let mut report = RebuildReport::default();
    let mut found = Vec::new();
    for (ns, objects) in listed {
        progress.step(format!("namespace {ns}: reading objects' footers"), objects.len() as u64);
        let files = read(store, ns, objects, progress, &mut report).await?;
        make_namespace(&**engine, &*clock, ns, files.last_ino())?;
        found.push((ns, files));
    }
    let last = found.last().map_or(0, |(ns, _)| ns.0);
    let next = NamespaceId(last.saturating_add(1).saturating_add(NAMESPACES_SKIPPED));
    engine.write(vec![Write::Put(records::NEXT_ID_KEY.to_vec(), records::encode_id(next))], false)?;
    let volume = Volume::open(engine.clone(), clock, &Limits::default())?;
    for (ns, files) in found {
        progress.step(format!("namespace {ns}: making files"), files.len() as u64);
        let space = volume.namespace_by_id(ns)?;
        let name = space.info()?.name.to_string();
        let mut tree = Tree { space: &space, progress, dirs: BTreeMap::new(), rebuilt: Rebuilt::default() };
        tree.make(files).await?;
        report.namespaces.push(Rebuilt { namespace: name, ..tree.rebuilt });
    }
    volume.flush()?;
    Ok(report)
}

async fn list(store: &dyn Store, progress: &Progress) -> Result<Listed> {
    let mut listed = Listed::new();
    let mut after: Option<String> = None;
    loop {
        let page = store.list("ns/", after.as_deref(), KEYS_AT_ONCE).await?;
        let Some(last) = page.last() else { return Ok(listed) };
        after = Some(last.key.clone());
        progress.advance(page.len() as u64)?;
        for object in page {
            if let Some((ns, kind, id)) = parse_object_key(&object.key).filter(|(ns, ..)| ns.0 > 0) {
                listed.entry(ns).or_default().push((id, kind, object));
            }
        }
    }
}

/// What all objects of a namespace say.
async fn read(
    store: &dyn Store,
    ns: NamespaceId,
    objects: Vec<(ObjectId, ObjectKind, ObjectMeta)>,
    progress: &Progress,
    report: &mut RebuildReport,
) -> Result<Files> {
    let mut footers: Vec<(ObjectInfo, Footer)> = Vec::new();
    let mut reads = futures::stream::iter(objects)
        .map(|(id, kind, object)| async move {
            let footer = inspect::read_footer(store, &object).await;
            (footer.and_then(|f| f.check_identity(ns, kind, id).map(|()| f)), id, kind, object)
        })
        .buffer_unordered(FOOTERS_AT_ONCE);
    while let Some((footer, id, kind, object)) = reads.next().await {
        progress.advance(1)?;
        match footer {
            Ok(footer) => {
                let payload_len = footer.payload_len();
                footers.push((ObjectInfo { id, kind, payload_len, total_len: object.size }, footer));
            }
            Err(e) if matches!(e.kind(), Kind::Corrupt | Kind::Unsupported | Kind::NotFound) => {
                report.damaged_objects += 1;
                if report.damaged.len() < DAMAGED_TOLD_MAX {
                    report.damaged.push(format!("{}: {e}", object.key));
                }
            }
            Err(e) => return Err(e),
        }
    }
    // Ids are in order of time.
    footers.sort_by_key(|(info, _)| info.id);
    let mut files = Files::default();
    for (info, footer) in footers {
        files.add(info, &footer.content);
    }
    Ok(files)
}

/// An empty namespace with the id that its objects' keys have.
fn make_namespace(engine: &dyn Engine, clock: &dyn Clock, ns: NamespaceId, last_ino: Ino) -> Result<()> {
    let name = format!("dataset/rebuilt-{ns}").parse()?;
    let mut batch = vec![Write::Put(records::name_key(&name), records::encode_id(ns))];
    let new = NewNamespace {
        name,
        uid: 0,
        gid: 0,
        mode: 0o700,
        bytes_max: 0,
        inodes_max: 0,
        durability: Durability::default(),
        trash_ms: granary_meta::TRASH_MS_DEFAULT,
        packed: None,
    };
    let view = &mut EngineView { engine, ns };
    let (mut changes, _) = machine::apply(view, Operation::Init { new }, clock.now())?;
    if let Some(Some(Value::Counters(counters))) = changes.get(&Key::Counters).cloned() {
        let next_ino = Ino(last_ino.0.saturating_add(SKIPPED));
        let counters = granary_meta::record::Counters { next_ino, ..counters };
        changes.set(Key::Counters, Some(Value::Counters(counters)));
    }
    changes.encode(ns, &mut batch);
    engine.write(batch, false)?;
    view.settings().map(|_| ())
}

/// Puts files into a namespace.
struct Tree<'a> {
    space: &'a Arc<LocalNamespace>,
    progress: &'a Progress,
    dirs: BTreeMap<Vec<u8>, Ino>,
    rebuilt: Rebuilt,
}

impl Tree<'_> {
    async fn make(&mut self, files: Files) -> Result<()> {
        let (objects, files) = files.newest_first();
        let mut moves: BTreeMap<ObjectId, Vec<Move>> = BTreeMap::new();
        for (old, file) in files {
            self.progress.advance(1)?;
            let ino = self.file(old, &file).await?;
            let size = file.size();
            // All of it is nowhere, until objects take their ranges.
            let all = Extent { offset: 0, len: size, place: NOWHERE, crc: 0 };
            let time = time_of(file.newest);
            let commit = Commit {
                ino,
                size,
                mtime: time,
                ctime: time,
                extents: vec![all],
                holes: Vec::new(),
                staged_seq: 0,
            };
            self.space.commit(commit).await?;
            for piece in file.pieces() {
                let from = Extent { offset: piece.at, len: piece.len, place: NOWHERE, crc: piece.crc };
                moves.entry(piece.object).or_default().push(Move {
                    ino,
                    from,
                    to_offset: piece.object_offset,
                });
            }
            self.rebuilt.files += 1;
            self.rebuilt.bytes += file.covered();
            self.rebuilt.files_with_gaps += u64::from(file.covered() < size);
        }
        for info in objects {
            match moves.remove(&info.id) {
                Some(moves) => {
                    self.space.relocate(info, moves).await?;
                    self.rebuilt.objects += 1;
                }
                // Not made known: known without a live byte it would be deleted.
                None => self.rebuilt.superseded_objects += 1,
            }
        }
        Ok(())
    }

    /// Makes the file where it is to be; the newest of a name come first.
    async fn file(&mut self, old: Ino, file: &FilePieces) -> Result<Ino> {
        let named = file.name.as_ref().filter(|(parent, name)| parent.0 != 0 && EntryName::new(name).is_ok());
        let Some((parent, name)) = named else {
            self.rebuilt.nameless_files += 1;
            let dir = self.dir(b"nameless").await?;
            return self.create(dir, format!("inode-{old}").as_bytes()).await;
        };
        let dir = match *parent {
            Ino::ROOT => Ino::ROOT,
            other => self.dir(format!("directory-{other}").as_bytes()).await?,
        };
        match self.create(dir, name).await {
            Err(e) if e.kind() == Kind::Exists => {
                self.rebuilt.renamed_files += 1;
                let suffix = format!(".inode-{old}");
                let kept = name.len().min(granary_core::name::ENTRY_NAME_MAX - suffix.len());
                self.create(dir, &[&name[..kept], suffix.as_bytes()].concat()).await
            }
            made => made,
        }
    }

    async fn dir(&mut self, name: &[u8]) -> Result<Ino> {
        if let Some(ino) = self.dirs.get(name) {
            return Ok(*ino);
        }
        let ino = match self.inode(Ino::ROOT, name, FileType::Directory, 0o700).await {
            // A file of the root has the name.
            Err(e) if e.kind() == Kind::Exists => {
                let other = [name, b".rebuilt"].concat();
                self.inode(Ino::ROOT, &other, FileType::Directory, 0o700).await?
            }
            made => made?,
        };
        self.dirs.insert(name.to_vec(), ino);
        Ok(ino)
    }

    async fn create(&self, dir: Ino, name: &[u8]) -> Result<Ino> {
        self.inode(dir, name, FileType::File, 0o600).await
    }

    async fn inode(&self, dir: Ino, name: &[u8], kind: FileType, mode: u32) -> Result<Ino> {
        let new = NewInode { kind, mode, umask: 0, uid: 0, gid: 0, rdev: 0, target: Vec::new() };
        Ok(self.space.create(dir, EntryName::new(name)?, new, false).await?.ino)
    }
}

/// When an object was made, by its id.
fn time_of(id: ObjectId) -> Timestamp {
    let ms = (id.0 >> 80) as u64;
    Timestamp { secs: (ms / 1000) as i64, nanos: (ms % 1000) as u32 * 1_000_000 }
}

/// What the store's marker says of its volume, for metadata that is made anew.
pub async fn volume_of(store: &dyn Store, store_url: &str, clock: &dyn Clock) -> Result<VolumeInfo> {
    match granary_store::marker::read(store).await? {
        Some(marker) => Ok(VolumeInfo {
            uuid: marker.uuid,
            store_url: store_url.to_owned(),
            created_unix_ms: clock.now().unix_ms(),
        }),
        None => Err(Error::new(
            Kind::NotFound,
            format!("{} holds no granary volume; check the store's URL", store.describe()),
        )),
    }
}

#[cfg(test)]
mod tests;
