//! When to upload what. Decides only.
//!
//! Small files: the log's active segment is sealed when its oldest record is as old as the *small* period. Sealed segments,
//! those that were full before too, become packs when their oldest record is that old, as many of the oldest as fit one: a
//! burst of writes that is over sooner has the disk and the processors for itself, and what was deleted by then is not uploaded.
//! Large files: when nothing was written for the *large* period. Under pressure neither waits. After a failure everything
//! waits, twice as long each time.
//!
//! Who waits for the store (an fsync of a namespace with `durability = object`) has the segment that it waits for sealed as
//! soon as no other pack that somebody waits for is under way: those who come meanwhile are in the next one, together.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use granary_core::Ino;
use granary_core::limits::OBJECT_PAYLOAD_MAX;
use granary_core::policy::WritePolicy;

use super::Failure;
use crate::stage::log::SegmentInfo;

/// First and longest wait after a failure.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// What the node's disk does not give back is tried again after this long: a disk may come back, bad bytes rarely do.
const DAMAGED_AGAIN: Duration = Duration::from_secs(600);
/// A file that could not be taken, because somebody may still write it, is looked at again after this long.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LargeFile {
    pub ino: Ino,
    pub last_write: Duration,
    /// The kernel writes it itself at the moment.
    pub open: bool,
}

/// What there is.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub now: Duration,
    pub active: Option<SegmentInfo>,
    /// Oldest first.
    pub sealed: &'a [SegmentInfo],
    pub large: &'a [LargeFile],
    /// Close to a dirty limit.
    pub pressing: bool,
    /// The namespace's, of this moment.
    pub policy: &'a WritePolicy,
}

impl View<'_> {
    fn small_period(&self) -> Duration {
        Duration::from_millis(self.policy.small_period_ms)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// End the active segment.
    Seal,
    /// Upload these segments, together.
    Pack(Vec<u64>),
    File(Ino),
    /// Nothing until something happens, or this much time has passed.
    Wait(Option<Duration>),
}

/// How a unit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Stored,
    /// Somebody writes the file.
    NotNow,
    /// As all others would now.
    Failed,
    /// The node's disk does not give back some of it: that is no reason for others to wait.
    Damaged,
}

impl Ended {
    pub fn of<T>(result: &Result<T, Failure>) -> Ended {
        match result {
            Ok(_) => Ended::Stored,
            Err(Failure::Disk(_)) => Ended::Damaged,
            Err(Failure::Other(_)) => Ended::Failed,
        }
    }
}

#[derive(Debug)]
pub(super) struct Policy {
    /// In flight.
    segments: HashSet<u64>,
    files: HashSet<Ino>,
    /// Have records that cannot be read, and when to look again: they are kept for a person to look at.
    damaged: HashMap<u64, Duration>,
    /// Files that could not be taken, and when to look again.
    later: HashMap<Ino, Duration>,
    /// Somebody waits for the store to have this segment, which was being written then.
    wanted: Option<u64>,
    /// Somebody waits, or waited, for the store to have the sealed segments up to this one.
    awaited: Option<u64>,
    /// Sealed for somebody who waits, and not stored yet.
    urgent: HashSet<u64>,
    units: usize,
    retry_at: Duration,
    backoff: Duration,
    /// Whose turn it is when both kinds wait.
    file_next: bool,
}

impl Policy {
    pub fn new() -> Policy {
        Policy {
            segments: HashSet::new(),
            files: HashSet::new(),
            damaged: HashMap::new(),
            later: HashMap::new(),
            wanted: None,
            awaited: None,
            urgent: HashSet::new(),
            units: 0,
            retry_at: Duration::ZERO,
            backoff: BACKOFF.0,
            file_next: false,
        }
    }

    /// Somebody waits for the store to have the sealed segments up to `last`: they do not wait for their period, nor anything
    /// after failures, and damaged segments are looked at again.
    pub fn hurry(&mut self, last: u64) {
        self.awaited = self.awaited.max(Some(last));
        self.retry_at = Duration::ZERO;
        self.damaged.clear();
    }

