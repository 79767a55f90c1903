//! A file tree as plain as can be: every byte of a file is a cell that says where it is. What the metadata is compared to.

use std::collections::{BTreeMap, BTreeSet};

use granary_core::limits::LINKS_MAX;
use granary_core::{Kind, ObjectId, Timestamp};

use super::trash::{Path, Spot};
use crate::acl::{ACCESS, Acl, DEFAULT};
use crate::types::*;

/// Where one byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    Object(ObjectId, u64),
    Log(u64, u64),
    Stage(u64),
}

#[derive(Clone, Debug)]
pub struct Node {
    pub attr: Attr,
    pub parent: u64,
    /// In order of cookies.
    pub entries: BTreeMap<u64, (Vec<u8>, u64)>,
    pub next_cookie: u64,
    pub target: Vec<u8>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub cells: Vec<Option<Cell>>,
    pub opens: u32,
    /// It was made without a name and has had none yet.
    pub never_named: bool,
    /// Where it goes when nobody has it open any more.
    pub kept: Option<Spot>,
    /// The copy of its bytes.
    pub copy: Option<Inline>,
}

#[derive(Clone, Debug)]
pub struct Model {
    pub nodes: BTreeMap<u64, Node>,
    pub objects: BTreeMap<ObjectId, (ObjectInfo, Option<Timestamp>)>,
    /// What is in them, for ever: of each the payload.
    pub payloads: BTreeMap<ObjectId, Vec<u8>>,
    pub inline_bytes_max: u64,
    pub next_ino: u64,
    pub bytes_max: u64,
    pub inodes_max: u64,
    pub trash_ms: u64,
    /// Files in the trash, which are nodes like others.
    pub trash: BTreeMap<u64, Spot>,
    pub mirrors: BTreeSet<Path>,
    pub now: Timestamp,
}

type Answer<T> = std::result::Result<T, Kind>;

impl Model {
    pub fn new(now: Timestamp, mode: u32, uid: u32, gid: u32) -> Model {
        let mut model = Model {
            nodes: BTreeMap::new(),
            objects: BTreeMap::new(),
            payloads: BTreeMap::new(),
            inline_bytes_max: 0,
            next_ino: 1,
            bytes_max: 0,
            inodes_max: 0,
            trash_ms: TRASH_MS_DEFAULT,
            trash: BTreeMap::new(),
            mirrors: BTreeSet::new(),
            now,
        };
        let new = NewInode { kind: FileType::Directory, mode, umask: 0, uid, gid, rdev: 0, target: vec![] };
        model.make(&new);
        model
    }

    fn make(&mut self, new: &NewInode) -> u64 {
        let (ino, now) = (self.next_ino, self.now);
        self.next_ino += 1;
        let attr = Attr {
            ino: granary_core::Ino(ino),
            kind: new.kind,
            mode: new.mode,
            uid: new.uid,
            gid: new.gid,
            nlink: if new.kind == FileType::Directory { 2 } else { 1 },
            rdev: 0,
            size: new.target.len() as u64,
            stored: 0,
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
            version: 1,
            staged_seq: 0,
        };
        let node = Node {
            attr,
            parent: 1,
            entries: BTreeMap::new(),
            next_cookie: 3,
            target: new.target.clone(),
            xattrs: BTreeMap::new(),
            cells: vec![],
            opens: 0,
            never_named: false,
            kept: None,
            copy: None,
        };
        self.nodes.insert(ino, node);
        ino
    }

    pub fn node(&mut self, ino: u64) -> Answer<&mut Node> {
        self.nodes.get_mut(&ino).ok_or(Kind::Stale)
    }

    fn dir(&mut self, ino: u64) -> Answer<&mut Node> {
        let node = self.node(ino)?;
        match (node.attr.kind, node.attr.nlink) {
            (FileType::Directory, 0) => Err(Kind::NotFound),
            (FileType::Directory, _) => Ok(node),
            _ => Err(Kind::NotDirectory),
        }
    }

    fn find(&mut self, dir: u64, name: &[u8]) -> Answer<Option<(u64, u64)>> {
        let entries = &self.dir(dir)?.entries;
        Ok(entries.iter().find(|(_, (n, _))| n == name).map(|(cookie, (_, ino))| (*cookie, *ino)))
    }

