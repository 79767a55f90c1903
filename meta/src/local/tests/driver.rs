//! Random actions, done to a namespace and to the model, each answer compared.

use std::sync::Arc;
use std::time::Duration;

use futures::executor::block_on;
use granary_core::{Clock, EntryName, Error, Ino, Kind, NodeId, ObjectId, ObjectKind, TestClock, Timestamp};
use proptest::prelude::*;

use super::model::{Model, Node, cell, cells};
use super::trash;
use crate::acl::{self, Acl, Entry, Who};
use crate::local::LocalNamespace;
use crate::types::*;
use crate::{Metadata, NewInode, RenameMode};

/// Inodes, names and so on are chosen by index among what there is, so that most actions mean something.
#[derive(Clone, Debug)]
pub enum Action {
    Create {
        dir: u8,
        name: u8,
        kind: u8,
        mode: u8,
        open: bool,
    },
    Tmpfile {
        dir: u8,
        mode: u8,
    },
    CopyRange {
        from: u8,
        to: u8,
        from_offset: u8,
        to_offset: u8,
        len: u8,
    },
    Link {
        ino: u8,
        dir: u8,
        name: u8,
    },
    Remove {
        dir: u8,
        name: u8,
        directory: bool,
    },
    Rename {
        dir: u8,
        name: u8,
        to_dir: u8,
        to_name: u8,
        mode: u8,
    },
    SetAttr {
        ino: u8,
        size: Option<u8>,
        mode: Option<u8>,
        mtime: Option<u8>,
        how: u8,
    },
    SetXattr {
        ino: u8,
        name: u8,
        value: u8,
        flags: u8,
    },
    RemoveXattr {
        ino: u8,
        name: u8,
    },
    Open {
        ino: u8,
    },
    Close {
        nth: u8,
    },
    Commit {
        ino: u8,
        size: u8,
        pieces: Vec<(u8, u8, u8)>,
    },
    Relocate {
        picks: Vec<u8>,
        again: bool,
    },
    Live {
        picks: Vec<u8>,
    },
    /// Offers copies of the bytes of some files; `earlier`: one that was offered before, once more.
    Inline {
        picks: Vec<u8>,
        earlier: Option<u8>,
    },
    Forget,
    /// Writes and stores all of a file, in a piece or two, and offers a copy of it.
    Tiny {
        ino: u8,
        len: u8,
        first: u8,
    },
    Limits {
        bytes: u8,
        inodes: u8,
        inline: u8,
    },
    Lookup {
        dir: u8,
        name: u8,
    },
    Discard {
        nth: u8,
    },
    Restore {
        nth: u8,
        dir: u8,
        name: u8,
        mode: u8,
    },
    Sync,
}

