//! A cheap run of every target: bytes made by chance, and good ones that were damaged.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use granary_core::{Ino, NamespaceId, ObjectId};
use granary_packer::key::Grouping;
use granary_packer::manifest::{Manifest, Runs, Shard};
use granary_packer::shard::{Identity, Writer};
use granary_packer::tar::Entry;
use granary_store::format::{BlockBuilder, BlockInfo, Codec, NewEntry, PackBuilder, TRAILER_BYTES};
use granary_tests::seed;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{TARGETS, Target};

const ROUNDS: usize = 3000;
const BYTES_MAX: usize = 4096;

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// Bytes in which parsers get further than in noise: most of them are small numbers, and some stretches are one byte.
fn made(rng: &mut StdRng) -> Vec<u8> {
    let most = if rng.random_bool(0.5) { 64 } else { BYTES_MAX };
    let length = rng.random_range(0..most);
    let mut out = Vec::with_capacity(length);
    while out.len() < length {
        match rng.random_range(0..8) {
            0 => out.extend(std::iter::repeat_n(rng.random::<u8>(), rng.random_range(1..100))),
            1 => out.push(rng.random_range(b' '..=b'~')),
            2 => out.extend(rng.random_range(0..300_u32).to_le_bytes()),
            3 => out.extend([0xff; 4]),
            4 => out.push(rng.random()),
            _ => out.push(rng.random_range(0..16)),
        }
    }
    out.truncate(length);
    out
}

/// Some bytes of it are others, are gone, or are there twice.
fn damaged(rng: &mut StdRng, good: &[u8]) -> Vec<u8> {
    let mut out = good.to_vec();
    for _ in 0..rng.random_range(0..4) {
        if out.is_empty() {
            break;
        }
        // Half of them in the head, which says most.
        let within = if rng.random_bool(0.5) { out.len().min(200) } else { out.len() };
        let at = rng.random_range(0..within);
        match rng.random_range(0..5) {
            0 => out[at] ^= 1 << rng.random_range(0..8),
            1 => out[at] = rng.random(),
            2 => out.truncate(at),
            3 => {
                let end = (at + rng.random_range(1..40)).min(out.len());
                out.drain(at..end);
            }
            _ => {
                let end = (at + rng.random_range(1..40)).min(out.len());
                let again = out[at..end].to_vec();
                out.splice(at..at, again);
            }
        }
    }
    out
}

/// A shard of some files: its tar and its index.
fn shard() -> (Vec<u8>, Vec<u8>) {
    let mut writer = Writer::new(Vec::new(), Grouping::Stem, &std::env::temp_dir());
    let long = "a-long-name/".repeat(12) + "x.bin";
    for (path, bytes) in [("a/1.txt", &b"one"[..]), ("a/1.cls", b"7"), ("b/2.txt", b""), (&long, &[9; 700])] {
        let (path, size) = (path.as_bytes(), bytes.len() as u64);
        let entry =
            Entry { path, target: b"", kind: b'0', size, mode: 0o644, mtime: 5, uid: 1000, gid: 1000 };
        writer.file(&entry, bytes).unwrap();
    }
    let identity = Identity { data_set: [7; 16], number: 0, name: "shards/0.tar".to_owned() };
    let finished = writer.finish(identity).unwrap();
    (finished.out, finished.index.to_bytes().unwrap().to_vec())
}

/// As the target has it: without what it makes itself, the header's last eight bytes and the sums.
fn index() -> Vec<u8> {
    let (_, index) = shard();
    let sums = (index.len() - 64).div_ceil((64 << 10) + 4) * 4;
    [&index[..56], &index[64..index.len() - sums]].concat()
}

fn manifest() -> Vec<u8> {
    let shard = |number: u32| Shard {
        path: format!("shards/{number:06}.tar"),
        bytes: 10_000,
        files: 20,
        samples: 10,
        index_bytes: 1000,
        index_crc32c: number,
        dead_samples: Runs::default(),
        dead_files: Runs::default(),
    };
    let manifest = Manifest::new(3, [1; 16], Grouping::Stem, "test", (0..3).map(shard).collect()).unwrap();
    let lines = manifest.encode().unwrap();
    // Its last line is the checksum.
    let end = lines[..lines.len() - 1].iter().rposition(|&byte| byte == b'\n').unwrap();
    lines[..end].to_vec()
}

fn objects() -> Vec<(Vec<u8>, usize)> {
    let info = BlockInfo { ino: Ino(9), file_offset: 1 << 20, version: 3 };
    let mut block = BlockBuilder::new(NamespaceId(1), ObjectId(2), info);
    block.push(Bytes::from(vec![5; 100_000])).unwrap();
    let mut pack = PackBuilder::new(NamespaceId(1), ObjectId(3));
    for number in 0..5_u8 {
        let bytes = vec![number; 300 + usize::from(number)];
        let crc = granary_core::crc32c(&bytes);
        let name = format!("file-{number}").into_bytes();
        let entry = NewEntry { ino: Ino(20 + u64::from(number)), parent: Ino(1), file_offset: 0, crc, name };
        pack.push(entry, vec![bytes.into()]).unwrap();
    }
    let packed = pack.seal().unwrap();
    [block.seal_with(Codec::Lz4).unwrap(), packed]
        .into_iter()
        .map(|sealed| (sealed.parts().concat(), sealed.footer.len()))
        .collect()
}

