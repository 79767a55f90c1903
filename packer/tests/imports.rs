//! What other programs wrote, packed, and packs as other programs read them: LMDB, Parquet, directories, indexes.
//!
//! Python and its packages come from `tools/python-datasets`, which fetches them once.

#![allow(clippy::unwrap_used)] // helpers of tests

mod python;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use granary_core::{Kind, Result, SystemClock};
use granary_packer::counts::Counts;
use granary_packer::dataset::DataSet;
use granary_packer::foreign::{self, Wanted, Written};
use granary_packer::from::containers::{Containers, Format};
use granary_packer::from::folder::Folder;
use granary_packer::from::parquet::{self, Parquet};
use granary_packer::from::{Skipped, Source};
use granary_packer::pack::progress::Progress;
use granary_packer::pack::{MEMORY_BYTES_MIN, Mode, Options, Report, pack};
use granary_packer::place::{self, Place};
use granary_packer::unpack::{self, unpack};
use granary_packer::verify::verify;
use python::{command, hex, python, text};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

struct World {
    dir: TempDir,
    runtime: Runtime,
}

/// What is below a folder: bytes of files, and of all mode, seconds of modification, and whether it is a directory.
type Below = BTreeMap<String, (Vec<u8>, u32, i64, bool)>;

impl World {
    fn new() -> World {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        World { dir: tempfile::tempdir().unwrap(), runtime }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn place(&self, name: &str) -> Place {
        let options = place::Options { create: true, ..place::Options::default() };
        Place::open(text(&self.path(name)), &options, Arc::new(SystemClock)).unwrap()
    }

    fn options(&self) -> Options {
        Options {
            shard_bytes: 100_000,
            grouping: None,
            seed: None,
            threads: 2,
            memory_bytes: MEMORY_BYTES_MIN,
            work_dir: self.dir.path().to_owned(),
            mode: Mode::New,
            verify: true,
            delete_source: false,
        }
    }

    fn pack(&self, source: &dyn Source, to: &str, options: &Options, skipped: &Skipped) -> Result<Report> {
        pack(source, &self.place(to), options, self.runtime.handle(), skipped, &Progress::default())
    }

    fn lmdb(&self, from: &str) -> Result<Containers> {
        let options = place::Options::default();
        let from = self.path(from);
        Containers::open(text(&from), Format::Lmdb, &options, Arc::new(SystemClock), self.runtime.handle())
    }

    fn parquet(&self, from: &str, columns: &[&str], name_column: Option<&str>) -> Parquet {
        let wanted = parquet::Wanted {
            columns: columns.iter().map(|&c| c.to_owned()).collect(),
            name_column: name_column.map(str::to_owned),
        };
        let (options, from) = (place::Options::default(), self.path(from));
        Parquet::open(text(&from), wanted, &options, Arc::new(SystemClock), self.runtime.handle()).unwrap()
    }

    fn data(&self, name: &str) -> DataSet {
        self.runtime.block_on(DataSet::open(self.place(name), None)).unwrap()
    }

    /// The shards' paths and indexes.
    fn shards(&self, name: &str) -> Vec<PathBuf> {
        let data = self.data(name);
        data.manifest().shards().iter().map(|shard| self.path(name).join(&shard.path)).collect()
    }

    fn files(&self, name: &str) -> BTreeMap<String, Vec<u8>> {
        let data = self.data(name);
        let mut all = BTreeMap::new();
        for (number, shard) in (0u32..).zip(data.manifest().shards()) {
            let index = self.runtime.block_on(data.index(number)).unwrap();
            let tar = fs::read(self.path(name).join(&shard.path)).unwrap();
            for file in (0..index.file_count()).map(|n| index.file(n).unwrap()) {
                let bytes = tar[file.offset as usize..][..file.length as usize].to_vec();
                assert!(all.insert(String::from_utf8(file.path.to_vec()).unwrap(), bytes).is_none());
            }
        }
        all
    }

    fn unpack(&self, name: &str, to: &str) -> unpack::Report {
        let options = unpack::Options { by_shard: false, owners: false, skip_errors: false, threads: 2 };
        let data = self.data(name);
        unpack(&data, &self.path(to), &options, self.runtime.handle(), &Counts::default()).unwrap()
    }
}

fn below(root: &Path) -> Below {
    let (mut all, mut dirs) = (Below::new(), vec![root.to_owned()]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let about = path.symlink_metadata().unwrap();
            let bytes = if about.is_dir() { Vec::new() } else { fs::read(&path).unwrap() };
            let name = text(path.strip_prefix(root).unwrap()).to_owned();
            all.insert(name, (bytes, about.mode() & 0o7777, about.mtime(), about.is_dir()));
            if about.is_dir() {
                dirs.push(path);
            }
        }
    }
    all
}

