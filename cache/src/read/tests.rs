//! The read cache over a store in memory whose requests are counted, held back, and made to fail.

mod compressed;
mod courtesy;
mod disk_faults;
mod epochs;
mod flights;
mod objects;
mod prefetching;
mod properties;
mod shares;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use granary_core::{Ino, ObjectKind, TestClock};
use granary_store::format::{BlockBuilder, BlockInfo, NewEntry, PackBuilder, Sealed};
use granary_store::{MemoryStore, ObjectMeta};
use tokio::sync::Semaphore;

use super::*;

const NS: NamespaceId = NamespaceId(7);
const MIB: u64 = CHUNK_BYTES;

/// Counts GETs, and waits for the gate before each.
#[derive(Debug)]
struct TestStore {
    inner: MemoryStore,
    /// Every GET so far, in the order they came.
    gets: Mutex<Vec<(String, Range<u64>)>>,
    /// One permit a GET; many when it is open.
    gate: Semaphore,
    /// A permit for each GET that came to the gate.
    came: Semaphore,
    dead: AtomicBool,
}

impl TestStore {
    fn new() -> Arc<TestStore> {
        Arc::new(TestStore {
            inner: MemoryStore::default(),
            gets: Mutex::default(),
            gate: Semaphore::new(Semaphore::MAX_PERMITS / 2),
            came: Semaphore::new(0),
            dead: AtomicBool::new(false),
        })
    }

