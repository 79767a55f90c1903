//! `granary pack --from` of containers in a folder and in a bucket, and the indexes of other programs that it puts beside shards.

#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use common::World;
use common::s3::S3;
use granary_packer::tar;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::Value;

/// 2026-01-01, which the bucket says of all its objects: a container's time is that of its files.
const TIME_S: u64 = 1_767_225_600;

fn json(out: &str) -> Value {
    serde_json::from_str(out).unwrap_or_else(|e| panic!("{e}: {out}"))
}

fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(UNIX_EPOCH + Duration::from_secs(TIME_S)).unwrap();
}

/// What a data set in a folder is, indexes of other programs too.
fn data_set(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for sub in ["manifests", "shards"] {
        for entry in fs::read_dir(root.join(sub)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            all.insert(format!("{sub}/{name}"), fs::read(&path).unwrap());
        }
    }
    all
}

// Indexes of other programs, worked out by hand from the tar's layout: 512 bytes of header before each file, and room to a multiple
// of 512 behind it.
//
// |    at | what                                   |
// |-------|----------------------------------------|
// |     0 | header of README, 5 bytes at 512       |
// |  1024 | header of the directory a              |
// |  1536 | header of a/1.cls, 1 byte at 2048      |
// |  2560 | header of a/1.seg.png, 700 bytes at 3072 |
// |  4096 | header of a/2.cls, 2 bytes at 4608     |
// |  5120 | the end                                |
const DALI: &str = "v1.2 2\ncls 2048 1 a/1.cls seg.png 3072 700 a/1.seg.png\ncls 4608 2 a/2.cls\n";
const ENERGON: [u64; 3] = [1536, 4096, 5120];

#[test]
fn indexes_of_other_programs_are_as_their_formats_say() {
    let bucket = S3::start();
    let w = World::empty().with_bucket(&bucket);
    for (name, bytes) in
        [("README", &b"read!"[..]), ("a/1.cls", b"7"), ("a/1.seg.png", &[3; 700]), ("a/2.cls", b"42")]
    {
        write(&w.path("src").join(name), bytes);
    }
    let (src, dst) = (w.path("src"), w.path("dst"));
    let (src, dst) = (src.to_str().unwrap(), dst.to_str().unwrap());
    let told = json(&w.run(&["pack", "--energon", "--dali", "--json", src, dst]).unwrap_ok());
    assert_eq!((told["energon"].as_u64(), told["dali"].as_u64()), (Some(1), Some(1)), "{told}");
    let made = data_set(&w.path("dst"));
    let tar = &made["shards/v1-000000.tar"];
    let energon: Vec<u8> = ENERGON.iter().flat_map(|at| at.to_le_bytes()).collect();
    assert_eq!(made["shards/v1-000000.tar.idx"], energon);
    assert_eq!(String::from_utf8(made["shards/v1-000000.idx"].clone()).unwrap(), DALI);
    // The numbers are true of the tar: a header's first bytes are its path, files are where DALI will look.
    for (at, name) in [(1536, &b"a/1.cls\0"[..]), (4096, b"a/2.cls\0")] {
        assert_eq!(&tar[at..at + name.len()], name);
    }
    assert_eq!((tar[2048], &tar[3072..3772], &tar[4608..4610]), (b'7', &[3u8; 700][..], &b"42"[..]));
    assert!(tar[5120..].starts_with(&[0; 1024]), "the end of a tar");
    // For people, into a bucket, and of tars that are there: the same.
    let text = w.run(&["pack", "--energon", "--dali", src, "s3://b/dst"]).unwrap_ok();
    assert!(text.contains("1 indexes of Megatron Energon beside the tars: NAME.tar.idx"), "{text}");
    assert!(text.contains("1 indexes of NVIDIA DALI beside the tars: NAME.idx"), "{text}");
    assert!(bucket.below("b/dst/") == made);
    write(&w.path("tars/train.tar"), tar);
    w.run(&["index", "--energon", "--dali", w.path("tars").to_str().unwrap()]).unwrap_ok();
    assert_eq!(fs::read(w.path("tars/train.tar.idx")).unwrap(), energon);
    assert_eq!(fs::read(w.path("tars/train.idx")).unwrap(), DALI.as_bytes());
}

#[test]
fn a_path_that_dali_cannot_say_fails_after_the_version_is_made() {
    let w = World::empty();
    write(&w.path("src/with space.jpg"), b"x");
    let (src, dst) = (w.path("src"), w.path("dst"));
    let line = ["pack", "--dali", src.to_str().unwrap(), dst.to_str().unwrap()];
    w.run(&line).refused(1, &["\"with space.jpg\"", "do without --dali"]);
    assert!(!w.path("dst/shards/v1-000000.idx").exists());
    assert_eq!(w.run(&["ls", dst.to_str().unwrap()]).unwrap_ok(), "with space.jpg\n");
}

