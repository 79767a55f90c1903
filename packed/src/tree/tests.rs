use std::collections::{BTreeMap, BTreeSet};

use granary_packer::index::Index;
use granary_packer::manifest::Runs;
use proptest::prelude::*;

use super::*;
use crate::rig::{Member, file, other, shard, tree, tree_of};

fn names(tree: &Tree, dir: Ino) -> Vec<String> {
    let entries = tree.readdir(dir, 0, usize::MAX, false).unwrap();
    entries.into_iter().map(|entry| String::from_utf8(entry.name).unwrap()).collect()
}

fn at(tree: &Tree, path: &str) -> Result<Attr> {
    path.split('/').try_fold(tree.getattr(Ino::ROOT)?, |dir, name| tree.lookup(dir.ino, name.as_bytes()))
}

#[test]
fn names_that_share_a_beginning_do_not_mix() {
    let dir = tempfile::tempdir().unwrap();
    let tree = tree(
        dir.path(),
        &[
            &[
                file("a/b", b"1"),
                file("a-b", b"22"),
                file("a.b", b"333"),
                file("a.b.c/d/e", b""),
                file("a0", b""),
            ],
            &[file("a/c", b"")],
        ],
    );
    assert_eq!(names(&tree, Ino::ROOT), ["a-b", "a.b", "a.b.c", "a", "a0"]);
    let a = at(&tree, "a").unwrap();
    assert_eq!((a.kind, a.mode, a.uid, a.nlink), (FileType::Directory, 0o755, 1, 1));
    assert_eq!(names(&tree, a.ino), ["b", "c"]);
    let e = at(&tree, "a.b.c/d/e").unwrap();
    assert_eq!((e.kind, e.mode, e.uid, e.gid, e.mtime.secs), (FileType::File, 0o640, 7, 8, 1003));
    assert_eq!(at(&tree, "a.b").unwrap().size, 3);
    for absent in ["a.", "b", "a/", "a/d", "a.b.c/d/f", "a-b/x"] {
        assert!(at(&tree, absent).is_err(), "{absent}");
    }
    assert_eq!(at(&tree, "a-b/x").unwrap_err().kind(), Kind::NotDirectory);
}

#[test]
fn directories_links_and_pipes_are_as_the_tar_says() {
    let dir = tempfile::tempdir().unwrap();
    let members = [
        other("d", b'5', ""),
        other("d/empty/", b'5', ""),
        file("d/f", b"payload"),
        other("d/hard", b'1', "./d/f"),
        other("d/lost", b'1', "d/nothing"),
        other("d/pipe", b'6', ""),
        other("d/soft", b'2', "../x"),
    ];
    let tree = tree(dir.path(), &[&members]);
    let d = at(&tree, "d").unwrap();
    assert_eq!((d.mode, d.uid, d.gid, d.mtime.secs), (0o750, 7, 8, 1000));
    assert_eq!(names(&tree, d.ino), ["empty", "f", "hard", "pipe", "soft"]);
    let empty = at(&tree, "d/empty").unwrap();
    assert_eq!((empty.kind, empty.mode, names(&tree, empty.ino)), (FileType::Directory, 0o750, Vec::new()));
    assert_eq!(at(&tree, "d/hard").unwrap(), at(&tree, "d/f").unwrap());
    assert_eq!(at(&tree, "d/lost").unwrap_err().kind(), Kind::NotFound);
    let soft = at(&tree, "d/soft").unwrap();
    assert_eq!((soft.kind, soft.size), (FileType::Symlink, 4));
    assert_eq!(tree.readlink(soft.ino).unwrap(), b"../x");
    assert_eq!(at(&tree, "d/pipe").unwrap().kind, FileType::Fifo);
    assert_eq!(tree.readlink(d.ino).unwrap_err().kind(), Kind::Invalid);
    assert_eq!(tree.parent(empty.ino).unwrap(), d.ino);
    assert_eq!((tree.parent(d.ino).unwrap(), tree.parent(Ino::ROOT).unwrap()), (Ino::ROOT, Ino::ROOT));
}

#[test]
fn a_file_hides_a_directory_of_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let tree = tree(dir.path(), &[&[file("a", b"1"), file("b", b"")], &[file("a/x", b"")]]);
    assert_eq!(names(&tree, Ino::ROOT), ["a", "b"]);
    assert_eq!(at(&tree, "a").unwrap().kind, FileType::File);
}

/// An order that is not one: nothing is found where it should be, and nothing worse happens.
#[test]
fn an_order_that_lies_gives_errors_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let members: Vec<Member> =
        ["b/x", "a", "c/d/e", "b/a", "c", "b/x/y"].iter().map(|path| file(path, b"")).collect();
    let index = Index::from_bytes(shard(0, &members).index).unwrap();
    let of = crate::order::Identity { data_set: [0; 16], version: 1, digest: 1 };
    let path = dir.path().join("order");
    for turn in 0..6u32 {
        let places = (0..6).map(|n| (n + turn) % 6).chain([turn]);
        crate::order::write_for_tests(&path, of, places);
        let order = Order::open(&path, &of).unwrap();
        let tree = Tree::new(order, vec![index.clone()], crate::rig::owner()).unwrap();
        let mut todo = vec![Ino::ROOT];
        for _ in 0..50 {
            let Some(ino) = todo.pop() else { break };
            for cookie in 0..9 {
                let listed = tree.readdir(ino, cookie, 20, true).unwrap_or_default();
                todo.extend(listed.iter().map(|entry| entry.ino));
                for entry in &listed {
                    let _ = tree.lookup(ino, &entry.name);
                }
            }
            for name in [&b"a"[..], b"b", b"c", b"x"] {
                let _ = tree.lookup(ino, name);
            }
            let _ = (tree.parent(ino), tree.getattr(ino));
        }
    }
}

