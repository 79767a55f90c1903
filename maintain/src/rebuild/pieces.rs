//! Whose bytes objects say they hold, put together by file. Pure.

use std::collections::BTreeMap;

use granary_core::{Ino, ObjectId};
use granary_meta::ObjectInfo;
use granary_store::format::Content;

/// A range of a file and where its newest bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub at: u64,
    pub len: u64,
    pub object: ObjectId,
    pub object_offset: u64,
    /// Of all its bytes; 0: not known.
    pub crc: u32,
}

impl Piece {
    fn end(&self) -> u64 {
        self.at + self.len
    }

    /// The part `start..end` of it.
    fn cut(&self, start: u64, end: u64) -> Piece {
        let whole = (start, end) == (self.at, self.end());
        let object_offset = self.object_offset + (start - self.at);
        Piece { at: start, len: end - start, object_offset, crc: if whole { self.crc } else { 0 }, ..*self }
    }
}

#[derive(Clone, Debug)]
pub(super) struct FilePieces {
    /// By where they begin; they do not overlap.
    map: BTreeMap<u64, Piece>,
    /// The directory and the name that the newest object with a name tells.
    pub name: Option<(Ino, Box<[u8]>)>,
    /// The newest object that has bytes of it.
    pub newest: ObjectId,
}

impl FilePieces {
    /// A newer object's range takes the place of older ones.
    fn put(&mut self, piece: Piece) {
        let older: Vec<Piece> =
            self.map.range(..piece.end()).rev().map(|(_, p)| *p).take_while(|p| p.end() > piece.at).collect();
        for old in older {
            self.map.remove(&old.at);
            for (start, end) in [(old.at, piece.at), (piece.end(), old.end())] {
                if start < end {
                    self.map.insert(start, old.cut(start, end));
                }
            }
        }
        self.map.insert(piece.at, piece);
    }

    pub fn pieces(&self) -> impl Iterator<Item = &Piece> {
        self.map.values()
    }

    pub fn size(&self) -> u64 {
        self.map.values().next_back().map_or(0, Piece::end)
    }

    /// Bytes that objects have.
    pub fn covered(&self) -> u64 {
        self.map.values().map(|p| p.len).sum()
    }
}

/// The files of a namespace, by the inode numbers that objects tell.
#[derive(Debug, Default)]
pub(super) struct Files {
    files: BTreeMap<Ino, FilePieces>,
    objects: Vec<ObjectInfo>,
}

impl Files {
    /// The next object, newer than those before.
    pub fn add(&mut self, info: ObjectInfo, content: &Content) {
        self.objects.push(info);
        match content {
            Content::Block(block) => {
                let piece = Piece {
                    at: block.file_offset,
                    len: info.payload_len,
                    object: info.id,
                    object_offset: 0,
                    crc: 0,
                };
                self.piece(block.ino, piece, None);
            }
            Content::Pack(entries) => {
                for e in entries {
                    let piece = Piece {
                        at: e.file_offset,
                        len: u64::from(e.len),
                        object: info.id,
                        object_offset: u64::from(e.payload_offset),
                        crc: e.crc,
                    };
                    let name = (!e.name.is_empty()).then(|| (e.parent, e.name.clone()));
                    self.piece(e.ino, piece, name);
                }
            }
        }
    }

    fn piece(&mut self, ino: Ino, piece: Piece, name: Option<(Ino, Box<[u8]>)>) {
        let file = self.files.entry(ino).or_insert_with(|| FilePieces {
            map: BTreeMap::new(),
            name: None,
            newest: piece.object,
        });
        file.put(piece);
        file.newest = file.newest.max(piece.object);
        if name.is_some() {
            file.name = name;
        }
    }

    pub fn len(&self) -> usize {
        self.files.len()
    }

    pub fn last_ino(&self) -> Ino {
        self.files.last_key_value().map_or(Ino::ROOT, |(ino, _)| *ino)
    }

    /// The objects, and the files with the newest first.
    pub fn newest_first(self) -> (Vec<ObjectInfo>, Vec<(Ino, FilePieces)>) {
        let mut files: Vec<_> = self.files.into_iter().collect();
        files.sort_by_key(|(ino, file)| std::cmp::Reverse((file.newest, *ino)));
        (self.objects, files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against an array of bytes, each of which knows who wrote it last.
        #[test]
        fn the_newest_has_each_byte(writes in proptest::collection::vec((0u64..40, 1u64..20), 1..12)) {
            let mut file = FilePieces { map: BTreeMap::new(), name: None, newest: ObjectId(0) };
            let mut bytes = vec![None; 60];
            for (n, (at, len)) in writes.iter().enumerate() {
                let object = ObjectId(n as u128);
                file.put(Piece { at: *at, len: *len, object, object_offset: 1000, crc: 7 });
                (*at..at + len).for_each(|i| bytes[i as usize] = Some((object, 1000 + i - at)));
            }
            let mut seen = vec![None; 60];
            for p in file.pieces() {
                for i in 0..p.len {
                    prop_assert!(seen[(p.at + i) as usize].is_none());
                    seen[(p.at + i) as usize] = Some((p.object, p.object_offset + i));
                }
                let (at, len) = writes[p.object.0 as usize];
                prop_assert_eq!(p.crc == 7, (p.at, p.len) == (at, len));
            }
            prop_assert_eq!(&seen, &bytes);
            prop_assert_eq!(file.covered(), bytes.iter().flatten().count() as u64);
            prop_assert_eq!(file.size(), bytes.iter().rposition(Option::is_some).map_or(0, |i| i as u64 + 1));
        }
    }
}
