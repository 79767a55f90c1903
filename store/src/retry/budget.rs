//! The retries that all requests together may send: a bucket of tokens that fills by the second.

use std::time::Duration;

#[derive(Debug)]
pub(super) struct Budget {
    /// Below zero: so many retries are waiting for theirs.
    tokens: f64,
    burst: f64,
    per_second: f64,
    /// When `tokens` was true.
    at: Duration,
}

impl Budget {
    pub fn new(burst: u32, per_second: f64) -> Budget {
        Budget { tokens: f64::from(burst), burst: f64::from(burst), per_second, at: Duration::ZERO }
    }

    /// Takes a token for a retry that wants to come in `delay`: how long to wait, at least `delay`, until the token is its
    /// own. `None`, and nothing is taken, when that is not less than `max`.
    pub fn reserve(&mut self, now: Duration, delay: Duration, max: Duration) -> Option<Duration> {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * self.per_second).min(self.burst);
        self.at = self.at.max(now);
        let lacking = (1.0 - self.tokens).max(0.0) / self.per_second;
        let wait = delay.max(Duration::try_from_secs_f64(lacking).unwrap_or(Duration::MAX));
        if wait >= max {
            return None;
        }
        self.tokens -= 1.0;
        Some(wait)
    }
}
