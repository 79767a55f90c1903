//! Who may come in: connections and refused tokens are counted by address.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use granary_core::Clock;

use super::ServeLimits;

/// Addresses whose refusals are remembered.
const ADDRESSES_MAX: usize = 16_384;
/// Tokens remembered as good.
const GOOD_MAX: usize = 16_384;
/// Refusals at once, in seconds of the rate.
const BURST_SECONDS: u32 = 10;
/// Malformed messages are logged this often.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Lets so many things happen a second, and some at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    /// Thousandths of what is left.
    left_milli: u64,
    at: Duration,
}

impl Bucket {
    pub fn full(max: u64, now: Duration) -> Bucket {
        Bucket { left_milli: max * 1000, at: now }
    }

    fn fill(&mut self, per_second: u64, max: u64, now: Duration) {
        let gained = (now.saturating_sub(self.at).as_millis() as u64).saturating_mul(per_second);
        if gained > 0 {
            self.left_milli = self.left_milli.saturating_add(gained).min(max * 1000);
            self.at = now;
        }
    }

    /// Takes one, if there is one.
    pub fn take(&mut self, per_second: u64, max: u64, now: Duration) -> bool {
        self.fill(per_second, max, now);
        let there = self.left_milli >= 1000;
        self.left_milli -= if there { 1000 } else { 0 };
        there
    }

    fn is_empty(&mut self, per_second: u64, max: u64, now: Duration) -> bool {
        self.fill(per_second, max, now);
        self.left_milli < 1000
    }
}

#[derive(Debug)]
pub(super) struct Gate {
    limits: ServeLimits,
    clock: Arc<dyn Clock>,
    hasher: RandomState,
    /// Held for a few instructions.
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    connections: usize,
    by_address: HashMap<IpAddr, usize>,
    refusals: HashMap<IpAddr, Bucket>,
    good: HashSet<u64>,
    good_order: VecDeque<u64>,
    log_at: Option<Duration>,
    not_logged: u64,
}

/// One connection that was let in, until it ends.
#[derive(Debug)]
pub(super) struct Pass {
    gate: Arc<Gate>,
    address: IpAddr,
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut inner = self.gate.inner();
        inner.connections -= 1;
        if let Some(count) = inner.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                inner.by_address.remove(&self.address);
            }
        }
    }
}

impl Gate {
    pub fn new(limits: ServeLimits, clock: Arc<dyn Clock>) -> Arc<Gate> {
        Arc::new(Gate { limits, clock, hasher: RandomState::new(), inner: Mutex::default() })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a connection in, if there is room.
    pub fn enter(self: &Arc<Gate>, address: IpAddr) -> Option<Pass> {
        let mut inner = self.inner();
        let here = inner.by_address.get(&address).copied().unwrap_or(0);
        if inner.connections >= self.limits.connections_max || here >= self.limits.connections_per_address_max
        {
            return None;
        }
        inner.connections += 1;
        inner.by_address.insert(address, here + 1);
        Some(Pass { gate: self.clone(), address })
    }

    fn rate(&self) -> (u64, u64) {
        let per_second = u64::from(self.limits.refusals_per_second_max);
        (per_second, per_second * u64::from(BURST_SECONDS))
    }

    /// Whether a token of this address is worth a look: it was good before, or not too many were bad. So who shows bad ones
    /// does not keep others of the same address out.
    pub fn may_try(&self, address: IpAddr, token: &str) -> bool {
        let hash = self.hasher.hash_one(token);
        let (per_second, max) = self.rate();
        let now = self.clock.monotonic();
        let mut inner = self.inner();
        inner.good.contains(&hash)
            || !inner.refusals.get_mut(&address).is_some_and(|bucket| bucket.is_empty(per_second, max, now))
    }

    pub fn accepted(&self, token: &str) {
        let hash = self.hasher.hash_one(token);
        let mut inner = self.inner();
        if inner.good.insert(hash) {
            inner.good_order.push_back(hash);
            if inner.good_order.len() > GOOD_MAX
                && let Some(oldest) = inner.good_order.pop_front()
            {
                inner.good.remove(&oldest);
            }
        }
    }

    /// A token was refused. Whether that is worth a line in the log.
    pub fn refused(&self, address: IpAddr) -> bool {
        let (per_second, max) = self.rate();
        let now = self.clock.monotonic();
        let mut inner = self.inner();
        if inner.refusals.len() >= ADDRESSES_MAX && !inner.refusals.contains_key(&address) {
            // Those that would be full by now say nothing.
            let full = Duration::from_secs(u64::from(BURST_SECONDS));
            inner.refusals.retain(|_, bucket| now.saturating_sub(bucket.at) < full);
            if inner.refusals.len() >= ADDRESSES_MAX {
                inner.refusals.clear();
            }
        }
        let bucket = inner.refusals.entry(address).or_insert_with(|| Bucket::full(max, now));
        bucket.take(per_second, max, now)
    }

    /// Something malformed came: how many before it were not logged, if it is to be logged.
    pub fn log_malformed(&self) -> Option<u64> {
        let now = self.clock.monotonic();
        let mut inner = self.inner();
        if inner.log_at.is_some_and(|at| now.saturating_sub(at) < LOG_INTERVAL) {
            inner.not_logged += 1;
            return None;
        }
        inner.log_at = Some(now);
        Some(std::mem::take(&mut inner.not_logged))
    }
}

#[cfg(test)]
mod tests {
    use granary_core::TestClock;

    use super::*;

    #[test]
    fn bad_tokens_of_an_address_do_not_keep_out_good_ones() {
        let clock = Arc::new(TestClock::default());
        let gate = Gate::new(ServeLimits::default(), clock.clone());
        let (bad, other): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        gate.accepted("good");
        let logged = (0..200).filter(|_| gate.refused(bad)).count();
        assert_eq!(logged, 50);
        assert!(!gate.may_try(bad, "new"));
        assert!(gate.may_try(bad, "good") && gate.may_try(other, "new"));
        clock.advance(Duration::from_secs(1));
        assert!(gate.may_try(bad, "new"));
    }

    #[test]
    fn connections_are_counted_until_they_end() {
        let limits = ServeLimits { connections_max: 3, connections_per_address_max: 2, ..Default::default() };
        let gate = Gate::new(limits, Arc::new(TestClock::default()));
        let (a, b): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let first = gate.enter(a).unwrap();
        let _second = gate.enter(a).unwrap();
        assert!(gate.enter(a).is_none());
        let _third = gate.enter(b).unwrap();
        assert!(gate.enter(b).is_none());
        drop(first);
        assert!(gate.enter(b).is_some());
    }

    #[test]
    fn malformed_messages_are_logged_once_a_minute() {
        let clock = Arc::new(TestClock::default());
        let gate = Gate::new(ServeLimits::default(), clock.clone());
        assert_eq!(gate.log_malformed(), Some(0));
        assert_eq!((gate.log_malformed(), gate.log_malformed()), (None, None));
        clock.advance(Duration::from_secs(61));
        assert_eq!(gate.log_malformed(), Some(2));
    }
}
