//! Compaction: what it frees, what it leaves alone, and what may happen meanwhile.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use granary_core::limits::{CHUNK_BYTES, Limits};
use granary_core::{EntryName, Ino, Kind, NamespaceId, ObjectId};
use granary_meta::types::Durability;
use granary_meta::{CopyRange, LiveObject, Metadata, ObjectInfo, RenameMode};
use granary_store::format::{BlockBuilder, BlockInfo, Content, decode_object};
use granary_store::{Fault, Operation, Store};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::world::{World, limits, pattern};
use crate::drain::compact::{rewrite, run_once};
use crate::drain::dead::delete_dead;
use crate::prefetch::pinned::PinnedChunks;

const FILES: u64 = 1500;
const LEN: usize = 8000;

/// Packs of many files, more than one.
async fn packed() -> World {
    let w = packed_of(FILES).await;
    assert_eq!(w.memory_store.count(), 3);
    w
}

async fn packed_of(files: u64) -> World {
    let limits = Limits { log_segment_bytes_max: 32 << 20, ..limits() };
    let w = World::with(limits, 0, Durability::Local).await;
    for i in 0..files {
        w.write_new(&name(i), &pattern(i, LEN)).await;
        if i % 500 == 499 {
            w.tree_ref().sync().await.unwrap();
        }
    }
    w
}

fn name(i: u64) -> String {
    format!("f{i:04}")
}

/// Six of seven are gone.
async fn mostly_deleted(w: &World) -> Vec<u64> {
    for i in (0..FILES).filter(|i| i % 7 != 0) {
        w.unlink(&name(i)).await;
    }
    (0..FILES).step_by(7).collect()
}

async fn objects(w: &World) -> Vec<LiveObject> {
    w.meta().live_objects(ObjectId(0), 1000).await.unwrap()
}

