//! The locks that this session's programs have, for a service that was restarted and does not know: plain data.
//!
//! Who stops waiting may be given the lock all the same, when both cross. Nobody was told of it then, and it is given back; but
//! not before every other call of that owner is over, which may be the next try for the same lock: that one's would go too.

use std::collections::HashMap;

use granary_core::Ino;

use crate::lease::{Lock, LockOwner, LockRequest};

/// Inode, owner, whether by `flock`.
type Key = (Ino, LockOwner, bool);

#[derive(Debug, Default)]
pub(super) struct HeldLocks {
    map: HashMap<Key, Vec<Lock>>,
    /// Of owners that have calls under way.
    calls: HashMap<Key, Calls>,
}

#[derive(Debug, Default)]
struct Calls {
    under_way: usize,
    /// What the service did for who had gone.
    unwanted: Vec<LockRequest>,
}

/// How a lock call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The service did it; `told`: who asked knows.
    Done {
        told: bool,
    },
    NotDone,
}

fn key(ino: Ino, request: &LockRequest) -> Key {
    (ino, request.owner, request.lock.flock)
}

/// What is left of `lock` without `start..=end`.
fn without(lock: Lock, start: u64, end: u64) -> impl Iterator<Item = Lock> {
    let before = (lock.start < start).then(|| Lock { end: lock.end.min(start.saturating_sub(1)), ..lock });
    let after = (lock.end > end).then(|| Lock { start: lock.start.max(end.saturating_add(1)), ..lock });
    before.into_iter().chain(after)
}

/// What is left of `lock` without all of `others`.
fn without_all(lock: Lock, others: &[Lock]) -> Vec<Lock> {
    others.iter().fold(vec![lock], |left, other| {
        left.into_iter().flat_map(|lock| without(lock, other.start, other.end)).collect()
    })
}

impl HeldLocks {
    /// One that another process was told of.
    pub fn inherit(&mut self, ino: Ino, owner: LockOwner, lock: Lock) {
        self.apply(ino, &LockRequest { owner, lock, unlock: false, wait: false });
    }

    /// A call is made.
    pub fn begin(&mut self, ino: Ino, request: &LockRequest) {
        self.calls.entry(key(ino, request)).or_default().under_way += 1;
    }

    /// It has ended. Returns what is to be asked of the service so that it has what the programs were told, and no more.
    pub fn end(&mut self, ino: Ino, request: &LockRequest, end: End) -> Vec<LockRequest> {
        if end == (End::Done { told: true }) || end == (End::Done { told: false }) && request.unlock {
            self.apply(ino, request);
        }
        let key = key(ino, request);
        let Some(calls) = self.calls.get_mut(&key) else { return Vec::new() };
        if end == (End::Done { told: false }) && !request.unlock {
            calls.unwanted.push(*request);
        }
        calls.under_way = calls.under_way.saturating_sub(1);
        if calls.under_way > 0 {
            return Vec::new();
        }
        let unwanted = self.calls.remove(&key).map_or_else(Vec::new, |calls| calls.unwanted);
        unwanted.iter().flat_map(|request| self.as_told(ino, request)).collect()
    }

    /// One that ended as told was not heard of: it is not had. What the owner had in its range before is not known any more.
    pub fn unheard(&mut self, ino: Ino, request: &LockRequest) -> Vec<LockRequest> {
        if request.unlock {
            return Vec::new();
        }
        self.apply(ino, &LockRequest { unlock: true, ..*request });
        self.begin(ino, request);
        self.end(ino, request, End::Done { told: false })
    }

    /// What makes the range of a request as the programs know it.
    fn as_told(&self, ino: Ino, request: &LockRequest) -> Vec<LockRequest> {
        let held = self.within(ino, request);
        let again = |lock, unlock| LockRequest { lock, unlock, wait: false, ..*request };
        let locks = held.iter().map(|lock| again(*lock, false));
        let gaps = without_all(request.lock, &held).into_iter().map(|gap| again(gap, true));
        locks.chain(gaps).collect()
    }

    /// The service did what was asked.
    fn apply(&mut self, ino: Ino, request: &LockRequest) {
        let Lock { start, end, .. } = request.lock;
        let key = key(ino, request);
        let held = self.map.remove(&key).unwrap_or_default();
        let mut held: Vec<Lock> = held.into_iter().flat_map(|lock| without(lock, start, end)).collect();
        if !request.unlock {
            held.push(request.lock);
        }
        if !held.is_empty() {
            self.map.insert(key, held);
        }
    }

    /// The locks of an owner within a range, cut to it.
    fn within(&self, ino: Ino, request: &LockRequest) -> Vec<Lock> {
        let Lock { start, end, .. } = request.lock;
        let held = self.map.get(&key(ino, request)).into_iter().flatten();
        held.filter(|lock| lock.start <= end && lock.end >= start)
            .map(|lock| Lock { start: lock.start.max(start), end: lock.end.min(end), ..*lock })
            .collect()
    }

    pub fn all(&self) -> Vec<(Ino, LockOwner, Lock)> {
        let mut all: Vec<_> = self
            .map
            .iter()
            .flat_map(|((ino, owner, _), locks)| locks.iter().map(move |lock| (*ino, *owner, *lock)))
            .collect();
        all.sort_unstable_by_key(|(ino, owner, lock)| (*ino, *owner, lock.flock, lock.start));
        all
    }

