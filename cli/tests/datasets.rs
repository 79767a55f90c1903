//! `granary index`, `verify`, `ls`, `cat` and `unpack` as a user runs them.

#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::World;
use serde_json::Value;

/// A tar of a folder, as GNU tar makes it in the order of names.
fn tar(from: &Path, to: &Path) {
    let mut tar = Command::new("tar");
    tar.arg("-c").arg("--sort=name").arg("-f").arg(to).arg("-C").arg(from).arg(".");
    assert!(tar.status().unwrap().success());
}

/// A world with a folder `tars` of two tars, `train-0.tar` and `train-1.tar`, of three samples each.
fn world() -> World {
    let world = World::empty();
    for shard in 0..2 {
        let from = world.path(&format!("from-{shard}"));
        fs::create_dir_all(from.join("train")).unwrap();
        for n in 0..3 {
            let key = format!("train/{shard}{n:03}");
            fs::write(from.join(format!("{key}.cls")), format!("{n}")).unwrap();
            fs::write(from.join(format!("{key}.jpg")), key.repeat(200)).unwrap();
        }
        fs::create_dir_all(world.path("tars")).unwrap();
        tar(&from, &world.path(&format!("tars/train-{shard}.tar")));
    }
    world
}

fn text(world: &World, name: &str) -> String {
    world.path(name).to_str().unwrap().to_owned()
}

fn json(out: &str) -> Value {
    serde_json::from_str(out).unwrap_or_else(|e| panic!("{e}: {out}"))
}

#[test]
fn tars_are_indexed_listed_read_verified_and_unpacked() {
    let w = world();
    let data = text(&w, "tars");
    let before = fs::read(w.path("tars/train-0.tar")).unwrap();
    let out = w.run(&["index", &data]).unwrap_ok();
    assert!(out.starts_with("made version 1 of ") && out.contains("12 files in 6 samples"), "{out}");
    assert!(out.contains("in 2 shards"), "{out}");
    assert_eq!(fs::read(w.path("tars/train-0.tar")).unwrap(), before);

    let listed = w.run(&["ls", &data]).unwrap_ok();
    assert_eq!(listed.lines().count(), 12);
    assert!(listed.starts_with("train/0000.cls\ntrain/0000.jpg\n"), "{listed}");
    assert_eq!(w.run(&["ls", &data, "train/1001"]).unwrap_ok(), "train/1001.cls\ntrain/1001.jpg\n");
    let long = w.run(&["ls", "-l", &data]).unwrap_ok();
    assert!(long.starts_with("rw-r--r--") && long.contains(" 2000 "), "{long}");
    let line = w.run(&["ls", "--json", &data, "train/1002.jpg"]).unwrap_ok();
    let line = json(&line);
    assert_eq!((&line["shard"], &line["sample"]), (&"train-1.tar".into(), &2.into()));
    let (at, len) = (line["offset"].as_u64().unwrap() as usize, line["bytes"].as_u64().unwrap() as usize);
    let bytes = &fs::read(w.path("tars/train-1.tar")).unwrap()[at..at + len];
    assert_eq!(bytes, "train/1002".repeat(200).as_bytes());

    let read = w.run(&["cat", &data, "train/0002.cls", "train/1001.jpg"]).unwrap_ok();
    assert_eq!(read, format!("2{}", "train/1001".repeat(200)));
    let verified = w.run(&["verify", &data]).unwrap_ok();
    assert!(
        verified.starts_with("version 1: 12 files in 2 shards") && verified.contains(" 0 faults"),
        "{verified}"
    );

    let to = text(&w, "made/tree");
    let unpacked = w.run(&["unpack", &data, &to]).unwrap_ok();
    assert_eq!(unpacked, "12 files, 11.7 KiB\n");
    for shard in 0..2 {
        let diff =
            Command::new("diff").arg("-r").arg(w.path(&format!("from-{shard}"))).arg(&to).output().unwrap();
        let only = String::from_utf8(diff.stdout).unwrap();
        assert!(only.lines().all(|line| line.starts_with(&format!("Only in {to}"))), "{only}");
    }
    assert!(w.run(&["unpack", &data, &to]).unwrap_ok().contains("12 of them were there"));
}

#[test]
fn a_tar_alone_is_listed_and_read() {
    let w = world();
    let alone = text(&w, "tars/train-0.tar");
    for indexed in [false, true] {
        assert_eq!(w.run(&["cat", &alone, "train/0001.cls"]).unwrap_ok(), "1", "{indexed}");
        assert_eq!(w.run(&["ls", &alone]).unwrap_ok().lines().count(), 6);
        w.run(&["cat", &alone, "nothing"]).refused(1, &["has no file \"nothing\"", "`granary ls`"]);
        w.run(&["ls", "--version", "1", &alone]).refused(2, &["is a tar"]);
        w.run(&["index", &alone]).unwrap_ok();
    }
}

