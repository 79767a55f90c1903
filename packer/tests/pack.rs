//! Packing folders: the same bytes whatever the threads, what a stopped pack leaves, versions, damage, what is deleted.

#![allow(clippy::unwrap_used)] // helpers of tests

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use granary_core::{Kind, Result, SystemClock};
use granary_packer::dataset::DataSet;
use granary_packer::from::folder::Folder;
use granary_packer::from::{Scan, Skipped, Source};
use granary_packer::index::Index;
use granary_packer::key::Grouping;
use granary_packer::pack::entry::Order;
use granary_packer::pack::progress::Progress;
use granary_packer::pack::sort::merge;
use granary_packer::pack::{MEMORY_BYTES_MIN, Mode, Options, Report, pack};
use granary_packer::place::{self, Place};
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

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path("src").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn place(&self, name: &str) -> Place {
        let options = place::Options { create: true, ..place::Options::default() };
        Place::open(self.path(name).to_str().unwrap(), &options, Arc::new(SystemClock)).unwrap()
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
            verify: false,
            delete_source: false,
        }
    }

    fn pack(&self, to: &str, options: &Options) -> Result<Report> {
        self.pack_with(to, options, &Skipped::new(false))
    }

    fn pack_with(&self, to: &str, options: &Options, skipped: &Skipped) -> Result<Report> {
        let source = Folder::open(&self.path("src"), false)?;
        pack(&source, &self.place(to), options, self.runtime.handle(), skipped, &Progress::default())
    }

    fn data(&self, name: &str) -> DataSet {
        self.runtime.block_on(DataSet::open(self.place(name), None)).unwrap()
    }

    /// All living files of the latest version, with their bytes.
    fn files(&self, name: &str) -> BTreeMap<String, Vec<u8>> {
        let data = self.data(name);
        let mut all = BTreeMap::new();
        for (number, shard) in data.manifest().shards().iter().enumerate() {
            let index = self.runtime.block_on(data.index(number as u32)).unwrap();
            let tar = fs::read(data.place().local_path(&shard.path).unwrap()).unwrap();
            for n in (0..index.file_count()).filter(|&n| !shard.dead_files.contains(n)) {
                let file = index.file(n).unwrap();
                let bytes = tar[file.offset as usize..][..file.length as usize].to_vec();
                assert_eq!(granary_core::crc32c(&bytes), file.crc32c);
                let path = String::from_utf8(file.path.to_vec()).unwrap();
                assert!(all.insert(path, bytes).is_none(), "one path twice");
            }
        }
        all
    }

    /// The source's files.
    fn source(&self) -> BTreeMap<String, Vec<u8>> {
        let mut all = BTreeMap::new();
        let mut dirs = vec![self.path("src")];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_symlink() {
                    continue;
                }
                match path.is_dir() {
                    true => dirs.push(path),
                    false => {
                        let name = path.strip_prefix(self.path("src")).unwrap().to_str().unwrap().to_owned();
                        all.insert(name, fs::read(&path).unwrap());
                    }
                }
            }
        }
        all
    }
}

fn bytes(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64)
        .map(|i| ((i + 1).wrapping_mul(seed.wrapping_mul(2) + 0x9e37_79b9_7f4a_7c15) >> 56) as u8)
        .collect()
}

/// Small samples, a file of many segments, empty files, a long name.
fn fill(w: &World) {
    for n in 0..120u64 {
        w.write(&format!("train/{:02}/{n:04}.jpg", n % 7), &bytes(n, (n * 97 % 5_000) as usize));
        w.write(&format!("train/{:02}/{n:04}.cls", n % 7), n.to_string().as_bytes());
    }
    w.write("large.bin", &bytes(7, 5_000_000));
    w.write("empty", b"");
    w.write(&format!("{}/x.txt", "long".repeat(50)), b"long");
}

