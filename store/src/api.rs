//! One narrow trait over S3 and local folders. Retry, metering and faults are wrappers over it.

use std::fmt::Debug;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use granary_core::{Result, Timestamp};

/// What a listing tells of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectMeta {
    pub key: String,
    pub size: u64,
    pub modified: Timestamp,
}

/// A flat space of immutable objects below one prefix. Keys are relative to the prefix, never begin with a slash.
///
/// Errors: `NotFound` (no such object or bucket), `Denied` (keys or rights), `Unavailable` (no answer, 5xx, 503, time-out;
/// may succeed later), `Corrupt` (a body of the wrong length or checksum), `NoSpace`, `ReadOnly`.
#[async_trait]
pub trait Store: Send + Sync + Debug + 'static {
    /// Exactly the bytes of `range`; `Corrupt` when the store gives fewer.
    async fn get(&self, key: &str, range: Range<u64>) -> Result<Bytes>;
    /// The parts, one after another, as one object. Atomic: readers see all or nothing. An existing object is replaced
    /// (keys are never used twice, so it is the same bytes).
    async fn put(&self, key: &str, parts: Vec<Bytes>) -> Result<()>;
    /// `NotFound` when absent.
    async fn head(&self, key: &str) -> Result<ObjectMeta>;
    /// Deletes all, in as few requests as the store allows (1,000 a request). An absent key is no error.
    async fn delete(&self, keys: Vec<String>) -> Result<()>;
    /// At most `max` objects whose key begins with `prefix` and sorts after `after`, in key order.
    async fn list(&self, prefix: &str, after: Option<&str>, max: usize) -> Result<Vec<ObjectMeta>>;
    /// For messages: `s3://bucket/prefix at http://host` or `file:///path`.
    fn describe(&self) -> String;
}