    pub fn lookup(&mut self, dir: u64, name: &[u8]) -> Answer<Attr> {
        let found = match self.find(dir, name) {
            Err(Kind::NotFound) | Ok(None) => return Err(Kind::NotFound),
            Ok(Some((_, ino))) => ino,
            Err(e) => return Err(e),
        };
        Ok(self.node(found)?.attr.clone())
    }

    /// Entries of a directory changed.
    fn touched(&mut self, dir: u64) {
        let subdirs = {
            let inos: Vec<u64> = self.nodes[&dir].entries.values().map(|(_, ino)| *ino).collect();
            inos.iter().filter(|ino| self.nodes[ino].attr.kind == FileType::Directory).count() as u32
        };
        let now = self.now;
        let node = self.nodes.get_mut(&dir).unwrap();
        node.attr.nlink = 2 + subdirs;
        node.attr.size = node.entries.len() as u64 * 32;
        node.attr.mtime = now;
        node.attr.ctime = now;
        node.attr.version += 1;
    }

    fn add(&mut self, dir: u64, name: &[u8], ino: u64) {
        let node = self.nodes.get_mut(&dir).unwrap();
        node.entries.insert(node.next_cookie, (name.to_vec(), ino));
        node.next_cookie += 1;
    }

    fn drop_link(&mut self, ino: u64, place: Option<Spot>) -> Attr {
        let now = self.now;
        let node = self.nodes.get_mut(&ino).unwrap();
        if let Some(place) = place {
            node.attr.ctime = now;
            node.attr.nlink = u32::from(node.opens == 0);
            match node.opens {
                0 => drop(self.trash.insert(ino, place)),
                _ => node.kept = Some(place),
            }
            return node.attr.clone();
        }
        node.attr.nlink = if node.attr.kind == FileType::Directory { 0 } else { node.attr.nlink - 1 };
        node.attr.ctime = now;
        let attr = node.attr.clone();
        self.collect();
        attr
    }

    /// Frees inodes without name and user; objects without bytes die.
    pub fn collect(&mut self) {
        let late = |(_, n): &(&u64, &Node)| n.attr.nlink == 0 && n.opens == 0 && n.kept.is_some();
        let late: Vec<u64> = self.nodes.iter().filter(late).map(|(ino, _)| *ino).collect();
        for ino in late {
            let place = self.nodes.get_mut(&ino).and_then(|n| n.kept.take()).unwrap();
            if self.is_worth(ino) && self.has_room(self.nodes[&ino].attr.stored, 1) {
                let now = self.now;
                let node = self.nodes.get_mut(&ino).unwrap();
                (node.attr.nlink, node.attr.ctime) = (1, now);
                self.trash.insert(ino, place);
            }
        }
        self.nodes.retain(|_, n| n.attr.nlink > 0 || n.opens > 0);
        let used: std::collections::HashSet<ObjectId> = self
            .nodes
            .values()
            .flat_map(|n| &n.cells)
            .filter_map(|c| if let Some(Cell::Object(id, _)) = c { Some(*id) } else { None })
            .collect();
        for (id, (_, dead)) in &mut self.objects {
            if dead.is_none() && !used.contains(id) {
                *dead = Some(self.now);
            }
        }
    }

    pub fn usage(&self) -> Usage {
        let trash_bytes = self.trash.keys().map(|ino| self.nodes[ino].attr.stored).sum();
        Usage {
            bytes: self.nodes.values().map(|n| n.attr.stored).sum::<u64>() - trash_bytes,
            inodes: (self.nodes.len() - self.trash.len()) as u64,
            bytes_max: self.bytes_max,
            inodes_max: self.inodes_max,
            trash_bytes,
            trash_inodes: (self.trash.len() + self.mirrors.len()) as u64,
        }
    }

    pub fn create(&mut self, dir: u64, name: &[u8], mut new: NewInode, open: bool) -> Answer<Attr> {
        if self.find(dir, name)?.is_some() {
            return Err(Kind::Exists);
        }
        let ino = self.make_in(dir, &mut new)?;
        self.add(dir, name, ino);
        self.touched(dir);
        let node = self.node(ino)?;
        node.parent = dir;
        node.opens = u32::from(open);
        Ok(node.attr.clone())
    }

