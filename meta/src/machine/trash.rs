//! The trash: where a regular file goes that loses its last name, for [`crate::types::NamespaceInfo::trash_ms`].
//!
//! ```text
//!  /.trash/2026-11-26T05/project/data/x      removed as /project/data/x between 05:00 and 06:00 UTC
//!                       `-- mirrors of the directories, with mode, owner and attributes as they were
//! ```
//!
//! **What goes there.** The last name's file, by unlink or because rename replaces it, with its inode, if some of its bytes are
//! in objects already: one that never reached the store was a temporary, and is not worth an upload now. Not what is empty,
//! and nothing but regular files. The inode keeps its number and its link count of 1, so what is staged of it is uploaded as
//! ever, and moving it out is an ordinary rename.
//!
//! **Open files.** For who has it open a removed file has no link, as POSIX says. So one that is open becomes an orphan that
//! remembers its place ([`crate::record::Orphan::Kept`]), and goes there instead of being freed, at the last close.
//!
//! **Mirrors** are found by name, level by level. One that has another mode, owner or access list than the directory has now is
//! left as it is, and another is made (`data~2`): a file is never reachable by more people than before. Deeper than
//! [`DEPTH_MAX`] nothing is kept.
//!
//! **What may be done there.** Reading, writing, changing attributes; removing, which is for good; moving out of it. Nothing is
//! made in it or moved into it or within it, and nothing in it gets another name.
//!
//! **Counting.** What is in the trash is not in the namespace's counters. Each directory there counts what is below it
//! ([`crate::record::inode::Held`]), so that a tree is moved out at once: its count goes over, and those further down are not
//! looked at any more. Whether a directory is in the trash is found by going up: only those with numbers
//! [`Ino::is_of_trash`] can be, and nearly all end there. A file remembers the directory that it was moved to.
//!
//! **Bound.** At most as many bytes and inodes as the namespace's quota; what does not fit is removed for good. Whoever applies
//! operations purges the oldest hour first ([`expiry`]), to make room for what is about to be removed, and a little more.

use granary_core::name::ENTRY_NAME_MAX;
use granary_core::{Error, Ino, Kind, Result, Timestamp};

use super::view::Records;
use super::{Tx, View, bug};
use crate::record::{Entry, Family, Inode, Key, NamespaceRecord, Orphan, Span, Value};
use crate::types::{Attr, Extent, FileType, Place};

pub mod expiry;
mod hour;
mod mirror;

pub use mirror::DEPTH_MAX;

/// The trash's name in the namespace's root, where no listing shows it.
pub const NAME: &[u8] = b".trash";
/// Extents of a file that are looked at to find one in an object, and entries to find a directory's name.
const LOOKED_AT_MAX: usize = 1024;

pub fn is_name(dir: Ino, name: &[u8]) -> bool {
    dir == Ino::ROOT && name == NAME
}

/// The trash before anything was in it. Whoever reaches the root may look; what is in it has its own rights.
pub(super) fn fresh(root: &Inode) -> Inode {
    let r = &root.attr;
    let attr = Attr {
        ino: Ino::TRASH,
        mode: 0o755,
        nlink: 2,
        size: 0,
        atime: r.btime,
        mtime: r.btime,
        ctime: r.btime,
        version: 1,
        ..r.clone()
    };
    Inode { parent: Ino::ROOT, name: NAME.into(), ..Inode::new(attr) }
}

/// Whether a directory is in the trash, or is it.
pub fn holds(view: &mut dyn View, dir: Ino) -> Result<bool> {
    let mut at = dir;
    while at.is_of_trash() {
        if at == Ino::TRASH {
            return Ok(true);
        }
        match view.find_inode(at)? {
            Some(inode) if inode.attr.nlink > 0 => at = inode.parent,
            _ => return Ok(false),
        }
    }
    Ok(false)
}

/// Whether it is a file in the trash.
pub(super) fn holds_file(view: &mut dyn View, inode: &Inode) -> Result<bool> {
    Ok(!inode.is_directory() && inode.parent.0 != 0 && holds(view, inode.parent)?)
}

/// Refuses to make or change entries that are not to be: those of the trash, and its own name.
pub(super) fn refuse(view: &mut dyn View, dir: Ino, name: &[u8]) -> Result<()> {
    if is_name(dir, name) {
        return Err(Error::new(Kind::Permission, "the name .trash is taken by what was removed"));
    }
    refuse_in(view, dir)
}

