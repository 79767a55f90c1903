//! What a failed request means to people: the errno goes to the program, and what a person should know to the log, once a
//! second per kind at most, with how many were left out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use granary_core::{Clock, Error, Kind};
use tracing::Level;

use super::metrics::Op;

/// One message of a kind per this many milliseconds.
const INTERVAL_MS: u64 = 1_000;
/// Kinds are numbered below this.
const KINDS: usize = 64;

#[derive(Debug)]
pub struct Reporter {
    namespace: String,
    clock: Arc<dyn Clock>,
    /// Per kind: when the last one was logged (milliseconds of the monotonic clock, plus one), and how many were left out.
    logged_ms: [AtomicU64; KINDS],
    left_out: [AtomicU64; KINDS],
}

impl Reporter {
    pub fn new(namespace: impl Into<String>, clock: Arc<dyn Clock>) -> Reporter {
        Reporter {
            namespace: namespace.into(),
            clock,
            logged_ms: std::array::from_fn(|_| AtomicU64::new(0)),
            left_out: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Logs what is worth it and returns what the program gets.
    pub fn report(&self, e: &Error, op: Op, ino: u64) -> i32 {
        if let Some(level) = e.kind().log_level()
            && let Some(left_out) = self.admit(e.kind())
        {
            let (namespace, op) = (self.namespace.as_str(), op.name());
            match level {
                Level::ERROR => {
                    tracing::error!(namespace, op, ino = format_args!("{ino:016x}"), left_out, "{e}")
                }
                _ => tracing::warn!(namespace, op, ino = format_args!("{ino:016x}"), left_out, "{e}"),
            }
        }
        e.errno()
    }

    /// Whether one of this kind may be logged now, and how many were not since the last.
    fn admit(&self, kind: Kind) -> Option<u64> {
        let i = kind as usize % KINDS;
        let now = self.clock.monotonic().as_millis() as u64 + 1;
        let last = self.logged_ms[i].load(Ordering::Relaxed);
        let due = last == 0 || now.saturating_sub(last) >= INTERVAL_MS;
        if due && self.logged_ms[i].compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            return Some(self.left_out[i].swap(0, Ordering::Relaxed));
        }
        self.left_out[i].fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use granary_core::TestClock;

    use super::*;

    #[test]
    fn one_a_second_per_kind_and_the_rest_is_counted() {
        let clock = Arc::new(TestClock::default());
        let r = Reporter::new("user/alice", clock.clone());
        assert_eq!(r.admit(Kind::Io), Some(0));
        assert_eq!(r.admit(Kind::Io), None);
        assert_eq!(r.admit(Kind::Corrupt), Some(0), "another kind");
        assert_eq!(r.admit(Kind::Io), None);
        clock.advance(Duration::from_secs(1));
        assert_eq!(r.admit(Kind::Io), Some(2));
    }

    #[test]
    fn the_program_gets_the_kinds_errno() {
        let r = Reporter::new("user/alice", Arc::new(TestClock::default()));
        for (kind, errno) in [(Kind::NotFound, 2), (Kind::QuotaExceeded, 122), (Kind::Corrupt, 5)] {
            assert_eq!(r.report(&Error::new(kind, "x"), Op::Read, 1), errno);
        }
    }
}