    pub fn tmpfile(&mut self, dir: u64, mut new: NewInode) -> Answer<Attr> {
        self.dir(dir)?;
        let ino = self.make_in(dir, &mut new)?;
        let node = self.node(ino)?;
        (node.opens, node.never_named, node.attr.nlink) = (1, true, 0);
        Ok(node.attr.clone())
    }

    fn make_in(&mut self, dir: u64, new: &mut NewInode) -> Answer<u64> {
        let usage = self.usage();
        if self.inodes_max > 0 && usage.inodes >= self.inodes_max {
            return Err(Kind::QuotaExceeded);
        }
        if new.kind == FileType::File && self.bytes_max > 0 && usage.bytes >= self.bytes_max {
            return Err(Kind::QuotaExceeded);
        }
        let parent = self.dir(dir)?.clone();
        let mut xattrs = BTreeMap::new();
        if new.kind != FileType::Symlink {
            if let Some(default) = parent.acl(DEFAULT) {
                let mut access = default.clone();
                access.set_mode(default.mode() & new.mode);
                new.mode = new.mode & !0o777 | access.mode();
                if access.entries().len() > 3 {
                    xattrs.insert(ACCESS.to_vec(), access.encode());
                }
                if new.kind == FileType::Directory {
                    xattrs.insert(DEFAULT.to_vec(), default.encode());
                }
            } else {
                new.mode &= !new.umask;
            }
        }
        if parent.attr.mode & 0o2000 != 0 {
            new.gid = parent.attr.gid;
            if new.kind == FileType::Directory {
                new.mode |= 0o2000;
            }
        }
        let ino = self.make(new);
        self.node(ino)?.xattrs = xattrs;
        Ok(ino)
    }

    fn regular(&mut self, ino: u64) -> Answer<&mut Node> {
        let node = self.node(ino)?;
        if node.attr.kind == FileType::File { Ok(node) } else { Err(Kind::Invalid) }
    }

    /// `done` is how much the metadata shared.
    pub fn copy_range(&mut self, copy: CopyRange, done: u64) -> Answer<Copied> {
        let (from_ino, to_ino) = (copy.from.0, copy.to.0);
        let from = self.regular(from_ino)?.clone();
        let to = self.regular(to_ino)?.clone();
        let len = copy.len.min(from.attr.size.saturating_sub(copy.from_offset));
        if from_ino == to_ino && copy.from_offset.abs_diff(copy.to_offset) < len {
            return Err(Kind::Invalid);
        }
        let cell = |i: u64| from.cells.get((copy.from_offset + i) as usize).copied().flatten();
        let shareable =
            (0..len).take_while(|&i| matches!(cell(i), None | Some(Cell::Object(..)))).count() as u64;
        let target = |i: u64| to.cells.get((copy.to_offset + i) as usize).copied().flatten();
        let growth: i64 =
            (0..done).map(|i| i64::from(cell(i).is_some()) - i64::from(target(i).is_some())).sum();
        if done == 0 && shareable > 0 && self.bytes_max > 0 {
            // How much was tried is not known, but that it was too much.
            return Err(Kind::QuotaExceeded);
        }
        assert!(done <= shareable && (done > 0 || shareable == 0), "{done} of {shareable} bytes were shared");
        assert!(
            growth <= 0 || self.bytes_max == 0 || self.usage().bytes as i64 + growth <= self.bytes_max as i64
        );
        let now = self.now;
        let node = self.node(to_ino)?;
        if done > 0 {
            node.fill(copy.to_offset, done, cell);
            let a = &mut node.attr;
            a.size = a.size.max(copy.to_offset + done);
            a.version += 1;
            (a.mtime, a.ctime) = (now, now);
            a.staged_seq = a.staged_seq.max(copy.staged_seq);
        }
        let attr = node.attr.clone();
        self.collect();
        Ok(Copied { len: done, attr })
    }

