//! The store as production uses it, from the caller down:
//!
//! | part | what it does |
//! |---|---|
//! | [`RetryStore`] | tries again what failed for a while; what waits for that takes no place |
//! | [`LimitStore`] | gives places, as many as the store bears |
//! | [`HedgeStore`] | asks again, beside the first, for what is late, if a place is free |
//! | [`MeterStore`] | counts every attempt |
//! | [`BalanceStore`] | with several endpoints: chooses one |
//! | backend | sends one request |

use std::sync::Arc;

use granary_core::limits::Limits;
use granary_core::{Clock, Result};
use prometheus_client::registry::Registry;

use crate::api::Store;
use crate::backend::{self, Options};
use crate::balance::{BalanceMetrics, BalanceStore};
use crate::hedge::{HedgeMetrics, HedgeOptions, HedgeStore};
use crate::limit::{GetPlaces, LimitMetrics, LimitStore};
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
    let mut endpoints = backend::open_each(url, &options)?;
    let backend = match endpoints.len() {
        1 => endpoints.remove(0).1,
        _ => {
            let metrics = BalanceMetrics::register(registry);
            Arc::new(BalanceStore::new(endpoints, clock.clone(), seed(&*clock), metrics))
        }
    };
    Ok(stacked(backend, limits, clock, registry))
}

/// Only spreads delays and choices: processes that start in the same nanosecond still differ by their ids.
fn seed(clock: &dyn Clock) -> u64 {
    let now = clock.now();
    (now.secs as u64) ^ (u64::from(now.nanos) << 32) ^ u64::from(std::process::id())
}

/// The wrappers around any backend.
pub fn stacked(
    backend: Arc<dyn Store>,
    limits: &Limits,
    clock: Arc<dyn Clock>,
    registry: &mut Registry,
) -> Arc<dyn Store> {
    let meter = MeterStore::new(backend, clock.clone(), Metrics::register(registry));
    let metrics = LimitMetrics::register(registry);
    let gets = GetPlaces::new(limits.fetches_max, clock.clone(), &metrics);
    let hedge = HedgeStore::new(
        Arc::new(meter),
        HedgeOptions::new(limits.hedge_percent_max),
        gets.clone(),
        clock.clone(),
        Arc::new(TokioSleep),
        HedgeMetrics::register(registry),
    );
    let uploads_max = limits.uploads_max.max(UPLOADS_MIN);
    let limit = LimitStore::new(Arc::new(hedge), gets, uploads_max, clock.clone(), metrics);
    Arc::new(RetryStore::new(
        Arc::new(limit),
        RetryOptions::new(limits.retry_ms_max),
        clock.clone(),
        Arc::new(TokioSleep),
        seed(&*clock),
        RetryMetrics::register(registry),
    ))
}
