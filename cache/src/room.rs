//! The room on the node's disk, which caches, stages and perhaps the metadata share with other programs.
//!
//! | free space | what happens |
//! |---|---|
//! | more than what is left to others and an eighth of that | nothing |
//! | less ("near") | the object cache and clean copies shrink, nothing is cached; drains do not wait for their periods |
//! | less than what is left to others ("short") | writers wait for the drain, as at the dirty limit; when nothing of ours is left that could go, they get ENOSPC |
//!
//! The disk is not asked at each write: after a look that found enough a part of it may be written before the next look.
//! Somebody else may take the last byte meanwhile; then the disk's own error says so.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use granary_core::limits::FreeMin;
use granary_core::{Error, Kind, Result};

use crate::stage::disk::in_place;
use crate::tree::Shared;
use crate::util::lock;

/// Of what is free beyond the limit, one part in this many may be written before the next look.
const PART: u64 = 4;
/// No more than this may be written without a look.
const UNSEEN_MAX: u64 = 64 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Ample,
    Near,
    Short,
}

/// Of a file system, as an ordinary user sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Space {
    pub free: u64,
    pub total: u64,
}

/// What is free after `more` bytes are written.
pub(crate) fn level(space: Space, min: FreeMin, more: u64) -> Level {
    let after = space.free.checked_sub(more);
    match after {
        Some(after) if after >= min.near(space.total) => Level::Ample,
        Some(after) if after >= min.of(space.total) => Level::Near,
        _ => Level::Short,
    }
}

pub(crate) struct Room {
    dir: PathBuf,
    dir_file: File,
    min: FreeMin,
    /// Bytes that may be written before the disk is looked at again; may be below 0.
    unseen: AtomicI64,
    /// Guards the list of namespaces with a stage on this disk, for a look or an addition.
    trees: Mutex<Vec<Weak<Shared>>>,
    /// What a test says instead of the disk.
    #[cfg(test)]
    pub pretend: Mutex<Option<Space>>,
}

impl std::fmt::Debug for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Room").field("dir", &self.dir).field("min", &self.min).finish_non_exhaustive()
    }
}

impl Room {
    /// Of the disk that `dir`, which exists, is on.
    pub fn open(dir: &Path, min: FreeMin) -> Result<Room> {
        let dir_file = File::open(dir).map_err(|e| Error::io(format!("cannot open {}", dir.display()), e))?;
        Ok(Room {
            dir: dir.to_owned(),
            dir_file,
            min,
            unseen: AtomicI64::new(0),
            trees: Mutex::default(),
            #[cfg(test)]
            pretend: Mutex::default(),
        })
    }

    /// One more namespace has its stage here.
    pub fn join(&self, tree: &Arc<Shared>) {
        let mut trees = lock(&self.trees);
        trees.retain(|tree| tree.strong_count() > 0);
        trees.push(Arc::downgrade(tree));
    }

    fn trees(&self) -> Vec<Arc<Shared>> {
        lock(&self.trees).iter().filter_map(Weak::upgrade).collect()
    }

    fn space(&self) -> io::Result<Space> {
        #[cfg(test)]
        if let Some(space) = *lock(&self.pretend) {
            return Ok(space);
        }
        let s = rustix::fs::fstatvfs(&self.dir_file)?;
        let bytes = |blocks: u64| blocks.saturating_mul(s.f_frsize);
        Ok(Space { free: bytes(s.f_bavail), total: bytes(s.f_blocks) })
    }

    /// Looks at the disk. One that cannot be asked is not said to be full.
    pub fn look(&self, more: u64) -> Level {
        let Ok(space) = self.space() else { return Level::Ample };
        let level = level(space, self.min, more);
        let unseen = match level {
            Level::Ample => (space.free - more - self.min.near(space.total)) / PART,
            Level::Near | Level::Short => 0,
        };
        self.unseen.store(unseen.min(UNSEEN_MAX) as i64, Ordering::Relaxed);
        level
    }

    /// Whether `len` bytes may be written now. Cheap while there is much room.
    pub fn ask(&self, len: u64) -> Level {
        let len_signed = i64::try_from(len.max(1)).unwrap_or(i64::MAX);
        if self.unseen.fetch_sub(len_signed, Ordering::Relaxed) >= len_signed {
            return Level::Ample;
        }
        self.look(len)
    }

    /// The disk said that it is full: the next write looks first.
    pub fn exhausted(&self) {
        self.unseen.store(0, Ordering::Relaxed);
    }

    /// Drops copies of what is in the store, clean files first, until `len` bytes may be written; deletes files, which blocks.
    pub fn make_room(&self, len: u64) -> Level {
        for tree in self.trees() {
            if self.look(len) == Level::Ample {
                return Level::Ample;
            }
            crate::drain::evict(&tree, len);
        }
        if self.look(len) > Level::Ample
            && let Some(tree) = self.trees().first()
        {
            tree.reads.shrink(len);
        }
        self.look(len)
    }