    pub fn link(&mut self, ino: u64, dir: u64, name: &[u8]) -> Answer<Attr> {
        self.dir(dir)?;
        self.node(ino)?;
        if self.find(dir, name)?.is_some() {
            return Err(Kind::Exists);
        }
        if self.trash.contains_key(&ino) {
            return Err(Kind::Permission);
        }
        let now = self.now;
        let node = self.node(ino)?;
        match node.attr {
            Attr { kind: FileType::Directory, .. } => return Err(Kind::Permission),
            Attr { nlink: 0, .. } if !node.never_named => return Err(Kind::NotFound),
            Attr { nlink, .. } => assert!(nlink < LINKS_MAX),
        }
        node.never_named = false;
        node.attr.nlink += 1;
        node.attr.ctime = now;
        let attr = node.attr.clone();
        self.add(dir, name, ino);
        self.touched(dir);
        Ok(attr)
    }

    pub fn remove(&mut self, dir: u64, name: &[u8], directory: bool) -> Answer<Attr> {
        let (cookie, ino) = self.find(dir, name)?.ok_or(Kind::NotFound)?;
        let node = self.node(ino)?;
        match (node.attr.kind == FileType::Directory, directory) {
            (true, false) => return Err(Kind::IsDirectory),
            (false, true) => return Err(Kind::NotDirectory),
            (true, true) if !node.entries.is_empty() => return Err(Kind::NotEmpty),
            _ => {}
        }
        let place = self.place_for(dir, name, ino);
        self.dir(dir)?.entries.remove(&cookie);
        self.touched(dir);
        Ok(self.drop_link(ino, place))
    }

    /// Removes a file from the trash for good.
    pub fn discard(&mut self, ino: u64) -> Attr {
        self.trash.remove(&ino);
        self.drop_link(ino, None)
    }

    /// Moves a file out of the trash.
    pub fn restore(&mut self, ino: u64, to: (u64, &[u8]), mode: RenameMode) -> Answer<Option<Attr>> {
        self.dir(to.0)?;
        let target = self.find(to.0, to.1)?;
        if mode == RenameMode::Exchange {
            return Err(Kind::Permission);
        }
        let usage = self.usage();
        let full = |has: u64, more: u64, max: u64| max > 0 && has + more > max;
        if full(usage.bytes, self.nodes[&ino].attr.stored, self.bytes_max)
            || full(usage.inodes, 1, self.inodes_max)
        {
            return Err(Kind::QuotaExceeded);
        }
        let Some((cookie, old)) = target else {
            self.trash.remove(&ino);
            self.add(to.0, to.1, ino);
            self.touched(to.0);
            self.moved(ino, to.0);
            return Ok(None);
        };
        if mode == RenameMode::NoReplace {
            return Err(Kind::Exists);
        }
        if self.nodes[&old].attr.kind == FileType::Directory {
            return Err(Kind::IsDirectory);
        }
        let place = self.place_for(to.0, to.1, old);
        self.trash.remove(&ino);
        self.dir(to.0)?.entries.insert(cookie, (to.1.to_vec(), ino));
        self.touched(to.0);
        self.moved(ino, to.0);
        Ok(Some(self.drop_link(old, place)))
    }

    fn is_below(&self, mut dir: u64, ino: u64) -> bool {
        loop {
            if dir == ino {
                return true;
            }
            if dir == 1 {
                return false;
            }
            dir = self.nodes[&dir].parent;
        }
    }

