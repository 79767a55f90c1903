//! For tests: a volume in memory, and files that go the way of a node's drain: staged, packed, stored, named.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::executor::block_on;
use granary_core::limits::Limits;
use granary_core::{Clock, EntryName, Ino, NamespaceId, NodeId, ObjectId, Result, TestClock};
use granary_meta::engine::{Engine, MemoryEngine, Write};
use granary_meta::record::{Key, Value};
use granary_meta::*;
use granary_store::format::{NewEntry, PackBuilder, Sealed};
use granary_store::{MemoryStore, Store};

use crate::progress::Progress;

pub struct Rig {
    pub engine: Arc<dyn Engine>,
    pub clock: Arc<TestClock>,
    pub store: Arc<MemoryStore>,
    pub volume: Arc<Volume>,
    pub ns: NamespaceId,
    pub space: Arc<LocalNamespace>,
    next: Mutex<u128>,
}

pub fn info() -> VolumeInfo {
    VolumeInfo { uuid: "ab".repeat(16), store_url: "memory:".into(), created_unix_ms: 7 }
}

pub fn named(name: &str) -> NewNamespace {
    NewNamespace {
        name: name.parse().unwrap(),
        uid: 0,
        gid: 0,
        mode: 0o755,
        bytes_max: 0,
        inodes_max: 0,
        durability: Durability::Local,
        trash_ms: 0,
        packed: None,
    }
}

/// One file's bytes on their way into a pack.
pub struct Staged {
    pub ino: Ino,
    pub bytes: Vec<u8>,
    pub extent: Extent,
}

impl Rig {
    pub fn new() -> Rig {
        let engine = MemoryEngine::new();
        Volume::init(&*engine, &info()).unwrap();
        Rig::over(engine, Arc::default())
    }

    pub fn over(engine: Arc<dyn Engine>, clock: Arc<TestClock>) -> Rig {
        let store = Arc::new(MemoryStore::new(clock.clone()));
        block_on(granary_store::marker::write(&*store, &info().uuid)).unwrap();
        let volume = Volume::open(engine.clone(), clock.clone(), &Limits::default()).unwrap();
        let ns = volume.create_namespace(named("user/a")).unwrap().id;
        let space = volume.namespace_by_id(ns).unwrap();
        Rig { engine, clock, store, volume, ns, space, next: Mutex::new(1) }
    }

    pub fn later(&self, secs: u64) {
        self.clock.advance(Duration::from_secs(secs));
    }

    pub fn mkdir(&self, dir: Ino, name: &str) -> Ino {
        self.make(dir, name, FileType::Directory)
    }

    fn make(&self, dir: Ino, name: &str, kind: FileType) -> Ino {
        let new = NewInode { kind, mode: 0o644, umask: 0, uid: 0, gid: 0, rdev: 0, target: vec![] };
        block_on(self.space.create(dir, EntryName::new(name.as_bytes()).unwrap(), new, false)).unwrap().ino
    }

    /// A file whose bytes are in the log of a node.
    pub fn staged(&self, dir: Ino, name: &str, bytes: &[u8]) -> Staged {
        let ino = self.make(dir, name, FileType::File);
        let offset = ino.0 * 1000;
        let place = Place::Log { node: NodeId(1), segment: 1, offset };
        let extent = Extent { offset: 0, len: bytes.len() as u64, place, crc: granary_core::crc32c(bytes) };
        let now = self.clock.now();
        let commit = Commit {
            ino,
            size: extent.len,
            mtime: now,
            ctime: now,
            extents: vec![extent],
            holes: vec![],
            staged_seq: ino.0,
        };
        block_on(self.space.commit(commit)).unwrap();
        Staged { ino, bytes: bytes.to_vec(), extent }
    }

    /// A pack of these, not stored.
    pub fn pack(&self, files: &[Staged]) -> (Sealed, Vec<Move>) {
        let mut next = self.next.lock().unwrap();
        *next += 1;
        let id = ObjectId::new(self.clock.now().unix_ms(), *next);
        let mut pack = PackBuilder::new(self.ns, id);
        let moves = files.iter().map(|file| {
            let entry = NewEntry {
                ino: file.ino,
                parent: Ino::ROOT,
                file_offset: 0,
                crc: file.extent.crc,
                name: b"f".to_vec(),
            };
            let to_offset = pack.push(entry, vec![Bytes::from(file.bytes.clone())]).unwrap();
            Move { ino: file.ino, from: file.extent, to_offset }
        });
        let moves = moves.collect();
        (pack.seal().unwrap(), moves)
    }

    pub fn put(&self, sealed: &Sealed) -> String {
        block_on(self.store.put(&sealed.key(), sealed.parts())).unwrap();
        sealed.key()
    }

    pub fn relocate(&self, sealed: &Sealed, moves: Vec<Move>) -> Result<Vec<Vec<(u64, u64)>>> {
        let i = sealed.info;
        let info = ObjectInfo { id: i.id, kind: i.kind, payload_len: i.payload_len, total_len: i.total_len };
        block_on(self.space.relocate(info, moves))
    }

