//! Records as they are in the engine, decoded, bounded in number.

use std::collections::HashMap;
use std::mem;

use crate::changes::KeyHash;
use crate::record::{Family, Key, Value};

type Map = HashMap<Key, Option<Value>, KeyHash>;

/// Two halves: what was used since the last turn, and what was used before it. When the young half is full it becomes
/// the old one, and the old one is dropped: least recently used, roughly, at the cost of a hash lookup or two.
#[derive(Debug)]
pub(super) struct Cache {
    young: Map,
    old: Map,
    half_max: usize,
    /// Halves to be dropped outside the namespace's lock, because dropping takes milliseconds.
    spent: Vec<Map>,
}

/// Dropped by its owner at leisure.
pub(super) struct Spent {
    _maps: Vec<Map>,
}

impl Cache {
    pub fn new(records_max: usize) -> Cache {
        Cache {
            young: Map::default(),
            old: Map::default(),
            half_max: (records_max / 2).max(1),
            spent: Vec::new(),
        }
    }

    /// Small records that are read by key are worth it; extended attributes, targets and what is scanned are not.
    pub fn holds(key: &Key) -> bool {
        matches!(
            key.family(),
            Family::Inode | Family::Entry | Family::Object | Family::Counters | Family::Namespace
        )
    }

    /// `Some(None)`: known to be missing.
    pub fn get(&mut self, key: &Key) -> Option<Option<Value>> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, value) = self.old.remove_entry(key)?;
        self.insert(key, value.clone());
        Some(value)
    }

    pub fn insert(&mut self, key: Key, value: Option<Value>) {
        if self.young.len() >= self.half_max {
            let spent = mem::replace(&mut self.old, mem::take(&mut self.young));
            // Nobody collects while nothing is written; then one waits here and the next are dropped at once.
            if self.spent.is_empty() {
                self.spent.push(spent);
            }
        }
        self.young.insert(key, value);
    }

    pub fn take_spent(&mut self) -> Spent {
        Spent { _maps: mem::take(&mut self.spent) }
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use granary_core::Ino;

    use super::*;

    #[test]
    fn bounded_and_keeps_what_is_used() {
        let mut cache = Cache::new(100);
        for i in 0..1000 {
            cache.insert(Key::Inode(Ino(i)), None);
            assert_eq!(cache.get(&Key::Inode(Ino(0))), Some(None), "used all the time, dropped at {i}");
            assert!(cache.len() <= 101);
        }
        assert_eq!(cache.get(&Key::Inode(Ino(999))), Some(None));
        assert_eq!(cache.get(&Key::Inode(Ino(1))), None);
    }

    #[test]
    fn an_older_value_never_comes_back() {
        let mut cache = Cache::new(4);
        cache.insert(Key::Counters, None);
        for i in 0..2 {
            cache.insert(Key::Inode(Ino(i)), None);
        }
        cache.insert(Key::Counters, Some(Value::Dead));
        for i in 2..4 {
            cache.insert(Key::Inode(Ino(i)), None);
            assert_ne!(cache.get(&Key::Counters), Some(None));
        }
    }
}
