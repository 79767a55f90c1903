//! Bounds the requests in flight: a wrapper over any store.
//!
//! GETs and PUTs have places each, as many as the store bears ([`policy`]) and at most as many as it was told; who finds none
//! waits, in order. It belongs below [`RetryStore`](crate::RetryStore), so that a request which waits to be tried again takes no place, and
//! above [`HedgeStore`](crate::HedgeStore), which takes another place for the second try, and only one that nobody waits for.
//!
//! | metric | labels | |
//! |---|---|---|
//! | `granary_store_waiting` | operation | not sent: as many as allowed are in flight |
//! | `granary_store_in_flight_limit` | operation (get, put) | how many are allowed now |

pub(crate) mod policy;

#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use granary_core::{Clock, Result};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::api::{ObjectMeta, PartsId, Store};
use crate::meter::{ByOperation, Counted};
use crate::operation::Operation;
use crate::size::SizeClass;

use policy::{End, Policy, Ticket};

/// HEAD, DELETE and LIST requests at once.
const OTHERS_MAX: usize = 8;

/// Places for requests of one kind, as many as the store bears.
#[derive(Debug)]
pub(crate) struct Limiter {
    clock: Arc<dyn Clock>,
    places: Semaphore,
    /// Guards the policy and how many places there are; held for a few additions (a sort of a round's latencies at its end), never
    /// across `.await`.
    state: Mutex<State>,
    gauge: Gauge<i64, AtomicI64>,
}

#[derive(Debug)]
struct State {
    policy: Policy,
    /// Places free or taken: more than the limit for a while after it fell.
    places: usize,
}

/// Of one request in flight; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    limiter: &'a Limiter,
    permit: Option<SemaphorePermit<'a>>,
    ticket: Ticket,
    begun: Duration,
    end: End,
}

impl Limiter {
    pub fn new(max: u32, clock: Arc<dyn Clock>, gauge: Gauge<i64, AtomicI64>) -> Limiter {
        let policy = Policy::new(max);
        let places = policy.limit();
        gauge.set(places as i64);
        Limiter { clock, places: Semaphore::new(places), state: Mutex::new(State { policy, places }), gauge }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Places in all, now.
    fn limit(&self) -> u32 {
        self.state().policy.limit() as u32
    }

    /// A place that is free now and nobody waits for.
    pub fn try_take(&self) -> Option<Place<'_>> {
        self.places.try_acquire().ok().map(|permit| self.place(permit))
    }

    /// Waits for a place.
    async fn take(&self) -> Place<'_> {
        self.state().policy.waits();
        match self.places.acquire().await {
            Ok(permit) => self.place(permit),
            Err(_) => unreachable!("the semaphore is never closed"),
        }
    }

    fn place<'a>(&'a self, permit: SemaphorePermit<'a>) -> Place<'a> {
        let ticket = self.state().policy.begin();
        let begun = self.clock.monotonic();
        Place { limiter: self, permit: Some(permit), ticket, begun, end: End::Other }
    }

    /// Makes as many places as are allowed now, or removes free ones.
    fn adjust(&self, state: &mut State) {
        let limit = state.policy.limit();
        if limit > state.places {
            self.places.add_permits(limit - state.places);
            state.places = limit;
        } else if limit < state.places {
            state.places -= self.places.forget_permits(state.places - limit);
        }
        self.gauge.set(limit as i64);
    }
}

impl Place<'_> {
    /// What came of the request of `bytes`, which ends now.
    pub fn ended<T>(mut self, bytes: u64, result: &Result<T>) {
        self.end = match result {
            // An empty range is not asked for.
            Ok(_) if bytes > 0 => End::Answered {
                class: SizeClass::of(bytes),
                latency: self.limiter.clock.monotonic().saturating_sub(self.begun),
            },
            Err(e) if e.asks_to_slow_down() => End::SlowDown,
            _ => End::Other,
        };
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let now = self.limiter.clock.monotonic();
        let mut state = self.limiter.state();
        state.policy.end(now, self.ticket, self.end);
        if state.places > state.policy.limit()
            && let Some(permit) = self.permit.take()
        {
            permit.forget();
            state.places -= 1;
        }
        self.limiter.adjust(&mut state);
    }
}

/// What [`LimitStore`] moves.
#[derive(Clone, Debug, Default)]
pub struct LimitMetrics {
    waiting: Family<ByOperation, Gauge<i64, AtomicI64>>,
    limit: Family<ByOperation, Gauge<i64, AtomicI64>>,
}

