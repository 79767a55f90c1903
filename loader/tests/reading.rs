//! Samples by their numbers, from folders and buckets.

#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use std::sync::Arc;

use bytes::Bytes;
use granary_core::Kind;
use granary_loader::{Source, SourceOptions};
use granary_packer::manifest::{self, Runs};
use granary_packer::place::Place;
use granary_store::{Fault, FaultStore, Operation, Store};

use common::{fill, folder, folder_place, memory, over, says};

/// The same checks over both kinds of places.
fn check(source: &Source) {
    assert_eq!(source.len(), 60);
    for n in [0, 9, 10, 59] {
        assert_eq!(says(&source.sample(n).unwrap()), n);
    }
    let wanted: Vec<u64> = (0..60).rev().chain([5, 5]).collect();
    let samples = source.read_many(&wanted).unwrap();
    assert_eq!(samples.iter().map(says).collect::<Vec<_>>(), wanted);
    let (sample, at) = source.file(b"000042.cls").unwrap();
    assert_eq!((says(&sample), &sample.bytes(at).unwrap()[..]), (42, &b"42"[..]));
    assert_eq!((sample.number(), sample.member(at).unwrap().extension), (42, &b"cls"[..]));
    assert_eq!(source.file(b"000042.x").unwrap_err().kind(), Kind::NotFound);
    let e = source.sample(60).unwrap_err();
    assert!(
        e.kind() == Kind::Invalid && e.to_string().contains("has 60 samples; there is no sample 60"),
        "{e}"
    );
}

#[test]
fn a_folder_lends_its_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let source = folder(dir.path(), &[10, 0, 50], 3000);
    check(&source);
    // The same memory each time: nothing is copied.
    let (one, two) = (source.sample(3).unwrap(), source.sample(3).unwrap());
    assert_eq!(one.bytes(0).unwrap().as_ptr(), two.bytes(0).unwrap().as_ptr());
    // A sample outlives what it came from.
    drop(source);
    assert_eq!(says(&one), 3);
}

#[test]
fn many_threads_read_many_samples() {
    let dir = tempfile::tempdir().unwrap();
    drop(folder(dir.path(), &[700, 700], 100));
    let options = SourceOptions { threads: 4, ..SourceOptions::default() };
    let source = Source::open(dir.path().to_str().unwrap(), options).unwrap();
    let wanted: Vec<u64> = (0..1400).map(|n| (n * 37) % 1400).collect();
    assert_eq!(source.read_many(&wanted).unwrap().iter().map(says).collect::<Vec<_>>(), wanted);
}

#[test]
fn a_bucket_is_asked_for_neighbours_together() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (source, store) = runtime.block_on(async {
        let store = Arc::new(FaultStore::new(memory(), 1));
        fill(&Place::of_store(store.clone()), &[10, 0, 50], 3000).await;
        (over(store.clone(), SourceOptions::default()).await, store)
    });
    let _guard = runtime.enter();
    check(&source);
    let before = store.calls(Operation::Get);
    source.read_many(&(10..60).collect::<Vec<_>>()).unwrap();
    assert_eq!(store.calls(Operation::Get) - before, 1);
}

#[tokio::test]
async fn samples_and_files_are_chosen() {
    let store = memory();
    let place = Place::of_store(store.clone());
    let first = fill(&place, &[30, 30], 100).await;
    let having =
        SourceOptions { having: vec!["x.txt".to_owned(), "cls".to_owned()], ..SourceOptions::default() };
    let source = over(store.clone(), having.clone()).await;
    assert_eq!(source.len(), 12);
    let select = SourceOptions { select: Some(vec![55, 3, 10, 50]), ..SourceOptions::default() };
    let listed = over(store.clone(), select.clone()).await;
    let both = over(store.clone(), SourceOptions { select: select.select.clone(), ..having.clone() }).await;
    let numbers =
        |source: &Source| (0..source.len()).map(|n| source.number(n).unwrap()).collect::<Vec<u64>>();
    assert_eq!(numbers(&listed), [3, 10, 50, 55]);
    assert_eq!(numbers(&both), [10, 50, 55]);
    assert_ne!(source.shape().digest(), listed.shape().digest());

    // Files that were deleted, and a sample all of whose files were.
    let mut shards = first.shards().to_vec();
    shards[0].dead_samples = Runs::from_numbers([1]);
    // Sample 0 has files 0 to 2 (bin, cls, x.txt), sample 1 has 3 and 4.
    shards[0].dead_files = Runs::from_numbers([2, 3, 4]);
    manifest::write(&place, &first.next("delete", shards).unwrap()).await.unwrap();
    let now = over(store.clone(), having).await;
    assert_eq!(now.len(), 11);
    let all = over(store.clone(), SourceOptions::default()).await;
    assert_eq!((all.len(), all.number(58).unwrap()), (59, 58));

    for (bad, why) in
        [(vec![60], "sample 60 cannot be selected"), (vec![4, 9, 4], "sample 4 is selected twice")]
    {
        let options = SourceOptions { select: Some(bad), version: None, ..SourceOptions::default() };
        let data = granary_packer::dataset::DataSet::open(place.clone(), Some(1)).await.unwrap();
        let e = Source::of_data_set(data, options).await.unwrap_err();
        assert!(e.kind() == Kind::Invalid && e.to_string().contains(why), "{e}");
    }
}

