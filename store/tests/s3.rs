//! The S3 backend against a real server: `GRANARY_TEST_S3_ENDPOINT`, with `GRANARY_TEST_S3_BUCKET` and the `AWS_*` variables
//! (`tools/test` starts a Ceph RGW and sets them). Without one these tests run against the bucket in memory, except in continuous
//! integration (`CI=true`), where its absence is a failure.

#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use std::sync::Arc;

use bytes::Bytes;
use common::bucket::{self, Bucket};
use common::http::Server;
use common::suite;
use granary_core::limits::{Limits, OBJECT_PAYLOAD_MAX};
use granary_core::{Clock, Ino, Kind, NamespaceId, ObjectId, SystemClock};
use granary_store::format::{BlockBuilder, BlockInfo, NewEntry, PackBuilder};
use granary_store::{Environment, Options, Store, Upload, inspect, open, stacked};
use prometheus_client::registry::Registry;

struct World {
    url: String,
    options: Options,
    /// Whether it checks signatures.
    real: bool,
    _server: Option<Server>,
}

/// A server, and a prefix of the test's own.
async fn world(test: &str) -> World {
    let Ok(endpoint) = std::env::var("GRANARY_TEST_S3_ENDPOINT") else {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "GRANARY_TEST_S3_ENDPOINT is not set, and here it must be: run tools/test, which starts a Ceph RGW"
        );
        let (_, server) = Bucket::serve().await;
        let url = format!("s3://{}/{test}", bucket::NAME);
        return World { url, options: common::options(&server.url()), real: false, _server: Some(server) };
    };
    let bucket =
        std::env::var("GRANARY_TEST_S3_BUCKET").expect("GRANARY_TEST_S3_BUCKET names an empty bucket");
    let now = SystemClock.now();
    let url = format!("s3://{bucket}/store-{test}-{:x}-{:x}", now.secs, now.nanos);
    let environment = Environment::of_process().with("AWS_ENDPOINT_URL_S3", &endpoint);
    World { url, options: Options { environment, ..Options::default() }, real: true, _server: None }
}

