use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const F: Ino = Ino(2);

fn owner(n: u64) -> Owner {
    ((n / 2) as Member, LockOwner(n % 2))
}

fn lock(kind: LockKind, start: u64, end: u64) -> Lock {
    Lock { flock: false, kind, start, end, pid: 0 }
}

fn exclusive(start: u64, end: u64) -> Lock {
    lock(LockKind::Exclusive, start, end)
}

fn ask(locks: &mut Locks, ino: Ino, who: u64, what: &Lock, wait: bool) -> Asked {
    let mut granted = Vec::new();
    let asked = locks.request(ino, owner(who), what, false, wait, &mut granted);
    assert!(granted.is_empty());
    asked
}

fn unlock(locks: &mut Locks, ino: Ino, who: u64, what: &Lock) -> Vec<Ticket> {
    let mut granted = Vec::new();
    assert_eq!(locks.request(ino, owner(who), what, true, false, &mut granted), Asked::Done);
    granted
}

#[test]
fn ranges_split_merge_and_change_their_kind() {
    let locks = &mut Locks::default();
    assert_eq!(ask(locks, F, 0, &exclusive(0, 99), false), Asked::Done);
    unlock(locks, F, 0, &exclusive(40, 59));
    assert_eq!(locks.count(0), 2);
    assert_eq!(ask(locks, F, 1, &exclusive(40, 59), false), Asked::Done);
    assert_eq!(ask(locks, F, 1, &exclusive(39, 59), false), Asked::WouldBlock);
    assert_eq!(locks.test(F, owner(2), &exclusive(0, u64::MAX)), Some(exclusive(0, 39)));
    unlock(locks, F, 1, &exclusive(0, u64::MAX));
    assert_eq!(ask(locks, F, 0, &exclusive(40, 59), false), Asked::Done);
    assert_eq!(locks.count(0), 1, "three became one");
    assert_eq!(ask(locks, F, 0, &lock(LockKind::Shared, 10, 19), false), Asked::Done);
    assert_eq!(locks.count(0), 3);
    assert_eq!(ask(locks, F, 2, &lock(LockKind::Shared, 12, 13), false), Asked::Done);
    assert_eq!(ask(locks, F, 0, &exclusive(10, 12), false), Asked::WouldBlock);
    unlock(locks, F, 0, &exclusive(0, u64::MAX));
    unlock(locks, F, 2, &exclusive(0, u64::MAX));
    assert!(locks.files.is_empty() && locks.counts.is_empty());
}

#[test]
fn waits_are_served_in_their_order() {
    let locks = &mut Locks::default();
    assert_eq!(ask(locks, F, 0, &lock(LockKind::Shared, 0, 9), false), Asked::Done);
    let Asked::Waits(first) = ask(locks, F, 2, &exclusive(0, 9), true) else { panic!("it has to wait") };
    // A reader does not overtake the writer.
    let Asked::Waits(second) = ask(locks, F, 4, &lock(LockKind::Shared, 0, 9), true) else { panic!() };
    // Somewhere else is nobody before him.
    assert_eq!(ask(locks, F, 6, &lock(LockKind::Shared, 10, 19), true), Asked::Done);
    // Who is waited for may go on: the reader becomes a writer before the writer that waits for it.
    assert_eq!(ask(locks, F, 0, &exclusive(0, 9), true), Asked::Done);
    assert_eq!(unlock(locks, F, 0, &exclusive(0, 9)), [first]);
    assert_eq!(unlock(locks, F, 2, &exclusive(0, 9)), [second]);
}

#[test]
fn a_cancelled_wait_lets_those_behind_it_go() {
    let locks = &mut Locks::default();
    assert_eq!(ask(locks, F, 0, &lock(LockKind::Shared, 0, 9), false), Asked::Done);
    let Asked::Waits(first) = ask(locks, F, 2, &exclusive(0, 9), true) else { panic!() };
    let Asked::Waits(second) = ask(locks, F, 4, &lock(LockKind::Shared, 0, 9), true) else { panic!() };
    let mut granted = Vec::new();
    assert_eq!(locks.cancel(&[first], &mut granted), 1);
    assert_eq!(granted, [second]);
    assert_eq!(locks.cancel(&[first, second], &mut granted), 0);
}