pub(super) fn refuse_in(view: &mut dyn View, dir: Ino) -> Result<()> {
    if holds(view, dir)? {
        let why = "nothing is made in the trash or moved to it; move what you need out of it first";
        return Err(Error::new(Kind::Permission, why));
    }
    Ok(())
}

/// Where the file would go if it lost its name in `dir`, which is not in the trash; its directory is made if it is not
/// there. `None`: nowhere. Before anything else is changed.
pub(super) fn place_for(tx: &mut Tx<'_>, dir: Ino, ino: Ino) -> Result<Option<Ino>> {
    let settings = tx.settings()?;
    if settings.trash_ms == 0 {
        return Ok(None);
    }
    let inode = tx.inode(ino)?;
    if inode.attr.nlink != 1 || !is_worth(tx, &inode)? || !has_room(tx, &settings, inode.attr.stored)? {
        return Ok(None);
    }
    mirror::of(tx, dir, &settings)
}

/// A regular file with bytes in the store.
fn is_worth(tx: &mut Tx<'_>, inode: &Inode) -> Result<bool> {
    if inode.attr.kind != FileType::File || inode.attr.stored == 0 {
        return Ok(false);
    }
    let is_stored = |e: &Extent| matches!(e.place, Place::Object { .. });
    let mut found = inode.extents.iter().any(is_stored);
    if inode.spilled > 0 {
        let mut left = LOOKED_AT_MAX;
        tx.scan(Span::Of(Family::Extent, inode.attr.ino), None, &mut |_, value| {
            left -= 1;
            found = matches!(&value, Value::Extent(e) if is_stored(e));
            Ok(!found && left > 0)
        })?;
    }
    Ok(found)
}

fn has_room(tx: &mut Tx<'_>, settings: &NamespaceRecord, stored: u64) -> Result<bool> {
    let held = tx.inode(Ino::TRASH)?.held;
    let fits = |has: u64, more: u64, max: u64| max == 0 || has.saturating_add(more) <= max;
    Ok(fits(held.bytes, stored, settings.bytes_max) && fits(held.inodes, 1, settings.inodes_max))
}

/// Takes one name from an inode, the last one if there is a place for it in the trash. `open`: somebody has it open.
pub(super) fn lose_name(
    tx: &mut Tx<'_>,
    ino: Ino,
    name: Box<[u8]>,
    open: bool,
    place: Option<Ino>,
) -> Result<Attr> {
    match place {
        None => tx.drop_link(ino),
        Some(dir) if open => {
            let attr = tx.drop_link(ino)?;
            tx.put(Key::Orphan(ino), Value::Orphan(Orphan::Kept { dir, name }));
            Ok(attr)
        }
        Some(dir) => arrive(tx, ino, dir, &name),
    }
}

/// An orphan that nobody has open any more goes to its place, if there still is one. `false`: there is none.
pub(super) fn arrive_late(tx: &mut Tx<'_>, ino: Ino, dir: Ino, name: &[u8]) -> Result<bool> {
    let (settings, inode) = (tx.settings()?, tx.inode(ino)?);
    let goes = settings.trash_ms > 0
        && holds(tx, dir)?
        && is_worth(tx, &inode)?
        && has_room(tx, &settings, inode.attr.stored)?;
    if goes {
        arrive(tx, ino, dir, name)?;
    }
    Ok(goes)
}

fn arrive(tx: &mut Tx<'_>, ino: Ino, dir: Ino, name: &[u8]) -> Result<Attr> {
    let mut inode = tx.inode_mut(ino)?;
    let name = free_name(tx, dir, name)?;
    let cookie = tx.directory(dir)?.next_cookie;
    tx.put_entry(dir, name, Entry { ino, kind: inode.attr.kind, cookie });
    tx.touch_directory(dir, 1, 0, 1)?;
    inode.attr.nlink = 1;
    inode.attr.ctime = tx.now;
    inode.parent = dir;
    let attr = inode.attr.clone();
    tx.put_inode(inode);
    let now = tx.now;
    count(tx, dir, attr.stored as i64, 1, Some(now))?;
    count_outside(tx, -(attr.stored as i64), -1)?;
    Ok(attr)
}