/// Samples in several directories, empty directories, odd modes and times.
fn tree(w: &World) -> PathBuf {
    let root = w.path("src");
    for n in 0..60 {
        let dir = root.join(format!("d{}/e.f", n % 5));
        fs::create_dir_all(&dir).unwrap();
        for extension in ["cls", "jpg"] {
            fs::write(dir.join(format!("{n:03}.{extension}")), format!("{n} {extension}").repeat(n * 9))
                .unwrap();
        }
    }
    // A directory called as a sample, one with a long name, and empty ones.
    for dir in ["d1/e.f/001", "empty/below", &format!("{}/{}", "p".repeat(90), "q".repeat(90)), "z"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::write(root.join("d1/e.f/001/x.txt"), "x").unwrap();
    let mut dirs: Vec<PathBuf> =
        below(&root).into_iter().filter(|(_, of)| of.3).map(|(n, _)| root.join(n)).collect();
    // The deepest first: what is made below changes a directory's time.
    dirs.sort_by_key(|dir| std::cmp::Reverse(dir.components().count()));
    for (n, dir) in (0u32..).zip(&dirs) {
        fs::set_permissions(dir, fs::Permissions::from_mode(if n.is_multiple_of(2) { 0o750 } else { 0o711 }))
            .unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + u64::from(n));
        fs::File::open(dir).unwrap().set_modified(time).unwrap();
    }
    root
}