async fn assert_contents(w: &World, files: &[u64]) {
    for &i in files {
        assert_eq!(w.content(&name(i)).await, pattern(i, LEN), "{}", name(i));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mostly_dead_packs_become_one_in_order_of_names_and_are_deleted() {
    let mut w = packed().await;
    let left = mostly_deleted(&w).await;
    // The list the metadata gives says the same before and after a restart.
    let listed = objects(&w).await;
    assert_eq!(listed.iter().map(|o| o.live).sum::<u64>(), left.len() as u64 * LEN as u64);
    let shared = &w.tree_ref().shared;
    assert_eq!(run_once(shared).await.unwrap(), 1);
    let written = shared.drain.compaction.sums().1;
    assert!(written < left.len() as u64 * LEN as u64 * 11 / 10, "{written}");
    w.clock.advance(Duration::from_secs(61));
    delete_dead(shared).await.unwrap();
    assert_eq!(w.memory_store.count(), 1);
    let pack = decode_object(&w.memory_store.object(&w.memory_store.keys()[0]).unwrap()).unwrap();
    let Content::Pack(entries) = pack.footer.content else { panic!("not a pack") };
    let names: Vec<_> = entries.iter().map(|e| String::from_utf8(e.name.to_vec()).unwrap()).collect();
    assert_eq!(names, left.iter().map(|&i| name(i)).collect::<Vec<_>>());
    assert_eq!(run_once(shared).await.unwrap(), 0, "nothing is rewritten twice");
    w.restart_with_empty_cache().await;
    assert_contents(&w, &left).await;
    w.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_shared_by_a_copy_stay_with_their_object() {
    let w = packed().await;
    let (kept, copy) = (w.attr(&name(0)).await.unwrap().ino, w.create("copy", false).await);
    let range = CopyRange {
        from: kept,
        from_offset: 0,
        to: copy.ino(),
        to_offset: 0,
        len: LEN as u64,
        staged_seq: 0,
    };
    w.close(copy).await;
    assert_eq!(w.meta().copy_range(range).await.unwrap().len, LEN as u64);
    let left = mostly_deleted(&w).await;
    let shared = &w.tree_ref().shared;
    assert_eq!(run_once(shared).await.unwrap(), 1);
    w.clock.advance(Duration::from_secs(61));
    delete_dead(shared).await.unwrap();
    assert_eq!(w.memory_store.count(), 2, "the new one, and the one with the copy");
    assert_eq!(run_once(shared).await.unwrap(), 0, "it is left alone");
    assert_eq!(w.content("copy").await, pattern(0, LEN));
    assert_contents(&w, &left).await;
    w.check().await;
}

/// More chunks than the cache has room for, of another namespace.
fn scan(w: &World) {
    let reads = &w.tree_ref().shared.reads;
    for id in 0..3 * reads.bytes_max() / CHUNK_BYTES {
        let (ns, id) = (NamespaceId(99), ObjectId(1 << 100 | u128::from(id)));
        let mut block = BlockBuilder::new(ns, id, BlockInfo { ino: Ino(5), file_offset: 0, version: 1 });
        block.push(Bytes::from(vec![id.0 as u8; CHUNK_BYTES as usize])).unwrap();
        let sealed = block.seal().unwrap();
        let (payload_len, total_len) = (sealed.info.payload_len, sealed.info.total_len);
        let info = ObjectInfo { id, kind: sealed.info.kind, payload_len, total_len };
        reads.insert(ns, &info, &sealed.payload, &sealed.footer);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_tree_stays_wholly_in_the_cache_when_its_packs_are_compacted() {
    let limits = Limits { log_segment_bytes_max: 32 << 20, cache_bytes_max: 40 << 20, ..limits() };
    let w = World::with(limits, 0, Durability::Local).await;
    for i in 0..FILES {
        w.write_new(&name(i), &pattern(i, LEN)).await;
        if i % 500 == 499 {
            w.tree_ref().sync().await.unwrap();
        }
    }
    let left = mostly_deleted(&w).await;
    // Every second of those that are left is in the pinned tree; all of them move into one pack.
    let mut files = Vec::new();
    for i in left.iter().step_by(2) {
        files.push(w.attr(&name(*i)).await.unwrap().ino);
    }
    let pinned = Arc::new(PinnedChunks::default());
    let here = w.tree_ref().pin(&files, &pinned).await.unwrap();
    assert_eq!((here.files, here.files_here), (files.len() as u64, files.len() as u64));
    let shared = &w.tree_ref().shared;
    assert_eq!(run_once(shared).await.unwrap(), 1);
    w.clock.advance(Duration::from_secs(61));
    delete_dead(shared).await.unwrap();
    assert_eq!(w.memory_store.count(), 1);
    scan(&w);
    let now = w.tree_ref().residence(&files).await.unwrap();
    assert_eq!((now.files_here, now.bytes_here), (here.files_here, here.bytes_here));
    // What is let go goes, with the pack that it was moved to.
    w.tree_ref().unpin(&pinned);
    assert_eq!((pinned.bytes(), shared.reads.pinned_bytes()), (0, 0));
    scan(&w);
    assert_eq!(w.tree_ref().residence(&files).await.unwrap().bytes_here, 0);
    assert_contents(&w, &left).await;
    w.check().await;
}

/// Held in the middle, with everything that may happen to a file happening.
#[tokio::test(flavor = "multi_thread")]
async fn files_change_while_they_are_moved() {
    let w = Arc::new(packed().await);
    let left = mostly_deleted(&w).await;
    let reading = w.open(&name(7)).await;
    w.store.script(Operation::Put, Fault::Delay, 1);
    let shared = w.tree_ref().shared.clone();
    let running = tokio::spawn(async move { run_once(&shared).await });
    w.store.until_held(1).await;
    // A whole rewrite, a part, a truncation, a removal, a rename, and another compaction of the same objects.
    let whole = w.open(&name(14)).await;
    whole.write(0, &pattern(99, LEN), false).await.unwrap();
    let part = w.open(&name(21)).await;
    part.write(100, b"changed", false).await.unwrap();
    let cut = w.open(&name(28)).await;
    cut.truncate(10).await.unwrap();
    for file in [whole, part, cut] {
        w.close(file).await;
    }
    w.unlink(&name(35)).await;
    let from = name(42);
    let (from, to) = (EntryName::new(from.as_bytes()).unwrap(), EntryName::new(b"renamed").unwrap());
    w.meta().rename(Ino::ROOT, from, Ino::ROOT, to, RenameMode::Replace).await.unwrap();
    let group = objects(&w).await;
    rewrite(&w.tree_ref().shared, &group).await.unwrap();
    w.store.release();
    running.await.unwrap().unwrap();

    assert_eq!(w.content(&name(14)).await, pattern(99, LEN));
    let mut changed = pattern(21, LEN);
    changed[100..107].copy_from_slice(b"changed");
    assert_eq!(w.content(&name(21)).await, changed);
    assert_eq!(w.content(&name(28)).await, pattern(28, LEN)[..10]);
    assert!(w.attr(&name(35)).await.is_none());
    assert_eq!(w.content("renamed").await, pattern(42, LEN));
    assert_eq!(reading.read(0, LEN as u32).await.unwrap(), pattern(7, LEN));
    w.close(reading).await;
    assert_contents(&w, &left[7..]).await;
    w.tree_ref().sync().await.unwrap();
    w.clock.advance(Duration::from_secs(61));
    delete_dead(&w.tree_ref().shared).await.unwrap();
    assert_contents(&w, &left[7..]).await;
    w.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_object_is_left_alone_and_the_others_are_not() {
    let mut w = packed().await;
    let left = mostly_deleted(&w).await;
    let keys = w.memory_store.keys();
    let mut bytes = w.memory_store.object(&keys[0]).unwrap().to_vec();
    bytes[1000] ^= 1;
    w.memory_store.put(&keys[0], vec![bytes.into()]).await.unwrap();
    w.restart_with_empty_cache().await;
    let shared = &w.tree_ref().shared;
    run_once(shared).await.unwrap();
    w.clock.advance(Duration::from_secs(61));
    delete_dead(shared).await.unwrap();
    assert_eq!(w.memory_store.count(), 2, "the damaged one stays");
    assert!(w.memory_store.keys().contains(&keys[0]));
    let mut damaged = 0;
    for i in left {
        let file = w.open(&name(i)).await;
        match file.read(0, LEN as u32).await {
            Ok(read) => assert_eq!(read, pattern(i, LEN)),
            Err(e) => {
                assert_eq!(e.kind(), Kind::Corrupt);
                damaged += 1;
            }
        }
        w.close(file).await;
    }
    assert!(damaged > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_in_the_middle_loses_nothing() {
    for (operation, fault) in [
        (Operation::Get, Fault::Before(Kind::Unavailable)),
        (Operation::Put, Fault::Before(Kind::Unavailable)),
        (Operation::Put, Fault::After(Kind::Unavailable)),
    ] {
        let mut w = packed().await;
        let left = mostly_deleted(&w).await;
        w.store.script(operation, fault, 1);
        assert_eq!(run_once(&w.tree_ref().shared).await.unwrap_err().kind(), Kind::Unavailable);
        w.kill().await;
        run_once(&w.tree_ref().shared).await.unwrap();
        w.clock.advance(Duration::from_secs(61));
        delete_dead(&w.tree_ref().shared).await.unwrap();
        assert_contents(&w, &left).await;
        w.check().await;
    }
}

/// Bytes written to the store, over bytes that files were given, when half of all files are deleted at random.
#[tokio::test(flavor = "multi_thread")]
async fn write_amplification_of_random_deletes_stays_below_two() {
    const MANY: u64 = 5000;
    let seed = 20;
    println!("seed: {seed}");
    let mut rng = SmallRng::seed_from_u64(seed);
    let w = packed_of(MANY).await;
    let mut left = Vec::new();
    for i in 0..MANY {
        if rng.random() {
            w.unlink(&name(i)).await;
        } else {
            left.push(i);
        }
    }
    let shared = &w.tree_ref().shared;
    assert!(run_once(shared).await.unwrap() > 0);
    let (given, written) = (MANY * LEN as u64, shared.status().uploaded_bytes);
    println!("written {written} for {given} given: {:.2}", written as f64 / given as f64);
    assert!(written <= 2 * given, "{written} for {given}");
    assert_contents(&w, &left).await;
    w.check().await;
}