#[test]
fn a_ring_is_refused_across_files_and_sessions() {
    let locks = &mut Locks::default();
    for (who, file) in [(0, Ino(10)), (2, Ino(11)), (4, Ino(12))] {
        assert_eq!(ask(locks, file, who, &exclusive(0, 0), false), Asked::Done);
    }
    let Asked::Waits(_) = ask(locks, Ino(11), 0, &exclusive(0, 0), true) else { panic!() };
    let Asked::Waits(last) = ask(locks, Ino(12), 2, &exclusive(0, 0), true) else { panic!() };
    assert_eq!(ask(locks, Ino(10), 4, &exclusive(0, 0), true), Asked::Deadlock);
    // Who gave up lets the others go, one after another.
    assert_eq!(unlock(locks, Ino(12), 4, &exclusive(0, 0)), [last]);
}

/// X waits behind W only for the order's sake; when what W waits for comes to wait for X, X overtakes.
#[test]
fn the_order_alone_makes_no_ring() {
    let locks = &mut Locks::default();
    let (w, x, y) = (0, 2, 4);
    assert_eq!(ask(locks, F, y, &lock(LockKind::Shared, 0, 9), false), Asked::Done);
    let Asked::Waits(_) = ask(locks, F, w, &exclusive(0, 9), true) else { panic!() };
    assert_eq!(ask(locks, Ino(9), x, &exclusive(0, 9), false), Asked::Done);
    let Asked::Waits(waits) = ask(locks, F, x, &lock(LockKind::Shared, 0, 9), true) else { panic!() };
    let mut granted = Vec::new();
    let asked = locks.request(Ino(9), owner(y), &exclusive(0, 9), false, true, &mut granted);
    assert!(matches!(asked, Asked::Waits(_)), "{asked:?}");
    assert_eq!(granted, [waits]);
}

#[test]
fn flock_is_a_space_of_its_own_and_gives_the_old_lock_up_first() {
    let locks = &mut Locks::default();
    let flock = |kind| normal(Lock { flock: true, kind, start: 5, end: 3, pid: 0 }).unwrap();
    let (shared, whole) = (flock(LockKind::Shared), flock(LockKind::Exclusive));
    assert_eq!(ask(locks, F, 0, &exclusive(0, u64::MAX), false), Asked::Done);
    assert_eq!(ask(locks, F, 2, &shared, false), Asked::Done);
    assert_eq!(ask(locks, F, 4, &shared, false), Asked::Done);
    // Both want all of it: no ring, because the first gave up what it had.
    let Asked::Waits(first) = ask(locks, F, 2, &whole, true) else { panic!() };
    assert_eq!(ask(locks, F, 4, &whole, true), Asked::Done);
    assert_eq!(locks.test(F, owner(6), &shared), Some(whole));
    assert_eq!(unlock(locks, F, 4, &whole), [first]);
    // Who cannot have it at once loses what it had, as on Linux.
    unlock(locks, F, 2, &whole);
    assert_eq!(ask(locks, F, 2, &shared, false), Asked::Done);
    assert_eq!(ask(locks, F, 4, &shared, false), Asked::Done);
    assert_eq!(ask(locks, F, 4, &whole, false), Asked::WouldBlock);
    assert_eq!(locks.count(2), 0);
}

#[test]
fn a_member_that_ends_leaves_nothing() {
    let locks = &mut Locks::default();
    assert_eq!(ask(locks, F, 0, &exclusive(0, 9), false), Asked::Done);
    assert_eq!(ask(locks, F, 1, &exclusive(20, 29), false), Asked::Done);
    let Asked::Waits(a) = ask(locks, F, 2, &exclusive(0, 9), true) else { panic!() };
    let Asked::Waits(_) = ask(locks, F, 0, &lock(LockKind::Shared, 0, 29), true) else { panic!() };
    let mut granted = Vec::new();
    locks.remove_member(0, &mut granted);
    assert_eq!(granted, [a]);
    assert_eq!((locks.count(0), locks.count(1), locks.waits.len()), (0, 1, 0));
}

/// Bytes and who has them, one by one.
#[derive(Default)]
struct Naive {
    bytes: BTreeMap<(Ino, u64), BTreeMap<Owner, LockKind>>,
    waits: BTreeMap<Ticket, (Ino, Owner, Lock)>,
}

const BYTES: u64 = 8;

impl Naive {
    fn set(&mut self, ino: Ino, who: Owner, lock: &Lock, unlock: bool) {
        for at in lock.start..=lock.end.min(BYTES) {
            let holders = self.bytes.entry((ino, at)).or_default();
            if unlock {
                holders.remove(&who);
            } else {
                holders.insert(who, lock.kind);
            }
        }
    }

    fn in_the_way(&self, ino: Ino, who: Owner, lock: &Lock) -> BTreeSet<Owner> {
        let mut found = BTreeSet::new();
        for at in lock.start..=lock.end.min(BYTES) {
            for (other, kind) in self.bytes.get(&(ino, at)).into_iter().flatten() {
                if *other != who && (*kind == LockKind::Exclusive || lock.kind == LockKind::Exclusive) {
                    found.insert(*other);
                }
            }
        }
        found
    }