#[test]
fn versions_are_kept_and_programs_read_json() {
    let w = world();
    let data = text(&w, "tars");
    let first = w.run(&["index", "--json", &text(&w, "tars/train-1.tar")]).unwrap_ok();
    assert_eq!((&json(&first)["version"], &json(&first)["samples"]), (&1.into(), &3.into()));
    let second = json(&w.run(&["index", "--json", &data]).unwrap_ok());
    assert_eq!((&second["version"], &second["kept"], &second["files"]), (&2.into(), &1.into(), &12.into()));
    let third = w.run(&["index", &data]).unwrap_ok();
    assert!(third.starts_with("nothing changed since version 2"), "{third}");
    let versions = w.run(&["ls", "--versions", &data]).unwrap_ok();
    assert_eq!(versions.lines().count(), 3, "{versions}");
    assert_eq!(w.run(&["ls", "--version", "1", &data]).unwrap_ok().lines().count(), 6);
    w.run(&["ls", "--version", "9", &data]).refused(1, &["has no version 9", "--versions"]);
    let unpacked = json(&w.run(&["unpack", "--json", "--version", "1", &data, &text(&w, "to")]).unwrap_ok());
    assert_eq!((&unpacked["files"], &unpacked["version"]), (&6.into(), &1.into()));
    assert_eq!(json(&w.run(&["verify", "--json", &data]).unwrap_ok())["faults"], 0);
}

#[test]
fn a_flipped_byte_is_told_with_tar_and_offset() {
    let w = world();
    let data = text(&w, "tars");
    w.run(&["index", &data]).unwrap_ok();
    let path = w.path("tars/train-1.tar");
    let line = json(&w.run(&["ls", "--json", &data, "train/1001.jpg"]).unwrap_ok());
    let at = line["offset"].as_u64().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[at as usize + 7] ^= 1;
    fs::write(&path, bytes).unwrap();
    let place = format!("train-1.tar at byte {at}");
    w.run(&["verify", &data]).refused(1, &[&place, "train/1001.jpg", "damaged in 1 place"]);
    let json_out = w.run(&["verify", "--json", &data]);
    json_out.refused(1, &["damaged in 1 place"]);
    assert_eq!(json(&json_out.out)["faults"], 1);
    w.run(&["cat", &data, "train/1001.jpg"]).refused(1, &[&place, "do not match their checksum"]);
    assert_eq!(w.run(&["cat", &data, "train/1001.jpg"]).out, "");
    w.run(&["unpack", &data, &text(&w, "to")]).refused(1, &[&place, "--skip-errors"]);
    assert!(!w.path("to/train/1001.jpg").exists());
    let ran = w.run(&["unpack", "--skip-errors", &data, &text(&w, "to")]);
    assert!(ran.err.contains("it is left out"), "{}", ran.err);
    assert!(ran.unwrap_ok().starts_with("11 files"));
}

#[test]
fn what_cannot_be_adopted_is_refused_with_the_mend() {
    let w = world();
    let cut = text(&w, "tars/cut.tar");
    let whole = fs::read(w.path("tars/train-0.tar")).unwrap();
    fs::write(&cut, &whole[..2000]).unwrap();
    let data = text(&w, "tars");
    w.run(&["index", &data]).refused(1, &["cut.tar is cut", "byte"]);
    let ran = w.run(&["index", "--skip-errors", &data]);
    assert!(ran.err.contains("cut.tar is cut"), "{}", ran.err);
    // The directory, and the first file, are before the cut.
    assert!(ran.unwrap_ok().contains("in 3 shards"));
    assert!(Command::new("gzip").arg("-k").arg(w.path("tars/train-0.tar")).status().unwrap().success());
    let zipped = text(&w, "tars/train-0.tar.gz");
    w.run(&["index", &zipped]).refused(1, &["compressed with gzip", "`granary pack`"]);
    w.run(&["index", &data]).refused(1, &["train-0.tar.gz is compressed"]);
    w.run(&["index", &text(&w, "from-0")]).refused(1, &["has no tar", "`granary pack`"]);
    w.run(&["index", &text(&w, "missing")]).refused(1, &["is not there"]);
    w.run(&["ls", &text(&w, "from-0")]).refused(1, &["holds no data set", "`granary index`"]);
    w.run(&["index", "ftp://x/y"]).refused(2, &["give a folder or s3://bucket/prefix"]);
}

#[test]
fn a_store_that_refuses_ends_with_3() {
    let w = World::empty();
    let s3 = common::CannedS3::new(|_| (403, "AccessDenied"));
    for command in [&["index", "s3://b/x"][..], &["verify", "s3://b/x"], &["ls", "s3://b/x"]] {
        w.run_with(command, &s3.env()).refused(3, &["s3://b/x"]);
    }
}