    /// Whether anything is being uploaded.
    pub fn is_busy(&self) -> bool {
        self.units > 0
    }

    /// Somebody waits for this segment, which is being written.
    pub fn want(&mut self, segment: u64) {
        self.wanted = self.wanted.max(Some(segment));
    }

    /// How long everything waits after a failure.
    pub fn retry_in(&self, now: Duration) -> Duration {
        self.retry_at.saturating_sub(now)
    }

    /// What to do next. A unit that is answered counts as in flight until it is told done.
    pub fn next(&mut self, view: &View<'_>) -> Step {
        if self.units >= view.policy.uploads_max as usize {
            return Step::Wait(None);
        }
        if view.now < self.retry_at {
            return Step::Wait(Some(self.retry_at - view.now));
        }
        if self.urgent.is_empty()
            && let (Some(wanted), Some(active)) = (self.wanted, view.active)
        {
            self.wanted = None;
            if active.id <= wanted {
                self.urgent.insert(active.id);
                return Step::Seal;
            }
        }
        let (pack, pack_at) = self.pack(view);
        let (file, file_at) = self.file(view);
        let take_file = file.is_some() && (pack.is_empty() || self.file_next);
        if let Some(ino) = file.filter(|_| take_file) {
            self.file_next = false;
            self.units += 1;
            self.files.insert(ino);
            return Step::File(ino);
        }
        if !pack.is_empty() {
            self.file_next = true;
            self.units += 1;
            self.segments.extend(&pack);
            return Step::Pack(pack);
        }
        let seal_at = view.active.map(|a| a.first_at + view.small_period());
        // Under pressure nothing waits, but while uploads run there is no use in ever smaller segments.
        if seal_at.is_some_and(|at| at <= view.now || view.pressing && self.units == 0) {
            return Step::Seal;
        }
        let next = seal_at.into_iter().chain(pack_at).chain(file_at).min();
        Step::Wait(next.map(|at| at.saturating_sub(view.now)))
    }

    /// The oldest sealed segments that fit one pack, if they are due, and when they are.
    fn pack(&self, view: &View<'_>) -> (Vec<u64>, Option<Duration>) {
        let rests = |id: &u64| self.damaged.get(id).is_some_and(|&again| again > view.now);
        let free = || view.sealed.iter().filter(|s| !self.segments.contains(&s.id) && !rests(&s.id));
        let Some(oldest) = free().next() else { return (Vec::new(), None) };
        let due = oldest.first_at + view.small_period();
        let waits = Some(oldest.id) > self.awaited && !self.urgent.contains(&oldest.id) && !view.pressing;
        if waits && due > view.now {
            return (Vec::new(), Some(due));
        }
        let mut ids = Vec::new();
        let mut payload = 0;
        for s in free() {
            if !ids.is_empty() && payload + s.payload > OBJECT_PAYLOAD_MAX {
                break;
            }
            payload += s.payload;
            ids.push(s.id);
        }
        (ids, None)
    }

    /// The file that waits longest, if one is due, and when the next one is.
    fn file(&mut self, view: &View<'_>) -> (Option<Ino>, Option<Duration>) {
        let large_period = Duration::from_millis(view.policy.large_period_ms);
        let due = |f: &LargeFile, later: &HashMap<Ino, Duration>| {
            let at = if view.pressing { f.last_write } else { f.last_write + large_period };
            later.get(&f.ino).map_or(at, |&l| at.max(l))
        };
        let free = view.large.iter().filter(|f| !f.open && !self.files.contains(&f.ino));
        let next = free.map(|f| (due(f, &self.later), f.ino)).min();
        if self.later.len() > 2 * view.large.len() + 16 {
            self.later.retain(|_, &mut at| at > view.now);
        }
        match next {
            Some((at, ino)) if at <= view.now => (Some(ino), None),
            Some((at, _)) => (None, Some(at)),
            None => (None, None),
        }
    }