impl World {
    fn with(&self, name: &str, value: &str) -> Arc<dyn Store> {
        let environment = self.options.environment.clone().with(name, value);
        open(&self.url, &Options { environment, ..self.options.clone() }).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passes_the_suite_through_the_production_stack() {
    let w = world("suite").await;
    let store = open(&w.url, &w.options).unwrap();
    suite::run(stacked(store, &Limits::default(), Arc::new(SystemClock), &mut Registry::default()), 1_100)
        .await;
}

#[tokio::test]
async fn full_objects_are_put_and_verified_from_the_store_alone() {
    let w = world("objects").await;
    let store = open(&w.url, &w.options).unwrap();
    let (ns, id) = (NamespaceId(1), ObjectId::new(5, 6));
    let mut block = BlockBuilder::new(ns, id, BlockInfo { ino: Ino(2), file_offset: 0, version: 1 });
    let mebibyte = Bytes::from(
        (0..1 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 20) as u8).collect::<Vec<_>>(),
    );
    for _ in 0..OBJECT_PAYLOAD_MAX >> 20 {
        block.push(mebibyte.clone()).unwrap();
    }
    let mut pack = PackBuilder::new(ns, id);
    for i in 2..2_000 {
        let data = mebibyte.slice(i * 100..i * 100 + 4096);
        let entry = NewEntry {
            ino: Ino(i as u64),
            parent: Ino(1),
            file_offset: 0,
            crc: granary_core::crc32c(&data),
            name: format!("sample-{i:06}.jpg").into_bytes(),
        };
        pack.push(entry, vec![data]).unwrap();
    }
    let sealed = [block.seal().unwrap(), pack.seal().unwrap()];
    for object in &sealed {
        store.put(&object.key(), object.parts()).await.unwrap();
    }
    let listed = store.list("ns/00000001/", None, 10).await.unwrap();
    assert_eq!(listed.len(), 2);
    for (meta, object) in listed.iter().zip(&sealed) {
        assert_eq!((&meta.key, meta.size), (&object.key(), object.info.total_len));
        let footer = inspect::read_footer(&*store, meta).await.unwrap();
        footer.check_identity(ns, object.info.kind, id).unwrap();
        assert_eq!(inspect::read_object(&*store, meta).await.unwrap().payload, object.payload.concat());
        let chunk = store.get(&meta.key, 1 << 20..2 << 20).await.unwrap();
        footer.verify_frames(1 << 20, &chunk).unwrap();
    }
    store.delete(listed.into_iter().map(|m| m.key).collect()).await.unwrap();
}

#[tokio::test]
async fn wrong_keys_and_wrong_buckets_are_told_apart() {
    let w = world("wrong").await;
    let store = open("s3://no-such-bucket-granary/x", &w.options).unwrap();
    let put = |store: Arc<dyn Store>| async move {
        store.put("k", vec![Bytes::from_static(b"x")]).await.unwrap_err()
    };
    let e = put(store.clone()).await;
    assert_eq!(e.kind(), Kind::NotFound, "{e}");
    assert!(e.to_string().contains("bucket no-such-bucket-granary does not exist"), "{e}");
    assert_eq!(store.list("", None, 1).await.unwrap_err().kind(), Kind::NotFound);
    if w.real {
        let e = put(w.with("AWS_SECRET_ACCESS_KEY", "wrong")).await;
        assert_eq!(e.kind(), Kind::Denied, "{e}");
        assert!(e.to_string().contains("AWS_SECRET_ACCESS_KEY"), "{e}");
    }
    let e = put(w.with("AWS_ACCESS_KEY_ID", "wrong")).await;
    assert!(e.kind() == if w.real { Kind::Denied } else { Kind::Invalid }, "{e}");
    assert!(!w.real || e.to_string().contains("AWS_ACCESS_KEY_ID"), "{e}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_in_parts_is_whole_or_not_there() {
    let w = world("parts").await;
    let backend = open(&w.url, &w.options).unwrap();
    let store = stacked(backend, &Limits::default(), Arc::new(SystemClock), &mut Registry::default());
    let part = |n: u8, len: usize| Bytes::from((0..len).map(|i| (i / 251) as u8 ^ n).collect::<Vec<_>>());
    let parts = [part(1, 5 << 20), part(2, 5 << 20), part(3, 12_345)];
    let upload = Upload::begin(store.clone(), "shards/a.tar").await.unwrap();
    let [a, b, c] =
        [0, 1, 2].map(|n| upload.part(n as u32, vec![parts[n].slice(..100), parts[n].slice(100..)]));
    let (a, b, c) = tokio::join!(c, a, b);
    a.and(b).and(c).unwrap();
    assert_eq!(store.list("shards/", None, 10).await.unwrap(), [], "nothing of it is seen");
    upload.finish().await.unwrap();
    upload.finish().await.expect("finished again, as after an answer that got lost");
    let whole = parts.concat();
    assert_eq!(store.head("shards/a.tar").await.unwrap().size, whole.len() as u64);
    assert!(store.get("shards/a.tar", 0..whole.len() as u64).await.unwrap() == whole);

    let upload = Upload::begin(store.clone(), "shards/b.tar").await.unwrap();
    upload.part(0, vec![parts[0].clone()]).await.unwrap();
    upload.abort().await.unwrap();
    let e = upload.part(1, vec![parts[2].clone()]).await.unwrap_err();
    assert!(e.kind() == Kind::NotFound && e.to_string().contains("finished or aborted"), "{e}");
    // RGW answers 500 here, which is tried again for long.
    if !w.real {
        assert_eq!(upload.finish().await.unwrap_err().kind(), Kind::NotFound);
    }
    assert_eq!(store.head("shards/b.tar").await.unwrap_err().kind(), Kind::NotFound);
    upload.abort().await.expect("aborted again");

    let upload = Upload::begin(store.clone(), "shards/c.tar").await.unwrap();
    for number in 0..2 {
        upload.part(number, vec![parts[2].clone()]).await.unwrap();
    }
    let e = upload.finish().await.unwrap_err();
    assert!(e.kind() == Kind::Invalid && e.to_string().contains("a part's"), "too small for S3: {e}");
    upload.abort().await.unwrap();
    store.delete(vec!["shards/a.tar".into()]).await.unwrap();
}

#[tokio::test]
async fn a_success_that_tells_of_a_failure_is_one_and_is_tried_again() {
    let (bucket, server) = Bucket::serve().await;
    let url = format!("s3://{}/x", bucket::NAME);
    let backend = open(&url, &common::options(&server.url())).unwrap();
    let store = stacked(backend.clone(), &Limits::default(), Arc::new(SystemClock), &mut Registry::default());
    for (store, retries) in [(backend, false), (store, true)] {
        let upload = Upload::begin(store, "k").await.unwrap();
        upload.part(0, vec![Bytes::from_static(b"bytes")]).await.unwrap();
        bucket.finish_faults.lock().unwrap().push((200, "InternalError"));
        match upload.finish().await {
            Err(e) => assert!(!retries && e.kind() == Kind::Unavailable, "{e}"),
            Ok(()) => assert!(retries),
        }
        assert_eq!(bucket.finish_faults.lock().unwrap().len(), 0);
    }
    assert_eq!(bucket.objects.lock().unwrap().len(), 1);
}
