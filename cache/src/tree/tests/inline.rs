//! Tiny files whose bytes the metadata keeps too: read without the store, never wrong, and from the store where there is no copy.

use granary_meta::engine::{Engine, Write};
use granary_meta::record::{Family, Key, Value};
use granary_meta::{Inline, Metadata, NamespaceChange, PolicyChange};
use granary_store::Operation;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use super::nodes::Nodes;
use super::world::{World, pattern};
use crate::drain::compact::rewrite;
use crate::drain::dead::delete_dead;

async fn world(bytes_max: u64) -> World {
    let w = World::new().await;
    set(&w, bytes_max);
    w
}

/// Copies of files up to so long.
pub fn set(w: &World, bytes_max: u64) {
    let policy = PolicyChange { inline_bytes_max: Some(bytes_max), ..PolicyChange::default() };
    w.up().volume.set_namespace(&w.name, NamespaceChange { policy, ..NamespaceChange::default() }).unwrap();
    w.tree_ref().settings_changed();
}

fn gets(w: &World) -> usize {
    w.store.calls(Operation::Get)
}

/// Rewrites all objects.
async fn compact(w: &World) {
    let objects = w.meta().live_objects(granary_core::ObjectId(0), 9).await.unwrap();
    rewrite(&w.tree_ref().shared, &objects).await.unwrap();
}

async fn copy(w: &World, name: &str) -> Option<Inline> {
    let ino = w.attr(name).await.unwrap().ino;
    w.meta().inline(ino).await.unwrap()
}