    /// A pack ended; damaged segments are left alone for a while. `spread`, at random from 0 to 1, keeps many namespaces and
    /// nodes from trying again at one moment.
    pub fn pack_done(&mut self, segments: &[u64], ended: Ended, now: Duration, spread: f64) {
        segments.iter().for_each(|s| {
            self.urgent.remove(s);
            self.segments.remove(s);
            self.damaged.remove(s);
        });
        if ended == Ended::Damaged {
            self.damaged.retain(|_, again| *again > now);
            self.damaged.extend(segments.iter().map(|&s| (s, now + DAMAGED_AGAIN)));
        }
        self.unit_done(ended, now, spread);
    }

    pub fn file_done(&mut self, ino: Ino, ended: Ended, now: Duration, spread: f64) {
        self.files.remove(&ino);
        match ended {
            Ended::Stored => drop(self.later.remove(&ino)),
            Ended::NotNow | Ended::Failed => drop(self.later.insert(ino, now + LOOK_AGAIN)),
            Ended::Damaged => drop(self.later.insert(ino, now + DAMAGED_AGAIN)),
        }
        self.unit_done(ended, now, spread);
    }

    fn unit_done(&mut self, ended: Ended, now: Duration, spread: f64) {
        self.units -= 1;
        if ended != Ended::Failed {
            self.backoff = BACKOFF.0;
        } else {
            self.retry_at = now + self.backoff.mul_f64(1.0 - spread.clamp(0.0, 1.0) / 2.0);
            self.backoff = (self.backoff * 2).min(BACKOFF.1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use granary_core::limits::Limits;
    use granary_core::policy::NamespacePolicy;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn segment(id: u64, payload: u64, at: u64) -> SegmentInfo {
        SegmentInfo { id, len: payload + 100, payload, files: 1, first_at: SECOND * at as u32 }
    }

    fn policy(uploads_max: u32) -> &'static WritePolicy {
        let limits = Limits { uploads_max, ..Limits::default() };
        Box::leak(Box::new(WritePolicy::resolve(&limits, &NamespacePolicy::default())))
    }

    fn view<'a>(
        now: u64,
        active: Option<SegmentInfo>,
        sealed: &'a [SegmentInfo],
        large: &'a [LargeFile],
    ) -> View<'a> {
        View { now: SECOND * now as u32, active, sealed, large, pressing: false, policy: policy(4) }
    }

    fn file(ino: u64, at: u64, open: bool) -> LargeFile {
        LargeFile { ino: Ino(ino), last_write: SECOND * at as u32, open }
    }

    #[test]
    fn small_files_leave_after_the_small_period() {
        let mut p = Policy::new();
        let active = Some(segment(1, 10, 5));
        assert_eq!(p.next(&view(5, active, &[], &[])), Step::Wait(Some(SECOND * 2)));
        assert_eq!(p.next(&view(6, active, &[], &[])), Step::Wait(Some(SECOND)));
        assert_eq!(p.next(&view(7, active, &[], &[])), Step::Seal);
        assert_eq!(p.next(&View { pressing: true, ..view(5, active, &[], &[]) }), Step::Seal);
        assert_eq!(p.next(&view(5, None, &[], &[])), Step::Wait(None));
    }

    #[test]
    fn sealed_segments_are_joined_up_to_one_pack() {
        let mut p = Policy::new();
        let view =
            |now, active, sealed, large| View { policy: policy(2), ..view(now, active, sealed, large) };
        let mib = 1 << 20;
        let sealed =
            [segment(1, 5 * mib, 0), segment(2, 9 * mib, 0), segment(3, 2 * mib, 0), segment(4, mib, 0)];
        assert_eq!(p.next(&view(2, None, &sealed, &[])), Step::Pack(vec![1, 2]));
        assert_eq!(p.next(&view(2, None, &sealed, &[])), Step::Pack(vec![3, 4]));
        assert_eq!(
            p.next(&view(2, Some(segment(5, 1, 0)), &sealed, &[])),
            Step::Wait(None),
            "no more than uploads_max"
        );
        p.pack_done(&[1, 2], Ended::Stored, SECOND, 0.0);
        assert_eq!(p.next(&view(9, Some(segment(5, 1, 0)), &sealed[2..], &[])), Step::Seal);
    }

