//! Clean copies: whole stage files of files that are in the store, kept as their cache. Those used longest ago go first.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use granary_core::Ino;

use crate::stage::{Shape, StageFiles};
use crate::util::lock;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Copy {
    version: u64,
    bytes: u64,
    /// Order of becoming clean, or of its last use.
    age: u64,
}

#[derive(Debug, Default)]
struct Inner {
    by_ino: HashMap<Ino, Copy>,
    by_age: BTreeMap<u64, Ino>,
    bytes: u64,
    next_age: u64,
    /// Of earlier runs, not known to be what they were; whose turn is next comes last.
    unverified: Vec<(Ino, u64)>,
}

#[derive(Debug, Default)]
pub(crate) struct CleanFiles {
    /// Guards the table; no I/O but the removal of one file happens under it.
    inner: Mutex<Inner>,
    /// Bytes of all namespaces' copies on this node.
    node_bytes: Arc<AtomicU64>,
    /// Who verifies copies. Held over one.
    pub turn: tokio::sync::Mutex<()>,
}

impl Inner {
    fn remove(&mut self, ino: Ino) -> Option<Copy> {
        let copy = self.by_ino.remove(&ino)?;
        self.by_age.remove(&copy.age);
        self.bytes -= copy.bytes;
        Some(copy)
    }
}

impl Drop for CleanFiles {
    fn drop(&mut self) {
        self.node_bytes.fetch_sub(self.bytes(), Ordering::Relaxed);
    }
}

impl CleanFiles {
    /// `node_bytes` counts those of the node.
    pub fn new(node_bytes: Arc<AtomicU64>) -> CleanFiles {
        CleanFiles { inner: Mutex::default(), node_bytes, turn: tokio::sync::Mutex::default() }
    }

    fn remove_in(&self, inner: &mut Inner, ino: Ino) -> Option<Copy> {
        let copy = inner.remove(ino)?;
        self.node_bytes.fetch_sub(copy.bytes, Ordering::Relaxed);
        Some(copy)
    }

    pub fn insert(&self, ino: Ino, version: u64, bytes: u64) {
        let mut inner = lock(&self.inner);
        self.remove_in(&mut inner, ino);
        self.node_bytes.fetch_add(bytes, Ordering::Relaxed);
        let age = inner.next_age;
        inner.next_age += 1;
        inner.by_ino.insert(ino, Copy { version, bytes, age });
        inner.by_age.insert(age, ino);
        inner.bytes += bytes;
    }

    /// Somebody reads the copy: the others go before it.
    pub fn used(&self, ino: Ino) {
        let mut guard = lock(&self.inner);
        let inner = &mut *guard;
        let Some(copy) = inner.by_ino.get_mut(&ino) else { return };
        inner.by_age.remove(&copy.age);
        copy.age = inner.next_age;
        inner.next_age += 1;
        inner.by_age.insert(copy.age, ino);
    }

    /// A copy that an earlier run left: nobody reads it before it was verified.
    pub fn found(&self, ino: Ino, version: u64) {
        lock(&self.inner).unverified.push((ino, version));
    }

    pub fn next_unverified(&self) -> Option<(Ino, u64)> {
        lock(&self.inner).unverified.last().copied()
    }

    /// Takes it out of those that are to be verified.
    pub fn take_unverified(&self, ino: Ino) -> Option<(Ino, u64)> {
        let unverified = &mut lock(&self.inner).unverified;
        let at = unverified.iter().rposition(|(of, _)| *of == ino)?;
        Some(unverified.remove(at))
    }

    /// Somebody reads the file: its copy has the next turn.
    pub fn hurry(&self, ino: Ino) {
        let unverified = &mut lock(&self.inner).unverified;
        if let Some(at) = unverified.iter().rposition(|(of, _)| *of == ino) {
            unverified[at..].rotate_left(1);
        }
    }

    pub fn version(&self, ino: Ino) -> Option<u64> {
        lock(&self.inner).by_ino.get(&ino).map(|c| c.version)
    }

    pub fn remove(&self, ino: Ino) {
        self.remove_in(&mut lock(&self.inner), ino);
    }

    pub fn bytes(&self) -> u64 {
        lock(&self.inner).bytes
    }

    /// Number of copies.
    pub fn len(&self) -> usize {
        lock(&self.inner).by_ino.len()
    }

    pub fn oldest(&self) -> Option<Ino> {
        lock(&self.inner).by_age.first_key_value().map(|(_, &ino)| ino)
    }

    /// Takes a copy out of the table: its content version and bytes.
    pub fn take(&self, ino: Ino) -> Option<(u64, u64)> {
        self.remove_in(&mut lock(&self.inner), ino).map(|c| (c.version, c.bytes))
    }

    /// Forgets the copy and removes its file.
    pub fn drop_copy(&self, files: &StageFiles, ino: Ino) {
        let Some(copy) = self.remove_in(&mut lock(&self.inner), ino) else { return };
        if let Err(e) = files.remove(ino, Shape::Clean(copy.version)) {
            tracing::warn!(error = %e, "a clean stage file stays until the next start");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_first_and_the_spared_last() {
        let clean = CleanFiles::default();
        for i in 1..=3 {
            clean.insert(Ino(i), i * 10, i);
        }
        assert_eq!(
            (clean.bytes(), clean.oldest(), clean.version(Ino(2)), clean.len()),
            (6, Some(Ino(1)), Some(20), 3)
        );
        let (version, bytes) = clean.take(Ino(1)).unwrap();
        assert_eq!((clean.oldest(), clean.bytes()), (Some(Ino(2)), 5));
        clean.insert(Ino(1), version, bytes);
        assert_eq!(clean.oldest(), Some(Ino(2)), "put back it is the youngest");
        clean.insert(Ino(2), 21, 5);
        assert_eq!((clean.bytes(), clean.oldest()), (9, Some(Ino(3))));
        clean.remove(Ino(3));
        clean.remove(Ino(3));
        assert_eq!((clean.bytes(), clean.oldest()), (6, Some(Ino(1))));
        clean.used(Ino(1));
        clean.used(Ino(7));
        assert_eq!((clean.bytes(), clean.oldest(), clean.len()), (6, Some(Ino(2)), 2));
        assert_eq!(clean.node_bytes.load(Ordering::Relaxed), 6);
    }
}