/// Every file below a folder but what is left over while writing.
fn tree(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for sub in ["shards", "manifests"] {
        for entry in fs::read_dir(root.join(sub)).unwrap() {
            let path = entry.unwrap().path();
            all.insert(
                format!("{sub}/{}", path.file_name().unwrap().to_str().unwrap()),
                fs::read(&path).unwrap(),
            );
        }
    }
    all
}

#[test]
fn all_files_are_packed_and_read_back() {
    let w = World::new();
    fill(&w);
    std::os::unix::fs::symlink("large.bin", w.path("src/link")).unwrap();
    let report = w.pack("dst", &Options { verify: true, ..w.options() }).unwrap();
    assert_eq!((report.version, report.files, report.links, report.verified), (1, 243, 1, true));
    assert_eq!(report.retries, 0);
    assert_eq!((report.samples, report.skipped), (123, 0));
    assert!(w.files("dst") == w.source());
    let data = w.data("dst");
    assert_eq!(data.manifest().shards().len() as u64, report.shards_made);
    for shard in data.manifest().shards() {
        assert!(shard.bytes <= 100_000 || shard.files == 1, "{shard:?}");
    }
    let left: Vec<_> =
        fs::read_dir(w.path("dst/.granary-tmp")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["pack.lock"], "nothing else is left over");
}

#[test]
fn the_same_files_give_the_same_bytes_with_any_number_of_threads() {
    let w = World::new();
    fill(&w);
    for seed in [None, Some(5)] {
        let mut trees = Vec::new();
        for threads in [1, 2, 7] {
            let name = format!("dst-{threads}-{}", seed.is_some());
            let small = 256 << 10;
            let options = Options {
                seed,
                threads,
                memory_bytes: MEMORY_BYTES_MIN + threads as u64 * small,
                ..w.options()
            };
            w.pack(&name, &options).unwrap();
            trees.push(tree(&w.path(&name)));
        }
        assert!(trees.windows(2).all(|pair| pair[0] == pair[1]), "seed {seed:?}");
    }
    assert!(tree(&w.path("dst-1-false")) != tree(&w.path("dst-1-true")));
    assert!(w.files("dst-1-true") == w.source());
}

#[test]
fn samples_stay_whole_when_they_are_shuffled() {
    let w = World::new();
    for n in 0..300 {
        for extension in ["a", "b", "c"] {
            w.write(&format!("{n:03}.{extension}"), &bytes(n, 700));
        }
    }
    w.pack("dst", &Options { seed: Some(1), ..w.options() }).unwrap();
    let data = w.data("dst");
    let mut order = Vec::new();
    for number in 0..data.manifest().shards().len() as u32 {
        let index = w.runtime.block_on(data.index(number)).unwrap();
        for sample in 0..index.sample_count() {
            assert_eq!(index.sample(sample).unwrap().len(), 3);
            order.push(String::from_utf8(index.sample_key(sample).unwrap().to_vec()).unwrap());
        }
    }
    assert_eq!(order.len(), 300);
    let in_place = order.iter().enumerate().filter(|(at, key)| **key == format!("{at:03}")).count();
    assert!(in_place < 30, "{in_place} samples are where they were");
}

#[test]
fn a_directory_can_be_a_sample() {
    let w = World::new();
    for n in 0..50 {
        w.write(&format!("{n:02}/image.jpg"), &bytes(n, 3_000));
        w.write(&format!("{n:02}/label.txt"), b"x");
    }
    let options = Options { grouping: Some(Grouping::Directory), ..w.options() };
    let report = w.pack("dst", &options).unwrap();
    assert_eq!((report.files, report.samples), (100, 50));
    assert_eq!(w.data("dst").manifest().grouping(), Grouping::Directory);
    let e = w
        .pack("dst", &Options { mode: Mode::Append, grouping: Some(Grouping::Stem), ..w.options() })
        .unwrap_err();
    assert!(e.to_string().contains("--by"), "{e}");
}