#[test]
fn numbers_that_are_nobodys_are_stale() {
    let dir = tempfile::tempdir().unwrap();
    let tree = tree(dir.path(), &[&[file("a/x", b""), file("a/y", b"")]]);
    let a = at(&tree, "a").unwrap().ino;
    for what in [
        What::File(2),
        What::Other(0),
        What::Directory { depth: 1, first: 1 },
        What::Directory { depth: 2, first: 0 },
        What::Directory { depth: 0, first: 0 },
        What::Directory { depth: 1, first: 2 },
    ] {
        assert_eq!(tree.getattr(what.ino()).unwrap_err().kind(), Kind::Stale, "{what:?}");
    }
    assert_eq!(tree.getattr(a).unwrap().ino, a);
}

/// A path of parts that are easily mistaken for each other.
fn path() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("a"),
        Just("a-b"),
        Just("a.b"),
        Just("ab"),
        Just("b"),
        Just("é"),
        Just(" "),
        Just("\u{1}"),
        Just("..a"),
        Just("...")
    ];
    proptest::collection::vec(part, 1..5).prop_map(|parts| parts.join("/"))
}

/// What a tree should show, by name.
#[derive(Default)]
struct Model {
    files: BTreeMap<String, (u32, usize)>,
    directories: BTreeMap<String, BTreeSet<String>>,
}

fn model(shards: &[Vec<(String, bool)>]) -> Model {
    let mut model = Model::default();
    model.directories.entry(String::new()).or_default();
    for (number, shard) in (0u32..).zip(shards) {
        for (n, (path, dead)) in shard.iter().enumerate() {
            if !dead {
                model.files.insert(path.clone(), (number, n));
            }
        }
    }
    for path in model.files.keys() {
        let mut child = path.as_str();
        loop {
            let (dir, name) = child.rsplit_once('/').unwrap_or(("", child));
            model.directories.entry(dir.to_owned()).or_default().insert(name.to_owned());
            if dir.is_empty() {
                break;
            }
            child = dir;
        }
    }
    model
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn a_tree_is_what_a_map_of_its_paths_is(
        shards in proptest::collection::vec(proptest::collection::vec((path(), proptest::bool::weighted(0.1)), 0..40), 1..4),
        page in 1usize..5, jump: u64,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut kept: Vec<Vec<(String, bool)>> = Vec::new();
        for shard in shards {
            let mut seen = BTreeSet::new();
            kept.push(shard.into_iter().filter(|(path, _)| seen.insert(path.clone())).collect());
        }
        let open: Vec<(Index, Runs)> = kept.iter().map(|paths| {
            let members: Vec<Member> = paths.iter().enumerate().map(|(n, (path, _))| file(path, &vec![1; n])).collect();
            let dead = paths.iter().enumerate().filter(|(_, (_, dead))| *dead).map(|(n, _)| n as u32);
            (Index::from_bytes(shard(0, &members).index).unwrap(), Runs::from_numbers(dead))
        }).collect();
        let tree = tree_of(dir.path(), &open);
        let model = model(&kept);
        let mut inodes = BTreeSet::new();
        for (path, names) in &model.directories {
            // What lies below a file of the same name is hidden.
            let hidden = path.split('/').scan(String::new(), |above, part| {
                if !above.is_empty() { above.push('/'); }
                above.push_str(part);
                Some(model.files.contains_key(above))
            }).any(|is_file| is_file);
            if hidden { continue; }
            let ino = if path.is_empty() { Ino::ROOT } else { at(&tree, path).unwrap().ino };
            prop_assert!(inodes.insert(ino));
            let (mut listed, mut cookie) = (Vec::new(), 0);
            loop {
                let entries = tree.readdir(ino, cookie, page, true).unwrap();
                let Some(last) = entries.last() else { break };
                cookie = last.cookie;
                listed.extend(entries);
            }
            let of_names: BTreeSet<String> = listed.iter().map(|e| String::from_utf8(e.name.clone()).unwrap()).collect();
            prop_assert_eq!(&of_names, names);
            prop_assert_eq!(listed.len(), names.len(), "no name twice");
            // Any cookie goes on somewhere in the listing.
            let rest = tree.readdir(ino, jump % (2 * tree.len() + 2), usize::MAX, true).unwrap();
            prop_assert!(listed.ends_with(&rest));
            for entry in &listed {
                let name = std::str::from_utf8(&entry.name).unwrap();
                let own = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
                let attr = tree.lookup(ino, &entry.name).unwrap();
                prop_assert_eq!(&tree.getattr(attr.ino).unwrap(), &attr);
                prop_assert_eq!((entry.ino, entry.kind, entry.attr.as_ref()), (attr.ino, attr.kind, Some(&attr)));
                match model.files.get(&own) {
                    Some(&(shard, n)) => {
                        let found = tree.payload(attr.ino).unwrap().unwrap();
                        prop_assert_eq!((found.shard, found.length), (shard, n as u64));
                        prop_assert!(inodes.insert(attr.ino));
                    }
                    None => prop_assert_eq!((attr.kind, tree.parent(attr.ino).unwrap()), (FileType::Directory, ino)),
                }
            }
            for absent in ["a", "a-b", "ab", "zz", ".", ".."] {
                prop_assert_eq!(tree.lookup(ino, absent.as_bytes()).is_ok(), names.contains(absent));
            }
        }
    }
}