pub fn action() -> impl Strategy<Value = Action> {
    let i = any::<u8>;
    let piece = (0u8..120, 0u8..24, i());
    prop_oneof![
        6 => (i(), i(), i(), i(), any::<bool>())
            .prop_map(|(dir, name, kind, mode, open)| Action::Create { dir, name, kind, mode, open }),
        2 => (i(), i(), i()).prop_map(|(ino, dir, name)| Action::Link { ino, dir, name }),
        3 => (i(), i(), any::<bool>()).prop_map(|(dir, name, directory)| Action::Remove { dir, name, directory }),
        4 => (i(), i(), i(), i(), i())
            .prop_map(|(dir, name, to_dir, to_name, mode)| Action::Rename { dir, name, to_dir, to_name, mode }),
        1 => (i(), i()).prop_map(|(dir, mode)| Action::Tmpfile { dir, mode }),
        4 => (i(), i(), 0u8..120, 0u8..120, 0u8..120).prop_map(|(from, to, from_offset, to_offset, len)| {
            Action::CopyRange { from, to, from_offset, to_offset, len }
        }),
        2 => (i(), prop::option::of(0u8..150), prop::option::of(i()), prop::option::of(i()), i())
            .prop_map(|(ino, size, mode, mtime, how)| Action::SetAttr { ino, size, mode, mtime, how }),
        2 => (i(), i(), i(), i()).prop_map(|(ino, name, value, flags)| Action::SetXattr { ino, name, value, flags }),
        1 => (i(), i()).prop_map(|(ino, name)| Action::RemoveXattr { ino, name }),
        2 => i().prop_map(|ino| Action::Open { ino }),
        2 => i().prop_map(|nth| Action::Close { nth }),
        8 => (i(), 0u8..150, prop::collection::vec(piece, 0..8))
            .prop_map(|(ino, size, pieces)| Action::Commit { ino, size, pieces }),
        4 => (prop::collection::vec(i(), 0..8), any::<bool>())
            .prop_map(|(picks, again)| Action::Relocate { picks, again }),
        1 => prop::collection::vec(i(), 0..6).prop_map(|picks| Action::Live { picks }),
        1 => Just(Action::Forget),
        4 => (prop::collection::vec(i(), 0..6), prop::option::of(i()))
            .prop_map(|(picks, earlier)| Action::Inline { picks, earlier }),
        4 => (i(), 1u8..120, 0u8..120).prop_map(|(ino, len, first)| Action::Tiny { ino, len, first }),
        1 => (i(), i(), i()).prop_map(|(bytes, inodes, inline)| Action::Limits { bytes, inodes, inline }),
        1 => (i(), i()).prop_map(|(dir, name)| Action::Lookup { dir, name }),
        1 => i().prop_map(|nth| Action::Discard { nth }),
        2 => (i(), i(), i(), i()).prop_map(|(nth, dir, name, mode)| Action::Restore { nth, dir, name, mode }),
        2 => Just(Action::Sync),
    ]
}

/// A namespace, its model, and what the driver itself remembers.
pub struct Driver {
    pub space: Arc<LocalNamespace>,
    pub clock: Arc<TestClock>,
    pub model: Model,
    /// Inodes that there are or were, most recent last.
    inos: Vec<u64>,
    opens: Vec<u64>,
    staged: Vec<(Ino, Extent)>,
    offered: Vec<(ObjectInfo, NewInline)>,
    /// States of the last action between its operations.
    pub between: Vec<Model>,
    log_end: u64,
    objects: u128,
}

impl Driver {
    pub fn new(space: Arc<LocalNamespace>, clock: Arc<TestClock>) -> Driver {
        let mut model = Model::new(clock.now(), 0o755, 7, 8);
        model.inline_bytes_max = 100;
        set_inline(&space, 100);
        let (inos, opens, staged) = (vec![1], Vec::new(), Vec::new());
        let (offered, between) = (Vec::new(), Vec::new());
        Driver { space, clock, model, inos, opens, staged, offered, between, log_end: 0, objects: 0 }
    }

    fn ino(&self, i: u8) -> u64 {
        self.inos[usize::from(i) % self.inos.len()]
    }

    /// A directory most of the time.
    fn dir(&self, i: u8) -> u64 {
        let dirs: Vec<u64> = self
            .inos
            .iter()
            .copied()
            .filter(|ino| self.model.nodes.get(ino).is_some_and(|n| n.attr.kind == FileType::Directory))
            .collect();
        if i >= 240 { self.ino(i) } else { dirs[usize::from(i) % dirs.len()] }
    }

    /// A regular file most of the time.
    fn file(&self, i: u8) -> u64 {
        let files: Vec<u64> = self
            .inos
            .iter()
            .copied()
            .filter(|ino| self.model.nodes.get(ino).is_some_and(|n| n.attr.kind == FileType::File))
            .collect();
        if i >= 240 || files.is_empty() { self.ino(i) } else { files[usize::from(i) % files.len()] }
    }

    fn in_trash(&self, nth: u8) -> Option<trash::Found> {
        let (mut all, _) = trash::all(&self.space);
        if all.is_empty() { None } else { Some(all.swap_remove(usize::from(nth) % all.len())) }
    }

    fn picks(&self, picks: &[u8]) -> Vec<(Ino, Extent)> {
        if self.staged.is_empty() {
            return Vec::new();
        }
        // The last ones, which are likely to be there still.
        let recent = &self.staged[self.staged.len().saturating_sub(24)..];
        picks.iter().map(|&p| recent[usize::from(p) % recent.len()]).collect()
    }

