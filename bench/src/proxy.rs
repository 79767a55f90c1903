//! A proxy that makes a store slow: an HTTP/1.1 server that passes each request on to one store, waits before the first byte of
//! each answer, and counts.
//!
//! Delays are of requests, not of connections, so a client that keeps its connections open meets them as often as one that does
//! not. Requests and answers are passed on as they are, `Host` among their headers, so S3's signatures stay valid. Each
//! connection of a client has one of its own to the store; bodies are streamed, and hyper's buffers (at most [`BUFFER_BYTES`]
//! a direction) bound what is in memory. What the store does not answer ends the client's connection: the proxy has no words
//! of its own.

mod command;
mod count;
mod delay;
mod serve;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

pub use command::{ProxyArgs, run};
pub use count::{Counts, Totals};
pub use delay::{Delays, Schedule};

/// hyper reads no further ahead than this on either side of a connection.
pub const BUFFER_BYTES: usize = 256 << 10;
/// Connections that are served at once; others wait in the listener's queue.
pub const CONNECTIONS_MAX: usize = 1024;
/// Connections are dropped where they wait, which is at once.
const STOP_MAX: Duration = Duration::from_secs(5);

/// A running proxy; ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    counts: Arc<Counts>,
    stop: CancellationToken,
    runtime: Option<Runtime>,
}

impl Proxy {
    /// Listens at `listen` (port 0: any free one) and passes on to `to`, an `http://host:port`.
    pub fn start(listen: SocketAddr, to: &str, delays: Delays, seed: u64) -> Result<Proxy> {
        let upstream = upstream_of(to)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("proxy")
            .enable_all()
            .build()?;
        let listener = runtime
            .block_on(TcpListener::bind(listen))
            .with_context(|| format!("the proxy cannot listen at {listen}"))?;
        let address = listener.local_addr()?;
        let counts = Arc::new(Counts::default());
        let stop = CancellationToken::new();
        let serving = serve::Serving {
            upstream: Arc::from(upstream),
            schedule: Arc::new(Schedule::new(delays, seed)),
            counts: counts.clone(),
        };
        runtime.spawn(serve::accept(listener, serving, stop.clone()));
        Ok(Proxy { address, counts, stop, runtime: Some(runtime) })
    }

    /// As clients name it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What went through so far, by the requests' methods.
    pub fn by_method(&self) -> BTreeMap<String, Totals> {
        self.counts.by_method()
    }

    pub fn totals(&self) -> Totals {
        self.counts.totals()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(STOP_MAX); // its listener and connections are gone then
        }
    }
}

/// `host:port` of an `http://host:port`.
fn upstream_of(to: &str) -> Result<String> {
    let rest = to.strip_prefix("http://").with_context(|| {
        format!("the proxy passes on to http://host:port, and cannot to {to}: TLS would hide what it counts")
    })?;
    let authority = rest.trim_end_matches('/');
    ensure!(!authority.is_empty() && !authority.contains('/'), "{to}: a path cannot be passed on to");
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    Ok(if has_port { authority.to_owned() } else { format!("{authority}:80") })
}

#[cfg(test)]
mod tests;
