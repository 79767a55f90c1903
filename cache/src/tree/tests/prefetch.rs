//! Fetching ahead across objects: from one block of a large file to the next, from one pack to the next; and warming.

use granary_core::Ino;
use granary_meta::Metadata;

use super::world::{World, limits, pattern};

const MIB: usize = 1 << 20;

/// Reads a file as a program does, 128 KiB at a time; fetches ahead land between the reads.
async fn read_through(w: &World, name: &str, content: &[u8], backward: bool) {
    let file = w.open(name).await;
    let mut parts: Vec<usize> = (0..content.len()).step_by(128 << 10).collect();
    if backward {
        parts.reverse();
    }
    for at in parts {
        let end = (at + (128 << 10)).min(content.len());
        let bytes = match file.read_ready(at as u64, (end - at) as u32) {
            Some(bytes) => bytes.unwrap(),
            None => file.read(at as u64, (end - at) as u32).await.unwrap(),
        };
        assert!(bytes == content[at..end], "{at}");
        w.up().reads.idle().await;
    }
    w.close(file).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_file_is_fetched_ahead_from_one_object_to_the_next_both_ways() {
    let mut w = World::new().await;
    let content = pattern(1, 40 * MIB + 77);
    let file = w.create("large", true).await;
    file.write(0, &content, false).await.unwrap();
    w.close(file).await;
    w.tree_ref().sync().await.unwrap();
    for backward in [false, true] {
        w.restart_from_the_store().await;
        read_through(&w, "large", &content, backward).await;
        let stats = w.up().reads.stats();
        assert!(stats.misses <= 3, "backward {backward}: {stats:?}");
        // 41 chunks, each once; a footer for each of three blocks, or with its last chunk.
        let bytes = content.len() as u64;
        assert!((bytes..bytes + 3 * 65_536).contains(&stats.fetched_bytes), "{stats:?}");
        assert_eq!(stats.prefetched_bytes, stats.prefetch_used_bytes);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_in_order_are_fetched_ahead_from_one_pack_to_the_next() {
    let mut w = World::new().await;
    let content = |i: usize| pattern(i as u64, 7_000);
    let names: Vec<String> = (0..5000).map(|i| format!("f{i:05}")).collect();
    for (i, name) in names.iter().enumerate() {
        w.write_new(name, &content(i)).await;
    }
    w.tree_ref().sync().await.unwrap();
    w.restart_from_the_store().await;
    for (i, name) in names.iter().enumerate() {
        assert!(w.content(name).await == content(i), "{name}");
        w.up().reads.idle().await;
    }
    let stats = w.up().reads.stats();
    let packs = w.meta().live_objects(granary_core::ObjectId(0), 100).await.unwrap();
    assert!(packs.len() >= 3, "{}", packs.len());
    // The next pack is looked up beside the reads, so that a read may be faster than that.
    assert!(stats.misses <= 1 + packs.len() as u64, "{stats:?}");
    assert!(stats.prefetched_bytes > 25 * MIB as u64, "{stats:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_warmed_batch_is_read_without_the_store_and_dropped_again() {
    let mut w = World::with(limits(), 0, granary_meta::types::Durability::Local).await;
    let mut files: Vec<Ino> = Vec::new();
    for i in 0..50 {
        let name = format!("f{i}");
        w.write_new(&name, &pattern(i, 5_000)).await;
        files.push(w.attr(&name).await.unwrap().ino);
    }
    let large = pattern(99, 18 * MIB);
    let file = w.create("large", true).await;
    file.write(0, &large, false).await.unwrap();
    files.push(file.ino());
    w.close(file).await;
    let staged = w.tree_ref().residence(&files).await.unwrap();
    assert_eq!((staged.files, staged.files_here), (51, 51), "what is staged is here");
    w.tree_ref().sync().await.unwrap();
    w.restart_from_the_store().await;
    let cold = w.tree_ref().residence(&files).await.unwrap();
    let bytes = 50 * 5_000 + large.len() as u64;
    assert_eq!((cold.files, cold.bytes, cold.bytes_here), (51, bytes, 0));
    let warm = w.tree_ref().warm(&files).await.unwrap();
    assert_eq!((warm.files_here, warm.bytes_here, warm.bytes_fetched), (51, bytes, bytes));
    let gets = w.up().reads.stats().gets;
    // 5 requests of at most 4 MiB for the file's two blocks, one for the pack, and the footers.
    assert!(gets <= 9, "{gets}");
    assert_eq!(w.tree_ref().warm(&files).await.unwrap().bytes_fetched, 0);
    assert!(w.content("large").await == large && w.content("f7").await == pattern(7, 5_000));
    assert_eq!(w.up().reads.stats().gets, gets);
    w.tree_ref().evict(&files).await.unwrap();
    assert_eq!(w.tree_ref().residence(&files).await.unwrap().bytes_here, 0);
}
