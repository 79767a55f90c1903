//! Whole objects: cold, warm, after a restart, after an upload, damaged, gone.

use super::*;

#[tokio::test]
async fn cold_then_warm_then_after_a_restart_without_the_store() {
    let mut b = Bench::new();
    let len = 3 * MIB + 12_345;
    let object = b.object(1, len).await;
    assert!(b.cache.read_ready(NS, &object, 0..10).is_none());
    b.check(&object, 0..len).await;
    b.cache.idle().await;
    b.store.set_dead(true);
    let before = b.store.gets().len();
    for range in [0..0, 0..1, 0..len, len - 1..len, MIB - 1..MIB + 1, 65_535..65_537, 100_000..2_000_000] {
        b.check(&object, range.clone()).await;
        let ready = b.cache.read_ready(NS, &object, range.clone()).unwrap();
        assert!(ready == payload(1, len)[range.start as usize..range.end as usize]);
    }
    b.reopen().await;
    b.check(&object, 0..len).await;
    b.check(&object, 70_000..70_010).await;
    assert_eq!(b.store.gets().len(), before);
    assert_eq!(b.cache.usage().1, 5, "four chunks and the checksums");
    let stats = b.cache.stats();
    assert_eq!((stats.misses, stats.local_corrupt, stats.disk_hits), (0, 0, 5));
}

#[tokio::test]
async fn neighbours_share_a_frame_in_memory() {
    let b = Bench::new();
    let object = b.object(1, MIB).await;
    b.check(&object, 0..4096).await;
    b.cache.idle().await;
    for at in 0..16 {
        b.check(&object, at * 4096..(at + 1) * 4096).await;
    }
    let stats = b.cache.stats();
    assert_eq!((stats.misses, stats.disk_hits, stats.memory_hits), (1, 1, 15));
}

#[tokio::test]
async fn a_small_object_takes_one_get() {
    let b = Bench::new();
    let object = b.object(1, 5000).await;
    b.check(&object, 10..20).await;
    assert_eq!(b.store.gets(), [(key_of(&object), 0..object.total_len)]);
}

#[tokio::test]
async fn the_dead_stores_cached_ranges_are_served_and_others_come_when_it_is_back() {
    let b = Bench::new();
    let object = b.object(1, 12 * MIB).await;
    b.check(&object, 5 * MIB..5 * MIB + 1).await;
    b.cache.idle().await;
    b.store.set_dead(true);
    b.check(&object, 5 * MIB..6 * MIB).await;
    let e = b.error(&object, 9 * MIB..9 * MIB + 1).await;
    assert_eq!(e.kind(), Kind::Unavailable);
    assert!(e.to_string().contains(&key_of(&object)), "{e}");
    b.store.set_dead(false);
    b.check(&object, 9 * MIB..9 * MIB + 1).await;
}

#[tokio::test]
async fn what_was_uploaded_is_read_without_the_store() {
    let mut b = Bench::new();
    b.store.set_dead(true);
    let (sealed, object) = sealed(3, 2 * MIB + 777);
    let whole = payload(3, 2 * MIB + 777);
    let mut parts = Vec::new();
    let mut at = 0;
    for len in [1usize, 0, 4096, 65_536, 1_000_000, 1, 2_000_000].into_iter().cycle() {
        let end = whole.len().min(at + len);
        parts.push(whole.slice(at..end));
        at = end;
        if at == whole.len() {
            break;
        }
    }
    b.cache.insert(NS, &object, &parts, &sealed.footer);
    b.check(&object, 0..object.payload_len).await;
    b.reopen().await;
    b.check(&object, MIB - 5..2 * MIB + 5).await;
    assert!(b.store.gets().is_empty());
}

#[tokio::test]
async fn an_upload_that_is_not_what_its_footer_says_is_not_cached() {
    let b = Bench::new();
    let (sealed, object) = sealed(3, 1000);
    let whole = payload(3, 1000);
    b.cache.insert(NS, &object, &[whole.slice(1..)], &sealed.footer);
    b.cache.insert(NS, &object, std::slice::from_ref(&whole), &sealed.footer.slice(1..));
    b.cache.insert(NamespaceId(8), &object, std::slice::from_ref(&whole), &sealed.footer);
    assert!(b.files().is_empty());
    // The right length, other bytes: found out when read, and then it is read from the store.
    b.store.put(&sealed.key(), sealed.parts()).await.unwrap();
    b.cache.insert(NS, &object, &[payload(4, 1000)], &sealed.footer);
    b.check(&object, 0..1000).await;
    assert_eq!(b.cache.stats().local_corrupt, 1);
}

