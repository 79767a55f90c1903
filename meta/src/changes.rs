//! A set of records to write: what one operation changes, and what waits to be written to the engine.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::LazyLock;

use granary_core::NamespaceId;

use crate::engine::Write;
use crate::record::{Key, Value};

/// Changes by key, the last one counts. Families that are scanned are kept in order, the others hashed.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    pub(crate) points: HashMap<Key, Option<Value>, KeyHash>,
    pub(crate) ranges: BTreeMap<Key, Option<Value>>,
    /// Memory of all that was put in, roughly; what was replaced stays counted.
    weight: usize,
}

/// Memory of one change besides what its value has on the heap: key, value, the map's share.
const CHANGE_WEIGHT: usize = 192;

impl Changes {
    /// `None`: not changed here. `Some(None)`: deleted here.
    pub fn get(&self, key: &Key) -> Option<&Option<Value>> {
        if key.is_scanned() { self.ranges.get(key) } else { self.points.get(key) }
    }

    pub fn set(&mut self, key: Key, value: Option<Value>) {
        self.weight += CHANGE_WEIGHT + value.as_ref().map_or(0, Value::weight);
        if key.is_scanned() {
            self.ranges.insert(key, value);
        } else {
            self.points.insert(key, value);
        }
    }

    /// Takes all changes of `later`, which came after these.
    pub fn absorb(&mut self, later: Changes) {
        self.weight += later.weight;
        self.points.extend(later.points);
        self.ranges.extend(later.ranges);
    }

    pub fn len(&self) -> usize {
        self.points.len() + self.ranges.len()
    }

    pub fn is_empty(&self) -> bool {
        self.points.is_empty() && self.ranges.is_empty()
    }

    pub fn weight(&self) -> usize {
        self.weight
    }

    /// Appends these changes to a batch for the engine. Keys are distinct, so their order does not matter.
    pub fn encode(&self, ns: NamespaceId, batch: &mut Vec<Write>) {
        batch.reserve(self.len());
        for (key, value) in self.points.iter().chain(&self.ranges) {
            let key = key.encode(ns);
            batch.push(match value {
                Some(value) => Write::Put(key, value.encode()),
                None => Write::Delete(key),
            });
        }
    }
}

/// A fast hash for keys in memory: folded multiplication, started from the process's random seed, so that nobody outside
/// can choose names that collide. After foldhash and wyhash.
#[derive(Clone, Debug)]
pub(crate) struct KeyHash(u64);

impl Default for KeyHash {
    fn default() -> KeyHash {
        static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().build_hasher().finish());
        KeyHash(*SEED)
    }
}

impl BuildHasher for KeyHash {
    type Hasher = KeyHasher;

    fn build_hasher(&self) -> KeyHasher {
        KeyHasher { state: self.0, seed: self.0 | 1 }
    }
}

pub(crate) struct KeyHasher {
    state: u64,
    seed: u64,
}

impl KeyHasher {
    fn fold(&mut self, word: u64) {
        let product = u128::from(self.state ^ word) * u128::from(self.seed ^ 0x9e37_79b9_7f4a_7c15);
        self.state = (product as u64) ^ ((product >> 64) as u64);
    }
}

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.fold(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.fold(u64::from_le_bytes(last) ^ ((bytes.len() as u64) << 56));
    }

    fn write_u64(&mut self, v: u64) {
        self.fold(v);
    }

    fn write_usize(&mut self, v: usize) {
        self.fold(v as u64);
    }

    fn write_isize(&mut self, v: isize) {
        self.fold(v as u64);
    }

    fn write_u32(&mut self, v: u32) {
        self.fold(u64::from(v));
    }

    fn write_u128(&mut self, v: u128) {
        self.fold(v as u64);
        self.fold((v >> 64) as u64);
    }

    fn finish(&self) -> u64 {
        let product = u128::from(self.state) * u128::from(self.seed);
        (product as u64) ^ ((product >> 64) as u64)
    }
}

#[cfg(test)]
mod tests {
    use granary_core::Ino;

    use super::*;

    #[test]
    fn hashes_of_like_keys_differ() {
        let hash = KeyHash::default();
        let mut seen = std::collections::HashSet::new();
        for i in 0..10_000u64 {
            let name = format!("file-{i}");
            assert!(seen.insert(hash.hash_one(Key::Inode(Ino(i)))));
            assert!(seen.insert(hash.hash_one(Key::Entry(Ino(1), name.into_bytes().into()))));
        }
        assert_eq!(hash.hash_one(Key::Counters), KeyHash::default().hash_one(Key::Counters));
    }

    #[test]
    fn the_last_change_counts() {
        let mut a = Changes::default();
        a.set(Key::Counters, Some(Value::Dead));
        a.set(Key::Listing(Ino(1), 3), None);
        let mut b = Changes::default();
        b.set(Key::Counters, None);
        a.absorb(b);
        assert_eq!(a.get(&Key::Counters), Some(&None));
        assert_eq!(a.get(&Key::Namespace), None);
        assert_eq!(a.len(), 2);
        let mut batch = Vec::new();
        a.encode(NamespaceId(1), &mut batch);
        assert!(batch.iter().all(|w| matches!(w, Write::Delete(_))) && batch.len() == 2);
    }
}
