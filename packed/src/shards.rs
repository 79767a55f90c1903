//! Shards as objects of the node's cache. A tar is seen as packs of 15 MiB, one after another, of which nothing is stored: a
//! pack's payload is a range of the tar, and its footer is made of the checksums that the shard's index has of each 64 KiB. So the
//! read cache fetches, verifies, keeps, pins and reads ahead as it does for packs of its own.
//!
//! | object id | what |
//! |---|---|
//! | upper 96 bits | hash of namespace, data set, the shard's path and length, its index's checksum, tar or index |
//! | lower 32 bits | which 15 MiB of it; all ones: the trailer behind the tar |
//!
//! A shard is never written over, so an id stands for the same bytes for ever, in all versions. The namespace is part of it since
//! a data set's id is what its maker says: nobody gives another namespace's cache bytes of his own. The hash is the standard
//! library's; another one in a later release makes the cache cold, and nothing wrong.

mod store;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;

use granary_core::limits::{FRAME_BYTES, OBJECT_PAYLOAD_MAX};
use granary_core::{Error, Kind, NamespaceId, ObjectId, ObjectKind, Result};
use granary_meta::{Extent, LiveObject, ObjectInfo, Place};
use granary_packer::index::Index;
use granary_packer::manifest::{Manifest, Shard};
use granary_store::format::part_footer_len;

pub use store::ShardStore;

/// The number of a tar's last piece, its trailer.
const TRAILER: u32 = u32::MAX;
const PIECE_BITS: u32 = 32;

/// One of a shard's two files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Which {
    Tar,
    Index,
}

/// One shard of the version.
#[derive(Debug)]
pub struct Known {
    /// Of the tar, relative to the data set's root.
    pub path: String,
    pub bytes: u64,
    /// Bytes of the tar that have checksums of frames: all before the trailer.
    pub framed: u64,
    pub index: Index,
    /// Where the index lies on this node.
    pub index_file: PathBuf,
    ids: [ObjectId; 2],
}

/// All shards of a version.
#[derive(Debug)]
pub struct Shards {
    pub(crate) all: Vec<Known>,
    by_id: HashMap<u128, (u32, Which)>,
}

/// A stretch of a shard's file that is one object's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub shard: u32,
    pub which: Which,
    pub number: u32,
    /// Where it begins in the file.
    pub start: u64,
    pub len: u64,
}

fn id_of(ns: NamespaceId, manifest: &Manifest, shard: &Shard, which: Which) -> ObjectId {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, ns, manifest.data_set(), &shard.path, shard.bytes, shard.index_crc32c, which)
            .hash(&mut hasher);
        u128::from(hasher.finish())
    };
    ObjectId(half(0) << 64 | (half(1) >> PIECE_BITS) << PIECE_BITS)
}

impl Shards {
    /// `indexes`, and where they lie, in the order of the manifest's shards.
    ///
    /// Errors: `Unsupported` for a shard whose index has no checksums of its tar's frames.
    pub fn new(
        ns: NamespaceId,
        manifest: &Manifest,
        indexes: impl IntoIterator<Item = (Index, PathBuf)>,
    ) -> Result<Shards> {
        let (mut all, mut by_id) = (Vec::new(), HashMap::new());
        for (number, (shard, (index, index_file))) in (0u32..).zip(manifest.shards().iter().zip(indexes)) {
            let Some(framed) = index.framed_bytes() else {
                return Err(Error::new(
                    Kind::Unsupported,
                    format!(
                        "the index of shard {} has no checksums of its tar, so that its files cannot be mounted; make it anew with \
                         `granary index`",
                        shard.path
                    ),
                ));
            };
            let ids = [Which::Tar, Which::Index].map(|which| id_of(ns, manifest, shard, which));
            for (id, which) in ids.iter().zip([Which::Tar, Which::Index]) {
                by_id.insert(id.0, (number, which));
            }
            let (path, bytes) = (shard.path.clone(), shard.bytes);
            all.push(Known { path, bytes, framed, index, index_file, ids });
        }
        Ok(Shards { all, by_id })
    }