/// A page with a few keys and values as LMDB lays it out: a head of 16 bytes, offsets from the front, nodes from the back.
fn lmdb_page() -> Vec<u8> {
    let mut page = vec![0; 4096];
    page[10..12].copy_from_slice(&2_u16.to_le_bytes());
    let mut upper = page.len();
    for number in 0..3_u8 {
        let node = [&4_u16.to_le_bytes()[..], &[0; 4], &3_u16.to_le_bytes(), b"key", &[number; 5]].concat();
        upper -= node.len();
        page[upper..upper + node.len()].copy_from_slice(&node);
        let at = 16 + 2 * usize::from(number);
        page[at..at + 2].copy_from_slice(&(upper as u16).to_le_bytes());
    }
    page[12..14].copy_from_slice(&22_u16.to_le_bytes());
    page[14..16].copy_from_slice(&(upper as u16).to_le_bytes());
    page
}

fn media() -> Vec<Vec<u8>> {
    let files = std::fs::read_dir(here("loader/tests/media")).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension != "py"));
    files.map(|path| std::fs::read(path).unwrap()).collect()
}

/// A request of each operation, with bytes that are nearly all 0.
fn requests(head: usize) -> Vec<Vec<u8>> {
    let request = |operation: u32| {
        let mut out = vec![0; head + 100];
        out[..4].copy_from_slice(&(140_u32).to_ne_bytes());
        out[4..8].copy_from_slice(&operation.to_ne_bytes());
        out[16] = 1;
        out[head..head + 4].copy_from_slice(b"name");
        out
    };
    (1..60).map(request).collect()
}

/// What the target accepts, or nearly.
fn good(target: &str) -> Vec<Vec<u8>> {
    match target {
        "fuse_request" => requests(40),
        "fuse_ring" => requests(granary_fuse::proto::ring::HEADER_BYTES),
        "loader_decode" => media(),
        "packer_index" => vec![index()],
        "packer_lmdb" => vec![lmdb_page()],
        "packer_manifest" => vec![manifest()],
        "packer_tar" => vec![shard().0],
        "store_object" => objects().into_iter().map(|(object, _)| object).collect(),
        "store_footer" => {
            let choice = |object: &[u8], footer: usize, kind: u32| {
                let stored = (object.len() - footer) as u32;
                (stored << 8 | kind).to_le_bytes().to_vec()
            };
            let footer = |((object, footer), kind): ((Vec<u8>, usize), u32)| {
                let start = object.len() - footer;
                [choice(&object, footer, kind), object[start..object.len() - TRAILER_BYTES].to_vec()].concat()
            };
            objects().into_iter().zip([1, 0]).map(footer).collect()
        }
        _ => Vec::new(),
    }
}

fn run(name: &str) {
    let (_, target): Target = TARGETS.into_iter().find(|(known, _)| *known == name).unwrap();
    let good = good(name);
    good.iter().for_each(|bytes| target(bytes));
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    for round in 0..ROUNDS {
        let bytes = match good.len() {
            0 => made(&mut rng),
            count if round % 3 > 0 => damaged(&mut rng, &good[round % count]),
            _ => made(&mut rng),
        };
        if let Err(why) = std::panic::catch_unwind(|| target(&bytes)) {
            println!("{name}, round {round}: {}", bytes.escape_ascii());
            std::panic::resume_unwind(why);
        }
    }
}

macro_rules! each {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            run(stringify!($name));
        })*

        const TESTED: &[&str] = &[$(stringify!($name)),*];
    };
}

each! {
    cache_sums fuse_request fuse_ring loader_decode meta_backup meta_record meta_wire packer_index packer_lmdb packer_manifest packer_tar
    stage_log store_footer store_object
}

#[test]
fn good_files_are_accepted() {
    let (tar, index) = shard();
    assert!(granary_packer::index::Index::from_bytes(index.into()).unwrap().verify().is_ok());
    assert!(granary_packer::trailer::Trailer::parse_end(&tar, tar.len() as u64).unwrap().is_some());
    for (object, _) in objects() {
        granary_store::format::decode_object(&object.into()).unwrap();
    }
    let mut page = lmdb_page();
    page[..8].copy_from_slice(&7_u64.to_le_bytes());
    let parsed = granary_packer::from::lmdb::page::parse(&page, 7).unwrap();
    assert!(matches!(parsed, granary_packer::from::lmdb::page::Page::Leaf(nodes) if nodes.len() == 3));
    let lines = [manifest(), b"\n".to_vec()].concat();
    let lines = format!(
        "{}{{\"crc32c\":\"{:08x}\"}}\n",
        String::from_utf8_lossy(&lines),
        granary_core::crc32c(&lines)
    );
    assert!(Manifest::decode(lines.as_bytes()).is_ok());
}

#[test]
fn every_function_has_a_target_and_a_test() {
    let known: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(known, TESTED.iter().map(|&name| name.to_owned()).collect());
    let files = std::fs::read_dir(here("fuzz/fuzz_targets")).unwrap().map(|entry| entry.unwrap().path());
    let files = files.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned());
    assert_eq!(known, files.collect());
    let manifest = std::fs::read_to_string(here("fuzz/Cargo.toml")).unwrap();
    for name in &known {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
    }
}
