//! A store that fails as told, for tests: a wrapper over any store.
//!
//! A *script* says what the next requests of an operation meet, in order. When it is used up, *chances* decide by a seeded
//! generator: the same seed and the same order of requests meet the same faults.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::future::pending;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use granary_core::{Error, Kind, Result};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;

use crate::api::{ObjectMeta, PartsId, Store};
use crate::operation::Operation;

/// What a request meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It goes through.
    None,
    /// It fails and has no effect.
    Before(Kind),
    /// It has its effect, but the answer is lost.
    After(Kind),
    /// `Unavailable`, as a 503 SlowDown is.
    SlowDown,
    /// It waits until [`FaultStore::release`], then goes through.
    Delay,
    /// It never ends. The effect does not come either.
    Hang,
    /// GET: the last byte is missing from what is returned, against the contract. PUT, also of a part: it is missing from what is stored.
    /// Other operations: nothing.
    Short,
    /// GET: one byte in the middle of what is returned is wrong. PUT: of what is stored. Other operations: nothing.
    Flip,
}

#[derive(Debug)]
struct Plan {
    script: BTreeMap<Operation, VecDeque<(Fault, usize)>>,
    /// One in how many requests meets the fault.
    chances: BTreeMap<Operation, Vec<(Fault, u32)>>,
    random: SmallRng,
    calls: BTreeMap<Operation, usize>,
    faults: usize,
}

#[derive(Debug)]
pub struct FaultStore {
    inner: Arc<dyn Store>,
    /// Guards what is to happen; held to look at it, never across `.await`.
    plan: Mutex<Plan>,
    /// How often `release` was called.
    released: watch::Sender<u64>,
    /// Requests that wait for `release` or hang.
    held: watch::Sender<usize>,
}

impl FaultStore {
    /// Without script or chances everything goes through.
    pub fn new(inner: Arc<dyn Store>, seed: u64) -> FaultStore {
        FaultStore {
            inner,
            plan: Mutex::new(Plan {
                script: BTreeMap::new(),
                chances: BTreeMap::new(),
                random: SmallRng::seed_from_u64(seed),
                calls: BTreeMap::new(),
                faults: 0,
            }),
            released: watch::Sender::new(0),
            held: watch::Sender::new(0),
        }
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After what the script already says, the next `times` requests of this operation meet `fault`.
    pub fn script(&self, operation: Operation, fault: Fault, times: usize) {
        if times > 0 {
            self.plan().script.entry(operation).or_default().push_back((fault, times));
        }
    }

    /// From now on one in `one_in` requests of this operation meets `fault`, where the script says nothing.
    pub fn chance(&self, operation: Operation, fault: Fault, one_in: u32) {
        self.plan().chances.entry(operation).or_default().push((fault, one_in.max(1)));
    }

    /// Forgets script and chances: everything goes through. Requests that hang stay so.
    pub fn heal(&self) {
        let mut plan = self.plan();
        plan.script.clear();
        plan.chances.clear();
    }

    /// Lets all requests go on that wait now with [`Fault::Delay`].
    pub fn release(&self) {
        self.released.send_modify(|count| *count += 1);
    }

    /// Waits until at least `count` requests wait or hang.
    pub async fn until_held(&self, count: usize) {
        let mut held = self.held.subscribe();
        if held.wait_for(|&n| n >= count).await.is_err() {
            unreachable!("the sender is our own");
        }
    }

    /// Requests of this operation so far, failed ones too.
    pub fn calls(&self, operation: Operation) -> usize {
        self.plan().calls.get(&operation).copied().unwrap_or(0)
    }

    /// Faults met so far.
    pub fn faults(&self) -> usize {
        self.plan().faults
    }

    fn next(&self, operation: Operation) -> Fault {
        let mut plan = self.plan();
        *plan.calls.entry(operation).or_default() += 1;
        let fault = plan.next(operation);
        plan.faults += usize::from(fault != Fault::None);
        fault
    }

    async fn run<T>(
        &self,
        operation: Operation,
        fault: Fault,
        request: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        match fault {
            Fault::None | Fault::Short | Fault::Flip => request.await,
            Fault::Before(kind) => Err(self.error(kind, operation, "failed before it did anything")),
            Fault::SlowDown => {
                Err(self.error(Kind::Unavailable, operation, "was answered 503 SlowDown").with_slow_down())
            }
            Fault::After(kind) => {
                request.await?;
                Err(self.error(kind, operation, "was done, but its answer was lost"))
            }
            Fault::Delay => {
                let mut released = self.released.subscribe();
                released.mark_unchanged();
                let waiting = Held::new(&self.held);
                if released.changed().await.is_err() {
                    unreachable!("the sender is our own");
                }
                drop(waiting);
                request.await
            }
            Fault::Hang => {
                let _waiting = Held::new(&self.held);
                pending().await
            }
        }
    }

    fn error(&self, kind: Kind, operation: Operation, what: &str) -> Error {
        Error::new(kind, format!("{}: injected fault: {} {what}", self.inner.describe(), operation.as_str()))
    }
}

impl Plan {
    fn next(&mut self, operation: Operation) -> Fault {
        if let Some(script) = self.script.get_mut(&operation)
            && let Some((fault, times)) = script.front_mut()
        {
            let fault = *fault;
            *times -= 1;
            if *times == 0 {
                script.pop_front();
            }
            return fault;
        }
        for (fault, one_in) in self.chances.get(&operation).into_iter().flatten() {
            if self.random.random_range(0..*one_in) == 0 {
                return *fault;
            }
        }
        Fault::None
    }
}

struct Held<'a>(&'a watch::Sender<usize>);