#[test]
fn what_a_stopped_pack_finished_is_kept_and_all_else_is_made_again() {
    let w = World::new();
    fill(&w);
    w.pack("whole", &w.options()).unwrap();
    let whole = tree(&w.path("whole"));
    // As if it had stopped: no manifest; of the shards one has no index, one is cut, one is another's, one has another's index.
    w.pack("dst", &w.options()).unwrap();
    fs::remove_dir_all(w.path("dst/manifests")).unwrap();
    let shard = |n: usize, suffix: &str| w.path(&format!("dst/shards/v1-{n:06}.{suffix}"));
    fs::remove_file(shard(0, "gidx")).unwrap();
    let cut = fs::read(shard(1, "tar")).unwrap();
    fs::write(shard(1, "tar"), &cut[..cut.len() - 512]).unwrap();
    fs::copy(shard(3, "tar"), shard(2, "tar")).unwrap();
    fs::copy(shard(3, "gidx"), shard(2, "gidx")).unwrap();
    fs::copy(shard(3, "gidx"), shard(4, "gidx")).unwrap();
    let left = w.path("dst/.granary-tmp/pack-shards-v1-000009.tar");
    fs::write(&left, b"half").unwrap();
    let report = w.pack("dst", &w.options()).unwrap();
    assert_eq!(report.shards_made, 4, "{report:?}");
    assert!(report.shards_found > 0);
    assert!(tree(&w.path("dst")) == whole);
    assert!(!left.exists());
    // Once more, there is nothing to do.
    let report = w.pack("dst", &w.options()).unwrap();
    assert_eq!((report.version, report.shards_made), (1, 0));
    assert!(tree(&w.path("dst")) == whole);
}

#[test]
fn a_file_that_changed_before_the_second_try_is_not_taken_from_the_first() {
    let w = World::new();
    fill(&w);
    w.pack("dst", &w.options()).unwrap();
    fs::remove_dir_all(w.path("dst/manifests")).unwrap();
    w.write("train/03/0003.cls", b"other");
    w.pack("dst", &w.options()).unwrap();
    assert_eq!(w.files("dst")["train/03/0003.cls"], b"other");
    w.pack("anew", &w.options()).unwrap();
    assert!(tree(&w.path("dst")) == tree(&w.path("anew")));
}

#[test]
fn another_data_set_is_not_packed_over() {
    let w = World::new();
    fill(&w);
    w.pack("dst", &w.options()).unwrap();
    let before = tree(&w.path("dst"));
    w.write("new.txt", b"new");
    let e = w.pack("dst", &w.options()).unwrap_err();
    assert!(e.kind() == Kind::Exists && e.to_string().contains("--append"), "{e}");
    assert!(tree(&w.path("dst")) == before);
}

#[test]
fn versions_add_and_replace_and_leave_the_shards_of_others() {
    let w = World::new();
    fill(&w);
    w.pack("dst", &w.options()).unwrap();
    let first = tree(&w.path("dst"));
    w.write("train/00/9999.jpg", b"added");
    let append = Options { mode: Mode::Append, ..w.options() };
    let report = w.pack("dst", &append).unwrap();
    assert_eq!((report.version, report.files, report.unchanged), (2, 1, 243));
    assert!(w.files("dst") == w.source());
    let report = w.pack("dst", &append).unwrap();
    assert_eq!((report.version, report.files), (2, 0), "nothing is new");

    w.write("train/03/0003.cls", b"replaced");
    w.write("train/03/0003.jpg", b"replaced too");
    w.write("large.bin", b"small now");
    let e = w.pack("dst", &append).unwrap_err();
    assert!(e.kind() == Kind::Exists && e.to_string().contains("--replace"), "{e}");
    let report = w.pack("dst", &Options { mode: Mode::Replace, ..w.options() }).unwrap();
    assert_eq!((report.version, report.files, report.replaced), (3, 3, 3));
    assert!(w.files("dst") == w.source());
    let now = tree(&w.path("dst"));
    assert!(first.iter().all(|(name, bytes)| now[name] == *bytes), "what a version named is as it was");
    let manifest = w.data("dst").manifest().clone();
    assert_eq!(manifest.sample_count(), 124, "two samples died and came again");
    let one = w.runtime.block_on(DataSet::open(w.place("dst"), Some(1))).unwrap();
    assert_eq!(one.manifest().file_count(), 243);
}

