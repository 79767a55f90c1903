//! `granary pack` as a user runs it: stopped at every place it may be stopped at, what it says, what it refuses.

#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use common::World;
use granary_core::Failpoint;

/// A tree of a few shards, one of them of several segments. The same each time, times too.
fn fill(root: &Path) {
    for n in 0..60u64 {
        for (extension, len) in [("jpg", 1_000 + n * 311 % 9_000), ("cls", 3)] {
            let bytes: Vec<u8> = (0..len).map(|i| (i * n + i / 251) as u8).collect();
            write(root, &format!("{:02}/{n:04}.{extension}", n % 5), &bytes);
        }
    }
    write(root, "large.bin", &(0..5_000_000u32).map(|i| (i / 999) as u8).collect::<Vec<_>>());
    fs::create_dir_all(root.join("empty")).unwrap();
    for dir in ["00", "01", "02", "03", "04", "empty"] {
        let time = UNIX_EPOCH + Duration::from_secs(1_700_000_001);
        fs::File::open(root.join(dir)).unwrap().set_modified(time).unwrap();
    }
}

fn write(root: &Path, name: &str, bytes: &[u8]) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(UNIX_EPOCH + Duration::from_secs(1_700_000_000)).unwrap();
}

/// Names and bytes of what a data set is.
fn tree(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for sub in ["shards", "manifests"] {
        let Ok(entries) = fs::read_dir(root.join(sub)) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            all.insert(
                format!("{sub}/{}", path.file_name().unwrap().to_str().unwrap()),
                fs::read(&path).unwrap(),
            );
        }
    }
    all
}

/// Files and directories.
fn below(root: &Path) -> usize {
    let entries = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| 1 + if path.is_dir() { below(&path) } else { 0 }).sum()
}

#[test]
fn killed_anywhere_it_goes_on_and_the_bytes_are_the_same() {
    let w = World::empty();
    fill(&w.path("src"));
    let pack = |src: &str, to: &str| {
        let (src, to) = (w.path(src), w.path(to));
        let mut command =
            w.command(&["pack", "--threads", "2", "--shard-size", "128KiB", "--shuffle", "--seed", "7"]);
        command.args([&src, &to]);
        command
    };
    assert!(pack("src", "whole").status().unwrap().success());
    let whole = tree(&w.path("whole"));
    assert!(whole.len() > 8, "several shards");
    let mut stopped = 0;
    for &point in Failpoint::ALL.iter().filter(|point| !point.is_of_node()) {
        let deletes = point == Failpoint::PackAfterDelete;
        for times in [1, 2] {
            let to = format!("{}-{times}", point.name());
            let src = if deletes { format!("src-{times}") } else { "src".to_owned() };
            if deletes {
                fill(&w.path(&src));
            }
            let mut command = pack(&src, &to);
            command.env("GRANARY_FAILPOINTS", format!("{}=abort@{times}", point.name()));
            if deletes {
                command.arg("--delete-source");
            }
            let ended = command.output().unwrap();
            if times == 1 || ended.status.signal().is_some() {
                assert_eq!(ended.status.signal(), Some(9), "{} was not come to: {ended:?}", point.name());
                stopped += 1;
            }
            let now = tree(&w.path(&to));
            let half = now.iter().filter(|(name, bytes)| whole.get(*name) != Some(*bytes)).count();
            assert_eq!(half, 0, "{}: what has a name is whole", point.name());
            let again = match deletes {
                // All of it is in the data set, so the rest of the source may go.
                true => pack(&src, &to).args(["--append", "--delete-source", "--json"]).output().unwrap(),
                false => pack(&src, &to).args(["--verify", "--json"]).output().unwrap(),
            };
            assert!(again.status.success(), "{}: {}", point.name(), String::from_utf8_lossy(&again.stderr));
            let told: serde_json::Value = serde_json::from_slice(&again.stdout).unwrap();
            if point == Failpoint::PackAfterIndex {
                assert!(told["shards_found"].as_u64() >= Some(1), "a finished shard is kept: {told}");
            }
            assert!(tree(&w.path(&to)) == whole, "{} leaves other bytes", point.name());
            if deletes {
                assert_eq!(below(&w.path(&src)), 0, "{told}");
            }
        }
    }
    assert!(stopped >= 12, "{stopped}");
}

#[test]
fn what_it_did_is_said_for_people_and_for_programs() {
    let w = World::empty();
    fill(&w.path("src"));
    let (src, dst) = (w.path("src"), w.path("dst"));
    let (src, dst) = (src.to_str().unwrap(), dst.to_str().unwrap());
    let out = w.run(&["pack", src, dst, "--verify"]).unwrap_ok();
    assert!(
        out.contains("version 1: 121 files in 61 samples,") && out.contains("every byte read back"),
        "{out}"
    );
    let ran = w.run(&["pack", src, dst, "--json"]).unwrap_ok();
    let told: serde_json::Value = serde_json::from_str(&ran).unwrap();
    assert_eq!(
        (told["version"].as_u64(), told["files"].as_u64(), told["skipped"].as_u64()),
        (Some(1), Some(121), Some(0))
    );
    write(&w.path("src"), "odd\nname", b"x");
    write(&w.path("src"), "more/1.jpg", b"x");
    let ran = w.run(&["pack", src, dst, "--append"]);
    assert!(ran.code == 2 && ran.err.contains("--skip-errors"), "{}", ran.err);
    let out = w.run(&["pack", src, dst, "--append", "--skip-errors"]).unwrap_ok();
    assert!(out.contains("left out: odd\\nname: ") || out.contains("left out: odd\nname"), "{out}");
    assert!(
        out.contains("version 2: 1 files in 1 samples") && out.contains("121 files were there already"),
        "{out}"
    );
}

#[test]
fn what_cannot_be_is_refused_with_the_mend() {
    let w = World::empty();
    fill(&w.path("src"));
    let (src, dst) = (w.path("src"), w.path("dst"));
    let (src, dst) = (src.to_str().unwrap(), dst.to_str().unwrap());
    let inside = format!("{src}/out");
    let file = format!("{src}/large.bin");
    for (args, why) in [
        (vec!["pack", src, &inside], "lies within"),
        (vec!["pack", src, src], "lies within"),
        (vec!["pack", &file, dst], "--from"),
        (vec!["pack", src, dst, "--shard-size", "1KiB"], "64 KiB to 1 TiB"),
        (vec!["pack", src, dst, "--memory", "1MiB"], "64 MiB"),
        (vec!["pack", src, dst, "--threads", "0"], "0 threads"),
        (vec!["pack", src, dst, "--seed", "1"], "--shuffle"),
        (vec!["pack", src, dst, "--append", "--replace"], "--append"),
        (vec!["pack", "--from", "tar", src, dst, "--delete-source"], "--delete-source"),
        (vec!["pack", "--from", "tar", src, dst], "are looked for"),
        (vec!["pack", "/nonexistent", dst], "/nonexistent"),
    ] {
        let ran = w.run(&args);
        assert!(ran.code != 0 && ran.err.contains(why), "{args:?}: {} {}", ran.code, ran.err);
    }
    assert!(tree(&w.path("dst")).is_empty() && !w.path("src/out").exists());
}
