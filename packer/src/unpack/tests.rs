use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Arc;

use granary_core::SystemClock;
use granary_store::MemoryStore;
use tokio::runtime::Runtime;

use super::*;
use crate::key::Grouping;
use crate::manifest::{self, Manifest, Runs, Shard};
use crate::place::Place;
use crate::shard::{Identity, Writer};
use crate::tar::Entry;

struct Data {
    place: Place,
    runtime: Runtime,
}

fn entry<'a>(path: &'a str, kind: u8, target: &'a str, size: usize) -> Entry<'a> {
    let (path, target) = (path.as_bytes(), target.as_bytes());
    Entry { path, target, kind, size: size as u64, mode: 0o4640, mtime: 1_600_000_000, uid: 7, gid: 8 }
}

impl Data {
    /// A data set in a bucket, of shards whose entries are `path`, `dir/`, `link -> target` or `hard => target`.
    fn of(shards: &[&[&str]]) -> Data {
        let place = Place::of_store(Arc::new(MemoryStore::new(Arc::new(SystemClock))));
        let data = Data { place, runtime: Runtime::new().unwrap() };
        let lines: Vec<_> =
            shards.iter().enumerate().map(|(n, entries)| data.put(n as u32, entries)).collect();
        let manifest = Manifest::new(1, [0; 16], Grouping::Stem, "pack", lines).unwrap();
        data.runtime.block_on(manifest::write(&data.place, &manifest)).unwrap();
        data
    }

    fn put(&self, number: u32, entries: &[&str]) -> Shard {
        let mut shard = Writer::new(Vec::new(), Grouping::Stem, &std::env::temp_dir());
        for text in entries {
            if let Some((path, target)) = text.split_once(" -> ") {
                shard.other(&entry(path, b'2', target, 0)).unwrap();
            } else if let Some((path, target)) = text.split_once(" => ") {
                shard.other(&entry(path, b'1', target, 0)).unwrap();
            } else if let Some(path) = text.strip_suffix('/') {
                shard.other(&Entry { mode: 0o550, ..entry(path, b'5', "", 0) }).unwrap();
            } else {
                let payload = payload(text);
                shard.file(&entry(text, b'0', "", payload.len()), &payload).unwrap();
            }
        }
        let path = format!("shards/{number:06}.tar");
        let done = shard.finish(Identity { data_set: [0; 16], number, name: path.clone() }).unwrap();
        let line = Shard {
            path,
            bytes: done.bytes,
            files: done.trailer.files,
            samples: done.trailer.samples,
            index_bytes: done.index.bytes(),
            index_crc32c: done.index.crc32c(),
            dead_samples: Runs::default(),
            dead_files: Runs::default(),
        };
        self.runtime.block_on(async {
            self.place.put(&line.path, done.out.into()).await.unwrap();
            self.place.put(&line.index_path(), done.index.to_bytes().unwrap()).await.unwrap();
        });
        line
    }

    fn unpack(&self, to: &Path, options: &Options) -> Result<Report> {
        let data = self.runtime.block_on(DataSet::open(self.place.clone(), None)).unwrap();
        unpack(&data, to, options, self.runtime.handle(), &Counts::default())
    }
}

fn payload(path: &str) -> Vec<u8> {
    match path.contains("large") {
        true => vec![path.len() as u8; TAKEN as usize + 5],
        false => path.as_bytes().to_vec(),
    }
}

/// More than is read at once.
const TAKEN: u64 = 17 << 20;

fn options() -> Options {
    Options { by_shard: false, owners: false, skip_errors: false, threads: 3 }
}

/// Every file and link below a folder: contents, or `-> target`.
fn tree(of: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut folders = vec![of.to_owned()];
    while let Some(folder) = folders.pop() {
        for found in std::fs::read_dir(folder).unwrap() {
            let path = found.unwrap().path();
            let name = path.strip_prefix(of).unwrap().to_str().unwrap().to_owned();
            let about = path.symlink_metadata().unwrap();
            if about.is_dir() {
                folders.push(path);
            } else if about.is_symlink() {
                all.insert(name, format!("-> {}", path.read_link().unwrap().display()).into_bytes());
            } else {
                all.insert(name, std::fs::read(path).unwrap());
            }
        }
    }
    all
}

