//! What is lent to another process of this machine.

use std::fs;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use granary_store::Operation;

use super::world::{World, pattern};
use crate::tree::lend::{LendLimits, LendWish, Lent};

const LEN: usize = (5 << 20) + 77;
const LIMITS: LendLimits = LendLimits { parts_max: 16, copy_bytes_max: 1 << 20 };

async fn settle(w: &World) {
    while w.tree_ref().status().dirty_files > 0 {
        w.tree_ref().sync().await.unwrap();
        tokio::task::yield_now().await;
    }
}

/// A file of this node that is in the store, and of which a copy is here.
async fn written() -> (World, Vec<u8>) {
    let w = World::new().await;
    let plain = pattern(3, LEN);
    w.write_new("f", &plain).await;
    settle(&w).await;
    assert_eq!(w.tree_ref().shared.clean.len(), 1);
    (w, plain)
}

fn bytes_of(lent: &[Lent]) -> Vec<u8> {
    let mut all = Vec::new();
    for part in lent {
        match part {
            Lent::Bytes(bytes) => all.extend_from_slice(bytes),
            Lent::File { file, offset, len } => {
                let mut bytes = vec![0; *len as usize];
                file.read_exact_at(&mut bytes, *offset).unwrap();
                all.extend(bytes);
            }
        }
    }
    all
}

/// All of a range, asked for as often as it takes; how many answers had a file.
async fn lend(w: &World, range: Range<usize>, check: bool) -> (Vec<u8>, usize) {
    let attr = w.attr("f").await.unwrap();
    let (mut all, mut files) = (Vec::new(), 0);
    while all.len() < range.len() {
        let rest = (range.start + all.len()) as u64..range.end as u64;
        let lent =
            w.tree_ref().lend(&attr, LendWish { range: rest, check, next: None }, LIMITS).await.unwrap();
        files += usize::from(lent.iter().any(|part| matches!(part, Lent::File { .. })));
        all.extend(bytes_of(&lent));
    }
    (all, files)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_copy_is_lent_as_it_is_and_outlives_its_place_in_the_cache() {
    let (w, plain) = written().await;
    let attr = w.attr("f").await.unwrap();
    let lent = w
        .tree_ref()
        .lend(&attr, LendWish { range: 5..LEN as u64, check: false, next: None }, LIMITS)
        .await
        .unwrap();
    assert!(matches!(lent[..], [Lent::File { offset: 5, .. }]) && lent[0].len() == (LEN - 5) as u64);
    assert_eq!(w.store.calls(Operation::Get), 0);
    w.tree_ref().evict(&[attr.ino]).await.unwrap();
    assert_eq!(w.tree_ref().shared.clean.len(), 0);
    assert!(bytes_of(&lent) == plain[5..], "who has it open reads on");
    let (found, files) = lend(&w, 0..LEN, false).await;
    assert!(found == plain && files > 0 && w.store.calls(Operation::Get) > 0, "now from the store");
    let end = LEN as u64;
    assert!(
        w.tree_ref()
            .lend(&attr, LendWish { range: 9..end + 1, check: false, next: None }, LIMITS)
            .await
            .is_err()
    );
    w.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_is_copied_until_it_is_in_the_store() {
    let (w, mut plain) = written().await;
    let attr = w.attr("f").await.unwrap();
    let before = w
        .tree_ref()
        .lend(&attr, LendWish { range: 0..LEN as u64, check: false, next: None }, LIMITS)
        .await
        .unwrap();
    let Lent::File { file, .. } = &before[0] else { panic!("{before:?}") };
    assert!(file.write_at(b"x", 0).is_err(), "it is lent for reading");
    let open = w.open("f").await;
    open.write(1 << 20, b"changed", false).await.unwrap();
    plain[1 << 20..(1 << 20) + 7].copy_from_slice(b"changed");
    let (found, files) = lend(&w, 0..LEN, false).await;
    assert!(found == plain && files == 0);
    // A descriptor of a file that is written shows what is written, as in a mount.
    assert!(bytes_of(&before) == plain);
    w.close(open).await;
    settle(&w).await;
    let (found, files) = lend(&w, 0..LEN, false).await;
    assert!(found == plain && files == 1, "it is clean again");
    w.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_doubted_gives_way_to_the_store() {
    let (w, plain) = written().await;
    let folder = w.stage_dir().join("clean");
    let path = fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    let copy = fs::OpenOptions::new().write(true).open(path).unwrap();
    copy.write_all_at(b"damage", 3_000_000).unwrap();
    assert!(lend(&w, 0..LEN, false).await.0 != plain, "who reads it verifies it");
    assert!(lend(&w, 0..LEN, true).await.0 == plain);
    assert!(lend(&w, 0..LEN, false).await.0 == plain);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_cut_is_not_lent() {
    let (w, plain) = written().await;
    let attr = w.attr("f").await.unwrap();
    let path = w.tree_ref().shared.files.path(attr.ino, crate::stage::Shape::Clean(attr.version));
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(1 << 20).unwrap();
    let first = w
        .tree_ref()
        .lend(&attr, LendWish { range: 0..1000, check: false, next: None }, LIMITS)
        .await
        .unwrap();
    assert!(matches!(first[..], [Lent::Bytes(_)]) && bytes_of(&first) == plain[..1000]);
}
