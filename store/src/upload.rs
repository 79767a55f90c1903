//! A large object that is put in parts, any part by any task, in any order, several at once.
//!
//! ```text
//! Upload::begin -> part(0..n) -> finish          or, whatever went wrong before, abort
//! ```
//!
//! Goes through the wrappers like any request: each part is tried again and waits for its place alone, so at most a part's bytes are
//! sent twice. An answer to `finish` that got lost is told from a failure by the object itself: the request that comes again finds
//! nothing to finish, and then an object of the right length is there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use granary_core::{Error, Kind, Result};

use crate::api::{PartsId, Store};

/// S3 takes so many parts of one object.
pub const PARTS_MAX: u32 = 10_000;
/// S3 takes no smaller part, but for an object's last, in bytes.
pub const PART_BYTES_MIN: u64 = 5 << 20;

/// One object under way.
#[derive(Debug)]
pub struct Upload {
    store: Arc<dyn Store>,
    parts: PartsId,
    /// Guards the tags and lengths of the parts that are put, by number; held to insert one, never across `.await`.
    done: Mutex<BTreeMap<u32, (String, u64)>>,
}

impl Upload {
    /// Errors: `Unsupported` where objects are only put whole; what the store says.
    pub async fn begin(store: Arc<dyn Store>, key: &str) -> Result<Upload> {
        let parts = store.begin(key).await?;
        Ok(Upload { store, parts, done: Mutex::default() })
    }

    /// Puts one part. Put again, it is replaced.
    ///
    /// Errors: what the store says; the upload may go on.
    pub async fn part(&self, number: u32, bytes: Vec<Bytes>) -> Result<()> {
        let len = bytes.iter().map(|part| part.len() as u64).sum();
        let tag = self.store.put_part(&self.parts, number, bytes).await?;
        self.done.lock().unwrap_or_else(PoisonError::into_inner).insert(number, (tag, len));
        Ok(())
    }

    /// Joins the parts. Afterwards the object is there as a whole.
    ///
    /// Errors: `Bug` when a part between others is missing; what the store says, then [`abort`](Upload::abort) it.
    pub async fn finish(&self) -> Result<()> {
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if !done.keys().copied().eq(0..done.len() as u32) {
            let message = format!("object {} was to be finished with a part missing", self.parts.key);
            return Err(Error::new(Kind::Bug, message));
        }
        let bytes: u64 = done.values().map(|(_, len)| len).sum();
        let tags = done.into_values().map(|(tag, _)| tag).collect();
        match self.store.finish(&self.parts, tags).await {
            Err(e) if e.kind() == Kind::NotFound => match self.store.head(&self.parts.key).await {
                Ok(object) if object.size == bytes => Ok(()),
                _ => Err(e),
            },
            other => other,
        }
    }

    /// Drops what was put. What cannot be dropped now stays in the store, unseen, and takes room there.
    pub async fn abort(&self) -> Result<()> {
        self.store.abort(&self.parts).await
    }
}

#[cfg(test)]
mod tests {
    use granary_core::TestClock;

    use super::*;
    use crate::retry::{RetryMetrics, RetryOptions, TokioSleep};
    use crate::{Fault, FaultStore, MemoryStore, Operation, RetryStore};

    struct World {
        memory: Arc<MemoryStore>,
        faults: Arc<FaultStore>,
        store: Arc<dyn Store>,
    }

    fn world() -> World {
        let memory = Arc::new(MemoryStore::default());
        let faults = Arc::new(FaultStore::new(memory.clone(), 1));
        let options = RetryOptions { first_delay_ms: 1, delay_ms_max: 1, ..RetryOptions::new(1_000) };
        let store = Arc::new(RetryStore::new(
            faults.clone(),
            options,
            Arc::new(TestClock::default()),
            Arc::new(TokioSleep),
            1,
            RetryMetrics::default(),
        ));
        World { memory, faults, store }
    }

    fn piece(byte: u8) -> Vec<Bytes> {
        vec![Bytes::from(vec![byte; 10]), Bytes::from(vec![byte + 100; 3])]
    }

    #[tokio::test(start_paused = true)]
    async fn parts_in_any_order_become_one_object_whatever_fails_meanwhile() {
        let w = world();
        for operation in [Operation::Begin, Operation::Part, Operation::Finish] {
            w.faults.script(operation, Fault::Before(Kind::Unavailable), 2);
        }
        let upload = Upload::begin(w.store.clone(), "a/b").await.unwrap();
        for number in [2, 0, 1] {
            upload.part(number, piece(number as u8)).await.unwrap();
        }
        upload.part(1, piece(1)).await.unwrap();
        assert_eq!(w.memory.count(), 0, "nobody sees it before it is whole");
        upload.finish().await.unwrap();
        let whole: Vec<u8> = (0..3).flat_map(|n| piece(n).concat()).collect();
        assert_eq!(w.memory.object("a/b").unwrap(), whole);
        assert_eq!((w.memory.begun_count(), w.faults.faults()), (0, 6));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_answer_to_the_last_request_is_no_failure() {
        let w = world();
        let upload = Upload::begin(w.store.clone(), "k").await.unwrap();
        upload.part(0, piece(0)).await.unwrap();
        w.faults.script(Operation::Finish, Fault::After(Kind::Unavailable), 1);
        upload.finish().await.unwrap();
        assert_eq!(w.memory.count(), 1);
        assert_eq!(w.faults.calls(Operation::Finish), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_for_good_is_aborted_and_leaves_nothing() {
        let w = world();
        let upload = Upload::begin(w.store.clone(), "k").await.unwrap();
        upload.part(0, piece(0)).await.unwrap();
        w.faults.script(Operation::Part, Fault::Before(Kind::NoSpace), 1);
        assert_eq!(upload.part(1, piece(1)).await.unwrap_err().kind(), Kind::NoSpace);
        upload.part(2, piece(2)).await.unwrap();
        assert_eq!(upload.finish().await.unwrap_err().kind(), Kind::Bug, "a part is missing");
        upload.abort().await.unwrap();
        upload.abort().await.unwrap();
        assert_eq!((w.memory.count(), w.memory.begun_count()), (0, 0));
        assert_eq!(upload.part(1, piece(1)).await.unwrap_err().kind(), Kind::NotFound);
    }
}