fn masked(bytes: &[u8]) -> [u8; 4] {
    granary_core::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

/// A record of a TFRecord file.
fn record(bytes: &[u8]) -> Vec<u8> {
    let len = (bytes.len() as u64).to_le_bytes();
    [&len[..], &masked(&len), bytes, &masked(bytes)].concat()
}

/// A field of a protocol buffer that has bytes; fewer than 16,384.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let len = bytes.len();
    let head = match len {
        0..0x80 => vec![number << 3 | 2, len as u8],
        _ => vec![number << 3 | 2, len as u8 | 0x80, (len >> 7) as u8],
    };
    [&head, bytes].concat()
}

/// A `tf.train.Example` of one feature, a byte string.
fn example(name: &str, value: &[u8]) -> Vec<u8> {
    let feature = field(1, &field(1, value));
    field(1, &field(1, &[field(1, name.as_bytes()), field(2, &feature)].concat()))
}

fn image(n: usize) -> Vec<u8> {
    [&b"\xff\xd8\xff"[..], &vec![n as u8; 100 + n * 37]].concat()
}

fn tfrecords(first: usize) -> Vec<u8> {
    (first..first + 40).flat_map(|n| record(&example("image", &image(n)))).collect()
}

/// A MosaicML shard of one column.
fn mds(first: usize, count: usize) -> Vec<u8> {
    let bodies: Vec<Vec<u8>> = (first..first + count)
        .map(|n| [&(image(n).len() as u32).to_le_bytes()[..], &image(n)].concat())
        .collect();
    let config = b"{\"version\": 2, \"format\": \"mds\"}";
    let mut at = 4 + 4 * (count + 1) + config.len();
    let mut out = (count as u32).to_le_bytes().to_vec();
    for len in bodies.iter().map(Vec::len).chain([0]) {
        out.extend_from_slice(&(at as u32).to_le_bytes());
        at += len;
    }
    out.extend_from_slice(config);
    out.extend(bodies.concat());
    out
}

fn mds_index(shards: &[Vec<u8>]) -> Vec<u8> {
    let lines = (0..).zip(shards).map(|(n, shard): (usize, _)| {
        format!(
            r#"{{"column_encodings":["jpeg"],"column_names":["image"],"column_sizes":[null],"compression":null,"format":"mds",
            "hashes":[],"raw_data":{{"basename":"shard.{n:05}.mds","bytes":{},"hashes":{{}}}},"samples":20,"size_limit":67108864,
            "version":2,"zip_data":null}}"#,
            shard.len()
        )
    });
    format!(r#"{{"shards":[{}],"version":2}}"#, lines.collect::<Vec<_>>().join(",")).into_bytes()
}

/// An LMDB data file of these keys, in order: two meta pages, a leaf, and pages for what does not fit into it.
fn lmdb(pairs: &[(String, Vec<u8>)]) -> Vec<u8> {
    const PAGE: usize = 4096;
    let put = |page: &mut [u8], at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
    let (mut leaf, mut overflow) = (vec![0; PAGE], Vec::new());
    let (mut lower, mut upper) = (16, PAGE);
    for (key, value) in pairs {
        let large = value.len() > 1000;
        let data = match large {
            true => (3 + overflow.len() as u64 / PAGE as u64).to_le_bytes().to_vec(),
            false => value.clone(),
        };
        let len = (8 + key.len() + data.len()).next_multiple_of(2);
        upper -= len;
        put(&mut leaf, lower, &(upper as u16).to_le_bytes());
        lower += 2;
        put(&mut leaf, upper, &(value.len() as u32).to_le_bytes());
        put(&mut leaf, upper + 4, &u16::from(large).to_le_bytes());
        put(&mut leaf, upper + 6, &(key.len() as u16).to_le_bytes());
        put(&mut leaf, upper + 8, key.as_bytes());
        put(&mut leaf, upper + 8 + key.len(), &data);
        if large {
            let pages = (16 + value.len()).div_ceil(PAGE);
            let mut own = vec![0; pages * PAGE];
            put(&mut own, 0, &data);
            put(&mut own, 10, &4u16.to_le_bytes());
            put(&mut own, 12, &(pages as u32).to_le_bytes());
            put(&mut own, 16, value);
            overflow.extend(own);
        }
        assert!(lower <= upper, "one leaf holds them");
    }
    put(&mut leaf, 0, &2u64.to_le_bytes());
    put(&mut leaf, 10, &2u16.to_le_bytes());
    put(&mut leaf, 12, &(lower as u16).to_le_bytes());
    put(&mut leaf, 14, &(upper as u16).to_le_bytes());
    let meta = |number: u64| {
        let mut page = vec![0; PAGE];
        put(&mut page, 0, &number.to_le_bytes());
        put(&mut page, 10, &8u16.to_le_bytes());
        put(&mut page, 16, &0xbeef_c0de_u32.to_le_bytes());
        put(&mut page, 20, &1u32.to_le_bytes());
        put(&mut page, 40, &(PAGE as u32).to_le_bytes());
        put(&mut page, 80, &u64::MAX.to_le_bytes()); // no free pages
        put(&mut page, 94, &1u16.to_le_bytes());
        put(&mut page, 120, &(pairs.len() as u64).to_le_bytes());
        put(&mut page, 128, &2u64.to_le_bytes());
        put(&mut page, 136, &(2 + overflow.len() as u64 / PAGE as u64).to_le_bytes());
        put(&mut page, 144, &number.to_le_bytes());
        page
    };
    [meta(0), meta(1), leaf, overflow].concat()
}

