//! Which endpoint a request goes to.
//!
//! Of two endpoints chosen at random (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001), more often the
//! one with the lower cost: their shares are as the inverse squares of their costs, so that each is heard of now and then, whatever
//! it was last, and equals get equal parts. Cost is requests in flight times mean latency (the "peak EWMA" of Finagle and Linkerd).
//! Latencies are compared with the mean of all endpoints for requests of that kind and size, since 4 MiB take longer than 4 KiB
//! everywhere.
//!
//! ```text
//!          fails: out for 250 ms            time over: one request tries
//!   well --------------------------> out ------------------------------> trial
//!    ^                                ^ fails: twice as long (<= 30 s)      |
//!    |                                +-------------------------------------+
//!    +-------------------------- succeeds ----------------------------------+
//! ```
//! When all are out, the one that is to be tried soonest is used all the same: this policy refuses nobody.

use std::time::Duration;

use rand::{Rng, RngExt};

use crate::operation::Operation;
use crate::size::SizeClass;

const OUT_FIRST: Duration = Duration::from_millis(250);
const OUT_MAX: Duration = Duration::from_secs(30);
/// Weight of a new value in an endpoint's mean, and in that of all.
const WEIGHT: f64 = 0.1;
const WEIGHT_OF_ALL: f64 = 0.02;
/// No endpoint is taken to be faster or slower than the mean by more than so much.
const FACTOR_MAX: f64 = 8.0;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Health {
    Well,
    Out { until: Duration, pause: Duration },
    Trial { pause: Duration },
}

#[derive(Clone, Debug)]
struct Endpoint {
    health: Health,
    in_flight: u32,
    /// Its latency as a multiple of the mean of all.
    factor: f64,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Answered,
    /// It answered that it cannot, or did not answer.
    Failed,
    /// Nobody waited for the end.
    Dropped,
}

/// What a person should hear of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// It failed again when it was tried, for the first time in a row.
    Gone,
    Back,
}

#[derive(Debug)]
pub(super) struct Policy {
    endpoints: Vec<Endpoint>,
    /// Mean seconds of requests by operation and size.
    means: [[Option<f64>; SizeClass::COUNT]; Operation::ALL.len()],
}

impl Policy {
    pub fn new(endpoints: usize) -> Policy {
        let endpoint = Endpoint { health: Health::Well, in_flight: 0, factor: 1.0 };
        Policy { endpoints: vec![endpoint; endpoints], means: Default::default() }
    }

    /// The endpoint for a request that is sent now, if possible not `avoid`.
    pub fn pick(&mut self, now: Duration, avoid: Option<usize>, random: &mut impl Rng) -> usize {
        let others = || (0..self.endpoints.len()).filter(move |&i| Some(i) != avoid);
        let due =
            others().find(|&i| matches!(self.endpoints[i].health, Health::Out { until, .. } if until <= now));
        let well: Vec<usize> = others().filter(|&i| self.endpoints[i].health == Health::Well).collect();
        let picked = match (due, well.as_slice()) {
            (Some(due), _) => due,
            (None, []) => self.least_bad(avoid),
            (None, &[one]) => one,
            (None, several) => self.of_two(several, random),
        };
        let endpoint = &mut self.endpoints[picked];
        if let Health::Out { pause, .. } = endpoint.health {
            endpoint.health = Health::Trial { pause };
        }
        endpoint.in_flight += 1;
        picked
    }

    fn of_two(&self, several: &[usize], random: &mut impl Rng) -> usize {
        let a = random.random_range(0..several.len());
        let b = (a + random.random_range(1..several.len())) % several.len();
        let (a, b) = (several[a], several[b]);
        let (a_cost, b_cost) = (self.cost(a).powi(2), self.cost(b).powi(2));
        if random.random_range(0.0..a_cost + b_cost) < a_cost { b } else { a }
    }

    fn cost(&self, i: usize) -> f64 {
        f64::from(self.endpoints[i].in_flight + 1) * self.endpoints[i].factor
    }

    /// None is well: the one to be tried soonest, then one that is being tried, then the one to avoid.
    fn least_bad(&self, avoid: Option<usize>) -> usize {
        let key = |i: &usize| {
            let time = match self.endpoints[*i].health {
                Health::Well => Duration::ZERO,
                Health::Out { until, .. } => until,
                Health::Trial { .. } => Duration::MAX,
            };
            (Some(*i) == avoid, time, self.endpoints[*i].in_flight)
        };
        (0..self.endpoints.len()).min_by_key(key).unwrap_or(0)
    }

    /// A request of this kind and size ended.
    pub fn ended(
        &mut self,
        now: Duration,
        picked: usize,
        kind: (Operation, SizeClass),
        took: Duration,
        end: End,
    ) -> Option<News> {
        self.endpoints[picked].in_flight -= 1;
        self.learn(picked, kind, took.as_secs_f64().max(1e-6), end);
        let endpoint = &mut self.endpoints[picked];
        let (next, news) = match (endpoint.health, end) {
            (Health::Well, End::Answered | End::Dropped) => (Health::Well, None),
            (Health::Well, End::Failed) => (Health::Out { until: now + OUT_FIRST, pause: OUT_FIRST }, None),
            (Health::Trial { pause }, End::Failed) => {
                let longer = (pause * 2).min(OUT_MAX);
                let news = (pause == OUT_FIRST).then_some(News::Gone);
                (Health::Out { until: now + longer, pause: longer }, news)
            }
            // Nothing is known: it is tried again at once.
            (Health::Trial { pause }, End::Dropped) => (Health::Out { until: now, pause }, None),
            (Health::Out { pause, .. } | Health::Trial { pause }, End::Answered) => {
                (Health::Well, (pause > OUT_FIRST).then_some(News::Back))
            }
            // Sent before it was out.
            (out @ Health::Out { .. }, End::Failed | End::Dropped) => (out, None),
        };
        endpoint.health = next;
        news
    }

    fn learn(&mut self, picked: usize, (operation, class): (Operation, SizeClass), took: f64, end: End) {
        let mean = &mut self.means[operation as usize][class.index()];
        let before = mean.unwrap_or(took);
        let factor = &mut self.endpoints[picked].factor;
        let now = (took / before).clamp(1.0 / FACTOR_MAX, FACTOR_MAX);
        match end {
            End::Answered => {
                *mean = Some(before + WEIGHT_OF_ALL * (took - before));
                *factor += WEIGHT * (now - *factor);
            }
            // It would have taken longer.
            End::Dropped if now > *factor => *factor += WEIGHT * (now - *factor),
            End::Dropped | End::Failed => {}
        }
    }

    #[cfg(test)]
    pub fn in_flight(&self) -> u32 {
        self.endpoints.iter().map(|endpoint| endpoint.in_flight).sum()
    }

    pub fn is_well(&self, endpoint: usize) -> bool {
        self.endpoints[endpoint].health == Health::Well
    }
}