    fn close_gate(&self) {
        self.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    fn open_gate(&self) {
        self.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    /// Returns when `n` more GETs are waiting at the gate (or went through).
    async fn came(&self, n: u32) {
        self.came.acquire_many(n).await.unwrap().forget();
    }

    fn set_dead(&self, dead: bool) {
        self.dead.store(dead, Ordering::SeqCst);
    }

    fn gets(&self) -> Vec<(String, Range<u64>)> {
        self.gets.lock().unwrap().clone()
    }

    /// How often each chunk of an object was asked for.
    fn gets_of_chunks(&self, object: &ObjectInfo) -> BTreeMap<u64, usize> {
        let mut counts = BTreeMap::new();
        for (key, range) in self.gets() {
            if key == key_of(object) {
                for chunk in range.start.div_ceil(MIB)..range.end.min(object.payload_len).div_ceil(MIB) {
                    *counts.entry(chunk).or_default() += 1;
                }
            }
        }
        counts
    }

    /// Changes a bit of an object behind everybody's back.
    fn flip(&self, object: &ObjectInfo, at: u64) {
        let key = key_of(object);
        let mut bytes = self.inner.object(&key).unwrap().to_vec();
        bytes[at as usize] ^= 1;
        self.inner.tamper(&key, bytes.into());
    }
}

#[async_trait]
impl Store for TestStore {
    async fn get(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        self.gets.lock().unwrap().push((key.to_owned(), range.clone()));
        self.came.add_permits(1);
        self.gate.acquire().await.unwrap().forget();
        if self.dead.load(Ordering::SeqCst) {
            return Err(Error::new(Kind::Unavailable, "the store does not answer"));
        }
        self.inner.get(key, range).await
    }
    async fn put(&self, key: &str, parts: Vec<Bytes>) -> Result<()> {
        self.inner.put(key, parts).await
    }
    async fn head(&self, key: &str) -> Result<ObjectMeta> {
        self.inner.head(key).await
    }
    async fn delete(&self, keys: Vec<String>) -> Result<()> {
        self.inner.delete(keys).await
    }
    async fn list(&self, prefix: &str, after: Option<&str>, max: usize) -> Result<Vec<ObjectMeta>> {
        self.inner.list(prefix, after, max).await
    }
    fn describe(&self) -> String {
        self.inner.describe()
    }
}

fn key_of(object: &ObjectInfo) -> String {
    object_key(NS, object.kind, object.id)
}

/// Bytes that differ from object to object and place to place; each made once.
fn payload(id: u128, len: u64) -> Bytes {
    static MADE: Mutex<BTreeMap<(u128, u64), Bytes>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap();
    let make = || {
        let mut x = id as u64 | 1;
        let mut out = Vec::with_capacity(len as usize + 8);
        while (out.len() as u64) < len {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            out.extend_from_slice(&x.to_le_bytes());
        }
        out.truncate(len as usize);
        out.into()
    };
    made.entry((id, len)).or_insert_with(make).clone()
}

fn sealed(id: u128, len: u64) -> (Sealed, ObjectInfo) {
    let info = BlockInfo { ino: Ino(5), file_offset: 0, version: 1 };
    let mut block = BlockBuilder::new(NS, ObjectId(id), info);
    block.push(payload(id, len)).unwrap();
    let sealed = block.seal().unwrap();
    let object = ObjectInfo {
        id: ObjectId(id),
        kind: ObjectKind::Block,
        payload_len: sealed.info.payload_len,
        total_len: sealed.info.total_len,
    };
    (sealed, object)
}

fn sealed_pack(id: u128, bytes: Bytes) -> (Sealed, ObjectInfo) {
    let mut pack = PackBuilder::new(NS, ObjectId(id));
    let crc = granary_core::crc32c(&bytes);
    let entry = NewEntry { ino: Ino(5), parent: Ino(1), file_offset: 0, crc, name: b"f".to_vec() };
    pack.push(entry, vec![bytes]).unwrap();
    let sealed = pack.seal().unwrap();
    let (payload_len, total_len) = (sealed.info.payload_len, sealed.info.total_len);
    (sealed, ObjectInfo { id: ObjectId(id), kind: ObjectKind::Pack, payload_len, total_len })
}

/// A cache in a directory of its own, its store, and what it was opened with.
struct Bench {
    dir: tempfile::TempDir,
    limits: Limits,
    memory: ByteBudget,
    store: Arc<TestStore>,
    cache: Arc<ReadCache>,
}

impl Bench {
    fn new() -> Bench {
        Bench::with(
            Limits { cache_free_bytes_min: 0, cache_free_percent_min: 0, ..Limits::default() },
            ByteBudget::new(64 << 20),
        )
    }

    fn with(limits: Limits, memory: ByteBudget) -> Bench {
        let (dir, store) = (tempfile::tempdir().unwrap(), TestStore::new());
        let cache = open(&dir, &limits, &store, &memory);
        Bench { dir, limits, memory, store, cache }
    }

    /// As after a restart of the process.
    async fn reopen(&mut self) {
        self.cache.idle().await;
        self.cache = open(&self.dir, &self.limits, &self.store, &self.memory);
    }

    async fn object(&self, id: u128, len: u64) -> ObjectInfo {
        let (sealed, object) = sealed(id, len);
        self.store.put(&sealed.key(), sealed.parts()).await.unwrap();
        object
    }

    /// The same as a pack with one file in it.
    async fn pack(&self, id: u128, len: u64) -> ObjectInfo {
        let (sealed, object) = sealed_pack(id, payload(id, len));
        self.store.put(&sealed.key(), sealed.parts()).await.unwrap();
        object
    }

    /// Reads and compares.
    async fn check(&self, object: &ObjectInfo, range: Range<u64>) {
        let bytes = self.cache.read(NS, object, range.clone()).await.unwrap();
        assert!(bytes == payload(object.id.0, object.payload_len)[range.start as usize..range.end as usize]);
    }

    async fn error(&self, object: &ObjectInfo, range: Range<u64>) -> Error {
        self.cache.read(NS, object, range).await.unwrap_err()
    }

    /// Every file below the two-digit directories.
    fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for dir in
            std::fs::read_dir(self.dir.path()).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_dir())
        {
            files.extend(std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()));
        }
        files.sort();
        files
    }

    fn files_of(&self, object: &ObjectInfo) -> Vec<PathBuf> {
        let id = object.id.to_string();
        self.files().into_iter().filter(|p| p.to_str().unwrap().contains(&id)).collect()
    }

    fn bytes_on_disk(&self) -> u64 {
        self.files().iter().map(|p| p.metadata().map_or(0, |m| m.len())).sum()
    }
}

fn open(
    dir: &tempfile::TempDir,
    limits: &Limits,
    store: &Arc<TestStore>,
    memory: &ByteBudget,
) -> Arc<ReadCache> {
    let clock = Arc::new(TestClock::default());
    ReadCache::open(dir.path(), limits, store.clone(), clock, memory.clone()).unwrap()
}

/// What must not hang.
async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(120), what).await.expect("it hangs")
}