#[test]
fn a_tree_comes_back_with_its_attributes() {
    let data = Data::of(&[
        &["a/1.jpg", "a/1.cls", "a/large", "a/"],
        &["b/c/2.jpg", "b/link -> ../a/1.jpg", "b/hard => b/c/2.jpg"],
    ]);
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("made/here");
    let report = data.unpack(&to, &options()).unwrap();
    assert_eq!(
        (report.files, report.kept, report.links, report.directories, report.left_out),
        (4, 0, 2, 1, 0)
    );
    let mut expected: BTreeMap<String, Vec<u8>> =
        ["a/1.jpg", "a/1.cls", "a/large", "b/c/2.jpg"].map(|p| (p.to_owned(), payload(p))).into();
    expected.insert("b/link".to_owned(), b"-> ../a/1.jpg".to_vec());
    expected.insert("b/hard".to_owned(), payload("b/c/2.jpg"));
    assert_eq!(tree(&to), expected);
    let file = to.join("a/1.jpg").metadata().unwrap();
    // Without --owners nobody's program becomes another's.
    assert_eq!((file.permissions().mode() & 0o7777, file.mtime()), (0o640, 1_600_000_000));
    let folder = to.join("a").metadata().unwrap();
    assert_eq!((folder.permissions().mode() & 0o7777, folder.mtime()), (0o550, 1_600_000_000));
    assert_eq!(to.join("b/hard").metadata().unwrap().nlink(), 2);

    // Again: what is there is kept, what differs is replaced, what else is there stays.
    std::fs::write(to.join("b/c/2.jpg"), "other").unwrap();
    std::fs::write(to.join("b/mine"), "mine").unwrap();
    let again = data.unpack(&to, &options()).unwrap();
    assert_eq!((again.files, again.kept), (4, 3));
    expected.insert("b/mine".to_owned(), b"mine".to_vec());
    assert_eq!(tree(&to), expected);
}

#[test]
fn nothing_is_written_outside() {
    for bad in ["../out", "/out", "a/../../out", "a//b", ".granary-tmp/x"] {
        let data = Data::of(&[&[bad, "good"]]);
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("to");
        let e = data.unpack(&to, &options()).unwrap_err();
        assert!(e.kind() == Kind::Invalid && e.to_string().contains("cannot be unpacked"), "{e}");
        let report = data.unpack(&to, &Options { skip_errors: true, ..options() }).unwrap();
        assert_eq!((report.files, report.left_out), (1, 1), "{bad}");
        assert_eq!(tree(dir.path()).keys().collect::<Vec<_>>(), ["to/good"]);
    }
}

#[test]
fn links_are_never_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (to, outside) = (dir.path().join("to"), dir.path().join("outside"));
    std::fs::create_dir_all(&to).unwrap();
    std::fs::create_dir(&outside).unwrap();
    // Links come after files whatever their order in the tar, and those that lead out never.
    let data =
        Data::of(&[&["x -> ../outside", "x/evil", "y -> /etc", "z -> .", "w -> z/..", "h => ../outside"]]);
    let report = data.unpack(&to, &Options { skip_errors: true, ..options() }).unwrap();
    assert_eq!(tree(&to).keys().collect::<Vec<_>>(), ["x/evil", "z"]);
    assert_eq!((report.left_out, report.links), (4, 1), "{:?}", report.messages);
    // A link that is there already is not followed either.
    std::os::unix::fs::symlink(&outside, to.join("dir")).unwrap();
    let data = Data::of(&[&["dir/file"]]);
    let e = data.unpack(&to, &options()).unwrap_err();
    assert!(e.to_string().contains("a link or a file is there; remove it"), "{e}");
    // Neither is one that is where a file comes.
    std::os::unix::fs::symlink(outside.join("new"), to.join("file")).unwrap();
    Data::of(&[&["file"]]).unpack(&to, &options()).unwrap();
    assert!(tree(&outside).is_empty());
    assert_eq!(tree(&to)["file"], b"file");
}

