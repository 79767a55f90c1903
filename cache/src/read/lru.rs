//! A small map that forgets what was used longest ago. For hundreds to thousands of entries: descriptors, frames,
//! checksums of objects, streams of reads.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// At most `max` entries. Every operation is O(log n).
#[derive(Debug)]
pub(crate) struct Lru<K, V> {
    entries: HashMap<K, (u64, V)>,
    /// Keys by the time of their last use; exactly the keys of `entries`.
    order: BTreeMap<u64, K>,
    next: u64,
    max: usize,
}

impl<K: Hash + Eq + Clone, V> Lru<K, V> {
    pub fn new(max: usize) -> Lru<K, V> {
        Lru { entries: HashMap::new(), order: BTreeMap::new(), next: 0, max: max.max(1) }
    }

    /// The value, which becomes the one used last.
    pub fn get(&mut self, key: &K) -> Option<&mut V> {
        let (used, value) = self.entries.get_mut(key)?;
        self.next += 1;
        self.order.remove(used);
        self.order.insert(self.next, key.clone());
        *used = self.next;
        Some(value)
    }

    /// Puts or replaces a value. What had to go for it (the old value, or the entry used longest ago) is returned, so
    /// that the caller may drop it after its lock.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.next += 1;
        self.order.insert(self.next, key.clone());
        if let Some((used, old)) = self.entries.insert(key, (self.next, value)) {
            self.order.remove(&used);
            return Some(old);
        }
        if self.entries.len() <= self.max {
            return None;
        }
        let (_, oldest) = self.order.pop_first()?;
        self.entries.remove(&oldest).map(|(_, value)| value)
    }

    pub fn remove(&mut self, key: &K) -> Option<V> {
        let (used, value) = self.entries.remove(key)?;
        self.order.remove(&used);
        Some(value)
    }

    /// Removes every entry whose key is refused.
    pub fn retain(&mut self, mut keep: impl FnMut(&K) -> bool) {
        let order = &mut self.order;
        self.entries.retain(|key, (used, _)| {
            let kept = keep(key);
            if !kept {
                order.remove(used);
            }
            kept
        });
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        assert_eq!(self.entries.len(), self.order.len());
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_a_list_ordered_by_use(ops in proptest::collection::vec((0u8..4, 0u8..12), 0..200)) {
            let mut lru = Lru::new(5);
            let mut model: Vec<(u8, usize)> = Vec::new(); // used longest ago first
            for (i, (op, key)) in ops.into_iter().enumerate() {
                let at = model.iter().position(|(k, _)| *k == key);
                match op {
                    0 => {
                        let expected = at.map(|at| { let e = model.remove(at); model.push(e); e.1 });
                        prop_assert_eq!(lru.get(&key).copied(), expected);
                    }
                    1 => {
                        let old = at.map(|at| model.remove(at).1);
                        model.push((key, i));
                        let gone = if model.len() > 5 { Some(model.remove(0).1) } else { old };
                        prop_assert_eq!(lru.insert(key, i), gone);
                    }
                    2 => prop_assert_eq!(lru.remove(&key), at.map(|at| model.remove(at).1)),
                    _ => {
                        lru.retain(|k| k % 3 != key % 3);
                        model.retain(|(k, _)| k % 3 != key % 3);
                    }
                }
                prop_assert_eq!(lru.len(), model.len());
            }
        }
    }
}