#[test]
fn directories_come_back_as_they_were() {
    let w = World::new();
    let root = tree(&w);
    let before = below(&root);
    let directories = before.values().filter(|of| of.3).count() as u64;
    for (to, seed) in [("dst", None), ("shuffled", Some(7))] {
        let source = Folder::open(&root, false).unwrap();
        let options = Options { seed, ..w.options() };
        let report = w.pack(&source, to, &options, &Skipped::new(false)).unwrap();
        assert_eq!((report.files, report.samples, report.directories), (121, 61, directories));
        assert!(report.shards_made > 2);
        // No shard of directories alone: readers stumble over one without samples.
        assert!(w.data(to).manifest().shards().iter().all(|shard| shard.files > 0));
        let unpacked = w.unpack(to, &format!("{to}-tree"));
        assert_eq!((unpacked.files, unpacked.directories), (121, directories));
        assert!(below(&w.path(&format!("{to}-tree"))) == before, "{to}");
        // GNU tar makes the same of them.
        fs::create_dir(w.path(&format!("{to}-tar"))).unwrap();
        for shard in w.shards(to) {
            let to = w.path(&format!("{to}-tar"));
            let mut tar = std::process::Command::new("tar");
            python::output(tar.args(["-xp", "--no-same-owner", "-f", text(&shard), "-C", text(&to)]));
        }
        let got = below(&w.path(&format!("{to}-tar")));
        assert_eq!(got.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
        assert!(got.iter().all(|(name, of)| (of.1, of.3) == (before[name].1, before[name].3)), "modes");
    }
    // The same again is known, files and directories.
    let source = Folder::open(&root, false).unwrap();
    let again = w.pack(&source, "dst", &w.options(), &Skipped::new(false)).unwrap();
    assert_eq!((again.shards_made, again.version), (0, 1));
    fs::write(root.join("d0/e.f/new.jpg"), "new").unwrap();
    let append = Options { mode: Mode::Append, ..w.options() };
    let added = w.pack(&Folder::open(&root, false).unwrap(), "dst", &append, &Skipped::new(false)).unwrap();
    assert_eq!((added.files, added.directories), (1, 0), "a directory's new time is no change");
    let replace = Options { mode: Mode::Replace, ..w.options() };
    let added = w.pack(&Folder::open(&root, false).unwrap(), "dst", &replace, &Skipped::new(false)).unwrap();
    assert_eq!((added.files, added.directories), (0, 1), "unless what changed is to be replaced");
    w.unpack("dst", "dst-now");
    assert!(below(&w.path("dst-now")) == below(&root));
}

#[test]
fn empty_directories_go_with_the_source() {
    let w = World::new();
    let root = tree(&w);
    let before = below(&root);
    let options = Options { delete_source: true, ..w.options() };
    let report = w.pack(&Folder::open(&root, false).unwrap(), "dst", &options, &Skipped::new(false)).unwrap();
    assert_eq!((report.deleted, report.kept), (121, 0), "files are counted");
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
    w.unpack("dst", "tree");
    assert!(below(&w.path("tree")) == before);
}

#[test]
fn a_tars_directories_are_packed_once() {
    let w = World::new();
    let root = tree(&w);
    let before = below(&root);
    fs::create_dir(w.path("tars")).unwrap();
    for (n, parts) in
        [["d0", "d1", "empty"], ["d2", "d3", "z"], ["d4", "d1", &"p".repeat(90)]].iter().enumerate()
    {
        let mut tar = std::process::Command::new("tar");
        tar.args(["-c", "-f", text(&w.path(&format!("tars/{n}.tar"))), "-C", text(&root)]);
        // The third has a directory that the first has too, without its files.
        tar.args(if n == 2 { &["--exclude=d1/*"][..] } else { &[] }).args(parts);
        python::output(&mut tar);
    }
    let options = place::Options::default();
    let source = Containers::open(
        text(&w.path("tars")),
        Format::Tar,
        &options,
        Arc::new(SystemClock),
        w.runtime.handle(),
    )
    .unwrap();
    let report = w.pack(&source, "dst", &w.options(), &Skipped::new(false)).unwrap();
    assert_eq!(report.directories, before.values().filter(|of| of.3).count() as u64);
    w.unpack("dst", "tree");
    assert!(below(&w.path("tree")) == before);
}

/// Key, and extension to bytes, of all samples of a packed tree.
fn samples(files: &BTreeMap<String, Vec<u8>>) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut all: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for (path, bytes) in files {
        let (key, extension) = path.rsplit_once('.').unwrap();
        all.entry(key.to_owned()).or_default().insert(extension.to_owned(), hex(bytes));
    }
    all
}

#[test]
fn readers_of_samples_pass_over_directories() {
    let w = World::new();
    let root = tree(&w);
    w.pack(&Folder::open(&root, false).unwrap(), "dst", &w.options(), &Skipped::new(false)).unwrap();
    let shards = w.shards("dst");
    let files = w.files("dst");
    // Each file of the tree is <key>.<extension>, where keys have no dot in their base name.
    let expected = samples(&files);
    let shards: Vec<&str> = shards.iter().map(|path| text(path)).collect();
    let read = |what: &str, args: &[&str]| {
        let value = python(&[&[what], args, &shards].concat());
        let Value::Array(got) = value else { panic!("{value}") };
        got.iter()
            .map(|sample| {
                let files = sample[1].as_object().unwrap().iter().filter(|(_, v)| !v.is_null());
                let files = files.map(|(name, v)| (name.clone(), v.as_str().unwrap().to_owned()));
                (sample[0].as_str().unwrap().to_owned(), files.collect())
            })
            .collect::<BTreeMap<String, BTreeMap<String, String>>>()
    };
    assert!(read("read_webdataset", &[]) == expected);
}

