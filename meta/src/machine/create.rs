//! What makes inodes and names.

use granary_core::limits::{LINKS_MAX, SYMLINK_BYTES_MAX};
use granary_core::{EntryName, Error, Ino, Kind, Result};

use super::{Reply, Tx, View, trash, view::Records, xattrs};
use crate::record::{Counters, Entry, Inode, Key, NamespaceRecord, Orphan, Value};
use crate::types::{Attr, FileType, NamespacePolicy, NewInode, NewNamespace, PackedSource, check_trash_ms};

const SETGID: u32 = 0o2000;

pub(super) fn init(tx: &mut Tx<'_>, new: NewNamespace) -> Result<Reply> {
    check_trash_ms(new.trash_ms)?;
    new.packed.as_ref().map_or(Ok(()), PackedSource::validate)?;
    let root = NewInode {
        kind: FileType::Directory,
        mode: new.mode,
        umask: 0,
        uid: new.uid,
        gid: new.gid,
        rdev: 0,
        target: Vec::new(),
    };
    let mut root = fresh(tx, Ino::ROOT, &root);
    root.parent = Ino::ROOT;
    let attr = root.attr.clone();
    tx.put_inode(root);
    tx.put_counters(Counters {
        next_ino: Ino(Ino::ROOT.0 + 1),
        bytes: 0,
        inodes: 1,
        capabilities: 0,
        next_of_trash: Ino(Ino::TRASH.0 + 1),
    });
    tx.put_namespace(NamespaceRecord {
        name: new.name,
        durability: new.durability,
        bytes_max: new.bytes_max,
        inodes_max: new.inodes_max,
        policy: NamespacePolicy::default(),
        trash_ms: new.trash_ms,
        packed: new.packed,
    });
    Ok(Reply::Attr(attr))
}

pub(super) fn create(tx: &mut Tx<'_>, dir: Ino, name: Box<[u8]>, new: NewInode) -> Result<Reply> {
    EntryName::new(&name)?;
    let parent = tx.live_directory(dir)?;
    if tx.entry(dir, &name)?.is_some() {
        return Err(Error::new(Kind::Exists, "the name is taken"));
    }
    trash::refuse(tx, dir, &name)?;
    let kind = new.kind;
    let attr = make(tx, &parent, new)?;
    let ino = attr.ino;
    if kind == FileType::Directory {
        let made = tx.inode_mut(ino)?;
        tx.put_inode(Inode { name: name.clone(), ..made });
    }
    tx.put_entry(dir, name, Entry { ino, kind, cookie: parent.next_cookie });
    drop(parent);
    tx.touch_directory(dir, 1, i32::from(kind == FileType::Directory), 1)?;
    Ok(Reply::Attr(attr))
}

pub(super) fn tmpfile(tx: &mut Tx<'_>, dir: Ino, new: NewInode) -> Result<Reply> {
    if new.kind != FileType::File {
        return Err(Error::new(Kind::Invalid, "only a regular file can be made without a name"));
    }
    let parent = tx.live_directory(dir)?;
    trash::refuse_in(tx, dir)?;
    let ino = make(tx, &parent, new)?.ino;
    let mut inode = tx.inode_mut(ino)?;
    inode.attr.nlink = 0;
    let attr = inode.attr.clone();
    tx.put_inode(inode);
    tx.put(Key::Orphan(ino), Value::Orphan(Orphan::NeverNamed));
    Ok(Reply::Attr(attr))
}

