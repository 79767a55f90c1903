//! Backups into the bucket by themselves, while a process has the metadata.

use std::sync::Arc;
use std::time::Duration;

use granary_core::Clock;
use granary_meta::Volume;
use granary_store::Store;

use super::bucket::{self, Written};
use crate::progress::Progress;

/// A process that has just started has other things to do.
const FIRST_WAIT: Duration = Duration::from_secs(60);
/// After a failure, at most.
const RETRY_WAIT: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    pub interval: Duration,
    pub keep: usize,
}

impl Schedule {
    /// How long to wait for the next one, when the newest was made at `newest_unix_ms` (`None`: there is none).
    fn wait(&self, now_unix_ms: u64, newest_unix_ms: Option<u64>) -> Duration {
        let age =
            newest_unix_ms.map_or(Duration::MAX, |at| Duration::from_millis(now_unix_ms.saturating_sub(at)));
        self.interval.saturating_sub(age).max(FIRST_WAIT.min(self.interval))
    }
}

/// Runs until it is dropped. What fails is logged once, and tried again.
pub async fn run(volume: Arc<Volume>, store: Arc<dyn Store>, clock: Arc<dyn Clock>, schedule: Schedule) {
    // The newest one tells when the next is due, so that starting often does not mean saving never.
    let known = bucket::list(&*store).await.unwrap_or_default();
    let newest = known.iter().rev().find(|b| b.complete).map(|b| b.unix_ms);
    let mut wait = schedule.wait(clock.now().unix_ms(), newest);
    let mut failing = false;
    loop {
        tokio::time::sleep(wait).await;
        let progress = Arc::new(Progress::default());
        let _wanted = progress.while_wanted();
        match bucket::write(&volume, &store, &*clock, schedule.keep, &progress).await {
            Ok(written) => {
                if let Written::New(m) = written {
                    tracing::info!(
                        records = m.records,
                        bytes = m.bytes,
                        "the metadata was saved in {}",
                        store.describe()
                    );
                }
                (wait, failing) = (schedule.interval, false);
            }
            Err(e) => {
                if !failing {
                    tracing::warn!("the metadata cannot be saved in {}, tried again: {e}", store.describe());
                }
                (wait, failing) = (schedule.interval.min(RETRY_WAIT), true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_is_due_an_interval_after_the_newest_but_never_at_once() {
        let s = |ms| Duration::from_millis(ms);
        let hourly = Schedule { interval: s(3_600_000), keep: 24 };
        assert_eq!(hourly.wait(10_000_000, None), FIRST_WAIT);
        assert_eq!(hourly.wait(10_000_000, Some(9_000_000)), s(2_600_000));
        assert_eq!(hourly.wait(10_000_000, Some(1)), FIRST_WAIT);
        assert_eq!(hourly.wait(10_000_000, Some(11_000_000)), s(3_600_000));
        assert_eq!(Schedule { interval: s(500), keep: 1 }.wait(10, None), s(500));
    }
}
