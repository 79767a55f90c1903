//! One thing to be packed, as it goes from the scan through the sort into the plan.
//!
//! Records live in unnamed files of one run only, so they have no version; each ends within its length or is a bug of ours.
//!
//! | size | what |
//! |---|---|
//! | 4 | bytes of the record after this |
//! | 8 | rank, big-endian: 0, or the keyed hash of the key when samples are shuffled |
//! | 2 | bytes of the key, which the path begins with |
//! | 2, n | path |
//! | 8, 8, 4 | bytes of content; time of modification, seconds and nanoseconds |
//! | 2, 4, 4 | mode, user, group |
//! | 1 | content: 0 a file of its own, 1 a range of a container, 2 here, 3 a symbolic link's target, 4 none: a directory |
//! | n | of a range: container `u32`, offset `u64`; of 2 and 3: `u32` length and bytes |

use std::cmp::Ordering;

use granary_core::codec::{Put, Reader};
use granary_core::{Error, Kind, Result};

use crate::key::Grouping;
use crate::pack::sip::Sip;

/// Where an entry's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// The source's file of this path.
    File,
    /// From `offset` on in the source's container of this number.
    Range { container: u32, offset: u64 },
    /// Here: what an importer made itself.
    Inline(Vec<u8>),
    /// A symbolic link, to this.
    Link(Vec<u8>),
    /// None: it is a directory.
    Directory,
}

/// A file, link or directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Below the source's root, without leading slash.
    pub path: Vec<u8>,
    pub length: u64,
    pub mtime: i64,
    pub mtime_nanos: u32,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub content: Content,
}

impl Entry {
    pub fn is_link(&self) -> bool {
        matches!(self.content, Content::Link(_))
    }

    pub fn is_directory(&self) -> bool {
        self.content == Content::Directory
    }

    /// Whether it is a member with bytes, which belongs to a sample.
    pub fn is_file(&self) -> bool {
        !self.is_link() && !self.is_directory()
    }

    /// Its type flag in a tar.
    pub fn kind(&self) -> u8 {
        match self.content {
            Content::Link(_) => b'2',
            Content::Directory => b'5',
            _ => b'0',
        }
    }

    /// Of a link, else empty.
    pub fn target(&self) -> &[u8] {
        match &self.content {
            Content::Link(target) => target,
            _ => &[],
        }
    }

    /// What makes it one sample with others. A directory's is its own path: so it comes before what is in it and before a sample
    /// of the same name, and never between the files of one.
    fn key(&self, grouping: Grouping) -> &[u8] {
        match self.is_directory() {
            true => &self.path,
            false => grouping.split(&self.path).0,
        }
    }
}

/// How entries are ordered: samples by rank, then by key, and a sample's files by path. So the files of a sample are neighbours
/// whatever else is called similarly, and a shuffled order depends on keys and seed alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    pub grouping: Grouping,
    /// Shuffles samples.
    pub seed: Option<u64>,
}

impl Order {
    /// Appends the entry's record.
    pub fn encode(&self, entry: &Entry, out: &mut Vec<u8>) {
        let key = entry.key(self.grouping);
        let rank = self.seed.map_or(0, |seed| {
            let mut sip = Sip::new([seed, 0]);
            sip.write(key);
            sip.finish()
        });
        let start = out.len();
        out.put_u32(0);
        out.extend_from_slice(&rank.to_be_bytes());
        out.put_u16(key.len() as u16);
        out.put_bytes16(&entry.path);
        out.put_u64(entry.length);
        out.put_i64(entry.mtime);
        out.put_u32(entry.mtime_nanos);
        out.put_u16(entry.mode);
        out.put_u32(entry.uid);
        out.put_u32(entry.gid);
        match &entry.content {
            Content::File => out.put_u8(0),
            Content::Range { container, offset } => {
                out.put_u8(1);
                out.put_u32(*container);
                out.put_u64(*offset);
            }
            Content::Inline(bytes) => {
                out.put_u8(2);
                out.put_bytes32(bytes);
            }
            Content::Link(target) => {
                out.put_u8(3);
                out.put_bytes32(target);
            }
            Content::Directory => out.put_u8(4),
        }
        let len = (out.len() - start - 4) as u32;
        out[start..start + 4].copy_from_slice(&len.to_le_bytes());
    }
}

