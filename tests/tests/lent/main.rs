//! Loaders that read through the node: from its cache's own files, whatever happens to it meanwhile, and nothing that is not theirs.

mod asking;
mod larger;
mod loading;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use asking::Asking;
use granary_core::Kind;
use granary_loader::node::wire::{Ask, Part, RANGE_BYTES_MAX, Said};
use granary_tests::{Node, StoreKind, read_tree, run_ok, seed};
use loading::Loading;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const NAME: &str = "group/asr";
const URL: &str = "granary://group/asr/sets/v1";
const FILES: usize = 700;

/// A data set in a folder, of random files of 1 to 80 KB.
fn packed(node: &Node, seed: u64) -> PathBuf {
    packed_of(node, seed, 1_000..80_000)
}

/// The same of files of these bytes.
fn packed_of(node: &Node, seed: u64, bytes: Range<usize>) -> PathBuf {
    let (source, folder) = (node.path("files"), node.path("folder"));
    fs::create_dir(&source).expect("mkdir");
    let mut rng = StdRng::seed_from_u64(seed);
    for number in 0..FILES {
        let mut bytes = vec![0; rng.random_range(bytes.clone())];
        rng.fill(&mut bytes[..]);
        fs::write(source.join(format!("{number:05}.bin")), bytes).expect("write");
    }
    node.ok(&["pack", text(&source), text(&folder), "--shard-size", "9MiB"]);
    folder
}

fn text(path: &Path) -> &str {
    path.to_str().expect("utf-8")
}

fn bytes_below(folder: &Path) -> u64 {
    read_tree(folder).values().map(|(_, content)| content.len() as u64).sum()
}

/// The same in the namespace, with nothing of it on the node.
fn in_the_store(node: &mut Node, folder: &Path) -> PathBuf {
    node.ok(&["ns", "create", NAME, "--owner", "0", "--group", "0"]);
    let dir = node.mount(NAME, "");
    run_ok("mkdir $2/sets; cp -r $1 $2/sets/v1", &[folder, &dir]);
    node.come_back_from_the_store(&dir, NAME, "")
}

/// Bytes that the node got from its store.
fn got(node: &Node) -> u64 {
    let mut socket = UnixStream::connect(node.path("node.sock")).expect("the node listens");
    write!(socket, "GET /metrics HTTP/1.1\r\nhost: granary\r\nconnection: close\r\n\r\n").expect("ask");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("an answer");
    let of = |line: &str| {
        let rest = line.strip_prefix("granary_store_bytes_total{")?;
        rest.contains("get").then(|| rest.rsplit(' ').next()?.parse::<u64>().ok())?
    };
    assert!(answer.contains("granary_store_bytes_total"), "{answer}");
    answer.lines().filter_map(of).sum()
}

/// Every batch of two epochs, as a loader over the folder has it.
fn expected(node: &Node, folder: &Path) -> Vec<String> {
    expected_of(node, folder, 7)
}

fn expected_of(node: &Node, folder: &Path, seed: u64) -> Vec<String> {
    let mut loader = Loading::with_seed(text(folder), &node.path("node.sock"), seed);
    let all = [loader.ask("rest"), loader.ask("rest")].concat();
    assert!(all.len() > 2 * FILES / 32 && all.last().is_some_and(|line| line == "end"), "{all:#?}");
    all
}

#[test]
fn two_loaders_cost_the_store_what_one_does() {
    let mut node = Node::new(StoreKind::Folder);
    let folder = packed(&node, seed());
    let expected = expected(&node, &folder);
    let dir = in_the_store(&mut node, &folder);
    let (bytes, before) = (bytes_below(&folder), got(&node));
    let socket = node.path("node.sock");
    let mut loaders = [Loading::start(URL, &socket), Loading::start(URL, &socket)];
    for epoch in 0..2 {
        loaders.iter_mut().for_each(|loader| loader.tell("rest"));
        for loader in &mut loaders {
            let half = expected.len() / 2;
            assert_eq!(loader.hear(), expected[epoch * half..][..half]);
        }
    }
    let fetched = got(&node) - before;
    println!("{fetched} bytes fetched for two loaders of {bytes} bytes, two epochs");
    // Chunks are whole, and objects have footers.
    assert!(fetched as f64 <= 1.1 * bytes as f64, "{fetched} of {bytes}");
    for loader in &mut loaders {
        let lent = loader.counter("granary_loader_node_lent_bytes_total");
        let copied = loader.counter("granary_loader_node_copied_bytes_total");
        println!("{lent} lent, {copied} copied");
        // Of small files, and of shards' ends, which share objects with others.
        assert!(lent > 2 * bytes * 8 / 10 && copied < bytes / 10, "{lent} lent, {copied} copied");
    }
    // Mounts share it, too.
    run_ok("diff -r $1 $2", &[&dir.join("sets/v1"), &folder]);
    assert!(got(&node) - before <= fetched + bytes / 20, "{}", got(&node) - before - fetched);
}

