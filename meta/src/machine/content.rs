//! A file's bytes: commits of new extents, their way into objects, and the objects' live bytes.

use std::collections::BTreeMap;

use granary_core::{Error, Ino, Kind, ObjectId, Result};

use super::extents::{Editor, checked_end, cut};
use super::{Reply, Tx, View, bug, inline, trash, view::Records};
use crate::record::{Inode, Key, ObjectRecord, Value};
use crate::types::{Commit, Extent, FileType, Move, ObjectInfo, Place};

/// What an operation adds to and takes from a file's stored bytes and the objects' live bytes.
#[derive(Debug, Default)]
pub(super) struct Deltas {
    pub(super) stored: i64,
    objects: BTreeMap<ObjectId, i64>,
}

impl Deltas {
    /// `len` bytes of this extent are not the file's any more.
    pub(super) fn take(&mut self, extent: &Extent, len: u64) {
        self.count(extent, -(len as i64));
    }

    /// `len` bytes of this extent became the file's.
    pub(super) fn give(&mut self, extent: &Extent, len: u64) {
        self.count(extent, len as i64);
    }

    fn count(&mut self, extent: &Extent, by: i64) {
        self.stored += by;
        if let Place::Object { id, .. } = extent.place {
            *self.objects.entry(id).or_default() += by;
        }
    }

    /// Brings the inode (which the caller puts), the namespace's bytes and the objects up to date.
    pub(super) fn apply(self, tx: &mut Tx<'_>, inode: &mut Inode, fresh: Option<ObjectInfo>) -> Result<()> {
        let stored = inode.attr.stored.checked_add_signed(self.stored);
        inode.attr.stored = stored.ok_or_else(|| bug("a file's stored bytes", inode.attr.ino))?;
        trash::count_stored(tx, inode, self.stored)?;
        self.settle(tx, fresh)
    }

    /// Brings the objects up to date; one without a live byte is dead from now on. `fresh` becomes known.
    pub(super) fn settle(mut self, tx: &mut Tx<'_>, fresh: Option<ObjectInfo>) -> Result<()> {
        if let Some(fresh) = fresh {
            self.objects.entry(fresh.id).or_default();
        }
        for (id, delta) in self.objects {
            let is_fresh = fresh.is_some_and(|f| f.id == id);
            if delta == 0 && !is_fresh {
                continue;
            }
            let known = tx.find_object(id)?;
            let mut record = match (known, fresh) {
                (Some(record), _) => record,
                (None, Some(info)) if is_fresh => ObjectRecord { info, live: 0, dead_since: None },
                (None, _) => {
                    return Err(Error::new(
                        Kind::Invalid,
                        format!("object {id} was never stored: relocate makes it known"),
                    ));
                }
            };
            if record.dead_since.is_some() {
                if delta == 0 {
                    continue;
                }
                return Err(Error::new(
                    Kind::Stale,
                    format!("object {id} is being deleted; store the bytes again"),
                ));
            }
            let live = record.live.checked_add_signed(delta);
            record.live = live.ok_or_else(|| {
                Error::new(Kind::Bug, format!("object {id} has fewer live bytes than files use"))
            })?;
            if record.live == 0 {
                record.dead_since = Some(tx.now);
                tx.put(Key::Dead(tx.now, id), Value::Dead);
            }
            tx.put(Key::Object(id), Value::Object(record));
        }
        Ok(())
    }
}

pub(super) fn regular_file(tx: &mut dyn View, ino: Ino) -> Result<Inode> {
    let inode = tx.inode(ino)?;
    if inode.attr.kind != FileType::File {
        return Err(Error::new(Kind::Invalid, "only a regular file has content"));
    }
    Ok(std::sync::Arc::unwrap_or_clone(inode))
}

pub(super) fn commit(tx: &mut Tx<'_>, commit: Commit) -> Result<Reply> {
    let mut inode = regular_file(tx, commit.ino)?;
    checked_end(commit.size, 0)?;
    let changes_content =
        inode.attr.size != commit.size || !commit.extents.is_empty() || !commit.holes.is_empty();
    if changes_content {
        inline::forget(tx, &inode)?;
    }
    let mut deltas = Deltas::default();
    let mut editor = Editor::open(tx, &inode, commit.holes.len() + commit.extents.len() + 1)?;
    for &(offset, len) in &commit.holes {
        editor.replace(tx, &mut deltas, offset, offset.saturating_add(len), None)?;
    }
    for extent in &commit.extents {
        let end = checked_end(extent.offset, extent.len)?;
        editor.replace(tx, &mut deltas, extent.offset, end, (extent.len > 0).then_some(*extent))?;
    }
    editor.replace(tx, &mut deltas, commit.size, u64::MAX, None)?;
    editor.finish(tx, &mut inode);
    deltas.apply(tx, &mut inode, None)?;

    let attr = &mut inode.attr;
    if changes_content {
        attr.version += 1;
    }
    attr.size = commit.size;
    attr.mtime = commit.mtime;
    attr.ctime = attr.ctime.max(commit.ctime);
    attr.staged_seq = attr.staged_seq.max(commit.staged_seq);
    let attr = attr.clone();
    tx.put_inode(inode);
    Ok(Reply::Attr(attr))
}