/// What a record is sorted by: rank, key, path. `record` is without its length.
fn sort_key(record: &[u8]) -> (&[u8], &[u8], &[u8]) {
    let number = |at: usize| usize::from(u16::from_le_bytes([record[at], record[at + 1]]));
    let (key_len, path_len) = (number(8), number(10));
    let path = &record[12..12 + path_len];
    (&record[..8], &path[..key_len], path)
}

/// Compares two records, without their lengths, made by one [`Order`]: equal are those of one path.
pub fn compare(a: &[u8], b: &[u8]) -> Ordering {
    sort_key(a).cmp(&sort_key(b))
}

/// The same, so that of one path directories come last, the newest of them first, and the order depends on nothing but the records.
pub fn compare_all(a: &[u8], b: &[u8]) -> Ordering {
    compare(a, b).then_with(|| {
        let (x, y) = (tail(a), tail(b));
        let is_directory = |tail: &[u8]| tail[CONTENT_AT] == 4;
        is_directory(x).cmp(&is_directory(y)).then(mtime(y).cmp(&mtime(x))).then(a.cmp(b))
    })
}

/// What follows the path: content at `CONTENT_AT`.
fn tail(record: &[u8]) -> &[u8] {
    &record[12 + usize::from(u16::from_le_bytes([record[10], record[11]]))..]
}

const CONTENT_AT: usize = 8 + 8 + 4 + 2 + 4 + 4;

fn mtime(tail: &[u8]) -> i64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&tail[8..16]);
    i64::from_le_bytes(bytes)
}

/// The sample's key and the entry of a record without its length.
pub fn decode(record: &[u8]) -> Result<(Vec<u8>, Entry)> {
    let mut r = Reader::new(record, "the plan");
    r.take(8)?;
    let key_len = usize::from(r.u16()?);
    let path_len = usize::from(r.u16()?);
    let path = r.take(path_len)?.to_vec();
    let (length, mtime, mtime_nanos) = (r.u64()?, r.i64()?, r.u32()?);
    let (mode, uid, gid) = (r.u16()?, r.u32()?, r.u32()?);
    let content = match r.u8()? {
        0 => Content::File,
        1 => Content::Range { container: r.u32()?, offset: r.u64()? },
        4 => Content::Directory,
        code => {
            let len = r.u32()? as usize;
            let bytes = r.take(len)?.to_vec();
            if code == 2 { Content::Inline(bytes) } else { Content::Link(bytes) }
        }
    };
    let key =
        path.get(..key_len).ok_or_else(|| Error::new(Kind::Bug, "a key is longer than its path"))?.to_vec();
    Ok((key, Entry { path, length, mtime, mtime_nanos, mode, uid, gid, content }))
}

#[cfg(test)]
pub mod tests {
    use proptest::prelude::*;

    use super::*;

    pub fn file(path: &str, length: u64) -> Entry {
        Entry {
            path: path.into(),
            length,
            mtime: 1_700_000_000,
            mtime_nanos: 5,
            mode: 0o644,
            uid: 1000,
            gid: 100,
            content: Content::File,
        }
    }

    fn sorted(order: Order, paths: &[&str]) -> Vec<String> {
        let mut records: Vec<Vec<u8>> = paths
            .iter()
            .map(|path| {
                let mut out = Vec::new();
                order.encode(&file(path, 1), &mut out);
                out.split_off(4)
            })
            .collect();
        records.sort_by(|a, b| compare(a, b));
        records.iter().map(|r| String::from_utf8(decode(r).unwrap().1.path).unwrap()).collect()
    }