    pub fn rename(&mut self, from: (u64, &[u8]), to: (u64, &[u8]), mode: RenameMode) -> Answer<Option<Attr>> {
        self.dir(from.0)?;
        self.dir(to.0)?;
        let (cookie, ino) = self.find(from.0, from.1)?.ok_or(Kind::NotFound)?;
        let target = self.find(to.0, to.1)?;
        let is_dir = |m: &Model, ino: u64| m.nodes[&ino].attr.kind == FileType::Directory;
        if is_dir(self, ino) && from.0 != to.0 && self.is_below(to.0, ino) {
            return Err(Kind::Invalid);
        }
        let Some((to_cookie, old)) = target else {
            if mode == RenameMode::Exchange {
                return Err(Kind::NotFound);
            }
            self.dir(from.0)?.entries.remove(&cookie);
            self.touched(from.0);
            self.add(to.0, to.1, ino);
            self.touched(to.0);
            self.moved(ino, to.0);
            return Ok(None);
        };
        if mode == RenameMode::NoReplace {
            return Err(Kind::Exists);
        }
        if old == ino {
            return Ok(None);
        }
        if mode == RenameMode::Exchange {
            if is_dir(self, old) && from.0 != to.0 && self.is_below(from.0, old) {
                return Err(Kind::Invalid);
            }
            self.dir(from.0)?.entries.insert(cookie, (from.1.to_vec(), old));
            self.touched(from.0);
            self.dir(to.0)?.entries.insert(to_cookie, (to.1.to_vec(), ino));
            self.touched(to.0);
            // Once more for the link count, which is right only now; it is no further change.
            self.touched(from.0);
            self.dir(from.0)?.attr.version -= 1;
            self.moved(ino, to.0);
            self.moved(old, from.0);
            return Ok(None);
        }
        match (is_dir(self, ino), is_dir(self, old)) {
            (true, false) => return Err(Kind::NotDirectory),
            (false, true) => return Err(Kind::IsDirectory),
            (true, true) if !self.nodes[&old].entries.is_empty() => return Err(Kind::NotEmpty),
            _ => {}
        }
        let place = self.place_for(to.0, to.1, old);
        self.dir(from.0)?.entries.remove(&cookie);
        self.touched(from.0);
        self.dir(to.0)?.entries.insert(to_cookie, (to.1.to_vec(), ino));
        self.touched(to.0);
        self.moved(ino, to.0);
        Ok(Some(self.drop_link(old, place)))
    }

    fn moved(&mut self, ino: u64, dir: u64) {
        let now = self.now;
        let node = self.nodes.get_mut(&ino).unwrap();
        node.attr.ctime = now;
        node.parent = dir;
    }

    pub fn setattr(&mut self, ino: u64, set: SetAttr) -> Answer<Attr> {
        let now = self.now;
        let node = self.node(ino)?;
        if let Some(size) = set.size {
            match node.attr.kind {
                FileType::File => {}
                FileType::Directory => return Err(Kind::IsDirectory),
                _ => return Err(Kind::Invalid),
            }
            node.resize(size);
            node.attr.version += u64::from(size != node.attr.size);
            node.attr.size = size;
            node.attr.mtime = now;
            node.attr.staged_seq = node.attr.staged_seq.max(set.staged_seq.unwrap_or(0));
        }
        let owner = set.uid.is_some() || set.gid.is_some();
        if (set.kill_priv || owner) && node.attr.kind != FileType::Directory {
            node.xattrs.remove(&b"security.capability"[..]);
        }
        if (set.kill_priv || owner && set.mode.is_none()) && node.attr.kind != FileType::Directory {
            let setgid = if node.attr.mode & 0o010 != 0 { 0o2000 } else { 0 };
            node.attr.mode &= !(0o4000 | setgid);
        }
        if let Some(mode) = set.mode
            && let Some(mut acl) = node.acl(ACCESS)
        {
            acl.set_mode(mode);
            node.xattrs.insert(ACCESS.to_vec(), acl.encode());
        }
        let a = &mut node.attr;
        let only_accessed =
            set != SetAttr::default() && SetAttr { accessed: None, ..set } == SetAttr::default();
        a.mode = set.mode.unwrap_or(a.mode);
        a.uid = set.uid.unwrap_or(a.uid);
        a.gid = set.gid.unwrap_or(a.gid);
        a.atime = set.atime.unwrap_or(a.atime);
        a.atime = a.atime.max(set.accessed.unwrap_or(a.atime));
        a.mtime = set.mtime.unwrap_or(a.mtime);
        a.ctime = if only_accessed { a.ctime } else { now };
        let attr = a.clone();
        self.collect();
        Ok(attr)
    }

