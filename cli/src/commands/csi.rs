//! `granary csi`: the driver, over the node's socket.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use granary_core::{Error, Kind, NamespaceName};
use granary_csi::{MountWanted, Mounted, NewVolume, Role, ServeOptions, Space, Volumes, serve};
use granary_meta::{Durability, NamespaceChange, NamespaceInfo};

use crate::args::{CsiArgs, CsiRole};
use crate::client::{Client, block_on};
use crate::exit::{Failure, Outcome};
use crate::log;
use crate::node::signals::{self, Stop};
use crate::wire::{
    ChangeRequest, CreateRequest, MountReply, MountRequest, RemoveRequest, SpaceStatus, Status, UnmountReply,
    UnmountRequest,
};

pub fn run(args: &CsiArgs) -> Outcome<()> {
    let settings = args.flags.sources().resolve()?;
    log::start(&settings)?;
    let options = ServeOptions {
        socket: socket_of(&args.endpoint)?,
        role: match args.serve {
            CsiRole::Controller => Role::Controller,
            CsiRole::Node => Role::Node,
            CsiRole::Both => Role::Both,
        },
        node_id: args.node_id.clone(),
    };
    let volumes = Arc::new(NodeVolumes { node: Client::new(&settings.socket) });
    block_on(async {
        let stop = Stop::default();
        signals::watch(&stop)?;
        tracing::info!(socket = %options.socket.display(), "serving CSI");
        Ok(serve(options, volumes, stop.begin.cancelled_owned()).await?)
    })
}

fn socket_of(endpoint: &str) -> Outcome<PathBuf> {
    let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
    if path.starts_with('/') {
        return Ok(PathBuf::from(path));
    }
    Err(Failure::usage(format!(
        "--endpoint {endpoint:?} cannot be used: write unix:///PATH, the whole path of a socket"
    )))
}

/// What the node process is asked.
struct NodeVolumes {
    node: Client,
}

/// Kinds by which the interface's callers decide what to do.
const TOLD: [Kind; 13] = [
    Kind::NotFound,
    Kind::Exists,
    Kind::Invalid,
    Kind::NameTooLong,
    Kind::Permission,
    Kind::Denied,
    Kind::Unsupported,
    Kind::Unavailable,
    Kind::Busy,
    Kind::NotEmpty,
    Kind::ReadOnly,
    Kind::NoSpace,
    Kind::QuotaExceeded,
];

/// A failure in the words of the other crates.
fn error(failure: Failure) -> Error {
    let kind = TOLD.into_iter().find(|kind| failure.is(*kind)).unwrap_or(match failure.exit {
        2 => Kind::Invalid,
        3 => Kind::Unavailable,
        _ => Kind::Io,
    });
    Error::new(kind, failure.message)
}

fn space(info: NamespaceInfo) -> Space {
    Space { namespace: info.name, bytes_max: info.usage.bytes_max }
}

fn text(path: &Path) -> granary_core::Result<String> {
    super::text_of(path).map_err(error)
}

/// What is wrong with a namespace on this node.
fn trouble(space: SpaceStatus) -> Option<String> {
    space.disk_error.or(space.damage).or(space.error)
}

