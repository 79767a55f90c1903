//! What the metadata of one namespace says, as of one moment. About 200 bytes of memory for each file and object.

use std::collections::{BTreeMap, BTreeSet};

use granary_core::{Error, Ino, Kind, NamespaceId, NodeId, ObjectId, ObjectKind, Result};
use granary_meta::machine::check::{self, Problem};
use granary_meta::machine::trash;
use granary_meta::machine::{SnapshotView, View};
use granary_meta::record::{Family, Key, ObjectRecord, Span, Value};
use granary_meta::{Extent, FileType, Place, Volume};

use crate::progress::Progress;

/// Bytes of a file that are in an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Use {
    pub object: ObjectId,
    pub kind: ObjectKind,
    pub ino: Ino,
    pub at: u64,
    pub len: u64,
    pub object_offset: u64,
    pub crc: u32,
}

#[derive(Debug, Default)]
pub(super) struct Known {
    pub problems: Vec<Problem>,
    pub objects: BTreeMap<ObjectId, ObjectRecord>,
    /// In order of objects.
    pub uses: Vec<Use>,
    /// Bytes that are not in the store, by the node that has them.
    pub staged: BTreeMap<NodeId, u64>,
    pub inodes: u64,
}

impl Known {
    /// `None` when the namespace was removed meanwhile.
    pub fn read(volume: &Volume, ns: NamespaceId, progress: &Progress) -> Result<Option<Known>> {
        let mut found = None;
        volume.snapshot(&mut |snapshot| {
            let view = &mut SnapshotView { snapshot, ns };
            if view.get(&Key::Namespace)?.is_some() {
                found = Some(Known::of(view, progress)?);
            }
            Ok(())
        })?;
        Ok(found)
    }

    fn of(view: &mut dyn View, progress: &Progress) -> Result<Known> {
        let mut known = Known { problems: check::check(view)?, ..Known::default() };
        progress.advance(0)?;
        view.scan(Span::All(Family::Inode), None, &mut |key, value| {
            if let (Key::Inode(ino), Value::Inode(inode)) = (key, value) {
                known.inodes += 1;
                inode.extents.iter().for_each(|extent| known.extent(ino, extent));
            }
            progress.advance(1).map(|()| true)
        })?;
        view.scan(Span::All(Family::Extent), None, &mut |key, value| {
            if let (Key::Extent(ino, _), Value::Extent(extent)) = (key, value) {
                known.extent(ino, &extent);
            }
            progress.advance(0).map(|()| true)
        })?;
        view.scan(Span::All(Family::Object), None, &mut |key, value| {
            if let (Key::Object(id), Value::Object(record)) = (key, value) {
                known.objects.insert(id, record);
            }
            progress.advance(0).map(|()| true)
        })?;
        known.uses.sort_unstable_by_key(|u| (u.object, u.object_offset, u.ino));
        Ok(known)
    }

    fn extent(&mut self, ino: Ino, extent: &Extent) {
        match extent.place {
            Place::Object { kind, id, offset } => self.uses.push(Use {
                object: id,
                kind,
                ino,
                at: extent.offset,
                len: extent.len,
                object_offset: offset,
                crc: extent.crc,
            }),
            Place::Log { node, .. } | Place::StageFile { node } => {
                *self.staged.entry(node).or_default() += extent.len;
            }
        }
    }

    /// The uses of one object.
    pub fn uses_of(&self, id: ObjectId) -> &[Use] {
        let start = self.uses.partition_point(|u| u.object < id);
        let end = self.uses.partition_point(|u| u.object <= id);
        &self.uses[start..end]
    }
}

/// Deeper than any tree that can be walked by its path.
const DEPTH_MAX: usize = 4096;

/// A path of each of these inodes, below the namespace's root, of those that have one. Reads all entries.
pub(super) fn paths(
    volume: &Volume,
    ns: NamespaceId,
    wanted: &BTreeSet<Ino>,
    progress: &Progress,
) -> Result<BTreeMap<Ino, String>> {
    let mut names: BTreeMap<Ino, (Ino, Box<[u8]>)> = BTreeMap::new();
    volume.snapshot(&mut |snapshot| {
        let view = &mut SnapshotView { snapshot, ns };
        view.scan(Span::All(Family::Entry), None, &mut |key, value| {
            if let (Key::Entry(dir, name), Value::Entry(entry)) = (key, value)
                && (entry.kind == FileType::Directory || wanted.contains(&entry.ino))
            {
                names.entry(entry.ino).or_insert((dir, name));
            }
            progress.advance(0).map(|()| true)
        })
    })?;
    let path_of = |ino: Ino| {
        let mut parts = Vec::new();
        let mut at = ino;
        while at != Ino::ROOT {
            if at == Ino::TRASH {
                parts.push(readable(trash::NAME));
                break;
            }
            let (dir, name) = names.get(&at).filter(|_| parts.len() < DEPTH_MAX)?;
            parts.push(readable(name));
            at = *dir;
        }
        parts.reverse();
        Some(format!("/{}", parts.join("/")))
    };
    Ok(wanted.iter().filter_map(|&ino| Some((ino, path_of(ino)?))).collect())
}

/// A name that cannot confuse a terminal.
fn readable(name: &[u8]) -> String {
    match std::str::from_utf8(name) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => name.escape_ascii().to_string(),
    }
}

/// The metadata cannot be read at all: a finding, not a failure of the check.
pub(super) fn is_damage(e: &Error) -> bool {
    matches!(e.kind(), Kind::Corrupt | Kind::Unsupported)
}