    pub fn setxattr(
        &mut self,
        ino: u64,
        name: &[u8],
        value: &[u8],
        create: bool,
        replace: bool,
    ) -> Answer<()> {
        let now = self.now;
        let node = self.node(ino)?;
        match (node.xattrs.contains_key(name), create, replace) {
            (true, true, _) => return Err(Kind::Exists),
            (false, _, true) => return Err(Kind::NoAttribute),
            _ => {}
        }
        if name == ACCESS || name == DEFAULT {
            if node.attr.kind == FileType::Symlink {
                return Err(Kind::Unsupported);
            }
            let acl = Acl::parse(value).map_err(|e| e.kind())?;
            if name == DEFAULT && acl.is_some() && node.attr.kind != FileType::Directory {
                return Err(Kind::Access);
            }
            if let (Some(acl), true) = (&acl, name == ACCESS) {
                node.attr.mode = node.attr.mode & !0o777 | acl.mode();
            }
            match acl {
                Some(acl) if name == DEFAULT || acl.entries().len() > 3 => {
                    node.xattrs.insert(name.to_vec(), acl.encode());
                }
                _ => drop(node.xattrs.remove(name)),
            }
        } else {
            node.xattrs.insert(name.to_vec(), value.to_vec());
        }
        node.attr.ctime = now;
        Ok(())
    }

    pub fn removexattr(&mut self, ino: u64, name: &[u8]) -> Answer<()> {
        let now = self.now;
        let node = self.node(ino)?;
        if node.xattrs.remove(name).is_none() {
            return if name == ACCESS || name == DEFAULT { Ok(()) } else { Err(Kind::NoAttribute) };
        }
        node.attr.ctime = now;
        Ok(())
    }

    pub fn open(&mut self, ino: u64) -> Answer<Attr> {
        let node = self.node(ino)?;
        node.opens += 1;
        Ok(node.attr.clone())
    }

    pub fn close(&mut self, ino: u64) {
        self.nodes.get_mut(&ino).unwrap().opens -= 1;
        self.collect();
    }

    pub fn commit(&mut self, commit: &Commit) -> Answer<Attr> {
        let before = self.clone();
        let node = self.node(commit.ino.0)?;
        if node.attr.kind != FileType::File {
            return Err(Kind::Invalid);
        }
        for &(offset, len) in &commit.holes {
            node.fill(offset, len, |_| None);
        }
        for e in &commit.extents {
            node.fill(e.offset, e.len, |i| Some(cell(e, i)));
        }
        node.resize(commit.size);
        let a = &mut node.attr;
        let changed = a.size != commit.size || !commit.extents.is_empty() || !commit.holes.is_empty();
        a.version += u64::from(changed);
        a.size = commit.size;
        a.mtime = commit.mtime;
        a.ctime = a.ctime.max(commit.ctime);
        a.staged_seq = a.staged_seq.max(commit.staged_seq);
        let attr = a.clone();
        let mut named: Vec<ObjectId> = node
            .cells
            .iter()
            .filter_map(|c| if let Some(Cell::Object(id, _)) = c { Some(*id) } else { None })
            .collect();
        named.sort();
        for id in named {
            let problem = match self.objects.get(&id) {
                None => Kind::Invalid,
                Some((_, Some(_))) => Kind::Stale,
                _ => continue,
            };
            *self = before;
            return Err(problem);
        }
        self.collect();
        Ok(attr)
    }

    pub fn relocate(&mut self, object: ObjectInfo, moves: &[Move]) -> Vec<Vec<(u64, u64)>> {
        let mut parts = vec![Vec::new(); moves.len()];
        let payload =
            moves.iter().flat_map(|m| (0..m.from.len).map(|i| self.byte(cell(&m.from, i)))).collect();
        self.payloads.insert(object.id, payload);
        for (m, parts) in moves.iter().zip(&mut parts) {
            let Some(node) = self.nodes.get_mut(&m.ino.0) else { continue };
            *parts = node.live(&m.from);
            for &(start, len) in parts.iter() {
                let at = m.to_offset + start - m.from.offset;
                node.fill(start, len, |i| Some(Cell::Object(object.id, at + i)));
            }
        }
        self.objects.insert(object.id, (object, None));
        self.collect();
        parts
    }

    /// The byte at a place, which never changes.
    pub fn byte(&self, cell: Cell) -> u8 {
        match cell {
            Cell::Object(id, at) => {
                self.payloads.get(&id).and_then(|p| p.get(at as usize)).copied().unwrap_or(0)
            }
            Cell::Log(segment, at) => (segment.wrapping_mul(31) ^ at.wrapping_mul(7) ^ at >> 6) as u8,
            Cell::Stage(node) => node as u8,
        }
    }