    #[test]
    fn large_files_leave_when_they_are_quiet_and_closed() {
        let mut p = Policy::new();
        let large = [file(1, 10, false), file(2, 5, false), file(3, 0, true)];
        assert_eq!(p.next(&view(20, None, &[], &large)), Step::Wait(Some(SECOND * 15)));
        assert_eq!(p.next(&view(35, None, &[], &large)), Step::File(Ino(2)));
        assert_eq!(p.next(&view(35, None, &[], &large)), Step::Wait(Some(SECOND * 5)));
        p.file_done(Ino(2), Ended::NotNow, SECOND * 35, 0.0);
        assert_eq!(p.next(&view(35, None, &[], &large)), Step::Wait(Some(SECOND)), "it may still be written");
        assert_eq!(p.next(&view(36, None, &[], &large)), Step::File(Ino(2)));
        let pressed = View { pressing: true, ..view(36, None, &[], &large) };
        assert_eq!(p.next(&pressed), Step::File(Ino(1)));
    }

    #[test]
    fn both_kinds_get_their_turn() {
        let mut p = Policy::new();
        let sealed: Vec<_> = (0..4).map(|i| segment(i, OBJECT_PAYLOAD_MAX, 0)).collect();
        let large = [file(1, 0, false), file(2, 0, false)];
        let steps: Vec<_> = (0..4).map(|_| p.next(&view(100, None, &sealed, &large))).collect();
        assert_eq!(steps, [Step::Pack(vec![0]), Step::File(Ino(1)), Step::Pack(vec![1]), Step::File(Ino(2))]);
    }

    #[test]
    fn after_failures_it_waits_ever_longer_until_somebody_is_in_a_hurry() {
        let mut p = Policy::new();
        let sealed = [segment(1, 1, 0)];
        for (now, wait) in [(10, 1), (20, 2), (30, 4), (40, 8), (50, 16), (70, 30), (110, 30)] {
            assert_eq!(p.next(&view(now, None, &sealed, &[])), Step::Pack(vec![1]));
            p.pack_done(&[1], Ended::Failed, SECOND * now as u32, 0.0);
            assert_eq!(p.next(&view(now, None, &sealed, &[])), Step::Wait(Some(SECOND * wait)));
        }
        p.hurry(1);
        assert_eq!(p.next(&view(110, None, &sealed, &[])), Step::Pack(vec![1]));
        p.pack_done(&[1], Ended::Damaged, SECOND * 110, 0.0);
        assert_eq!(
            p.next(&view(709, None, &sealed, &[])),
            Step::Wait(None),
            "a damaged segment is left alone"
        );
        assert_eq!(p.next(&view(710, None, &sealed, &[])), Step::Pack(vec![1]), "for a while");
    }

    #[test]
    fn damage_makes_nobody_else_wait() {
        let mut p = Policy::new();
        let (sealed, large) =
            ([segment(1, 1, 0), segment(2, 1, 90)], [file(1, 0, false), file(2, 60, false)]);
        assert_eq!(p.next(&view(80, None, &sealed[..1], &large)), Step::Pack(vec![1]));
        assert_eq!(p.next(&view(80, None, &sealed[..1], &large)), Step::File(Ino(1)));
        p.pack_done(&[1], Ended::Damaged, SECOND * 80, 0.0);
        p.file_done(Ino(1), Ended::Damaged, SECOND * 80, 0.0);
        assert_eq!(p.retry_in(SECOND * 80), Duration::ZERO);
        assert_eq!(
            p.next(&view(95, None, &sealed, &large)),
            Step::Pack(vec![2]),
            "the damaged one is not before it"
        );
        assert_eq!(p.next(&view(95, None, &sealed, &large)), Step::File(Ino(2)));
        assert_eq!(p.next(&view(95, None, &sealed, &large)), Step::Wait(Some(SECOND * 585)));
    }

