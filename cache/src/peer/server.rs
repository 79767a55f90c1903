//! Gives other nodes what is staged here.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use granary_core::{Clock, Error, Kind, NamespaceId, NodeId, Result};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Code, Request, Response, Status};

use super::wire::{self, ReadReply, ReadRequest, Wanted};
use crate::tree::Tree;
use crate::util::lock;

/// A question has at most so many bytes.
const REQUEST_BYTES_MAX: usize = 4 << 10;
/// Refusals are logged at most this often.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Who may read what.
pub trait TicketCheck: Send + Sync + 'static {
    /// The namespace that the ticket's bearer may read. Every ticket that is not good gives the same error.
    fn check(&self, ticket: &str) -> Result<NamespaceId>;
}

/// Certificate and key, PEM.
#[derive(Clone)]
pub struct ServerTls {
    pub certificate: Vec<u8>,
    pub key: Vec<u8>,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").finish_non_exhaustive()
    }
}

#[derive(Clone, Debug)]
pub struct PeerServerOptions {
    pub tls: Option<ServerTls>,
    /// Reads at once, of all peers. Others wait.
    pub reads_at_once: usize,
    /// Questions at once on one connection.
    pub streams_per_connection: u32,
    /// An idle question or handshake is given up after this.
    pub timeout: Duration,
}

impl Default for PeerServerOptions {
    fn default() -> PeerServerOptions {
        PeerServerOptions {
            tls: None,
            reads_at_once: 32,
            streams_per_connection: 64,
            timeout: Duration::from_secs(10),
        }
    }
}

/// This node's trees, by namespace, for its peers.
pub struct PeerServer {
    node: NodeId,
    tickets: Arc<dyn TicketCheck>,
    clock: Arc<dyn Clock>,
    options: PeerServerOptions,
    /// Guards the registry; held for look-ups.
    trees: Mutex<HashMap<NamespaceId, Weak<Tree>>>,
    reads: Semaphore,
    /// Guards when a refusal was logged last, and how many were not since.
    refused: Mutex<(Option<Duration>, u64)>,
}

impl fmt::Debug for PeerServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerServer").field("node", &self.node).finish_non_exhaustive()
    }
}

impl PeerServer {
    pub fn new(
        node: NodeId,
        tickets: Arc<dyn TicketCheck>,
        clock: Arc<dyn Clock>,
        options: PeerServerOptions,
    ) -> Arc<PeerServer> {
        Arc::new(PeerServer {
            node,
            tickets,
            clock,
            reads: Semaphore::new(options.reads_at_once),
            options,
            trees: Mutex::default(),
            refused: Mutex::default(),
        })
    }

    /// From now on the tree's staged bytes are served, until it is dropped.
    pub fn register(&self, ns: NamespaceId, tree: &Arc<Tree>) {
        let mut trees = lock(&self.trees);
        trees.retain(|_, tree| tree.strong_count() > 0);
        trees.insert(ns, Arc::downgrade(tree));
    }

    /// Serves until `stop` ends; what is being read is read to the end.
    ///
    /// Errors: `Invalid` when certificate or key are none, `Io` when the listener fails.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, stop: impl Future<Output = ()>) -> Result<()> {
        let mut server = Server::builder()
            .timeout(self.options.timeout)
            .max_concurrent_streams(self.options.streams_per_connection)
            .http2_keepalive_interval(Some(Duration::from_secs(20)))
            .http2_keepalive_timeout(Some(Duration::from_secs(20)));
        if let Some(tls) = &self.options.tls {
            let identity = Identity::from_pem(&tls.certificate, &tls.key);
            server = server.tls_config(ServerTlsConfig::new().identity(identity)).map_err(|e| {
                Error::new(Kind::Invalid, "the certificate or key for other nodes cannot be used")
                    .with_source(e)
            })?;
        }
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let service = wire::Server::new(Asked(self))
            .max_decoding_message_size(REQUEST_BYTES_MAX)
            .max_encoding_message_size(super::PEER_BYTES_MAX as usize + REQUEST_BYTES_MAX);
        server
            .serve_with_incoming_shutdown(service, incoming, stop)
            .await
            .map_err(|e| Error::new(Kind::Io, "other nodes cannot be served any more").with_source(e))
    }

    fn refuse(&self, from: Option<std::net::SocketAddr>, why: &str) {
        let now = self.clock.monotonic();
        let mut refused = lock(&self.refused);
        if refused.0.is_some_and(|at| now.saturating_sub(at) < LOG_EVERY) {
            refused.1 += 1;
            return;
        }
        let from = from.map_or_else(|| "?".to_owned(), |a| a.to_string());
        tracing::warn!(target: "granary::audit", from, why, unlogged = refused.1, "a peer was refused");
        *refused = (Some(now), 0);
    }

    /// One answer for a bad ticket, a namespace that it is not for, and one that is not here.
    fn denied() -> Status {
        Status::unauthenticated("this node has nothing for the bearer of that ticket")
    }

    fn tree_for(&self, request: &Request<ReadRequest>) -> std::result::Result<Arc<Tree>, Status> {
        let from = request.remote_addr();
        let bearer = request.metadata().get("authorization").and_then(|v| v.to_str().ok());
        let Some(ticket) = bearer.and_then(|v| v.strip_prefix("Bearer ")) else {
            self.refuse(from, "no ticket");
            return Err(Self::denied());
        };
        let ns = self.tickets.check(ticket).map_err(|e| {
            self.refuse(from, &e.to_string());
            Self::denied()
        })?;
        if ns.0 != request.get_ref().ns {
            self.refuse(from, "the ticket is for another namespace");
            return Err(Self::denied());
        }
        lock(&self.trees).get(&ns).and_then(Weak::upgrade).ok_or_else(Self::denied)
    }

    async fn read(&self, request: &Request<ReadRequest>) -> std::result::Result<ReadReply, Status> {
        let tree = self.tree_for(request)?;
        let Wanted { ino, node, part, whole, .. } = wire::wanted(request.get_ref()).map_err(|e| {
            self.refuse(request.remote_addr(), &e.to_string());
            Status::invalid_argument(e.to_string())
        })?;
        if node != self.node {
            return Err(Status::failed_precondition("another node answers at this address"));
        }
        let _turn =
            self.reads.acquire().await.map_err(|_| Status::unavailable("the node is being stopped"))?;
        match tree.staged(ino, &part, &whole).await {
            Ok(Some(data)) => Ok(ReadReply { gone: false, crc: granary_core::crc32c(&data), data }),
            Ok(None) => Ok(ReadReply { gone: true, ..ReadReply::default() }),
            Err(e) => Err(Status::new(
                if e.kind() == Kind::Corrupt { Code::DataLoss } else { Code::Internal },
                e.to_string(),
            )),
        }
    }
}

struct Asked(Arc<PeerServer>);

#[tonic::async_trait]
impl wire::Service for Asked {
    async fn read(&self, request: Request<ReadRequest>) -> std::result::Result<Response<ReadReply>, Status> {
        self.0.read(&request).await.map(Response::new)
    }
}
