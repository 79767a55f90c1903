//! What of the stage cannot go to the store, because the node's disk does not give back what was written: damaged segments of
//! the log, and stage files that lost bytes. It stays for a person to look at, and nobody is to wait for it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use granary_core::Ino;

use crate::util::lock;

/// A part of the stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Thing {
    /// A segment of the log.
    Segment(u64),
    /// A file's stage file.
    File(Ino),
}

impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Thing::Segment(id) => write!(f, "segment {id:016x} of the stage log"),
            Thing::File(ino) => write!(f, "the stage file of inode {ino}"),
        }
    }
}

#[derive(Debug)]
struct Held {
    bytes: u64,
    files: u64,
    why: String,
}

#[derive(Debug, Default)]
pub(crate) struct Stuck {
    /// Guards the list; held for an addition. No longer than the lists of segments and of stage files.
    held: Mutex<BTreeMap<Thing, Held>>,
    bytes: AtomicU64,
    files: AtomicU64,
}

impl Stuck {
    /// The drain cannot take this, which has so many dirty bytes and files. Whether that is news.
    pub fn keep(&self, thing: Thing, bytes: u64, files: u64, why: String) -> bool {
        let mut held = lock(&self.held);
        let new = held.insert(thing, Held { bytes, files, why }).is_none();
        self.recount(&held);
        new
    }

    /// It was taken after all, or is gone.
    pub fn release(&self, thing: Thing) {
        let mut held = lock(&self.held);
        if held.remove(&thing).is_some() {
            self.recount(&held);
        }
    }

    fn recount(&self, held: &BTreeMap<Thing, Held>) {
        self.bytes.store(held.values().map(|h| h.bytes).sum(), Ordering::Relaxed);
        self.files.store(held.values().map(|h| h.files).sum(), Ordering::Relaxed);
    }

    /// Dirty bytes and files that nobody should wait for.
    pub fn sums(&self) -> (u64, u64) {
        (self.bytes.load(Ordering::Relaxed), self.files.load(Ordering::Relaxed))
    }

    /// What a person is told of it, if there is anything.
    pub fn told(&self) -> Option<String> {
        let held = lock(&self.held);
        let (_, first) = held.first_key_value()?;
        Some(match held.len() {
            1 => first.why.clone(),
            n => format!("{} (and {} more like it)", first.why, n - 1),
        })
    }

    /// Their names, for a message: the first, and how many more.
    pub fn names(&self) -> Option<String> {
        let held = lock(&self.held);
        let (first, _) = held.first_key_value()?;
        Some(match held.len() {
            1 => first.to_string(),
            n => format!("{first} and {} more", n - 1),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_counted_once_and_told_by_name() {
        let stuck = Stuck::default();
        assert_eq!((stuck.sums(), stuck.told(), stuck.names()), ((0, 0), None, None));
        assert!(stuck.keep(Thing::File(Ino(7)), 10, 1, "lost".into()));
        assert!(!stuck.keep(Thing::File(Ino(7)), 12, 1, "lost".into()), "told already");
        assert_eq!((stuck.sums(), stuck.told()), ((12, 1), Some("lost".into())));
        assert!(stuck.keep(Thing::Segment(5), 100, 3, "damaged".into()));
        assert_eq!((stuck.sums(), stuck.told()), ((112, 4), Some("damaged (and 1 more like it)".into())));
        assert_eq!(stuck.names(), Some("segment 0000000000000005 of the stage log and 1 more".into()));
        stuck.release(Thing::Segment(5));
        stuck.release(Thing::Segment(5));
        stuck.release(Thing::File(Ino(7)));
        assert_eq!((stuck.sums(), stuck.told()), ((0, 0), None));
    }
}