#[test]
fn a_node_that_is_killed_and_comes_back_changes_no_batch() {
    let mut node = Node::new(StoreKind::Folder);
    let folder = packed(&node, seed());
    let expected = expected(&node, &folder);
    let dir = in_the_store(&mut node, &folder);
    let mut loader = Loading::start(URL, &node.path("node.sock"));
    let mut found = loader.ask("5");
    node.kill();
    // More than memory holds: it waits for the node.
    loader.tell("rest");
    node.start();
    node.mount_at(NAME, &dir, "");
    found.extend(loader.hear());
    node.kill();
    node.start();
    node.mount_at(NAME, &dir, "");
    found.extend(loader.ask("rest"));
    assert_eq!(found, expected);
    assert!(loader.counter("granary_loader_node_connections_total") >= 2);
}

#[test]
fn a_packed_data_set_is_read_without_the_node_while_it_is_away() {
    let mut node = Node::new(StoreKind::Folder);
    let folder = packed(&node, seed());
    let expected = expected(&node, &folder);
    node.ok(&["ns", "create", "dataset/asr", "--packed", text(&folder)]);
    node.mount("dataset/asr", "");
    let mut loader = Loading::start("granary://dataset/asr", &node.path("node.sock"));
    let mut found = loader.ask("5");
    assert!(loader.counter("granary_loader_node_lent_bytes_total") > 0);
    node.kill();
    found.extend(loader.ask("rest"));
    assert!(loader.counter("granary_loader_node_own_bytes_total") > 0);
    node.start();
    node.mount("dataset/asr", "");
    found.extend(loader.ask("rest"));
    assert_eq!(found, expected);
}

/// A shard's chunk files, as they are lent.
fn lent(asking: &mut Asking, name: &str, check: bool) -> (Vec<(Part, File)>, Vec<u8>) {
    let ask = Ask::Bytes { name: name.to_owned(), range: 0..RANGE_BYTES_MAX, check, next: Vec::new() };
    let (said, descriptors, inline) = asking.ask(ask);
    let Said::Parts(parts) = said else { panic!("{said:?}") };
    let lent = parts.into_iter().filter(|part| matches!(part, Part::Lent { .. }));
    (lent.zip(descriptors.into_iter().map(File::from)).collect(), inline)
}

fn bytes_of(lent: &[(Part, File)]) -> Vec<u8> {
    let mut all = Vec::new();
    for (part, file) in lent {
        let Part::Lent { offset, len } = *part else { continue };
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, offset).expect("a chunk");
        all.extend(bytes);
    }
    all
}

#[test]
fn what_is_lent_stays_readable_and_cannot_be_written() {
    let mut node = Node::new(StoreKind::Folder);
    let folder = packed(&node, seed());
    let shard = fs::read_dir(folder.join("shards")).expect("shards").map(|e| e.expect("an entry").path());
    let shard = shard.filter(|path| path.extension().is_some_and(|e| e == "tar")).min().expect("a shard");
    let name = format!("shards/{}", shard.file_name().expect("a name").to_string_lossy());
    let original = fs::read(&shard).expect("read");
    let dir = in_the_store(&mut node, &folder);
    let mut asking = Asking::start(&node.path("node.sock"), "group/asr/sets/v1");
    let (first, inline) = lent(&mut asking, &name, false);
    assert_eq!((first.len(), inline.len()), (8, 0));
    for (_, file) in &first {
        assert!(file.write_at(b"x", 0).is_err());
        // Nothing in a file that is lent is another's: it is the shard's bytes, and a trailer of checksums.
        let mut whole = Vec::new();
        File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file)))
            .expect("open")
            .read_to_end(&mut whole)
            .expect("read");
        assert!(whole.len() < (1 << 20) + 200, "{}", whole.len());
    }
    assert!(bytes_of(&first) == original[..RANGE_BYTES_MAX as usize], "what is lent differs");
    // It leaves the cache, and is there for who has it.
    node.ok(&["warmup", "--evict", text(&dir.join("sets"))]);
    assert!(bytes_of(&first) == original[..RANGE_BYTES_MAX as usize], "what was lent differs");
    // Damage on the disk: found when it is asked to look.
    let (again, _) = lent(&mut asking, &name, false);
    let damaged = fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&again[3].1)));
    let damaged = File::options().write(true).open(damaged.expect("a path")).expect("open");
    damaged.write_all_at(b"damage", 1000).expect("write");
    assert!(bytes_of(&lent(&mut asking, &name, false).0) != original[..RANGE_BYTES_MAX as usize]);
    assert!(bytes_of(&lent(&mut asking, &name, true).0) == original[..RANGE_BYTES_MAX as usize]);
    // The loader finds it by the samples' checksums.
    let (again, _) = lent(&mut asking, &name, false);
    let path = fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&again[5].1)));
    let damaged = File::options().write(true).open(path.expect("a path")).expect("open");
    damaged.write_all_at(&[0x55; 100_000], 300_000).expect("write");
    let mut loader = Loading::start(URL, &node.path("node.sock"));
    let mut read = loader.ask("5");
    // All leaves the cache while it reads.
    loader.tell("rest");
    node.ok(&["warmup", "--evict", text(&dir.join("sets"))]);
    read.extend(loader.hear());
    let mut plain = Loading::start(text(&folder), &node.path("node.sock"));
    assert_eq!(read, plain.ask("rest"));
}

