//! A queue of places, first in, first out, of which one owner's can be taken out of the middle too.

use std::collections::{BTreeMap, VecDeque};

use super::Entry;
use super::owners::{NO_OWNER, NOBODY};

/// What looking at the entry behind a place counts for, of a look at the place alone: a way down a tree against the next 48 bytes.
const LOOKUP_COST: usize = 16;

#[derive(Clone, Copy, Debug)]
struct Place<K> {
    key: K,
    /// Of the entry that took the place: if that has another, nobody has the place any more.
    stay: u64,
    /// `NOBODY` also when the owner was learned later; `NO_OWNER` when it is known that nobody has the place any more.
    owner: u16,
}

#[derive(Debug)]
pub(super) struct Line<K> {
    places: VecDeque<Place<K>>,
    /// Number of the first place; each next one has one more.
    front: u64,
}

impl<K: Ord + Copy> Line<K> {
    pub fn new() -> Line<K> {
        // Places may be made in front, too.
        Line { places: VecDeque::new(), front: 1 << 63 }
    }

    /// Places, those that nobody has any more too.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// The number of the first place, from where one owner's are looked for.
    pub fn front(&self) -> u64 {
        self.front
    }

    pub fn push_back(&mut self, key: K, entry: &Entry) {
        self.places.push_back(Place { key, stay: entry.stay, owner: entry.owner });
    }

    pub fn push_front(&mut self, key: K, entry: &Entry) {
        self.front -= 1;
        self.places.push_front(Place { key, stay: entry.stay, owner: entry.owner });
    }

    /// The oldest entry. Places of entries that were removed meanwhile are skipped.
    pub fn pop(&mut self, entries: &BTreeMap<K, Entry>) -> Option<(K, Entry)> {
        while let Some(Place { key, stay, .. }) = self.places.pop_front() {
            self.front += 1;
            if let Some(entry) = entries.get(&key).filter(|entry| entry.stay == stay) {
                return Some((key, *entry));
            }
        }
        None
    }

    /// The owner's oldest entry from place `next` on, and then from the front, which moves on: so that places are not looked at
    /// again and again. `None` when there is none, or when `looks`, which become fewer, are used up.
    pub fn pop_of(
        &mut self,
        entries: &BTreeMap<K, Entry>,
        owner: u16,
        next: &mut u64,
        looks: &mut usize,
    ) -> Option<(K, Entry)> {
        for _ in 0..self.places.len() {
            if *looks == 0 {
                return None;
            }
            if !(self.front..self.front + self.places.len() as u64).contains(next) {
                *next = self.front;
            }
            let place = &mut self.places[(*next - self.front) as usize];
            *next += 1;
            if place.owner != owner && place.owner != NOBODY {
                *looks -= 1;
                continue;
            }
            *looks = looks.saturating_sub(LOOKUP_COST);
            let Some(entry) = entries.get(&place.key).filter(|entry| entry.stay == place.stay) else {
                place.owner = NO_OWNER;
                continue;
            };
            place.owner = entry.owner;
            if entry.owner == owner {
                (place.stay, place.owner) = (0, NO_OWNER); // no stay has that number
                return Some((place.key, *entry));
            }
        }
        None
    }

    /// Keeps the places for which this holds, by key and stay.
    pub fn retain(&mut self, mut keep: impl FnMut(&K, u64) -> bool) {
        self.places.retain(|place| keep(&place.key, place.stay));
    }
}

#[cfg(test)]
pub(super) fn place_bytes<K>() -> usize {
    size_of::<Place<K>>()
}