/// Copies that lie in the engine.
fn copies(w: &World) -> usize {
    w.up().volume.flush().unwrap();
    let (mut count, ns) = (0, w.meta().namespace());
    let mut prefix = ns.0.to_be_bytes().to_vec();
    prefix.push(Family::Inline as u8);
    let visit = &mut |_: &[u8], _: &[u8]| {
        count += 1;
        Ok(true)
    };
    w.engine.scan(&prefix, &prefix, visit).unwrap();
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn tiny_files_are_read_without_a_request_to_the_store() {
    let mut w = world(2048).await;
    let mut random = SmallRng::seed_from_u64(5);
    let mut files: Vec<(String, Vec<u8>)> = (0..100)
        .map(|i| (format!("f{i}"), pattern(i, if i == 0 { 2048 } else { random.random_range(1..=2048) })))
        .collect();
    for (name, content) in &files {
        w.write_new(name, content).await;
    }
    w.write_new("longer", &pattern(7, 2049)).await;
    w.write_new("empty", b"").await;
    w.tree_ref().sync().await.unwrap();
    w.restart_with_empty_cache().await;
    let before = gets(&w);
    files.shuffle(&mut random);
    for (name, content) in &files {
        let file = w.open(name).await;
        assert!(file.read_ready(0, 4096).is_none(), "it is not on this node");
        assert!(file.read(0, 4096).await.unwrap() == *content, "{name}");
        let (from, len) = (content.len() as u64 / 3, content.len() as u64 / 2);
        assert!(file.read(from, len as u32).await.unwrap() == content[from as usize..][..len as usize]);
        assert!(file.read(content.len() as u64, 9).await.unwrap().is_empty());
        w.close(file).await;
    }
    assert_eq!(w.content("empty").await, b"");
    assert_eq!(gets(&w), before);
    assert_eq!(w.content("longer").await, pattern(7, 2049));
    assert!(gets(&w) > before, "a longer one is read from the store");
    assert_eq!(copies(&w), 100);
    w.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_written_in_pieces_has_a_copy_and_each_change_makes_another() {
    let mut w = world(2048).await;
    let file = w.create("f", false).await;
    for piece in [&b"one "[..], b"two ", b"three"] {
        file.write(0, piece, true).await.unwrap();
    }
    w.tree_ref().sync().await.unwrap();
    assert_eq!(*copy(&w, "f").await.unwrap().bytes, *b"one two three");
    file.write(4, b"TWO", false).await.unwrap();
    assert_eq!(file.read(0, 99).await.unwrap(), "one TWO three");
    w.tree_ref().flush().await.unwrap();
    assert_eq!(copies(&w), 0, "the content is another, and not stored yet");
    w.tree_ref().sync().await.unwrap();
    // The second pack has a part of the file only: of that nobody makes a copy.
    assert_eq!(copies(&w), 0);
    file.truncate(0).await.unwrap();
    file.write(0, b"anew", false).await.unwrap();
    w.close(file).await;
    w.tree_ref().sync().await.unwrap();
    assert_eq!(*copy(&w, "f").await.unwrap().bytes, *b"anew");
    w.restart_with_empty_cache().await;
    let before = gets(&w);
    assert_eq!(w.content("f").await, b"anew");
    assert_eq!(gets(&w), before);
    w.unlink("f").await;
    assert_eq!(copies(&w), 0);
    w.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_policy_there_are_none_and_compaction_brings_them_along() {
    let mut w = world(0).await;
    for i in 0..6 {
        w.write_new(&format!("f{i}"), &pattern(i, 1000)).await;
    }
    w.tree_ref().sync().await.unwrap();
    assert_eq!(copies(&w), 0);
    w.restart_with_empty_cache().await;
    let before = gets(&w);
    assert_eq!(w.content("f0").await, pattern(0, 1000));
    assert!(gets(&w) > before);

    set(&w, 1000);
    compact(&w).await;
    assert_eq!(copies(&w), 6);
    // None goes, until its file's content does.
    set(&w, 0);
    for i in 0..5 {
        w.unlink(&format!("f{i}")).await;
    }
    compact(&w).await;
    w.clock.advance(std::time::Duration::from_secs(61));
    delete_dead(&w.tree_ref().shared).await.unwrap();
    assert_eq!((copies(&w), w.memory_store.count()), (1, 1));
    w.restart_with_empty_cache().await;
    let before = gets(&w);
    assert_eq!(w.content("f5").await, pattern(5, 1000));
    assert_eq!(gets(&w), before);
    w.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_copy_is_never_returned() {
    let mut w = world(2048).await;
    w.write_new("f", b"what was written").await;
    w.tree_ref().sync().await.unwrap();
    let (good, ino) = (copy(&w, "f").await.unwrap(), w.attr("f").await.unwrap().ino);
    for damaged in [
        Inline { bytes: (*b"what was nothing").into(), ..good.clone() },
        Inline { version: good.version + 1, ..good.clone() },
    ] {
        w.up().volume.flush().unwrap();
        let (ns, key) = (w.meta().namespace(), Key::Inline(ino));
        w.engine
            .write(vec![Write::Put(key.encode(ns), Value::Inline(damaged.into()).encode())], true)
            .unwrap();
        w.restart_with_empty_cache().await;
        let before = gets(&w);
        assert_eq!(w.content("f").await, b"what was written");
        assert!(gets(&w) > before);
        assert_eq!(w.up().volume.check(&w.name).unwrap().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_reads_tiny_files_without_the_store_and_sees_each_change() {
    let nodes = Nodes::new(2).await;
    nodes.set_policy(PolicyChange { inline_bytes_max: Some(2048), ..PolicyChange::default() });
    for round in 0..3_u64 {
        for i in 0..20_u64 {
            let (name, content) =
                (format!("f{i}"), pattern(round * 100 + i, 1 + (i as usize * 97 + 13) % 2048));
            let file = if round == 0 { nodes.create(0, &name).await } else { nodes.open(0, &name).await };
            file.truncate(0).await.unwrap();
            file.write(0, &content, false).await.unwrap();
            nodes.tree(0).close(file).await.unwrap();
            // From the first one's stage, before it is stored.
            if i % 3 == 0 {
                assert!(nodes.content(1, &name).await == content, "{name}");
            }
        }
        nodes.tree(0).sync().await.unwrap();
        let before = nodes.gets();
        for i in 0..20_u64 {
            let content = pattern(round * 100 + i, 1 + (i as usize * 97 + 13) % 2048);
            assert!(nodes.content(1, &format!("f{i}")).await == content, "f{i} in round {round}");
        }
        assert_eq!(nodes.gets(), before, "round {round}");
    }
    nodes.end().await;
}