    /// The object and the offset in it that are a file's whole content, and the bytes.
    pub fn whole(&self, ino: u64) -> Option<(ObjectId, u64, Vec<u8>)> {
        let node = self.nodes.get(&ino)?;
        let (id, at) = match node.cells.first() {
            Some(Some(Cell::Object(id, at))) if node.attr.size == node.cells.len() as u64 => (*id, *at),
            _ => return None,
        };
        let in_line = |(i, c): (usize, &Option<Cell>)| *c == Some(Cell::Object(id, at + i as u64));
        let bytes = node.cells.iter().flatten().map(|c| self.byte(*c)).collect();
        node.cells.iter().enumerate().all(in_line).then_some((id, at, bytes))
    }

    pub fn keep_inline(&mut self, object: ObjectId, copy: NewInline) {
        let is_it = |(id, at, bytes): (ObjectId, u64, Vec<u8>)| {
            (id, at) == (object, copy.at) && bytes.len() == copy.bytes.len()
        };
        if self.whole(copy.ino.0).is_some_and(is_it) && copy.bytes.len() as u64 <= self.inline_bytes_max {
            let node = self.nodes.get_mut(&copy.ino.0).unwrap();
            node.copy = Some(Inline { version: node.attr.version, crc: copy.crc, bytes: copy.bytes });
        }
    }

    /// Copies of what is not the content any more are gone, and those of what is have its bytes.
    pub fn settle_copies(&mut self) {
        let copies: Vec<(u64, Inline)> =
            self.nodes.iter().filter_map(|(ino, node)| Some((*ino, node.copy.clone()?))).collect();
        for (ino, copy) in copies {
            match self.whole(ino) {
                Some((.., bytes)) if copy.version == self.nodes[&ino].attr.version => {
                    assert_eq!(*copy.bytes, *bytes, "the model itself keeps wrong bytes");
                }
                _ => self.nodes.get_mut(&ino).unwrap().copy = None,
            }
        }
    }

    /// What is left of it after a crash: nobody has anything open.
    pub fn crashed(mut self, now: Timestamp) -> Model {
        self.now = now;
        for node in self.nodes.values_mut() {
            node.opens = 0;
        }
        self.collect();
        self
    }
}

impl Node {
    fn acl(&self, name: &[u8]) -> Option<Acl> {
        Acl::parse(self.xattrs.get(name)?).unwrap()
    }

    fn fill(&mut self, offset: u64, len: u64, cell: impl Fn(u64) -> Option<Cell>) {
        let end = (offset + len) as usize;
        if self.cells.len() < end {
            self.cells.resize(end, None);
        }
        for i in 0..len {
            self.cells[(offset + i) as usize] = cell(i);
        }
        self.count();
    }

    fn resize(&mut self, size: u64) {
        self.cells.truncate(size as usize);
        self.count();
    }

    fn count(&mut self) {
        while let Some(None) = self.cells.last() {
            self.cells.pop();
        }
        self.attr.stored = self.cells.iter().flatten().count() as u64;
    }

    /// Runs of bytes that are where `from` says.
    pub fn live(&self, from: &Extent) -> Vec<(u64, u64)> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for i in 0..from.len {
            let at = from.offset + i;
            if self.cells.get(at as usize).copied().flatten() == Some(cell(from, i)) {
                match runs.last_mut() {
                    Some((start, len)) if *start + *len == at => *len += 1,
                    _ => runs.push((at, 1)),
                }
            }
        }
        runs
    }
}

/// Where the byte `i` of an extent is.
pub fn cell(extent: &Extent, i: u64) -> Cell {
    match extent.place {
        Place::Object { id, offset, .. } => Cell::Object(id, offset + i),
        Place::Log { segment, offset, .. } => Cell::Log(segment, offset + i),
        Place::StageFile { node } => Cell::Stage(node.0),
    }
}

/// A list of extents as cells.
pub fn cells(extents: &[Extent]) -> Vec<Option<Cell>> {
    let mut out = Vec::new();
    for e in extents {
        assert!(e.offset >= out.len() as u64 && e.len > 0, "extents overlap: {extents:?}");
        out.resize(e.offset as usize, None);
        out.extend((0..e.len).map(|i| Some(cell(e, i))));
    }
    out
}