    pub fn len(&self) -> u32 {
        self.all.len() as u32
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    fn known(&self, shard: u32) -> Result<&Known> {
        self.all
            .get(shard as usize)
            .ok_or_else(|| Error::new(Kind::Bug, format!("there is no shard {shard} of {}", self.all.len())))
    }

    /// The length of one of its files, and how much of that is in pieces of 15 MiB.
    pub(crate) fn length(&self, shard: u32, which: Which) -> Result<(u64, u64)> {
        let known = self.known(shard)?;
        Ok(match which {
            Which::Tar => (known.bytes, known.framed),
            Which::Index => (known.index.bytes(), known.index.bytes()),
        })
    }

    fn piece_at(&self, shard: u32, which: Which, offset: u64) -> Result<Piece> {
        let (length, framed) = self.length(shard, which)?;
        let number = if offset < framed { (offset / OBJECT_PAYLOAD_MAX) as u32 } else { TRAILER };
        self.piece(shard, which, number).filter(|_| offset < length).ok_or_else(|| {
            let path = self.all.get(shard as usize).map_or("", |known| &known.path);
            Error::new(
                Kind::Corrupt,
                format!("shard {path} ends before byte {offset}, where its index has a file"),
            )
        })
    }

    fn piece(&self, shard: u32, which: Which, number: u32) -> Option<Piece> {
        let (length, framed) = self.length(shard, which).ok()?;
        let (start, end) = match number {
            TRAILER => (framed, length),
            _ => {
                let start = u64::from(number) * OBJECT_PAYLOAD_MAX;
                (start, framed.min(start + OBJECT_PAYLOAD_MAX))
            }
        };
        (start < end).then(|| Piece { shard, which, number, start, len: end - start })
    }

    pub(crate) fn piece_of(&self, id: ObjectId) -> Option<Piece> {
        let number = id.0 as u32;
        let &(shard, which) = self.by_id.get(&(id.0 >> PIECE_BITS << PIECE_BITS))?;
        self.piece(shard, which, number)
    }

    pub(crate) fn id(&self, piece: &Piece) -> Option<ObjectId> {
        let known = self.all.get(piece.shard as usize)?;
        Some(ObjectId(known.ids[piece.which as usize].0 | u128::from(piece.number)))
    }

    fn info_of(&self, piece: &Piece) -> Option<ObjectInfo> {
        let total_len = piece.len + part_footer_len(piece.len);
        Some(ObjectInfo { id: self.id(piece)?, kind: ObjectKind::Pack, payload_len: piece.len, total_len })
    }

    /// `NotFound` when no shard of this version has such an object.
    pub fn info(&self, id: ObjectId) -> Result<ObjectInfo> {
        let piece = self.piece_of(id);
        piece.and_then(|piece| self.info_of(&piece)).ok_or_else(|| {
            Error::new(Kind::NotFound, format!("no shard of this version of the data set has object {id}"))
        })
    }

    /// The pieces that follow this one, of tars only, in the order of shards: what is read next by who reads on.
    pub fn following(&self, id: ObjectId, max: usize) -> Vec<LiveObject> {
        let next = |piece: &Piece| {
            let after = self.piece(piece.shard, piece.which, piece.number.checked_add(1)?);
            after
                .filter(|after| after.number != TRAILER)
                .or_else(|| (piece.shard + 1..self.len()).find_map(|shard| self.piece(shard, Which::Tar, 0)))
        };
        let first = match id {
            ObjectId(0) => (0..self.len()).find_map(|shard| self.piece(shard, Which::Tar, 0)),
            _ => self.piece_of(id).filter(|piece| piece.which == Which::Tar).and_then(|piece| next(&piece)),
        };
        let pieces = std::iter::successors(first, next);
        let live = |piece: Piece| {
            let object = self.info_of(&piece)?;
            Some(LiveObject { object, live: object.payload_len })
        };
        pieces.filter_map(live).take(max).collect()
    }

    /// Where a stretch of a shard's file is, in pieces. `crc`: of the whole stretch.
    ///
    /// Errors: `Corrupt` when the file ends before it does.
    pub fn extents(
        &self,
        shard: u32,
        which: Which,
        offset: u64,
        length: u64,
        crc: u32,
    ) -> Result<Vec<Extent>> {
        let (mut out, mut done) = (Vec::new(), 0);
        while done < length {
            let piece = self.piece_at(shard, which, offset + done)?;
            let within = offset + done - piece.start;
            let len = (piece.len - within).min(length - done);
            let Some(id) = self.id(&piece) else {
                return Err(Error::new(Kind::Bug, "a piece of a shard has no object id"));
            };
            let place = Place::Object { kind: ObjectKind::Pack, id, offset: within };
            // Of a part nothing is known: frames are what verifies it.
            out.push(Extent { offset: done, len, place, crc: if len == length { crc } else { 0 } });
            done += len;
        }
        Ok(out)
    }

    /// The checksums of a tar's frames that a piece has.
    pub(crate) fn frames(&self, piece: &Piece) -> Result<Vec<u32>> {
        let first = (piece.start / FRAME_BYTES) as u32;
        let count = piece.len.div_ceil(FRAME_BYTES) as u32;
        let index = &self.known(piece.shard)?.index;
        (first..first + count).map(|frame| index.frame(frame)).collect()
    }
}

/// What each shard's two files are called in `.shards`: by base name, and where two would have one name, with the shard's number
/// before it. In the order of names.
pub fn file_names(manifest: &Manifest) -> Vec<(String, u32, Which)> {
    let base = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
    let mut names = Vec::with_capacity(2 * manifest.shards().len());
    for (number, shard) in (0u32..).zip(manifest.shards()) {
        names.push((base(&shard.path), number, Which::Tar));
        names.push((base(&shard.index_path()), number, Which::Index));
    }
    let mut count: HashMap<&str, u32> = HashMap::new();
    names.iter().for_each(|(name, ..)| *count.entry(name).or_default() += 1);
    let twice: Vec<bool> =
        names.iter().map(|(name, ..)| count.get(&**name).is_some_and(|&n| n > 1)).collect();
    for ((name, number, _), twice) in names.iter_mut().zip(twice) {
        if twice {
            *name = format!("{number:06}-{name}");
        }
    }
    names.sort();
    names.dedup_by(|a, b| a.0 == b.0);
    names
}
