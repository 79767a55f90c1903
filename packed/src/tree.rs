//! The tree of one version: names, directories and attributes, found in the order and the indexes each time. Nothing is kept for
//! an inode; its number says what it is.
//!
//! | inode number | what |
//! |---|---|
//! | 1 | the root |
//! | 2 | `.shards` |
//! | 2^44 + s | the tar of shard s |
//! | 2^44 + 2^32 + s | its index |
//! | 2^45 + n | the regular file n: of all files of all shards, dead ones too, in the order of shards |
//! | 2^46 + n | the link or pipe n, among all that are no regular files |
//! | 2^47 + 2^35 d + p | the directory whose path is the first d parts of that at place p of the order, the first below it |
//!
//! All are below [`Ino::TRASH`]. A version's numbers are its own; files keep theirs in later versions as long as shards are only
//! added.
//!
//! A directory is the places of the order whose paths begin with its own and a slash. A name in it is the place of the path, or
//! the first of those that go on behind it with a slash; a listing goes from a child to the first place that is not below it. A
//! path that is a file in one shard and a directory in another is the file.

mod ino;
mod search;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use granary_core::{Error, Ino, Kind, Result, Timestamp};
use granary_meta::{Attr, DirEntry, FileType};
use granary_packer::index::{File, Index, Other};

use crate::names::{clean, prefix};
use crate::order::{Entry, Of, Order};
pub use ino::What;
use ino::{PLACES_MAX, directory_ino, file_ino, other_ino};

/// Of the root, and of directories of which no tar says anything: theirs are the namespace's owner, its group and 0755.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
    /// Of the root.
    pub mode: u32,
    /// Of both: when the version was opened here.
    pub time: Timestamp,
}

#[derive(Debug)]
pub struct Tree {
    order: Order,
    indexes: Vec<Index>,
    /// Files, and others, before each shard, and of all.
    files_before: Vec<u64>,
    others_before: Vec<u64>,
    owner: Owner,
}

/// A directory: its path's length in parts, and the places below it from its first on.
#[derive(Clone, Debug)]
struct Directory {
    depth: u32,
    first: u64,
    /// Its path with a slash at its end; empty for the root.
    path: Vec<u8>,
}

/// What an entry of a directory is.
enum Child<'a> {
    File(u32, u32, File<'a>),
    Other(u32, u32, Other<'a>),
    Directory(Directory),
}

/// What holds of a name in bytes of file content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    pub shard: u32,
    pub offset: u64,
    pub length: u64,
    pub crc32c: u32,
}

impl Tree {
    /// Errors: `Unsupported` when it has more than inode numbers can tell apart.
    pub fn new(order: Order, indexes: Vec<Index>, owner: Owner) -> Result<Tree> {
        let sums = |count: fn(&Index) -> u32| {
            let mut sum = 0;
            let mut before: Vec<u64> = indexes
                .iter()
                .map(|index| {
                    sum += u64::from(count(index));
                    sum - u64::from(count(index))
                })
                .collect();
            before.push(sum);
            before
        };
        let (files_before, others_before) = (sums(Index::file_count), sums(Index::other_count));
        if order.len() >= PLACES_MAX {
            return Err(Error::new(
                Kind::Unsupported,
                format!("a data set of {} files is more than one mount can show", order.len()),
            ));
        }
        Ok(Tree { order, indexes, files_before, others_before, owner })
    }

    /// Entries in the order.
    pub fn len(&self) -> u64 {
        self.order.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn index(&self, shard: u32) -> Result<&Index> {
        self.indexes.get(shard as usize).ok_or_else(|| {
            Error::new(Kind::Corrupt, format!("the tree order names shard {shard} of {}", self.indexes.len()))
        })
    }

    /// The path at a place of the order.
    fn path(&self, place: u64) -> Result<Cow<'_, [u8]>> {
        let Entry { shard, of } = self.order.entry(place)?;
        let index = self.index(shard)?;
        let (path, is_directory) = match of {
            Of::File(file) => (index.path(file)?, false),
            Of::Other(other) => {
                let other = index.other(other)?;
                (other.path, other.kind == b'5')
            }
        };
        let Some(path) = clean(path) else {
            return Err(Error::new(Kind::Corrupt, "the tree order names a path that is in no tree"));
        };
        Ok(if is_directory { Cow::Owned([path, b"/"].concat()) } else { Cow::Borrowed(path) })
    }