    /// Files in one pack, stored and named: the pack's key.
    pub fn stored(&self, files: &[Staged]) -> String {
        let (sealed, moves) = self.pack(files);
        let key = self.put(&sealed);
        let effects = self.relocate(&sealed, moves).unwrap();
        assert!(effects.iter().all(|parts| parts.len() == 1));
        key
    }

    /// A file in a pack, with a copy of its bytes in the metadata.
    pub fn copied(&self, dir: Ino, name: &str, bytes: &[u8]) -> Ino {
        let policy = PolicyChange { inline_bytes_max: Some(2048), ..PolicyChange::default() };
        let change = NamespaceChange { policy, ..NamespaceChange::default() };
        self.volume.set_namespace(&"user/a".parse().unwrap(), change).unwrap();
        let file = self.staged(dir, name, bytes);
        let (sealed, moves) = self.pack(std::slice::from_ref(&file));
        self.put(&sealed);
        let copy =
            NewInline { ino: file.ino, at: moves[0].to_offset, crc: file.extent.crc, bytes: bytes.into() };
        self.relocate(&sealed, moves).unwrap();
        let i = sealed.info;
        let info = ObjectInfo { id: i.id, kind: i.kind, payload_len: i.payload_len, total_len: i.total_len };
        block_on(self.space.keep_inline(info, vec![copy])).unwrap();
        assert_eq!(block_on(self.space.inline(file.ino)).unwrap().unwrap().bytes, bytes.into());
        file.ino
    }

    /// Three files in a directory, in one pack.
    pub fn filled(&self) -> (Vec<Ino>, String) {
        let dir = self.mkdir(Ino::ROOT, "d");
        let files: Vec<Staged> =
            (0..3).map(|i| self.staged(dir, &format!("f{i}"), &vec![i as u8 + 1; 5000 + i])).collect();
        let key = self.stored(&files);
        (files.iter().map(|f| f.ino).collect(), key)
    }

    /// Changes a record behind the volume's back, which is opened anew for it.
    pub fn damaged(self, key: Key, change: impl FnOnce(&mut Value)) -> Rig {
        self.volume.flush().unwrap();
        let Rig { engine, clock, store, ns, next, volume, space } = self;
        let bytes = engine.get(&key.encode(ns)).unwrap().unwrap();
        let mut value = Value::decode(&key, &bytes).unwrap();
        change(&mut value);
        engine.write(vec![Write::Put(key.encode(ns), value.encode())], true).unwrap();
        drop(space);
        // Not shut down, which would close the engine: it only knows nothing of the change.
        std::mem::forget(volume);
        let volume = Volume::open(engine.clone(), clock.clone(), &Limits::default()).unwrap();
        let space = volume.namespace_by_id(ns).unwrap();
        Rig { engine, clock, store, volume, ns, space, next }
    }

    /// Keys in the store, but for the volume's marker.
    pub fn keys(&self) -> Vec<String> {
        self.store.keys().into_iter().filter(|key| key != granary_store::marker::KEY).collect()
    }

    pub fn unlink(&self, dir: Ino, name: &str) {
        block_on(self.space.unlink(dir, EntryName::new(name.as_bytes()).unwrap())).unwrap();
    }

    pub fn lookup(&self, dir: Ino, name: &str) -> Attr {
        block_on(self.space.lookup(dir, EntryName::new(name.as_bytes()).unwrap())).unwrap()
    }

    pub fn progress(&self) -> Arc<Progress> {
        Arc::default()
    }
}

/// Every record of an engine.
pub fn records(engine: &dyn Engine) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut all = Vec::new();
    engine
        .scan(b"", b"", &mut |key, value| {
            all.push((key.to_vec(), value.to_vec()));
            Ok(true)
        })
        .unwrap();
    all
}

/// A store that does something right after a listing, before its caller sees it.
pub struct Between {
    pub inner: Arc<MemoryStore>,
    pub after_list: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    pub before_delete: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Between {
    pub fn new(inner: &Arc<MemoryStore>) -> Between {
        Between { inner: inner.clone(), after_list: Mutex::default(), before_delete: Mutex::default() }
    }
}

impl std::fmt::Debug for Between {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Between")
    }
}

#[async_trait::async_trait]
impl Store for Between {
    async fn get(&self, key: &str, range: std::ops::Range<u64>) -> Result<Bytes> {
        self.inner.get(key, range).await
    }
    async fn put(&self, key: &str, parts: Vec<Bytes>) -> Result<()> {
        self.inner.put(key, parts).await
    }
    async fn head(&self, key: &str) -> Result<granary_store::ObjectMeta> {
        self.inner.head(key).await
    }
    async fn delete(&self, keys: Vec<String>) -> Result<()> {
        if let Some(act) = self.before_delete.lock().unwrap().take() {
            act();
        }
        self.inner.delete(keys).await
    }
    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<granary_store::ObjectMeta>> {
        let listed = self.inner.list(prefix, after, max).await?;
        if let Some(act) = self.after_list.lock().unwrap().take() {
            act();
        }
        Ok(listed)
    }
    fn describe(&self) -> String {
        self.inner.describe()
    }
}
