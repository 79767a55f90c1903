use std::sync::Arc;

use bytes::Bytes;
use granary_core::SystemClock;
use granary_store::MemoryStore;
use tokio::runtime::Runtime;

use super::*;
use crate::dataset::DataSet;
use crate::tar::{END, Entry, encode};

/// A tar of files that hold their own names.
pub fn tar_of(paths: &[&str]) -> Vec<u8> {
    let mut tar = Vec::new();
    for path in paths {
        let (kind, target, payload) = match path.split_once(" -> ") {
            Some((_, target)) => (b'2', target, ""),
            None => (b'0', "", *path),
        };
        let entry = Entry {
            path: path.split(" -> ").next().unwrap().as_bytes(),
            target: target.as_bytes(),
            kind,
            size: payload.len() as u64,
            mode: 0o644,
            mtime: 1,
            uid: 0,
            gid: 0,
        };
        encode(&entry, &mut tar).unwrap();
        tar.extend_from_slice(payload.as_bytes());
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.extend_from_slice(&END);
    tar
}

struct World {
    place: Place,
    runtime: Runtime,
    dir: tempfile::TempDir,
}

impl World {
    fn folder() -> World {
        let dir = tempfile::tempdir().unwrap();
        let options = crate::place::Options::default();
        let place = Place::open(dir.path().to_str().unwrap(), &options, Arc::new(SystemClock)).unwrap();
        World { place, runtime: Runtime::new().unwrap(), dir }
    }

    fn bucket() -> World {
        let place = Place::of_store(Arc::new(MemoryStore::new(Arc::new(SystemClock))));
        World { place, ..World::folder() }
    }

    fn put(&self, name: &str, bytes: Vec<u8>) {
        self.runtime.block_on(self.place.put(name, Bytes::from(bytes))).unwrap();
    }

    fn options(&self) -> Options {
        Options {
            grouping: Grouping::Stem,
            skip_errors: false,
            anew: false,
            threads: 3,
            work_dir: self.dir.path().to_owned(),
        }
    }

    fn adopt(&self, options: &Options) -> Result<Report> {
        adopt(&self.place, None, options, self.runtime.handle(), &Counts::default())
    }

    fn skipping(&self) -> Report {
        self.adopt(&Options { skip_errors: true, ..self.options() }).unwrap()
    }

    fn data(&self) -> DataSet {
        self.runtime.block_on(DataSet::open(self.place.clone(), None)).unwrap()
    }
}

#[test]
fn tars_become_a_data_set() {
    for world in [World::folder(), World::bucket()] {
        world.put("b/2.tar", tar_of(&["x.jpg", "x.cls", "README", "link -> x.jpg"]));
        world.put("1.tar", tar_of(&["y.jpg"]));
        let report = world.adopt(&world.options()).unwrap();
        assert_eq!((report.version, report.shards, report.files, report.samples), (1, 2, 4, 3));
        let data = world.data();
        assert_eq!(data.manifest().shards()[0].path, "1.tar");
        let (shard, file) = world.runtime.block_on(data.find(b"x.cls")).unwrap().unwrap();
        let index = world.runtime.block_on(data.index(shard)).unwrap();
        let at = index.file(file).unwrap().offset;
        let bytes = world.runtime.block_on(world.place.get("b/2.tar", at..at + 5)).unwrap();
        assert_eq!(bytes, "x.cls");
        assert_eq!(index.other(0).unwrap().target, b"x.jpg");

        let again = world.adopt(&world.options()).unwrap();
        assert_eq!((again.version, again.changed, again.kept), (1, false, 2));
        world.put("a.tar", tar_of(&["z.jpg"]));
        let more = world.adopt(&world.options()).unwrap();
        assert_eq!((more.version, more.shards, more.kept), (2, 3, 2));
        // What is new comes last, so that the samples before keep their numbers.
        assert_eq!(world.data().manifest().shards()[2].path, "a.tar");
        world.runtime.block_on(world.place.store().delete(vec!["1.tar".to_owned()])).unwrap();
        assert_eq!(world.adopt(&world.options()).unwrap().shards, 2);
    }
}

#[test]
fn all_bytes_of_a_tar_are_summed() {
    let names: Vec<String> = (0..200).map(|n| format!("{n:0>240}.jpg")).collect();
    let mut tar = tar_of(&names.iter().map(|name| &**name).collect::<Vec<_>>());
    tar.resize(tar.len().next_multiple_of(10_240), 0);
    let cut = tar[..tar.len() / 2 + 100].to_vec();
    for world in [World::folder(), World::bucket()] {
        world.put("whole.tar", tar.clone());
        world.put("cut.tar", cut.clone());
        assert_eq!(world.skipping().shards, 2);
        let data = world.data();
        for (shard, bytes) in [(0, &cut), (1, &tar)] {
            let index = world.runtime.block_on(data.index(shard)).unwrap();
            assert_eq!(index.framed_bytes(), Some(bytes.len() as u64));
            let frames: Vec<u32> = bytes.chunks(64 << 10).map(granary_core::crc32c).collect();
            assert!(frames.len() > 1);
            for (n, want) in frames.iter().enumerate() {
                assert_eq!(index.frame(n as u32).unwrap(), *want);
            }
        }
    }
}

#[test]
fn named_tars_are_added() {
    let world = World::folder();
    for name in ["a.tar", "b.tar", "c.tar"] {
        world.put(name, tar_of(&[name]));
    }
    let named = |names: &[&str]| {
        let names = names.iter().map(|&n| n.to_owned()).collect();
        adopt(&world.place, Some(names), &world.options(), world.runtime.handle(), &Counts::default())
            .unwrap()
    };
    assert_eq!(named(&["b.tar", "b.tar"]).shards, 1);
    assert_eq!(named(&["a.tar"]).shards, 2);
}

#[test]
fn what_is_damaged_is_told_with_tar_and_offset() {
    let good = tar_of(&["a.jpg", "b.jpg"]);
    let mut flipped = good.clone();
    flipped[1030] ^= 1;
    for (bad, why) in [
        (good[..1300].to_vec(), "bad.tar is cut"),
        (flipped, "bad.tar at byte 1024: the checksum of the header does not match"),
        (tar_of(&["a.jpg", "b.jpg", "a.jpg"]), "bad.tar at byte 2048: the path \"a.jpg\" is twice in it"),
        (tar_of(&["a.jpg", "b.jpg", "a.cls"]), "bad.tar at byte 2048: the sample \"a\" is twice in it"),
        (b"\x1f\x8b\x08 and so on".to_vec(), "bad.tar is compressed with gzip"),
    ] {
        let world = World::folder();
        world.put("bad.tar", bad);
        world.put("good.tar", tar_of(&["g.jpg"]));
        let e = world.adopt(&world.options()).unwrap_err();
        assert!(e.to_string().contains(why), "{e}");
        assert!(world.runtime.block_on(manifest::versions(&world.place)).unwrap().is_empty());

        let report = world.skipping();
        assert_eq!(report.skipped, 1);
        assert!(report.messages[0].contains(why), "{:?}", report.messages);
        let files = if why.contains("gzip") {
            1
        } else if why.contains("twice") {
            3
        } else {
            2
        };
        assert_eq!(report.files, files, "{why}");
        // What was adopted is whole.
        let verified =
            crate::verify::verify(&world.data(), 2, world.runtime.handle(), &Counts::default()).unwrap();
        assert_eq!(verified.messages, Vec::<String>::new());
    }
}

#[test]
fn compressed_tars_and_empty_places_are_refused_with_the_mend() {
    let world = World::folder();
    let e = world.adopt(&world.options()).unwrap_err();
    assert!(e.kind() == Kind::NotFound && e.to_string().contains("`granary pack`"), "{e}");
    world.put("x.tar.zst", vec![0]);
    let e = world.adopt(&world.options()).unwrap_err();
    assert!(
        e.kind() == Kind::Unsupported && e.to_string().contains("x.tar.zst is compressed with zstd"),
        "{e}"
    );
}

#[test]
fn a_tar_that_changed_is_read_again() {
    let world = World::folder();
    world.put("a.tar", tar_of(&["a.jpg"]));
    world.adopt(&world.options()).unwrap();
    // Of the same length, and newer than its index.
    world.put("a.tar", tar_of(&["b.jpg"]));
    let path = world.dir.path().join("a.tar");
    let later = std::fs::metadata(&path).unwrap().modified().unwrap() + std::time::Duration::from_secs(9);
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
    let report = world.adopt(&world.options()).unwrap();
    assert_eq!((report.version, report.kept), (2, 0));
    assert!(world.runtime.block_on(world.data().find(b"b.jpg")).unwrap().is_some());
}