    /// `Stale` unless the number is that of a directory of this version.
    fn directory(&self, ino: Ino) -> Result<Directory> {
        match What::of(ino) {
            Some(What::Root) => Ok(Directory { depth: 0, first: 0, path: Vec::new() }),
            Some(What::Directory { depth, first }) if depth > 0 && first < self.order.len() => {
                let path = self.path(first)?;
                let Some(own) = prefix(&path, depth) else { return Err(stale(ino)) };
                // The first below it has that number; the others would be second numbers of the same.
                if first > 0 && self.path(first - 1)?.starts_with(own) {
                    return Err(stale(ino));
                }
                Ok(Directory { depth, first, path: own.to_vec() })
            }
            Some(What::File(_) | What::Other(_)) => Err(Error::new(Kind::NotDirectory, "it is no directory")),
            _ => Err(stale(ino)),
        }
    }

    /// What is at a place, as a child of the directory that it is below.
    fn child(&self, dir: &Directory, place: u64) -> Result<Child<'_>> {
        let path = self.path(place)?;
        if let Some(own) = prefix(&path, dir.depth + 1) {
            return Ok(Child::Directory(Directory {
                depth: dir.depth + 1,
                first: place,
                path: own.to_vec(),
            }));
        }
        let Entry { shard, of } = self.order.entry(place)?;
        let index = self.index(shard)?;
        Ok(match of {
            Of::File(file) => Child::File(shard, file, index.file(file)?),
            Of::Other(other) => Child::Other(shard, other, index.other(other)?),
        })
    }

    fn find(&self, dir: &Directory, name: &[u8]) -> Result<Option<Child<'_>>> {
        let mut path = [&dir.path, name].concat();
        let place = self.first_from(dir.first, |at| at >= &path[..])?;
        if place == self.order.len() {
            return Ok(None);
        }
        if *self.path(place)? == *path {
            return self.child(dir, place).map(Some);
        }
        path.push(b'/');
        let place = self.first_from(place, |at| at >= &path[..])?;
        if place < self.order.len() && self.path(place)?.starts_with(&path) {
            return self.child(dir, place).map(Some);
        }
        Ok(None)
    }

    /// `NotFound` when there is no such name.
    pub fn lookup(&self, dir: Ino, name: &[u8]) -> Result<Attr> {
        let dir = self.directory(dir)?;
        let found = self.find(&dir, name)?;
        found.map(|child| self.attr_of(child)).transpose()?.flatten().ok_or_else(not_found)
    }

    /// `None`: a hard link whose file is not there.
    fn attr_of(&self, child: Child<'_>) -> Result<Option<Attr>> {
        match child {
            Child::Directory(dir) => self.directory_attr(&dir).map(Some),
            Child::File(shard, number, file) => Ok(Some(self.file_attr(shard, number, &file))),
            Child::Other(_, _, other) if other.kind == b'1' => self.linked(&other),
            Child::Other(shard, number, other) => Ok(self.other_attr(shard, number, &other)),
        }
    }

    /// The file that a hard link is another name of.
    fn linked(&self, link: &Other<'_>) -> Result<Option<Attr>> {
        let Some(target) = clean(link.target) else { return Ok(None) };
        let place = self.first_from(0, |at| at >= target)?;
        if place == self.order.len() || *self.path(place)? != *target {
            return Ok(None);
        }
        let Entry { shard, of } = self.order.entry(place)?;
        match of {
            Of::File(file) => Ok(Some(self.file_attr(shard, file, &self.index(shard)?.file(file)?))),
            Of::Other(_) => Ok(None),
        }
    }

    /// `Stale` when this version has no such inode.
    pub fn getattr(&self, ino: Ino) -> Result<Attr> {
        match What::of(ino) {
            Some(What::File(n)) => {
                let (shard, file) = locate(&self.files_before, n).ok_or_else(|| stale(ino))?;
                Ok(self.file_attr(shard, file, &self.index(shard)?.file(file)?))
            }
            Some(What::Other(n)) => {
                let (shard, other) = locate(&self.others_before, n).ok_or_else(|| stale(ino))?;
                self.other_attr(shard, other, &self.index(shard)?.other(other)?).ok_or_else(|| stale(ino))
            }
            _ => self.directory_attr(&self.directory(ino)?),
        }
    }

    /// Where a regular file's bytes are; `None` for another inode.
    pub fn payload(&self, ino: Ino) -> Result<Option<Payload>> {
        let Some(What::File(n)) = What::of(ino) else { return Ok(None) };
        let (shard, file) = locate(&self.files_before, n).ok_or_else(|| stale(ino))?;
        let File { offset, length, crc32c, .. } = self.index(shard)?.file(file)?;
        Ok(Some(Payload { shard, offset, length, crc32c }))
    }

    /// `Invalid` when it is no symlink.
    pub fn readlink(&self, ino: Ino) -> Result<Vec<u8>> {
        if let Some(What::Other(n)) = What::of(ino)
            && let Some((shard, other)) = locate(&self.others_before, n)
        {
            let other = self.index(shard)?.other(other)?;
            if other.kind == b'2' {
                return Ok(other.target.to_vec());
            }
        }
        Err(Error::new(Kind::Invalid, "it is no symlink"))
    }

    pub fn parent(&self, ino: Ino) -> Result<Ino> {
        let dir = self.directory(ino)?;
        if dir.depth <= 1 {
            return Ok(Ino::ROOT);
        }
        let Some(above) = prefix(&dir.path, dir.depth - 1) else { return Err(stale(ino)) };
        let first = self.first_from(0, |at| at >= above)?;
        Ok(directory_ino(dir.depth - 1, first))
    }

    /// Entries after `cookie` (0: from the start), at most `max`. A cookie is one more than the first place of its child; any
    /// other number within the directory goes on after the child that is there.
    pub fn readdir(&self, dir: Ino, cookie: u64, max: usize, with_attr: bool) -> Result<Vec<DirEntry>> {
        let dir = self.directory(dir)?;
        let end = self.end_of(&dir)?;
        let mut place = dir.first;
        if cookie > place {
            place = self.after(&dir, (cookie - 1).min(end), end)?;
        }
        let mut out = Vec::new();
        while place < end && out.len() < max {
            if let Some(entry) = self.listed(&dir, place, with_attr)? {
                out.push(entry);
            }
            place = self.after(&dir, place, end)?;
        }
        Ok(out)
    }

    /// The entry whose child is first at this place; `None` for the directory's own place, for what another name hides, and for
    /// a hard link to nothing.
    fn listed(&self, dir: &Directory, place: u64, with_attr: bool) -> Result<Option<DirEntry>> {
        let path = self.path(place)?;
        // Without the prefix in an index whose order is a lie.
        let Some(rest) = path.strip_prefix(&dir.path[..]).filter(|rest| !rest.is_empty()) else {
            return Ok(None);
        };
        let name = rest.split(|&b| b == b'/').next().unwrap_or(rest).to_vec();
        if name.len() < rest.len() {
            let bare = &path[..dir.path.len() + name.len()];
            let hidden = self.first_from(dir.first, |at| at >= bare)?;
            if *self.path(hidden)? == *bare {
                return Ok(None);
            }
        }
        let Some(attr) = self.attr_of(self.child(dir, place)?)? else { return Ok(None) };
        let (ino, kind) = (attr.ino, attr.kind);
        Ok(Some(DirEntry { name, ino, kind, cookie: place + 1, attr: with_attr.then_some(attr) }))
    }

    fn file_attr(&self, shard: u32, number: u32, file: &File<'_>) -> Attr {
        let ino = file_ino(self.files_before[shard as usize] + u64::from(number));
        // Content never changes; the number of it tells it from what an earlier version had under the same inode number.
        let version = 1 + ((u64::from(self.indexes[shard as usize].crc32c()) << 24) ^ u64::from(number));
        let attr =
            Attr { nlink: 1, size: file.length, stored: file.length, version, ..blank(ino, FileType::File) };
        dated(Attr { mode: file.mode, uid: file.uid, gid: file.gid, ..attr }, file.mtime)
    }

    /// `None` for a hard link, which has no inode.
    fn other_attr(&self, shard: u32, number: u32, other: &Other<'_>) -> Option<Attr> {
        let ino = other_ino(self.others_before[shard as usize] + u64::from(number));
        let kind = match other.kind {
            b'2' => FileType::Symlink,
            b'6' => FileType::Fifo,
            _ => return None,
        };
        let size = if kind == FileType::Symlink { other.target.len() as u64 } else { 0 };
        let attr = Attr { nlink: 1, size, ..blank(ino, kind) };
        Some(dated(Attr { mode: other.mode, uid: other.uid, gid: other.gid, ..attr }, other.mtime))
    }

    fn directory_attr(&self, dir: &Directory) -> Result<Attr> {
        let Owner { uid, gid, mode, time } = self.owner;
        let ino = if dir.depth == 0 { Ino::ROOT } else { directory_ino(dir.depth, dir.first) };
        // How many directories are below it is not known without a look at all of it: 1 says so, as it does in btrfs.
        let attr = Attr { nlink: 1, size: DIRECTORY_BYTES, uid, gid, ..blank(ino, FileType::Directory) };
        let (atime, mtime, ctime, btime) = (time, time, time, time);
        let attr = Attr { atime, mtime, ctime, btime, ..attr };
        if dir.depth == 0 {
            return Ok(Attr { mode, ..attr });
        }
        let Entry { shard, of } = self.order.entry(dir.first)?;
        if let Of::Other(number) = of
            && *self.path(dir.first)? == *dir.path
        {
            let said = self.index(shard)?.other(number)?;
            return Ok(dated(Attr { mode: said.mode, uid: said.uid, gid: said.gid, ..attr }, said.mtime));
        }
        Ok(Attr { mode: 0o755, ..attr })
    }
}

