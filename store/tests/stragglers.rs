//! Late answers and dead servers, over real connections: a second request goes to another connection, and to another server.

#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use common::bucket::{self, Bucket};
use common::http::{End, Reply, Server};
use granary_core::limits::Limits;
use granary_core::{SystemClock, TestClock};
use granary_store::{
    GetPlaces, HedgeMetrics, HedgeOptions, HedgeStore, LimitMetrics, Options, Sleep, Store, open,
    production_with,
};
use prometheus_client::registry::Registry;
use tokio::sync::Notify;

/// Requests are late when the server says that it holds one back.
#[derive(Debug, Default)]
struct WhenHeld(Arc<Notify>);

#[async_trait]
impl Sleep for WhenHeld {
    async fn sleep(&self, _: Duration) {
        self.0.notified().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_stalls_is_passed_by_another_one() {
    for stall in [End::Silence, End::Stall(3)] {
        let bucket = Arc::new(Bucket::default());
        let (stalls, held, gets) =
            (Arc::new(AtomicBool::new(false)), Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
        let server = Server::start({
            let (stalls, held, gets) = (stalls.clone(), held.clone(), gets.clone());
            move |request| {
                let is_get = request.method == "GET";
                gets.fetch_add(usize::from(is_get), Ordering::SeqCst);
                let reply = bucket.answer(request);
                if is_get && stalls.swap(false, Ordering::SeqCst) {
                    held.notify_one();
                    return reply.end(stall);
                }
                reply
            }
        })
        .await;
        // No time of the client's own may end what stalls.
        let options = Options {
            first_byte_ms_max: 600_000,
            stall_ms_max: 600_000,
            request_ms_max: 600_000,
            ..common::options(&server.url())
        };
        let backend = open(&format!("s3://{}/v", bucket::NAME), &options).unwrap();
        let clock = Arc::new(TestClock::default());
        let places = GetPlaces::new(8, clock.clone(), &LimitMetrics::default());
        let metrics = HedgeMetrics::default();
        let sleep = Arc::new(WhenHeld(held));
        let store = HedgeStore::new(backend, HedgeOptions::new(5), places, clock, sleep, metrics.clone());
        store.put("k", vec![Bytes::from_static(b"0123456789")]).await.unwrap();
        for _ in 0..64 {
            assert_eq!(store.get("k", 0..10).await.unwrap(), "0123456789");
        }
        stalls.store(true, Ordering::SeqCst);
        assert_eq!(store.get("k", 0..10).await.unwrap(), "0123456789");
        assert_eq!((metrics.sent.get(), metrics.won.get()), (1, 1));
        assert_eq!(gets.load(Ordering::SeqCst), 66);
        // The connection that stalled is closed, and no later request meets it.
        for _ in 0..10 {
            assert_eq!(store.get("k", 2..4).await.unwrap(), "23");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_servers_one_may_be_dead() {
    let bucket = Arc::new(Bucket::default());
    let broken = Arc::new(AtomicBool::new(false));
    let server = |fails: bool| {
        let (bucket, broken) = (bucket.clone(), broken.clone());
        Server::start(move |request| match fails && broken.load(Ordering::SeqCst) {
            true => Reply::error(500, "InternalError"),
            false => bucket.answer(request),
        })
    };
    let servers = [server(false).await, server(true).await];
    let dead = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let options = Options {
        endpoints: vec![servers[0].url(), servers[1].url(), dead.clone()],
        ..common::options(&dead)
    };
    let mut registry = Registry::default();
    let clock = Arc::new(SystemClock);
    let url = format!("s3://{}/v", bucket::NAME);
    let store = production_with(&url, &options, &Limits::default(), clock, &mut registry).unwrap();
    assert_eq!(store.describe(), format!("{url} at {}, {}, {dead}", servers[0].url(), servers[1].url()));
    for round in 0..2 {
        for i in 0..40 {
            let key = format!("k{round}-{i}");
            store.put(&key, vec![Bytes::from_static(b"0123456789")]).await.unwrap();
            assert_eq!(store.get(&key, 0..10).await.unwrap(), "0123456789");
        }
        broken.store(true, Ordering::SeqCst);
    }
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let of = |endpoint: &str, outcome: &str| {
        let line = format!(
            "granary_store_endpoint_requests_total{{endpoint=\"{endpoint}\",outcome=\"{outcome}\"}} "
        );
        text.lines().find_map(|l| l.strip_prefix(&line)).map_or(0, |n| n.parse::<u32>().unwrap())
    };
    assert!(of(&servers[0].url(), "answered") > 0 && of(&servers[1].url(), "answered") > 0, "{text}");
    assert!(of(&dead, "failed") > 0 && of(&dead, "answered") == 0, "{text}");
    assert!(of(&servers[1].url(), "failed") > 0 && of(&servers[0].url(), "failed") == 0, "{text}");
    assert!(text.contains(&format!("granary_store_endpoint_up{{endpoint=\"{dead}\"}} 0")), "{text}");
}
