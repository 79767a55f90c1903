//! The locks that this session has, for a service that was restarted and does not know: plain data.

use std::collections::HashMap;

use granary_core::Ino;

use crate::lease::{Lock, LockOwner, LockRequest};

#[derive(Debug, Default)]
pub(super) struct HeldLocks {
    map: HashMap<(Ino, LockOwner, bool), Vec<Lock>>,
}

/// What is left of `lock` without `start..=end`.
fn without(lock: Lock, start: u64, end: u64) -> impl Iterator<Item = Lock> {
    let before = (lock.start < start).then(|| Lock { end: lock.end.min(start.saturating_sub(1)), ..lock });
    let after = (lock.end > end).then(|| Lock { start: lock.start.max(end.saturating_add(1)), ..lock });
    before.into_iter().chain(after)
}

/// What is left of `lock` without all of `others`.
pub(super) fn without_all(lock: Lock, others: &[Lock]) -> Vec<Lock> {
    others.iter().fold(vec![lock], |left, other| {
        left.into_iter().flat_map(|lock| without(lock, other.start, other.end)).collect()
    })
}

impl HeldLocks {
    /// The service did what was asked.
    pub fn apply(&mut self, ino: Ino, request: &LockRequest) {
        let Lock { start, end, flock, .. } = request.lock;
        let key = (ino, request.owner, flock);
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
    pub fn within(&self, ino: Ino, request: &LockRequest) -> Vec<Lock> {
        let Lock { start, end, flock, .. } = request.lock;
        let held = self.map.get(&(ino, request.owner, flock)).into_iter().flatten();
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
}
