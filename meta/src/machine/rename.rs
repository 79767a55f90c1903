//! Rename: replace, keep, or exchange.

use granary_core::{EntryName, Error, Ino, Kind, Result};

use super::{Reply, Tx, trash, view::Records};
use crate::record::Entry;
use crate::types::{Attr, FileType, RenameMode};

type Name = (Ino, Box<[u8]>);

pub(super) fn rename(tx: &mut Tx<'_>, from: Name, to: Name, mode: RenameMode, open: bool) -> Result<Reply> {
    EntryName::new(&from.1)?;
    EntryName::new(&to.1)?;
    tx.live_directory(from.0)?;
    tx.live_directory(to.0)?;
    let source = tx.entry(from.0, &from.1)?;
    let target = tx.entry(to.0, &to.1)?;
    if target.is_none() {
        trash::refuse(tx, to.0, &to.1)?;
    }
    let Some(source) = source else {
        let itself = trash::is_name(from.0, &from.1);
        let kind = if itself { Kind::Permission } else { Kind::NotFound };
        return Err(Error::new(kind, "the directory has no such entry that could be moved"));
    };
    trash::refuse_in(tx, to.0)?;
    let from_trash = trash::holds(tx, from.0)?;
    if from_trash {
        if mode == RenameMode::Exchange {
            return Err(Error::new(Kind::Permission, "nothing is moved to the trash by exchange"));
        }
        trash::fits_outside(tx, source.ino)?;
    }
    if from.0 != to.0 && source.kind == FileType::Directory {
        not_below(tx, to.0, source.ino)?;
    }
    match (mode, target) {
        (RenameMode::NoReplace, Some(_)) => Err(Error::new(Kind::Exists, "the new name is taken")),
        (RenameMode::Exchange, None) => Err(Error::new(Kind::NotFound, "there is nothing to exchange with")),
        // Two names of one inode: nothing to do, and both stay (POSIX).
        (_, Some(target)) if target.ino == source.ino => Ok(Reply::Renamed(None)),
        (RenameMode::Exchange, Some(target)) => {
            if from.0 != to.0 && target.kind == FileType::Directory {
                not_below(tx, from.0, target.ino)?;
            }
            exchange(tx, from, to, source, target)?;
            Ok(Reply::Renamed(None))
        }
        (RenameMode::Replace, Some(target)) => {
            replace(tx, from, to, (source, target), (from_trash, open)).map(|a| Reply::Renamed(Some(a)))
        }
        (RenameMode::Replace | RenameMode::NoReplace, None) => {
            move_to_free_name(tx, from, to, source, from_trash)?;
            Ok(Reply::Renamed(None))
        }
    }
}

/// A directory must not come to lie below itself.
fn not_below(tx: &mut Tx<'_>, mut dir: Ino, moved: Ino) -> Result<()> {
    loop {
        if dir == moved {
            return Err(Error::new(Kind::Invalid, "a directory cannot be moved below itself"));
        }
        if dir == Ino::ROOT {
            return Ok(());
        }
        dir = tx.directory(dir)?.parent;
    }
}

/// The moved inode's ctime, and a directory's parent and name.
fn moved(tx: &mut Tx<'_>, ino: Ino, (dir, name): (Ino, &[u8])) -> Result<()> {
    let mut inode = tx.inode_mut(ino)?;
    inode.attr.ctime = tx.now;
    if inode.is_directory() {
        inode.parent = dir;
        inode.name = name.into();
    }
    tx.put_inode(inode);
    Ok(())
}

fn is_dir(entry: Entry) -> i32 {
    i32::from(entry.kind == FileType::Directory)
}

fn move_to_free_name(tx: &mut Tx<'_>, from: Name, to: Name, source: Entry, from_trash: bool) -> Result<()> {
    let cookie = tx.directory(to.0)?.next_cookie;
    tx.delete_entry(from.0, from.1, source);
    tx.touch_directory(from.0, -1, -is_dir(source), 0)?;
    if from_trash {
        trash::leave(tx, from.0, source.ino)?;
    }
    tx.put_entry(to.0, to.1.clone(), Entry { cookie, ..source });
    tx.touch_directory(to.0, 1, is_dir(source), 1)?;
    moved(tx, source.ino, (to.0, &to.1))
}

fn replace(
    tx: &mut Tx<'_>,
    from: Name,
    to: Name,
    (source, target): (Entry, Entry),
    (from_trash, open): (bool, bool),
) -> Result<Attr> {
    if source.kind == FileType::Directory {
        if tx.directory(target.ino)?.entries > 0 {
            return Err(Error::new(Kind::NotEmpty, "the directory to be replaced is not empty"));
        }
    } else if target.kind == FileType::Directory {
        return Err(Error::new(Kind::IsDirectory, "a directory cannot be replaced by a file"));
    }
    let place = trash::place_for(tx, to.0, target.ino)?;
    tx.delete_entry(from.0, from.1, source);
    tx.touch_directory(from.0, -1, -is_dir(source), 0)?;
    if from_trash {
        trash::leave(tx, from.0, source.ino)?;
    }
    // The name keeps its cookie, so that a listing under way sees it exactly once.
    tx.put_entry(to.0, to.1.clone(), Entry { cookie: target.cookie, ..source });
    tx.touch_directory(to.0, 0, is_dir(source) - is_dir(target), 0)?;
    moved(tx, source.ino, (to.0, &to.1))?;
    trash::lose_name(tx, target.ino, to.1, open, place)
}

fn exchange(tx: &mut Tx<'_>, from: Name, to: Name, source: Entry, target: Entry) -> Result<()> {
    let more = is_dir(target) - is_dir(source);
    tx.put_entry(from.0, from.1.clone(), Entry { cookie: source.cookie, ..target });
    tx.touch_directory(from.0, 0, more, 0)?;
    tx.put_entry(to.0, to.1.clone(), Entry { cookie: target.cookie, ..source });
    tx.touch_directory(to.0, 0, -more, 0)?;
    moved(tx, source.ino, (to.0, &to.1))?;
    moved(tx, target.ino, (from.0, &from.1))
}
