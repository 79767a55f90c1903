//! Shards for tests, in memory.

use std::path::Path;

use bytes::Bytes;
use granary_core::Timestamp;
use granary_packer::index::Index;
use granary_packer::key::Grouping;
use granary_packer::manifest::{Manifest, Runs, Shard};
use granary_packer::shard::{Identity, Writer};
use granary_packer::tar::Entry;

use crate::order::{self, Order};
use crate::tree::{Owner, Tree};

pub const DATA_SET: [u8; 16] = [5; 16];

/// A member of a tar.
#[derive(Clone, Debug)]
pub struct Member {
    pub path: Vec<u8>,
    pub kind: u8,
    pub target: Vec<u8>,
    pub payload: Vec<u8>,
    pub mode: u32,
}

pub fn file(path: &str, payload: &[u8]) -> Member {
    Member { path: path.into(), kind: b'0', target: Vec::new(), payload: payload.to_vec(), mode: 0o640 }
}

pub fn other(path: &str, kind: u8, target: &str) -> Member {
    Member { path: path.into(), kind, target: target.into(), payload: Vec::new(), mode: 0o750 }
}

/// A shard as it is stored.
pub struct Made {
    pub tar: Bytes,
    pub index: Bytes,
    pub shard: Shard,
}

pub fn shard(number: u32, members: &[Member]) -> Made {
    let mut writer = Writer::new(Vec::new(), Grouping::Stem, &std::env::temp_dir());
    for (n, m) in members.iter().enumerate() {
        let entry = Entry {
            path: &m.path,
            target: &m.target,
            kind: m.kind,
            size: m.payload.len() as u64,
            mode: m.mode,
            mtime: 1000 + n as i64,
            uid: 7,
            gid: 8,
        };
        match m.kind {
            b'0' => drop(writer.file(&entry, &m.payload).unwrap()),
            _ => writer.other(&entry).unwrap(),
        }
    }
    let path = format!("shards/{number:06}.tar");
    let done = writer.finish(Identity { data_set: DATA_SET, number, name: path.clone() }).unwrap();
    let index = done.index.to_bytes().unwrap();
    let shard = Shard {
        path,
        bytes: done.bytes,
        files: done.trailer.files,
        samples: done.trailer.samples,
        index_bytes: index.len() as u64,
        index_crc32c: done.index.crc32c(),
        dead_samples: Runs::default(),
        dead_files: Runs::default(),
    };
    Made { tar: done.out.into(), index, shard }
}

pub fn manifest(version: u64, shards: Vec<Shard>) -> Manifest {
    Manifest::new(version, DATA_SET, Grouping::Stem, "test", shards).unwrap()
}

pub fn owner() -> Owner {
    Owner { uid: 1, gid: 2, mode: 0o750, time: Timestamp { secs: 99, nanos: 0 } }
}

/// The tree of shards whose dead files are these.
pub fn tree_of(dir: &Path, shards: &[(Index, Runs)]) -> Tree {
    let of = order::Identity { data_set: DATA_SET, version: 1, digest: 2 };
    let path = dir.join("order");
    let all = shards.iter().map(|(index, dead_files)| order::Shard { index, dead_files });
    order::make(&path, of, all, &Default::default()).unwrap();
    let indexes = shards.iter().map(|(index, _)| index.clone()).collect();
    Tree::new(Order::open(&path, &of).unwrap(), indexes, owner()).unwrap()
}

pub fn tree(dir: &Path, shards: &[&[Member]]) -> Tree {
    let open = |members: &&[Member]| (Index::from_bytes(shard(0, members).index).unwrap(), Runs::default());
    tree_of(dir, &shards.iter().map(open).collect::<Vec<_>>())
}
