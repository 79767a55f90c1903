//! Shards between programs: ours are read by GNU tar, Python's tarfile, webdataset and Hugging Face datasets, theirs are adopted.
//!
//! Python and its packages come from `tools/python-datasets`, which fetches them once.

#![allow(clippy::unwrap_used)] // test code, though not inside a #[test] function

mod python;

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use granary_core::SystemClock;
use granary_packer::adopt::{Options, adopt};
use granary_packer::counts::Counts;
use granary_packer::dataset::DataSet;
use granary_packer::key::Grouping;
use granary_packer::place::{Options as PlaceOptions, Place};
use granary_packer::shard::{Identity, Writer};
use granary_packer::tar::Entry;
use granary_packer::verify::verify;
use python::{hex, output, python, text};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

const MTIME: i64 = 1_600_000_000;

fn content(path: &[u8]) -> Vec<u8> {
    // From nothing to more than a block, and bytes that are no text.
    path.repeat(path.len() % 4 * 30).iter().map(|b| b ^ 0x80).collect()
}

/// Writes a shard of ours with files of these paths, then others.
fn write_shard(to: &Path, paths: &[Vec<u8>], others: &[(&str, u8, &str)]) {
    let mut shard = Writer::new(Vec::new(), Grouping::Stem, &std::env::temp_dir());
    let entry = |path, kind, target, size| Entry {
        path,
        target,
        kind,
        size,
        mode: 0o640,
        mtime: MTIME,
        uid: 3_000_000,
        gid: 5,
    };
    for path in paths {
        let payload = content(path);
        shard.file(&entry(path, b'0', b"", payload.len() as u64), &payload).unwrap();
    }
    for (path, kind, target) in others {
        shard.other(&entry(path.as_bytes(), *kind, target.as_bytes(), 0)).unwrap();
    }
    let name = to.file_name().unwrap().to_str().unwrap().to_owned();
    let finished = shard.finish(Identity { data_set: [1; 16], number: 0, name }).unwrap();
    std::fs::write(to, finished.out).unwrap();
}

/// Paths that put each way of saying a name to the test.
fn odd_paths() -> Vec<Vec<u8>> {
    let mut paths: Vec<Vec<u8>> =
        ["a.txt", "dir/b.c.d", "README", "with space/new\nline", "ü/日本.bin", ".hidden"]
            .map(|p| p.as_bytes().to_vec())
            .into();
    // In `prefix/name`; too long for that; without a slash where one is wanted; as long as a path may be, of names as long as may be.
    paths.push([&b"p".repeat(150)[..], b"/", &b"n".repeat(99)].concat());
    paths.push([&b"q".repeat(150)[..], b"/", &b"m".repeat(160)].concat());
    paths.push(b"x".repeat(101));
    paths.push([b"d".repeat(200), b"e".repeat(200), b"f".repeat(200)].join(&b'/'));
    paths.push(b"not-utf8-\xff\xfe.bin".to_vec());
    paths
}

#[test]
fn gnu_tar_reads_our_shards() {
    let dir = tempfile::tempdir().unwrap();
    let shard = dir.path().join("s.tar");
    let paths = odd_paths();
    let long = "t/".repeat(80);
    write_shard(
        &shard,
        &paths,
        &[("empty", b'5', ""), ("link", b'2', "a.txt"), ("far", b'2', &long), ("hard", b'1', "a.txt")],
    );
    let to = dir.path().join("to");
    std::fs::create_dir(&to).unwrap();
    let tar =
        output(Command::new("tar").args(["-x", "--no-same-owner", "-f", text(&shard), "-C", text(&to)]));
    assert_eq!(tar, "");
    for path in &paths {
        let file = to.join(std::ffi::OsStr::from_bytes(path));
        assert_eq!(std::fs::read(&file).unwrap(), content(path), "{}", file.display());
        let about = file.metadata().unwrap();
        assert_eq!((about.mode() & 0o777, about.mtime()), (0o640, MTIME));
    }
    assert!(to.join("empty").is_dir());
    assert_eq!(to.join("far").read_link().unwrap(), PathBuf::from(long.as_str()));
    assert_eq!(to.join("hard").metadata().unwrap().nlink(), 2);
    // Owners beyond the octal digits, and nothing said about what lies behind the end.
    let listed =
        Command::new("tar").args(["-t", "-v", "--numeric-owner", "-f", text(&shard)]).output().unwrap();
    assert!(String::from_utf8_lossy(&listed.stdout).contains("3000000/5"));
    assert_eq!(String::from_utf8_lossy(&listed.stderr), "");
}

