//! What every store must do, whatever it is made of.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::try_join_all;
use granary_core::limits::OBJECT_BYTES_MAX;
use granary_core::{Kind, TestClock};
use granary_store::{Store, marker, probe};

/// `many`: how many objects a listing of several pages has. The store must be empty, and is empty again at the end.
pub async fn run(store: Arc<dyn Store>, many: usize) {
    bytes_come_back_as_they_were_put(&*store).await;
    absence_is_told(&*store).await;
    keys_outside_are_refused(&*store).await;
    listings_are_in_order_and_paged(&*store).await;
    long_listings_are_whole(store.clone(), many).await;
    the_largest_object_fits(&*store).await;
    readers_see_all_or_nothing(store.clone()).await;
    a_volume_can_live_here(&*store).await;
    assert_eq!(keys(&*store, "", None, 10).await, [] as [&str; 0]);
}

async fn put(store: &dyn Store, key: &str, text: &str) {
    store.put(key, vec![Bytes::copy_from_slice(text.as_bytes())]).await.unwrap();
}

async fn keys(store: &dyn Store, prefix: &str, after: Option<&str>, max: usize) -> Vec<String> {
    store.list(prefix, after, max).await.unwrap().into_iter().map(|m| m.key).collect()
}

async fn bytes_come_back_as_they_were_put(store: &dyn Store) {
    let parts = ["", "one ", "two ", "", "three"].map(|s| Bytes::from_static(s.as_bytes()));
    store.put("ns/1/a", parts.to_vec()).await.unwrap();
    assert_eq!(store.get("ns/1/a", 0..13).await.unwrap(), "one two three");
    assert_eq!(store.get("ns/1/a", 4..7).await.unwrap(), "two");
    assert_eq!(store.get("ns/1/a", 12..13).await.unwrap(), "e");
    assert_eq!(store.get("ns/1/a", 3..3).await.unwrap(), "");
    for range in [0..14, 12..14, 13..14, 100..101] {
        let e = store.get("ns/1/a", range.clone()).await.unwrap_err();
        assert_eq!(e.kind(), Kind::Corrupt, "{range:?}");
        assert!(e.to_string().contains("shorter than it should be"), "{e}");
    }
    let meta = store.head("ns/1/a").await.unwrap();
    assert_eq!((meta.key.as_str(), meta.size), ("ns/1/a", 13));
    assert!(meta.modified.secs > 0);
    // An empty object, and an object put again.
    store.put("ns/1/b", vec![]).await.unwrap();
    assert_eq!(store.head("ns/1/b").await.unwrap().size, 0);
    put(store, "ns/1/b", "later").await;
    assert_eq!(store.get("ns/1/b", 0..5).await.unwrap(), "later");
    // What is listed is what is there.
    let listed = store.list("ns/1/", None, 10).await.unwrap();
    assert_eq!(
        listed.iter().map(|m| (m.key.as_str(), m.size)).collect::<Vec<_>>(),
        [("ns/1/a", 13), ("ns/1/b", 5)]
    );
    store.delete(vec!["ns/1/a".into(), "ns/1/b".into()]).await.unwrap();
    assert_eq!(store.get("ns/1/a", 0..1).await.unwrap_err().kind(), Kind::NotFound);
}

async fn absence_is_told(store: &dyn Store) {
    for key in ["absent", "deep/down/absent"] {
        let e = store.get(key, 0..1).await.unwrap_err();
        assert_eq!(e.kind(), Kind::NotFound);
        assert!(e.to_string().contains(key), "{e}");
        assert_eq!(store.head(key).await.unwrap_err().kind(), Kind::NotFound);
    }
    assert_eq!(keys(store, "absent", None, 5).await, [] as [&str; 0]);
    // An absent key is no error, nor are more than one request takes.
    put(store, "present", "x").await;
    let mut doomed: Vec<_> = (0..2_300).map(|i| format!("absent/{i}")).collect();
    doomed.insert(1_500, "present".into());
    store.delete(doomed).await.unwrap();
    assert_eq!(store.head("present").await.unwrap_err().kind(), Kind::NotFound);
    store.delete(vec![]).await.unwrap();
}

async fn keys_outside_are_refused(store: &dyn Store) {
    for key in ["", "/etc/passwd", "../outside", "a/../../outside", "a//b", "a/"] {
        assert_eq!(store.put(key, vec![]).await.unwrap_err().kind(), Kind::Invalid, "{key:?}");
        assert_eq!(store.get(key, 0..1).await.unwrap_err().kind(), Kind::Invalid, "{key:?}");
        assert_eq!(store.head(key).await.unwrap_err().kind(), Kind::Invalid, "{key:?}");
        assert_eq!(store.delete(vec![key.into()]).await.unwrap_err().kind(), Kind::Invalid, "{key:?}");
    }
    #[allow(clippy::reversed_empty_ranges)]
    let backward = 2..1;
    assert_eq!(store.get("a", backward).await.unwrap_err().kind(), Kind::Invalid);
}