    #[test]
    fn a_changed_policy_counts_for_what_is_staged_already() {
        let mut p = Policy::new();
        let (active, large) = (Some(segment(1, 10, 5)), [file(1, 5, false)]);
        assert_eq!(p.next(&view(5, active, &[], &large)), Step::Wait(Some(SECOND * 2)));
        let soon = WritePolicy { small_period_ms: 500, large_period_ms: 1_000, ..*policy(1) };
        let view = |now| View { policy: &soon, ..view(now, active, &[], &large) };
        assert_eq!(p.next(&view(5)), Step::Wait(Some(SECOND / 2)));
        assert_eq!(p.next(&view(6)), Step::File(Ino(1)));
        assert_eq!(p.next(&view(6)), Step::Wait(None), "one upload at once, now");
        p.file_done(Ino(1), Ended::Stored, SECOND * 6, 0.0);
        assert_eq!(p.next(&View { large: &[], ..view(6) }), Step::Seal);
    }

    #[test]
    fn full_segments_wait_for_the_period_as_well() {
        let mut p = Policy::new();
        let sealed: Vec<_> = (0..3).map(|i| segment(i, OBJECT_PAYLOAD_MAX, 5 + i)).collect();
        assert_eq!(p.next(&view(6, None, &sealed, &[])), Step::Wait(Some(SECOND)));
        assert_eq!(p.next(&view(7, None, &sealed, &[])), Step::Pack(vec![0]));
        assert_eq!(p.next(&view(7, None, &sealed, &[])), Step::Wait(Some(SECOND)), "each its own");
        p.hurry(1);
        assert_eq!(p.next(&view(7, None, &sealed, &[])), Step::Pack(vec![1]), "somebody waits for it");
        assert_eq!(p.next(&view(7, None, &sealed, &[])), Step::Wait(Some(SECOND * 2)));
        let pressed = View { pressing: true, ..view(7, None, &sealed, &[]) };
        assert_eq!(p.next(&pressed), Step::Pack(vec![2]));
    }

    #[test]
    fn those_who_wait_share_the_next_pack() {
        let mut p = Policy::new();
        let full = [segment(0, OBJECT_PAYLOAD_MAX, 0)];
        assert_eq!(p.next(&view(2, None, &full, &[])), Step::Pack(vec![0]), "which nobody waits for");
        p.want(1);
        assert_eq!(p.next(&view(2, Some(segment(1, 10, 2)), &[], &[])), Step::Seal, "nobody is before it");
        let first = [segment(1, 10, 2)];
        assert_eq!(p.next(&view(2, None, &first, &[])), Step::Pack(vec![1]));
        // More come while it is under way, to one segment.
        let second = Some(segment(2, 10, 2));
        (0..5).for_each(|_| p.want(2));
        assert_eq!(p.next(&view(2, second, &first, &[])), Step::Wait(Some(SECOND * 2)));
        p.pack_done(&[1], Ended::Stored, SECOND, 0.0);
        assert_eq!(p.next(&view(2, second, &[], &[])), Step::Seal);
        assert_eq!(p.next(&view(2, None, &[segment(2, 10, 2)], &[])), Step::Pack(vec![2]));
        p.pack_done(&[2], Ended::Stored, SECOND, 0.0);
        p.want(2);
        let third = Some(segment(3, 10, 2));
        assert_eq!(
            p.next(&view(2, third, &[], &[])),
            Step::Wait(Some(SECOND * 2)),
            "that one is there already"
        );
    }

    proptest! {
        /// After failures everything waits between a half and the whole of a time that doubles up to its bound.
        #[test]
        fn waits_are_spread_within_their_bound(spreads in prop::collection::vec(0.0f64..=1.0, 1..12)) {
            let mut p = Policy::new();
            let (sealed, mut bound) = ([segment(1, 1, 0)], BACKOFF.0);
            for spread in spreads {
                prop_assert_eq!(p.next(&view(1000, None, &sealed, &[])), Step::Pack(vec![1]));
                p.pack_done(&[1], Ended::Failed, SECOND * 1000, spread);
                let wait = p.retry_in(SECOND * 1000);
                prop_assert!(wait <= bound && wait >= bound / 2, "{wait:?} of {bound:?}");
                bound = (bound * 2).min(BACKOFF.1);
                p.hurry(1);
            }
        }
    }
}
