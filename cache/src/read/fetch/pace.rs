//! How many bytes to have under way. Decides only; does no I/O.
//!
//! Little's law: bytes under way = throughput x time of a request. With fewer the store idles, with more they only queue in it,
//! in front of what somebody may ask for next. As congestion control does it (Cardwell, Cheng, Gunn, Yeganeh, Jacobson: "BBR:
//! congestion-based congestion control", ACM Queue 2016): the greatest throughput seen lately, times the shortest time of a
//! request seen lately, times two, so that it grows while more gives more, and no further. What is under way makes requests wait
//! for each other, so the shortest time is measured anew now and then with little under way.

use std::collections::VecDeque;
use std::time::Duration;

/// What was seen is believed for so long.
const MEMORY: Duration = Duration::from_secs(10);
/// Throughput is measured over stretches of at least this long.
const STRETCH: Duration = Duration::from_millis(50);
/// Stretches remembered at most: as many as fit into `MEMORY`, and one.
const STRETCHES_MAX: usize = 201;
/// Under way at least: 16 MiB hide 30 ms and the time of a request of 4 MiB at 350 MB/s. With 8 MiB a single reader in order had
/// 0.39 of a link of 250 MB/s, in virtual time.
const WINDOW_BYTES_MIN: u64 = 16 << 20;
/// Requests shorter than this tell little of how long a long one takes.
const LONG_BYTES_MIN: u64 = 512 << 10;

/// A measurement of the shortest time, with little under way.
#[derive(Clone, Copy, Debug)]
struct Probe {
    until: Duration,
    shortest: Option<Duration>,
}

#[derive(Debug)]
pub(super) struct Pace {
    /// When each stretch ended, and its bytes a second.
    stretches: VecDeque<(Duration, u64)>,
    since: Option<Duration>,
    bytes: u64,
    /// The shortest time of a long request, and when it was seen.
    shortest: Option<(Duration, Duration)>,
    probe: Option<Probe>,
    window_max: u64,
}

impl Pace {
    /// Never more than `window_max` bytes.
    pub fn new(window_max: u64) -> Pace {
        Pace { stretches: VecDeque::new(), since: None, bytes: 0, shortest: None, probe: None, window_max }
    }

    /// A request brought `bytes` in `took`, and ended at `now`.
    pub fn on_fetched(&mut self, bytes: u64, took: Duration, now: Duration) {
        if bytes >= LONG_BYTES_MIN {
            self.note_time(took, now);
        }
        let since = *self.since.get_or_insert(now.saturating_sub(took));
        self.bytes += bytes;
        let lasted = now.saturating_sub(since);
        if lasted < STRETCH {
            return;
        }
        // A stretch that is mostly a pause is the smallest, and so says nothing.
        self.stretches.push_back((now, (self.bytes as f64 / lasted.as_secs_f64()) as u64));
        (self.since, self.bytes) = (Some(now), 0);
        while self.stretches.len() > STRETCHES_MAX
            || self.stretches.front().is_some_and(|(end, _)| *end + MEMORY < now)
        {
            self.stretches.pop_front();
        }
    }

    fn note_time(&mut self, took: Duration, now: Duration) {
        if let Some(probe) = &mut self.probe {
            probe.shortest = Some(probe.shortest.map_or(took, |s| s.min(took)));
            if now >= probe.until {
                self.shortest = probe.shortest.map(|s| (s, now));
                self.probe = None;
            }
            return;
        }
        match self.shortest {
            Some((shortest, seen)) if took > shortest => {
                if now.saturating_sub(seen) > MEMORY {
                    // Until what is under way now has ended, and one more after it.
                    self.probe = Some(Probe { until: now + took * 2, shortest: None });
                }
            }
            _ => self.shortest = Some((took, now)),
        }
    }

    /// Bytes to have under way, from [`WINDOW_BYTES_MIN`] on.
    pub fn window(&self) -> u64 {
        let under_way = match (self.probe, self.shortest) {
            (None, Some((shortest, _))) => (self.throughput() as f64 * shortest.as_secs_f64() * 2.0) as u64,
            _ => 0,
        };
        under_way.max(WINDOW_BYTES_MIN).min(self.window_max)
    }

    /// Bytes a second that the store gave at best lately; 0: not known.
    fn throughput(&self) -> u64 {
        self.stretches.iter().map(|(_, bytes_per_s)| *bytes_per_s).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: u64 = 4 << 20;

    /// A store with a first byte after `latency` and `bytes_per_s` for all requests together, with as much under way as the pace
    /// says; the widest window.
    fn settle(latency: Duration, bytes_per_s: u64, window_max: u64) -> u64 {
        let mut pace = Pace::new(window_max);
        let (mut now, mut link_free) = (Duration::ZERO, Duration::ZERO);
        let mut under_way: VecDeque<(Duration, Duration)> = VecDeque::new(); // began, ends
        let mut widest = 0;
        for _ in 0..5000 {
            while (under_way.len() as u64 + 1) * GET <= pace.window() {
                let transfer = Duration::from_secs_f64(GET as f64 / bytes_per_s as f64);
                link_free = link_free.max(now + latency) + transfer;
                under_way.push_back((now, link_free));
            }
            let (began, ends) = under_way.pop_front().unwrap();
            now = ends;
            pace.on_fetched(GET, now - began, now);
            widest = widest.max(pace.window());
        }
        widest
    }

    #[test]
    fn it_grows_to_twice_bandwidth_times_latency_and_no_further() {
        for (latency_ms, mb_per_s) in [(30, 1000), (30, 200), (100, 500), (5, 3000)] {
            let (latency, rate) = (Duration::from_millis(latency_ms), mb_per_s * 1_000_000);
            let product = (rate as f64 * (latency.as_secs_f64() + GET as f64 / rate as f64)) as u64;
            let window = settle(latency, rate, 1 << 30);
            // With the least under way requests may wait for each other already.
            let fair = product.max(WINDOW_BYTES_MIN)..=(3 * product).max(2 * WINDOW_BYTES_MIN + GET);
            assert!(fair.contains(&window), "{latency_ms} ms, {mb_per_s} MB/s: {window} of {product}");
        }
        assert_eq!(settle(Duration::from_millis(100), 2_000_000_000, 64 << 20), 64 << 20);
    }

    #[test]
    fn what_was_seen_long_ago_is_forgotten() {
        let mut pace = Pace::new(1 << 30);
        let at = Duration::from_secs;
        for i in 0..100 {
            pace.on_fetched(GET, Duration::from_millis(100), at(1) + Duration::from_millis(i));
        }
        assert!(pace.window() > 2 * WINDOW_BYTES_MIN, "{}", pace.window());
        pace.on_fetched(GET, Duration::from_millis(100), at(60));
        pace.on_fetched(GET, Duration::from_millis(100), at(61));
        assert_eq!(pace.window(), WINDOW_BYTES_MIN);
    }
}
