//! Bytes a second that a namespace sends to the store: when each upload may begin. Decides only.
//!
//! Each upload reserves its bytes behind those reserved before it, and begins when the rate has made room for all of these.
//! So the first begins at once, and over any time no more than rate x time and one upload are begun. Nothing is saved up
//! while nobody sends.

use std::time::Duration;

#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Bytes that the rate has made room for; never more than are reserved.
    room: f64,
    reserved: f64,
    /// When `room` was true.
    at: Duration,
}

/// An upload's place in the order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Place(f64);

impl Pace {
    fn advance(&mut self, now: Duration, bytes_per_s: u64) {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.room = match bytes_per_s {
            0 => self.reserved,
            rate => (self.room + passed * rate as f64).min(self.reserved),
        };
    }

    /// At the end of the order; `bytes_per_s` 0: no limit.
    pub fn reserve(&mut self, bytes: u64, now: Duration, bytes_per_s: u64) -> Place {
        self.advance(now, bytes_per_s);
        let place = Place(self.reserved);
        self.reserved += bytes as f64;
        place
    }

    /// How long this place still has to wait at this rate; zero: it may begin.
    pub fn wait(&mut self, place: Place, now: Duration, bytes_per_s: u64) -> Duration {
        self.advance(now, bytes_per_s);
        let lacking = place.0 - self.room;
        // A part of a byte is rounding.
        if lacking < 0.5 || bytes_per_s == 0 {
            return Duration::ZERO;
        }
        Duration::try_from_secs_f64(lacking / bytes_per_s as f64).unwrap_or(Duration::MAX)
    }

    /// So many more (or, below zero, fewer) bytes were sent than reserved.
    pub fn correct(&mut self, bytes: i64) {
        if bytes > 0 {
            self.reserved += bytes as f64;
        } else {
            self.room = (self.room - bytes as f64).min(self.reserved);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn uploads_begin_as_the_rate_allows() {
        let mut pace = Pace::default();
        let now = SECOND * 100;
        let places: Vec<_> = (0..3).map(|_| pace.reserve(1000, now, 500)).collect();
        let waits =
            |pace: &mut Pace, now| -> Vec<_> { places.iter().map(|p| pace.wait(*p, now, 500)).collect() };
        assert_eq!(waits(&mut pace, now), [Duration::ZERO, SECOND * 2, SECOND * 4]);
        assert_eq!(waits(&mut pace, now + SECOND), [Duration::ZERO, SECOND, SECOND * 3]);
        assert_eq!(pace.wait(places[2], now + SECOND, 1500), SECOND, "a new rate counts at once");
        assert_eq!(pace.wait(places[2], now + SECOND, 0), Duration::ZERO, "and so does none");
        pace.correct(-1000);
        let next = pace.reserve(10, now + SECOND * 1000, 500);
        assert_eq!(pace.wait(next, now + SECOND * 1000, 500), Duration::ZERO, "nothing was owed");
        let last = pace.reserve(10, now + SECOND * 1000, 5);
        assert_eq!(pace.wait(last, now + SECOND * 1000, 5), SECOND * 2, "nothing was saved up either");
    }

    proptest! {
        /// However uploads come and the rate changes, no more is begun in any time than the rates allow and one upload, and
        /// all that waits begins as soon as what is before it is paid.
        #[test]
        fn the_rate_holds(steps in prop::collection::vec((1u64..50_000, 0u64..2_000, prop::option::of(1_000u64..100_000)), 1..60)) {
            let (mut pace, mut now, mut rate) = (Pace::default(), SECOND, 10_000u64);
            // Room that the rates made since the beginning, and what each upload found when it began.
            let (mut made, mut begun, mut queue) = (0.0f64, Vec::new(), std::collections::VecDeque::new());
            let mut steps = steps.into_iter();
            loop {
                while let Some(&(place, bytes)) = queue.front() {
                    if pace.wait(place, now, rate) > Duration::ZERO { break }
                    begun.push((made, bytes as f64));
                    queue.pop_front();
                }
                let passed = match (steps.next(), queue.front()) {
                    (Some((bytes, pause, new)), _) => {
                        queue.push_back((pace.reserve(bytes, now, rate), bytes));
                        rate = new.unwrap_or(rate);
                        let Some(&(first, _)) = queue.front() else { unreachable!() };
                        Duration::from_millis(pause).min(pace.wait(first, now, rate))
                    }
                    (None, Some(&(first, _))) => pace.wait(first, now, rate).max(Duration::from_nanos(1)),
                    (None, None) => break,
                };
                now += passed;
                made += passed.as_secs_f64() * rate as f64;
                prop_assert!(now < SECOND * 1_000_000, "it ends");
            }
            for i in 0..begun.len() {
                let mut sum = 0.0;
                for j in i..begun.len() {
                    prop_assert!(sum <= begun[j].0 - begun[i].0 + 1.0 + j as f64, "{} bytes in {}", sum, begun[j].0 - begun[i].0);
                    sum += begun[j].1;
                }
            }
        }
    }
}