/// What directories show as their size.
pub(crate) const DIRECTORY_BYTES: u64 = 4096;

pub(crate) fn blank(ino: Ino, kind: FileType) -> Attr {
    let time = Timestamp { secs: 0, nanos: 0 };
    Attr {
        ino,
        kind,
        mode: 0,
        uid: 0,
        gid: 0,
        nlink: 1,
        rdev: 0,
        size: 0,
        stored: 0,
        atime: time,
        mtime: time,
        ctime: time,
        btime: time,
        version: 1,
        staged_seq: 0,
    }
}

fn dated(attr: Attr, secs: i64) -> Attr {
    let time = Timestamp { secs, nanos: 0 };
    Attr { atime: time, mtime: time, ctime: time, btime: time, ..attr }
}

/// Shard, and number in it, of what has this number among all.
fn locate(before: &[u64], n: u64) -> Option<(u32, u32)> {
    if n >= *before.last()? {
        return None;
    }
    let shard = before.partition_point(|&before| before <= n) - 1;
    Some((shard as u32, (n - before[shard]) as u32))
}

pub(crate) fn stale(ino: Ino) -> Error {
    Error::new(Kind::Stale, format!("this version of the data set has no inode {ino}"))
}

pub(crate) fn not_found() -> Error {
    Error::new(Kind::NotFound, "there is no such entry")
}
