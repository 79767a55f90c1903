//! Asks a second time for what is late: a wrapper over any store.
//!
//! A GET that has no whole answer after the time in which 95 of 100 requests of its size have theirs is sent again, beside the first
//! ("hedged requests", Dean and Barroso, "The Tail at Scale", CACM 2013). The first good answer wins and the other request is
//! dropped, which closes its connection. A request that fails waits for the other one. Where it goes: HTTP/1.1 answers one
//! request after the other, so a connection whose answer is not complete takes no other request, and the second always has another
//! connection; with several endpoints it has another endpoint too ([`attempt`](crate::attempt)).
//!
//! It must not make an overloaded store worse: at most `percent_max` of 100 requests are sent twice (a token bucket), none for `quiet`
//! after the store asked to slow down, and none that would make another request wait for a place.
//!
//! | metric | labels | |
//! |---|---|---|
//! | `granary_store_hedges_total` | | sent a second time |
//! | `granary_store_hedges_won_total` | | of them, those whose second answer was taken |
//! | `granary_store_hedges_refused_total` | reason | late, but not sent again: `budget`, `slow_down`, `full` |
//! | `granary_store_stragglers_total` | | answered after more than three times the time after which a request is late, hedged or not |

mod policy;
mod times;

#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use granary_core::{Clock, Error, Result};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::api::{ObjectMeta, PartsId, Store};
use crate::attempt::Attempt;
use crate::limit::{GetPlaces, Place};
use crate::retry::Sleep;
use crate::size::SizeClass;

use policy::{Policy, Refusal};

/// How often and how soon. Plain values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HedgeOptions {
    /// Of 100 requests, so many may be sent twice; 0: none.
    pub percent_max: u64,
    /// Second requests that may come at once.
    pub burst: u32,
    /// No request is late before: a second one costs more than is won.
    pub late_min: Duration,
    /// No second request so long after the store asked to slow down.
    pub quiet: Duration,
}

impl HedgeOptions {
    /// With `Limits::hedge_percent_max`.
    pub fn new(percent_max: u64) -> HedgeOptions {
        HedgeOptions {
            percent_max,
            burst: 10,
            late_min: Duration::from_millis(10),
            quiet: Duration::from_secs(10),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: Refusal,
}

/// Counters that [`HedgeStore`] moves.
#[derive(Clone, Debug, Default)]
pub struct HedgeMetrics {
    pub sent: Counter,
    pub won: Counter,
    pub stragglers: Counter,
    refused: Family<ByReason, Counter>,
}

impl HedgeMetrics {
    pub fn register(registry: &mut Registry) -> HedgeMetrics {
        let metrics = HedgeMetrics::default();
        let HedgeMetrics { sent, won, stragglers, refused } = metrics.clone();
        registry.register("granary_store_hedges", "Late GETs sent a second time", sent);
        registry.register("granary_store_hedges_won", "GETs whose second answer came first", won);
        registry.register("granary_store_hedges_refused", "Late GETs not sent a second time", refused);
        registry.register(
            "granary_store_stragglers",
            "GETs that took three times as long as a late one",
            stragglers,
        );
        metrics
    }
}

#[derive(Debug)]
pub struct HedgeStore {
    inner: Arc<dyn Store>,
    places: GetPlaces,
    clock: Arc<dyn Clock>,
    sleep: Arc<dyn Sleep>,
    metrics: HedgeMetrics,
    /// Guards what is known of past requests; held to add up a histogram, never across `.await`. The places' lock is taken within.
    policy: Mutex<Policy>,
}

impl HedgeStore {
    /// A second request takes one of `places` while it is in flight; the first is the caller's to place.
    pub fn new(
        inner: Arc<dyn Store>,
        options: HedgeOptions,
        places: GetPlaces,
        clock: Arc<dyn Clock>,
        sleep: Arc<dyn Sleep>,
        metrics: HedgeMetrics,
    ) -> HedgeStore {
        HedgeStore { inner, places, clock, sleep, metrics, policy: Mutex::new(Policy::new(options)) }
    }

    fn policy(&self) -> MutexGuard<'_, Policy> {
        self.policy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn hedged(&self, key: &str, range: Range<u64>, late: Duration) -> Result<Bytes> {
        let attempt = Attempt::first();
        let second = attempt.second();
        let mut first = std::pin::pin!(attempt.run(self.inner.get(key, range.clone())));
        tokio::select! {
            biased;
            result = &mut first => return result,
            () = self.sleep.sleep(late) => {}
        }
        let Some(place) = self.place() else { return first.await };
        self.metrics.sent.inc();
        let bytes = range.end - range.start;
        let mut second = std::pin::pin!(second.run(self.inner.get(key, range)));
        tokio::select! {
            biased;
            result = &mut first => {
                let Err(e) = &result else { return result };
                self.failed(e);
                let other = second.await;
                self.ended(place, bytes, &other);
                other.or(result)
            }
            result = &mut second => {
                self.ended(place, bytes, &result);
                if result.is_ok() { result } else { first.await }
            }
        }
    }

    fn place(&self) -> Option<Place<'_>> {
        let now = self.clock.monotonic();
        let place = self.policy().late(now, || self.places.0.try_take());
        place.map_err(|reason| self.metrics.refused.get_or_create(&ByReason { reason }).inc()).ok()
    }

    /// The second request.
    fn ended(&self, place: Place<'_>, bytes: u64, result: &Result<Bytes>) {
        place.ended(bytes, result);
        match result {
            Ok(_) => {
                self.metrics.won.inc();
            }
            Err(e) => self.failed(e),
        }
    }

    fn failed(&self, e: &Error) {
        if e.asks_to_slow_down() {
            self.policy().slow_down(self.clock.monotonic());
        }
    }
}

#[async_trait]
impl Store for HedgeStore {
    async fn get(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        if range.is_empty() {
            return self.inner.get(key, range).await;
        }
        let class = SizeClass::of(range.end - range.start);
        let start = self.clock.monotonic();
        let late = self.policy().sent(class);
        let result = match late {
            Some(late) => self.hedged(key, range, late).await,
            None => self.inner.get(key, range).await,
        };
        let now = self.clock.monotonic();
        match &result {
            Ok(_) => {
                if self.policy().answered(class, now.saturating_sub(start), late) {
                    self.metrics.stragglers.inc();
                }
            }
            Err(e) => self.failed(e),
        }
        result
    }

    async fn put(&self, key: &str, parts: Vec<Bytes>) -> Result<()> {
        self.inner.put(key, parts).await.inspect_err(|e| self.failed(e))
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

    async fn begin(&self, key: &str) -> Result<PartsId> {
        self.inner.begin(key).await
    }

    async fn put_part(&self, parts: &PartsId, number: u32, bytes: Vec<Bytes>) -> Result<String> {
        self.inner.put_part(parts, number, bytes).await.inspect_err(|e| self.failed(e))
    }

    async fn finish(&self, parts: &PartsId, tags: Vec<String>) -> Result<()> {
        self.inner.finish(parts, tags).await
    }

    async fn abort(&self, parts: &PartsId) -> Result<()> {
        self.inner.abort(parts).await
    }

    fn gets_at_once(&self) -> Option<u32> {
        self.inner.gets_at_once()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}
