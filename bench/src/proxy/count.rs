//! What went through: requests by method, and bytes of bodies.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use hyper::Method;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use serde::Serialize;

/// Of one method. Bytes are of bodies, as they came; headers are not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    pub requests: u64,
    /// From the client to the store.
    pub sent_bytes: u64,
    /// From the store to the client.
    pub received_bytes: u64,
    pub stalled: u64,
}

#[derive(Debug, Default)]
pub struct Counter {
    requests: AtomicU64,
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
    stalled: AtomicU64,
}

/// Which way a body goes.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    Sent,
    Received,
}

impl Counter {
    pub fn request(&self, stalled: bool) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.stalled.fetch_add(u64::from(stalled), Ordering::Relaxed);
    }

    fn bytes(&self, way: Way, count: usize) {
        let counter = match way {
            Way::Sent => &self.sent_bytes,
            Way::Received => &self.received_bytes,
        };
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }

    fn totals(&self) -> Totals {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Totals {
            requests: get(&self.requests),
            sent_bytes: get(&self.sent_bytes),
            received_bytes: get(&self.received_bytes),
            stalled: get(&self.stalled),
        }
    }
}

/// A counter for each method.
#[derive(Debug, Default)]
pub struct Counts {
    /// The lock is for the map alone; who counts has the counter. Not more methods than this: others share one.
    methods: Mutex<BTreeMap<String, Arc<Counter>>>,
    next: AtomicU64,
}

const METHODS_MAX: usize = 16;
const OTHERS: &str = "others";

impl Counts {
    /// A number for each request, in the order of their coming.
    pub fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub fn of(&self, method: &Method) -> Arc<Counter> {
        let mut methods = self.methods.lock().unwrap_or_else(PoisonError::into_inner);
        let full = methods.len() >= METHODS_MAX && !methods.contains_key(method.as_str());
        methods.entry(if full { OTHERS } else { method.as_str() }.to_owned()).or_default().clone()
    }

    pub fn by_method(&self) -> BTreeMap<String, Totals> {
        let methods = self.methods.lock().unwrap_or_else(PoisonError::into_inner);
        methods.iter().map(|(method, counter)| (method.clone(), counter.totals())).collect()
    }

    pub fn totals(&self) -> Totals {
        self.by_method().values().fold(Totals::default(), |sum, one| Totals {
            requests: sum.requests + one.requests,
            sent_bytes: sum.sent_bytes + one.sent_bytes,
            received_bytes: sum.received_bytes + one.received_bytes,
            stalled: sum.stalled + one.stalled,
        })
    }
}

/// A body that is counted on its way.
#[derive(Debug)]
pub struct Counted {
    inner: Incoming,
    counter: Arc<Counter>,
    way: Way,
}

impl Counted {
    pub fn new(inner: Incoming, counter: Arc<Counter>, way: Way) -> Self {
        Counted { inner, counter, way }
    }
}

impl Body for Counted {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(data) = frame.as_ref().and_then(|f| f.as_ref().ok()?.data_ref()) {
            self.counter.bytes(self.way, data.len());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