pub(super) fn relocate(tx: &mut Tx<'_>, object: ObjectInfo, moves: &[Move]) -> Result<Reply> {
    let mut parts = vec![Vec::new(); moves.len()];
    super::condemn::refuse(tx, object.id)?;
    if let Some(known) = tx.find_object(object.id)? {
        if known.info != object {
            return Err(Error::new(
                Kind::Invalid,
                format!("object {} is known with other lengths", object.id),
            ));
        }
        if known.dead_since.is_some() {
            return Ok(Reply::Moved(parts));
        }
    }
    let mut by_ino: BTreeMap<Ino, Vec<usize>> = BTreeMap::new();
    for (i, m) in moves.iter().enumerate() {
        let end = m.to_offset.checked_add(m.from.len);
        if m.from.len == 0
            || m.from.offset.checked_add(m.from.len).is_none()
            || end.is_none_or(|end| end > object.payload_len)
        {
            return Err(Error::new(
                Kind::Invalid,
                format!("a move of inode {} lies outside of object {}", m.ino, object.id),
            ));
        }
        by_ino.entry(m.ino).or_default().push(i);
    }
    let mut deltas = Deltas::default();
    for (ino, indices) in by_ino {
        let Some(inode) = tx.find_inode(ino)? else { continue };
        if inode.attr.kind != FileType::File {
            continue;
        }
        let mut editor = Editor::open(tx, &inode, indices.len())?;
        let mut any = false;
        for i in indices {
            let m = &moves[i];
            for (start, end) in editor.matching(tx, &m.from)? {
                let offset = m.to_offset + (start - m.from.offset);
                let place = Place::Object { kind: object.kind, id: object.id, offset };
                let new = Extent { place, ..cut(&m.from, start, end) };
                editor.replace(tx, &mut deltas, start, end, Some(new))?;
                parts[i].push((start, end - start));
                any = true;
            }
        }
        if any {
            let was_whole = inline::whole(&inode).is_some();
            let mut inode = std::sync::Arc::unwrap_or_clone(inode);
            editor.finish(tx, &mut inode);
            if was_whole && inline::whole(&inode).is_none() {
                inline::remove(tx, ino)?;
            }
            tx.put_inode(inode);
        }
    }
    if deltas.stored != 0 {
        return Err(Error::new(Kind::Bug, "moving extents changed how many bytes are stored"));
    }
    deltas.settle(tx, Some(object))?;
    Ok(Reply::Moved(parts))
}

/// Of the given extents, the parts `(offset, len)` that the file still has at that place.
pub fn live(view: &mut dyn View, staged: &[(Ino, Extent)]) -> Result<Vec<Vec<(u64, u64)>>> {
    let mut out = vec![Vec::new(); staged.len()];
    let mut by_ino: BTreeMap<Ino, Vec<usize>> = BTreeMap::new();
    for (i, (ino, extent)) in staged.iter().enumerate() {
        if extent.len > 0 && extent.offset.checked_add(extent.len).is_some() {
            by_ino.entry(*ino).or_default().push(i);
        }
    }
    for (ino, indices) in by_ino {
        let Some(inode) = view.find_inode(ino)? else { continue };
        let mut editor = Editor::open(view, &inode, indices.len())?;
        for i in indices {
            let parts = editor.matching(view, &staged[i].1)?;
            out[i] = parts.into_iter().map(|(start, end)| (start, end - start)).collect();
        }
    }
    Ok(out)
}

pub(super) fn forget_objects(tx: &mut Tx<'_>, ids: &[ObjectId]) -> Result<Reply> {
    for &id in ids {
        let Some(record) = tx.find_object(id)? else { continue };
        let Some(since) = record.dead_since else {
            return Err(Error::new(
                Kind::Bug,
                format!(
                    "object {id} was deleted from the store but {} bytes of files are in it",
                    record.live
                ),
            ));
        };
        tx.delete(Key::Dead(since, id));
        tx.delete(Key::Object(id));
    }
    Ok(Reply::Done)
}
