//! When a second request is sent, and whether it may be.

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};

use super::HedgeOptions;
use super::times::Times;
use crate::size::SizeClass;

/// The class's percentile after which a request is late. "Defer sending a secondary request until the first request has been outstanding
/// for more than the 95th-percentile expected latency" (Dean and Barroso, "The Tail at Scale", CACM 2013).
const PERCENT_LATE: u32 = 95;
/// Times of a class, at least, before its percentile counts: three are above it then.
const SAMPLES_MIN: u32 = 64;
/// A straggler takes so many times as long as a late request.
const STRAGGLES: u32 = 3;

/// Why no second request is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Refusal {
    /// As many as may be were sent.
    Budget,
    /// The store asked to slow down lately.
    SlowDown,
    /// No place is free.
    Full,
}

impl EncodeLabelValue for Refusal {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        let name = match self {
            Refusal::Budget => "budget",
            Refusal::SlowDown => "slow_down",
            Refusal::Full => "full",
        };
        EncodeLabelValue::encode(&name, encoder)
    }
}

#[derive(Debug)]
pub(super) struct Policy {
    options: HedgeOptions,
    times: [Times; SizeClass::COUNT],
    /// Second requests that may be sent now; each first one adds its part.
    tokens: f64,
    quiet_until: Duration,
}

impl Policy {
    pub fn new(options: HedgeOptions) -> Policy {
        let tokens = if options.percent_max == 0 { 0.0 } else { f64::from(options.burst) };
        Policy { options, times: Default::default(), tokens, quiet_until: Duration::ZERO }
    }

    /// A request is sent: after how long it is late. `None` while too little is known.
    pub fn sent(&mut self, class: SizeClass) -> Option<Duration> {
        self.tokens =
            (self.tokens + self.options.percent_max as f64 / 100.0).min(f64::from(self.options.burst));
        let times = &self.times[class.index()];
        let known = times.count() >= SAMPLES_MIN;
        known.then(|| times.percentile(PERCENT_LATE).max(self.options.late_min))
    }

    /// A request is late: whether a second one may be sent, which is counted as sent unless `place` has none.
    pub fn late<P>(&mut self, now: Duration, place: impl FnOnce() -> Option<P>) -> Result<P, Refusal> {
        if now < self.quiet_until {
            return Err(Refusal::SlowDown);
        }
        if self.tokens < 1.0 {
            return Err(Refusal::Budget);
        }
        let place = place().ok_or(Refusal::Full)?;
        self.tokens -= 1.0;
        Ok(place)
    }

    /// A caller has its answer: whether it was a straggler's, though it may have been hedged.
    pub fn answered(&mut self, class: SizeClass, took: Duration, late: Option<Duration>) -> bool {
        self.times[class.index()].add(took);
        late.is_some_and(|late| took > late * STRAGGLES)
    }

    pub fn slow_down(&mut self, now: Duration) {
        self.quiet_until = now + self.options.quiet;
    }
}
