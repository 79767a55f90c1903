//! When entries are wanted next, as readers said who know their order (loaders). Decides only.
//!
//! Times are places on one clock: the bytes that all such readers read together ([`Readers`](crate::read::readers)). What several wait for is wanted
//! when the first of them comes to it.
//!
//! **What readers say decides which of an owner's entries leaves, never whose:** the queues choose an entry whose turn it is to leave, and only then
//! another one of the same owner goes in its place, of the main queue, that is wanted later. The small queue is left alone: a reader that follows
//! close behind another finds there what the first has done with. An entry that is long overdue has been given up by who wanted it, and goes first.
//!
//! What was said of an entry that is not here is remembered for a while, of as many as there are here: when one reader brings it back, it is known
//! when another one wants it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::owners::NOBODY;

/// Who says it. Never the same twice in a process.
pub(crate) type ReaderId = u64;

/// Readers of an entry that are remembered.
const READERS_MAX: usize = 8;
/// Entries that are looked at to find one that may go.
const LOOKS_MAX: usize = 64;
/// What is overdue by this part of the cache's bytes was given up.
const OVERDUE_SHARE: u64 = 4;
/// Entries that left are remembered, at least.
const AWAY_MIN: usize = 64;
/// Of those, places in the order in which they left, at most: an entry that came and left again has two.
const PLACES: usize = 4;

#[derive(Debug)]
pub(super) struct Wanted<K> {
    by_key: BTreeMap<K, Told>,
    /// Each owner's, by when they are wanted.
    lines: BTreeMap<u16, BTreeSet<(u64, K)>>,
    /// Those that left or did not come yet, in that order; some have come or were forgotten since.
    left: VecDeque<K>,
    /// How many are not here.
    away: usize,
    /// What the clock was when somebody spoke last.
    now: u64,
}

#[derive(Debug)]
struct Told {
    owner: u16,
    is_here: bool,
    /// By readers; not empty.
    next: Vec<(ReaderId, u64)>,
}

impl Told {
    fn first(&self) -> u64 {
        self.next.iter().map(|(_, at)| *at).min().unwrap_or(u64::MAX)
    }
}

impl<K: Ord + Copy> Wanted<K> {
    pub fn new() -> Wanted<K> {
        Wanted { by_key: BTreeMap::new(), lines: BTreeMap::new(), left: VecDeque::new(), away: 0, now: 0 }
    }

    /// A reader reads an entry, and comes to it again at `at`. `owner`: if it is here.
    pub fn tell(&mut self, key: K, owner: Option<u16>, reader: ReaderId, at: u64, now: u64) {
        self.now = self.now.max(now);
        let mut next = self.take(&key).map(|told| told.next).unwrap_or_default();
        next.retain(|(of, _)| *of != reader);
        if next.len() == READERS_MAX {
            next.remove(0);
        }
        next.push((reader, at));
        let told = Told { owner: owner.unwrap_or(NOBODY), is_here: owner.is_some(), next };
        self.put(key, told);
        if owner.is_none() {
            self.is_away(key);
        }
    }

    fn take(&mut self, key: &K) -> Option<Told> {
        let told = self.by_key.remove(key)?;
        if !told.is_here {
            self.away -= 1;
        } else if let Some(line) = self.lines.get_mut(&told.owner) {
            line.remove(&(told.first(), *key));
            if line.is_empty() {
                self.lines.remove(&told.owner);
            }
        }
        Some(told)
    }

    fn put(&mut self, key: K, told: Told) {
        if told.is_here {
            self.lines.entry(told.owner).or_default().insert((told.first(), key));
        } else {
            self.away += 1;
        }
        self.by_key.insert(key, told);
    }

    /// Nothing is known of the entry any more.
    pub fn forget(&mut self, key: &K) {
        if !self.by_key.is_empty() {
            self.take(key);
        }
    }

    /// The entry came, or has another owner.
    pub fn arrive(&mut self, key: K, owner: u16) {
        if !self.by_key.is_empty()
            && let Some(told) = self.take(&key)
        {
            self.put(key, Told { owner, is_here: true, ..told });
        }
    }

    /// The entry leaves the cache.
    pub fn leave(&mut self, key: K) {
        if let Some(told) = self.take(&key) {
            self.put(key, Told { is_here: false, ..told });
            self.is_away(key);
        }
    }

