use std::path::Path;
use std::sync::Arc;

use granary_core::{Kind, SystemClock};
use tokio::runtime::Runtime;

use super::*;
use crate::adopt::{self, adopt};
use crate::counts::Counts;
use crate::key::Grouping;
use crate::place::{Options, Place};
use crate::tar::{self, Members};

/// What a tar has: path, bytes of payload, type flag.
type Given<'a> = (&'a str, usize, u8);

fn tar_of(entries: &[Given<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for &(path, size, kind) in entries {
        let entry = tar::Entry {
            path: path.as_bytes(),
            target: b"",
            kind,
            size: size as u64,
            mode: 0o755,
            mtime: 1,
            uid: 0,
            gid: 0,
        };
        tar::encode(&entry, &mut out).unwrap();
        out.extend(vec![b'x'; size]);
        out.resize(tar::padded(out.len() as u64) as usize, 0);
    }
    out.extend_from_slice(&tar::END);
    out
}

/// A data set of one tar, adopted as it is.
fn adopted(dir: &Path, entries: &[Given<'_>], skip_errors: bool) -> (DataSet, Runtime) {
    std::fs::write(dir.join("train.tar"), tar_of(entries)).unwrap();
    let place = Place::open(dir.to_str().unwrap(), &Options::default(), Arc::new(SystemClock)).unwrap();
    let runtime = Runtime::new().unwrap();
    let options = adopt::Options {
        grouping: Grouping::Directory,
        skip_errors,
        anew: false,
        threads: 1,
        work_dir: dir.to_owned(),
    };
    adopt(&place, None, &options, runtime.handle(), &Counts::default()).unwrap();
    let data = runtime.block_on(DataSet::open(place, None)).unwrap();
    (data, runtime)
}

const BOTH: Wanted = Wanted { energon: true, dali: true };

fn numbers(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks(8).map(|b| u64::from_le_bytes(b.try_into().unwrap())).collect()
}

/// The first headers of a tar's files, by a walk through all of it.
fn headers(tar: &[u8]) -> Vec<(String, u64, u64)> {
    let mut members = Members::new(tar, "t");
    let mut all = Vec::new();
    while let Some(member) = members.next_member().unwrap() {
        if member.is_file() {
            all.push((String::from_utf8(member.path).unwrap(), members.header_at(), members.at()));
        }
    }
    all
}

#[test]
fn both_tell_where_the_samples_of_a_tar_are() {
    let dir = tempfile::tempdir().unwrap();
    let long = format!("{}/{}.jpg", "d".repeat(120), "n".repeat(120));
    let entries: [Given<'_>; 9] = [
        ("a/", 0, b'5'),
        ("a/1.cls", 1, b'0'),
        ("a/1.seg.png", 700, b'0'),
        ("a/README", 5, b'0'),
        ("b/", 0, b'5'),
        ("a/2.cls", 0, b'0'),
        (&long, 513, b'0'),
        ("__meta__/x.json", 3, b'0'),
        ("z/", 0, b'5'),
    ];
    let (data, runtime) = adopted(dir.path(), &entries, false);
    let written = write(&data, BOTH, runtime.handle()).unwrap();
    assert_eq!(written, Written { energon: 1, dali: 1 });
    let tar = std::fs::read(dir.path().join("train.tar")).unwrap();
    let all = headers(&tar);
    let at = |path: &str| all.iter().find(|(p, ..)| p == path).unwrap();
    let end = at("__meta__/x.json").2 + 512;
    let energon = numbers(&std::fs::read(dir.path().join("train.tar.idx")).unwrap());
    assert_eq!(energon, [at("a/1.cls").1, at("a/2.cls").1, at(&long).1, end]);
    assert!(at(&long).2 - at(&long).1 > 512, "with the block of its long name");
    let dali = std::fs::read_to_string(dir.path().join("train.idx")).unwrap();
    let line = |files: &[(&str, &str, u64)]| {
        let of = |&(extension, path, size): &(&str, &str, u64)| {
            format!("{extension} {} {size} {path}", at(path).2)
        };
        files.iter().map(of).collect::<Vec<_>>().join(" ")
    };
    let wanted = [
        "v1.2 4".to_owned(),
        line(&[("cls", "a/1.cls", 1), ("seg.png", "a/1.seg.png", 700)]),
        line(&[("cls", "a/2.cls", 0)]),
        line(&[("jpg", &long, 513)]),
        line(&[("json", "__meta__/x.json", 3)]),
    ];
    assert_eq!(dali, wanted.join("\n") + "\n");
    // Again the same bytes.
    let before = (energon, dali);
    write(&data, BOTH, runtime.handle()).unwrap();
    let energon = numbers(&std::fs::read(dir.path().join("train.tar.idx")).unwrap());
    assert_eq!(before, (energon, std::fs::read_to_string(dir.path().join("train.idx")).unwrap()));
}

#[test]
fn a_file_that_the_index_leaves_out_is_no_part_of_the_next_sample() {
    let dir = tempfile::tempdir().unwrap();
    let entries = [("a.jpg", 9, b'0'), ("a.jpg", 1500, b'0'), ("b.jpg", 9, b'0')];
    let (data, runtime) = adopted(dir.path(), &entries, true);
    write(&data, BOTH, runtime.handle()).unwrap();
    let energon = numbers(&std::fs::read(dir.path().join("train.tar.idx")).unwrap());
    assert_eq!(energon, [0, 1024 + 512 + 1536, 1024 + 2048 + 1024]);
}

#[test]
fn what_cannot_be_said_is_refused_and_nothing_is_written_of_a_tar_without_samples() {
    let dir = tempfile::tempdir().unwrap();
    let (data, runtime) = adopted(dir.path(), &[("a b.jpg", 1, b'0')], false);
    let e = write(&data, BOTH, runtime.handle()).unwrap_err();
    assert!(e.kind() == Kind::Unsupported && e.to_string().contains("\"a b.jpg\""), "{e}");
    assert!(e.to_string().contains("train.tar"), "{e}");
    assert!(!dir.path().join("train.idx").exists());

    let dir = tempfile::tempdir().unwrap();
    let (data, runtime) = adopted(dir.path(), &[("README", 1, b'0'), ("x.", 1, b'0')], false);
    assert_eq!(write(&data, BOTH, runtime.handle()).unwrap(), Written { energon: 1, dali: 0 });
    let dir = tempfile::tempdir().unwrap();
    let (data, runtime) = adopted(dir.path(), &[("d/", 0, b'5')], false);
    assert_eq!(write(&data, BOTH, runtime.handle()).unwrap(), Written::default());
    assert!(!dir.path().join("train.tar.idx").exists());
}