    fn waits_for(&self, from: &BTreeSet<Owner>, who: Owner) -> bool {
        let mut met = from.clone();
        loop {
            let mut next = met.clone();
            for (ino, waiter, lock) in self.waits.values() {
                if met.contains(waiter) {
                    next.extend(self.in_the_way(*ino, *waiter, lock));
                }
            }
            if next == met {
                return met.contains(&who);
            }
            met = next;
        }
    }

    fn granted(&mut self, tickets: &[Ticket]) {
        for ticket in tickets {
            let (ino, who, lock) = self.waits.remove(ticket).unwrap();
            assert!(self.in_the_way(ino, who, &lock).is_empty(), "{who:?} got {lock:?} of {ino} too early");
            self.set(ino, who, &lock, false);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn as_bytes_one_by_one(steps in prop::collection::vec((0u8..10, 0u64..8, 0u64..2, 0..BYTES, 0..BYTES, any::<bool>()), 1..80)) {
        let (mut locks, mut naive) = (Locks::default(), Naive::default());
        for (what, who, file, a, b, shared) in steps {
            let (who, ino) = (owner(who), Ino(10 + file));
            let lock = lock(if shared { LockKind::Shared } else { LockKind::Exclusive }, a.min(b), a.max(b));
            let mut granted = Vec::new();
            // A process whose thread waits may do other things: owners that wait go on asking.
            match what {
                0..=5 => {
                    let wait = what > 2;
                    let in_the_way = naive.in_the_way(ino, who, &lock);
                    match locks.request(ino, who, &lock, false, wait, &mut granted) {
                        Asked::Done => {
                            if !in_the_way.is_empty() {
                                // Others overtook it who wanted less than they had: then nothing is in its way.
                                naive.granted(&std::mem::take(&mut granted));
                            }
                            prop_assert!(naive.in_the_way(ino, who, &lock).is_empty());
                            naive.set(ino, who, &lock, false);
                        }
                        Asked::WouldBlock => prop_assert!(!wait && !in_the_way.is_empty()),
                        Asked::Deadlock => prop_assert!(wait && naive.waits_for(&in_the_way, who)),
                        Asked::Waits(ticket) => {
                            prop_assert!(wait && !naive.waits_for(&in_the_way, who));
                            naive.waits.insert(ticket, (ino, who, lock));
                        }
                    }
                }
                6 | 7 => {
                    prop_assert_eq!(locks.request(ino, who, &lock, true, false, &mut granted), Asked::Done);
                    naive.set(ino, who, &lock, true);
                }
                8 => if let Some((ticket, _)) = naive.waits.pop_first() {
                    prop_assert_eq!(locks.cancel(&[ticket], &mut granted), 1);
                },
                _ => {
                    locks.remove_member(who.0, &mut granted);
                    naive.waits.retain(|_, (_, w, _)| w.0 != who.0);
                    naive.bytes.values_mut().for_each(|holders| holders.retain(|w, _| w.0 != who.0));
                }
            }
            naive.granted(&granted);
            for ino in [Ino(10), Ino(11)] {
                for at in 0..BYTES {
                    for probe in [0, 3, 6] {
                        for kind in [LockKind::Shared, LockKind::Exclusive] {
                            let one = super::tests::lock(kind, at, at);
                            let free = naive.in_the_way(ino, owner(probe), &one).is_empty();
                            prop_assert_eq!(locks.test(ino, owner(probe), &one).is_none(), free);
                        }
                    }
                }
                // The first in line waits for somebody who holds something.
                if let Some(first) = locks.files.get(&ino).and_then(|file| file.line.front()) {
                    prop_assert!(!naive.in_the_way(ino, first.owner, &first.lock).is_empty());
                }
            }
        }
        // When all give back what they have, nobody waits any more.
        for _ in 0..naive.waits.len() + 1 {
            for member in 0..4 {
                for which in 0..2 {
                    for ino in [Ino(10), Ino(11)] {
                        let who = (member, LockOwner(which));
                        let mut granted = Vec::new();
                        let all = super::tests::lock(LockKind::Shared, 0, u64::MAX);
                        locks.request(ino, who, &all, true, false, &mut granted);
                        naive.set(ino, who, &all, true);
                        naive.granted(&granted);
                    }
                }
            }
        }
        prop_assert!(naive.waits.is_empty() && locks.waits.is_empty() && locks.waiting.is_empty());
    }
}