    pub fn act(&mut self, action: &Action) {
        self.clock.advance(Duration::from_millis(10));
        self.model.now = self.clock.now();
        self.between.clear();
        let space = self.space.clone();
        match *action {
            Action::Create { dir, name, kind, mode, open } => {
                let (dir, name) = (self.dir(dir), entry(name));
                let kind = match kind {
                    0..120 => FileType::File,
                    120..230 => FileType::Directory,
                    _ => FileType::Symlink,
                };
                let target = if kind == FileType::Symlink { vec![b't'; 3] } else { vec![] };
                let mode = if mode > 128 { 0o2755 } else { 0o644 };
                let new = NewInode { kind, mode, umask: 0o027, uid: 1, gid: mode, rdev: 0, target };
                let real = block_on(space.create(Ino(dir), name, new.clone(), open));
                if let Ok(attr) = &real {
                    self.inos.push(attr.ino.0);
                    self.opens.extend(open.then_some(attr.ino.0));
                }
                same(real, self.model.create(dir, name.as_bytes(), new, open));
            }
            Action::Tmpfile { dir, mode } => {
                let (dir, mode) = (self.dir(dir), u32::from(mode));
                let kind = FileType::File;
                let new = NewInode { kind, mode, umask: 0o002, uid: 3, gid: mode, rdev: 0, target: vec![] };
                let real = block_on(space.tmpfile(Ino(dir), new.clone()));
                if let Ok(attr) = &real {
                    self.inos.push(attr.ino.0);
                    self.opens.push(attr.ino.0);
                }
                same(real, self.model.tmpfile(dir, new));
            }
            Action::CopyRange { from, to, from_offset, to_offset, len } => {
                let [from_offset, to_offset, len] = [from_offset, to_offset, len].map(u64::from);
                let (from, to) = (Ino(self.file(from)), Ino(self.file(to)));
                let copy = CopyRange { from, from_offset, to, to_offset, len, staged_seq: self.log_end };
                let real = block_on(space.copy_range(copy));
                // How much of it is shared at once is for the machine to say, but it is some, if there is any.
                let done = real.as_ref().map_or(0, |copied| copied.len);
                same(real, self.model.copy_range(copy, done));
            }
            Action::Link { ino, dir, name } => {
                let (ino, dir, name) = (self.file(ino), self.dir(dir), entry(name));
                let real = block_on(space.link(Ino(ino), Ino(dir), name));
                same(real, self.model.link(ino, dir, name.as_bytes()));
            }
            Action::Remove { dir, name, directory } => {
                let (dir, name) = (self.dir(dir), entry(name));
                if !directory {
                    self.model.make_room(dir, name.as_bytes());
                }
                let model = self.model.remove(dir, name.as_bytes(), directory);
                if directory {
                    same(block_on(space.rmdir(Ino(dir), name)), model.map(|_| ()));
                } else {
                    same(block_on(space.unlink(Ino(dir), name)), model);
                }
            }
            Action::Rename { dir, name, to_dir, to_name, mode } => {
                let (dir, name, to_dir, to_name) =
                    (self.dir(dir), entry(name), self.dir(to_dir), entry(to_name));
                let mode =
                    [RenameMode::Replace, RenameMode::Replace, RenameMode::NoReplace, RenameMode::Exchange]
                        [usize::from(mode) % 4];
                if mode == RenameMode::Replace {
                    self.model.make_room(to_dir, to_name.as_bytes());
                }
                let real = block_on(space.rename(Ino(dir), name, Ino(to_dir), to_name, mode));
                same(real, self.model.rename((dir, name.as_bytes()), (to_dir, to_name.as_bytes()), mode));
            }
            Action::SetAttr { ino, size, mode, mtime, how } => {
                let ino = self.ino(ino);
                let set = SetAttr {
                    mode: mode.filter(|_| how & 1 == 0).map(|m| u32::from(m) << 4),
                    uid: mode.filter(|_| how & 2 == 0).map(u32::from),
                    gid: mode.filter(|_| how & 4 == 0).map(u32::from),
                    size: size.map(u64::from),
                    atime: mtime.map(|t| Timestamp { secs: i64::from(t), nanos: 1 }),
                    mtime: mtime.map(|t| Timestamp { secs: -i64::from(t), nanos: 2 }),
                    staged_seq: size.map(|s| u64::from(s) + self.log_end),
                    kill_priv: how & 24 == 0,
                    accessed: (how & 32 == 0).then_some(Timestamp { secs: i64::from(how), nanos: 4 }),
                };
                same(block_on(space.setattr(Ino(ino), set)), self.model.setattr(ino, set));
            }
            Action::SetXattr { ino, name, value, flags } => {
                let (ino, name) = (self.ino(ino), xattr(name));
                let value = if name.starts_with(b"system.") {
                    list(value)
                } else {
                    vec![value; usize::from(value % 5)]
                };
                let (create, replace) = (flags % 4 == 1, flags % 4 == 2);
                let real = block_on(space.setxattr(Ino(ino), name, &value, create, replace));
                same(real, self.model.setxattr(ino, name, &value, create, replace));
            }
            Action::RemoveXattr { ino, name } => {
                let (ino, name) = (self.ino(ino), xattr(name));
                same(block_on(space.removexattr(Ino(ino), name)), self.model.removexattr(ino, name));
            }
            Action::Open { ino } => {
                let ino = self.ino(ino);
                let real = block_on(space.open(Ino(ino)));
                self.opens.extend(real.is_ok().then_some(ino));
                same(real, self.model.open(ino));
            }
            Action::Close { nth } => {
                if !self.opens.is_empty() {
                    let ino = self.opens.swap_remove(usize::from(nth) % self.opens.len());
                    space.close(Ino(ino));
                    self.model.close(ino);
                }
            }
            Action::Commit { ino, size, ref pieces } => self.commit(ino, size, pieces),
            Action::Relocate { ref picks, again } => self.relocate(picks, again),
            Action::Live { ref picks } => {
                let staged = self.picks(picks);
                let live =
                    |(ino, e): &(Ino, Extent)| self.model.nodes.get(&ino.0).map_or(vec![], |n| n.live(e));
                let model: Vec<_> = staged.iter().map(live).collect();
                same(block_on(space.live(&staged)), Ok(model));
            }
            Action::Forget => {
                let dead = self.dead();
                same(block_on(space.dead_objects(2)), Ok(dead.iter().copied().take(2).collect()));
                let ids: Vec<ObjectId> = dead.iter().take(1).map(|d| d.object.id).collect();
                same(block_on(space.forget_objects(ids.clone())), Ok(()));
                self.model.objects.retain(|id, _| !ids.contains(id));
            }
            Action::Inline { ref picks, earlier } => self.inline(picks, earlier),
            Action::Tiny { ino, len, first } => self.tiny(ino, len, first),
            Action::Limits { bytes, inodes, inline } => {
                // Mostly none, so that most sequences grow.
                let bytes_max = if bytes > 200 { u64::from(bytes) } else { 0 };
                let inodes_max = if inodes > 200 { u64::from(inodes % 16) } else { 0 };
                let change = NamespaceChange {
                    bytes_max: Some(bytes_max),
                    inodes_max: Some(inodes_max),
                    ..NamespaceChange::default()
                };
                space.configure(change).unwrap();
                (self.model.bytes_max, self.model.inodes_max) = (bytes_max, inodes_max);
                self.model.inline_bytes_max = u64::from(inline % 128);
                set_inline(&space, self.model.inline_bytes_max);
            }
            Action::Lookup { dir, name } => {
                let (dir, name) = (self.dir(dir), entry(name));
                same(block_on(space.lookup(Ino(dir), name)), self.model.lookup(dir, name.as_bytes()));
            }
            Action::Discard { nth } => {
                if let Some(found) = self.in_trash(nth) {
                    let name = EntryName::new(&found.name).unwrap();
                    same(block_on(space.unlink(found.dir, name)), Ok(self.model.discard(found.ino)));
                }
            }
            Action::Restore { nth, dir, name, mode } => {
                if let Some(found) = self.in_trash(nth) {
                    let (dir, name) = (self.dir(dir), entry(name));
                    let mode = [
                        RenameMode::Replace,
                        RenameMode::NoReplace,
                        RenameMode::Replace,
                        RenameMode::Exchange,
                    ][usize::from(mode) % 4];
                    let from = EntryName::new(&found.name).unwrap();
                    let real = block_on(space.rename(found.dir, from, Ino(dir), name, mode));
                    same(real, self.model.restore(found.ino, (dir, name.as_bytes()), mode));
                }
            }
            Action::Sync => block_on(space.sync()).unwrap(),
        }
        self.model.settle_copies();
        assert_eq!(space.usage(), self.model.usage());
        let usage = self.model.usage();
        let headroom =
            if usage.bytes_max == 0 { u64::MAX } else { usage.bytes_max.saturating_sub(usage.bytes) };
        assert_eq!(space.headroom(), headroom);
        let capable = |n: &Node| n.xattrs.contains_key(&b"security.capability"[..]);
        assert_eq!(space.has_capabilities(), self.model.nodes.values().any(capable));
    }

