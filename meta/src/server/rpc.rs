//! The two calls of the gRPC service.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use granary_core::{Clock, Error, Kind, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tonic::transport::server::TlsConnectInfo;
use tonic::{Request, Response, Status, Streaming};

use super::gate::Gate;
use super::incoming::Peer;
use super::stream::SessionStream;
use super::{Authenticate, ServeLimits};
use crate::call::Hello;
use crate::service::{Identity, Service};
use crate::wire::pb::health_answer;
use crate::wire::pb::metadata_server::Metadata;
use crate::wire::{pb, required, session};

/// What is said whatever was wrong with a token.
const REFUSED: &str = "the token is not accepted; ask the administrator of this volume for a new one";

pub(super) struct Rpc {
    service: Arc<Service>,
    authenticate: Arc<dyn Authenticate>,
    gate: Arc<Gate>,
    limits: ServeLimits,
    clock: Arc<dyn Clock>,
    version: String,
    streams: Arc<Semaphore>,
    stopped: watch::Receiver<bool>,
}

impl Rpc {
    pub fn new(
        service: Arc<Service>,
        authenticate: Arc<dyn Authenticate>,
        gate: Arc<Gate>,
        limits: ServeLimits,
        clock: Arc<dyn Clock>,
        version: String,
        stopped: watch::Receiver<bool>,
    ) -> Rpc {
        let streams = Arc::new(Semaphore::new(limits.streams_max));
        Rpc { service, authenticate, gate, limits, clock, version, streams, stopped }
    }

    /// Who asks. Refused with the same words whatever the reason, which the audit log has.
    #[allow(clippy::result_large_err)] // tonic's
    fn identify<T>(&self, request: &Request<T>, from: SocketAddr) -> Result<Identity, Status> {
        let header = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let token = header.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        let checked = if token.is_empty() {
            Err(Error::new(Kind::Denied, "no token"))
        } else if self.gate.may_try(from.ip(), token) {
            self.authenticate.check(token)
        } else {
            Err(Error::new(Kind::Denied, "too many refused tokens came from this address"))
        };
        match checked {
            Ok(identity) => {
                self.gate.accepted(token);
                Ok(identity)
            }
            Err(e) => Err(self.refuse(from, &e)),
        }
    }

    fn refuse(&self, from: SocketAddr, why: &Error) -> Status {
        if self.gate.refused(from.ip()) {
            tracing::warn!(target: "granary::audit", peer = %from, "a session was refused: {why}");
        }
        Status::unauthenticated(REFUSED)
    }

    /// A stream may begin: the permit lasts as long as it.
    #[allow(clippy::result_large_err)]
    fn room(&self) -> Result<OwnedSemaphorePermit, Status> {
        self.streams.clone().try_acquire_owned().map_err(|_| {
            Status::resource_exhausted("the metadata service has as many sessions as it may; try later")
        })
    }

    async fn hello(&self, inbound: &mut Streaming<pb::ClientFrame>) -> Result<Hello, Status> {
        let wait = Duration::from_millis(self.limits.hello_ms_max);
        let frame = tokio::time::timeout(wait, inbound.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no Hello came"))??
            .ok_or_else(|| Status::invalid_argument("the stream ended before its Hello"))?;
        if frame.number != 1 || !frame.items.is_empty() || frame.leave {
            return Err(Status::invalid_argument("the first frame must be a Hello and nothing else"));
        }
        let hello = required(frame.hello, "the Hello").and_then(session::decode_hello);
        hello.map_err(|e| Status::invalid_argument(e.to_string()))
    }
}

fn peer<T>(request: &Request<T>) -> SocketAddr {
    let extensions = request.extensions();
    let plain = extensions.get::<Peer>().copied();
    let tls = || extensions.get::<TlsConnectInfo<Peer>>().map(|info| *info.get_ref());
    plain.or_else(tls).map_or((IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0).into(), |peer| peer.0)
}

#[tonic::async_trait]
impl Metadata for Rpc {
    type SessionStream = SessionStream;

    async fn session(
        &self,
        request: Request<Streaming<pb::ClientFrame>>,
    ) -> Result<Response<SessionStream>, Status> {
        let from = peer(&request);
        let identity = self.identify(&request, from)?;
        let room = self.room()?;
        let mut inbound = request.into_inner();
        let hello = self.hello(&mut inbound).await.inspect_err(|status| {
            super::stream::log_malformed(&self.gate, from, &identity.user, status);
        })?;
        let user = identity.user.clone();
        let service = self.service.clone();
        // Reads and writes the engine: not on this thread.
        let greeted = tokio::task::spawn_blocking(move || service.greet(identity, hello))
            .await
            .map_err(|e| Status::internal(format!("greeting a session failed: {e}")))?;
        let (greeting, connection) = greeted.map_err(|e| match e.kind() {
            Kind::Denied | Kind::Permission | Kind::Access => self.refuse(from, &e),
            Kind::Invalid => Status::invalid_argument(e.to_string()),
            _ => Status::unavailable(e.to_string()),
        })?;
        let greeting = session::encode_greeting(&greeting);
        let (gate, clock) = (self.gate.clone(), self.clock.clone());
        let frames = self.limits.frames_per_second_max;
        Ok(Response::new(SessionStream::new(
            connection, inbound, greeting, gate, clock, frames, from, user, room,
        )))
    }

    async fn health(&self, _: Request<pb::HealthRequest>) -> Result<Response<pb::HealthAnswer>, Status> {
        let status = if *self.stopped.borrow() {
            health_answer::Status::NotServing
        } else {
            health_answer::Status::Serving
        };
        Ok(Response::new(pb::HealthAnswer { status: status as i32, version: self.version.clone() }))
    }
}