    #[test]
    fn a_sample_stays_together_whatever_else_is_called_similarly() {
        let plain = Order { grouping: Grouping::Stem, seed: None };
        let paths = ["a/b.jpg", "a/b.d/c.txt", "a/b.cls", "a/b-1.jpg", "a/b-1.cls", "a/bb.jpg", "a/b.json"];
        let got = sorted(plain, &paths);
        assert_eq!(
            got,
            ["a/b.cls", "a/b.jpg", "a/b.json", "a/b-1.cls", "a/b-1.jpg", "a/b.d/c.txt", "a/bb.jpg"]
        );
        let shuffled = sorted(Order { seed: Some(1), ..plain }, &paths);
        assert_ne!(shuffled, got);
        let at = shuffled.iter().position(|p| p == "a/b.cls").unwrap();
        assert_eq!(shuffled[at..at + 3], ["a/b.cls", "a/b.jpg", "a/b.json"]);
        assert_eq!(shuffled, sorted(Order { seed: Some(1), ..plain }, &paths));
        assert_ne!(shuffled, sorted(Order { seed: Some(2), ..plain }, &paths));
    }

    #[test]
    fn a_directory_comes_before_what_is_in_it_and_never_within_a_sample() {
        let directory = |path: &str, mtime| Entry { content: Content::Directory, mtime, ..file(path, 0) };
        let all = [
            file("a.d/b.jpg", 1),
            file("a.jpg", 1),
            directory("a.d", 5),
            file("a.cls", 1),
            directory("a", 7),
            directory("a", 9),
            file("a", 1),
            file("a/b.jpg", 1),
        ];
        for grouping in [Grouping::Stem, Grouping::Directory] {
            let order = Order { grouping, seed: None };
            let mut records: Vec<Vec<u8>> = all
                .iter()
                .map(|entry| {
                    let mut out = Vec::new();
                    order.encode(entry, &mut out);
                    out.split_off(4)
                })
                .collect();
            records.sort_by(|a, b| compare_all(a, b));
            let got: Vec<Entry> = records.iter().map(|r| decode(r).unwrap().1).collect();
            let at = |path: &str, mtime: i64, is_directory: bool| {
                let found = got.iter().position(|e| {
                    (&e.path[..], e.is_directory()) == (path.as_bytes(), is_directory)
                        && (!is_directory || e.mtime == mtime)
                });
                found.unwrap()
            };
            assert!(at("a", 0, false) < at("a", 9, true), "a file of the name is the first");
            assert!(at("a", 9, true) < at("a", 7, true), "the newest is the first");
            assert!(at("a", 7, true) < at("a/b.jpg", 0, false));
            assert!(at("a.d", 5, true) < at("a.d/b.jpg", 0, false));
            let [cls, jpg] = [at("a.cls", 0, false), at("a.jpg", 0, false)];
            assert_eq!(cls + 1, jpg, "{grouping:?}: {got:?}");
        }
    }

    proptest! {
        #[test]
        fn round_trip(
            path in proptest::collection::vec(1u8..=255, 1..300),
            numbers: (u64, i64, u32, u16, u32, u32),
            bytes: Vec<u8>,
            kind in 0..5,
            place: (u32, u64),
            seed: Option<u64>,
        ) {
            let content = match kind {
                0 => Content::File,
                1 => Content::Range { container: place.0, offset: place.1 },
                2 => Content::Inline(bytes),
                3 => Content::Link(bytes),
                _ => Content::Directory,
            };
            let (length, mtime, mtime_nanos, mode, uid, gid) = numbers;
            let entry = Entry { path, length, mtime, mtime_nanos, mode, uid, gid, content };
            let order = Order { grouping: Grouping::Stem, seed };
            let mut out = Vec::new();
            order.encode(&entry, &mut out);
            prop_assert_eq!(out.len() - 4, u32::from_le_bytes(out[..4].try_into().unwrap()) as usize);
            let (key, got) = decode(&out[4..]).unwrap();
            prop_assert_eq!(&key[..], entry.key(Grouping::Stem));
            prop_assert_eq!(got, entry);
        }
    }
}