    fn commit(&mut self, ino: u8, size: u8, pieces: &[(u8, u8, u8)]) {
        let ino = self.file(ino);
        let mut commit = Commit {
            ino: Ino(ino),
            size: u64::from(size),
            mtime: Timestamp { secs: i64::from(size), nanos: 3 },
            // Now, or before the last change.
            ctime: if size.is_multiple_of(2) { self.model.now } else { Timestamp { secs: 5, nanos: 3 } },
            extents: vec![],
            holes: vec![],
            staged_seq: self.log_end,
        };
        for &(offset, len, how) in pieces {
            let (offset, len) = (u64::from(offset), u64::from(len));
            if how >= 200 {
                commit.holes.push((offset, len));
            } else if len > 0 {
                let place = match how {
                    0..20 => Place::StageFile { node: NodeId(u64::from(how % 2)) },
                    // An object by its number, whatever became of it: named again, dead or never stored.
                    20..30 => Place::Object {
                        kind: ObjectKind::Pack,
                        id: ObjectId(u128::from(how % 10)),
                        offset: u64::from(how),
                    },
                    _ => Place::Log { node: NodeId(1), segment: 1, offset: self.log_end },
                };
                self.log_end += len + 7;
                let bytes =
                    (0..len).map(|i| self.model.byte(cell(&Extent { offset, len, place, crc: 0 }, i)));
                let crc = match place {
                    Place::Log { .. } => granary_core::crc32c(&bytes.collect::<Vec<u8>>()),
                    _ => 0,
                };
                let e = Extent { offset, len, place, crc };
                commit.extents.push(e);
                self.staged.push((Ino(ino), e));
            }
        }
        let real = block_on(self.space.commit(commit.clone()));
        same(real, self.model.commit(&commit));
    }