#[test]
fn huggingface_datasets_passes_over_directories() {
    let w = World::new();
    let root = w.path("src");
    for n in 0..6 {
        fs::create_dir_all(root.join(format!("d{n}"))).unwrap();
        fs::write(root.join(format!("d{n}/{n}.bin")), format!("{n}")).unwrap();
    }
    w.pack(&Folder::open(&root, false).unwrap(), "dst", &w.options(), &Skipped::new(false)).unwrap();
    let home = w.path("home");
    let read = python(&["read_huggingface", text(&home), text(&w.shards("dst")[0])]);
    let expected: Vec<Value> =
        (0..6).map(|n| json!([format!("d{n}/{n}"), {"bin": hex(format!("{n}").as_bytes())}])).collect();
    assert_eq!(read, Value::from(expected));
}

#[test]
fn other_programs_indexes_lead_to_the_same_samples() {
    let w = World::new();
    let root = tree(&w);
    w.pack(&Folder::open(&root, false).unwrap(), "dst", &w.options(), &Skipped::new(false)).unwrap();
    let data = w.data("dst");
    let written = foreign::write(&data, Wanted { energon: true, dali: true }, w.runtime.handle()).unwrap();
    let shards = w.shards("dst");
    assert_eq!(written, Written { energon: shards.len() as u64, dali: shards.len() as u64 });
    let expected = samples(&w.files("dst"));
    let (mut energon, mut dali) = (BTreeMap::new(), BTreeMap::new());
    for shard in &shards {
        let index = |suffix: &str| text(shard).replace(".tar", suffix);
        let Value::Array(read) = python(&["read_energon", text(shard), &index(".tar.idx")]) else { panic!() };
        for sample in read {
            let files: Vec<(String, String)> = serde_json::from_value(sample).unwrap();
            let key = files[0].0.rsplit_once('.').unwrap().0.to_owned();
            let of =
                files.into_iter().map(|(name, bytes)| (name.rsplit_once('.').unwrap().1.to_owned(), bytes));
            assert!(energon.insert(key, of.collect::<BTreeMap<_, _>>()).is_none());
        }
        let Value::Array(read) = python(&["read_dali", text(shard), &index(".idx")]) else { panic!() };
        for sample in read {
            let files: Vec<(String, String, String)> = serde_json::from_value(sample).unwrap();
            let key = files[0].1.rsplit_once('.').unwrap().0.to_owned();
            let of = files.into_iter().map(|(extension, _, bytes)| (extension, bytes));
            assert!(dali.insert(key, of.collect::<BTreeMap<_, _>>()).is_none());
        }
    }
    assert!(energon == expected, "Energon");
    assert!(dali == expected, "DALI");
    // They are no part of the data set.
    let report = verify(&w.data("dst"), 2, w.runtime.handle(), &Counts::default()).unwrap();
    assert_eq!((report.faults, report.without_frames, report.retries), (0, 0, 0), "{:?}", report.messages);
}

/// Keys and values of every size that LMDB keeps in another way.
fn pairs() -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut pairs: Vec<(Vec<u8>, Vec<u8>)> =
        (0..3_000u32).map(|n| (format!("label-{n:09}").into_bytes(), n.to_string().into_bytes())).collect();
    for n in 0..40usize {
        let image = [&b"\xff\xd8\xff"[..], &vec![n as u8; n * n * 60]].concat();
        pairs.push((format!("image-{n:09}").into_bytes(), image));
    }
    pairs.push((b"odd/\0key".to_vec(), b"".to_vec()));
    pairs.push((b"\xff".to_vec(), vec![0; 2029]));
    pairs.push((b"dir/name.dat".to_vec(), vec![1; 100_000]));
    pairs
}