/// Makes an inode that belongs into `parent`, within the quota.
fn make(tx: &mut Tx<'_>, parent: &Inode, mut new: NewInode) -> Result<Attr> {
    if new.kind == FileType::Symlink {
        if new.target.is_empty() {
            return Err(Error::new(Kind::NotFound, "a symlink's target cannot be empty"));
        }
        if new.target.len() > SYMLINK_BYTES_MAX {
            return Err(Error::new(Kind::NameTooLong, "a symlink's target has at most 4095 bytes"));
        }
    } else if !new.target.is_empty() {
        return Err(Error::new(Kind::Invalid, "only a symlink has a target"));
    }
    let mut counters = tx.counters()?;
    let settings = tx.settings()?;
    if settings.packed.is_some() {
        // Without a file there is nothing else to change.
        return Err(Error::new(
            Kind::ReadOnly,
            format!("namespace {} shows a packed data set, which nothing can be written to", settings.name),
        ));
    }
    if settings.inodes_max > 0 && counters.inodes >= settings.inodes_max {
        return Err(full(settings.name.as_str(), "files", counters.inodes, settings.inodes_max));
    }
    if new.kind == FileType::File && settings.bytes_max > 0 && counters.bytes >= settings.bytes_max {
        return Err(full(settings.name.as_str(), "bytes", counters.bytes, settings.bytes_max));
    }
    let ino = counters.next_ino;
    counters.next_ino = Ino(ino.0 + 1);
    counters.inodes += 1;
    tx.put_counters(counters);

    let inherited = xattrs::inherit(tx, parent, &mut new)?;
    if parent.attr.mode & SETGID != 0 {
        new.gid = parent.attr.gid;
        if new.kind == FileType::Directory {
            new.mode |= SETGID;
        }
    }
    let mut inode = fresh(tx, ino, &new);
    if inode.is_directory() {
        inode.parent = parent.attr.ino;
    }
    for (name, value) in inherited {
        xattrs::put(tx, &mut inode, name, value)?;
    }
    let attr = inode.attr.clone();
    tx.put_inode(inode);
    if new.kind == FileType::Symlink {
        tx.put(Key::Target(ino), Value::Target(new.target.into()));
    }
    Ok(attr)
}

fn full(name: &str, what: &str, has: u64, max: u64) -> Error {
    Error::new(
        Kind::QuotaExceeded,
        format!("namespace {name} is full ({has} of {max} {what}); delete some, or ask for more"),
    )
}

fn fresh(tx: &Tx<'_>, ino: Ino, new: &NewInode) -> Inode {
    let now = tx.now;
    let is_device = matches!(new.kind, FileType::CharDevice | FileType::BlockDevice);
    Inode::new(Attr {
        ino,
        kind: new.kind,
        mode: new.mode & 0o7777,
        uid: new.uid,
        gid: new.gid,
        nlink: if new.kind == FileType::Directory { 2 } else { 1 },
        rdev: if is_device { new.rdev } else { 0 },
        size: new.target.len() as u64,
        stored: 0,
        atime: now,
        mtime: now,
        ctime: now,
        btime: now,
        version: 1,
        staged_seq: 0,
    })
}

pub(super) fn link(tx: &mut Tx<'_>, ino: Ino, dir: Ino, name: Box<[u8]>) -> Result<Reply> {
    EntryName::new(&name)?;
    let parent = tx.live_directory(dir)?;
    let mut inode = tx.inode_mut(ino)?;
    if tx.entry(dir, &name)?.is_some() {
        return Err(Error::new(Kind::Exists, "the name is taken"));
    }
    trash::refuse(tx, dir, &name)?;
    if trash::holds_file(tx, &inode)? {
        return Err(Error::new(Kind::Permission, "what is in the trash gets no other name; move it out"));
    }
    if inode.is_directory() {
        return Err(Error::new(Kind::Permission, "a directory has one name only"));
    }
    if inode.attr.nlink == 0 {
        if tx.get(&Key::Orphan(ino))? != Some(Value::Orphan(Orphan::NeverNamed)) {
            return Err(Error::new(Kind::NotFound, "the file was removed"));
        }
        tx.delete(Key::Orphan(ino));
    }
    if inode.attr.nlink >= LINKS_MAX {
        return Err(Error::new(Kind::TooManyLinks, "a file has at most 65,000 names"));
    }
    inode.attr.nlink += 1;
    inode.attr.ctime = tx.now;
    let attr = inode.attr.clone();
    tx.put_inode(inode);
    tx.put_entry(dir, name, Entry { ino, kind: attr.kind, cookie: parent.next_cookie });
    tx.touch_directory(dir, 1, 0, 1)?;
    Ok(Reply::Attr(attr))
}
