//! Spreads requests over several endpoints of one store by load and health: a wrapper over as many stores.
//!
//! All lead to the same bucket, so any may answer anything. A request goes to one endpoint ([`policy`]); when that fails, trying again
//! is [`RetryStore`](crate::RetryStore)'s business, and goes elsewhere because an endpoint that failed is left out for a while.
//!
//! | metric | labels | |
//! |---|---|---|
//! | `granary_store_endpoint_requests_total` | endpoint, outcome | `answered`, `failed` (no answer, or 5xx), `dropped` (nobody waited) |
//! | `granary_store_endpoint_in_flight` | endpoint | |
//! | `granary_store_endpoint_up` | endpoint | 1: gets requests; 0: left out |

mod policy;

#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use granary_core::{Clock, Kind, Result};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::api::{ObjectMeta, PartsId, Store};
use crate::attempt;
use crate::operation::Operation;
use crate::size::SizeClass;

use policy::{End, News, Policy};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByEndpoint {
    endpoint: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    endpoint: String,
    outcome: &'static str,
}

/// What [`BalanceStore`] moves.
#[derive(Clone, Debug, Default)]
pub struct BalanceMetrics {
    requests: Family<ByOutcome, Counter>,
    in_flight: Family<ByEndpoint, Gauge<i64, AtomicI64>>,
    up: Family<ByEndpoint, Gauge<i64, AtomicI64>>,
}

impl BalanceMetrics {
    pub fn register(registry: &mut Registry) -> BalanceMetrics {
        let metrics = BalanceMetrics::default();
        let BalanceMetrics { requests, in_flight, up } = metrics.clone();
        registry.register("granary_store_endpoint_requests", "Requests to each endpoint", requests);
        registry.register(
            "granary_store_endpoint_in_flight",
            "Requests an endpoint has not answered",
            in_flight,
        );
        registry.register("granary_store_endpoint_up", "Whether an endpoint gets requests", up);
        metrics
    }
}

#[derive(Debug)]
struct Endpoint {
    name: String,
    store: Arc<dyn Store>,
    in_flight: Gauge<i64, AtomicI64>,
    up: Gauge<i64, AtomicI64>,
}

#[derive(Debug)]
pub struct BalanceStore {
    endpoints: Vec<Endpoint>,
    clock: Arc<dyn Clock>,
    metrics: BalanceMetrics,
    /// Guards what is known of the endpoints; held for a few comparisons, never across `.await`.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    policy: Policy,
    random: SmallRng,
}

/// A request under way; an end without a result is one that nobody waited for.
struct Sent<'a> {
    balance: &'a BalanceStore,
    picked: usize,
    kind: (Operation, SizeClass),
    begun: Duration,
    end: End,
    error: Option<String>,
}