    /// Has every namespace's drain begin at once.
    pub fn hurry(&self) {
        self.trees().iter().for_each(|tree| tree.drain.wake());
    }

    /// Whether a drain has something that it can take from this disk to the store.
    pub fn is_drainable(&self) -> bool {
        self.trees().iter().any(|tree| tree.dirty.sums(tree.log.dirty()).drainable() > 0)
    }

    /// What a writer is told for whom there is no room, and never will be by itself.
    pub fn full(&self) -> Error {
        let numbers = self.space().map_or_else(|_| String::new(), |s| self.numbers(s));
        let stuck: Vec<String> = self.trees().iter().filter_map(|tree| tree.dirty.stuck.names()).collect();
        let stuck = match stuck.is_empty() {
            true => String::new(),
            false => format!(
                " (what the disk does not give back cannot: {}; see `granary status`)",
                stuck.join(", ")
            ),
        };
        Error::new(
            Kind::NoSpace,
            format!(
                "the disk of {} is full{numbers}, and nothing of granary is left on it that could go to the store{stuck}; free \
                 some space there, or lower cache_free_percent_min and cache_free_bytes_min",
                self.dir.display()
            ),
        )
    }

    fn numbers(&self, space: Space) -> String {
        let mib = |bytes: u64| bytes >> 20;
        format!(
            " ({} of {} MiB free, {} of them left to others)",
            mib(space.free),
            mib(space.total),
            mib(self.min.of(space.total))
        )
    }

    /// What is wrong at this moment, for a person.
    pub fn trouble(&self) -> Option<String> {
        if let Err(e) = in_place(&self.dir, &self.dir_file) {
            return Some(Error::io(moved_away(&self.dir), e).to_string());
        }
        let space = match self.space() {
            Ok(space) => space,
            Err(e) => return Some(format!("the disk of {} cannot be examined: {e}", self.dir.display())),
        };
        let what = match level(space, self.min, 0) {
            Level::Ample => return None,
            Level::Near => "nothing more is cached, and what is written leaves for the store at once",
            Level::Short => "writers wait until what is written has left for the store",
        };
        Some(format!(
            "the disk of {} is nearly full{}: {what}; free some space there",
            self.dir.display(),
            self.numbers(space)
        ))
    }
}

/// What a person is told of a directory that is not where it was.
pub(crate) fn moved_away(dir: &Path) -> String {
    format!(
        "the directory {} was removed or replaced while it was in use; put it back where it was (what is written now would \
         not be found again), or end the node",
        dir.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: FreeMin = FreeMin { bytes: 100 << 20, percent: 10 };
    const TOTAL: u64 = 10_000 << 20;

    #[test]
    fn caches_go_before_writers_wait() {
        let of = |free: u64, more: u64| level(Space { free: free << 20, total: TOTAL }, MIN, more << 20);
        assert_eq!((of(1125, 0), of(1124, 0), of(1000, 0)), (Level::Ample, Level::Near, Level::Near));
        assert_eq!((of(999, 0), of(1000, 1), of(5, 10)), (Level::Short, Level::Short, Level::Short));
        let small = |free: u64| level(Space { free: free << 20, total: 500 << 20 }, MIN, 0);
        assert_eq!((small(113), small(112), small(99)), (Level::Ample, Level::Near, Level::Short));
    }

    #[test]
    fn the_disk_is_looked_at_again_before_much_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let room = Room::open(dir.path(), MIN).unwrap();
        let pretend = |free: u64| *lock(&room.pretend) = Some(Space { free: free << 20, total: TOTAL });
        pretend(1325);
        assert_eq!(room.ask(1), Level::Ample);
        pretend(0);
        assert_eq!(room.ask(30 << 20), Level::Ample, "not seen yet");
        assert_eq!(room.ask(30 << 20), Level::Short);
        assert!(room.trouble().is_some_and(|t| t.contains("nearly full")), "{:?}", room.trouble());
        pretend(1325);
        assert_eq!(room.ask(1), Level::Ample);
        pretend(0);
        room.exhausted();
        assert_eq!(room.ask(1), Level::Short);
        assert_eq!(room.full().kind(), Kind::NoSpace);
        pretend(1325);
        assert_eq!(room.trouble(), None);
        let elsewhere = dir.path().with_extension("moved");
        std::fs::rename(dir.path(), &elsewhere).unwrap();
        assert!(room.trouble().is_some_and(|t| t.contains("removed or replaced")), "{:?}", room.trouble());
        std::fs::create_dir(dir.path()).unwrap();
        assert!(room.trouble().is_some(), "another directory in its place");
        std::fs::remove_dir(dir.path()).unwrap();
        std::fs::rename(&elsewhere, dir.path()).unwrap();
        assert_eq!(room.trouble(), None);
    }
}
