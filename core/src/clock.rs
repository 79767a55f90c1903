//! Time, handed in: production has [`SystemClock`], tests a [`TestClock`] that moves when told.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Wall-clock time as a file's times are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp {
    /// Seconds since 1970-01-01, may be negative.
    pub secs: i64,
    /// 0..1_000_000_000
    pub nanos: u32,
}

impl Timestamp {
    pub fn unix_ms(self) -> u64 {
        (self.secs.max(0) as u64) * 1000 + u64::from(self.nanos / 1_000_000)
    }
}

pub trait Clock: Send + Sync + Debug + 'static {
    /// Wall-clock time.
    fn now(&self) -> Timestamp;
    /// Time since some fixed moment, never going back.
    fn monotonic(&self) -> Duration;
}

#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods)] // the one place that asks the system
    fn now(&self) -> Timestamp {
        match std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
            Ok(d) => Timestamp { secs: d.as_secs() as i64, nanos: d.subsec_nanos() },
            Err(e) => {
                let d = e.duration();
                let carry = i64::from(d.subsec_nanos() > 0);
                Timestamp {
                    secs: -(d.as_secs() as i64) - carry,
                    nanos: (1_000_000_000 - d.subsec_nanos()) % 1_000_000_000,
                }
            }
        }
    }

    #[allow(clippy::disallowed_methods)]
    fn monotonic(&self) -> Duration {
        static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
        START.get_or_init(std::time::Instant::now).elapsed()
    }
}

/// A clock for tests: starts at 1,000,000 s after 1970 and moves by [`TestClock::advance`] only.
#[derive(Debug, Default)]
pub struct TestClock {
    elapsed_ns: AtomicU64,
}

impl TestClock {
    pub fn advance(&self, by: Duration) {
        self.elapsed_ns.fetch_add(by.as_nanos() as u64, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        let ns = self.elapsed_ns.load(Ordering::SeqCst);
        Timestamp { secs: 1_000_000 + (ns / 1_000_000_000) as i64, nanos: (ns % 1_000_000_000) as u32 }
    }

    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.elapsed_ns.load(Ordering::SeqCst))
    }
}