    /// An action goes on with another operation.
    fn step(&mut self) {
        self.model.settle_copies();
        self.between.push(self.model.clone());
    }

    fn tiny(&mut self, ino: u8, len: u8, first: u8) {
        let before = self.staged.len();
        let first = first.min(len - 1);
        // In the log, one after the other; the first may be empty.
        self.commit(ino, len, &[(0, first, 100), (first, len - first, 100)]);
        self.step();
        let staged = self.staged.split_off(before);
        self.relocate_all(staged.clone(), false);
        self.step();
        self.staged.extend(staged);
        self.inline(&[ino], None);
    }

    fn relocate(&mut self, picks: &[u8], again: bool) {
        self.relocate_all(self.picks(picks), again);
    }

    fn relocate_all(&mut self, picks: Vec<(Ino, Extent)>, again: bool) {
        let mut moves = Vec::new();
        let mut payload_len = 0;
        for (ino, from) in picks {
            moves.push(Move { ino, from, to_offset: payload_len });
            payload_len += from.len;
        }
        self.objects += 1;
        let id = ObjectId(self.objects);
        let object = ObjectInfo { id, kind: ObjectKind::Pack, payload_len, total_len: payload_len + 64 };
        let real = block_on(self.space.relocate(object, moves.clone()));
        same(real, Ok(self.model.relocate(object, &moves)));
        if again {
            // The answer was lost: the same once more moves nothing.
            let real = block_on(self.space.relocate(object, moves.clone())).unwrap();
            assert!(real.iter().all(|parts| parts.is_empty()));
        }
        assert_eq!(block_on(self.space.object(id)).unwrap(), object);
    }

