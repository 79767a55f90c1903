//! Where each byte of one file is: ordered extents without overlap. Pure; the file's lock guards it.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Range;

use granary_core::NodeId;
use granary_meta::{Extent, Place};

/// One stretch of an answer of [`ExtentMap::resolve`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Zeros.
    Hole { offset: u64, len: u64 },
    /// Bytes `part` (an extent cut to what was asked), of the larger extent `whole`.
    Data { part: Extent, whole: Extent },
}

#[cfg(test)]
impl Piece {
    fn len(&self) -> u64 {
        match self {
            Piece::Hole { len, .. } => *len,
            Piece::Data { part, .. } => part.len,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ExtentMap {
    by_offset: BTreeMap<u64, Extent>,
    /// Sum of all lengths.
    covered: u64,
    /// Sum of the lengths in the stage file of this node.
    staged: u64,
    /// Which node that is; `None`: whichever.
    node: Option<NodeId>,
}

/// `place` moved on by `by` bytes.
pub(crate) fn advance(place: Place, by: u64) -> Place {
    match place {
        Place::Object { kind, id, offset } => Place::Object { kind, id, offset: offset + by },
        Place::Log { node, segment, offset } => Place::Log { node, segment, offset: offset + by },
        Place::StageFile { node } => Place::StageFile { node },
    }
}

/// The part of `extent` in `start..end` (which it must overlap). A real part has no checksum.
pub(crate) fn clip(extent: &Extent, start: u64, end: u64) -> Extent {
    let (from, to) = (extent.offset.max(start), extent.end().min(end));
    debug_assert!(from < to);
    if from == extent.offset && to == extent.end() {
        return *extent;
    }
    Extent { offset: from, len: to - from, place: advance(extent.place, from - extent.offset), crc: 0 }
}

/// Whether `b` goes on where `a` ends, in the file and in its place. Log records are kept apart: each has its checksum.
fn joins(a: &Extent, b: &Extent) -> bool {
    a.end() == b.offset && !matches!(a.place, Place::Log { .. }) && advance(a.place, a.len) == b.place
}

impl ExtentMap {
    /// An empty map of a file as `node` sees it.
    pub fn of(node: NodeId) -> ExtentMap {
        ExtentMap { node: Some(node), ..ExtentMap::default() }
    }

    /// The same node's map of other extents.
    pub fn with(&self, extents: impl IntoIterator<Item = Extent>) -> ExtentMap {
        let mut map = ExtentMap { node: self.node, ..ExtentMap::default() };
        for extent in extents {
            map.replace(extent);
        }
        map
    }

    /// Bytes that are not holes.
    pub fn covered(&self) -> u64 {
        self.covered
    }

    fn is_staged(&self, extent: &Extent) -> bool {
        matches!(extent.place, Place::StageFile { node } if self.node.is_none_or(|own| own == node))
    }

    /// Bytes whose place is this node's stage file.
    pub fn staged(&self) -> u64 {
        self.staged
    }

    /// Number of extents.
    pub fn len(&self) -> usize {
        self.by_offset.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Extent> + '_ {
        self.by_offset.values()
    }

    fn insert_raw(&mut self, extent: Extent) {
        self.covered += extent.len;
        if self.is_staged(&extent) {
            self.staged += extent.len;
        }
        self.by_offset.insert(extent.offset, extent);
    }

    fn remove_raw(&mut self, offset: u64) -> Option<Extent> {
        let extent = self.by_offset.remove(&offset)?;
        self.covered -= extent.len;
        if self.is_staged(&extent) {
            self.staged -= extent.len;
        }
        Some(extent)
    }

    /// Offsets of the extents that overlap `range`.
    fn overlapping(&self, range: &Range<u64>) -> Vec<u64> {
        if range.start >= range.end {
            return Vec::new();
        }
        let before = self.by_offset.range(..range.start).next_back();
        let before = before.filter(|(_, e)| e.end() > range.start).map(|(&o, _)| o);
        before.into_iter().chain(self.by_offset.range(range.clone()).map(|(&o, _)| o)).collect()
    }

    /// Makes `range` a hole.
    pub fn cut(&mut self, range: Range<u64>) {
        for offset in self.overlapping(&range) {
            let Some(extent) = self.remove_raw(offset) else { continue };
            if extent.offset < range.start {
                self.insert_raw(clip(&extent, extent.offset, range.start));
            }
            if extent.end() > range.end {
                self.insert_raw(clip(&extent, range.end, extent.end()));
            }
        }
    }

    /// Puts `extent` in place of whatever its range had.
    pub fn replace(&mut self, extent: Extent) {
        if extent.len == 0 {
            return;
        }
        self.cut(extent.offset..extent.end());
        let mut extent = extent;
        if let Some((&o, before)) = self.by_offset.range(..extent.offset).next_back()
            && joins(before, &extent)
        {
            extent =
                Extent { offset: before.offset, len: before.len + extent.len, place: before.place, crc: 0 };
            self.remove_raw(o);
        }
        if let Some((&o, after)) = self.by_offset.range(extent.end()..).next()
            && joins(&extent, after)
        {
            extent = Extent { len: extent.len + after.len, crc: 0, ..extent };
            self.remove_raw(o);
        }
        self.insert_raw(extent);
    }

    /// The extents within `range`, cut to it.
    pub fn within(&self, range: Range<u64>) -> Vec<Extent> {
        self.overlapping(&range)
            .into_iter()
            .map(|o| clip(&self.by_offset[&o], range.start, range.end))
            .collect()
    }

    /// What `offset..offset+len` is made of: pieces in order, without gaps.
    pub fn resolve(&self, offset: u64, len: u64) -> Vec<Piece> {
        let end = offset + len;
        let mut pieces = Vec::new();
        let mut at = offset;
        for o in self.overlapping(&(offset..end)) {
            let whole = self.by_offset[&o];
            let part = clip(&whole, offset, end);
            if part.offset > at {
                pieces.push(Piece::Hole { offset: at, len: part.offset - at });
            }
            at = part.end();
            pieces.push(Piece::Data { part, whole });
        }
        if at < end {
            pieces.push(Piece::Hole { offset: at, len: end - at });
        }
        pieces
    }

    /// The first byte from `offset` on that has data (or none).
    pub fn next_data(&self, offset: u64) -> Option<u64> {
        let before = self.by_offset.range(..=offset).next_back();
        if before.is_some_and(|(_, e)| e.end() > offset) {
            return Some(offset);
        }
        self.by_offset.range(offset..).next().map(|(&o, _)| o)
    }

    /// The first byte from `offset` on that has no data.
    pub fn next_hole(&self, offset: u64) -> u64 {
        let mut at = offset;
        if let Some((_, e)) = self.by_offset.range(..=at).next_back() {
            at = at.max(e.end());
        }
        for (&o, e) in self.by_offset.range(at..) {
            if o != at {
                break;
            }
            at = e.end();
        }
        at
    }

    /// Moves to `to` what of `part` (a piece of staged bytes that were uploaded) is still where it was.
    pub fn relocate(&mut self, part: &Extent, to: Place) {
        for o in self.overlapping(&(part.offset..part.end())) {
            let now = clip(&self.by_offset[&o], part.offset, part.end());
            let by = now.offset - part.offset;
            if now.place == advance(part.place, by) {
                self.replace(Extent { place: advance(to, by), ..now });
            }
        }
    }
}
