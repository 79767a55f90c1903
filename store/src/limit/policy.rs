//! How many requests may be in flight: found out from the answers.
//!
//! Answers are judged in *rounds*, as many as are in flight, so that a round is about a round trip. In each:
//!
//! * **Some asked to slow down** (503, 429): the limit falls by half of their share, as a congestion window does in DCTCP
//!   (Alizadeh et al., "Data Center TCP", SIGCOMM 2010): a storm halves it every round, one refusal of many takes one place. Where it
//!   happened is remembered and approached with care, as CUBIC does (RFC 9438): up to nine tenths of it quickly, then a step every few
//!   seconds.
//! * **Latency has doubled** against the best known for requests of that size: either the requests queue at the store, or the
//!   store has become slower by itself. Little's law tells which: at half the limit a queue halves the latency, and a slow
//!   store keeps it. So one round runs at half (the idea of BBR's ProbeRTT). If the latency falls with it, the limit becomes what gives
//!   the same throughput without the queue; if not, the new latency is the best known from now on, and the limit comes back.
//!   The best known ages: so the same is tried from time to time anyway.
//! * **Neither**, and the places were all taken: the limit grows; it doubles at the start, then grows by its square
//!   root (Netflix's "Gradient" limit of concurrency-limits has this step).
//!
//! A store that is merely slow for each request is given all of `max`: nothing here aims at a low latency.

use std::time::Duration;

use crate::size::SizeClass;

/// At the start.
const INITIAL: f64 = 16.0;
/// Never fewer.
const MIN: f64 = 2.0;
/// Latency alone takes no places below: so few do not make a queue worth removing.
const FLOOR: f64 = 8.0;
/// Answers in a round, at least: their median should mean something.
const ROUND_MIN: usize = 16;
/// A class counts in a round with at least so many answers.
const CLASS_MIN: usize = 4;
/// Latency of a round against the best known that is looked into, when it comes twice in a row.
const TOLERATED: f64 = 2.0;
/// At half the limit the latency of a queue is half; where it is not below this part, the queue is not ours.
const FALLS: f64 = 0.75;
/// The best known latency is of so long, twice.
const WINDOW: Duration = Duration::from_secs(30);
/// Between steps beyond where the store asked to slow down.
const CAUTION: Duration = Duration::from_secs(5);

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum End {
    Answered {
        class: SizeClass,
        latency: Duration,
    },
    SlowDown,
    /// Tells nothing of the store's load: it was refused for a reason of its own, dropped, or never arrived.
    Other,
}

/// When a request began, in the policy's own count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

#[derive(Debug)]
enum Phase {
    Grow,
    /// One round at half of `limit`, which gave `ratio`.
    Probe {
        limit: f64,
        ratio: f64,
    },
}

#[derive(Debug)]
pub(crate) struct Policy {
    max: f64,
    limit: f64,
    phase: Phase,
    /// Doubles each round.
    starting: bool,
    in_flight: usize,
    /// Whether all places were taken in this round.
    reached: bool,
    /// Counts changes of the limit that end a round; answers to older requests are of another limit.
    epoch: u64,
    slow_downs: usize,
    latencies: [Vec<f64>; SizeClass::COUNT],
    best: Best,
    /// Rounds in a row above `TOLERATED`.
    above: u32,
    overload: Option<Overload>,
    clean_rounds: u32,
}

/// Where the store asked to slow down.
#[derive(Clone, Copy, Debug)]
struct Overload {
    ceiling: f64,
    next_step: Duration,
}

/// The best median latencies, in seconds, of the current window and the one before.
#[derive(Debug, Default)]
struct Best {
    begun: Option<Duration>,
    now: [Option<f64>; SizeClass::COUNT],
    before: [Option<f64>; SizeClass::COUNT],
}

impl Policy {
    /// Never more than `max`, and never fewer than two, or one where `max` is.
    pub fn new(max: u32) -> Policy {
        let max = f64::from(max.max(1));
        Policy {
            max,
            limit: INITIAL.min(max),
            phase: Phase::Grow,
            starting: true,
            in_flight: 0,
            reached: false,
            epoch: 0,
            slow_downs: 0,
            latencies: Default::default(),
            best: Best::default(),
            above: 0,
            overload: None,
            clean_rounds: 0,
        }
    }

    pub fn limit(&self) -> usize {
        self.limit as usize
    }

    /// A request has to wait.
    pub fn waits(&mut self) {
        self.reached = true;
    }

    pub fn begin(&mut self) -> Ticket {
        self.in_flight += 1;
        self.reached |= self.in_flight >= self.limit();
        Ticket(self.epoch)
    }

    pub fn end(&mut self, now: Duration, ticket: Ticket, end: End) {
        self.in_flight -= 1;
        if ticket.0 != self.epoch {
            return;
        }
        match end {
            End::Answered { class, latency } => {
                self.latencies[class.index()].push(latency.as_secs_f64().max(1e-6));
            }
            End::SlowDown => self.slow_downs += 1,
            End::Other => return,
        }
        let answers = self.slow_downs + self.latencies.iter().map(Vec::len).sum::<usize>();
        if answers >= self.limit().max(ROUND_MIN) {
            self.judge(now, answers);
        }
    }

