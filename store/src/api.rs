//! One narrow trait over S3 and local folders. Retry, metering and faults are wrappers over it.

use std::fmt::Debug;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use granary_core::{Error, Kind, Result, Timestamp};

/// What a listing tells of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectMeta {
    pub key: String,
    pub size: u64,
    pub modified: Timestamp,
}

/// An object that comes in parts, between [`Store::begin`] and [`Store::finish`] or [`Store::abort`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartsId {
    pub key: String,
    /// The store's own name for it.
    pub id: String,
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
    /// Begins an object that comes in parts: nobody sees anything of it before it is finished, and what is neither finished
    /// nor aborted takes room. `Unsupported` where objects are only put whole.
    async fn begin(&self, key: &str) -> Result<PartsId> {
        Err(whole_only(self.describe(), key))
    }
    /// Puts part `number`, from 0, of at least 5 MiB unless it is the last; put again, it is replaced. Answers with the tag that
    /// `finish` wants. `NotFound` when the object was finished or aborted.
    async fn put_part(&self, parts: &PartsId, _number: u32, _bytes: Vec<Bytes>) -> Result<String> {
        Err(whole_only(self.describe(), &parts.key))
    }
    /// Joins the parts, whose tags are given in the order of their numbers, to one object: as atomic as a put. `NotFound` when
    /// it was finished or aborted before.
    async fn finish(&self, parts: &PartsId, _tags: Vec<String>) -> Result<()> {
        Err(whole_only(self.describe(), &parts.key))
    }
    /// Drops what was put so far. No error when there is nothing.
    async fn abort(&self, parts: &PartsId) -> Result<()> {
        Err(whole_only(self.describe(), &parts.key))
    }
    /// How often a request was sent again because an attempt had failed; 0 where nobody counts.
    fn retries(&self) -> u64 {
        0
    }
    /// GETs that may be under way at once now, where that is limited; more wait, whoever waits for them.
    fn gets_at_once(&self) -> Option<u32> {
        None
    }
    /// For messages: `s3://bucket/prefix at http://host` or `file:///path`.
    fn describe(&self) -> String;
}

fn whole_only(store: String, key: &str) -> Error {
    Error::new(
        Kind::Unsupported,
        format!("{store} takes objects only as a whole: {key} cannot be put in parts"),
    )
}