impl BalanceStore {
    /// `seed` decides between endpoints that are alike.
    pub fn new(
        endpoints: Vec<(String, Arc<dyn Store>)>,
        clock: Arc<dyn Clock>,
        seed: u64,
        metrics: BalanceMetrics,
    ) -> BalanceStore {
        let policy = Policy::new(endpoints.len());
        let endpoints = endpoints.into_iter().map(|(name, store)| {
            let label = ByEndpoint { endpoint: name.clone() };
            let (in_flight, up) =
                (metrics.in_flight.get_or_create_owned(&label), metrics.up.get_or_create_owned(&label));
            up.set(1);
            Endpoint { name, store, in_flight, up }
        });
        let endpoints = endpoints.collect();
        let state = Mutex::new(State { policy, random: SmallRng::seed_from_u64(seed) });
        BalanceStore { endpoints, clock, metrics, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send<T, F: Future<Output = Result<T>>>(
        &self,
        operation: Operation,
        bytes: u64,
        request: impl FnOnce(Arc<dyn Store>) -> F,
    ) -> Result<T> {
        let mut sent = self.pick((operation, SizeClass::of(bytes)));
        let result = request(self.endpoints[sent.picked].store.clone()).await;
        sent.end = match &result {
            Err(e) if e.kind() == Kind::Unavailable => {
                sent.error = Some(e.to_string());
                End::Failed
            }
            _ => End::Answered,
        };
        result
    }

    fn pick(&self, kind: (Operation, SizeClass)) -> Sent<'_> {
        let begun = self.clock.monotonic();
        let picked = {
            let State { policy, random } = &mut *self.state();
            policy.pick(begun, attempt::avoided(), random)
        };
        attempt::took(picked);
        self.endpoints[picked].in_flight.inc();
        Sent { balance: self, picked, kind, begun, end: End::Dropped, error: None }
    }

    fn say(&self, endpoint: &Endpoint, news: Option<News>, error: Option<&str>) {
        match news {
            None => {}
            Some(News::Gone) => tracing::warn!(
                "store endpoint {} fails and is left out, but for a request now and then: {}",
                endpoint.name,
                error.unwrap_or("no reason")
            ),
            Some(News::Back) => tracing::info!("store endpoint {} works again", endpoint.name),
        }
    }
}

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        let endpoint = &self.balance.endpoints[self.picked];
        let now = self.balance.clock.monotonic();
        let (news, is_well) = {
            let policy = &mut self.balance.state().policy;
            let took = now.saturating_sub(self.begun);
            let news = policy.ended(now, self.picked, self.kind, took, self.end);
            (news, policy.is_well(self.picked))
        };
        endpoint.in_flight.dec();
        endpoint.up.set(i64::from(is_well));
        let outcome = match self.end {
            End::Answered => "answered",
            End::Failed => "failed",
            End::Dropped => "dropped",
        };
        let label = ByOutcome { endpoint: endpoint.name.clone(), outcome };
        self.balance.metrics.requests.get_or_create(&label).inc();
        self.balance.say(endpoint, news, self.error.as_deref());
    }
}

#[async_trait]
impl Store for BalanceStore {
    async fn get(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        if range.is_empty() {
            // Answered without asking anybody.
            return self.endpoints[0].store.get(key, range).await;
        }
        let bytes = range.end - range.start;
        self.send(Operation::Get, bytes, |store| async move { store.get(key, range).await }).await
    }

    async fn put(&self, key: &str, parts: Vec<Bytes>) -> Result<()> {
        let bytes = parts.iter().map(|part| part.len() as u64).sum();
        self.send(Operation::Put, bytes, |store| async move { store.put(key, parts).await }).await
    }

    async fn head(&self, key: &str) -> Result<ObjectMeta> {
        self.send(Operation::Head, 0, |store| async move { store.head(key).await }).await
    }

    async fn delete(&self, keys: Vec<String>) -> Result<()> {
        let size = keys.len() as u64;
        self.send(Operation::Delete, size, |store| async move { store.delete(keys).await }).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, max: usize) -> Result<Vec<ObjectMeta>> {
        self.send(Operation::List, max as u64, |store| async move { store.list(prefix, after, max).await })
            .await
    }

    // Endpoints are servers of one store, so what one began another goes on with.
    async fn begin(&self, key: &str) -> Result<PartsId> {
        self.send(Operation::Begin, 0, |store| async move { store.begin(key).await }).await
    }

    async fn put_part(&self, parts: &PartsId, number: u32, bytes: Vec<Bytes>) -> Result<String> {
        let size = bytes.iter().map(|part| part.len() as u64).sum();
        self.send(Operation::Part, size, |store| async move { store.put_part(parts, number, bytes).await })
            .await
    }

    async fn finish(&self, parts: &PartsId, tags: Vec<String>) -> Result<()> {
        self.send(Operation::Finish, 0, |store| async move { store.finish(parts, tags).await }).await
    }

    async fn abort(&self, parts: &PartsId) -> Result<()> {
        self.send(Operation::Abort, 0, |store| async move { store.abort(parts).await }).await
    }

    /// The first endpoint's description, and the names of the others.
    fn describe(&self) -> String {
        let others = self.endpoints[1..].iter().map(|endpoint| format!(", {}", endpoint.name));
        self.endpoints[0].store.describe() + &others.collect::<String>()
    }
}