#[test]
fn python_tarfile_reads_our_shards() {
    let dir = tempfile::tempdir().unwrap();
    let shard = dir.path().join("s.tar");
    let paths = odd_paths();
    write_shard(&shard, &paths, &[("link", b'2', "a.txt")]);
    let mut expected: Vec<Value> =
        paths.iter().map(|p| json!([hex(p), "0", 0o640, MTIME, "", hex(&content(p))])).collect();
    expected.push(json!([hex(b"link"), "2", 0o640, MTIME, hex(b"a.txt"), ""]));
    for mode in ["r:", "r|", "r|*"] {
        assert_eq!(python(&["read_tarfile", mode, text(&shard)]), Value::from(expected.clone()), "{mode}");
    }
}

/// Samples of two files, some with long names, as their readers give them.
fn samples(dir: &Path) -> (Vec<PathBuf>, Vec<Value>) {
    let (mut shards, mut expected) = (Vec::new(), Vec::new());
    for shard in 0..2 {
        let keys: Vec<String> =
            (0..20).map(|n| format!("{}/{shard}-{n:03}", "long-".repeat(n * 3))).collect();
        let extensions = ["bin", "part.bin"];
        let paths: Vec<Vec<u8>> = keys
            .iter()
            .flat_map(|key| extensions.map(|extension| format!("k{key}.{extension}").into_bytes()))
            .collect();
        let path = dir.join(format!("{shard:06}.tar"));
        write_shard(&path, &paths, &[("link", b'2', "x")]);
        shards.push(path);
        for key in keys {
            let file = |extension: &str| hex(&content(format!("k{key}.{extension}").as_bytes()));
            expected.push(json!([format!("k{key}"), {"bin": file("bin"), "part.bin": file("part.bin")}]));
        }
    }
    (shards, expected)
}

#[test]
fn webdataset_reads_our_shards() {
    let dir = tempfile::tempdir().unwrap();
    let (shards, expected) = samples(dir.path());
    let read = python(&["read_webdataset", text(&shards[0]), text(&shards[1])]);
    assert_eq!(read, Value::from(expected));
}

#[test]
fn huggingface_datasets_reads_our_shards() {
    let dir = tempfile::tempdir().unwrap();
    let (shards, expected) = samples(dir.path());
    let home = dir.path().join("home");
    let read = python(&["read_huggingface", text(&home), text(&shards[0]), text(&shards[1])]);
    assert_eq!(read, Value::from(expected));
}

/// Bytes by shard and path.
type Files = BTreeMap<(String, Vec<u8>), Vec<u8>>;

/// Adopts the tars of a folder and returns each file's bytes by shard and path, as the indexes lead to them.
fn adopted(dir: &Path) -> (DataSet, Files) {
    let runtime = Runtime::new().unwrap();
    let _inside = runtime.enter();
    let place = Place::open(text(dir), &PlaceOptions::default(), Arc::new(SystemClock)).unwrap();
    let options = Options {
        grouping: Grouping::Stem,
        skip_errors: false,
        anew: false,
        threads: 2,
        work_dir: std::env::temp_dir(),
    };
    adopt(&place, None, &options, runtime.handle(), &Counts::default()).unwrap();
    let data = runtime.block_on(DataSet::open(place, None)).unwrap();
    let report = verify(&data, 2, runtime.handle(), &Counts::default()).unwrap();
    assert_eq!((report.messages, report.left_out), (vec![], 0));
    let mut all = BTreeMap::new();
    for (n, shard) in data.manifest().shards().iter().enumerate() {
        let tar = std::fs::read(dir.join(&shard.path)).unwrap();
        let index = data.index_now(n as u32).unwrap().unwrap();
        for file in (0..index.file_count()).map(|file| index.file(file).unwrap()) {
            let bytes = &tar[file.offset as usize..][..file.length as usize];
            assert_eq!(granary_core::crc32c(bytes), file.crc32c);
            all.insert((shard.path.clone(), file.path.to_vec()), bytes.to_vec());
        }
    }
    (data, all)
}

#[test]
fn our_own_shards_are_adopted_back() {
    let dir = tempfile::tempdir().unwrap();
    write_shard(&dir.path().join("s.tar"), &odd_paths(), &[("link", b'2', "a.txt")]);
    let expected = odd_paths()
        .into_iter()
        .map(|p| (("s.tar".to_owned(), p.clone()), content(&p)))
        .collect::<BTreeMap<_, _>>();
    assert_eq!(adopted(dir.path()).1, expected);
}

