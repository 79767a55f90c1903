//! When a person should hear that the store fails, and when that it works again: not for every attempt.

use std::time::Duration;

/// After "works again" the next "fails" waits this long, so that a store which is up and down by the second fills no log.
const QUIET: Duration = Duration::from_secs(10);

/// A single failed attempt is no news: connections break. This many of one request are.
const ATTEMPTS: u32 = 2;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Say {
    Failing,
    Recovered { after: Duration, failures: u64 },
}

#[derive(Debug, Default)]
pub(super) struct Health {
    /// Since when it fails, when that was said.
    failing_since: Option<Duration>,
    recovered_at: Option<Duration>,
    failures: u64,
}

impl Health {
    /// `attempts` of one request have failed now.
    pub fn failed(&mut self, now: Duration, attempts: u32) -> Option<Say> {
        self.failures += 1;
        let quiet = self.recovered_at.is_some_and(|at| now.saturating_sub(at) < QUIET);
        if self.failing_since.is_some() || attempts < ATTEMPTS || quiet {
            return None;
        }
        self.failing_since = Some(now);
        Some(Say::Failing)
    }

    pub fn succeeded(&mut self, now: Duration) -> Option<Say> {
        let failures = std::mem::take(&mut self.failures);
        let since = self.failing_since.take()?;
        self.recovered_at = Some(now);
        Some(Say::Recovered { after: now.saturating_sub(since), failures })
    }
}
