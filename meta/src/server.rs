//! The metadata service on the network: gRPC around [`crate::service::Service`].
//!
//! A session is one stream each way. The task that serves its connection does everything for it: reads frames, hands calls
//! to the service, gathers what the service says into frames. Nothing is spawned for a message. Who does not read what
//! he is sent is not read from either, and is ended by the service when his lease time is over.
//!
//! Who asks is proven before a frame is read ([`Authenticate`]). Whatever is wrong with a token, the answer is the same; the
//! reason is told to the log target `granary::audit`. What is malformed ends that stream and is logged once a minute.
//!
//! | bound | what happens at it |
//! |---|---|
//! | connections, also from one address | the connection is closed at once |
//! | streams of sessions | `RESOURCE_EXHAUSTED` |
//! | refused tokens a second from one address | tokens that are not known to be good are refused unread |
//! | frames a second of one stream | it is not read from for a while |
//! | bytes and items of a frame | the stream ends (`crate::wire`) |
//! | calls under way | the stream ends (`ServiceOptions::calls_max`) |

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};
use granary_core::{Clock, Error, Kind, Result};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::{Identity as TlsIdentity, Server, ServerTlsConfig};

use crate::service::{Identity, Service};
use crate::wire::bounds::{CLIENT_FRAME_BYTES_MAX, SERVER_FRAME_BYTES_MAX};
use crate::wire::pb::metadata_server::MetadataServer;

mod gate;
mod incoming;
mod rpc;
mod stream;

/// How long streams may take to end when the service stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Flow control must not stop a batch of calls.
const WINDOW_BYTES: u32 = 4 << 20;

/// Finds out who shows a token.
pub trait Authenticate: Send + Sync + 'static {
    /// The error's message is for the log only: who asks learns no more than that he is refused.
    fn check(&self, bearer: &str) -> Result<Identity>;
}

/// The service's certificate and its key, PEM.
#[derive(Clone)]
pub struct TlsPem {
    pub certificate: Vec<u8>,
    pub key: Vec<u8>,
}

impl fmt::Debug for TlsPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsPem")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServeLimits {
    pub connections_max: usize,
    pub connections_per_address_max: usize,
    /// Streams of sessions at once.
    pub streams_max: usize,
    /// Of one stream, in the long run.
    pub frames_per_second_max: u32,
    /// Tokens refused a second for one address, in the long run; ten times as many at once.
    pub refusals_per_second_max: u32,
    /// From the beginning of a stream to its Hello.
    pub hello_ms_max: u64,
}

impl Default for ServeLimits {
    fn default() -> ServeLimits {
        ServeLimits {
            connections_max: 4096,
            connections_per_address_max: 512,
            streams_max: 10_000,
            frames_per_second_max: 50_000,
            refusals_per_second_max: 5,
            hello_ms_max: 10_000,
        }
    }
}

pub struct ServeOptions {
    pub listeners: Vec<TcpListener>,
    /// Without it what is said can be read on the way: for loopback only.
    pub tls: Option<TlsPem>,
    pub limits: ServeLimits,
    pub clock: Arc<dyn Clock>,
    /// The program's version, for `Health`.
    pub version: String,
}

impl fmt::Debug for ServeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServeOptions")
            .field("listeners", &self.listeners)
            .field("tls", &self.tls)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Serves until `stop` is ready; then tells all streams, which the clients take up again elsewhere or later, makes
/// everything durable, and returns. `Invalid` for certificates that cannot be used.
pub async fn serve(
    service: Arc<Service>,
    options: ServeOptions,
    authenticate: Arc<dyn Authenticate>,
    stop: impl Future<Output = ()> + Send,
) -> Result<()> {
    let ServeOptions { listeners, tls, limits, clock, version } = options;
    let (stopping, stopped) = watch::channel(false);
    let gate = gate::Gate::new(limits, clock.clone());
    let rpc =
        rpc::Rpc::new(service.clone(), authenticate, gate.clone(), limits, clock, version, stopped.clone());
    let rpc = MetadataServer::new(rpc)
        .max_decoding_message_size(CLIENT_FRAME_BYTES_MAX)
        .max_encoding_message_size(SERVER_FRAME_BYTES_MAX);
    let mut server = Server::builder()
        .max_concurrent_streams(64)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        .http2_max_header_list_size(32 << 10);
    if let Some(tls) = tls {
        let identity = TlsIdentity::from_pem(&tls.certificate, &tls.key);
        server = server.tls_config(ServerTlsConfig::new().identity(identity)).map_err(|e| {
            Error::new(Kind::Invalid, "the certificate or key for TLS cannot be used").with_source(e)
        })?;
    }
    let incoming = incoming::Incoming::new(listeners, gate)?;
    let mut until = stopped.clone();
    let serving = server.serve_with_incoming_shutdown(rpc, incoming, async move {
        // The sender outlives the server.
        let _ = until.wait_for(|stop| *stop).await;
    });
    let (serving, stop) = (std::pin::pin!(serving), std::pin::pin!(stop));
    let failed = |e: tonic::transport::Error| {
        Error::new(Kind::Io, "the metadata service cannot go on serving").with_source(e)
    };
    let serving = match select(serving, stop).await {
        Either::Left((ended, _)) => return ended.map_err(failed),
        Either::Right(((), serving)) => serving,
    };
    stopping.send_replace(true);
    // Tells the streams, and writes: not on this thread.
    let told = tokio::task::spawn_blocking(move || service.stop()).await;
    let ended = tokio::time::timeout(STOP_TIMEOUT, serving).await;
    told.map_err(|e| Error::new(Kind::Bug, "stopping the metadata service panicked").with_source(e))??;
    // Streams whose clients do not answer are cut.
    ended.unwrap_or(Ok(())).map_err(failed)
}