/// A data file of LMDB with these keys and values.
fn write_lmdb(w: &World, name: &str, pairs: &[(Vec<u8>, Vec<u8>)], options: &[&str]) {
    let pairs = json!(pairs.iter().map(|(key, value)| [hex(key), hex(value)]).collect::<Vec<_>>());
    let list = w.path("pairs.json");
    fs::write(&list, pairs.to_string()).unwrap();
    python(&[&["write_lmdb", text(&w.path(name)), text(&list)], options].concat());
    fs::remove_file(list).unwrap();
}

fn expected_of(pairs: &[(Vec<u8>, Vec<u8>)], prefix: &str) -> BTreeMap<String, Vec<u8>> {
    let name = |key: &[u8]| match key {
        b"odd/\0key" => "odd/%00key.txt".to_owned(),
        b"\xff" => "%FF.bin".to_owned(),
        key => {
            let key = String::from_utf8(key.to_vec()).unwrap();
            match key.as_str() {
                "dir/name.dat" => key,
                _ if key.starts_with("image") => key + ".jpg",
                _ => key + ".txt",
            }
        }
    };
    pairs.iter().map(|(key, value)| (format!("{prefix}{}", name(key)), value.clone())).collect()
}

#[test]
fn an_lmdb_becomes_files_also_while_somebody_has_it_open() {
    let w = World::new();
    fs::create_dir(w.path("src")).unwrap();
    let all = pairs();
    write_lmdb(&w, "src/train", &all, &[]);
    let few = &all[2_995..3_010];
    write_lmdb(&w, "src/one.mdb", few, &["file"]);
    let mut holder = command(&["hold_lmdb", text(&w.path("src/train"))])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(holder.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "open\n");
    let report = w.pack(&w.lmdb("src").unwrap(), "dst", &w.options(), &Skipped::new(false)).unwrap();
    drop(holder.stdin.take());
    assert!(holder.wait().unwrap().success());
    assert_eq!((report.files, report.skipped, report.verified), (all.len() as u64 + 15, 0, true));
    let mut expected = expected_of(&all, "train/");
    expected.extend(expected_of(few, "one/"));
    assert!(w.files("dst") == expected);
    // A data file named by itself.
    let report =
        w.pack(&w.lmdb("src/train/data.mdb").unwrap(), "one", &w.options(), &Skipped::new(false)).unwrap();
    assert_eq!(report.files, all.len() as u64);
    assert!(w.files("one") == expected_of(&all, ""));
    // Again the same bytes, with other threads.
    let options = Options { threads: 5, ..w.options() };
    w.pack(&w.lmdb("src").unwrap(), "again", &options, &Skipped::new(false)).unwrap();
    for (a, b) in w.shards("dst").iter().zip(w.shards("again")) {
        assert!(fs::read(a).unwrap() == fs::read(b).unwrap());
    }
    let e = w.lmdb("dst").unwrap_err();
    assert!(e.kind() == Kind::NotFound && e.to_string().contains(".mdb"), "{e}");
}

#[test]
fn keys_that_were_deleted_and_put_again_are_the_last_ones() {
    let w = World::new();
    let mut all: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    // Each key is put three times, which leaves free and reused pages.
    for round in 0..3u8 {
        all.extend((0..50u8).map(|n| (vec![b'k', n], vec![round; 1000 + usize::from(n) * 100])));
    }
    write_lmdb(&w, "src", &all, &[]);
    w.pack(&w.lmdb("src").unwrap(), "dst", &w.options(), &Skipped::new(false)).unwrap();
    let files = w.files("dst");
    assert_eq!(files.len(), 50);
    assert!(files.values().all(|bytes| bytes.iter().all(|&b| b == 2)));
}

#[test]
fn what_is_no_plain_lmdb_is_told() {
    let w = World::new();
    let pairs = vec![(b"a".to_vec(), b"1".to_vec())];
    write_lmdb(&w, "named", &pairs, &["named"]);
    let e = w.pack(&w.lmdb("named").unwrap(), "x", &w.options(), &Skipped::new(false)).unwrap_err();
    assert!(e.kind() == Kind::Unsupported && e.to_string().contains("a named database"), "{e}");
    let skipped = Skipped::new(true);
    let report = w.pack(&w.lmdb("named").unwrap(), "dst", &w.options(), &skipped).unwrap();
    assert_eq!((report.files, report.skipped), (1, 1), "{:?}", skipped.first());
    write_lmdb(&w, "empty", &[], &[]);
    let e = w.pack(&w.lmdb("empty").unwrap(), "e", &w.options(), &Skipped::new(false)).unwrap_err();
    assert_eq!(e.kind(), Kind::NotFound, "{e}");
}