#[test]
fn only_chosen_members_are_given() {
    let dir = tempfile::tempdir().unwrap();
    drop(folder(dir.path(), &[10], 100));
    let options = SourceOptions { members: vec!["cls".to_owned()], ..SourceOptions::default() };
    let source = Source::open(dir.path().to_str().unwrap(), options).unwrap();
    let sample = source.sample(5).unwrap();
    assert_eq!((sample.len(), &sample.bytes(0).unwrap()[..]), (1, &b"5"[..]));
    assert_eq!(sample.key().unwrap(), b"000005");
    assert!(sample.find(b"bin").unwrap().is_none() && sample.bytes(1).is_err());
}

#[test]
fn a_flipped_byte_and_a_cut_shard_are_told() {
    let dir = tempfile::tempdir().unwrap();
    drop(folder(dir.path(), &[10, 10], 3000));
    let path = dir.path().join("shards/000001.tar");
    let good = std::fs::read(&path).unwrap();
    let mut bytes = good.clone();
    bytes[600] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let open = || Source::open(dir.path().to_str().unwrap(), SourceOptions::default()).unwrap();
    let source = open();
    assert_eq!(says(&source.sample(9).unwrap()), 9);
    let e = source.sample(10).unwrap_err();
    assert!(
        e.kind() == Kind::Corrupt && e.to_string().contains("shards/000001.tar: \"000010.bin\" at byte 512"),
        "{e}"
    );
    assert_eq!(says(&source.sample(11).unwrap()), 11);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, &good[..good.len() - 1]).unwrap();
    let e = open().sample(15).unwrap_err();
    assert!(e.kind() == Kind::Corrupt && e.to_string().contains("was changed after it was packed"), "{e}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_bucket_gave_wrong_is_asked_for_once_more() {
    let store = Arc::new(FaultStore::new(memory(), 1));
    fill(&Place::of_store(store.clone()), &[10], 3000).await;
    let source = over(store.clone(), SourceOptions::default()).await;
    let read = |source: Source| tokio::task::spawn_blocking(move || source.sample(4));
    // The index first, then a sample.
    store.script(Operation::Get, Fault::Flip, 1);
    read(source.clone()).await.unwrap().unwrap();
    store.script(Operation::Get, Fault::Flip, 1);
    assert_eq!(says(&read(source.clone()).await.unwrap().unwrap()), 4);
    store.script(Operation::Get, Fault::Flip, 2);
    assert_eq!(read(source.clone()).await.unwrap().unwrap_err().kind(), Kind::Corrupt);
    // A shard that is not there is named.
    store.delete(vec!["shards/000000.tar".to_owned()]).await.unwrap();
    assert_eq!(read(source).await.unwrap().unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn no_data_set_is_told_with_the_mend() {
    let dir = tempfile::tempdir().unwrap();
    let e = Source::open(dir.path().to_str().unwrap(), SourceOptions::default()).unwrap_err();
    assert!(e.kind() == Kind::NotFound && e.to_string().contains("granary pack"), "{e}");
    let place = folder_place(dir.path());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(place.put("manifests/0000000001.jsonl", Bytes::from_static(b"{}\n"))).unwrap();
    let e = Source::open(dir.path().to_str().unwrap(), SourceOptions::default()).unwrap_err();
    assert_eq!(e.kind(), Kind::Corrupt, "{e}");
}