/// A Parquet file with columns `image` and `caption`, in several groups of rows.
fn parquet(rows: usize) -> Vec<u8> {
    let schema = "message rows { required binary image; required binary caption (UTF8); }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = Arc::new(WriterProperties::builder().build());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, properties).unwrap();
    for first in (0..rows).step_by(7) {
        let these = first..rows.min(first + 7);
        let images = these.clone().map(|n| ByteArray::from(image(n))).collect::<Vec<_>>();
        let captions =
            these.map(|n| ByteArray::from(format!("caption {n}").into_bytes())).collect::<Vec<_>>();
        let mut group = writer.next_row_group().unwrap();
        for values in [images, captions] {
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
            column.close().unwrap();
        }
        group.close().unwrap();
    }
    writer.into_inner().unwrap()
}

fn tarred(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (path, bytes) in files {
        let (path, size, mtime) = (path.as_bytes(), bytes.len() as u64, TIME_S as i64);
        let entry = tar::Entry { path, target: b"", kind: b'0', size, mode: 0o644, mtime, uid: 0, gid: 0 };
        tar::encode(&entry, &mut out).unwrap();
        out.extend_from_slice(bytes);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.extend_from_slice(&tar::END);
    out
}

/// One kind of containers: how it is asked for, the containers, one of them by itself, and a file that comes of it.
struct Kind {
    args: &'static [&'static str],
    containers: Vec<(&'static str, Vec<u8>)>,
    /// Its files, and what its name gives them in front.
    single: (&'static str, usize),
    files: usize,
    one: (&'static str, Vec<u8>),
}

fn kinds() -> Vec<Kind> {
    let pairs = |first: usize| {
        (first..first + 10).map(|n| (format!("image-{n:06}"), image(n * 11))).collect::<Vec<_>>()
    };
    let shards = [mds(0, 20), mds(20, 20)];
    let tarred_files =
        |dir: &str| (0..30).map(|n| (format!("{dir}/{n:03}.jpg"), image(n))).collect::<Vec<_>>();
    vec![
        Kind {
            args: &["--from", "tfrecord"],
            containers: vec![("a.tfrecord", tfrecords(0)), ("sub/train-00000-of-00001", tfrecords(40))],
            single: ("a.tfrecord", 40),
            files: 80,
            one: ("a/00000007.image.jpg", image(7)),
        },
        Kind {
            args: &["--from", "tfrecord-raw"],
            containers: vec![("a.tfrecord", tfrecords(0)), ("b.tfrecord", tfrecords(40))],
            single: ("b.tfrecord", 40),
            files: 80,
            one: ("b/00000002.bin", example("image", &image(42))),
        },
        Kind {
            args: &["--from", "mds"],
            containers: vec![
                ("train/index.json", mds_index(&shards)),
                ("train/shard.00000.mds", shards[0].clone()),
                ("train/shard.00001.mds", shards[1].clone()),
            ],
            single: ("train/index.json", 40),
            files: 40,
            one: ("train/0000000023.image.jpeg", image(23)),
        },
        Kind {
            args: &["--from", "lmdb"],
            containers: vec![("train/data.mdb", lmdb(&pairs(0))), ("val.mdb", lmdb(&pairs(10)))],
            single: ("val.mdb", 10),
            files: 20,
            one: ("val/image-000013.jpg", image(143)),
        },
        Kind {
            args: &["--from", "parquet", "--column", "image", "--column", "caption"],
            containers: vec![("a.parquet", parquet(30)), ("more/b.parquet", parquet(3))],
            single: ("a.parquet", 60),
            files: 66,
            one: ("a/00000029.image.jpg", image(29)),
        },
        Kind {
            args: &["--from", "tar"],
            containers: vec![("a.tar", tarred(&tarred_files("a"))), ("x/b.tar", tarred(&tarred_files("b")))],
            single: ("x/b.tar", 30),
            files: 60,
            one: ("b/029.jpg", image(29)),
        },
    ]
}

#[test]
fn containers_in_a_bucket_give_the_bytes_that_they_give_in_a_folder() {
    let bucket = S3::start();
    let w = World::empty().with_bucket(&bucket);
    for kind in kinds() {
        let name = kind.args[1];
        for (container, bytes) in &kind.containers {
            write(&w.path(&format!("{name}/{container}")), bytes);
            bucket.put(&format!("b/in/{name}/{container}"), bytes.clone());
        }
        let (here, there) = (w.path(name), format!("s3://b/in/{name}"));
        let (dst, dst_there) = (w.path(&format!("{name}-here")), w.path(&format!("{name}-there")));
        let pack = |from: &str, to: &Path| {
            let mut line = vec!["pack", "--json", "--verify", "--shard-size", "64KiB"];
            line.extend(kind.args);
            line.extend([from, to.to_str().unwrap()]);
            json(&w.run(&line).unwrap_ok())
        };
        let told = pack(here.to_str().unwrap(), &dst);
        assert_eq!(told["files"].as_u64(), Some(kind.files as u64), "{name}: {told}");
        pack(&there, &dst_there);
        assert!(data_set(&dst) == data_set(&dst_there), "{name}");
        let (file, bytes) = &kind.one;
        let read = w.command(&["cat", dst_there.to_str().unwrap(), file]).output().unwrap();
        assert!(read.status.success() && read.stdout == *bytes, "{name}: {file}");
        // One container by itself, in both places.
        let (single, files) = kind.single;
        let (one, one_there) = (w.path(&format!("{name}-one")), w.path(&format!("{name}-one-there")));
        let told = pack(here.join(single).to_str().unwrap(), &one);
        assert_eq!(told["files"].as_u64(), Some(files as u64), "{name}: {told}");
        pack(&format!("{there}/{single}"), &one_there);
        assert!(data_set(&one) == data_set(&one_there), "{name}: one by itself");
        assert!(w.path(name).join(kind.containers[0].0).exists(), "the source stays");
    }
}

#[test]
fn a_container_that_is_put_anew_while_it_is_packed_is_noticed() {
    let bucket = S3::start();
    let w = World::empty().with_bucket(&bucket);
    let name = "b/in/x.tfrecord";
    bucket.put(name, tfrecords(0));
    let line = ["pack", "--from", "tfrecord", "s3://b/in", "s3://b/out"];
    // The same length, so that every range is there still.
    bucket.put_anew_while_read(name, vec![0; tfrecords(0).len()]);
    let ran = w.run(&line);
    assert!(ran.code == 1 && ran.err.contains("x.tfrecord"), "{}", ran.err);
    assert!(bucket.below("b/out/manifests/").is_empty());
    bucket.unhook();
    bucket.put(name, tfrecords(0));
    w.run(&line).unwrap_ok();
}

#[test]
fn from_a_bucket_into_a_bucket() {
    let bucket = S3::start();
    let w = World::empty().with_bucket(&bucket);
    bucket.put("b/in/x.tfrecord", tfrecords(0));
    let line = ["pack", "--from", "tfrecord", "--verify", "s3://b/in", "s3://b/out"];
    let out = w.run(&line).unwrap_ok();
    assert!(out.contains("40 files in 40 samples") && out.contains("every byte read back"), "{out}");
    let read = w.command(&["cat", "s3://b/out", "x/00000039.image.jpg"]).output().unwrap();
    assert_eq!(read.stdout, image(39));
    // What has no containers, and what is damaged, is told with its place.
    w.run(&["pack", "--from", "lmdb", "s3://b/in", "s3://b/none"]).refused(1, &["s3://b/in", ".mdb"]);
    let mut damaged = tfrecords(0);
    damaged[20] ^= 1;
    bucket.put("b/bad/x.tfrecord", damaged);
    let line = ["pack", "--from", "tfrecord", "s3://b/bad", "s3://b/none"];
    w.run(&line).refused(1, &["x.tfrecord of s3://b/bad", "record 0"]);
    let cut = lmdb(&[("a".into(), vec![1; 9_000])]);
    bucket.put("b/cut/data.mdb", &cut[..cut.len() - 4096]);
    w.run(&["pack", "--from", "lmdb", "s3://b/cut", "s3://b/none"])
        .refused(1, &["data.mdb of s3://b/cut", "it is cut"]);
    assert!(bucket.below("b/none/manifests/").is_empty());
}