#[test]
fn a_flipped_byte_is_found_before_there_is_a_version_and_the_shard_is_made_again() {
    let w = World::new();
    fill(&w);
    w.pack("dst", &w.options()).unwrap();
    fs::remove_dir_all(w.path("dst/manifests")).unwrap();
    let path = w.path("dst/shards/v1-000002.tar");
    let mut tar = fs::read(&path).unwrap();
    let index = Index::open(&path.with_extension("gidx")).unwrap();
    let file = (0..index.file_count()).map(|n| index.file(n).unwrap()).find(|f| f.length > 100).unwrap();
    tar[file.offset as usize + 50] ^= 1;
    let name = String::from_utf8(file.path.to_vec()).unwrap();
    fs::write(&path, tar).unwrap();
    let options = Options { verify: true, ..w.options() };
    let e = w.pack("dst", &options).unwrap_err();
    assert!(
        e.kind() == Kind::Corrupt && e.to_string().contains("v1-000002.tar") && e.to_string().contains(&name),
        "{e}"
    );
    assert!(!w.path("dst/manifests").exists());
    let report = w.pack("dst", &options).unwrap();
    assert_eq!((report.shards_made, report.verified), (1, true));
    assert!(w.files("dst") == w.source());
}

#[test]
fn the_source_is_deleted_only_where_it_still_is_what_was_packed() {
    let w = World::new();
    fill(&w);
    let all = w.source();
    std::os::unix::fs::symlink("large.bin", w.path("src/link")).unwrap();
    let delete = Options { delete_source: true, ..w.options() };
    // The first file is kept open by nobody, but changed behind the plan's back: a second source sees it later.
    let report = w.pack("dst", &w.options()).unwrap();
    assert_eq!(report.deleted, 0);
    let kept = "train/05/0005.jpg";
    let changed = fs::metadata(w.path("src").join(kept)).unwrap().modified().unwrap()
        + std::time::Duration::from_nanos(5);
    let report = {
        // The times that the data set knows are whole seconds: a file with another nanosecond was still the same to `--append`.
        fs::File::options()
            .write(true)
            .open(w.path("src").join(kept))
            .unwrap()
            .set_modified(changed)
            .unwrap();
        let mtime = fs::metadata(w.path("src").join("train/06/0006.cls")).unwrap().modified().unwrap();
        fs::write(w.path("src").join("train/06/0006.cls"), b"?").unwrap();
        fs::File::options()
            .write(true)
            .open(w.path("src/train/06/0006.cls"))
            .unwrap()
            .set_modified(mtime)
            .unwrap();
        w.pack("dst", &Options { mode: Mode::Append, ..delete.clone() }).unwrap()
    };
    // One byte was there before too, and the second is the same: only its content tells that it is another.
    assert_eq!((report.version, report.files), (1, 0));
    assert_eq!((report.deleted, report.kept), (243, 1), "{report:?}");
    assert_eq!(w.source().into_keys().collect::<Vec<_>>(), ["train/06/0006.cls"]);
    assert!(!w.path("src/train/05").exists(), "emptied directories go");
    assert_eq!(w.files("dst").len(), all.len());
}

#[test]
fn deleting_goes_with_a_first_pack_too() {
    let w = World::new();
    fill(&w);
    let all = w.source();
    let report = w.pack("dst", &Options { delete_source: true, ..w.options() }).unwrap();
    assert_eq!((report.deleted, report.kept, report.verified), (243, 0, true));
    assert_eq!(fs::read_dir(w.path("src")).unwrap().count(), 0);
    assert!(w.files("dst") == all);
}

