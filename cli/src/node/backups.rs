//! Saving the metadata in the store, for the process that has it: a node on one machine, or the metadata service.

use std::sync::Arc;
use std::time::Duration;

use granary_core::Clock;
use granary_maintain::backup::schedule::{self, Schedule};
use granary_meta::Volume;
use granary_store::Store;
use tokio_util::sync::CancellationToken;

use crate::settings::BackupSettings;

/// Runs beside everything else until `stop`; a backup under way ends with it, and is written anew after the next start.
pub fn start(
    volume: Arc<Volume>,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    settings: BackupSettings,
    stop: &CancellationToken,
) {
    if settings.interval_ms == 0 {
        return;
    }
    let schedule = Schedule { interval: Duration::from_millis(settings.interval_ms), keep: settings.keep };
    let stop = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = schedule::run(volume, store, clock, schedule) => {}
            () = stop.cancelled() => {}
        }
    });
}