impl<'a> Held<'a> {
    fn new(held: &'a watch::Sender<usize>) -> Held<'a> {
        held.send_modify(|n| *n += 1);
        Held(held)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n -= 1);
    }
}

/// Does to bytes what [`Fault::Short`] and [`Fault::Flip`] say.
fn damage(fault: Fault, bytes: Bytes) -> Bytes {
    match fault {
        Fault::Short => bytes.slice(..bytes.len().saturating_sub(1)),
        Fault::Flip if !bytes.is_empty() => {
            let mut copy = bytes.to_vec();
            let middle = copy.len() / 2;
            copy[middle] ^= 0x40;
            copy.into()
        }
        _ => bytes,
    }
}

#[async_trait]
impl Store for FaultStore {
    async fn get(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        let fault = self.next(Operation::Get);
        Ok(damage(fault, self.run(Operation::Get, fault, self.inner.get(key, range)).await?))
    }

    async fn put(&self, key: &str, mut parts: Vec<Bytes>) -> Result<()> {
        let fault = self.next(Operation::Put);
        if matches!(fault, Fault::Short | Fault::Flip) {
            parts = vec![damage(fault, parts.concat().into())];
        }
        self.run(Operation::Put, fault, self.inner.put(key, parts)).await
    }

    async fn head(&self, key: &str) -> Result<ObjectMeta> {
        let fault = self.next(Operation::Head);
        self.run(Operation::Head, fault, self.inner.head(key)).await
    }

    async fn delete(&self, keys: Vec<String>) -> Result<()> {
        let fault = self.next(Operation::Delete);
        self.run(Operation::Delete, fault, self.inner.delete(keys)).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, max: usize) -> Result<Vec<ObjectMeta>> {
        let fault = self.next(Operation::List);
        self.run(Operation::List, fault, self.inner.list(prefix, after, max)).await
    }

    async fn begin(&self, key: &str) -> Result<PartsId> {
        let fault = self.next(Operation::Begin);
        self.run(Operation::Begin, fault, self.inner.begin(key)).await
    }

    async fn put_part(&self, parts: &PartsId, number: u32, mut bytes: Vec<Bytes>) -> Result<String> {
        let fault = self.next(Operation::Part);
        if matches!(fault, Fault::Short | Fault::Flip) {
            bytes = vec![damage(fault, bytes.concat().into())];
        }
        self.run(Operation::Part, fault, self.inner.put_part(parts, number, bytes)).await
    }

    async fn finish(&self, parts: &PartsId, tags: Vec<String>) -> Result<()> {
        let fault = self.next(Operation::Finish);
        self.run(Operation::Finish, fault, self.inner.finish(parts, tags)).await
    }

    async fn abort(&self, parts: &PartsId) -> Result<()> {
        let fault = self.next(Operation::Abort);
        self.run(Operation::Abort, fault, self.inner.abort(parts)).await
    }

    fn gets_at_once(&self) -> Option<u32> {
        self.inner.gets_at_once()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}
