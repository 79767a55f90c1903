use proptest::prelude::*;

use super::*;
use crate::key::Grouping;
use crate::pack::entry::tests::file;
use crate::pack::entry::{Content, Entry, Order, compare_all};
use crate::pack::sort::{Sorter, merge};

const ORDER: Order = Order { grouping: Grouping::Stem, seed: None };

fn sorted(dir: &Path, entries: &[Entry], order: Order) -> Sorted {
    let mut sorter = Sorter::new(dir, compare_all, 1 << 20);
    for entry in entries {
        sorter.push(|out| order.encode(entry, out)).unwrap();
    }
    merge(vec![sorter]).unwrap()
}

fn plan(entries: &[Entry], known: &[Entry], shard_bytes: u64, what: Known) -> Result<Plan> {
    let dir = tempfile::tempdir().unwrap();
    let known = Some(sorted(dir.path(), known, ORDER)).filter(|_| !known.is_empty());
    let options = PlanOptions { shard_bytes, known: what };
    Plan::make(dir.path(), sorted(dir.path(), entries, ORDER), known, options)
}

fn paths(mut entries: Entries) -> Vec<String> {
    let mut out = Vec::new();
    while let Some(entry) = entries.next_entry().unwrap() {
        out.push(String::from_utf8(entry.path).unwrap());
    }
    out
}

proptest! {
    #[test]
    fn shards_hold_all_and_end_between_samples(
        samples in proptest::collection::vec(proptest::collection::vec(0..3_000u64, 1..4), 1..40),
        shard_bytes in 4_000..20_000u64,
    ) {
        let mut all = Vec::new();
        for (n, files) in samples.iter().enumerate() {
            all.extend(files.iter().enumerate().map(|(k, &len)| file(&format!("{n:03}.{k}"), len)));
        }
        let plan = plan(&all, &[], shard_bytes, Known::Refuse).unwrap();
        let shards: Vec<Vec<String>> = plan.shards.iter().map(|s| paths(plan.entries_of(s))).collect();
        prop_assert_eq!(shards.concat(), all.iter().map(|e| String::from_utf8(e.path.clone()).unwrap()).collect::<Vec<_>>());
        let mut keys = std::collections::HashSet::new();
        for (shard, paths) in plan.shards.iter().zip(&shards) {
            let of_shard: std::collections::HashSet<_> = paths.iter().map(|p| p[..3].to_owned()).collect();
            prop_assert!(shard.bytes <= shard_bytes || of_shard.len() == 1, "only a large sample is over");
            for key in of_shard {
                prop_assert!(keys.insert(key), "a sample spans two shards");
            }
            let bytes: u64 = paths.iter().map(|p| {
                let entry = all.iter().find(|e| e.path == p.as_bytes()).unwrap();
                tar_bytes(entry, &mut Vec::new()).unwrap()
            }).sum();
            prop_assert_eq!(shard.bytes, bytes + TAIL_BYTES);
        }
    }
}

#[test]
fn what_is_there_is_passed_over_replaced_or_refused() {
    let there = |path: &str, length, number| Entry {
        content: Content::Range { container: 3, offset: number },
        ..file(path, length)
    };
    let known = [there("a.jpg", 1, 0), there("b.jpg", 1, 1), there("c.jpg", 1, 2), there("e.jpg", 1, 3)];
    let all = [file("a.jpg", 1), file("b.jpg", 2), file("d.jpg", 1), file("e.jpg", 1), file("f.jpg", 9)];
    let e = plan(&all, &known, 1 << 20, Known::Refuse).unwrap_err();
    assert!(
        e.kind() == Kind::Exists
            && e.to_string().contains("\"b.jpg\"")
            && e.to_string().contains("--replace")
    );
    let plan = plan(&all, &known, 1 << 20, Known::Replace).unwrap();
    assert_eq!(plan.replaced, [(3, 1)]);
    assert_eq!(paths(plan.entries_of(&plan.shards[0])), ["b.jpg", "d.jpg", "f.jpg"]);
    assert_eq!(paths(plan.unchanged_entries()), ["a.jpg", "a.jpg", "e.jpg", "e.jpg"]);
}

fn directory(path: &str, mtime: i64) -> Entry {
    Entry { content: Content::Directory, mtime, ..file(path, 0) }
}

#[test]
fn directories_lead_the_sample_behind_them_into_its_shard() {
    let all = [
        directory("a", 1),
        file("a/1.jpg", 3_000),
        directory("b", 1),
        directory("b/c", 1),
        file("b/c/1.cls", 2_000),
        file("b/c/1.jpg", 1_000),
        directory("d", 1),
    ];
    let plan = plan(&all, &[], 6_000, Known::Refuse).unwrap();
    let shards: Vec<Vec<String>> = plan.shards.iter().map(|s| paths(plan.entries_of(s))).collect();
    assert_eq!(shards, [vec!["a", "a/1.jpg"], vec!["b", "b/c", "b/c/1.cls", "b/c/1.jpg"], vec!["d"]]);
    assert_eq!((plan.entries, plan.directories), (7, 4));
    for (shard, paths) in plan.shards.iter().zip(&shards) {
        let entry = |path: &String| all.iter().find(|e| e.path == path.as_bytes()).unwrap();
        let bytes: u64 = paths.iter().map(|p| tar_bytes(entry(p), &mut Vec::new()).unwrap()).sum();
        assert_eq!(shard.bytes, bytes + TAIL_BYTES);
    }
}

#[test]
fn a_directory_may_come_twice_and_is_no_reason_to_refuse() {
    let all = [directory("a", 5), file("b", 0), directory("a", 9), directory("b", 1), directory("c", 1)];
    let made = plan(&all, &[], 1 << 20, Known::Refuse).unwrap();
    let mut entries = made.entries_of(&made.shards[0]);
    let mut got = Vec::new();
    while let Some(e) = entries.next_entry().unwrap() {
        got.push((String::from_utf8(e.path.clone()).unwrap(), e.is_directory(), e.mtime));
    }
    let b = file("b", 0).mtime;
    let text = |path: &str, is, mtime| (path.to_owned(), is, mtime);
    assert_eq!(got, [text("a", true, 9), text("b", false, b), text("c", true, 1)]);

    let there = [directory("a", 1), directory("b", 1), directory("c", 1)];
    let kept = plan(&all, &there, 1 << 20, Known::Refuse).unwrap();
    assert_eq!(
        (kept.entries, kept.unchanged, kept.unchanged_directories),
        (1, 0, 2),
        "the file alone is new"
    );
    let replaced = plan(&all, &there, 1 << 20, Known::Replace).unwrap();
    assert_eq!(paths(replaced.entries_of(&replaced.shards[0])), ["a", "b"], "c is as it was");
}

#[test]
fn a_path_that_comes_twice_is_named() {
    let e = plan(&[file("x/a.jpg", 1), file("x/a.jpg", 2)], &[], 1 << 20, Known::Refuse).unwrap_err();
    assert!(e.kind() == Kind::Exists && e.to_string().contains("x/a.jpg"), "{e}");
}

#[test]
fn the_fingerprint_is_of_what_is_packed() {
    let make = |entries: &[Entry], bytes| plan(entries, &[], bytes, Known::Refuse).unwrap().fingerprint;
    let one = make(&[file("a", 1), file("b", 2)], 1 << 20);
    assert_eq!(one, make(&[file("b", 2), file("a", 1)], 1 << 20));
    assert_ne!(one, make(&[file("a", 1), file("b", 3)], 1 << 20));
    assert_ne!(one, make(&[file("a", 1), file("b", 2)], 2 << 20));
}