#[tokio::test]
async fn a_removed_objects_chunks_are_gone() {
    let b = Bench::new();
    let (gone, stays) = (b.object(0x1_00, 2 * MIB).await, b.object(0x2_00, 2 * MIB).await);
    b.check(&gone, 0..2 * MIB).await;
    b.check(&stays, 0..2 * MIB).await;
    b.cache.idle().await;
    b.check(&gone, 0..4096).await; // in memory too
    b.cache.remove(gone.id);
    assert!(b.files_of(&gone).is_empty());
    assert_eq!(b.files_of(&stays).len(), 3);
    assert!(b.cache.read_ready(NS, &gone, 0..10).is_none());
    assert!(b.cache.read_ready(NS, &stays, 0..10).is_some());
    b.store.delete(vec![key_of(&gone)]).await.unwrap();
    let e = b.error(&gone, 0..10).await;
    assert_eq!(e.kind(), Kind::NotFound);
    assert!(e.to_string().contains(&key_of(&gone)), "{e}");
}

#[tokio::test]
async fn a_damaged_object_is_named_and_its_good_chunks_are_read() {
    let b = Bench::new();
    let object = b.object(1, 4 * MIB).await;
    b.store.flip(&object, 2 * MIB + 70_000);
    for _ in 0..2 {
        let e = b.error(&object, 2 * MIB..3 * MIB).await;
        b.cache.idle().await;
        assert_eq!(e.kind(), Kind::Corrupt);
        let text = e.to_string();
        assert!(
            text.contains(&key_of(&object)) && text.contains(&format!("byte {}", 2 * MIB + 65_536)),
            "{text}"
        );
    }
    assert_eq!(b.error(&object, 0..4 * MIB).await.kind(), Kind::Corrupt);
    b.cache.idle().await;
    assert_eq!(b.cache.stats().object_corrupt, 3);
    b.check(&object, 0..2 * MIB).await;
    b.check(&object, 3 * MIB..4 * MIB).await;
    b.cache.idle().await;
    let bad = format!("{}.00000002", object.id);
    assert!(!b.files().iter().any(|p| p.ends_with(&bad)), "a bad chunk is not kept");
    b.store.flip(&object, 2 * MIB + 70_000);
    b.check(&object, 0..4 * MIB).await;
}

#[tokio::test]
async fn a_damaged_footer_and_another_objects_bytes_are_corrupt() {
    let b = Bench::new();
    let (object, other) = (b.object(1, 3 * MIB).await, b.object(2, 3 * MIB).await);
    b.store.flip(&object, 3 * MIB + 40);
    for range in [0..1, 2 * MIB..3 * MIB, 0..3 * MIB] {
        let e = b.error(&object, range).await;
        assert_eq!(e.kind(), Kind::Corrupt);
        assert!(e.to_string().contains(&key_of(&object)), "{e}");
    }
    b.store.inner.tamper(&key_of(&object), b.store.inner.object(&key_of(&other)).unwrap());
    assert_eq!(b.error(&object, 0..1).await.kind(), Kind::Corrupt);
    b.cache.idle().await;
    assert!(b.files().is_empty(), "nothing of it is kept");
}

#[tokio::test]
async fn a_bad_transfer_is_tried_once_more() {
    /// Damages the first body.
    #[derive(Debug)]
    struct Flaky(Arc<TestStore>, AtomicBool);
    #[async_trait]
    impl Store for Flaky {
        async fn get(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
            let mut bytes = self.0.get(key, range).await?.to_vec();
            bytes[0] ^= u8::from(!self.1.swap(true, Ordering::SeqCst));
            Ok(bytes.into())
        }
        async fn put(&self, key: &str, parts: Vec<Bytes>) -> Result<()> {
            self.0.put(key, parts).await
        }
        async fn head(&self, key: &str) -> Result<ObjectMeta> {
            self.0.head(key).await
        }
        async fn delete(&self, keys: Vec<String>) -> Result<()> {
            self.0.delete(keys).await
        }
        async fn list(&self, prefix: &str, after: Option<&str>, max: usize) -> Result<Vec<ObjectMeta>> {
            self.0.list(prefix, after, max).await
        }
        fn describe(&self) -> String {
            self.0.describe()
        }
    }
    let b = Bench::new();
    let object = b.object(1, 100_000).await;
    let store = Arc::new(Flaky(b.store.clone(), AtomicBool::new(false)));
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(TestClock::default());
    let cache = ReadCache::open(dir.path(), &b.limits, store, clock, b.memory.clone()).unwrap();
    assert!(cache.read(NS, &object, 0..100_000).await.unwrap() == payload(1, 100_000));
    assert_eq!((b.store.gets().len(), cache.stats().object_corrupt), (2, 0));
}

#[tokio::test]
async fn a_range_outside_the_payload_is_a_bug_that_names_the_object() {
    let b = Bench::new();
    let object = b.object(1, 1000).await;
    assert!(b.cache.read_ready(NS, &object, 0..1001).is_none());
    let e = b.error(&object, 0..1001).await;
    assert_eq!(e.kind(), Kind::Bug);
    assert!(e.to_string().contains(&key_of(&object)), "{e}");
    let impossible = ObjectInfo { total_len: 10, ..object };
    assert_eq!(b.error(&impossible, 0..1000).await.kind(), Kind::Corrupt);
}
