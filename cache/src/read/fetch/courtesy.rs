//! How far what nobody waits for gives way while somebody waits. Decides only; does no I/O.
//!
//! What is fetched ahead stands before the next demand in the store's queue, and shares its bandwidth: with 24 MiB under way over a
//! link of 250 MB/s a request of 1 MiB that needs 34 ms by itself takes 100. So a demand fetch that takes much more than the
//! *store's own* time, the shortest of a request of that size lately, halves the share of what is fetched ahead, and one that
//! takes little more gives a sixteenth back (additive increase, multiplicative decrease, as in congestion control). The share counts
//! until nobody has waited for a second: then all is fetched ahead that [`pace`](super::pace) calls for.
//!
//! With much under way all the time nobody sees the store's own time, and what is seen then must not become the measure of itself.
//! So now and then, and when somebody begins to wait after a pause, the share is as small as it can be for two rounds (the idea of
//! BBR's ProbeRTT), and what was known before is forgotten slowly.

use std::time::Duration;

/// A demand fetch may take so many eighths of the store's own time, and this much more for what else a machine does.
const TOLERATED_EIGHTHS: u32 = 14;
const SLACK: Duration = Duration::from_millis(5);
/// Below so many eighths there is room for more ahead.
const CALM_EIGHTHS: u32 = 11;
/// The whole, and the least share.
const WHOLE: u32 = 64;
const STEP: u32 = WHOLE / 16;
const SHARE_MIN: u32 = 1;
/// Two requests keep the way for more open.
const SLOTS_MIN: u32 = 2;
/// The shortest times are of so long, and what was known before grows by half at most.
const WINDOW: Duration = Duration::from_secs(10);
/// Who waited so lately will wait again.
const HOLD: Duration = Duration::from_secs(1);
/// Requests of about 256 KiB, 512 KiB, 1 MiB and so on, with a footer or without.
const CLASSES: usize = 6;

fn class(bytes: u64) -> usize {
    let quarters = ((bytes + (128 << 10)) / (256 << 10)).max(1);
    (quarters.next_power_of_two().trailing_zeros() as usize).min(CLASSES - 1)
}

#[derive(Debug)]
pub(super) struct Courtesy {
    /// The shortest times of requests: known, and of this window.
    known: [Option<Duration>; CLASSES],
    seen: [Option<Duration>; CLASSES],
    since: Duration,
    /// Of [`WHOLE`].
    share: u32,
    /// What was asked for before is no consequence of the last cut.
    cut: Duration,
    /// Until when little is under way, to see the store's own time.
    probe: Duration,
    /// When a demand fetch was asked for, or ended, last.
    demand: Option<Duration>,
    /// Nothing gives way.
    off: bool,
}

impl Courtesy {
    pub fn new() -> Courtesy {
        Courtesy {
            known: [None; CLASSES],
            seen: [None; CLASSES],
            since: Duration::ZERO,
            share: WHOLE,
            cut: Duration::ZERO,
            probe: Duration::ZERO,
            demand: None,
            off: false,
        }
    }

    /// One that gives way to nobody, to compare with.
    #[cfg(test)]
    pub fn none() -> Courtesy {
        Courtesy { off: true, ..Courtesy::new() }
    }

    /// A request of `bytes` took so long at the store.
    pub fn on_got(&mut self, bytes: u64, took: Duration) {
        let seen = &mut self.seen[class(bytes)];
        *seen = Some(seen.map_or(took, |seen| seen.min(took)));
    }

    /// The store's own time for a request of so many bytes, as far as it is known: a longer one takes no less.
    fn own(&self, bytes: u64) -> Option<Duration> {
        let of = class(bytes);
        self.known[of..].iter().chain(&self.seen[of..]).flatten().min().copied()
    }

    /// A demand fetch is asked for.
    pub fn on_asked(&mut self, now: Duration) {
        if self.demand.is_none_or(|last| now.saturating_sub(last) >= WINDOW) {
            self.since = Duration::ZERO; // it is time to look
        }
        self.demand = Some(now);
    }

    /// A demand fetch of `bytes` that was asked for at `asked` is here.
    pub fn on_demand(&mut self, bytes: u64, asked: Duration, now: Duration) {
        let waited = now.saturating_sub(asked);
        self.demand = Some(now);
        if self.since == Duration::ZERO || now.saturating_sub(self.since) >= WINDOW {
            self.turn_over(now);
            self.probe = now + waited * 2;
        }
        let Some(own) = self.own(bytes) else { return };
        if now < self.probe || asked < self.cut {
            return; // it is of a round with less under way, or with more, than the share says
        }
        if waited > own * TOLERATED_EIGHTHS / 8 + SLACK {
            self.share = (self.share / 2).max(SHARE_MIN);
            self.cut = now;
        } else if waited <= own * CALM_EIGHTHS / 8 + SLACK {
            self.share = (self.share + STEP).min(WHOLE);
        }
    }

