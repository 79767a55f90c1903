use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use granary_core::TestClock;
use prometheus_client::encoding::text::encode;

use super::*;
use crate::MemoryStore;
use crate::fault::{Fault, FaultStore};

struct World {
    registry: Registry,
    faults: Arc<FaultStore>,
    clock: Arc<TestClock>,
    store: Arc<MeterStore>,
}

fn world() -> World {
    let clock = Arc::new(TestClock::default());
    let faults = Arc::new(FaultStore::new(Arc::new(MemoryStore::default()), 1));
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let store = Arc::new(MeterStore::new(faults.clone(), clock.clone(), metrics));
    World { registry, faults, clock, store }
}

impl World {
    /// The metrics' line that begins so, without its beginning.
    fn line(&self, name: &str) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        text.lines().find_map(|l| l.strip_prefix(name)).unwrap_or("absent").trim().to_owned()
    }
}

#[tokio::test]
async fn requests_bytes_and_errors_are_counted_by_operation() {
    let w = world();
    w.store.put("k", vec![Bytes::from_static(b"12345")]).await.unwrap();
    assert_eq!(w.store.get("k", 1..4).await.unwrap(), "234");
    w.store.get("absent", 0..1).await.unwrap_err();
    w.faults.script(Operation::List, Fault::SlowDown, 1);
    w.store.list("", None, 1).await.unwrap_err();
    w.store.head("k").await.unwrap();
    w.store.delete(vec!["k".into()]).await.unwrap();
    for (line, value) in [
        ("granary_store_requests_total{operation=\"put\",outcome=\"ok\"}", "1"),
        ("granary_store_requests_total{operation=\"get\",outcome=\"ok\"}", "1"),
        ("granary_store_requests_total{operation=\"get\",outcome=\"notfound\"}", "1"),
        ("granary_store_requests_total{operation=\"list\",outcome=\"unavailable\"}", "1"),
        ("granary_store_bytes_total{operation=\"put\"}", "5"),
        ("granary_store_bytes_total{operation=\"get\"}", "3"),
        ("granary_store_request_seconds_count{operation=\"get\"}", "2"),
        ("granary_store_in_flight{operation=\"get\"}", "0"),
    ] {
        assert_eq!(w.line(line), value, "{line}");
    }
}

#[tokio::test]
async fn time_is_taken_by_the_clock() {
    let w = world();
    w.faults.script(Operation::Put, Fault::Delay, 1);
    let mut put = pin!(w.store.put("k", vec![Bytes::from_static(b"x")]));
    assert!(poll_fn(|cx| Poll::Ready(put.as_mut().poll(cx).is_pending())).await);
    assert_eq!(w.line("granary_store_in_flight{operation=\"put\"}"), "1");
    w.clock.advance(Duration::from_secs(2));
    w.faults.release();
    put.await.unwrap();
    assert_eq!(w.line("granary_store_request_seconds_sum{operation=\"put\"}"), "2.0");
}
