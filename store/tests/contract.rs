//! Every backend and the production stack around it pass the same suite.

#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use std::sync::Arc;

use common::bucket::{self, Bucket};
use common::suite;
use granary_core::limits::Limits;
use granary_core::{Kind, SystemClock};
use granary_store::{MemoryStore, Options, open, production_with, stacked};
use prometheus_client::registry::Registry;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory() {
    suite::run(Arc::new(MemoryStore::new(Arc::new(SystemClock))), 2_500).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folder() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file://{}", dir.path().join("new").display());
    assert_eq!(open(&url, &Options::default()).unwrap_err().kind(), Kind::NotFound);
    let store = open(&url, &Options { create: true, ..Options::default() }).unwrap();
    assert_eq!(store.describe(), url);
    suite::run(store, 300).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_in_memory() {
    let (bucket, server) = Bucket::serve().await;
    let options = common::options(&server.url());
    // The whole bucket, and below a prefix: neighbours of the prefix are not seen.
    suite::run(open(&format!("s3://{}", bucket::NAME), &options).unwrap(), 2_500).await;
    for neighbour in ["vol", "vol-2/x", "vol.x", "volx", "a"] {
        bucket.objects.lock().unwrap().insert(neighbour.into(), b"not ours".to_vec());
    }
    let store = open(&format!("s3://{}/vol/1", bucket::NAME), &options).unwrap();
    assert_eq!(store.describe(), format!("s3://a-bucket/vol/1 at {}", server.url()));
    let debug = format!("{store:?} {options:?}");
    assert!(debug.contains("a-bucket") && !debug.contains("test-secret"), "{debug}");
    suite::run(store.clone(), 1_001).await;
    assert_eq!(bucket.objects.lock().unwrap().len(), 5);

    // 2,301 keys are three requests.
    bucket.requests.lock().unwrap().clear();
    store.delete((0..2_301).map(|i| format!("k{i}")).collect()).await.unwrap();
    assert_eq!(*bucket.requests.lock().unwrap(), ["POST?delete"; 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn production_stack() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { create: true, ..Options::default() };
    let mut registry = Registry::default();
    let url = format!("file://{}/v", dir.path().display());
    let store =
        production_with(&url, &options, &Limits::default(), Arc::new(SystemClock), &mut registry).unwrap();
    suite::run(store, 100).await;
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    assert!(text.contains("granary_store_requests_total{operation=\"put\",outcome=\"ok\"}"), "{text}");
    assert!(text.contains("granary_store_retries_total 0"), "{text}");

    let memory = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
    suite::run(stacked(memory, &Limits::default(), Arc::new(SystemClock), &mut Registry::default()), 100)
        .await;
}
