//! A file's extents while an operation changes them: split, cut, replaced, joined.
//!
//! Extents of a file do not overlap. Neighbours whose bytes follow each other in the same object or stage file are joined
//! (their checksum becomes 0, as for a part: objects have checksums per frame), so that a file that was uploaded whole
//! has few extents again, however it was written.

use std::collections::BTreeMap;

use granary_core::{Error, Kind, Result};

use super::content::Deltas;
use super::{Tx, View};
use crate::record::{EXTENTS_INLINE_MAX, Family, Inode, Key, Span, Value};
use crate::types::{Extent, Place};

/// Up to this many extent records are loaded at once rather than looked for range by range. Small in tests, so that
/// random files meet both ways.
const WHOLE_MAX: u64 = if cfg!(test) { 6 } else { 256 };
/// All extents are loaded when there are at most this many for each edit: a scan costs about as much as reading them.
const WHOLE_PER_EDIT: u64 = if cfg!(test) { 2 } else { 32 };
/// With this many extents or fewer, records go back into the inode. Below [`EXTENTS_INLINE_MAX`], so that a file at the
/// border does not move back and forth.
const INLINE_AGAIN_MAX: usize = 2;

/// The extents that an operation has touched, as they are to be.
#[derive(Debug)]
pub(super) struct Editor {
    ino: granary_core::Ino,
    /// By end: what was fetched and changed.
    map: BTreeMap<u64, Extent>,
    /// By end: the records as they are in the state, of what was fetched.
    stored: BTreeMap<u64, Extent>,
    /// All of the file's extents are in `map`.
    whole: bool,
    /// Extent records of the file when opened.
    spilled: u64,
}

impl Editor {
    /// For about `edits` edits of this inode; many of them make it load all extents at once.
    pub(super) fn open(view: &mut dyn View, inode: &Inode, edits: usize) -> Result<Editor> {
        let mut editor = Editor {
            ino: inode.attr.ino,
            map: BTreeMap::new(),
            stored: BTreeMap::new(),
            whole: true,
            spilled: inode.spilled,
        };
        if inode.spilled == 0 {
            editor.map.extend(inode.extents.iter().map(|e| (e.end(), *e)));
        } else if inode.spilled <= WHOLE_MAX || (edits as u64).saturating_mul(WHOLE_PER_EDIT) >= inode.spilled
        {
            editor.fetch(view, 0, u64::MAX)?;
        } else {
            editor.whole = false;
        }
        Ok(editor)
    }

    /// Loads the extents that overlap or touch `start..end`.
    fn fetch(&mut self, view: &mut dyn View, start: u64, end: u64) -> Result<()> {
        let (map, stored) = (&mut self.map, &mut self.stored);
        let from = Key::Extent(self.ino, start);
        view.scan(Span::Of(Family::Extent, self.ino), Some(&from), &mut |_, value| {
            let Value::Extent(extent) = value else { return Ok(true) };
            if extent.offset > end {
                return Ok(false);
            }
            if stored.insert(extent.end(), extent).is_none() {
                map.insert(extent.end(), extent);
            }
            Ok(true)
        })
    }

    /// Makes `start..end` what `new` says (its own range), or a hole.
    pub(super) fn replace(
        &mut self,
        view: &mut dyn View,
        deltas: &mut Deltas,
        start: u64,
        end: u64,
        new: Option<Extent>,
    ) -> Result<()> {
        if start >= end {
            return Ok(());
        }
        if !self.whole {
            self.fetch(view, start, end)?;
        }
        let overlapping: Vec<Extent> =
            self.map.range(start + 1..).map(|(_, e)| *e).take_while(|e| e.offset < end).collect();
        for old in overlapping {
            self.map.remove(&old.end());
            deltas.take(&old, old.end().min(end) - old.offset.max(start));
            for (from, to) in [(old.offset, start), (end, old.end())] {
                if from < to {
                    let part = cut(&old, from, to);
                    self.map.insert(part.end(), part);
                }
            }
        }
        if let Some(new) = new {
            debug_assert_eq!((new.offset, new.end()), (start, end));
            deltas.give(&new, new.len);
            self.insert_joined(new);
        }
        Ok(())
    }

