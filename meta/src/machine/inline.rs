//! Copies of tiny files' bytes beside their inodes, so that reading such a file asks nothing of the store.
//!
//! A copy is there only of content that is in the store: of a file whose whole content is one extent in an object. So the object
//! stays the truth, and whatever becomes of a copy, nothing is lost. It is put by an operation of its own, after the bytes
//! came into the object, and only if the file still is what the copy is of; any change of the content, and the end of the inode,
//! takes it away in the same operation. Where the bytes lie is no content: a copy outlives compaction.

use std::sync::Arc;

use granary_core::limits::INLINE_BYTES_MAX;
use granary_core::{Error, Ino, Kind, ObjectId, Result};

use super::{Reply, Tx, View, view::Records};
use crate::record::{Inode, Key, Value};
use crate::types::{Extent, FileType, Inline, NewInline, Place};

/// The extent that is the whole content of a tiny file in the store: only such a file may have a copy.
pub(super) fn whole(inode: &Inode) -> Option<&Extent> {
    match &inode.extents[..] {
        [e] if inode.attr.kind == FileType::File
            && (e.offset, e.len) == (0, inode.attr.size)
            && e.len <= INLINE_BYTES_MAX
            && matches!(e.place, Place::Object { .. }) =>
        {
            Some(e)
        }
        _ => None,
    }
}

/// The content of this inode, as it was before the operation, is going to be another, or to go.
pub(super) fn forget(tx: &mut Tx<'_>, before: &Inode) -> Result<()> {
    match whole(before) {
        Some(_) => remove(tx, before.attr.ino),
        None => Ok(()),
    }
}

pub(super) fn remove(tx: &mut Tx<'_>, ino: Ino) -> Result<()> {
    // Looked for first: most files have none, and a deletion costs the engine as much as a record.
    if !matches!(find(tx, ino)?, Found::Nothing) {
        tx.delete(Key::Inline(ino));
    }
    Ok(())
}

enum Found {
    Nothing,
    Damaged,
    Copy(Arc<Inline>),
}

/// What is damaged is no reason to refuse a change: it goes.
fn find(tx: &mut Tx<'_>, ino: Ino) -> Result<Found> {
    match tx.get(&Key::Inline(ino)) {
        Ok(Some(Value::Inline(copy))) => Ok(Found::Copy(copy)),
        Ok(None) => Ok(Found::Nothing),
        Ok(Some(_)) => Ok(Found::Damaged),
        Err(e) if e.kind() == Kind::Corrupt => Ok(Found::Damaged),
        Err(e) => Err(e),
    }
}

/// Keeps the copies that are of the whole present content of their files, in this object, and not longer than the namespace says.
pub(super) fn keep(tx: &mut Tx<'_>, object: ObjectId, copies: Vec<NewInline>) -> Result<Reply> {
    let len_max = tx.settings()?.policy.inline_bytes_max.unwrap_or(0);
    for copy in copies {
        let NewInline { ino, at, crc, bytes } = copy;
        if bytes.len() as u64 > INLINE_BYTES_MAX || granary_core::crc32c(&bytes) != crc {
            let why = format!("a copy of inode {ino}'s bytes was damaged on its way, or is too long");
            return Err(Error::new(Kind::Invalid, why));
        }
        let Some(inode) = tx.find_inode(ino)? else { continue };
        let is_it = whole(&inode).is_some_and(|e| {
            matches!(e.place, Place::Object { id, offset, .. } if (id, offset) == (object, at))
                && e.len == bytes.len() as u64
                && (e.crc == 0 || e.crc == crc)
        });
        if !is_it || bytes.len() as u64 > len_max {
            continue;
        }
        let copy = Arc::new(Inline { version: inode.attr.version, crc, bytes });
        if !matches!(find(tx, ino)?, Found::Copy(known) if known == copy) {
            tx.put(Key::Inline(ino), Value::Inline(copy));
        }
    }
    Ok(Reply::Done)
}
