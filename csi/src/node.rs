//! Volumes on this node: staged once, published to each pod. Both are mounts that the node process makes and serves; the
//! driver may end without any of them noticing.

use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use granary_core::{Error, Kind};
use tonic::{Request, Response, Status};

use crate::access::Access;
use crate::handle::Handle;
use crate::parameters::Context;
use crate::proto::node_server::Node;
use crate::proto::node_service_capability::{Rpc, Type, rpc};
use crate::proto::volume_usage::Unit;
use crate::proto::*;
use crate::status::{self, invalid};
use crate::turns::Turns;
use crate::volumes::{MountWanted, Volumes};

/// A mount that does not answer within this is told as unhealthy, and not waited for.
const HEALTH_WAIT: Duration = Duration::from_secs(5);

pub struct NodeService {
    pub volumes: Arc<dyn Volumes>,
    pub turns: Arc<Turns>,
    pub node_id: String,
}

/// One mount of a volume.
struct Wanted {
    handle: Handle,
    dir: PathBuf,
    read_only: bool,
    options: String,
}

fn directory(what: &str, path: &str) -> granary_core::Result<PathBuf> {
    if path.is_empty() {
        return invalid(format!("the {what} is missing"));
    }
    let path = Path::new(path);
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if !path.is_absolute() || !plain {
        return invalid(format!("the {what} {} is no absolute path of plain names", path.display()));
    }
    Ok(path.to_owned())
}

fn handle(id: &str) -> granary_core::Result<Handle> {
    if id.is_empty() {
        return invalid("the volume's id is missing");
    }
    let missing = |e: Error| Error::new(Kind::NotFound, format!("there is no volume {id}: {e}"));
    id.parse().map_err(missing)
}

fn make_dir(dir: &Path) -> granary_core::Result<()> {
    match std::fs::create_dir(dir) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            Err(Error::io(format!("cannot make the mount point {}", dir.display()), e))
        }
        _ => Ok(()),
    }
}

/// Only when it is empty: what is mounted there, or lies there, is nobody's to remove.
fn remove_dir(dir: &Path) -> granary_core::Result<()> {
    match std::fs::remove_dir(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("cannot remove the mount point {}", dir.display()), e))
        }
        _ => Ok(()),
    }
}

impl NodeService {
    async fn stage(&self, request: NodeStageVolumeRequest) -> granary_core::Result<()> {
        let dir = directory("staging target path", &request.staging_target_path)?;
        let access = Access::parse(request.volume_capability.as_ref())?;
        let Context { mount, .. } = Context::parse(&request.volume_context)?;
        let handle = handle(&request.volume_id)?;
        // Pods that only read get a mount of their own for that; what is staged serves those that write, too.
        let access = Access { read_only: false, mount_flags: access.mount_flags };
        let options = access.options(mount.read_only, mount.mode.as_deref());
        self.mount(Wanted { handle, dir, read_only: mount.read_only, options }).await
    }

    async fn publish(&self, request: NodePublishVolumeRequest) -> granary_core::Result<()> {
        if request.volume_id.is_empty() {
            return invalid("the volume's id is missing");
        }
        let dir = directory("target path", &request.target_path)?;
        let access = Access::parse(request.volume_capability.as_ref())?;
        let Context { mount, inline } = Context::parse(&request.volume_context)?;
        // A pod's own volume has an id of kubelet's.
        let handle = inline.map_or_else(|| handle(&request.volume_id), Ok)?;
        let read_only = mount.read_only || request.readonly || access.read_only;
        let options = access.options(read_only, mount.mode.as_deref());
        make_dir(&dir)?;
        let published = self.mount(Wanted { handle, dir: dir.clone(), read_only, options }).await;
        if published.is_err() {
            let _best = std::fs::remove_dir(&dir);
        }
        published
    }

    async fn mount(&self, wanted: Wanted) -> granary_core::Result<()> {
        let Wanted { handle, dir, read_only, options } = wanted;
        let _turn = self.turns.take(&dir.to_string_lossy()).await;
        match self.volumes.mounted(&dir).await? {
            None => {}
            Some(there) if there.namespace == handle.namespace && there.read_only == read_only => {
                return Ok(());
            }
            Some(there) => {
                let how = if there.read_only { "read-only" } else { "for writing" };
                return Err(Error::new(
                    Kind::Exists,
                    format!("{} is mounted {how} at {} already", there.namespace, dir.display()),
                ));
            }
        }
        // A claim's namespace is there; one that is named wrongly must not be made by a pod.
        self.volumes.find(&handle.namespace).await?;
        let wanted = MountWanted { namespace: handle.namespace, tree: handle.tree, dir, options };
        self.volumes.mount(wanted).await
    }

    async fn unmount(&self, id: &str, dir: PathBuf) -> granary_core::Result<()> {
        if id.is_empty() {
            return invalid("the volume's id is missing");
        }
        let _turn = self.turns.take(&dir.to_string_lossy()).await;
        match self.volumes.unmount(&dir).await {
            // It was never there, or is gone already.
            Err(e) if e.kind() == Kind::NotFound => Ok(()),
            other => other,
        }
    }

