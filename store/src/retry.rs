//! Tries requests again that failed for a while: a wrapper over any store.
//!
//! Only what [`Kind::is_transient`](granary_core::Kind::is_transient) says may succeed later is tried again, after a delay that
//! doubles and is spread at random between zero and its bound ("full jitter": Marc Brooker, "Exponential Backoff And
//! Jitter", AWS Architecture Blog, 2015), until `retry_ms_max` after the first attempt. All requests of the process share a
//! budget of retries (the retry token bucket of the AWS SDKs, but a retry that finds none waits for the next instead of
//! failing), so that a store which comes back is not met by a storm.
//!
//! The log has one line when requests begin to fail and one when they succeed again.

mod backoff;
mod budget;
mod health;

#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use granary_core::{Clock, Error, Result};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::api::{ObjectMeta, PartsId, Store};

use backoff::Backoff;
use budget::Budget;
use health::{Health, Say};

/// Waits, handed in so that tests need not.
#[async_trait]
pub trait Sleep: Send + Sync + std::fmt::Debug + 'static {
    async fn sleep(&self, time: Duration);
}

/// The runtime's timer.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokioSleep;

#[async_trait]
impl Sleep for TokioSleep {
    async fn sleep(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

/// How often and how long. Plain values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryOptions {
    /// No attempt begins later than this after the first.
    pub total_ms_max: u64,
    /// Bound of the first delay; doubled each time.
    pub first_delay_ms: u64,
    /// Bound of any delay.
    pub delay_ms_max: u64,
    /// Retries that may come at once, of all requests together.
    pub burst: u32,
    /// Retries a second after that, of all requests together.
    pub per_second: f64,
}

impl RetryOptions {
    /// With `Limits::retry_ms_max`.
    pub fn new(total_ms_max: u64) -> RetryOptions {
        RetryOptions { total_ms_max, first_delay_ms: 50, delay_ms_max: 5_000, burst: 100, per_second: 20.0 }
    }
}

/// Counters that [`RetryStore`] moves.
#[derive(Clone, Debug, Default)]
pub struct RetryMetrics {
    /// Attempts after the first.
    pub retries: Counter,
    /// Requests that failed in the end, though trying longer might have helped.
    pub given_up: Counter,
}

impl RetryMetrics {
    pub fn register(registry: &mut Registry) -> RetryMetrics {
        let metrics = RetryMetrics::default();
        registry.register("granary_store_retries", "Requests tried again", metrics.retries.clone());
        registry.register(
            "granary_store_given_up",
            "Requests that still failed when their time was over",
            metrics.given_up.clone(),
        );
        metrics
    }
}

#[derive(Debug)]
pub struct RetryStore {
    inner: Arc<dyn Store>,
    options: RetryOptions,
    clock: Arc<dyn Clock>,
    sleep: Arc<dyn Sleep>,
    metrics: RetryMetrics,
    /// Guards what all requests share; held for a few additions, never across `.await`.
    shared: Mutex<Shared>,
}

#[derive(Debug)]
struct Shared {
    random: SmallRng,
    budget: Budget,
    health: Health,
}

impl RetryStore {
    /// `seed` decides the delays' spread.
    pub fn new(
        inner: Arc<dyn Store>,
        options: RetryOptions,
        clock: Arc<dyn Clock>,
        sleep: Arc<dyn Sleep>,
        seed: u64,
        metrics: RetryMetrics,
    ) -> RetryStore {
        let shared = Shared {
            random: SmallRng::seed_from_u64(seed),
            budget: Budget::new(options.burst, options.per_second),
            health: Health::default(),
        };
        RetryStore { inner, options, clock, sleep, metrics, shared: Mutex::new(shared) }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn retry<T, F: Future<Output = Result<T>>>(&self, mut attempt: impl FnMut() -> F) -> Result<T> {
        let start = self.clock.monotonic();
        let end = start + Duration::from_millis(self.options.total_ms_max);
        let mut backoff = Backoff::new(&self.options);
        let mut attempts = 0u32;
        loop {
            attempts += 1;
            let error = match attempt().await {
                Ok(value) => {
                    self.say(|health, now| health.succeeded(now), "");
                    return Ok(value);
                }
                Err(e) if e.kind().is_transient() => e,
                // The store answered: it is there.
                Err(e) => {
                    self.say(|health, now| health.succeeded(now), "");
                    return Err(e);
                }
            };
            self.say(|health, now| health.failed(now, attempts), &error);
            let Some(delay) = self.next_delay(&mut backoff, end) else {
                self.metrics.given_up.inc();
                return Err(self.give_up(error, attempts, start));
            };
            self.sleep.sleep(delay).await;
            self.metrics.retries.inc();
        }
    }

    /// How long to wait before the next attempt; `None` when it would begin too late.
    fn next_delay(&self, backoff: &mut Backoff, end: Duration) -> Option<Duration> {
        let now = self.clock.monotonic();
        let mut shared = self.shared();
        let delay = backoff.next(&mut shared.random);
        shared.budget.reserve(now, delay, end.checked_sub(now)?)
    }

    fn give_up(&self, error: Error, attempts: u32, start: Duration) -> Error {
        if attempts == 1 {
            return error;
        }
        let took = self.clock.monotonic().saturating_sub(start);
        error.context(format!("after {attempts} attempts in {:.1} s", took.as_secs_f64()))
    }

    fn say(&self, told: impl FnOnce(&mut Health, Duration) -> Option<Say>, error: impl std::fmt::Display) {
        let now = self.clock.monotonic();
        let say = told(&mut self.shared().health, now);
        match say {
            None => {}
            Some(Say::Failing) => tracing::warn!(
                "store {}: requests fail, and are tried again for up to {} s each: {error}",
                self.inner.describe(),
                self.options.total_ms_max.div_ceil(1000)
            ),
            Some(Say::Recovered { after, failures }) => tracing::info!(
                "store {}: requests succeed again after {:.1} s and {failures} failed attempts",
                self.inner.describe(),
                after.as_secs_f64()
            ),
        }
    }
}

#[async_trait]
impl Store for RetryStore {
    async fn get(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        self.retry(|| self.inner.get(key, range.clone())).await
    }

    async fn put(&self, key: &str, parts: Vec<Bytes>) -> Result<()> {
        self.retry(|| self.inner.put(key, parts.clone())).await
    }

    async fn head(&self, key: &str) -> Result<ObjectMeta> {
        self.retry(|| self.inner.head(key)).await
    }

    async fn delete(&self, keys: Vec<String>) -> Result<()> {
        self.retry(|| self.inner.delete(keys.clone())).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, max: usize) -> Result<Vec<ObjectMeta>> {
        self.retry(|| self.inner.list(prefix, after, max)).await
    }

    async fn begin(&self, key: &str) -> Result<PartsId> {
        self.retry(|| self.inner.begin(key)).await
    }

    async fn put_part(&self, parts: &PartsId, number: u32, bytes: Vec<Bytes>) -> Result<String> {
        self.retry(|| self.inner.put_part(parts, number, bytes.clone())).await
    }

    async fn finish(&self, parts: &PartsId, tags: Vec<String>) -> Result<()> {
        self.retry(|| self.inner.finish(parts, tags.clone())).await
    }

    async fn abort(&self, parts: &PartsId) -> Result<()> {
        self.retry(|| self.inner.abort(parts)).await
    }

    fn retries(&self) -> u64 {
        self.metrics.retries.get()
    }

    fn gets_at_once(&self) -> Option<u32> {
        self.inner.gets_at_once()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}
