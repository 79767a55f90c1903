//! What is staged here and not in the store yet, for other nodes that want to read it; and theirs, for us.
//!
//! A node that shares its volume with others listens for them, and tells the metadata service where. Who asks shows a ticket
//! of the service; the key that verifies it came with the service's greeting.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use granary_cache::Tree;
use granary_cache::peer::{
    PeerClient, PeerClientOptions, PeerServer, PeerServerOptions, ServerTls, TicketCheck,
};
use granary_core::{Clock, Error, Kind, NamespaceId, NodeId, Result};
use granary_meta::Metadata;
use granary_meta::token::TicketVerifier;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::clients::{Clients, host_name, is_loopback};
use super::tls;
use crate::exit::{Failure, Outcome};
use crate::settings::Settings;

/// The listener for other nodes, and how they reach it.
pub struct DataListener {
    listener: TcpListener,
    pub address: String,
}

/// Listens where the settings say; without a word of theirs on loopback, if the service is there too.
pub async fn listen(settings: &Settings) -> Outcome<Option<DataListener>> {
    let local = settings.meta.service().is_some_and(|urls| urls.iter().all(|url| is_loopback(url)));
    let wanted = match settings.data.listen {
        Some(address) => address,
        None if local => SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        None => {
            tracing::warn!(
                "other nodes cannot read what is written here until it is in the store: give data_listen, for example \
                 0.0.0.0:7412"
            );
            return Ok(None);
        }
    };
    let cannot = |e: std::io::Error| {
        Failure::io(format!("cannot listen at {wanted} for other nodes (setting data_listen)"), &e)
    };
    let listener = TcpListener::bind(wanted).await.map_err(cannot)?;
    let bound = listener.local_addr().map_err(cannot)?;
    if !bound.ip().is_loopback() && settings.data.tls.is_none() {
        tracing::warn!(
            "other nodes read what is staged here at {bound} without TLS: others on that network can see it; give \
             data_tls_cert and data_tls_key"
        );
    }
    let address = match &settings.data.advertise {
        Some(address) => address.clone(),
        // Every address is no address that others could use.
        None if bound.ip().is_unspecified() => format!("{}:{}", host_name(), bound.port()),
        None => bound.to_string(),
    };
    Ok(Some(DataListener { listener, address }))
}

/// The way between nodes, both ways.
pub struct Data {
    server: Option<Arc<PeerServer>>,
    client: PeerClientOptions,
    clock: Arc<dyn Clock>,
}

impl Data {
    /// Serves until `stop`.
    pub fn start(
        settings: &Settings,
        listener: Option<DataListener>,
        clients: &Arc<Clients>,
        node: NodeId,
        clock: Arc<dyn Clock>,
        stop: &CancellationToken,
    ) -> Outcome<Data> {
        let tls = settings.data.tls.as_ref().map(tls::identity).transpose()?;
        let ca = settings.data.ca.as_deref().map(|path| tls::trusted(Some(path))).transpose()?;
        let server = listener.map(|DataListener { listener, address }| {
            let tls = tls.map(|identity| ServerTls { certificate: identity.cert, key: identity.key });
            let tickets = Tickets { clients: clients.clone(), clock: clock.clone(), known: Mutex::new(None) };
            let options = PeerServerOptions { tls, ..PeerServerOptions::default() };
            let server = PeerServer::new(node, Arc::new(tickets), clock.clone(), options);
            let (serving, stop) = (server.clone(), stop.clone());
            tokio::spawn(async move {
                if let Err(e) = serving.serve(listener, stop.cancelled_owned()).await {
                    tracing::error!("what is staged here cannot be read by other nodes at {address}: {e}");
                }
            });
            server
        });
        Ok(Data { server, client: PeerClientOptions { ca, ..PeerClientOptions::default() }, clock })
    }

    /// Lets others read what this tree has staged, and it what they have.
    pub fn connect(&self, ns: NamespaceId, tree: &Arc<Tree>, meta: &Arc<dyn Metadata>) {
        if let Some(server) = &self.server {
            server.register(ns, tree);
        }
        tree.set_peers(PeerClient::new(meta.clone(), self.clock.clone(), self.client.clone()));
    }
}

/// Tickets of the service that this node is connected to.
struct Tickets {
    clients: Arc<Clients>,
    clock: Arc<dyn Clock>,
    /// The verifier of the key that the service told last. The lock guards it for a look-up.
    known: Mutex<Option<(Vec<u8>, Arc<TicketVerifier>)>>,
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").finish_non_exhaustive()
    }
}

impl Tickets {
    fn verifier(&self) -> Result<Arc<TicketVerifier>> {
        let client = &self.clients.own().client;
        let key = client.ticket_key();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, verifier)) = &*known
            && *of == key
        {
            return Ok(verifier.clone());
        }
        let verifier = TicketVerifier::new(&client.volume()?.uuid, &key, self.clock.clone())?;
        let verifier = Arc::new(verifier);
        *known = Some((key, verifier.clone()));
        Ok(verifier)
    }
}

impl TicketCheck for Tickets {
    fn check(&self, ticket: &str) -> Result<NamespaceId> {
        let verifier = self.verifier().map_err(|e| {
            tracing::warn!(target: "granary::audit", "a peer's ticket cannot be checked: {e}");
            Error::new(Kind::Denied, "the ticket is not accepted")
        })?;
        verifier.check(ticket)
    }
}
