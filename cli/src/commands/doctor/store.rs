//! The store: may these keys do what a volume needs, how long does it take, and does its clock agree with ours.

use std::sync::Arc;

use granary_core::{Clock, SystemClock};
use granary_store::Store;
use prometheus_client::registry::Registry;

use super::{Finding, clock};
use crate::client::block_on;
use crate::exit::Outcome;
use crate::settings::Settings;
use crate::units::show_period_ms;
use crate::volume;

/// A store that does not answer is tried this long: a person waits.
const RETRY_MS: u64 = 5_000;
/// Slower than this, writes in the background are fine, and reads of what is not cached are not.
const SLOW_MS: u64 = 200;

pub fn look(settings: &Settings, url: &str) -> Vec<Finding> {
    block_on(try_all(settings, url)).unwrap_or_else(|failure| vec![Finding::failed("store", &failure)])
}

async fn try_all(settings: &Settings, url: &str) -> Outcome<Vec<Finding>> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut settings = settings.clone();
    if !settings.is_given("retry_ms_max") {
        settings.limits.retry_ms_max = RETRY_MS;
    }
    let store = volume::store(url, &settings, clock.clone(), &mut Registry::default())?;
    granary_store::probe(&*store, &*clock).await?;
    let seen = clock::compare(&*store, &*clock).await?;
    Ok(vec![judge(&*store, seen.round_trip_ms), clock::judge(seen)])
}

fn judge(store: &dyn Store, round_trip_ms: u64) -> Finding {
    let found = format!(
        "{} takes, gives, lists and deletes; a small object is written in {}",
        store.describe(),
        show_period_ms(round_trip_ms)
    );
    match round_trip_ms {
        0..SLOW_MS => Finding::good("store", found),
        _ => Finding::lacking(
            "store",
            found,
            "what is not cached reads slowly: look at the network and the store's load",
        ),
    }
}