#[test]
fn what_cannot_be_packed_is_named_or_left_out_and_told() {
    let w = World::new();
    fill(&w);
    w.write("odd\nname", b"x");
    w.write("bad/dir/file", b"x");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        w.path("src/pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o644),
        0,
    )
    .unwrap();
    let e = w.pack("dst", &w.options()).unwrap_err();
    assert!(e.to_string().contains("--skip-errors"), "{e}");
    let skipped = Skipped::new(true);
    let report = w.pack_with("dst", &w.options(), &skipped).unwrap();
    assert_eq!((report.skipped, report.files), (2, 244));
    let told = skipped.first();
    assert!(told[0].0.contains("odd") && told[0].1.contains("control character"), "{told:?}");
    assert!(told[1].0 == "pipe" && told[1].1.contains("a pipe"), "{told:?}");
}

/// A source whose files are not all as the scan found them.
#[derive(Debug)]
struct Unsteady {
    inner: Folder,
    gone: Vec<&'static str>,
}

impl Source for Unsteady {
    fn scan(&self, scan: &Scan<'_>) -> Result<()> {
        self.inner.scan(scan)?;
        for name in &self.gone {
            fs::remove_file(Path::new(&self.inner.describe()).join(name)).unwrap();
        }
        Ok(())
    }

    fn read(&self, wants: &mut [granary_packer::from::Want<'_>]) {
        self.inner.read(wants);
    }

    fn remove(&self, entry: &granary_packer::pack::entry::Entry) -> Result<bool> {
        self.inner.remove(entry)
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

#[test]
fn files_that_go_while_they_are_packed_are_named_or_left_out_of_their_shard() {
    let w = World::new();
    fill(&w);
    let gone = vec!["train/03/0003.jpg", "train/03/0010.cls", "train/05/0005.jpg"];
    let run = |to: &str, skipped: &Skipped| {
        for name in &gone {
            w.write(name, b"here for the scan");
            let file = fs::File::options().write(true).open(w.path("src").join(name)).unwrap();
            file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000)).unwrap();
        }
        // Files that come and go change their directories' times, which are packed too.
        for name in ["train/03", "train/05"] {
            let dir = fs::File::open(w.path("src").join(name)).unwrap();
            dir.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000)).unwrap();
        }
        let source = Unsteady { inner: Folder::open(&w.path("src"), false).unwrap(), gone: gone.clone() };
        let progress = Progress::default();
        let report = pack(&source, &w.place(to), &w.options(), w.runtime.handle(), skipped, &progress)?;
        assert_eq!(
            progress.counts.files.load(std::sync::atomic::Ordering::Relaxed),
            report.files + report.directories,
            "told once each"
        );
        Ok::<_, granary_core::Error>(report)
    };
    let e = run("strict", &Skipped::new(false)).unwrap_err();
    assert!(e.kind() == Kind::Stale && e.to_string().contains("it is gone"), "{e}");
    assert!(!w.path("strict/manifests").exists());
    let skipped = Skipped::new(true);
    let report = run("dst", &skipped).unwrap();
    assert_eq!((report.files, report.skipped), (240, 3));
    assert!(w.files("dst") == w.source());
    run("again", &Skipped::new(true)).unwrap();
    assert!(tree(&w.path("dst")) == tree(&w.path("again")));
}

#[test]
fn an_empty_source_and_a_second_pack_at_once_are_refused() {
    let w = World::new();
    assert_eq!(w.pack("dst", &w.options()).unwrap_err().kind(), Kind::NotFound);
    fill(&w);
    let place = w.place("dst");
    let _lock = granary_packer::pack::output::prepare(&place).unwrap();
    let e = w.pack("dst", &w.options()).unwrap_err();
    assert!(e.kind() == Kind::Busy && e.to_string().contains("another granary"), "{e}");
}

