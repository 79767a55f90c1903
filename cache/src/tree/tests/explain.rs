//! Where a file's bytes are said to be, from its first write to its eviction.

use std::collections::BTreeMap;
use std::time::Duration;

use granary_core::Ino;

use super::world::{World, pattern};
use crate::file::explain::{Cost, Explanation, Passes, Spot};

async fn explain(w: &World, name: &str) -> Explanation {
    w.tree_ref().explain(w.attr(name).await.unwrap().ino).await.unwrap()
}

fn places(of: &[(&'static str, u64)]) -> BTreeMap<&'static str, u64> {
    of.iter().copied().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_file_goes_from_the_log_to_an_object() {
    let mut w = World::new().await;
    w.write_new("f", &pattern(1, 5000)).await;
    w.clock.advance(Duration::from_millis(500));
    let staged = explain(&w, "f").await;
    assert!(
        matches!(staged.stretches[..], [ref s] if s.len == 5000 && matches!(s.spot, Spot::StageLog { .. }))
    );
    assert_eq!((staged.places, staged.cost), (places(&[("stage_log", 5000)]), Cost::default()));
    let waits = staged.waits.unwrap();
    let period = Duration::from_millis(w.limits.small_period_ms);
    assert_eq!((waits.since, waits.by), (Duration::from_millis(500), "small_period_ms"));
    assert_eq!(waits.left, Some(period - Duration::from_millis(500)));
    assert!(matches!(staged.passthrough, Passes::No(why) if why.contains("small")));
    assert_eq!(staged.lease, None);

    w.tree_ref().sync().await.unwrap();
    let stored = explain(&w, "f").await;
    assert_eq!(
        (stored.places, stored.cost, stored.waits),
        (places(&[("cache", 5000)]), Cost::default(), None)
    );
    let Spot::Object { key, chunks, .. } = &stored.stretches[0].spot else {
        panic!("{:?}", stored.stretches)
    };
    assert!(w.memory_store.keys().contains(key) && *chunks == [0], "{key} {chunks:?}");

    w.restart_with_empty_cache().await;
    let evicted = explain(&w, "f").await;
    assert_eq!(evicted.places, places(&[("store", 5000)]));
    assert_eq!(evicted.cost, Cost { requests: 2, bytes: 5000 }, "the chunk and the object's checksums");
    assert_eq!(w.content("f").await, pattern(1, 5000));
    w.up().reads.idle().await;
    assert_eq!(explain(&w, "f").await.places, places(&[("cache", 5000)]), "read once, it is here");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_file_costs_no_request() {
    let mut w = World::new().await;
    super::inline::set(&w, 2048);
    w.write_new("tiny", b"content").await;
    w.tree_ref().sync().await.unwrap();
    w.restart_with_empty_cache().await;
    let tiny = explain(&w, "tiny").await;
    assert!(tiny.inline);
    assert_eq!((tiny.places, tiny.cost), (places(&[("store", 7)]), Cost::default()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_with_a_hole() {
    let w = World::new().await;
    let file = w.create("large", true).await;
    file.write(20_000, &pattern(2, 20_000), false).await.unwrap();
    let open = explain(&w, "large").await;
    assert_eq!((open.size, open.passthrough, open.open), (40_000, Passes::Yes, true));
    assert_eq!(open.places, places(&[("stage_file", 40_000)]));
    assert_eq!(open.waits.unwrap().by, "large_period_ms");
    w.close(file).await;
    w.tree_ref().sync().await.unwrap();
    let clean = explain(&w, "large").await;
    assert_eq!((clean.places, clean.waits), (places(&[("clean_copy", 40_000)]), None));

    let sparse = w.create("sparse", false).await;
    sparse.write(4096, &pattern(3, 100), false).await.unwrap();
    let spots: Vec<_> = explain(&w, "sparse").await.stretches.iter().map(|s| s.spot.name()).collect();
    assert_eq!(spots, ["hole", "stage_log"]);
    w.close(sparse).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_summed_up_to_its_bounds() {
    let w = World::new().await;
    for i in 0..20 {
        w.write_new(&format!("f{i}"), &pattern(i, 3000)).await;
    }
    let below = w.tree_ref().explain_below(Ino::ROOT, 100, &|_| true).await.unwrap();
    assert_eq!((below.files, below.bytes, below.more), (20, 60_000, false));
    assert_eq!(below.places, places(&[("stage_log", 60_000)]));
    let few = w.tree_ref().explain_below(Ino::ROOT, 7, &|_| true).await.unwrap();
    assert_eq!((few.files, few.more), (7, true));
    let none = w.tree_ref().explain_below(Ino::ROOT, 100, &|_| false).await.unwrap();
    assert_eq!((none.files, none.unreadable), (0, 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_counts_where_it_came_from() {
    use crate::Tier;
    let mut w = World::new().await;
    w.write_new("f", &pattern(1, 5000)).await;
    let served = |w: &World| -> Vec<(Tier, u64, u64)> {
        let all = w.tree_ref().served().into_iter().filter(|s| s.reads > 0);
        all.map(|s| (s.tier, s.reads, s.bytes)).collect()
    };
    assert_eq!(w.content("f").await.len(), 5000);
    assert_eq!(served(&w), [(Tier::Stage, 1, 5000)]);
    w.tree_ref().sync().await.unwrap();
    w.restart_with_empty_cache().await;
    assert_eq!(w.content("f").await.len(), 5000);
    assert_eq!(served(&w), [(Tier::Store, 1, 5000)]);
    w.up().reads.idle().await;
    assert_eq!(w.content("f").await.len(), 5000);
    assert_eq!(served(&w), [(Tier::Cache, 1, 5000), (Tier::Store, 1, 5000)]);
}
