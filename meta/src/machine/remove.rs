//! What takes names away, and what frees an inode after its last.

use granary_core::{EntryName, Error, Ino, Kind, Result};

use super::content::Deltas;
use super::extents::Editor;
use super::{Reply, Tx, View, bug, inline, trash, view::Records, xattrs};
use crate::record::{Entry, Family, Key, Orphan, Span, Value};
use crate::types::FileType;

fn existing(tx: &mut Tx<'_>, dir: Ino, name: &[u8]) -> Result<Entry> {
    EntryName::new(name)?;
    tx.live_directory(dir)?;
    match tx.entry(dir, name)? {
        Some(entry) => Ok(entry),
        None if trash::is_name(dir, name) => Err(Error::new(
            Kind::Permission,
            "the trash itself cannot be removed; granary ns set --trash 0 empties it",
        )),
        None => Err(Error::new(Kind::NotFound, "the directory has no such entry")),
    }
}

pub(super) fn unlink(tx: &mut Tx<'_>, dir: Ino, name: Box<[u8]>, open: bool) -> Result<Reply> {
    let entry = existing(tx, dir, &name)?;
    if entry.kind == FileType::Directory {
        return Err(Error::new(Kind::IsDirectory, "it is a directory"));
    }
    let from_trash = trash::holds(tx, dir)?;
    let place = if from_trash { None } else { trash::place_for(tx, dir, entry.ino)? };
    tx.delete_entry(dir, name.clone(), entry);
    tx.touch_directory(dir, -1, 0, 0)?;
    if from_trash {
        trash::leave(tx, dir, entry.ino)?;
    }
    trash::lose_name(tx, entry.ino, name, open, place).map(Reply::Attr)
}

pub(super) fn rmdir(tx: &mut Tx<'_>, dir: Ino, name: Box<[u8]>) -> Result<Reply> {
    let entry = existing(tx, dir, &name)?;
    if tx.directory(entry.ino)?.entries > 0 {
        return Err(Error::new(Kind::NotEmpty, "the directory is not empty"));
    }
    if trash::holds(tx, dir)? {
        trash::leave(tx, dir, entry.ino)?;
    }
    let attr = tx.drop_link(entry.ino)?;
    tx.delete_entry(dir, name, entry);
    tx.touch_directory(dir, -1, -1, 0)?;
    Ok(Reply::Attr(attr))
}

/// The inode's record, extended attributes and target go at once, so that it is `Stale` from now on; extents beyond
/// `extents_max` wait, remembered by the orphan's record, for the next call.
pub(super) fn free(tx: &mut Tx<'_>, ino: Ino, extents_max: usize) -> Result<Reply> {
    let Some(Value::Orphan(orphan)) = tx.get(&Key::Orphan(ino))? else { return Ok(Reply::Freed(true)) };
    if let Orphan::Kept { dir, name } = &orphan
        && trash::arrive_late(tx, ino, *dir, name)?
    {
        tx.delete(Key::Orphan(ino));
        return Ok(Reply::Freed(true));
    }
    let mut deltas = Deltas::default();
    let remains = if orphan == Orphan::Remains {
        free_extents(tx, ino, extents_max, &mut deltas)?
    } else {
        let mut inode = tx.inode_mut(ino)?;
        if inode.attr.nlink > 0 {
            return Err(Error::new(Kind::Bug, format!("inode {ino} is to be freed but has a name")));
        }
        inline::forget(tx, &inode)?;
        let remains = if inode.spilled > extents_max as u64 {
            free_extents(tx, ino, extents_max, &mut deltas)?
        } else {
            let mut editor = Editor::open(tx, &inode, usize::MAX)?;
            editor.replace(tx, &mut deltas, 0, u64::MAX, None)?;
            editor.finish(tx, &mut inode);
            false
        };
        free_attributes(tx, ino, inode.xattr_names > 0, inode.attr.kind == FileType::Symlink)?;
        tx.delete(Key::Inode(ino));
        let mut counters = tx.counters()?;
        counters.inodes = counters.inodes.checked_sub(1).ok_or_else(|| bug("the namespace's inodes", ino))?;
        tx.put_counters(counters);
        remains
    };
    let stored = deltas.stored;
    deltas.settle(tx, None)?;
    tx.count_bytes(stored)?;
    if remains {
        tx.put(Key::Orphan(ino), Value::Orphan(Orphan::Remains));
    } else {
        tx.delete(Key::Orphan(ino));
    }
    Ok(Reply::Freed(!remains))
}

/// Deletes up to `max` extent records; whether some are left.
fn free_extents(tx: &mut Tx<'_>, ino: Ino, max: usize, deltas: &mut Deltas) -> Result<bool> {
    let mut found = Vec::new();
    let mut remains = false;
    tx.scan(Span::Of(Family::Extent, ino), None, &mut |_, value| {
        remains = found.len() >= max;
        if let (Value::Extent(extent), false) = (value, remains) {
            found.push(extent);
        }
        Ok(!remains)
    })?;
    for extent in found {
        deltas.take(&extent, extent.len);
        tx.delete(Key::Extent(ino, extent.end()));
    }
    Ok(remains)
}

fn free_attributes(tx: &mut Tx<'_>, ino: Ino, xattrs: bool, target: bool) -> Result<()> {
    if xattrs {
        let mut keys = Vec::new();
        tx.scan(Span::Of(Family::Xattr, ino), None, &mut |key, _| {
            keys.push(key);
            Ok(true)
        })?;
        for key in keys {
            if let Key::Xattr(_, name) = &key {
                xattrs::count_capability(tx, ino, name, -1)?;
            }
            tx.delete(key);
        }
    }
    if target {
        tx.delete(Key::Target(ino));
    }
    Ok(())
}