    fn is_away(&mut self, key: K) {
        self.left.push_back(key);
        let most = AWAY_MIN.max(self.by_key.len() - self.away);
        while self.away > most || self.left.len() > PLACES * most {
            let Some(oldest) = self.left.pop_front() else { break };
            if self.by_key.get(&oldest).is_some_and(|told| !told.is_here) {
                self.take(&oldest);
            }
        }
    }

    /// A reader is gone: what it said of `many` entries behind `after`. Where to go on; `None`: all is done.
    pub fn forget_reader(&mut self, reader: ReaderId, after: Option<K>, many: usize) -> Option<K> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        let keys: Vec<K> = self.by_key.range((from, Unbounded)).take(many).map(|(key, _)| *key).collect();
        for key in &keys {
            if !self.by_key[key].next.iter().any(|(of, _)| *of == reader) {
                continue;
            }
            if let Some(mut told) = self.take(key) {
                told.next.retain(|(of, _)| *of != reader);
                if !told.next.is_empty() {
                    self.put(*key, told);
                }
            }
        }
        keys.last().copied().filter(|_| keys.len() == many)
    }

    /// Of the owner of this entry, whose turn it is to leave, another one that `may` go in its place. `budget`: the cache's bytes.
    pub fn instead_of(&self, key: &K, budget: u64, may: impl Fn(&K) -> bool) -> Option<K> {
        let told = self.by_key.get(key).filter(|told| told.is_here)?;
        let is_overdue = |at: u64| at.saturating_add(budget / OVERDUE_SHARE) < self.now;
        if is_overdue(told.first()) {
            return None;
        }
        let line = self.lines.get(&told.owner)?;
        let goes = |other: &K| other != key && may(other);
        let overdue = line.iter().take(LOOKS_MAX).take_while(|(at, _)| is_overdue(*at));
        let later = line.iter().rev().take(LOOKS_MAX).take_while(|(at, _)| *at > told.first());
        overdue.chain(later).map(|(_, other)| *other).find(goes)
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        let here = self.lines.values().map(BTreeSet::len).sum::<usize>();
        assert_eq!(here + self.away, self.by_key.len());
        self.by_key.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_last_goes_and_of_the_same_owner_only() {
        let mut wanted = Wanted::new();
        for (key, owner, at) in [(1, 7, 100), (2, 7, 300), (3, 7, 200), (4, 8, 900)] {
            wanted.tell(key, Some(owner), 1, at, 10);
        }
        assert_eq!(wanted.instead_of(&1, 1000, |_| true), Some(2));
        assert_eq!(wanted.instead_of(&1, 1000, |key| *key != 2), Some(3));
        assert_eq!(wanted.instead_of(&2, 1000, |_| true), None);
        assert_eq!(wanted.instead_of(&4, 1000, |_| true), None);
        assert_eq!(wanted.instead_of(&5, 1000, |_| true), None);
        // Another reader comes to it sooner.
        wanted.tell(2, Some(7), 2, 50, 10);
        assert_eq!(wanted.instead_of(&1, 1000, |_| true), Some(3));
        // It ends.
        assert_eq!(wanted.forget_reader(2, None, 3), Some(3));
        assert_eq!(wanted.forget_reader(2, Some(3), 3), None);
        assert_eq!(wanted.instead_of(&1, 1000, |_| true), Some(2));
        // It has read it, and wants it later.
        wanted.tell(1, Some(7), 1, 400, 110);
        assert_eq!(wanted.instead_of(&2, 1000, |_| true), Some(1));
        // Nobody came to 3 for long.
        wanted.tell(2, Some(7), 1, 800, 451);
        assert_eq!(wanted.instead_of(&1, 1000, |_| true), Some(3));
        assert_eq!(wanted.instead_of(&3, 1000, |_| true), None);
        wanted.leave(3);
        assert_eq!(wanted.len(), 4);
        // Another reader brings it back, and the first wants it still.
        wanted.tell(3, None, 3, 9000, 451);
        assert_eq!(wanted.instead_of(&1, 1000, |_| true), Some(2));
        wanted.arrive(3, 7);
        assert_eq!(wanted.instead_of(&1, 1000, |_| true), Some(3));
        wanted.forget(&3);
        assert_eq!(wanted.instead_of(&1, 1000, |_| true), Some(2));
        assert_eq!(wanted.forget_reader(1, None, 100), None);
        assert_eq!(wanted.len(), 0);
        for key in 0..1000 {
            wanted.tell(key, Some(7), 1, 5, 1);
        }
        (0..700).for_each(|key| wanted.leave(key));
        assert_eq!(wanted.len(), 600, "as many as are here");
    }
}
