//! The model's trash, and what a namespace has in its own.

use std::sync::Arc;
use std::time::Duration;

use futures::executor::block_on;
use granary_core::{Ino, Kind, NodeId, ObjectId, ObjectKind, TestClock, Timestamp};

use super::driver::listing;
use super::model::{Cell, Model};
use crate::Metadata;
use crate::acl::{ACCESS, DEFAULT};
use crate::engine::{Engine, MemoryEngine};
use crate::local::{LocalNamespace, Tuning, Volume};
use crate::types::*;

/// What decides who may look into a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rights {
    mode: u32,
    uid: u32,
    gid: u32,
    lists: [Option<Vec<u8>>; 2],
}

/// A mirror: its name without a number (the hour has none), and what it was made like, from the hour down.
pub type Path = Vec<(Vec<u8>, Rights)>;

/// What lies in the trash: where, and by which name.
pub type Spot = (Path, Vec<u8>);

impl Model {
    pub fn is_worth(&self, ino: u64) -> bool {
        let node = &self.nodes[&ino];
        let stored = node.cells.iter().flatten().any(|cell| matches!(cell, Cell::Object(..)));
        node.attr.kind == FileType::File && stored
    }

    pub fn has_room(&self, stored: u64, inodes: u64) -> bool {
        let usage = self.usage();
        let fits = |has, more, max| max == 0 || has + more <= max;
        fits(usage.trash_bytes, stored, self.bytes_max) && fits(usage.trash_inodes, inodes, self.inodes_max)
    }

    /// Where a file would go that loses its name in `dir`; mirrors are made even if it goes nowhere in the end.
    pub fn place_for(&mut self, dir: u64, name: &[u8], ino: u64) -> Option<Spot> {
        let attr = self.nodes[&ino].attr.clone();
        if self.trash_ms == 0 || attr.nlink != 1 || !self.is_worth(ino) || !self.has_room(attr.stored, 1) {
            return None;
        }
        let mut below = Vec::new();
        let mut at = dir;
        while at != 1 {
            let parent = self.nodes[&at].parent;
            let mut entries = self.nodes[&parent].entries.values();
            below.push((entries.find(|(_, ino)| *ino == at).unwrap().0.clone(), at));
            at = parent;
        }
        below.push((Vec::new(), 1));
        let mut path = Path::new();
        for (name, original) in below.into_iter().rev() {
            path.push((name, self.rights(original)));
            if !self.mirrors.contains(&path) {
                if !self.has_room(0, 2) {
                    return None;
                }
                self.mirrors.insert(path.clone());
            }
        }
        Some((path, name.to_vec()))
    }

    /// All of the trash is of one hour, which goes when something is about to come that does not fit.
    pub fn make_room(&mut self, dir: u64, name: &[u8]) {
        let Some(node) = self.nodes.get(&dir) else { return };
        let Some(ino) = node.entries.values().find(|(n, _)| n == name).map(|(_, ino)| *ino) else { return };
        let Attr { kind, nlink, stored, .. } = self.nodes[&ino].attr;
        let (usage, max) = (self.usage(), self.bytes_max);
        let may = kind != FileType::Directory && nlink == 1 && stored > 0 && usage.trash_inodes > 0;
        if !may || max == 0 || stored > max || usage.trash_bytes + stored <= max {
            return;
        }
        let now = self.now;
        for ino in std::mem::take(&mut self.trash).into_keys() {
            let node = self.nodes.get_mut(&ino).unwrap();
            (node.attr.nlink, node.attr.ctime) = (0, now);
        }
        self.mirrors.clear();
        self.collect();
    }

    fn rights(&self, dir: u64) -> Rights {
        let node = &self.nodes[&dir];
        let Attr { mode, uid, gid, .. } = node.attr;
        Rights { mode, uid, gid, lists: [ACCESS, DEFAULT].map(|list| node.xattrs.get(list).cloned()) }
    }
}

/// A file in a namespace's trash.
pub struct Found {
    pub ino: u64,
    pub dir: Ino,
    pub name: Vec<u8>,
    pub place: Spot,
}

/// All files that lie in the trash, and how many directories do.
pub fn all(space: &LocalNamespace) -> (Vec<Found>, u64) {
    let (mut found, mut dirs) = (Vec::new(), 0);
    look(space, Ino::TRASH, &Path::new(), &mut found, &mut dirs);
    (found, dirs)
}

fn look(space: &LocalNamespace, dir: Ino, path: &Path, found: &mut Vec<Found>, dirs: &mut u64) {
    for entry in listing(space, dir, 5).unwrap() {
        let attr = entry.attr.unwrap();
        let plain = without_number(&entry.name).to_vec();
        if attr.kind == FileType::Directory {
            *dirs += 1;
            let name = if path.is_empty() { Vec::new() } else { plain };
            let lists = [ACCESS, DEFAULT].map(|list| block_on(space.getxattr(attr.ino, list)).ok());
            let rights = Rights { mode: attr.mode, uid: attr.uid, gid: attr.gid, lists };
            look(space, attr.ino, &[&path[..], &[(name, rights)]].concat(), found, dirs);
        } else {
            assert_eq!(attr.nlink, 1);
            let place = (path.clone(), plain);
            found.push(Found { ino: attr.ino.0, dir, name: entry.name, place });
        }
    }
}

/// `f` of `f~2`; the names of the driver have no such end themselves.
fn without_number(name: &[u8]) -> &[u8] {
    match name.iter().rposition(|b| *b == b'~') {
        Some(at) if name[at + 1..].iter().all(u8::is_ascii_digit) => &name[..at],
        _ => name,
    }
}