    pub fn clear(&mut self) {
        self.map.clear();
        self.calls.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::lease::LockKind;

    proptest! {
        /// Against a table of bytes.
        #[test]
        fn each_byte_has_the_lock_it_was_given_last(
            steps in proptest::collection::vec((0u64..20, 0u64..20, any::<bool>(), any::<bool>()), 1..40),
        ) {
            let (mut held, mut bytes) = (HeldLocks::default(), [None; 40]);
            for (start, len, unlock, exclusive) in steps {
                let kind = if exclusive { LockKind::Exclusive } else { LockKind::Shared };
                let end = start + len;
                let lock = Lock { flock: false, kind, start, end, pid: 1 };
                held.apply(Ino(1), &LockRequest { owner: LockOwner(1), lock, unlock, wait: false });
                bytes[start as usize..=end as usize].fill((!unlock).then_some(kind));
                let mut found = [None; 40];
                for (_, _, lock) in held.all() {
                    for byte in lock.start..=lock.end {
                        prop_assert!(found[byte as usize].replace(lock.kind).is_none());
                    }
                }
                prop_assert_eq!(found, bytes);
            }
        }

        #[test]
        fn a_lock_to_the_end_can_be_split(at in 1u64..u64::MAX - 1) {
            let mut held = HeldLocks::default();
            let all = Lock { flock: false, kind: LockKind::Shared, start: 0, end: u64::MAX, pid: 1 };
            held.apply(Ino(1), &LockRequest { owner: LockOwner(1), lock: all, unlock: false, wait: false });
            let one = Lock { start: at, end: at, ..all };
            held.apply(Ino(1), &LockRequest { owner: LockOwner(1), lock: one, unlock: true, wait: false });
            let left: Vec<_> = held.all().iter().map(|(_, _, l)| (l.start, l.end)).collect();
            prop_assert_eq!(left, vec![(0, at - 1), (at + 1, u64::MAX)]);
        }
    }

    fn request(kind: LockKind, start: u64, end: u64) -> LockRequest {
        let lock = Lock { flock: false, kind, start, end, pid: 1 };
        LockRequest { owner: LockOwner(1), lock, unlock: false, wait: true }
    }

    const TOLD: End = End::Done { told: true };
    const UNTOLD: End = End::Done { told: false };

    fn said(requests: Vec<LockRequest>) -> Vec<(bool, LockKind, u64, u64)> {
        requests.iter().map(|r| (r.unlock, r.lock.kind, r.lock.start, r.lock.end)).collect()
    }

    #[test]
    fn what_nobody_was_told_of_is_made_as_it_was() {
        use LockKind::{Exclusive, Shared};
        let mut held = HeldLocks::default();
        held.begin(Ino(1), &request(Shared, 4, 6));
        assert_eq!(said(held.end(Ino(1), &request(Shared, 4, 6), TOLD)), []);
        held.begin(Ino(1), &request(Exclusive, 0, 9));
        let again = held.end(Ino(1), &request(Exclusive, 0, 9), UNTOLD);
        assert_eq!(said(again), [(false, Shared, 4, 6), (true, Exclusive, 0, 3), (true, Exclusive, 7, 9)]);
        assert_eq!(held.all().len(), 1);
        held.begin(Ino(1), &request(Exclusive, 0, 9));
        assert_eq!(said(held.end(Ino(1), &request(Exclusive, 0, 9), End::NotDone)), []);
        assert!(held.calls.is_empty());
    }

    /// Interrupted, asked again, and both are granted at once.
    #[test]
    fn the_next_try_keeps_what_the_first_is_given_too_late() {
        use LockKind::Exclusive;
        let (mut held, lock) = (HeldLocks::default(), request(LockKind::Exclusive, 0, 9));
        for next in [TOLD, UNTOLD, End::NotDone] {
            held.begin(Ino(1), &lock);
            held.begin(Ino(1), &lock);
            assert_eq!(said(held.end(Ino(1), &lock, UNTOLD)), [], "not while the next is under way");
            let then = said(held.end(Ino(1), &lock, next));
            if next == TOLD {
                assert_eq!(then, [(false, Exclusive, 0, 9)]);
                held.apply(Ino(1), &LockRequest { unlock: true, ..lock });
            } else {
                assert!(
                    !then.is_empty() && then.iter().all(|said| *said == (true, Exclusive, 0, 9)),
                    "{then:?}"
                );
            }
            assert!(held.all().is_empty() && held.calls.is_empty());
        }
    }

    #[test]
    fn an_answer_that_was_not_heard_is_given_back() {
        use LockKind::Exclusive;
        let (mut held, lock) = (HeldLocks::default(), request(LockKind::Exclusive, 0, 9));
        held.begin(Ino(1), &lock);
        held.end(Ino(1), &lock, TOLD);
        assert_eq!(said(held.unheard(Ino(1), &lock)), [(true, Exclusive, 0, 9)]);
        assert!(held.all().is_empty());
        assert_eq!(said(held.unheard(Ino(1), &LockRequest { unlock: true, ..lock })), []);
    }
}
