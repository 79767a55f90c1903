//! Extended attributes. Most are only kept; two kinds mean something here: access control lists, which are one thing with
//! the mode, and file capabilities, which end when the content or the owner changes, and are counted.

use granary_core::limits::XATTR_BYTES_MAX;
use granary_core::{Error, Ino, Kind, Result};

use super::{Reply, Tx, View, bug, view::Records};
use crate::acl::{ACCESS, Acl, DEFAULT};
use crate::record::{Inode, Key, Value};
use crate::types::{FileType, NewInode};

/// Bytes of all attributes' names of one inode, with one more each: what listxattr can return at once on Linux.
const NAMES_MAX: u32 = 65_536;
const NAME_MAX: usize = 255;
pub(super) const CAPABILITY: &[u8] = b"security.capability";
const PERMISSIONS: u32 = 0o777;

/// An attribute: name and value.
type Named = (&'static [u8], Box<[u8]>);

pub(super) fn set(
    tx: &mut Tx<'_>,
    ino: Ino,
    name: Box<[u8]>,
    value: Box<[u8]>,
    create_only: bool,
    replace_only: bool,
) -> Result<Reply> {
    if name.is_empty() || name.len() > NAME_MAX {
        return Err(Error::new(Kind::Range, "an extended attribute's name has 1 to 255 bytes"));
    }
    if value.len() > XATTR_BYTES_MAX {
        return Err(Error::new(Kind::NoSpace, "an extended attribute has at most 64 KiB"));
    }
    let mut inode = tx.inode_mut(ino)?;
    let exists = find(tx, &inode, &name)?.is_some();
    if exists && create_only {
        return Err(Error::new(Kind::Exists, "the extended attribute is there already"));
    }
    if !exists && replace_only {
        return Err(Error::new(Kind::NoAttribute, "there is no such extended attribute"));
    }
    if *name == *ACCESS || *name == *DEFAULT {
        set_acl(tx, &mut inode, &name, &value)?;
    } else {
        put(tx, &mut inode, &name, value)?;
    }
    inode.attr.ctime = tx.now;
    tx.put_inode(inode);
    Ok(Reply::Done)
}

pub(super) fn remove(tx: &mut Tx<'_>, ino: Ino, name: Box<[u8]>) -> Result<Reply> {
    let mut inode = tx.inode_mut(ino)?;
    if !take(tx, &mut inode, &name)? {
        // As other file systems have it: there is no list to be had, and so there is none.
        if *name == *ACCESS || *name == *DEFAULT {
            return Ok(Reply::Done);
        }
        return Err(Error::new(Kind::NoAttribute, "there is no such extended attribute"));
    }
    inode.attr.ctime = tx.now;
    tx.put_inode(inode);
    Ok(Reply::Done)
}

/// An access list sets the permission bits, and is kept only where they do not say all of it.
fn set_acl(tx: &mut Tx<'_>, inode: &mut Inode, name: &[u8], value: &[u8]) -> Result<()> {
    if inode.attr.kind == FileType::Symlink {
        return Err(Error::new(Kind::Unsupported, "a symlink has no access control list"));
    }
    let acl = Acl::parse(value)?;
    if name == DEFAULT && acl.is_some() && !inode.is_directory() {
        return Err(Error::new(Kind::Access, "only a directory has a default access control list"));
    }
    if let Some(acl) = &acl
        && name == ACCESS
    {
        inode.attr.mode = inode.attr.mode & !PERMISSIONS | acl.mode();
    }
    match acl {
        Some(acl) if name == DEFAULT || !acl.is_mode() => put(tx, inode, name, acl.encode().into()),
        _ => take(tx, inode, name).map(drop),
    }
}

/// Brings the access list up to date with a mode that was set.
pub(super) fn changed_mode(tx: &mut Tx<'_>, inode: &Inode) -> Result<()> {
    if let Some(mut acl) = find_acl(tx, inode, ACCESS)? {
        acl.set_mode(inode.attr.mode);
        tx.put(Key::Xattr(inode.attr.ino, ACCESS.into()), Value::Xattr(acl.encode().into()));
    }
    Ok(())
}

/// What an inode made in `parent` gets from it: its mode in `new` is set, and the lists are returned.
pub(super) fn inherit(tx: &mut Tx<'_>, parent: &Inode, new: &mut NewInode) -> Result<Vec<Named>> {
    let mut lists = Vec::new();
    if new.kind == FileType::Symlink {
        return Ok(lists);
    }
    let Some(default) = find_acl(tx, parent, DEFAULT)? else {
        new.mode &= !(new.umask & PERMISSIONS);
        return Ok(lists);
    };
    let access = default.inherited(new.mode & PERMISSIONS);
    new.mode = new.mode & !PERMISSIONS | access.mode();
    if !access.is_mode() {
        lists.push((ACCESS, access.encode().into()));
    }
    if new.kind == FileType::Directory {
        lists.push((DEFAULT, default.encode().into()));
    }
    Ok(lists)
}

/// Content or owner changes: what the old content was trusted with does not pass on.
pub(super) fn drop_capability(tx: &mut Tx<'_>, inode: &mut Inode) -> Result<()> {
    if inode.xattr_names > 0 && tx.counters()?.capabilities > 0 {
        take(tx, inode, CAPABILITY)?;
    }
    Ok(())
}

fn find(tx: &mut Tx<'_>, inode: &Inode, name: &[u8]) -> Result<Option<Value>> {
    if inode.xattr_names == 0 { Ok(None) } else { tx.get(&Key::Xattr(inode.attr.ino, name.into())) }
}

fn find_acl(tx: &mut Tx<'_>, inode: &Inode, name: &[u8]) -> Result<Option<Acl>> {
    let Some(Value::Xattr(value)) = find(tx, inode, name)? else { return Ok(None) };
    Acl::parse(&value).map_err(|_| {
        let ino = inode.attr.ino;
        Error::new(Kind::Corrupt, format!("the access control list of inode {ino} is damaged; set it again"))
    })
}

/// Sets an attribute of `inode`, which the caller puts.
pub(super) fn put(tx: &mut Tx<'_>, inode: &mut Inode, name: &[u8], value: Box<[u8]>) -> Result<()> {
    if find(tx, inode, name)?.is_none() {
        inode.xattr_names += name.len() as u32 + 1;
        if inode.xattr_names > NAMES_MAX {
            let why = "the extended attributes' names have at most 64 KiB together";
            return Err(Error::new(Kind::NoSpace, why));
        }
        count_capability(tx, inode.attr.ino, name, 1)?;
    }
    tx.put(Key::Xattr(inode.attr.ino, name.into()), Value::Xattr(value.into()));
    Ok(())
}

/// Removes an attribute of `inode`, which the caller puts; whether it was there.
fn take(tx: &mut Tx<'_>, inode: &mut Inode, name: &[u8]) -> Result<bool> {
    if find(tx, inode, name)?.is_none() {
        return Ok(false);
    }
    inode.xattr_names = inode.xattr_names.saturating_sub(name.len() as u32 + 1);
    tx.delete(Key::Xattr(inode.attr.ino, name.into()));
    count_capability(tx, inode.attr.ino, name, -1)?;
    Ok(true)
}

/// An attribute came (1) or went (-1).
pub(super) fn count_capability(tx: &mut Tx<'_>, ino: Ino, name: &[u8], by: i64) -> Result<()> {
    if name == CAPABILITY {
        let mut counters = tx.counters()?;
        let count = counters.capabilities.checked_add_signed(by);
        counters.capabilities = count.ok_or_else(|| bug("the namespace's files with capabilities", ino))?;
        tx.put_counters(counters);
    }
    Ok(())
}