    async fn stats(
        &self,
        request: NodeGetVolumeStatsRequest,
    ) -> granary_core::Result<NodeGetVolumeStatsResponse> {
        if request.volume_id.is_empty() {
            return invalid("the volume's id is missing");
        }
        if request.volume_path.is_empty() {
            return invalid("the volume path is missing");
        }
        // Where nothing can be mounted, nothing is.
        let dir = PathBuf::from(request.volume_path);
        let Some(mounted) = self.volumes.mounted(&dir).await? else {
            return Err(Error::new(Kind::NotFound, format!("no volume is mounted at {}", dir.display())));
        };
        let asked = dir.clone();
        let asking = tokio::task::spawn_blocking(move || rustix::fs::statvfs(&asked));
        let (usage, trouble) = match tokio::time::timeout(HEALTH_WAIT, asking).await {
            Ok(Ok(Ok(stat))) => (usage(&stat), mounted.trouble),
            Ok(Ok(Err(e))) => (Vec::new(), Some(format!("{} does not answer: {e}", dir.display()))),
            Ok(Err(e)) => {
                return Err(Error::new(Kind::Bug, format!("asking for a volume's space failed: {e}")));
            }
            Err(_) => {
                let secs = HEALTH_WAIT.as_secs();
                (Vec::new(), Some(format!("{} did not answer within {secs} s", dir.display())))
            }
        };
        let condition = VolumeCondition {
            abnormal: trouble.is_some(),
            message: trouble.unwrap_or_else(|| "works".to_owned()),
        };
        Ok(NodeGetVolumeStatsResponse { usage, volume_condition: Some(condition) })
    }

    async fn expand(&self, request: NodeExpandVolumeRequest) -> granary_core::Result<i64> {
        let handle = handle(&request.volume_id)?;
        let dir = directory("volume path", &request.volume_path)?;
        if self.volumes.mounted(&dir).await?.is_none() {
            return Err(Error::new(Kind::NotFound, format!("no volume is mounted at {}", dir.display())));
        }
        let space = self.volumes.find(&handle.namespace).await?;
        Ok(i64::try_from(space.bytes_max).unwrap_or(i64::MAX))
    }
}

fn usage(stat: &rustix::fs::StatVfs) -> Vec<VolumeUsage> {
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let bytes = |blocks: u64| number(blocks.saturating_mul(stat.f_frsize));
    vec![
        VolumeUsage {
            available: bytes(stat.f_bavail),
            total: bytes(stat.f_blocks),
            used: bytes(stat.f_blocks.saturating_sub(stat.f_bfree)),
            unit: Unit::Bytes.into(),
        },
        VolumeUsage {
            available: number(stat.f_favail),
            total: number(stat.f_files),
            used: number(stat.f_files.saturating_sub(stat.f_ffree)),
            unit: Unit::Inodes.into(),
        },
    ]
}

#[async_trait::async_trait]
impl Node for NodeService {
    async fn node_stage_volume(
        &self,
        request: Request<NodeStageVolumeRequest>,
    ) -> Result<Response<NodeStageVolumeResponse>, Status> {
        self.stage(request.into_inner()).await.map_err(status::of)?;
        Ok(Response::new(NodeStageVolumeResponse {}))
    }

    async fn node_unstage_volume(
        &self,
        request: Request<NodeUnstageVolumeRequest>,
    ) -> Result<Response<NodeUnstageVolumeResponse>, Status> {
        let request = request.into_inner();
        let dir = directory("staging target path", &request.staging_target_path).map_err(status::of)?;
        self.unmount(&request.volume_id, dir).await.map_err(status::of)?;
        Ok(Response::new(NodeUnstageVolumeResponse {}))
    }

    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        self.publish(request.into_inner()).await.map_err(status::of)?;
        Ok(Response::new(NodePublishVolumeResponse {}))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        let request = request.into_inner();
        let dir = directory("target path", &request.target_path).map_err(status::of)?;
        self.unmount(&request.volume_id, dir.clone()).await.map_err(status::of)?;
        remove_dir(&dir).map_err(status::of)?;
        Ok(Response::new(NodeUnpublishVolumeResponse {}))
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<NodeGetVolumeStatsRequest>,
    ) -> Result<Response<NodeGetVolumeStatsResponse>, Status> {
        Ok(Response::new(self.stats(request.into_inner()).await.map_err(status::of)?))
    }

    async fn node_expand_volume(
        &self,
        request: Request<NodeExpandVolumeRequest>,
    ) -> Result<Response<NodeExpandVolumeResponse>, Status> {
        let capacity_bytes = self.expand(request.into_inner()).await.map_err(status::of)?;
        Ok(Response::new(NodeExpandVolumeResponse { capacity_bytes }))
    }

    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        let capabilities = [
            rpc::Type::StageUnstageVolume,
            rpc::Type::GetVolumeStats,
            rpc::Type::ExpandVolume,
            rpc::Type::VolumeCondition,
            rpc::Type::SingleNodeMultiWriter,
        ];
        let capability = |r#type: rpc::Type| NodeServiceCapability {
            r#type: Some(Type::Rpc(Rpc { r#type: r#type.into() })),
        };
        Ok(Response::new(NodeGetCapabilitiesResponse { capabilities: capabilities.map(capability).into() }))
    }

    async fn node_get_info(
        &self,
        _: Request<NodeGetInfoRequest>,
    ) -> Result<Response<NodeGetInfoResponse>, Status> {
        Ok(Response::new(NodeGetInfoResponse {
            node_id: self.node_id.clone(),
            ..NodeGetInfoResponse::default()
        }))
    }
}