#[test]
fn attributes_are_kept() {
    let w = World::new();
    w.write("a.sh", b"#!/bin/sh");
    fs::set_permissions(w.path("src/a.sh"), fs::Permissions::from_mode(0o751)).unwrap();
    w.pack("dst", &w.options()).unwrap();
    let index = Index::open(&w.path("dst/shards/v1-000000.gidx")).unwrap();
    assert_eq!(index.file(0).unwrap().mode, 0o751);
    assert!(index.file(0).unwrap().mtime > 1_700_000_000);
}

#[test]
fn a_scan_of_any_size_keeps_to_its_memory() {
    let w = World::new();
    for n in 0..2_000 {
        w.write(&format!("{}/{n}", "d".repeat(180)), b"");
    }
    let scan = |memory_bytes: usize, threads: usize| {
        let source = Folder::open(&w.path("src"), false).unwrap();
        let (skipped, progress) = (Skipped::new(false), Progress::default());
        let order = Order { grouping: Grouping::Stem, seed: Some(3) };
        let scan = Scan::new(threads, w.dir.path().to_owned(), memory_bytes, order, &skipped, &progress);
        source.scan(&scan).unwrap();
        let mut sorted = merge(scan.into_sorters()).unwrap();
        let mut records = Vec::new();
        while let Some(record) = sorted.next_record().unwrap() {
            records.push(record.to_vec());
        }
        (records, sorted.spills())
    };
    let (all, spills) = scan(64 << 20, 1);
    assert_eq!((all.len(), spills), (2_001, 0), "and their directory");
    for threads in [1, 3] {
        // A record has about 240 bytes: half a MiB of them, in runs of 64 KiB.
        let (sorted, spills) = scan(threads * (64 << 10), threads);
        assert!(sorted == all && (6..=12).contains(&spills), "{spills} runs with {threads} threads");
    }
}

#[test]
fn deleting_makes_a_version_and_writes_no_shard() {
    let w = World::new();
    fill(&w);
    w.pack("dst", &w.options()).unwrap();
    let shards = tree(&w.path("dst"));
    let delete = |paths: &[&str]| {
        let paths: Vec<Vec<u8>> = paths.iter().map(|path| path.as_bytes().to_vec()).collect();
        granary_packer::edit::delete(&w.place("dst"), &paths, w.runtime.handle())
    };
    let e = delete(&["train/03/0003.jpg", "train/03/000"]).unwrap_err();
    assert!(e.kind() == Kind::NotFound && e.to_string().contains("\"train/03/000\""), "{e}");
    assert!(tree(&w.path("dst")) == shards);
    // A file of a sample, a whole sample by its key, a folder.
    let deleted = delete(&["train/03/0003.jpg", "train/04/0004", "train/05/"]).unwrap();
    assert_eq!((deleted.version, deleted.files, deleted.samples), (2, 1 + 2 + 34, 1 + 17));
    let mut left = w.source();
    left.retain(|path, _| {
        !path.starts_with("train/05/") && !path.starts_with("train/04/0004.") && path != "train/03/0003.jpg"
    });
    assert!(w.files("dst") == left);
    let manifest = w.data("dst").manifest().clone();
    assert_eq!((manifest.sample_count(), manifest.file_count()), (123 - 18, 243 - 37));
    // The rest of the first sample: now it is gone too.
    assert_eq!(delete(&["train/03/0003.cls"]).unwrap().samples, 1);
    assert_eq!(delete(&["train/03/0003.cls"]).unwrap_err().kind(), Kind::NotFound);
    let now = tree(&w.path("dst"));
    assert!(shards.iter().all(|(name, bytes)| now[name] == *bytes));
    // What was deleted can be packed again.
    let report = w.pack("dst", &Options { mode: Mode::Append, ..w.options() }).unwrap();
    assert_eq!((report.version, report.files), (4, 38));
    assert!(w.files("dst") == w.source());
}