#[test]
fn tars_of_gnu_tar_are_adopted() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    let long = format!("{}/{}", "p".repeat(60), "n".repeat(80));
    std::fs::create_dir_all(from.join("p".repeat(60))).unwrap();
    for name in ["a.txt", "b.txt", &long, "ü.bin"] {
        std::fs::write(from.join(name), name).unwrap();
    }
    std::os::unix::fs::symlink("a.txt", from.join("link")).unwrap();
    std::fs::hard_link(from.join("a.txt"), from.join("z-hard")).unwrap();
    let tars = dir.path().join("tars");
    std::fs::create_dir(&tars).unwrap();
    for format in ["v7", "oldgnu", "gnu", "ustar", "posix"] {
        let to = tars.join(format!("{format}.tar"));
        let mut tar = Command::new("tar");
        tar.args(["-c", "--sort=name", &format!("--format={format}"), "-f", text(&to), "-C", text(&from)]);
        // v7 has no place for the long name.
        if format == "v7" {
            tar.arg(format!("--exclude=./{}", "p".repeat(60)));
        }
        output(tar.arg("."));
    }
    let (data, all) = adopted(&tars);
    for shard in data.manifest().shards() {
        for name in ["a.txt", "b.txt", &long, "ü.bin"] {
            let found = all.get(&(shard.path.clone(), name.as_bytes().to_vec()));
            match shard.path == "v7.tar" && name == long {
                true => assert_eq!(found, None),
                false => assert_eq!(found.map(Vec::as_slice), Some(name.as_bytes()), "{} {name}", shard.path),
            }
        }
    }
    let index = data.index_now(0).unwrap().unwrap();
    let others: Vec<_> = (0..index.other_count()).map(|n| index.other(n).unwrap()).collect();
    assert!(others.iter().any(|o| (o.kind, o.path, o.target) == (b'2', b"link", b"a.txt")), "{others:?}");
    assert!(others.iter().any(|o| (o.kind, o.path, o.target) == (b'1', b"z-hard", b"./a.txt")), "{others:?}");
}

#[test]
fn sparse_tars_of_gnu_tar_are_refused() {
    for format in ["gnu", "posix"] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::File::create(dir.path().join("holes")).unwrap().set_len(1 << 20).unwrap();
        let to = dir.path().join("s.tar");
        output(Command::new("tar").args([
            "-c",
            "--sparse",
            &format!("--format={format}"),
            "-f",
            text(&to),
            "-C",
            text(dir.path()),
            "holes",
        ]));
        let runtime = Runtime::new().unwrap();
        let place = Place::open(text(dir.path()), &PlaceOptions::default(), Arc::new(SystemClock)).unwrap();
        let options = Options {
            grouping: Grouping::Stem,
            skip_errors: false,
            anew: false,
            threads: 1,
            work_dir: std::env::temp_dir(),
        };
        let e = adopt(&place, None, &options, runtime.handle(), &Counts::default()).unwrap_err();
        assert!(e.to_string().contains("s.tar at byte") && e.to_string().contains("sparse file"), "{e}");
    }
}

#[test]
fn tars_of_python_are_adopted() {
    let dir = tempfile::tempdir().unwrap();
    let names = [
        "a.txt".to_owned(),
        format!("{}/{}", "p".repeat(60), "n".repeat(80)),
        "ü.bin".to_owned(),
        "y".repeat(200),
    ];
    for format in ["ustar", "gnu", "pax"] {
        // What ustar cannot say, Python's does not write.
        let names = if format == "ustar" { &names[..3] } else { &names[..] };
        let path = dir.path().join(format!("{format}.tar"));
        python(&["write_tarfile", format, text(&path), &json!(names).to_string()]);
    }
    let (data, all) = adopted(dir.path());
    assert_eq!(all.len(), 11);
    assert!(all.iter().all(|((_, path), bytes)| path == bytes));
    let index = data.index_now(1).unwrap().unwrap();
    assert_eq!(
        (data.manifest().shards()[1].path.as_str(), index.file(0).unwrap().mtime),
        ("pax.tar", 1_234_567_890)
    );
}

#[test]
fn shards_of_webdataset_are_adopted() {
    let dir = tempfile::tempdir().unwrap();
    let keys: Vec<String> = (0..30).map(|n| format!("train/{n:04}{}", "x".repeat(n * 5))).collect();
    python(&["write_webdataset", text(&dir.path().join("000000.tar")), &json!(keys).to_string()]);
    let (data, all) = adopted(dir.path());
    assert_eq!((all.len(), data.manifest().sample_count()), (60, 30));
    assert!(all.iter().all(|((_, path), bytes)| path == bytes), "{all:?}");
    let index = data.index_now(0).unwrap().unwrap();
    assert_eq!(index.sample_key(29).unwrap(), keys[29].as_bytes());
}
