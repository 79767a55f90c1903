//! One store for the node's read cache: a packed namespace's objects are asked of its own, all others of the volume's.

use std::collections::HashMap;
use std::fmt::Debug;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use bytes::Bytes;
use granary_core::id::parse_object_key;
use granary_core::{NamespaceId, Result};
use granary_store::{ObjectMeta, Store};

/// See the module.
#[derive(Debug)]
pub struct Router {
    volume: Arc<dyn Store>,
    /// Guards the table, for a look-up or a change.
    packed: RwLock<HashMap<NamespaceId, Arc<dyn Store>>>,
}

impl Router {
    pub fn new(volume: Arc<dyn Store>) -> Router {
        Router { volume, packed: RwLock::default() }
    }

    /// From now on the namespace's objects are asked of this store, in the place of the one that it had.
    pub fn add(&self, ns: NamespaceId, store: Arc<dyn Store>) {
        self.packed.write().unwrap_or_else(PoisonError::into_inner).insert(ns, store);
    }

    /// The namespace is closed.
    pub fn remove(&self, ns: NamespaceId) {
        self.packed.write().unwrap_or_else(PoisonError::into_inner).remove(&ns);
    }

    fn of(&self, key: &str) -> Arc<dyn Store> {
        let ns = parse_object_key(key).map(|(ns, ..)| ns);
        let packed = self.packed.read().unwrap_or_else(PoisonError::into_inner);
        ns.and_then(|ns| packed.get(&ns)).unwrap_or(&self.volume).clone()
    }
}

#[async_trait]
impl Store for Router {
    async fn get(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        self.of(key).get(key, range).await
    }

    async fn put(&self, key: &str, parts: Vec<Bytes>) -> Result<()> {
        self.of(key).put(key, parts).await
    }

    async fn head(&self, key: &str) -> Result<ObjectMeta> {
        self.of(key).head(key).await
    }

    async fn delete(&self, keys: Vec<String>) -> Result<()> {
        self.volume.delete(keys).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, max: usize) -> Result<Vec<ObjectMeta>> {
        self.volume.list(prefix, after, max).await
    }

    /// The volume's: those of data sets are not counted together with it.
    fn gets_at_once(&self) -> Option<u32> {
        self.volume.gets_at_once()
    }

    fn describe(&self) -> String {
        self.volume.describe()
    }
}
