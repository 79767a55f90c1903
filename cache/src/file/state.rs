//! What is known of a file in use, and which of it the metadata does not know yet.

use std::fs;
use std::sync::Arc;

use granary_core::{Error, Ino, Kind, NodeId, Result, Timestamp};
use granary_meta::{Attr, Commit, Extent, Place};

use crate::extent_map::ExtentMap;
use crate::file::lease::Leased;
use crate::prefetch::streams::Streams;
use crate::range_set::RangeSet;
use crate::stage::Shape;
use crate::stage::files::Stat;
use crate::tree::PathHint;

/// Versions of held content have this bit, so that they never equal one of the metadata's.
pub(crate) const HELD_VERSION: u64 = 1 << 63;

/// What the metadata said last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Committed {
    pub size: u64,
    pub stored: u64,
    pub version: u64,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
}

impl Committed {
    pub fn of(attr: &Attr) -> Committed {
        Committed {
            size: attr.size,
            stored: attr.stored,
            version: attr.version,
            mtime: attr.mtime,
            ctime: attr.ctime,
        }
    }
}

/// What changed since the last commit. The content itself is in the state; this says which part of it to commit.
#[derive(Clone, Debug, Default)]
pub(crate) struct Delta {
    /// Ranges whose extents (or holes) are new.
    pub changed: RangeSet,
    /// The smallest size a truncation made.
    pub cut_to: Option<u64>,
    /// Some of what is new, and in the log, took the place of bytes that may be as new.
    pub rewrote: bool,
    /// Something is to be committed: ranges, size or mtime.
    pub any: bool,
}

impl Delta {
    /// Puts an older delta, whose commit failed, below this one.
    fn absorb(&mut self, older: Delta) {
        self.changed.union(&older.changed);
        self.rewrote |= older.rewrote;
        self.cut_to = match (self.cut_to, older.cut_to) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self.any |= older.any;
    }
}

/// The file's stage file.
#[derive(Debug)]
pub(crate) struct Stage {
    pub shape: Shape,
    /// Opened when needed, closed with the file's last user. The only descriptor of ours, or leases could not be had.
    pub file: Option<Arc<fs::File>>,
    /// The kernel was given it for writing, and nobody has yet proved that it cannot write any more.
    pub loose: bool,
    /// What `fstat` said when the extents were last read off it, if it was old enough to tell a later change apart.
    pub base: Option<Stat>,
    /// Its mtime when the kernel was given it: while it stays, the file's mtime is the one we know.
    pub begin_mtime: Timestamp,
    /// Nobody has it open any more, and yet somebody may write it: a mapping.
    pub mapped: bool,
    /// Written since its last fdatasync.
    pub unsynced: bool,
    /// An fdatasync failed: some of its bytes may be gone.
    pub lost: bool,
    /// Held over each fdatasync: who comes meanwhile relies on it, and waits for its end.
    pub syncs: Arc<tokio::sync::Mutex<()>>,
}

impl Stage {
    pub fn new(shape: Shape, file: Option<Arc<fs::File>>) -> Stage {
        Stage {
            shape,
            file,
            loose: false,
            base: None,
            begin_mtime: Timestamp::default(),
            mapped: false,
            unsynced: true,
            lost: false,
            syncs: Arc::default(),
        }
    }

    /// Whether every byte of the file is in it.
    pub fn is_complete(&self) -> bool {
        self.shape != Shape::Sparse
    }
}

#[derive(Debug, Default)]
pub(crate) struct State {
    /// The extents are those of the metadata (plus what is held).
    pub loaded: bool,
    /// The inode is gone.
    pub dead: bool,
    pub committed: Committed,
    pub size: u64,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
    pub map: ExtentMap,
    pub delta: Delta,
    /// What the commit in flight takes along.
    pub in_commit: Option<Delta>,
    /// Somebody commits, or moves extents: one at a time.
    pub busy: bool,
    /// Content version while something is held.
    pub held_version: u64,
    /// Sequence of the last record of this file.
    pub last_seq: u64,
    /// Counts moves of extents, so that a load that ran beside one is done again.
    pub moves: u64,
    pub stage: Option<Stage>,
    /// Kernel handles that write, and that read, the stage file.
    pub writers: u32,
    pub readers: u32,
    /// Ranges written since the running upload took its snapshot.
    pub touched: Option<RangeSet>,
    /// The kernel may have written anything since the running upload took its snapshot.
    pub touched_all: bool,
    /// A write error that nobody was told yet.
    pub error: Option<Error>,
    pub hint: Option<Arc<PathHint>>,
    /// Its creator said that it will be large.
    pub large: bool,
    /// Some of its content was promised to survive: by an fsync, or because it was there when the file was opened.
    pub promised: bool,
    /// The tree's count of flushes when it was loaded: each of them promised everything.
    pub flushes: u64,
    /// On the committer's list.
    pub listed: bool,
    /// What is counted in the tree's sums for this file.
    pub counted: Counted,
    /// What the leases of a shared namespace allow.
    pub lease: Leased,
    /// The kernel would have read the file itself, had all of it been here.
    pub wished: bool,
    /// How often all of it was found in the object cache after a use.
    pub passes: u32,
    /// How it is read, if it is longer than a chunk.
    pub streams: Option<Box<Streams>>,
}