#[test]
fn damaged_lmdb_files_are_named_and_end_nothing() {
    let w = World::new();
    let all = pairs();
    write_lmdb(&w, "src", &all, &[]);
    let path = w.path("src/data.mdb");
    let good = fs::read(&path).unwrap();
    let last = good.iter().rposition(|&b| b != 0).unwrap();
    for len in [0, 100, 5_000, last / 2, last - 4_096] {
        fs::write(&path, &good[..len]).unwrap();
        let e = w.pack(&w.lmdb("src").unwrap(), "x", &w.options(), &Skipped::new(false)).unwrap_err();
        assert!(e.kind() == Kind::Corrupt && e.to_string().contains("data.mdb"), "{len}: {e}");
        let skipped = Skipped::new(true);
        match w.pack(&w.lmdb("src").unwrap(), &format!("cut-{len}"), &w.options(), &skipped) {
            Ok(report) => assert!(report.files < all.len() as u64),
            Err(e) => assert_eq!(e.kind(), Kind::NotFound, "{len}: {e}"),
        }
        assert_eq!(skipped.count(), 1, "{len}: {:?}", skipped.first());
    }
    // Flipped bits anywhere: an error, or what LMDB cannot know either; never the end of the process.
    let mut at = 7;
    for n in 0..20 {
        at = (at * 31 + n * 977) % last;
        let mut bad = good.clone();
        bad[at] ^= 1 << (n % 8);
        fs::write(&path, bad).unwrap();
        let _ = w.pack(&w.lmdb("src").unwrap(), &format!("flip-{n}"), &w.options(), &Skipped::new(true));
    }
}

fn image(n: usize) -> Vec<u8> {
    [&b"\xff\xd8\xff"[..], &vec![(n % 251) as u8; n * 37 % 3000]].concat()
}

