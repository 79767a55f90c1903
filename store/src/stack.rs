//! The store as production uses it: backend, then meter, then retry.
//!
//! ```text
//! caller -> RetryStore (tries again) -> MeterStore (counts every attempt, limits those in flight) -> backend
//! ```

use std::sync::Arc;

use granary_core::limits::Limits;
use granary_core::{Clock, Result};
use prometheus_client::registry::Registry;

use crate::api::Store;
use crate::backend::{self, Options};
use crate::meter::{MeterStore, Metrics};
use crate::retry::{RetryMetrics, RetryOptions, RetryStore, TokioSleep};

/// PUTs at once of the whole process, at least: `uploads_max` is each namespace's, and may be set for it.
const UPLOADS_MIN: u32 = 64;

/// Opens `url` with this process's environment; see [`open`](backend::open) for its errors.
pub fn production(
    url: &str,
    limits: &Limits,
    clock: Arc<dyn Clock>,
    registry: &mut Registry,
) -> Result<Arc<dyn Store>> {
    production_with(url, &Options::from_env(), limits, clock, registry)
}

/// The same with other options: `granary init` makes a missing folder.
pub fn production_with(
    url: &str,
    options: &Options,
    limits: &Limits,
    clock: Arc<dyn Clock>,
    registry: &mut Registry,
) -> Result<Arc<dyn Store>> {
    let options = Options {
        connect_ms_max: limits.store_connect_ms_max,
        first_byte_ms_max: limits.store_first_byte_ms_max,
        stall_ms_max: limits.store_stall_ms_max,
        ..options.clone()
    };
    let backend = backend::open(url, &options)?;
    Ok(stacked(backend, limits, clock, registry))
}

/// The wrappers around any backend.
pub fn stacked(
    backend: Arc<dyn Store>,
    limits: &Limits,
    clock: Arc<dyn Clock>,
    registry: &mut Registry,
) -> Arc<dyn Store> {
    let metrics = Metrics::register(registry);
    let uploads_max = limits.uploads_max.max(UPLOADS_MIN);
    let meter = MeterStore::new(backend, limits.fetches_max, uploads_max, clock.clone(), metrics);
    // Only spreads delays: processes that start in the same nanosecond still differ by their ids.
    let now = clock.now();
    let seed = (now.secs as u64) ^ (u64::from(now.nanos) << 32) ^ u64::from(std::process::id());
    Arc::new(RetryStore::new(
        Arc::new(meter),
        RetryOptions::new(limits.retry_ms_max),
        clock,
        Arc::new(TokioSleep),
        seed,
        RetryMetrics::register(registry),
    ))
}