#[test]
fn a_path_in_two_shards_is_refused_unless_each_has_its_folder() {
    let data = Data::of(&[&["0.jpg", "1.jpg"], &["2.jpg", "1.jpg"]]);
    let dir = tempfile::tempdir().unwrap();
    let e = data.unpack(dir.path(), &options()).unwrap_err();
    assert!(e.to_string().contains("\"1.jpg\" is in shards/000000.tar and in shards/000001.tar"), "{e}");
    data.unpack(dir.path(), &Options { by_shard: true, ..options() }).unwrap();
    assert_eq!(tree(dir.path()).len(), 4);
    assert_eq!(tree(dir.path())["shards/000001/1.jpg"], b"1.jpg");
}

#[test]
fn damage_is_told_and_never_unpacked() {
    let data = Data::of(&[&["a.jpg", "b.jpg", "large"]]);
    let mut bytes =
        data.runtime.block_on(data.place.read_whole("shards/000000.tar", 1 << 30)).unwrap().to_vec();
    bytes[1536] ^= 1;
    bytes[9 << 20] ^= 1;
    data.runtime.block_on(data.place.put("shards/000000.tar", bytes.into())).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let one = Options { threads: 1, ..options() };
    let e = data.unpack(dir.path(), &one).unwrap_err();
    assert!(e.to_string().contains("at byte 1536: the bytes of \"b.jpg\" do not match"), "{e}");
    let report = data.unpack(dir.path(), &Options { skip_errors: true, ..one }).unwrap();
    assert_eq!((report.files, report.kept, report.left_out), (1, 1, 2), "{:?}", report.messages);
    assert_eq!(tree(dir.path()).keys().collect::<Vec<_>>(), ["a.jpg"]);
}

#[test]
fn what_was_deleted_does_not_come_back() {
    let data = Data::of(&[&["a.jpg", "b.jpg"]]);
    let before = data.runtime.block_on(manifest::latest(&data.place)).unwrap().unwrap();
    let mut shards = before.shards().to_vec();
    shards[0].dead_files = Runs::from_numbers([0]);
    shards[0].dead_samples = Runs::from_numbers([0]);
    data.runtime.block_on(manifest::write(&data.place, &before.next("delete", shards).unwrap())).unwrap();
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(data.unpack(dir.path(), &options()).unwrap().files, 1);
    assert_eq!(tree(dir.path()).keys().collect::<Vec<_>>(), ["b.jpg"]);
}

#[test]
fn a_directory_goes_with_its_last_file_and_an_empty_one_stays() {
    let data = Data::of(&[
        &["gone/", "gone/below/", "gone/below/a.jpg", "half/", "half/a.jpg", "half/b.jpg", "empty/"],
        &["again/", "other.jpg"],
        &["again/a.jpg"],
    ]);
    let before = data.runtime.block_on(manifest::latest(&data.place)).unwrap().unwrap();
    let mut shards = before.shards().to_vec();
    shards[0].dead_files = Runs::from_numbers([0, 1]);
    shards[0].dead_samples = Runs::from_numbers([0, 1]);
    data.runtime.block_on(manifest::write(&data.place, &before.next("delete", shards).unwrap())).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let report = data.unpack(dir.path(), &options()).unwrap();
    assert_eq!((report.files, report.directories), (3, 3));
    let mut names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["again", "empty", "half", "other.jpg"]);
    for name in ["again", "empty", "half"] {
        assert_eq!(dir.path().join(name).metadata().unwrap().permissions().mode() & 0o777, 0o550, "{name}");
    }
}