#[test]
fn parquet_columns_become_files() {
    let w = World::new();
    fs::create_dir_all(w.path("src/sub")).unwrap();
    for (name, compression, rows, group) in [
        ("sub/snappy.parquet", "snappy", 700, 100),
        ("zstd.parquet", "zstd", 30, 7),
        ("lz4.parquet", "lz4", 30, 30),
        ("none.parquet", "none", 30, 1000),
    ] {
        python(&[
            "write_parquet",
            text(&w.path("src").join(name)),
            compression,
            &rows.to_string(),
            &group.to_string(),
        ]);
    }
    let source = w.parquet("src", &["image"], None);
    let report = w.pack(&source, "dst", &w.options(), &Skipped::new(false)).unwrap();
    assert_eq!((report.files, report.skipped), (790, 0));
    let files = w.files("dst");
    for (file, rows) in [("sub/snappy", 700), ("zstd", 30), ("lz4", 30), ("none", 30)] {
        for n in 0..rows {
            assert!(files[&format!("{file}/{n:08}.JPEG")] == image(n), "{file} {n}");
        }
    }
    // Again the same bytes, with other threads, and nothing is left of the values that were kept meanwhile.
    let options = Options { threads: 1, ..w.options() };
    w.pack(&w.parquet("src", &["image.bytes"], None), "again", &options, &Skipped::new(false)).unwrap();
    for (a, b) in w.shards("dst").iter().zip(w.shards("again")) {
        assert!(fs::read(a).unwrap() == fs::read(b).unwrap());
    }
    let left: Vec<_> = fs::read_dir(w.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");
    // What was stopped goes on.
    fs::remove_dir_all(w.path("dst/manifests")).unwrap();
    let report =
        w.pack(&w.parquet("src", &["image"], None), "dst", &w.options(), &Skipped::new(false)).unwrap();
    assert_eq!(report.shards_made, 0);
    assert!(report.shards_found > 3);
}

#[test]
fn rows_have_names_and_several_columns() {
    let w = World::new();
    fs::create_dir(w.path("src")).unwrap();
    python(&["write_parquet", text(&w.path("src/a.parquet")), "zstd", "20", "6"]);
    let source = w.parquet("src/a.parquet", &["image", "caption"], Some("name"));
    let e = w.pack(&source, "x", &w.options(), &Skipped::new(false)).unwrap_err();
    assert!(e.kind() == Kind::Invalid && e.to_string().contains("a.parquet, row 9"), "{e}");
    assert!(e.to_string().contains("column caption is null"), "{e}");
    let skipped = Skipped::new(true);
    let report = w.pack(&source, "dst", &w.options(), &skipped).unwrap();
    assert_eq!((report.files, report.samples, report.skipped), (38, 20, 2));
    let files = w.files("dst");
    assert!(files["class-1/00007.image.JPEG"] == image(7));
    assert_eq!(files["class-1/00007.caption.txt"], b"caption 7");
    assert!(!files.contains_key("class-0/00009.caption.txt"));
    // A column that names two rows alike.
    let source = w.parquet("src", &["image"], Some("caption"));
    let report = w.pack(&source, "named", &w.options(), &Skipped::new(true)).unwrap();
    assert_eq!((report.files, report.skipped), (18, 2));
    assert!(w.files("named")["caption 3.JPEG"] == image(3));
}

#[test]
fn what_is_wrong_with_parquet_is_named() {
    let w = World::new();
    fs::create_dir(w.path("src")).unwrap();
    let path = w.path("src/a.parquet");
    python(&["write_parquet", text(&path), "snappy", "200", "50"]);
    let failed = |columns: &[&str], name: Option<&str>| {
        w.pack(&w.parquet("src", columns, name), "x", &w.options(), &Skipped::new(false)).unwrap_err()
    };
    let e = failed(&["picture"], None);
    let columns = "its columns of bytes and text are: image.bytes, image.path, caption, name";
    assert!(e.kind() == Kind::NotFound && e.to_string().contains(columns), "{e}");
    assert!(e.to_string().contains("a.parquet") && e.to_string().contains("\"picture\""), "{e}");
    assert!(failed(&["label"], None).to_string().contains("of numbers"));
    assert!(failed(&["image"], Some("tags.list.element")).to_string().contains("a list"));
    python(&["write_parquet", text(&w.path("src/b.parquet")), "brotli", "20", "50"]);
    let e = failed(&["image"], None);
    assert!(e.to_string().contains("b.parquet"), "{e}");
    let skipped = Skipped::new(true);
    let report = w.pack(&w.parquet("src", &["image"], None), "some", &w.options(), &skipped).unwrap();
    assert_eq!((report.files, report.skipped), (200, 1), "{:?}", skipped.first());
    fs::remove_file(w.path("src/b.parquet")).unwrap();
    let good = fs::read(&path).unwrap();
    for len in [0, 3, 11, good.len() / 2, good.len() - 1] {
        fs::write(&path, &good[..len]).unwrap();
        let e = failed(&["image"], None);
        assert!(e.kind() == Kind::Corrupt && e.to_string().contains("a.parquet"), "{len}: {e}");
    }
    // A damaged page: what comes before it is there, and it is told.
    let mut bad = good.clone();
    bad[good.len() / 3..][..200].fill(0xee);
    fs::write(&path, &bad).unwrap();
    let skipped = Skipped::new(true);
    let report = w.pack(&w.parquet("src", &["image"], None), "bad", &w.options(), &skipped);
    let told = skipped.count();
    match report {
        Ok(report) => assert!(report.files < 200 && told == 1, "{} {told}", report.files),
        Err(e) => assert!(e.kind() == Kind::NotFound && told == 1, "{e}"),
    }
}