    fn inline(&mut self, picks: &[u8], earlier: Option<u8>) {
        let mut offers: Vec<(ObjectInfo, NewInline)> = Vec::new();
        for ino in picks.iter().map(|&pick| self.file(pick)) {
            let Some((id, at, bytes)) = self.model.whole(ino) else { continue };
            let offer =
                NewInline { ino: Ino(ino), at, crc: granary_core::crc32c(&bytes), bytes: bytes.into() };
            // Of another file, too: the content of one is not the content of the other, if it has another place.
            let other = NewInline { ino: Ino(self.file(picks[0])), ..offer.clone() };
            let Some((object, _)) = self.model.objects.get(&id) else { continue };
            offers.extend([(*object, offer), (*object, other)]);
        }
        if let Some(nth) = earlier.filter(|_| !self.offered.is_empty()) {
            offers.push(self.offered[usize::from(nth) % self.offered.len()].clone());
        }
        for (object, offer) in &offers {
            let damaged = NewInline { crc: offer.crc ^ 1, ..offer.clone() };
            let real = block_on(self.space.keep_inline(*object, vec![damaged]));
            assert_eq!(real.unwrap_err().kind(), Kind::Invalid);
            same(block_on(self.space.keep_inline(*object, vec![offer.clone()])), Ok(()));
            self.model.keep_inline(object.id, offer.clone());
            self.step();
        }
        self.offered.extend(offers);
    }

    fn dead(&self) -> Vec<DeadObject> {
        let dead = self
            .model
            .objects
            .values()
            .filter_map(|&(object, since)| Some(DeadObject { object, since: since? }));
        let mut dead: Vec<_> = dead.collect();
        dead.sort_by_key(|d| (d.since, d.object.id));
        dead
    }

    /// Page by page. That their counts of live bytes are right is the check's business.
    fn live(&self) -> Vec<ObjectInfo> {
        let (mut all, mut after) = (Vec::new(), ObjectId(0));
        loop {
            let page = block_on(self.space.live_objects(after, 3)).unwrap();
            let Some(last) = page.last() else { return all };
            after = last.object.id;
            all.extend(page.iter().map(|o| o.object));
        }
    }

    pub fn compare(&self) {
        assert_eq!(difference(&self.space, &self.model), None);
        assert_eq!(block_on(self.space.dead_objects(1000)).unwrap(), self.dead());
        assert_eq!(
            self.live(),
            self.model.objects.values().filter(|o| o.1.is_none()).map(|o| o.0).collect::<Vec<_>>()
        );
        assert_eq!(self.space.check().unwrap(), []);
        for ino in &self.inos {
            if !self.model.nodes.contains_key(ino) {
                assert_eq!(block_on(self.space.getattr(Ino(*ino))).unwrap_err().kind(), Kind::Stale);
            }
        }
    }
}

/// What a namespace shows that the model does not have, if anything.
pub fn difference(space: &LocalNamespace, model: &Model) -> Option<String> {
    let usage = |u: Usage| (u.bytes, u.inodes, u.trash_bytes, u.trash_inodes);
    if usage(space.usage()) != usage(model.usage()) {
        return Some(format!("usage {:?}, model {:?}", space.usage(), model.usage()));
    }
    if let Some(what) = trash::difference(space, model) {
        return Some(what);
    }
    model
        .nodes
        .iter()
        .find_map(|(&ino, node)| differs(space, Ino(ino), node).err().map(|e| format!("inode {ino}: {e}")))
}

