use std::path::Path;
use std::sync::Arc;

use granary_core::SystemClock;
use tokio::runtime::Runtime;

use super::*;
use crate::key::Grouping;
use crate::manifest::{Manifest, Runs};
use crate::place::{Options, Place};
use crate::shard::{Identity, Writer};
use crate::tar::Entry;

/// A data set of one shard with three files, and its place.
fn made(dir: &Path) -> (Place, Manifest, Runtime) {
    let place = Place::open(dir.to_str().unwrap(), &Options::default(), Arc::new(SystemClock)).unwrap();
    let mut shard = Writer::new(Vec::new(), Grouping::Stem, dir);
    for path in ["a.jpg", "a.txt", "b.jpg"] {
        let entry = Entry {
            path: path.as_bytes(),
            target: b"",
            kind: b'0',
            size: 600,
            mode: 0o644,
            mtime: 1,
            uid: 0,
            gid: 0,
        };
        shard.file(&entry, &[path.as_bytes()[0]; 600]).unwrap();
    }
    let path = "shards/000000.tar".to_owned();
    let finished = shard.finish(Identity { data_set: [0; 16], number: 0, name: path.clone() }).unwrap();
    let line = Shard {
        path,
        bytes: finished.bytes,
        files: 3,
        samples: 2,
        index_bytes: finished.index.bytes(),
        index_crc32c: finished.index.crc32c(),
        dead_samples: Runs::default(),
        dead_files: Runs::default(),
    };
    let manifest = Manifest::new(1, [0; 16], Grouping::Stem, "pack", vec![line.clone()]).unwrap();
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        place.put(&line.path, finished.out.into()).await.unwrap();
        place.put(&line.index_path(), finished.index.to_bytes().unwrap()).await.unwrap();
        manifest::write(&place, &manifest).await.unwrap();
    });
    (place, manifest, runtime)
}

fn report(place: &Place, runtime: &Runtime) -> Report {
    let data = runtime.block_on(DataSet::open(place.clone(), None)).unwrap();
    verify(&data, 2, runtime.handle(), &Counts::default()).unwrap()
}

#[test]
fn a_whole_data_set_has_no_fault() {
    let dir = tempfile::tempdir().unwrap();
    let (place, manifest, runtime) = made(dir.path());
    let report = report(&place, &runtime);
    assert_eq!(report.messages, Vec::<String>::new());
    assert_eq!((report.files, report.bytes, report.faults), (3, manifest.bytes(), 0));
}

#[test]
fn every_flipped_byte_that_counts_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let (place, _, runtime) = made(dir.path());
    let path = place.local_path("shards/000000.tar").unwrap();
    let good = std::fs::read(&path).unwrap();
    // Headers, payloads, padding, end mark and trailer.
    for at in (0..good.len()).step_by(7) {
        let mut bad = good.clone();
        bad[at] ^= 0x20;
        std::fs::write(&path, &bad).unwrap();
        let report = report(&place, &runtime);
        assert!(report.faults > 0, "byte {at} was not found");
        // What pads a payload belongs to no entry: its frame tells.
        if at < 3 * 1536 && (512 + 600..1536).contains(&(at % 1536)) {
            let of_frame =
                "000000.tar at byte 0: the 5632 bytes from there do not match the checksums of their frames";
            assert!(report.messages[0].contains(of_frame), "{:?}", report.messages);
        }
    }
}

#[test]
fn damage_is_told_once_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (place, _, runtime) = made(dir.path());
    let path = place.local_path("shards/000000.tar").unwrap();
    let good = std::fs::read(&path).unwrap();
    for at in [512 + 7, 1536 + 100] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        if at == 1536 + 100 {
            // Its mode, with the sum that fits it.
            let sum: u32 =
                (1536..2048).map(|n| if (1684..1692).contains(&n) { 32 } else { u32::from(bad[n]) }).sum();
            bad[1684..1692].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        std::fs::write(&path, &bad).unwrap();
        assert_eq!(report(&place, &runtime).messages.len(), 1, "byte {at}");
    }
}

#[test]
fn what_is_missing_is_found() {
    let dir = tempfile::tempdir().unwrap();
    for (name, why) in [("shards/000000.gidx", "000000.gidx"), ("shards/000000.tar", "000000.tar")] {
        let (place, _, runtime) = made(dir.path());
        std::fs::remove_file(place.local_path(name).unwrap()).unwrap();
        let report = report(&place, &runtime);
        assert!(report.faults == 1 && report.messages[0].contains(why), "{:?}", report.messages);
        std::fs::remove_file(place.local_path("manifests/0000000001.jsonl").unwrap()).unwrap();
    }
}

#[test]
fn versions_and_what_they_delete_are_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let (place, manifest, runtime) = made(dir.path());
    let mut shards = manifest.shards().to_vec();
    // Sample 0 has two files, and only one of them is dead.
    shards[0].dead_samples = Runs::from_numbers([0]);
    shards[0].dead_files = Runs::from_numbers([0]);
    runtime.block_on(manifest::write(&place, &manifest.next("delete", shards).unwrap())).unwrap();
    let first = place.local_path("manifests/0000000001.jsonl").unwrap();
    std::fs::write(first, "{}\n").unwrap();
    let report = report(&place, &runtime);
    assert_eq!(report.faults, 2, "{:?}", report.messages);
    assert!(
        report.messages[0].contains("differ at sample 0")
            || report.messages[1].contains("differ at sample 0")
    );
    assert!(
        report.messages.iter().any(|m| m.contains("version 1: manifest is damaged")),
        "{:?}",
        report.messages
    );
}
