//! How fast a namespace drains: bytes a second over the last uploads, counting only time in which something was uploaded.
//! Decides only.

use std::collections::VecDeque;
use std::time::Duration;

/// Uploads that ended within this time count, and the last [`COUNTED_MIN`] in any case: a slow link ends few.
const WINDOW: Duration = Duration::from_secs(10);
const COUNTED_MIN: usize = 4;
/// After this long without uploads, what was measured says nothing about the next.
const IDLE_MAX: Duration = Duration::from_secs(5);
/// Of a burst of small uploads not each is kept; a rate is made of times this long at least.
const SPAN_MIN: Duration = Duration::from_millis(10);
/// Uploads that are kept, whatever the window.
const COUNTED_MAX: usize = 1024;

#[derive(Debug, Default)]
pub(crate) struct Rate {
    /// When each counted upload ended, and its bytes.
    ended: VecDeque<(Duration, u64)>,
    /// The beginning of the time in which they were uploaded.
    since: Duration,
    running: u32,
    /// When the last one ended that ran alone.
    idle_since: Option<Duration>,
}

impl Rate {
    pub fn begin(&mut self, now: Duration) {
        self.running += 1;
        if self.running > 1 {
            return;
        }
        match self.idle_since.take() {
            Some(idle_since) if now.saturating_sub(idle_since) <= IDLE_MAX => {
                // The pause does not count.
                let pause = now.saturating_sub(idle_since);
                self.since += pause;
                self.ended.iter_mut().for_each(|(at, _)| *at += pause);
            }
            _ => {
                self.ended.clear();
                self.since = now;
            }
        }
    }

    /// An upload ended, of so many bytes; 0 when it failed.
    pub fn end(&mut self, bytes: u64, now: Duration) {
        self.running = self.running.saturating_sub(1);
        if self.running == 0 {
            self.idle_since = Some(now);
        }
        if bytes > 0 {
            self.ended.push_back((now, bytes));
        }
        while self.ended.len() > COUNTED_MIN
            && let Some(&(first, _)) = self.ended.front()
            && (now.saturating_sub(first) > WINDOW || self.ended.len() > COUNTED_MAX)
        {
            self.ended.pop_front();
            self.since = first;
        }
    }

    pub fn is_running(&self) -> bool {
        self.running > 0
    }

    /// `None`: nothing drains, or nothing has ended yet.
    pub fn bytes_per_s(&self, now: Duration) -> Option<u64> {
        let until = match self.idle_since {
            Some(since) if self.running == 0 => {
                if now.saturating_sub(since) > IDLE_MAX {
                    return None;
                }
                since
            }
            _ => now,
        };
        if self.ended.is_empty() {
            return None;
        }
        let bytes: u64 = self.ended.iter().map(|(_, bytes)| bytes).sum();
        let span = until.saturating_sub(self.since).max(SPAN_MIN);
        Some((bytes as f64 / span.as_secs_f64()) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn s(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn only_time_of_uploads_counts() {
        let mut rate = Rate::default();
        assert_eq!(rate.bytes_per_s(s(1)), None);
        rate.begin(s(100));
        assert_eq!(rate.bytes_per_s(s(101)), None, "nothing has ended");
        rate.end(1000, s(102));
        assert_eq!(rate.bytes_per_s(s(104)), Some(500), "while it pauses");
        rate.begin(s(106));
        rate.end(1000, s(108));
        assert_eq!(rate.bytes_per_s(s(108)), Some(500), "the pause does not count");
        assert_eq!(rate.bytes_per_s(s(114)), None, "nothing drains");
        rate.begin(s(114));
        rate.end(0, s(200));
        assert_eq!(rate.bytes_per_s(s(200)), None, "failures move nothing");
    }

    #[test]
    fn a_store_that_stops_answering_shows() {
        let mut rate = Rate::default();
        rate.begin(s(0));
        rate.begin(s(0));
        rate.end(1000, s(1));
        assert_eq!(rate.bytes_per_s(s(1)), Some(1000));
        assert_eq!(rate.bytes_per_s(s(100)), Some(10));
    }

    proptest! {
        /// Uploads one after another at any steady speed are measured within a tenth, few and slow or many and fast.
        #[test]
        fn a_steady_rate_is_measured(bytes in 1_000u64..20_000_000, ms in 1u64..60_000, pauses in prop::collection::vec(0u64..4_000, 20..40)) {
            let (mut rate, mut now) = (Rate::default(), s(5));
            for pause in pauses {
                now += Duration::from_millis(pause);
                rate.begin(now);
                now += Duration::from_millis(ms);
                rate.end(bytes, now);
            }
            let (expected, measured) = (bytes as f64 * 1000.0 / ms as f64, rate.bytes_per_s(now).unwrap_or(0) as f64);
            prop_assert!((measured - expected).abs() <= expected / 10.0 + 1.0, "{measured} for {expected}");
        }
    }
}
