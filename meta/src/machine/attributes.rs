//! Attributes, extended attributes, and the namespace's settings.

use granary_core::limits::{FILE_BYTES_MAX, XATTR_BYTES_MAX};
use granary_core::{Error, Ino, Kind, Result};

use super::content::Deltas;
use super::extents::Editor;
use super::{Reply, Tx, View, view::Records};
use crate::record::{Inode, Key, Value};
use crate::types::{FileType, NamespaceChange, SetAttr};

/// Bytes of all attributes' names of one inode, with one more each: what listxattr can return at once on Linux.
const XATTR_NAMES_MAX: u32 = 65_536;
const XATTR_NAME_MAX: usize = 255;

pub(super) fn set_attr(tx: &mut Tx<'_>, ino: Ino, set: SetAttr) -> Result<Reply> {
    let mut inode = tx.inode_mut(ino)?;
    if let Some(size) = set.size {
        resize(tx, &mut inode, size)?;
        inode.attr.staged_seq = inode.attr.staged_seq.max(set.staged_seq.unwrap_or(0));
    } else if set.staged_seq.is_some() {
        return Err(Error::new(Kind::Invalid, "a sequence number comes with a size only"));
    }
    let attr = &mut inode.attr;
    if let Some(mode) = set.mode {
        attr.mode = mode & 0o7777;
    }
    attr.uid = set.uid.unwrap_or(attr.uid);
    attr.gid = set.gid.unwrap_or(attr.gid);
    attr.atime = set.atime.unwrap_or(attr.atime);
    attr.mtime = set.mtime.unwrap_or(attr.mtime);
    attr.ctime = tx.now;
    let attr = attr.clone();
    tx.put_inode(inode);
    Ok(Reply::Attr(attr))
}

fn resize(tx: &mut Tx<'_>, inode: &mut Inode, size: u64) -> Result<()> {
    match inode.attr.kind {
        FileType::File => {}
        FileType::Directory => return Err(Error::new(Kind::IsDirectory, "a directory has no size to set")),
        _ => return Err(Error::new(Kind::Invalid, "only a regular file has a size to set")),
    }
    if size > FILE_BYTES_MAX {
        return Err(Error::new(Kind::FileTooLarge, "a file has at most 16 TiB"));
    }
    if size < inode.attr.size {
        let mut deltas = Deltas::default();
        let mut editor = Editor::open(tx, inode, 1)?;
        editor.replace(tx, &mut deltas, size, u64::MAX, None)?;
        editor.finish(tx, inode);
        deltas.apply(tx, inode, None)?;
    }
    if size != inode.attr.size {
        inode.attr.version += 1;
    }
    inode.attr.size = size;
    inode.attr.mtime = tx.now;
    Ok(())
}

pub(super) fn set_xattr(
    tx: &mut Tx<'_>,
    ino: Ino,
    name: Box<[u8]>,
    value: Box<[u8]>,
    create_only: bool,
    replace_only: bool,
) -> Result<Reply> {
    if name.is_empty() || name.len() > XATTR_NAME_MAX {
        return Err(Error::new(Kind::Range, "an extended attribute's name has 1 to 255 bytes"));
    }
    if value.len() > XATTR_BYTES_MAX {
        return Err(Error::new(Kind::NoSpace, "an extended attribute has at most 64 KiB"));
    }
    let mut inode = tx.inode_mut(ino)?;
    let key = Key::Xattr(ino, name);
    let exists = inode.xattr_names > 0 && tx.get(&key)?.is_some();
    if exists && create_only {
        return Err(Error::new(Kind::Exists, "the extended attribute is there already"));
    }
    if !exists && replace_only {
        return Err(Error::new(Kind::NoAttribute, "there is no such extended attribute"));
    }
    if !exists {
        inode.xattr_names += name_weight(&key);
        if inode.xattr_names > XATTR_NAMES_MAX {
            return Err(Error::new(
                Kind::NoSpace,
                "the extended attributes' names have at most 64 KiB together",
            ));
        }
    }
    tx.put(key, Value::Xattr(value.into()));
    inode.attr.ctime = tx.now;
    tx.put_inode(inode);
    Ok(Reply::Done)
}

pub(super) fn remove_xattr(tx: &mut Tx<'_>, ino: Ino, name: Box<[u8]>) -> Result<Reply> {
    let mut inode = tx.inode_mut(ino)?;
    let key = Key::Xattr(ino, name);
    if inode.xattr_names == 0 || tx.get(&key)?.is_none() {
        return Err(Error::new(Kind::NoAttribute, "there is no such extended attribute"));
    }
    inode.xattr_names = inode.xattr_names.saturating_sub(name_weight(&key));
    tx.delete(key);
    inode.attr.ctime = tx.now;
    tx.put_inode(inode);
    Ok(Reply::Done)
}

fn name_weight(key: &Key) -> u32 {
    if let Key::Xattr(_, name) = key { name.len() as u32 + 1 } else { 0 }
}

pub(super) fn configure(tx: &mut Tx<'_>, change: NamespaceChange) -> Result<Reply> {
    let mut settings = (*tx.settings()?).clone();
    settings.bytes_max = change.bytes_max.unwrap_or(settings.bytes_max);
    settings.inodes_max = change.inodes_max.unwrap_or(settings.inodes_max);
    settings.durability = change.durability.unwrap_or(settings.durability);
    tx.put_namespace(settings);
    if change.uid.is_some() || change.gid.is_some() || change.mode.is_some() {
        let set = SetAttr { uid: change.uid, gid: change.gid, mode: change.mode, ..SetAttr::default() };
        set_attr(tx, Ino::ROOT, set)?;
    }
    Ok(Reply::Done)
}
