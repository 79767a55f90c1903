//! What Prometheus sees of the metadata service, read when asked.

use std::fmt;
use std::io;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use granary_meta::service::{Service, ServiceStats};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::exit::{Failure, Outcome};
use crate::node::metrics::resident_bytes;
use crate::node::signals::Stop;

struct ServiceCollector {
    service: Arc<Service>,
}

impl fmt::Debug for ServiceCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceCollector").finish_non_exhaustive()
    }
}

type Value = fn(&ServiceStats) -> u64;

const GAUGES: [(&str, &str, Value); 6] = [
    ("granary_meta_sessions", "Sessions of nodes", |s| s.sessions),
    ("granary_meta_leases", "Leases that sessions hold", |s| s.leases),
    ("granary_meta_open_files", "Files that sessions have open, as far as the service was told", |s| s.opens),
    ("granary_meta_calls_parked", "Calls that wait for leases of other sessions", |s| s.parked),
    ("granary_meta_calls_waiting", "Calls that wait in line", |s| s.waiting),
    ("granary_meta_grace", "1 while sessions from before the start may come back and others wait", |s| {
        u64::from(s.in_grace)
    }),
];

const COUNTERS: [(&str, &str, Value); 3] = [
    ("granary_meta_recalls", "Leases that were asked back", |s| s.recalls),
    ("granary_meta_fenced", "Sessions that were ended because they did not answer", |s| s.fenced),
    ("granary_meta_refused", "Calls that were refused for want of a right", |s| s.refused),
];

impl Collector for ServiceCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let stats = self.service.stats();
        for (name, help, value) in GAUGES {
            let one = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value(&stats) as i64).encode(one)?;
        }
        for (name, help, value) in COUNTERS {
            let one = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(value(&stats)).encode(one)?;
        }
        let help = "Calls that came, by kind";
        let mut calls = encoder.encode_descriptor("granary_meta_calls", help, None, MetricType::Counter)?;
        for (kind, count) in &stats.calls {
            ConstCounter::new(*count).encode(calls.encode_family(&[("call", kind.as_str())])?)?;
        }
        let help = "Resident memory of the service";
        let one = encoder.encode_descriptor(
            "granary_memory_resident",
            help,
            Some(&Unit::Bytes),
            MetricType::Gauge,
        )?;
        ConstGauge::new(resident_bytes() as i64).encode(one)
    }
}

/// Serves `/metrics` until the service stops.
pub fn serve(tasks: &mut JoinSet<io::Result<()>>, listener: TcpListener, service: Arc<Service>, stop: &Stop) {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(ServiceCollector { service }));
    let app = Router::new().route("/metrics", get(metrics)).with_state(Arc::new(registry));
    let stop = stop.begin.clone();
    tasks.spawn(
        async move { axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned()).await },
    );
}

async fn metrics(State(registry): State<Arc<Registry>>) -> Outcome<Response> {
    crate::node::blocking(move || {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry)
            .map_err(|e| Failure::failed(format!("cannot write the metrics: {e}")))?;
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
    })
    .await
}