fn differs(space: &LocalNamespace, ino: Ino, node: &Node) -> std::result::Result<(), String> {
    let expect = |same: bool, what: &str| if same { Ok(()) } else { Err(what.to_owned()) };
    let text = |e: Error| e.to_string();
    let (attr, extents) = block_on(space.extents(ino)).map_err(text)?;
    expect(attr == node.attr, &format!("{attr:?}, model {:?}", node.attr))?;
    let copy = block_on(space.inline(ino)).map_err(text)?;
    expect(copy == node.copy, &format!("copy {copy:?}, model {:?}", node.copy))?;
    expect(cells(&extents) == node.cells, &format!("{extents:?}, model {:?}", node.cells))?;
    let xattrs: Vec<Vec<u8>> = block_on(space.listxattr(ino)).map_err(text)?;
    expect(xattrs == node.xattrs.keys().cloned().collect::<Vec<_>>(), "names of extended attributes")?;
    for (name, value) in &node.xattrs {
        expect(block_on(space.getxattr(ino, name)).map_err(text)? == *value, "an extended attribute")?;
    }
    match node.attr.kind {
        FileType::Symlink => expect(block_on(space.readlink(ino)).map_err(text)? == node.target, "target"),
        FileType::Directory => {
            expect(block_on(space.parent(ino)).map_err(text)?.0 == node.parent, "parent")?;
            let listed = listing(space, ino, 3).map_err(text)?;
            let listed: Vec<_> = listed.into_iter().map(|e| (e.cookie, (e.name, e.ino.0))).collect();
            expect(listed == node.entries.clone().into_iter().collect::<Vec<_>>(), "entries")
        }
        _ => Ok(()),
    }
}

/// A whole listing, in pages.
pub fn listing(space: &LocalNamespace, dir: Ino, page: usize) -> granary_core::Result<Vec<DirEntry>> {
    let mut all: Vec<DirEntry> = Vec::new();
    loop {
        let cookie = all.last().map_or(0, |e| e.cookie);
        let more = block_on(space.readdir(dir, cookie, page, true))?;
        if more.is_empty() {
            return Ok(all);
        }
        for e in &more {
            let attr = e.attr.as_ref().unwrap();
            assert_eq!((attr.ino, attr.kind), (e.ino, e.kind));
        }
        all.extend(more);
    }
}

/// Copies of the bytes of files up to so long.
fn set_inline(space: &LocalNamespace, bytes_max: u64) {
    let policy = PolicyChange { inline_bytes_max: Some(bytes_max), ..PolicyChange::default() };
    space.configure(NamespaceChange { policy, ..NamespaceChange::default() }).unwrap();
}

fn entry(i: u8) -> EntryName<'static> {
    const NAMES: [&[u8]; 6] = [b"a", b"b", b"ab", b"\xff\xfe", b"c", b"a\x01"];
    EntryName::new(NAMES[usize::from(i) % NAMES.len()]).unwrap()
}

fn xattr(i: u8) -> &'static [u8] {
    const NAMES: [&[u8]; 5] = [b"user.x", b"user.y", b"security.capability", acl::ACCESS, acl::DEFAULT];
    NAMES[usize::from(i) % NAMES.len()]
}

/// An access control list: one that a mode can say, one that it cannot, none, or no list at all.
fn list(i: u8) -> Vec<u8> {
    let perm = i >> 2 & 7;
    let mut entries: Vec<Entry> =
        [Who::Owner, Who::OwningGroup, Who::Others].map(|who| Entry { who, perm }).to_vec();
    match i % 4 {
        0 => {}
        1 | 2 => {
            entries.insert(1, Entry { who: Who::User(u32::from(i)), perm: 6 });
            entries.insert(3, Entry { who: Who::Mask, perm: i >> 5 });
        }
        _ => return if i & 4 == 0 { vec![2, 0, 0, 0] } else { vec![i; 3] },
    }
    Acl::new(entries).unwrap().encode()
}

#[track_caller]
fn same<T: PartialEq + std::fmt::Debug>(real: granary_core::Result<T>, model: std::result::Result<T, Kind>) {
    match (&real, &model) {
        (Ok(a), Ok(b)) => assert_eq!(a, b),
        (Err(a), Err(b)) => assert_eq!(a.kind(), *b, "{a}"),
        _ => panic!("real {real:?}, model {model:?}"),
    }
}
