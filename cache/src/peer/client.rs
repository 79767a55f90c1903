//! Asks other nodes for what they have staged.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use granary_core::{Clock, Error, Ino, Kind, NamespaceId, NodeId, Result};
use granary_meta::lease::PeerInfo;
use granary_meta::{Extent, Metadata, Place};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};

use super::wire::{self, ReadReply};
use super::{PEER_BYTES_MAX, Peers};
use crate::extent_map::clip;
use crate::util::lock;

/// Between tries to reach a node whose process may be starting again.
const TRY_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Clone, Debug)]
pub struct PeerClientOptions {
    /// The certificate, PEM, by which other nodes' certificates are believed. `None`: without TLS.
    pub ca: Option<Vec<u8>>,
    /// Connecting and reading together.
    pub wait: Duration,
    /// What the metadata said of a node is asked again after this; less than a ticket's life.
    pub info_age: Duration,
    /// Nodes remembered.
    pub nodes_max: usize,
}

impl Default for PeerClientOptions {
    fn default() -> PeerClientOptions {
        PeerClientOptions {
            ca: None,
            wait: Duration::from_secs(5),
            info_age: Duration::from_secs(60),
            nodes_max: 1024,
        }
    }
}

#[derive(Clone)]
struct Known {
    info: PeerInfo,
    since: Duration,
    /// One connection a node, made when it is first used and again when it breaks.
    channel: Channel,
}

/// [`Peers`] of one namespace, over gRPC.
pub struct PeerClient {
    meta: Arc<dyn Metadata>,
    clock: Arc<dyn Clock>,
    options: PeerClientOptions,
    /// Guards the table of nodes; held for look-ups.
    known: Mutex<HashMap<NodeId, Known>>,
}

impl fmt::Debug for PeerClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerClient").field("options", &self.options).finish_non_exhaustive()
    }
}

/// Why a question got no answer.
enum Failed {
    /// The ticket, or the address, is of yesterday: what the metadata says is to be asked again.
    Outdated(Status),
    /// It may be starting again, perhaps at another address.
    Away(String),
    Silent(String),
    Other(Error),
}

impl PeerClient {
    pub fn new(
        meta: Arc<dyn Metadata>,
        clock: Arc<dyn Clock>,
        options: PeerClientOptions,
    ) -> Arc<PeerClient> {
        Arc::new(PeerClient { meta, clock, options, known: Mutex::default() })
    }

    async fn known(&self, node: NodeId, anew: bool) -> Result<Known> {
        let now = self.clock.monotonic();
        if let Some(known) = lock(&self.known).get(&node)
            && !anew
            && now.saturating_sub(known.since) < self.options.info_age
        {
            return Ok(known.clone());
        }
        let info = self.meta.peer(node).await?;
        let Some(address) = info.address.clone() else { return Err(silent_for(&info)) };
        let before = lock(&self.known).get(&node).filter(|k| k.info.address == info.address).cloned();
        let channel = match before {
            Some(known) => known.channel,
            None => self.endpoint(&address)?.connect_lazy(),
        };
        let known = Known { info, since: now, channel };
        let mut all = lock(&self.known);
        if all.len() >= self.options.nodes_max
            && let Some(oldest) = all.iter().min_by_key(|(_, k)| k.since).map(|(&node, _)| node)
        {
            all.remove(&oldest);
        }
        all.insert(node, known.clone());
        Ok(known)
    }