/// The entry of `ino` was taken from `dir`, which is in the trash: it counts for the namespace again.
pub(super) fn leave(tx: &mut Tx<'_>, dir: Ino, ino: Ino) -> Result<()> {
    let mut inode = tx.inode_mut(ino)?;
    let (bytes, inodes) = weight(&inode);
    if !inode.is_directory() {
        inode.parent = Ino(0);
        tx.put_inode(inode);
    }
    count(tx, dir, -(bytes as i64), -(inodes as i64), None)?;
    count_outside(tx, bytes as i64, inodes as i64)
}

/// Bytes and inodes that go where an inode of the trash goes.
fn weight(inode: &Inode) -> (u64, u64) {
    match inode.is_directory() {
        true => (inode.held.bytes, inode.held.inodes + 1),
        false => (inode.attr.stored, 1),
    }
}

/// Refuses to move out what the quota has no room for.
pub(super) fn fits_outside(tx: &mut Tx<'_>, ino: Ino) -> Result<()> {
    let (bytes, inodes) = weight(&*tx.inode(ino)?);
    let (settings, counters) = (tx.settings()?, tx.counters()?);
    for (what, has, more, max) in [
        ("bytes", counters.bytes, bytes, settings.bytes_max),
        ("files", counters.inodes, inodes, settings.inodes_max),
    ] {
        if max > 0 && has.saturating_add(more) > max {
            return Err(Error::new(
                Kind::QuotaExceeded,
                format!(
                    "namespace {} has {has} of {max} {what}, which leaves no room for {more} out of the trash; delete \
                     some, or ask for more",
                    settings.name
                ),
            ));
        }
    }
    Ok(())
}

/// Bytes that a file's extents cover more (or less), wherever it is.
pub(super) fn count_stored(tx: &mut Tx<'_>, inode: &Inode, by: i64) -> Result<()> {
    if by == 0 {
        return Ok(());
    }
    if holds_file(tx, inode)? { count(tx, inode.parent, by, 0, None) } else { tx.count_bytes(by) }
}

/// Counts what came to be below `dir` or went, up to the trash itself. `last`: a file came.
fn count(tx: &mut Tx<'_>, dir: Ino, bytes: i64, inodes: i64, last: Option<Timestamp>) -> Result<()> {
    let mut at = dir;
    loop {
        let mut inode = tx.inode_mut(at)?;
        let held = &mut inode.held;
        let sum = |a: u64, by: i64, what| a.checked_add_signed(by).ok_or_else(|| bug(what, at));
        held.bytes = sum(held.bytes, bytes, "the bytes below a directory of the trash")?;
        held.inodes = sum(held.inodes, inodes, "the inodes below a directory of the trash")?;
        held.last = last.unwrap_or(held.last);
        let parent = inode.parent;
        tx.put_inode(inode);
        if at == Ino::TRASH {
            return Ok(());
        }
        at = parent;
    }
}

fn count_outside(tx: &mut Tx<'_>, bytes: i64, inodes: i64) -> Result<()> {
    tx.count_bytes(bytes)?;
    let mut counters = tx.counters()?;
    let sum = counters.inodes.checked_add_signed(inodes);
    counters.inodes = sum.ok_or_else(|| bug("the namespace's inodes", Ino(0)))?;
    tx.put_counters(counters);
    Ok(())
}

/// `name`, or `name~2`, `name~3`, ...: one that is free. Doubling and halving, so that the thousandth version of a file costs
/// some twenty looks; gaps that were removed may stay.
fn free_name(tx: &mut Tx<'_>, dir: Ino, name: &[u8]) -> Result<Box<[u8]>> {
    if tx.entry(dir, name)?.is_none() {
        return Ok(name.into());
    }
    let (mut taken, mut free) = (1_u64, 2);
    while tx.entry(dir, &numbered(name, free))?.is_some() {
        (taken, free) = (free, free.saturating_mul(2));
    }
    while free - taken > 1 {
        let middle = taken + (free - taken) / 2;
        match tx.entry(dir, &numbered(name, middle))? {
            Some(_) => taken = middle,
            None => free = middle,
        }
    }
    Ok(numbered(name, free))
}

/// The `n`th of a name, shortened where it would become too long.
fn numbered(name: &[u8], n: u64) -> Box<[u8]> {
    if n == 1 {
        return name.into();
    }
    let suffix = format!("~{n}");
    let mut kept = name.len().min(ENTRY_NAME_MAX - suffix.len());
    // Not in the middle of a character.
    while kept < name.len() && kept > 1 && name[kept] & 0xc0 == 0x80 {
        kept -= 1;
    }
    [&name[..kept], suffix.as_bytes()].concat().into()
}
