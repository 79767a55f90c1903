//! Counts and times requests: a wrapper over any store.
//!
//! | metric | labels | |
//! |---|---|---|
//! | `granary_store_requests_total` | operation, outcome | outcome: `ok` or the error's kind |
//! | `granary_store_bytes_total` | operation (get, put, part) | payload bytes of requests that succeeded |
//! | `granary_store_request_seconds` | operation | of one attempt |
//! | `granary_store_in_flight` | operation | sent, not ended |
//!
//! It belongs below [`RetryStore`](crate::RetryStore) and [`HedgeStore`](crate::HedgeStore): every attempt counts.

#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use async_trait::async_trait;
use bytes::Bytes;
use granary_core::{Clock, Kind, Result};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::api::{ObjectMeta, PartsId, Store};
use crate::operation::Operation;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByOperation {
    pub operation: Operation,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    operation: Operation,
    outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Outcome(Option<Kind>);

impl EncodeLabelValue for Outcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        match self.0 {
            None => EncodeLabelValue::encode(&"ok", encoder),
            Some(kind) => EncodeLabelValue::encode(&format!("{kind:?}").to_lowercase().as_str(), encoder),
        }
    }
}

/// What [`MeterStore`] moves.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: Family<ByOutcome, Counter>,
    bytes: Family<ByOperation, Counter>,
    seconds: Family<ByOperation, Histogram, fn() -> Histogram>,
    in_flight: Family<ByOperation, Gauge<i64, AtomicI64>>,
}

/// 0.5 ms to 33 s.
fn histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 2.0, 17))
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Metrics {
        let metrics = Metrics {
            requests: Family::default(),
            bytes: Family::default(),
            seconds: Family::new_with_constructor(histogram),
            in_flight: Family::default(),
        };
        registry.register("granary_store_requests", "Requests to the store", metrics.requests.clone());
        registry.register(
            "granary_store_bytes",
            "Bytes got from and put to the store",
            metrics.bytes.clone(),
        );
        registry.register(
            "granary_store_request_seconds",
            "Time a request to the store took",
            metrics.seconds.clone(),
        );
        registry.register(
            "granary_store_in_flight",
            "Requests the store has not answered",
            metrics.in_flight.clone(),
        );
        metrics
    }
}

#[derive(Debug)]
pub struct MeterStore {
    inner: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
}

impl MeterStore {
    pub fn new(inner: Arc<dyn Store>, clock: Arc<dyn Clock>, metrics: Metrics) -> MeterStore {
        MeterStore { inner, clock, metrics }
    }

    async fn measure<T>(
        &self,
        operation: Operation,
        request: impl Future<Output = Result<T>>,
        bytes: impl FnOnce(&T) -> u64,
    ) -> Result<T> {
        let _in_flight = Counted::new(&self.metrics.in_flight, operation);
        let start = self.clock.monotonic();
        let result = request.await;
        let seconds = self.clock.monotonic().saturating_sub(start).as_secs_f64();
        self.metrics.seconds.get_or_create(&ByOperation { operation }).observe(seconds);
        let outcome = Outcome(result.as_ref().err().map(|e| e.kind()));
        self.metrics.requests.get_or_create(&ByOutcome { operation, outcome }).inc();
        if let Ok(value) = &result
            && matches!(operation, Operation::Get | Operation::Put | Operation::Part)
        {
            self.metrics.bytes.get_or_create(&ByOperation { operation }).inc_by(bytes(value));
        }
        result
    }
}

/// One more in a gauge until it is dropped, also when the request's future is dropped before its end.
pub(crate) struct Counted(Gauge<i64, AtomicI64>);

impl Counted {
    pub fn new(family: &Family<ByOperation, Gauge<i64, AtomicI64>>, operation: Operation) -> Counted {
        let gauge = family.get_or_create_owned(&ByOperation { operation });
        gauge.inc();
        Counted(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[async_trait]
impl Store for MeterStore {
    async fn get(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        self.measure(Operation::Get, self.inner.get(key, range), |bytes| bytes.len() as u64).await
    }

    async fn put(&self, key: &str, parts: Vec<Bytes>) -> Result<()> {
        let len = parts.iter().map(|part| part.len() as u64).sum();
        self.measure(Operation::Put, self.inner.put(key, parts), |()| len).await
    }

    async fn head(&self, key: &str) -> Result<ObjectMeta> {
        self.measure(Operation::Head, self.inner.head(key), |_| 0).await
    }

    async fn delete(&self, keys: Vec<String>) -> Result<()> {
        self.measure(Operation::Delete, self.inner.delete(keys), |()| 0).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, max: usize) -> Result<Vec<ObjectMeta>> {
        self.measure(Operation::List, self.inner.list(prefix, after, max), |_| 0).await
    }

    async fn begin(&self, key: &str) -> Result<PartsId> {
        self.measure(Operation::Begin, self.inner.begin(key), |_| 0).await
    }

    async fn put_part(&self, parts: &PartsId, number: u32, bytes: Vec<Bytes>) -> Result<String> {
        let len = bytes.iter().map(|part| part.len() as u64).sum();
        self.measure(Operation::Part, self.inner.put_part(parts, number, bytes), |_| len).await
    }

    async fn finish(&self, parts: &PartsId, tags: Vec<String>) -> Result<()> {
        self.measure(Operation::Finish, self.inner.finish(parts, tags), |()| 0).await
    }

    async fn abort(&self, parts: &PartsId) -> Result<()> {
        self.measure(Operation::Abort, self.inner.abort(parts), |()| 0).await
    }

    fn gets_at_once(&self) -> Option<u32> {
        self.inner.gets_at_once()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}