    fn endpoint(&self, address: &str) -> Result<Endpoint> {
        let bad = |e: tonic::transport::Error| {
            Error::new(Kind::Invalid, format!("{address:?} is no address of a node")).with_source(e)
        };
        let scheme = if self.options.ca.is_some() { "https" } else { "http" };
        let endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))
            .map_err(bad)?
            .connect_timeout(self.options.wait)
            .tcp_nodelay(true);
        match &self.options.ca {
            None => Ok(endpoint),
            Some(ca) => endpoint
                .tls_config(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)))
                .map_err(bad),
        }
    }

    async fn ask(
        &self,
        known: &Known,
        ns: NamespaceId,
        ino: Ino,
        part: &Extent,
        whole: &Extent,
    ) -> std::result::Result<Option<Bytes>, Failed> {
        let mut request = Request::new(wire::request(ns, ino, part, whole).map_err(Failed::Other)?);
        let bearer = format!("Bearer {}", known.info.ticket).parse().map_err(|_| {
            Failed::Other(Error::new(Kind::Bug, "the metadata service's ticket cannot be sent"))
        })?;
        request.metadata_mut().insert("authorization", bearer);
        let mut client = wire::Client::new(known.channel.clone())
            .max_decoding_message_size(PEER_BYTES_MAX as usize + (64 << 10));
        let reply = client.read(request).await.map_err(|status| failed(ino, &known.info, status))?;
        checked(ino, part, &known.info, reply.into_inner()).map_err(Failed::Other)
    }

    async fn read_piece(
        &self,
        ns: NamespaceId,
        ino: Ino,
        node: NodeId,
        part: &Extent,
        whole: &Extent,
    ) -> Result<Option<Bytes>> {
        let mut known = self.known(node, false).await?;
        let begun = self.clock.monotonic();
        let mut tries = self.options.wait.as_millis() / TRY_INTERVAL.as_millis();
        let mut again = true;
        loop {
            match self.ask(&known, ns, ino, part, whole).await {
                Ok(bytes) => return Ok(bytes),
                Err(Failed::Outdated(_)) if again => {
                    again = false;
                    known = self.known(node, true).await?;
                }
                Err(Failed::Away(why)) => {
                    // Its process may have been killed a moment ago; one that the service has not heard of for longer is not
                    // waited for.
                    known = self.known(node, true).await?;
                    let waited = self.clock.monotonic().saturating_sub(begun).max(known.info.silent);
                    if tries == 0 || waited >= self.options.wait {
                        return Err(self.silent(ino, part, &known.info, &why));
                    }
                    tries -= 1;
                    tokio::time::sleep(TRY_INTERVAL).await;
                }
                Err(Failed::Outdated(status)) => {
                    return Err(self.silent(
                        ino,
                        part,
                        &known.info,
                        &format!("it refused: {}", status.message()),
                    ));
                }
                Err(Failed::Silent(why)) => return Err(self.silent(ino, part, &known.info, &why)),
                Err(Failed::Other(e)) => return Err(e),
            }
        }
    }

    fn silent(&self, ino: Ino, part: &Extent, info: &PeerInfo, why: &str) -> Error {
        let address = info.address.as_deref().unwrap_or("no address");
        Error::new(
            Kind::Unavailable,
            format!(
                "bytes {}..{} of inode {ino} are only on node {} ({address}), which has not answered for {} s ({why}); start granary \
                 there, or bring the file back from where it came",
                part.offset,
                part.end(),
                info.name,
                info.silent.max(self.options.wait).as_secs(),
            ),
        )
    }
}

fn silent_for(info: &PeerInfo) -> Error {
    Error::new(
        Kind::Unavailable,
        format!(
            "the bytes are only on node {}, which serves no other node, and was heard of {} s ago; start granary there with an address \
             for other nodes (data_listen), or wait until it has uploaded them",
            info.name,
            info.silent.as_secs()
        ),
    )
}

fn failed(ino: Ino, info: &PeerInfo, status: Status) -> Failed {
    match status.code() {
        Code::Unauthenticated | Code::FailedPrecondition => Failed::Outdated(status),
        Code::DataLoss => Failed::Other(Error::new(
            Kind::Corrupt,
            format!("node {} has damaged bytes of inode {ino}: {}", info.name, status.message()),
        )),
        Code::Unavailable => Failed::Away(format!("{}: {}", status.code(), status.message())),
        _ => Failed::Silent(format!("{}: {}", status.code(), status.message())),
    }
}

fn checked(ino: Ino, part: &Extent, info: &PeerInfo, reply: ReadReply) -> Result<Option<Bytes>> {
    if reply.gone {
        return Ok(None);
    }
    let crc = granary_core::crc32c(&reply.data);
    if reply.data.len() as u64 != part.len || crc != reply.crc || part.crc != 0 && crc != part.crc {
        return Err(Error::new(
            Kind::Corrupt,
            format!(
                "node {} gave bytes of inode {ino} at {} that are not those that were written; they were damaged there or on the way",
                info.name, part.offset
            ),
        ));
    }
    Ok(Some(reply.data))
}

#[async_trait]
impl Peers for PeerClient {
    async fn read(&self, ns: NamespaceId, ino: Ino, part: &Extent, whole: &Extent) -> Result<Option<Bytes>> {
        let (Place::Log { node, .. } | Place::StageFile { node }) = whole.place else {
            return Err(Error::new(Kind::Bug, "an object is asked of a peer"));
        };
        let all = async {
            let mut out = BytesMut::new();
            let mut at = part.offset;
            while at < part.end() {
                let piece = clip(part, at, part.end().min(at + PEER_BYTES_MAX));
                let Some(bytes) = self.read_piece(ns, ino, node, &piece, whole).await? else {
                    return Ok(None);
                };
                if piece.len == part.len {
                    return Ok(Some(bytes));
                }
                out.extend_from_slice(&bytes);
                at = piece.end();
            }
            Ok(Some(out.freeze()))
        };
        match tokio::time::timeout(self.options.wait, all).await {
            Ok(result) => result,
            Err(_) => {
                let info = lock(&self.known).get(&node).map(|k| k.info.clone());
                let nobody = || PeerInfo {
                    node,
                    name: format!("{node}"),
                    address: None,
                    ticket: String::new(),
                    silent: Duration::ZERO,
                };
                Err(self.silent(ino, part, &info.unwrap_or_else(nobody), "it took too long"))
            }
        }
    }
}
