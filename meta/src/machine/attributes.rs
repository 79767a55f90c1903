//! Attributes, and the namespace's settings.

use granary_core::limits::FILE_BYTES_MAX;
use granary_core::{Error, Ino, Kind, Result};

use super::content::Deltas;
use super::extents::Editor;
use super::{Reply, Tx, inline, view::Records, xattrs};
use crate::record::Inode;
use crate::types::{FileType, NamespaceChange, SetAttr, check_trash_ms};

const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;
const GROUP_EXECUTE: u32 = 0o010;

pub(super) fn set_attr(tx: &mut Tx<'_>, ino: Ino, set: SetAttr) -> Result<Reply> {
    let mut inode = tx.inode_mut(ino)?;
    let only_accessed = SetAttr { accessed: set.accessed, ..SetAttr::default() } == set;
    if let Some(size) = set.size {
        resize(tx, &mut inode, size)?;
        inode.attr.staged_seq = inode.attr.staged_seq.max(set.staged_seq.unwrap_or(0));
    } else if set.staged_seq.is_some() {
        return Err(Error::new(Kind::Invalid, "a sequence number comes with a size only"));
    }
    let changes_owner = set.uid.is_some() || set.gid.is_some();
    if set.kill_priv || (changes_owner && set.mode.is_none()) {
        kill_mode(&mut inode);
    }
    if (set.kill_priv || changes_owner) && !inode.is_directory() {
        xattrs::drop_capability(tx, &mut inode)?;
    }
    if let Some(mode) = set.mode {
        inode.attr.mode = mode & 0o7777;
        xattrs::changed_mode(tx, &inode)?;
    }
    let attr = &mut inode.attr;
    attr.uid = set.uid.unwrap_or(attr.uid);
    attr.gid = set.gid.unwrap_or(attr.gid);
    attr.atime = set.atime.unwrap_or(attr.atime);
    if let Some(accessed) = set.accessed {
        attr.atime = attr.atime.max(accessed);
    }
    attr.mtime = set.mtime.unwrap_or(attr.mtime);
    if !only_accessed || set == SetAttr::default() {
        attr.ctime = tx.now;
    }
    let attr = attr.clone();
    tx.put_inode(inode);
    Ok(Reply::Attr(attr))
}

/// Takes setuid and setgid from a file. Setgid without execution by the group is no privilege, and stays.
fn kill_mode(inode: &mut Inode) {
    let mode = &mut inode.attr.mode;
    if inode.attr.kind != FileType::Directory {
        *mode &= !SETUID;
        if *mode & GROUP_EXECUTE != 0 {
            *mode &= !SETGID;
        }
    }
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
    if size != inode.attr.size {
        inline::forget(tx, inode)?;
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

pub(super) fn configure(tx: &mut Tx<'_>, change: NamespaceChange) -> Result<Reply> {
    change.policy.validate()?;
    change.trash_ms.map_or(Ok(()), check_trash_ms)?;
    let mut settings = (*tx.settings()?).clone();
    settings.bytes_max = change.bytes_max.unwrap_or(settings.bytes_max);
    settings.inodes_max = change.inodes_max.unwrap_or(settings.inodes_max);
    settings.durability = change.durability.unwrap_or(settings.durability);
    settings.policy = settings.policy.changed(&change.policy);
    settings.trash_ms = change.trash_ms.unwrap_or(settings.trash_ms);
    tx.put_namespace(settings);
    if change.uid.is_some() || change.gid.is_some() || change.mode.is_some() {
        let set = SetAttr { uid: change.uid, gid: change.gid, mode: change.mode, ..SetAttr::default() };
        set_attr(tx, Ino::ROOT, set)?;
    }
    Ok(Reply::Done)
}