/// A file of so many bytes, all in an object.
fn stored(space: &LocalNamespace, name: &str, len: u64, n: u64) -> Ino {
    let ino = super::create(space, name).unwrap().ino;
    let place = Place::Log { node: NodeId(1), segment: 1, offset: n * 1000 };
    let from = Extent { offset: 0, len, place, crc: 7 };
    let (extents, holes, time) = (vec![from], vec![], Timestamp::default());
    let commit = Commit { ino, size: len, mtime: time, ctime: time, extents, holes, staged_seq: n };
    block_on(space.commit(commit)).unwrap();
    let (id, kind) = (ObjectId(u128::from(n)), ObjectKind::Pack);
    let object = ObjectInfo { id, kind, payload_len: len, total_len: len + 90 };
    block_on(space.relocate(object, vec![Move { ino, from, to_offset: 0 }])).unwrap();
    ino
}

fn remove(space: &LocalNamespace, name: &str) -> Attr {
    block_on(space.unlink(Ino::ROOT, super::name(name))).unwrap()
}

#[test]
fn the_oldest_hour_makes_room_for_what_is_removed() {
    let clock = Arc::new(TestClock::default());
    let volume = super::volume_on(MemoryEngine::new(), clock.clone(), &super::quiet(), Tuning::default());
    let space = super::user_a(&volume);
    space.configure(NamespaceChange { bytes_max: Some(100), ..NamespaceChange::default() }).unwrap();
    let mut inos = Vec::new();
    for (n, len) in [(1, 40), (2, 45), (3, 60), (4, 100), (5, 101)] {
        space.configure(NamespaceChange { bytes_max: Some(300), ..NamespaceChange::default() }).unwrap();
        inos.push(stored(&space, &n.to_string(), len, n));
        space.configure(NamespaceChange { bytes_max: Some(100), ..NamespaceChange::default() }).unwrap();
        clock.advance(Duration::from_secs(3600));
        let kept = remove(&space, &n.to_string()).nlink == 1;
        assert_eq!(kept, n != 5, "{n}");
        let (mut found, _) = all(&space);
        found.sort_by_key(|f| f.ino);
        let names: Vec<_> = found.iter().map(|f| String::from_utf8_lossy(&f.name).into_owned()).collect();
        let expected: &[&str] = [&["1"][..], &["1", "2"], &["3"], &["4"], &["4"]][n as usize - 1];
        // When the trash is nearly full the committer may have gone on by itself.
        assert!(names == expected || n == 5 && names.is_empty(), "{n}: {names:?}");
        assert_eq!(space.check().unwrap(), []);
    }
    assert_eq!(block_on(space.getattr(inos[0])).unwrap_err().kind(), Kind::Stale);
}

#[test]
fn hours_that_are_over_are_purged_by_the_committer() {
    let clock = Arc::new(TestClock::default());
    let volume = super::volume_on(MemoryEngine::new(), clock.clone(), &super::busy(), Tuning::default());
    let space = super::user_a(&volume);
    // More than two batches.
    for n in 0..600 {
        stored(&space, "f", 1, n + 1);
        assert_eq!(remove(&space, "f").nlink, 1);
    }
    let held = stored(&space, "open", 5, 1000);
    remove(&space, "open");
    block_on(space.open(held)).unwrap();
    clock.advance(Duration::from_secs(86_399));
    volume.flush().unwrap();
    assert_eq!((space.usage().trash_bytes, space.usage().bytes), (605, 0));
    clock.advance(Duration::from_secs(3601));
    while space.has_trash() {
        volume.flush().unwrap();
    }
    // What is open stays until it is closed, and goes without coming back. Asked with the lock first: counts are seen without
    // it, also while the last batch is being freed.
    let nlink = block_on(space.getattr(held)).unwrap().nlink;
    assert_eq!((space.usage().bytes, nlink), (5, 0));
    space.close(held);
    assert_eq!((space.usage().bytes, space.has_trash()), (0, false));
    assert_eq!(space.check().unwrap(), []);
}

#[test]
fn what_was_open_at_a_crash_is_in_the_trash_afterwards() {
    let engine = Arc::new(MemoryEngine::default());
    let volume = super::volume_on(engine.clone(), Arc::default(), &super::quiet(), Tuning::default());
    let space = super::user_a(&volume);
    let f = stored(&space, "f", 5, 1);
    block_on(space.open(f)).unwrap();
    assert_eq!(remove(&space, "f").nlink, 0);
    volume.flush().unwrap();
    let survivor: Arc<dyn Engine> = Arc::new(engine.crash(usize::MAX));
    let again = Volume::open(survivor, Arc::new(TestClock::default()), &super::quiet()).unwrap();
    let space = super::user_a(&again);
    let (found, _) = all(&space);
    assert_eq!(found.iter().map(|f| f.ino).collect::<Vec<_>>(), [f.0]);
    assert_eq!(block_on(space.getattr(f)).unwrap().nlink, 1);
}

/// What the trash has that the model's has not, if anything.
pub fn difference(space: &LocalNamespace, model: &Model) -> Option<String> {
    let (found, dirs) = all(space);
    let mut found: Vec<_> = found.into_iter().map(|f| (f.ino, f.place)).collect();
    found.sort();
    let expected: Vec<_> = model.trash.iter().map(|(ino, place)| (*ino, place.clone())).collect();
    if found != expected {
        return Some(format!("in the trash {found:?}, model {expected:?}"));
    }
    let mirrors = model.mirrors.len() as u64;
    (dirs != mirrors).then(|| format!("{dirs} directories in the trash, model {mirrors}"))
}