async fn listings_are_in_order_and_paged(store: &dyn Store) {
    // `.` sorts before `/`, which sorts before letters: a directory's place is not its name's.
    let all = ["a-/x", "a.b", "a/b", "a/c/d", "a/c/e", "a/cc", "ab", "b"];
    for key in all.iter().rev() {
        put(store, key, key).await;
    }
    assert_eq!(keys(store, "", None, 100).await, all);
    assert_eq!(keys(store, "a/", None, 100).await, all[2..6]);
    assert_eq!(keys(store, "a/c", None, 100).await, all[3..6]);
    assert_eq!(keys(store, "a/c/", None, 100).await, all[3..5]);
    assert_eq!(keys(store, "a", Some("a/b"), 100).await, all[3..7]);
    assert_eq!(keys(store, "a/", Some("a/c/d"), 1).await, all[4..5]);
    // `after` need not be a key, nor lie within the prefix.
    assert_eq!(keys(store, "", Some("a/bb"), 100).await, all[3..]);
    assert_eq!(keys(store, "a/", Some("a"), 100).await, all[2..6]);
    assert_eq!(keys(store, "a/", Some("b"), 100).await, [] as [&str; 0]);
    assert_eq!(keys(store, "", None, 0).await, [] as [&str; 0]);
    let (mut paged, mut after) = (Vec::new(), None);
    loop {
        let page = keys(store, "", after.as_deref(), 3).await;
        let Some(last) = page.last().cloned() else { break };
        paged.extend(page);
        after = Some(last);
    }
    assert_eq!(paged, all);
    store.delete(all.map(str::to_owned).to_vec()).await.unwrap();
}

async fn long_listings_are_whole(store: Arc<dyn Store>, many: usize) {
    let all: Vec<_> = (0..many).map(|i| format!("ns/{:02x}/{i:06}", i % 7)).collect();
    for batch in all.chunks(16) {
        try_join_all(batch.iter().map(|key| store.put(key, vec![Bytes::from_static(b"x")]))).await.unwrap();
    }
    let mut sorted = all.clone();
    sorted.sort();
    assert_eq!(keys(&*store, "ns/", None, many + 10).await, sorted);
    assert_eq!(keys(&*store, "ns/", None, many - 1).await, sorted[..many - 1]);
    store.delete(all).await.unwrap();
    assert_eq!(keys(&*store, "ns/", None, 1).await, [] as [&str; 0]);
}

async fn the_largest_object_fits(store: &dyn Store) {
    let part = Bytes::from(
        (0..1 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect::<Vec<_>>(),
    );
    let parts = vec![part.clone(); (OBJECT_BYTES_MAX >> 20) as usize];
    store.put("large", parts).await.unwrap();
    assert_eq!(store.head("large").await.unwrap().size, OBJECT_BYTES_MAX);
    let bytes = store.get("large", (3 << 20) - 5..(4 << 20) + 5).await.unwrap();
    assert_eq!(bytes[5..bytes.len() - 5], part);
    assert_eq!(bytes[..5], part[part.len() - 5..]);
    store.delete(vec!["large".into()]).await.unwrap();
}

async fn readers_see_all_or_nothing(store: Arc<dyn Store>) {
    let len = 300_000u64;
    let value = |i: u8| vec![Bytes::from(vec![i; 100_000]), Bytes::from(vec![i; 200_000])];
    store.put("k", value(0)).await.unwrap();
    let writer = {
        let store = store.clone();
        tokio::spawn(async move {
            for i in 1..20 {
                store.put("k", value(i)).await.unwrap();
            }
        })
    };
    while !writer.is_finished() {
        let bytes = store.get("k", 0..len).await.unwrap();
        assert!(bytes.iter().all(|b| *b == bytes[0]), "half of one put and half of another");
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
    assert_eq!(store.get("k", 0..1).await.unwrap()[0], 19);
    store.delete(vec!["k".into()]).await.unwrap();
}

async fn a_volume_can_live_here(store: &dyn Store) {
    probe(store, &TestClock::default()).await.unwrap();
    let uuid = "00112233445566778899aabbccddeeff";
    assert_eq!(marker::check(store, uuid).await.unwrap_err().kind(), Kind::NotFound);
    marker::write(store, uuid).await.unwrap();
    marker::check(store, uuid).await.unwrap();
    store.delete(vec![marker::KEY.into()]).await.unwrap();
}
