//! The driver's socket.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use granary_core::{Clock, Error, Kind, Result};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

use crate::controller::ControllerService;
use crate::gate::Gate;
use crate::health::Probes;
use crate::identity::IdentityService;
use crate::kube::Kube;
use crate::node::NodeService;
use crate::proto::controller_server::ControllerServer;
use crate::proto::identity_server::IdentityServer;
use crate::proto::node_server::NodeServer;
use crate::turns::Turns;
use crate::volumes::Volumes;
use crate::watch::Watch;

/// Calls at work at once on one connection; more wait.
const CALLS_MAX: usize = 64;

/// Which services are served beside identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Controller,
    Node,
    Both,
}

#[derive(Clone, Debug)]
pub struct ServeOptions {
    pub socket: PathBuf,
    pub role: Role,
    /// What Kubernetes calls this node.
    pub node_id: String,
    /// Who may have volumes published.
    pub gate: Gate,
    /// Where events of pods go, and labels of this node; `None`: nowhere.
    pub events: Option<Arc<Kube>>,
    pub labels: Option<Arc<Kube>>,
    pub clock: Arc<dyn Clock>,
}

/// Serves until `end`. Calls that are at work then are finished.
///
/// Errors: the socket cannot be made, `Exists` when something else is in its place, `Invalid` for a node id that cannot be.
pub async fn serve(
    options: ServeOptions,
    volumes: Arc<dyn Volumes>,
    end: impl Future<Output = ()>,
) -> Result<()> {
    let ServeOptions { socket, role, node_id, gate, events, labels, clock } = options;
    if role != Role::Controller && (node_id.is_empty() || node_id.len() > 192) {
        return Err(Error::new(
            Kind::Invalid,
            "the node's id is missing, or longer than 192 bytes: give --node-id NAME",
        ));
    }
    let listener = listen(&socket)?;
    let turns = Arc::new(Turns::default());
    let controller = (role != Role::Node)
        .then(|| ControllerServer::new(ControllerService { volumes: volumes.clone(), turns: turns.clone() }));
    let watch = Watch {
        volumes: volumes.clone(),
        turns,
        published: Arc::default(),
        probes: Probes::new(clock.clone()),
        events,
        labels,
        node_id,
        clock,
    };
    // Ends with this call, whatever it is at.
    let mut looking = tokio::task::JoinSet::new();
    let node = (role != Role::Controller).then(|| {
        looking.spawn(watch.clone().run());
        NodeServer::new(NodeService { gate, watch })
    });
    let served = Server::builder()
        .concurrency_limit_per_connection(CALLS_MAX)
        .add_service(IdentityServer::new(IdentityService { volumes }))
        .add_optional_service(controller)
        .add_optional_service(node)
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), end)
        .await;
    let _best = std::fs::remove_file(&socket);
    served.map_err(|e| Error::new(Kind::Io, format!("serving {} failed", socket.display())).with_source(e))
}

/// A socket that a killed driver left is removed first.
fn listen(socket: &Path) -> Result<UnixListener> {
    let cannot = |e: io::Error| Error::io(format!("cannot listen at {}", socket.display()), e);
    match std::fs::symlink_metadata(socket) {
        Ok(meta) if meta.file_type().is_socket() => std::fs::remove_file(socket).map_err(cannot)?,
        Ok(_) => {
            return Err(Error::new(
                Kind::Exists,
                format!("{} is there and no socket: give another --endpoint", socket.display()),
            ));
        }
        Err(_) => {}
    }
    UnixListener::bind(socket).map_err(cannot)
}
