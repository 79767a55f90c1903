//! Importing containers: tars, TFRecord files, MosaicML shards, and what is wrong with some of them.

#![allow(clippy::unwrap_used)] // helpers of tests

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use granary_core::{Kind, Result, SystemClock};
use granary_packer::dataset::DataSet;
use granary_packer::from::Skipped;
use granary_packer::from::containers::{Containers, Format};
use granary_packer::pack::progress::Progress;
use granary_packer::pack::{MEMORY_BYTES_MIN, Mode, Options, Report, pack};
use granary_packer::place::{self, Place};
use granary_packer::tar;
use tempfile::TempDir;
use tokio::runtime::Runtime;

struct World {
    dir: TempDir,
    runtime: Runtime,
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("src")).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        World { dir, runtime }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn pack(&self, from: &str, format: Format, to: &str, skipped: &Skipped) -> Result<Report> {
        let from = self.path(from);
        let options = place::Options::default();
        let source = Containers::open(
            from.to_str().unwrap(),
            format,
            &options,
            Arc::new(SystemClock),
            self.runtime.handle(),
        )?;
        let options = place::Options { create: true, ..place::Options::default() };
        let place = Place::open(self.path(to).to_str().unwrap(), &options, Arc::new(SystemClock)).unwrap();
        let options = Options {
            shard_bytes: 200_000,
            grouping: None,
            seed: None,
            threads: 3,
            memory_bytes: MEMORY_BYTES_MIN,
            work_dir: self.dir.path().to_owned(),
            mode: Mode::New,
            verify: true,
            delete_source: false,
        };
        pack(&source, &place, &options, self.runtime.handle(), skipped, &Progress::default())
    }

    fn strict(&self, from: &str, format: Format, to: &str) -> Result<Report> {
        self.pack(from, format, to, &Skipped::new(false))
    }

    fn files(&self, name: &str) -> BTreeMap<String, Vec<u8>> {
        let place =
            Place::open(self.path(name).to_str().unwrap(), &place::Options::default(), Arc::new(SystemClock))
                .unwrap();
        let data = self.runtime.block_on(DataSet::open(place, None)).unwrap();
        let mut all = BTreeMap::new();
        for (number, shard) in data.manifest().shards().iter().enumerate() {
            let index = self.runtime.block_on(data.index(number as u32)).unwrap();
            let tar = fs::read(data.place().local_path(&shard.path).unwrap()).unwrap();
            for n in 0..index.file_count() {
                let file = index.file(n).unwrap();
                let bytes = tar[file.offset as usize..][..file.length as usize].to_vec();
                all.insert(String::from_utf8(file.path.to_vec()).unwrap(), bytes);
            }
        }
        all
    }
}