const MALLORY: u32 = 61_003;

/// A loader of somebody else's.
fn theirs(node: &Node, url: &str) -> Vec<String> {
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={MALLORY}"), format!("--regid={MALLORY}"), "--clear-groups".to_owned()]);
    command.arg(node.path("loading")).arg(url).arg(node.path("node.sock")).arg("32");
    Loading::of(command).ask("rest")
}

#[test]
fn nothing_of_others_is_lent() {
    let mut node = Node::new(StoreKind::Folder);
    fs::set_permissions(node.path("."), fs::Permissions::from_mode(0o755)).expect("chmod");
    fs::copy(loading::program(), node.path("loading")).expect("copy");
    let folder = packed(&node, seed());
    let dir = in_the_store(&mut node, &folder);
    // A namespace that is there, and not theirs, is as one that is not.
    let refused = theirs(&node, URL);
    let absent = theirs(&node, "granary://group/none/sets/v1");
    assert!(refused.len() == 1 && refused[0].contains("there is no namespace group/asr"), "{refused:#?}");
    assert_eq!(refused[0].replace("group/asr", "group/none"), absent[0]);

    // The owner of one namespace has there what is theirs alone.
    let (mine, hidden) = (dir.join("mine"), dir.join("hidden"));
    for (path, byte, mode) in [(&mine, b'm', 0o644), (&hidden, b'h', 0o600)] {
        fs::create_dir_all(path).expect("mkdir");
        fs::write(path.join("small"), [byte; 5000]).expect("write");
        fs::write(path.join("large"), vec![byte; 5 << 20]).expect("write");
        fs::set_permissions(path.join("small"), fs::Permissions::from_mode(mode)).expect("chmod");
        chown(path, Some(MALLORY), Some(MALLORY)).expect("chown");
    }
    let dir = node.come_back_from_the_store(&dir, NAME, "");
    let mut asking = Asking::start(&node.path("node.sock"), "group/asr");
    // A small file lies in a pack with others: its bytes come alone.
    let (said, descriptors, inline) = asking.ask(Ask::Bytes {
        name: "mine/small".to_owned(),
        range: 0..5000,
        check: false,
        next: Vec::new(),
    });
    assert_eq!((said, descriptors.len()), (Said::Parts(vec![Part::Inline { len: 5000 }]), 0));
    assert_eq!(inline, vec![b'm'; 5000]);
    // What is staged is there, too.
    fs::write(dir.join("mine/new"), "fresh").expect("write");
    let (_, descriptors, inline) =
        asking.ask(Ask::Bytes { name: "mine/new".to_owned(), range: 1..5, check: false, next: Vec::new() });
    assert_eq!((descriptors.len(), &inline[..]), (0, &b"resh"[..]));
    for (ask, kind) in [
        (
            Ask::Bytes { name: "mine/small".to_owned(), range: 0..5001, check: false, next: Vec::new() },
            Kind::Invalid,
        ),
        (
            Ask::Bytes { name: "mine/small".to_owned(), range: 9..9, check: false, next: Vec::new() },
            Kind::Invalid,
        ),
        (Ask::Bytes { name: "mine".to_owned(), range: 0..9, check: false, next: Vec::new() }, Kind::NotFound),
        (Ask::Length { name: "mine/none".to_owned() }, Kind::NotFound),
        (Ask::Length { name: "../asr/mine/small".to_owned() }, Kind::Invalid),
    ] {
        let (said, ..) = asking.ask(ask.clone());
        assert!(matches!(&said, Said::Refused { kind: found, .. } if *found == kind), "{ask:?}: {said:?}");
    }
    let (said, ..) =
        asking.ask(Ask::Files { folder: "mine/".to_owned(), after: "mine/large".to_owned(), max: 9 });
    let Said::Files(files) = said else { panic!("{said:?}") };
    let files: Vec<_> = files.into_iter().map(|file| (file.name, file.bytes)).collect();
    assert_eq!(files, [("mine/new".to_owned(), 5), ("mine/small".to_owned(), 5000)]);
}
