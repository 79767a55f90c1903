//! A store in memory, for tests: everything the contract says, nothing is kept.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use granary_core::{Clock, Error, Kind, Result, TestClock, Timestamp};

use crate::api::{ObjectMeta, PartsId, Store};
use crate::key::{check_key, check_range, too_short};

#[derive(Clone, Debug)]
struct Held {
    bytes: Bytes,
    modified: Timestamp,
}

#[derive(Debug)]
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    /// Guards the objects; held for map look-ups and for joining a put's parts, never across `.await`.
    objects: Mutex<BTreeMap<String, Held>>,
    /// Guards the objects that come in parts, by their ids; as short.
    begun: Mutex<Begun>,
}

#[derive(Debug, Default)]
struct Begun {
    next: u64,
    /// Parts by number, each with its tag.
    parts: BTreeMap<String, BTreeMap<u32, (String, Bytes)>>,
}

impl MemoryStore {
    /// `clock` gives the objects' times.
    pub fn new(clock: Arc<dyn Clock>) -> MemoryStore {
        MemoryStore { clock, objects: Mutex::default(), begun: Mutex::default() }
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<String, Held>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begun(&self) -> MutexGuard<'_, Begun> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of objects that were begun, and neither finished nor aborted.
    pub fn begun_count(&self) -> usize {
        self.begun().parts.len()
    }

    /// Number of objects.
    pub fn count(&self) -> usize {
        self.objects().len()
    }

    /// All keys, in order.
    pub fn keys(&self) -> Vec<String> {
        self.objects().keys().cloned().collect()
    }

    /// A whole object.
    pub fn object(&self, key: &str) -> Option<Bytes> {
        self.objects().get(key).map(|held| held.bytes.clone())
    }

    /// Puts bytes in an object's place behind everybody's back, as a failing disk would.
    pub fn tamper(&self, key: &str, bytes: Bytes) {
        let modified = self.clock.now();
        self.objects().insert(key.to_owned(), Held { bytes, modified });
    }

    /// Sum of all objects' sizes in bytes.
    pub fn bytes(&self) -> u64 {
        self.objects().values().map(|held| held.bytes.len() as u64).sum()
    }
}

impl Default for MemoryStore {
    fn default() -> MemoryStore {
        MemoryStore::new(Arc::new(TestClock::default()))
    }
}

fn ended(key: &str) -> Error {
    Error::new(Kind::NotFound, format!("object {key} is not being put in parts: it was finished or aborted"))
}

fn absent(key: &str) -> Error {
    Error::new(Kind::NotFound, format!("there is no object {key} in the store in memory"))
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        check_key(key)?;
        if check_range(key, &range)? == 0 {
            return Ok(Bytes::new());
        }
        let bytes = self.object(key).ok_or_else(|| absent(key))?;
        let len = bytes.len() as u64;
        if range.end > len {
            return Err(too_short(key, &range, len.saturating_sub(range.start)));
        }
        Ok(bytes.slice(range.start as usize..range.end as usize))
    }

    async fn put(&self, key: &str, parts: Vec<Bytes>) -> Result<()> {
        check_key(key)?;
        self.tamper(key, parts.concat().into());
        Ok(())
    }

    async fn head(&self, key: &str) -> Result<ObjectMeta> {
        check_key(key)?;
        let objects = self.objects();
        let held = objects.get(key).ok_or_else(|| absent(key))?;
        Ok(ObjectMeta { key: key.to_owned(), size: held.bytes.len() as u64, modified: held.modified })
    }

    async fn delete(&self, keys: Vec<String>) -> Result<()> {
        let mut objects = self.objects();
        for key in keys {
            check_key(&key)?;
            objects.remove(&key);
        }
        Ok(())
    }

    async fn list(&self, prefix: &str, after: Option<&str>, max: usize) -> Result<Vec<ObjectMeta>> {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let objects = self.objects();
        let range = objects.range::<str, _>((from, Bound::Unbounded));
        let meta = |(key, held): (&String, &Held)| ObjectMeta {
            key: key.clone(),
            size: held.bytes.len() as u64,
            modified: held.modified,
        };
        Ok(range.take_while(|(key, _)| key.starts_with(prefix)).take(max).map(meta).collect())
    }

    async fn begin(&self, key: &str) -> Result<PartsId> {
        check_key(key)?;
        let mut begun = self.begun();
        begun.next += 1;
        let id = begun.next.to_string();
        begun.parts.insert(id.clone(), BTreeMap::new());
        Ok(PartsId { key: key.to_owned(), id })
    }

    async fn put_part(&self, parts: &PartsId, number: u32, bytes: Vec<Bytes>) -> Result<String> {
        let bytes = Bytes::from(bytes.concat());
        let mut begun = self.begun();
        let Some(held) = begun.parts.get_mut(&parts.id) else { return Err(ended(&parts.key)) };
        let tag = format!("{number}-{:08x}", granary_core::crc32c(&bytes));
        held.insert(number, (tag.clone(), bytes));
        Ok(tag)
    }

    async fn finish(&self, parts: &PartsId, tags: Vec<String>) -> Result<()> {
        let mut begun = self.begun();
        let Some(held) = begun.parts.get(&parts.id) else { return Err(ended(&parts.key)) };
        if !held.values().map(|(tag, _)| tag).eq(&tags) {
            return Err(Error::new(
                Kind::Invalid,
                format!("other parts of {} were put than are named", parts.key),
            ));
        }
        let bytes = held.values().map(|(_, bytes)| bytes.clone()).collect::<Vec<_>>().concat();
        begun.parts.remove(&parts.id);
        self.tamper(&parts.key, bytes.into());
        Ok(())
    }

    async fn abort(&self, parts: &PartsId) -> Result<()> {
        self.begun().parts.remove(&parts.id);
        Ok(())
    }

    fn describe(&self) -> String {
        "memory:".to_owned()
    }
}