fn member(path: &str, kind: u8, target: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let entry = tar::Entry {
        path: path.as_bytes(),
        target: target.as_bytes(),
        kind,
        size: payload.len() as u64,
        mode: 0o640,
        mtime: 1_700_000_000,
        uid: 5,
        gid: 6,
    };
    tar::encode(&entry, &mut out).unwrap();
    out.extend_from_slice(payload);
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

fn large() -> Vec<u8> {
    (0..3_000_000u32).map(|n| (n / 7) as u8).collect()
}

#[test]
fn tars_are_packed_anew_in_order() {
    let w = World::new();
    let long = format!("{}/x.txt", "long".repeat(60));
    let a = [
        member("b/2.jpg", b'0', "", b"two"),
        member("b", b'5', "", b""),
        member("b/link", b'2', "2.jpg", b""),
        member("large.bin", b'0', "", &large()),
        tar::END.to_vec(),
    ];
    fs::write(w.path("src/a.tar"), a.concat()).unwrap();
    let b = [member("./b/1.jpg", b'0', "", b"one"), member(&long, b'0', "", b"x"), tar::END.to_vec()];
    fs::create_dir(w.path("src/more")).unwrap();
    fs::write(w.path("src/more/b.tar"), b.concat()).unwrap();
    let report = w.strict("src", Format::Tar, "dst").unwrap();
    assert_eq!((report.files, report.links, report.verified), (4, 1, true));
    let files = w.files("dst");
    assert!(files["large.bin"] == large());
    let rest: Vec<_> =
        files.iter().filter(|(name, _)| *name != "large.bin").map(|(n, b)| (n.as_str(), &b[..])).collect();
    assert_eq!(rest, [("b/1.jpg", &b"one"[..]), ("b/2.jpg", b"two"), (&long, b"x")]);
}

#[test]
fn what_is_wrong_with_a_tar_is_told_with_tar_and_offset() {
    let w = World::new();
    let good = [member("a", b'0', "", b"1"), member("hard", b'1', "a", b""), tar::END.to_vec()].concat();
    fs::write(w.path("src/hard.tar"), &good).unwrap();
    let mut cut = [member("b", b'0', "", b"2"), member("c", b'0', "", &[7; 2_000])].concat();
    cut.truncate(cut.len() - 600);
    fs::write(w.path("src/cut.tar"), cut).unwrap();
    fs::write(w.path("src/gz.tar"), b"\x1f\x8b\x08 and so on").unwrap();
    let twice = [member("a", b'0', "", b"3"), tar::END.to_vec()].concat();
    for (name, why) in [
        ("hard.tar", "at byte 1024 is a hard link"),
        ("cut.tar", "at byte 1024: it is cut"),
        ("gz.tar", "gzip"),
    ] {
        let e = w.strict(&format!("src/{name}"), Format::Tar, "strict").unwrap_err();
        assert!(e.to_string().contains(why), "{name}: {e}");
    }
    let skipped = Skipped::new(true);
    let report = w.pack("src", Format::Tar, "dst", &skipped).unwrap();
    assert_eq!(report.skipped, 3);
    // Of the tar that is cut, what is whole is packed; the last file's bytes are not.
    let files = w.files("dst");
    assert_eq!(files.keys().collect::<Vec<_>>(), ["a", "b"], "{:?}", skipped.first());
    fs::write(w.path("src/twice.tar"), twice).unwrap();
    let e = w.pack("src", Format::Tar, "again", &Skipped::new(true)).unwrap_err();
    assert!(e.kind() == Kind::Exists && e.to_string().contains("\"a\" comes twice"), "{e}");
}

fn masked(bytes: &[u8]) -> [u8; 4] {
    granary_core::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

fn record(bytes: &[u8]) -> Vec<u8> {
    let len = (bytes.len() as u64).to_le_bytes();
    [&len[..], &masked(&len), bytes, &masked(bytes)].concat()
}

fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let (mut out, mut len) = (vec![number << 3 | 2], bytes.len());
    while len >= 0x80 {
        out.push(len as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
    [out, bytes.to_vec()].concat()
}

fn example(features: &[(&str, u8, Vec<u8>)]) -> Vec<u8> {
    let of = |(name, kind, list): &(&str, u8, Vec<u8>)| {
        field(1, &[field(1, name.as_bytes()), field(2, &field(*kind, list))].concat())
    };
    field(1, &features.iter().flat_map(of).collect::<Vec<_>>())
}

#[test]
fn records_of_tensorflow_become_samples() {
    let w = World::new();
    let image = [b"\xff\xd8\xff".as_slice(), &[9; 5_000]].concat();
    let one = example(&[("image/encoded", 1, field(1, &image)), ("label", 3, field(1, &[7]))]);
    let two = example(&[
        ("image/encoded", 1, field(1, b"\x89PNG\r\n\x1a\n")),
        ("label", 3, field(1, &[1, 2])),
        ("texts", 1, [field(1, b"first"), field(1, b"\x00second")].concat()),
    ]);
    fs::write(w.path("src/train.tfrecord"), [record(&one), record(&two)].concat()).unwrap();
    fs::write(w.path("src/notes.txt"), "not one").unwrap();
    let report = w.strict("src", Format::TfRecord, "dst").unwrap();
    assert_eq!((report.files, report.samples), (6, 2));
    let files = w.files("dst");
    let names: Vec<_> = files.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "train/00000000.image_encoded.jpg",
            "train/00000000.label.json",
            "train/00000001.image_encoded.png",
            "train/00000001.label.json",
            "train/00000001.texts.0.txt",
            "train/00000001.texts.1.bin",
        ]
    );
    assert!(files["train/00000000.image_encoded.jpg"] == image);
    assert_eq!(files["train/00000000.label.json"], b"7");
    assert_eq!(files["train/00000001.label.json"], b"[1,2]");

    let report = w.strict("src", Format::TfRecordRaw, "raw").unwrap();
    assert_eq!(report.files, 2);
    assert!(w.files("raw")["train/00000001.bin"] == two);
}

#[test]
fn damaged_records_are_told_with_their_offsets() {
    let w = World::new();
    let good = record(&example(&[("a", 3, field(1, &[1]))]));
    let mut damaged = good.clone();
    damaged[14] ^= 1;
    let all = [good.clone(), damaged, record(b"no example"), good.clone(), good[..7].to_vec()].concat();
    fs::write(w.path("src/x.tfrecord"), all).unwrap();
    let e = w.strict("src", Format::TfRecord, "strict").unwrap_err();
    assert!(
        e.kind() == Kind::Corrupt && e.to_string().contains(&format!("record 1 at byte {}", good.len())),
        "{e}"
    );
    let skipped = Skipped::new(true);
    let report = w.pack("src", Format::TfRecord, "dst", &skipped).unwrap();
    assert_eq!((report.files, report.skipped), (2, 3), "{:?}", skipped.first());
    assert_eq!(w.files("dst").into_keys().collect::<Vec<_>>(), ["x/00000000.a.json", "x/00000003.a.json"]);
    fs::write(w.path("src/y.tfrecord"), b"what is this file at all").unwrap();
    let e = w.strict("src/y.tfrecord", Format::TfRecord, "strict").unwrap_err();
    assert!(e.to_string().contains("is this a TFRecord file?"), "{e}");
}

fn mds_shard(samples: &[(&[u8], i64)]) -> Vec<u8> {
    let bodies: Vec<Vec<u8>> = samples
        .iter()
        .map(|(image, label)| [&(image.len() as u32).to_le_bytes()[..], image, &label.to_le_bytes()].concat())
        .collect();
    let config = b"{\"version\": 2, \"format\": \"mds\"}";
    let mut at = 4 + 4 * (samples.len() + 1) + config.len();
    let mut out = (samples.len() as u32).to_le_bytes().to_vec();
    for body in &bodies {
        out.extend_from_slice(&(at as u32).to_le_bytes());
        at += body.len();
    }
    out.extend_from_slice(&(at as u32).to_le_bytes());
    out.extend_from_slice(config);
    out.extend(bodies.concat());
    out
}

#[test]
fn mosaicml_shards_become_samples() {
    let w = World::new();
    let shards = [mds_shard(&[(b"jpeg 0", 5), (b"", -1)]), mds_shard(&[(b"jpeg 2", i64::MIN)])];
    let line = |n: usize, samples: usize| {
        format!(
            r#"{{"column_encodings":["jpeg","int"],"column_names":["image","label"],"column_sizes":[null,8],"compression":null,
            "format":"mds","hashes":[],"raw_data":{{"basename":"shard.{n:05}.mds","bytes":{},"hashes":{{}}}},"samples":{samples},
            "size_limit":67108864,"version":2,"zip_data":null}}"#,
            shards[n].len()
        )
    };
    fs::write(
        w.path("src/index.json"),
        format!(r#"{{"shards":[{},{}],"version":2}}"#, line(0, 2), line(1, 1)),
    )
    .unwrap();
    for (n, shard) in shards.iter().enumerate() {
        fs::write(w.path(&format!("src/shard.{n:05}.mds")), shard).unwrap();
    }
    let report = w.strict("src", Format::Mds, "dst").unwrap();
    assert_eq!((report.files, report.samples), (6, 3));
    let files = w.files("dst");
    assert_eq!(files["0000000000.image.jpeg"], b"jpeg 0");
    assert_eq!(files["0000000000.label.txt"], b"5");
    assert_eq!(files["0000000001.image.jpeg"], b"");
    assert_eq!(files["0000000002.label.txt"], i64::MIN.to_string().as_bytes());

    let mut damaged = shards[1].clone();
    let at = damaged.len() - 18;
    damaged[at] ^= 1;
    fs::write(w.path("src/shard.00001.mds"), damaged).unwrap();
    let e = w.strict("src", Format::Mds, "strict").unwrap_err();
    assert!(e.kind() == Kind::Corrupt && e.to_string().contains("sample 0 at byte"), "{e}");
    fs::remove_file(w.path("src/shard.00001.mds")).unwrap();
    let e = w.strict("src", Format::Mds, "strict").unwrap_err();
    assert!(e.kind() == Kind::NotFound && e.to_string().contains("decompress"), "{e}");
}

#[test]
fn a_folder_without_containers_is_told_so() {
    let w = World::new();
    for format in [Format::Tar, Format::TfRecord, Format::Mds] {
        let e = w.strict("src", format, "dst").unwrap_err();
        assert!(e.kind() == Kind::NotFound && e.to_string().contains("are looked for"), "{e}");
    }
}