    fn judge(&mut self, now: Duration, answers: usize) {
        let medians = self.medians();
        self.latencies.iter_mut().for_each(Vec::clear);
        let aged = self.best.age(now);
        let ratio = self.best.ratio(&medians);
        let slow_downs = std::mem::take(&mut self.slow_downs);
        let reached = std::mem::take(&mut self.reached);
        if slow_downs > 0 {
            self.cut(now, slow_downs as f64 / answers as f64);
            return;
        }
        self.clean_rounds += 1;
        let of_old = matches!(self.phase, Phase::Probe { ratio: old, .. } if ratio > old * FALLS);
        if of_old {
            self.best = Best { begun: Some(now), ..Best::default() };
        }
        self.best.take(&medians);
        self.above = if ratio > TOLERATED { self.above + 1 } else { 0 };
        match self.phase {
            Phase::Probe { limit, ratio: old } => {
                let kept = if of_old { limit } else { (limit * ratio / old).max(self.limit) };
                self.starting &= of_old;
                self.above = 0;
                self.phase = Phase::Grow;
                self.change(kept);
            }
            Phase::Grow if !reached => {}
            Phase::Grow if self.limit > FLOOR && (self.above > 1 || aged) => {
                self.phase = Phase::Probe { limit: self.limit, ratio };
                self.change((self.limit / 2.0).max(FLOOR));
            }
            Phase::Grow if self.above > 0 => {}
            Phase::Grow => self.grow(now),
        }
    }

    /// Ends the round; what was asked before is not of the next.
    fn change(&mut self, limit: f64) {
        self.limit = limit.clamp(MIN.min(self.max), self.max);
        self.epoch += 1;
    }

    fn cut(&mut self, now: Duration, share: f64) {
        let first = self.clean_rounds > 0 || self.overload.is_none();
        let was = match self.phase {
            Phase::Probe { limit, .. } => limit,
            Phase::Grow => self.limit,
        };
        let ceiling = match self.overload {
            Some(overload) if !first => overload.ceiling,
            _ => (was * 0.9).max(MIN),
        };
        self.overload = Some(Overload { ceiling, next_step: now + CAUTION });
        (self.clean_rounds, self.above, self.starting, self.phase) = (0, 0, false, Phase::Grow);
        self.change((self.limit - 1.0).min(self.limit * (1.0 - share / 2.0)));
    }

    fn grow(&mut self, now: Duration) {
        let step = self.limit.sqrt();
        let mut to = if self.starting { self.limit * 2.0 } else { self.limit + step };
        if let Some(overload) = &mut self.overload {
            if self.limit * 2.0 <= overload.ceiling {
                to = self.limit * 2.0;
            } else if to > overload.ceiling && now >= overload.next_step {
                overload.ceiling = overload.ceiling.max(self.limit) + step;
                overload.next_step = now + CAUTION;
            }
            to = to.min(overload.ceiling.max(self.limit));
            if overload.ceiling >= self.max {
                self.overload = None;
            }
        }
        // The epoch stays: answers to what was asked with fewer in flight count in the next round too.
        self.limit = to.min(self.max);
    }

    /// Of the classes with enough answers in this round: the median and how many.
    fn medians(&mut self) -> [Option<(f64, usize)>; SizeClass::COUNT] {
        let mut medians = [None; SizeClass::COUNT];
        for (median, latencies) in medians.iter_mut().zip(&mut self.latencies) {
            let count = latencies.len();
            if count >= CLASS_MIN {
                *median = Some((*latencies.select_nth_unstable_by(count / 2, f64::total_cmp).1, count));
            }
        }
        medians
    }
}

impl Best {
    /// Whether a window ended.
    fn age(&mut self, now: Duration) -> bool {
        let begun = *self.begun.get_or_insert(now);
        let over = now.saturating_sub(begun) >= WINDOW;
        if over {
            self.begun = Some(now);
            self.before = std::mem::take(&mut self.now);
        }
        over
    }

    fn take(&mut self, medians: &[Option<(f64, usize)>; SizeClass::COUNT]) {
        for (best, median) in self.now.iter_mut().zip(medians) {
            if let Some((median, _)) = median {
                *best = Some(best.map_or(*median, |best| best.min(*median)));
            }
        }
    }

    /// How much longer it takes now than at best: the mean over classes, each with its number of answers as weight.
    fn ratio(&self, medians: &[Option<(f64, usize)>; SizeClass::COUNT]) -> f64 {
        let (mut sum, mut weight) = (0.0, 0.0);
        for (class, median) in medians.iter().enumerate() {
            let best = [self.now[class], self.before[class]].into_iter().flatten().reduce(f64::min);
            if let (Some((median, count)), Some(best)) = (median, best) {
                sum += median / best * *count as f64;
                weight += *count as f64;
            }
        }
        if weight > 0.0 { sum / weight } else { 1.0 }
    }
}