    /// A window ends.
    fn turn_over(&mut self, now: Duration) {
        for (known, seen) in self.known.iter_mut().zip(&mut self.seen) {
            if let Some(seen) = seen.take() {
                *known = Some(known.map_or(seen, |known| seen.min(known * 3 / 2)));
            }
        }
        self.since = now;
    }

    /// Of so many slots for what is fetched ahead, those that it may hold while somebody waits.
    pub fn slots(&self, ahead_max: u32, now: Duration) -> u32 {
        let share = match self.demand {
            Some(last) if !self.off && now.saturating_sub(last) < HOLD => self.share,
            _ => WHOLE,
        };
        let share = if now < self.probe && !self.off { 0 } else { share };
        (ahead_max * share / WHOLE).max(SLOTS_MIN).min(ahead_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Behind its first probe, with a store that needs 32 ms.
    fn settled() -> Courtesy {
        let mut courtesy = Courtesy::new();
        courtesy.on_got(MIB, ms(32));
        courtesy.on_asked(ms(0));
        assert_eq!(courtesy.slots(64, ms(1)), 64);
        courtesy.on_demand(MIB, ms(0), ms(32));
        assert_eq!(courtesy.slots(64, ms(95)), SLOTS_MIN, "it looks how long the store takes");
        assert_eq!(courtesy.slots(64, ms(96)), 64);
        courtesy
    }

    #[test]
    fn it_halves_while_demand_is_late_and_comes_back_while_it_is_not() {
        let mut courtesy = settled();
        let slots = |courtesy: &Courtesy| courtesy.slots(64, courtesy.demand.unwrap() + HOLD / 2);
        courtesy.on_demand(MIB, ms(100), ms(161));
        assert_eq!(slots(&courtesy), 64, "not twice as long");
        courtesy.on_demand(MIB, ms(100), ms(200));
        assert_eq!(slots(&courtesy), 32);
        courtesy.on_demand(MIB, ms(150), ms(250));
        assert_eq!(slots(&courtesy), 32, "it was asked for before the cut");
        for i in 1..9 {
            courtesy.on_demand(MIB, ms(i * 1000), ms(i * 1000 + 100));
        }
        assert_eq!(slots(&courtesy), SLOTS_MIN);
        assert_eq!((courtesy.slots(1, ms(8500)), courtesy.slots(0, ms(8500))), (1, 0));
        assert_eq!(courtesy.slots(64, ms(8100) + HOLD), 64, "nobody waits any more");
        for i in 0..16 {
            courtesy.on_demand(MIB, ms(9000 + i), ms(9040 + i));
        }
        assert_eq!(slots(&courtesy), 64);
    }

    #[test]
    fn it_looks_anew_now_and_then_and_after_a_pause() {
        let mut courtesy = settled();
        let is_probing = |courtesy: &Courtesy, at| courtesy.slots(64, at) == SLOTS_MIN;
        courtesy.on_asked(ms(9980));
        courtesy.on_demand(MIB, ms(9980), ms(10_030));
        assert!(!is_probing(&courtesy, ms(10_031)));
        courtesy.on_demand(MIB, ms(10_000), ms(10_040));
        assert!(is_probing(&courtesy, ms(10_041)) && !is_probing(&courtesy, ms(10_120)));
        courtesy.on_asked(ms(20_045));
        courtesy.on_demand(MIB, ms(20_045), ms(20_060));
        assert!(is_probing(&courtesy, ms(20_061)), "nobody waited for a window");
        assert_eq!(Courtesy::none().slots(64, ms(1)), 64);
    }

    #[test]
    fn what_is_seen_under_load_becomes_the_measure_only_slowly() {
        let mut courtesy = settled();
        // Always 320 ms from now on.
        let windows = (1..).find(|i| {
            courtesy.on_got(MIB, ms(320));
            courtesy.on_demand(MIB, WINDOW * *i, WINDOW * *i + ms(320));
            courtesy.own(MIB).is_some_and(|own| own >= ms(320))
        });
        assert!((6..10).contains(&windows.unwrap()), "{windows:?}");
        courtesy.on_got(MIB, ms(20));
        assert_eq!(courtesy.own(MIB), Some(ms(20)), "and what is shorter at once");
    }

    #[test]
    fn longer_requests_bound_the_time_of_shorter_ones() {
        let mut courtesy = settled();
        assert_eq!(courtesy.own(4 * MIB), None);
        courtesy.on_got(4 * MIB, ms(50));
        assert_eq!((courtesy.own(4 * MIB), courtesy.own(100)), (Some(ms(50)), Some(ms(32))));
        assert_eq!(
            [1, 300 << 10, 512 << 10, MIB, MIB + 2000, 4 * MIB, 15 * MIB].map(class),
            [0, 0, 1, 2, 2, 4, 5]
        );
    }
}