    fn insert_joined(&mut self, mut new: Extent) {
        if let Some(left) = self.map.get(&new.offset).copied()
            && follows(&left, &new)
        {
            self.map.remove(&left.end());
            new = Extent { offset: left.offset, len: left.len + new.len, place: left.place, crc: 0 };
        }
        if let Some(right) = self.map.range(new.end() + 1..).next().map(|(_, e)| *e)
            && follows(&new, &right)
        {
            self.map.remove(&right.end());
            new = Extent { len: new.len + right.len, crc: 0, ..new };
        }
        self.map.insert(new.end(), new);
    }

    /// The parts `(offset, end)` of `from`'s range where the file has exactly these bytes' place.
    pub(super) fn matching(&mut self, view: &mut dyn View, from: &Extent) -> Result<Vec<(u64, u64)>> {
        if !self.whole {
            self.fetch(view, from.offset, from.end())?;
        }
        let overlapping =
            self.map.range(from.offset + 1..).map(|(_, e)| e).take_while(|e| e.offset < from.end());
        let mut parts: Vec<(u64, u64)> = Vec::new();
        for e in overlapping {
            let (start, end) = (e.offset.max(from.offset), e.end().min(from.end()));
            if cut(e, start, end).place == cut(from, start, end).place {
                match parts.last_mut() {
                    Some(last) if last.1 == start => last.1 = end,
                    _ => parts.push((start, end)),
                }
            }
        }
        Ok(parts)
    }

    /// Writes what changed: records, and into `inode` (which the caller puts) its own share.
    pub(super) fn finish(self, tx: &mut Tx<'_>, inode: &mut Inode) {
        let count = self.spilled - self.stored.len() as u64 + self.map.len() as u64;
        let all_here = self.whole || count == self.map.len() as u64;
        let inline_max = if self.spilled > 0 { INLINE_AGAIN_MAX } else { EXTENTS_INLINE_MAX };
        if all_here && count <= inline_max as u64 {
            for end in self.stored.keys() {
                tx.delete(Key::Extent(self.ino, *end));
            }
            inode.spilled = 0;
            inode.extents = self.map.into_values().collect();
            return;
        }
        for end in self.stored.keys().filter(|end| !self.map.contains_key(end)) {
            tx.delete(Key::Extent(self.ino, *end));
        }
        for (end, extent) in &self.map {
            if self.stored.get(end) != Some(extent) {
                tx.put(Key::Extent(self.ino, *end), Value::Extent(*extent));
            }
        }
        inode.spilled = count;
        inode.extents = Vec::new();
    }
}

/// The part `start..end` of an extent, which lies within it.
pub(super) fn cut(extent: &Extent, start: u64, end: u64) -> Extent {
    let skip = start - extent.offset;
    let place = match extent.place {
        Place::Object { kind, id, offset } => Place::Object { kind, id, offset: offset.wrapping_add(skip) },
        Place::Log { node, segment, offset } => {
            Place::Log { node, segment, offset: offset.wrapping_add(skip) }
        }
        Place::StageFile { node } => Place::StageFile { node },
    };
    let whole = start == extent.offset && end == extent.end();
    Extent { offset: start, len: end - start, place, crc: if whole { extent.crc } else { 0 } }
}

/// Whether `right`'s bytes come right after `left`'s, in the file and where they are kept. A log's records never do:
/// each is checked by its own checksum.
fn follows(left: &Extent, right: &Extent) -> bool {
    if left.end() != right.offset {
        return false;
    }
    match (left.place, right.place) {
        (Place::Object { id: a, offset, .. }, Place::Object { id: b, offset: next, .. }) => {
            a == b && offset.checked_add(left.len) == Some(next)
        }
        (Place::StageFile { node: a }, Place::StageFile { node: b }) => a == b,
        _ => false,
    }
}

/// Checks what comes from outside: a range that exists.
pub(super) fn checked_end(offset: u64, len: u64) -> Result<u64> {
    match offset.checked_add(len) {
        Some(end) if end <= granary_core::limits::FILE_BYTES_MAX => Ok(end),
        _ => Err(Error::new(Kind::FileTooLarge, "a file has at most 16 TiB")),
    }
}