impl LimitMetrics {
    pub fn register(registry: &mut Registry) -> LimitMetrics {
        let metrics = LimitMetrics::default();
        registry.register(
            "granary_store_waiting",
            "Requests waiting until fewer are in flight",
            metrics.waiting.clone(),
        );
        registry.register(
            "granary_store_in_flight_limit",
            "Requests that may be in flight now, by what the store bears",
            metrics.limit.clone(),
        );
        metrics
    }
}

#[derive(Debug)]
pub struct LimitStore {
    inner: Arc<dyn Store>,
    metrics: LimitMetrics,
    gets: Arc<Limiter>,
    puts: Limiter,
    others: Semaphore,
}

/// The places for GETs, for a second request beside one that has no answer.
#[derive(Clone, Debug)]
pub struct GetPlaces(pub(crate) Arc<Limiter>);

impl GetPlaces {
    /// At most `max` at once.
    pub fn new(max: u32, clock: Arc<dyn Clock>, metrics: &LimitMetrics) -> GetPlaces {
        let gauge = metrics.limit.get_or_create_owned(&ByOperation { operation: Operation::Get });
        GetPlaces(Arc::new(Limiter::new(max, clock, gauge)))
    }
}

impl LimitStore {
    /// At most `puts_max` PUTs at once, and as many GETs as there are places; more wait, in order.
    pub fn new(
        inner: Arc<dyn Store>,
        gets: GetPlaces,
        puts_max: u32,
        clock: Arc<dyn Clock>,
        metrics: LimitMetrics,
    ) -> LimitStore {
        let gauge = metrics.limit.get_or_create_owned(&ByOperation { operation: Operation::Put });
        let puts = Limiter::new(puts_max, clock, gauge);
        LimitStore { inner, metrics, gets: gets.0, puts, others: Semaphore::new(OTHERS_MAX) }
    }

    async fn limited<T>(
        &self,
        operation: Operation,
        limiter: &Limiter,
        bytes: u64,
        request: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let place = match limiter.try_take() {
            Some(place) => place,
            None => {
                let _waiting = Counted::new(&self.metrics.waiting, operation);
                limiter.take().await
            }
        };
        let result = request.await;
        place.ended(bytes, &result);
        result
    }

    async fn other(&self, operation: Operation) -> SemaphorePermit<'_> {
        if let Ok(permit) = self.others.try_acquire() {
            return permit;
        }
        let _waiting = Counted::new(&self.metrics.waiting, operation);
        match self.others.acquire().await {
            Ok(permit) => permit,
            Err(_) => unreachable!("the semaphore is never closed"),
        }
    }
}

#[async_trait]
impl Store for LimitStore {
    async fn get(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        let bytes = range.end.saturating_sub(range.start);
        self.limited(Operation::Get, &self.gets, bytes, self.inner.get(key, range)).await
    }

    async fn put(&self, key: &str, parts: Vec<Bytes>) -> Result<()> {
        let bytes = parts.iter().map(|part| part.len() as u64).sum();
        self.limited(Operation::Put, &self.puts, bytes, self.inner.put(key, parts)).await
    }

    async fn head(&self, key: &str) -> Result<ObjectMeta> {
        let _place = self.other(Operation::Head).await;
        self.inner.head(key).await
    }

    async fn delete(&self, keys: Vec<String>) -> Result<()> {
        let _place = self.other(Operation::Delete).await;
        self.inner.delete(keys).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, max: usize) -> Result<Vec<ObjectMeta>> {
        let _place = self.other(Operation::List).await;
        self.inner.list(prefix, after, max).await
    }

    async fn begin(&self, key: &str) -> Result<PartsId> {
        let _place = self.other(Operation::Begin).await;
        self.inner.begin(key).await
    }

    async fn put_part(&self, parts: &PartsId, number: u32, bytes: Vec<Bytes>) -> Result<String> {
        let size = bytes.iter().map(|part| part.len() as u64).sum();
        self.limited(Operation::Part, &self.puts, size, self.inner.put_part(parts, number, bytes)).await
    }

    async fn finish(&self, parts: &PartsId, tags: Vec<String>) -> Result<()> {
        let _place = self.other(Operation::Finish).await;
        self.inner.finish(parts, tags).await
    }

    async fn abort(&self, parts: &PartsId) -> Result<()> {
        let _place = self.other(Operation::Abort).await;
        self.inner.abort(parts).await
    }

    fn gets_at_once(&self) -> Option<u32> {
        Some(self.gets.limit())
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}
