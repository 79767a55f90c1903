//! Directories of the trash that stand for others: same names, same rights.

use granary_core::{Ino, Result};

use super::super::view::Records;
use super::super::{Tx, View, xattrs};
use super::{LOOKED_AT_MAX, count, hour, numbered};
use crate::acl::{ACCESS, DEFAULT};
use crate::record::inode::Held;
use crate::record::{Entry, Family, Inode, Key, NamespaceRecord, Span, Value};
use crate::types::{Attr, FileType};

/// Levels of directories below the root that are mirrored.
pub const DEPTH_MAX: usize = 128;
/// Mirrors of one name with different rights, in one hour.
const SAME_NAME_MAX: u64 = 64;

/// The mirror of a directory that is not in the trash, in this hour; made as needed. `None`: there is none to be had.
pub(super) fn of(tx: &mut Tx<'_>, dir: Ino, settings: &NamespaceRecord) -> Result<Option<Ino>> {
    let mut path = Vec::new();
    let mut at = dir;
    while at != Ino::ROOT {
        if path.len() == DEPTH_MAX {
            return Ok(None);
        }
        let original = tx.directory(at)?;
        let name = name_of(tx, &original)?;
        at = original.parent;
        path.push((original.attr.ino, name));
    }
    path.push((Ino::ROOT, hour::name(tx.now)));
    let mut into = Ino::TRASH;
    for (original, name) in path.into_iter().rev() {
        match child(tx, into, &name, original, settings)? {
            Some(mirror) => into = mirror,
            None => return Ok(None),
        }
    }
    Ok(Some(into))
}

/// A directory's name. One that was made before names were kept is looked for, and is a number in a directory of many entries.
fn name_of(tx: &mut Tx<'_>, dir: &Inode) -> Result<Box<[u8]>> {
    if !dir.name.is_empty() {
        return Ok(dir.name.clone());
    }
    let (mut name, mut left) = (Box::default(), LOOKED_AT_MAX);
    tx.scan(Span::Of(Family::Listing, dir.parent), None, &mut |_, value| {
        if let Value::Listing(listing) = value
            && listing.ino == dir.attr.ino
        {
            name = listing.name;
            return Ok(false);
        }
        left -= 1;
        Ok(left > 0)
    })?;
    if name.is_empty() {
        name = format!("directory-{}", dir.attr.ino).into_bytes().into();
    }
    Ok(name)
}

fn child(
    tx: &mut Tx<'_>,
    into: Ino,
    name: &[u8],
    original: Ino,
    settings: &NamespaceRecord,
) -> Result<Option<Ino>> {
    let original = tx.directory(original)?;
    for n in 1..=SAME_NAME_MAX {
        let name = numbered(name, n);
        match tx.entry(into, &name)? {
            None => {
                // It, and the file.
                let inodes = tx.inode(Ino::TRASH)?.held.inodes + 2;
                if settings.inodes_max > 0 && inodes > settings.inodes_max {
                    return Ok(None);
                }
                return make(tx, into, name, &original).map(Some);
            }
            Some(entry) if entry.kind == FileType::Directory => {
                let mirror = tx.directory(entry.ino)?;
                if has_same_rights(tx, &original, &mirror)? {
                    return Ok(Some(entry.ino));
                }
            }
            Some(_) => {}
        }
    }
    Ok(None)
}

fn has_same_rights(tx: &mut Tx<'_>, a: &Inode, b: &Inode) -> Result<bool> {
    let rights = |i: &Inode| (i.attr.mode, i.attr.uid, i.attr.gid);
    if rights(a) != rights(b) {
        return Ok(false);
    }
    for list in [ACCESS, DEFAULT] {
        let of = |tx: &mut Tx<'_>, i: &Inode| match i.xattr_names {
            0 => Ok(None),
            _ => tx.get(&Key::Xattr(i.attr.ino, list.into())),
        };
        if of(tx, a)? != of(tx, b)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn make(tx: &mut Tx<'_>, into: Ino, name: Box<[u8]>, original: &Inode) -> Result<Ino> {
    let mut counters = tx.counters()?;
    let ino = counters.next_of_trash;
    counters.next_of_trash = Ino(ino.0 + 1);
    tx.put_counters(counters);
    let now = tx.now;
    let (times, version) = ([now; 4], 1);
    let [atime, mtime, ctime, btime] = times;
    let attr = Attr { ino, nlink: 2, size: 0, atime, mtime, ctime, btime, version, ..original.attr.clone() };
    // The file may come much later, if somebody has it open.
    let held = Held { last: now, ..Held::default() };
    let mut mirror = Inode { parent: into, name: name.clone(), held, ..Inode::new(attr) };
    let mut copied = Vec::new();
    if original.xattr_names > 0 {
        tx.scan(Span::Of(Family::Xattr, original.attr.ino), None, &mut |key, value| {
            // A directory's capabilities grant nothing; a copy would be one more that the namespace counts.
            if let (Key::Xattr(_, name), Value::Xattr(value)) = (key, value)
                && *name != *xattrs::CAPABILITY
            {
                copied.push((name, value));
            }
            Ok(true)
        })?;
    }
    for (name, value) in copied {
        xattrs::put(tx, &mut mirror, &name, value[..].into())?;
    }
    tx.put_inode(mirror);
    let cookie = tx.directory(into)?.next_cookie;
    tx.put_entry(into, name, Entry { ino, kind: FileType::Directory, cookie });
    tx.touch_directory(into, 1, 1, 1)?;
    count(tx, into, 0, 1, None)?;
    Ok(ino)
}