/// This file's part of the tree's sums.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counted {
    pub growth: i64,
    pub staged: u64,
    pub open_staged: u64,
    pub large: bool,
}

impl State {
    pub fn of(node: NodeId) -> State {
        State { map: ExtentMap::of(node), ..State::default() }
    }

    pub fn alive(&self, ino: Ino) -> Result<()> {
        if let Some(e) = &self.lease.fenced {
            return Err(e.duplicate());
        }
        if self.dead {
            return Err(Error::new(Kind::Stale, format!("inode {ino} was deleted")));
        }
        Ok(())
    }

    /// Whether the metadata does not know everything.
    pub fn is_held(&self) -> bool {
        !self.dead && self.lease.fenced.is_none() && (self.delta.any || self.in_commit.is_some())
    }

    /// Takes what the metadata says; what is held stays on top.
    pub fn install(&mut self, attr: &Attr, extents: Vec<Extent>) {
        let mut map = self.map.with(extents);
        self.committed = Committed::of(attr);
        if self.is_held() {
            let mut held = self.in_commit.clone().unwrap_or_default();
            held.absorb(self.delta.clone());
            if let Some(cut) = held.cut_to {
                map.cut(cut..u64::MAX);
            }
            for range in held.changed.iter() {
                map.cut(range.clone());
                for extent in self.map.within(range) {
                    map.replace(extent);
                }
            }
        } else {
            (self.size, self.mtime, self.ctime) = (attr.size, attr.mtime, attr.ctime);
        }
        self.map = map;
        self.last_seq = self.last_seq.max(attr.staged_seq);
        self.loaded = true;
        self.promised |= attr.size > 0;
    }

    /// Something changed now.
    pub fn change(&mut self, now: Timestamp, version: u64) {
        (self.mtime, self.ctime) = (now, now);
        self.held_version = HELD_VERSION | version;
        self.delta.any = true;
    }

    /// `extent` takes the place of what was in its range.
    pub fn put(&mut self, extent: Extent) {
        let range = extent.offset..extent.end();
        self.delta.rewrote |= range.start < self.size && matches!(extent.place, Place::Log { .. });
        self.map.replace(extent);
        self.size = self.size.max(range.end);
        if let Some(touched) = &mut self.touched {
            touched.insert(range.clone());
        }
        self.delta.changed.insert(range);
    }

    /// `range` becomes a hole.
    pub fn zero(&mut self, range: std::ops::Range<u64>) {
        self.delta.rewrote |= range.start < self.size && self.stage.is_none();
        self.map.cut(range.clone());
        if let Some(touched) = &mut self.touched {
            touched.insert(range.clone());
        }
        self.delta.changed.insert(range);
    }

    pub fn set_size(&mut self, size: u64) {
        if size < self.size {
            self.map.cut(size..u64::MAX);
            self.delta.changed.remove(size..u64::MAX);
            self.delta.cut_to = Some(self.delta.cut_to.map_or(size, |c| c.min(size)));
            if let Some(touched) = &mut self.touched {
                touched.insert(size..u64::MAX);
            }
        }
        self.size = size;
    }

    /// Whether committing now would let the metadata forget bytes that may survive a power loss, for bytes that may not:
    /// then the stage must be made durable first. The same if it took the place of bytes that no commit ever named: without it the
    /// file would end where it never did. What only adds to the end needs no such care: if it is lost, the file is cut to where
    /// it begins.
    pub fn replaces_kept(&self) -> bool {
        let kept = self.committed.size.min(self.delta.cut_to.unwrap_or(u64::MAX));
        self.delta.rewrote || self.delta.changed.first().is_some_and(|first| first < kept)
    }

    /// The commit of everything held. It is in flight until [`State::end_commit`].
    pub fn begin_commit(&mut self, ino: Ino) -> Commit {
        debug_assert!(self.in_commit.is_none());
        let delta = std::mem::take(&mut self.delta);
        let mut extents = Vec::new();
        let mut holes = Vec::new();
        if let Some(cut) = delta.cut_to {
            holes.push((cut, u64::MAX - cut));
        }
        for range in delta.changed.iter() {
            let mut at = range.start;
            for extent in self.map.within(range.clone()) {
                if extent.offset > at {
                    holes.push((at, extent.offset - at));
                }
                at = extent.end();
                extents.push(extent);
            }
            if at < range.end {
                holes.push((at, range.end - at));
            }
        }
        self.in_commit = Some(delta);
        Commit {
            ino,
            size: self.size,
            mtime: self.mtime,
            ctime: self.ctime,
            extents,
            holes,
            staged_seq: self.last_seq,
        }
    }

    /// The commit in flight succeeded with these attributes, or failed: then it is held again.
    pub fn end_commit(&mut self, attr: Option<&Attr>) {
        let Some(older) = self.in_commit.take() else { return };
        if self.lease.fenced.is_some() {
            return;
        }
        match attr {
            Some(attr) => {
                self.committed = Committed::of(attr);
                if !self.delta.any {
                    (self.mtime, self.ctime) = (attr.mtime, attr.ctime);
                }
            }
            None => self.delta.absorb(older),
        }
    }
}
