use granary_core::Kind;
use granary_packer::index::Index;
use granary_packer::manifest::Runs;

use super::*;
use crate::rig::{Member, file, other, shard};

const ID: Identity = Identity { data_set: [1; 16], version: 3, digest: 9 };

fn index(members: &[Member]) -> Index {
    Index::from_bytes(shard(0, members).index).unwrap()
}

fn make_of(dir: &std::path::Path, shards: &[(Index, Runs)]) -> (Vec<Entry>, Skipped) {
    let path = dir.join("order");
    let all = shards.iter().map(|(index, dead_files)| Shard { index, dead_files });
    let skipped = make(&path, ID, all, &Default::default()).unwrap();
    let order = Order::open(&path, &ID).unwrap();
    ((0..order.len()).map(|place| order.entry(place).unwrap()).collect(), skipped)
}

fn at(shard: u32, of: Of) -> Entry {
    Entry { shard, of }
}

#[test]
fn shards_are_merged_by_path() {
    let dir = tempfile::tempdir().unwrap();
    let a = index(&[file("./b/2", b""), file("a", b""), file("./a-b", b""), other("b", b'5', "")]);
    let b = index(&[
        file("b/1", b""),
        file("a", b"new"),
        file("/etc/x", b""),
        other("dev", b'3', ""),
        other("./", b'5', ""),
    ]);
    let (entries, skipped) = make_of(dir.path(), &[(a, Runs::default()), (b, Runs::default())]);
    // a (of the later shard), a-b, b/, b/1, b/2
    let want =
        [at(1, Of::File(1)), at(0, Of::File(2)), at(0, Of::Other(0)), at(1, Of::File(0)), at(0, Of::File(0))];
    assert_eq!(entries, want);
    assert_eq!(skipped, Skipped { odd_paths: 1, devices: 1, replaced: 1 });
}

#[test]
fn dead_files_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let a = index(&[file("a", b""), file("b", b""), file("c", b"")]);
    let (entries, skipped) = make_of(dir.path(), &[(a, Runs::from_numbers([1]))]);
    assert_eq!(entries, [at(0, Of::File(0)), at(0, Of::File(2))]);
    assert_eq!(skipped, Skipped::default());
    assert_eq!(make_of(dir.path(), &[]).0, []);
}

#[test]
fn directories_go_with_their_last_file_and_empty_ones_stay() {
    let dir = tempfile::tempdir().unwrap();
    let directory = |path: &str| other(path, b'5', "");
    // Of the first shard's files all are deleted but b/c/2.
    let a = index(&[
        directory("a"),
        directory("a/x"),
        file("a/x/1", b""),
        directory("b"),
        directory("b/c"),
        file("b/c/1", b""),
        file("b/c/2", b""),
        directory("b/d"),
        file("b/d/1", b""),
        directory("e"),
        directory("e/empty"),
        file("e/z", b""),
        directory("none"),
    ]);
    let b = index(&[file("a2", b""), directory("b/d")]);
    let dead = Runs::from_numbers([0, 1, 3, 4]);
    let (entries, skipped) = make_of(dir.path(), &[(a, dead.clone()), (b, Runs::default())]);
    // a2, b/, b/c/, b/c/2, e/, e/empty/, none/
    let want = [
        at(1, Of::File(0)),
        at(0, Of::Other(2)),
        at(0, Of::Other(3)),
        at(0, Of::File(2)),
        at(0, Of::Other(5)),
        at(0, Of::Other(6)),
        at(0, Of::Other(7)),
    ];
    assert_eq!(entries, want);
    assert_eq!(skipped, Skipped { replaced: 1, ..Skipped::default() });
    // What came again in a later shard shows them again, with the later's attributes.
    let a = index(&[directory("a"), file("a/1", b"")]);
    let b = index(&[directory("a"), file("a/1", b"new")]);
    let (entries, _) = make_of(dir.path(), &[(a, Runs::from_numbers([0])), (b, Runs::default())]);
    assert_eq!(entries, [at(1, Of::Other(0)), at(1, Of::File(0))]);
}

#[test]
fn what_is_damaged_cut_or_of_another_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let members: Vec<_> = (0..20_000).map(|n| file(&format!("{n}"), b"")).collect();
    let (entries, _) = make_of(dir.path(), &[(index(&members), Runs::default())]);
    assert_eq!(entries.len(), 20_000);
    let path = dir.path().join("order");
    let whole = std::fs::read(&path).unwrap();
    let other = Identity { version: 4, ..ID };
    assert_eq!(Order::open(&path, &other).unwrap_err().kind(), Kind::Corrupt);
    assert_eq!(Order::open(&dir.path().join("none"), &ID).unwrap_err().kind(), Kind::NotFound);
    for cut in [0, 63, 64, 1000, whole.len() - 1] {
        std::fs::write(&path, &whole[..cut]).unwrap();
        assert_eq!(Order::open(&path, &ID).unwrap_err().kind(), Kind::Corrupt, "{cut}");
    }
    for bit in (0..64 * 8).chain([whole.len() * 8 - 1]) {
        let mut bad = whole.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&path, bad).unwrap();
        let kind = Order::open(&path, &ID).unwrap_err().kind();
        assert!(matches!(kind, Kind::Corrupt | Kind::Unsupported), "{bit}");
    }
    // A damaged entry is found when its 64 KiB are touched; others can be read.
    let mut bad = whole;
    bad[64 + 9000 * 8] ^= 1;
    std::fs::write(&path, bad).unwrap();
    let order = Order::open(&path, &ID).unwrap();
    assert_eq!(order.entry(0).unwrap(), entries[0]);
    assert_eq!(order.entry(9001).unwrap_err().kind(), Kind::Corrupt);
    assert_eq!(order.entry(20_000).unwrap_err().kind(), Kind::Bug);
}