#[async_trait]
impl Volumes for NodeVolumes {
    async fn ready(&self) -> granary_core::Result<()> {
        match self.node.is_there().await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::new(
                Kind::Unavailable,
                "no node process answers on this machine; start `granary node`",
            )),
            Err(failure) => Err(error(failure)),
        }
    }

    async fn create(&self, new: NewVolume) -> granary_core::Result<Space> {
        let request = CreateRequest {
            namespace: new.namespace.to_string(),
            uid: Some(new.uid),
            gid: Some(new.gid),
            mode: Some(new.mode),
            bytes_max: new.bytes_max,
            inodes_max: 0,
            durability: if new.durable_in_store { Durability::Object } else { Durability::Local },
            trash_ms: new.trash_ms,
            packed: None,
        };
        self.node.post("/v1/namespaces/create", &request).await.map(space).map_err(error)
    }

    async fn list(&self) -> granary_core::Result<Vec<Space>> {
        let all: Vec<NamespaceInfo> = self.node.get("/v1/namespaces").await.map_err(error)?;
        Ok(all.into_iter().map(space).collect())
    }

    async fn find(&self, namespace: &NamespaceName) -> granary_core::Result<Space> {
        let all = self.list().await?;
        all.into_iter().find(|space| space.namespace == *namespace).ok_or_else(|| {
            Error::new(
                Kind::NotFound,
                format!("there is no namespace {namespace}: make it with `granary ns create {namespace}`"),
            )
        })
    }

    async fn set_quota(&self, namespace: &NamespaceName, bytes_max: u64) -> granary_core::Result<Space> {
        let change = NamespaceChange { bytes_max: Some(bytes_max), ..NamespaceChange::default() };
        let request = ChangeRequest { namespace: namespace.to_string(), change };
        self.node.post("/v1/namespaces/set", &request).await.map(space).map_err(error)
    }

    async fn remove(&self, namespace: &NamespaceName) -> granary_core::Result<()> {
        let request = RemoveRequest { namespace: namespace.to_string(), force: true };
        let _: serde_json::Value = self.node.post("/v1/namespaces/remove", &request).await.map_err(error)?;
        Ok(())
    }

    async fn mount(&self, wanted: MountWanted) -> granary_core::Result<()> {
        let request = MountRequest {
            namespace: wanted.namespace.to_string(),
            tree: wanted.tree,
            dir: text(&wanted.dir)?,
            options: wanted.options,
            meta: None,
            cache: None,
            token: None,
            limits: serde_json::Map::new(),
        };
        let _: MountReply = self.node.post("/v1/mount", &request).await.map_err(error)?;
        Ok(())
    }

    async fn unmount(&self, dir: &Path) -> granary_core::Result<()> {
        let request = |lazy| Ok::<_, Error>(UnmountRequest { dir: text(dir)?, lazy });
        let clean = self.node.post::<UnmountReply>("/v1/unmount", &request(false)?).await;
        // Who still has it open is outside of every pod; the pod's end does not wait for them.
        let done = match clean {
            Err(failure) if failure.is(Kind::Busy) => self.node.post("/v1/unmount", &request(true)?).await,
            other => other,
        };
        match done.map_err(error) {
            // The node process was started anew, and the mount is dead.
            Err(e) if e.kind() == Kind::NotFound => detach_dead(dir),
            other => other.map(drop),
        }
    }

    async fn mounted(&self, dir: &Path) -> granary_core::Result<Option<Mounted>> {
        let status: Status = self.node.get("/v1/status").await.map_err(error)?;
        let dir = text(dir)?;
        let found = status.mounts.into_iter().find(|mount| mount.dir == dir);
        found
            .map(|mount| {
                let namespace = mount.space.namespace.parse()?;
                Ok(Mounted { namespace, read_only: mount.read_only, trouble: trouble(mount.space) })
            })
            .transpose()
    }
}

/// `NotFound` when nothing of ours is there.
fn detach_dead(dir: &Path) -> granary_core::Result<()> {
    match granary_fuse::unmount(dir, true) {
        Err(e) if e.kind() == Kind::Invalid => {
            Err(Error::new(Kind::NotFound, format!("nothing is mounted at {}", dir.display())))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        for good in ["unix:///csi/csi.sock", "/csi/csi.sock"] {
            assert_eq!(socket_of(good).unwrap(), Path::new("/csi/csi.sock"));
        }
        for bad in ["unix://csi.sock", "tcp://0.0.0.0:1", ""] {
            assert_eq!(socket_of(bad).unwrap_err().exit, 2, "{bad}");
        }
    }

    #[test]
    fn failures_keep_their_kind() {
        assert_eq!(error(Failure::of_kind(Kind::Busy, "x")).kind(), Kind::Busy);
        assert_eq!(error(Failure { kind: "Newer".into(), ..Failure::usage("x") }).kind(), Kind::Invalid);
    }
}
