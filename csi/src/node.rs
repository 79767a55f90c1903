//! Volumes on this node: staged once, published to each pod. Both are mounts that the node process makes and serves; the
//! driver may end without any of them noticing.

use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use granary_core::{Error, Kind};
use tonic::{Request, Response, Status};

use crate::access::Access;
use crate::gate::{Asked, Gate};
use crate::grants::Granted;
use crate::handle::Handle;
use crate::health::{Amount, Room};
use crate::parameters::{Context, Ids, Warm};
use crate::pod::Pod;
use crate::proto::node_server::Node;
use crate::proto::node_service_capability::{Rpc, Type, rpc};
use crate::proto::volume_usage::Unit;
use crate::proto::*;
use crate::status::{self, invalid};
use crate::volumes::{MountWanted, Volumes, Warmth};
use crate::watch::{Condition, Watch, condition};
use crate::wish::{Compared, Wish, options, other, squashed};

/// How long one call waits for a warmup; kubelet gives a call two minutes.
const WARM_WAIT: Duration = Duration::from_secs(60);
const WARM_INTERVAL: Duration = Duration::from_millis(500);
/// Where a node is, as far as volumes are concerned: at itself.
const TOPOLOGY_KEY: &str = "topology.granary.dev/node";
/// Of a label's value, as Kubernetes bounds it.
const LABEL_BYTES_MAX: usize = 63;

pub struct NodeService {
    pub gate: Gate,
    pub watch: Watch,
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
    fn volumes(&self) -> &dyn Volumes {
        &*self.watch.volumes
    }

    async fn stage(&self, request: NodeStageVolumeRequest) -> granary_core::Result<()> {
        let dir = directory("staging target path", &request.staging_target_path)?;
        let access = Access::parse(request.volume_capability.as_ref())?;
        let Context { mount, .. } = Context::parse(&request.volume_context)?;
        let handle = handle(&request.volume_id)?;
        // Pods that only read, or see other ids, get a mount of their own for that; what is staged serves those that write, too.
        let wanted = MountWanted {
            namespace: handle.namespace,
            tree: handle.tree,
            read_only: mount.read_only,
            options: options(&access, &mount, Ids::default(), None),
            dir,
        };
        let _turn = self.watch.turns.take(&wanted.dir.to_string_lossy()).await;
        match self.volumes().mounted(&wanted.dir).await? {
            Some(there) if wanted.is(&there) => Ok(()),
            Some(there) => Err(other(&wanted, &there)),
            None => self.volumes().mount(wanted, None).await,
        }
    }

    async fn publish(&self, request: NodePublishVolumeRequest) -> granary_core::Result<()> {
        if request.volume_id.is_empty() {
            return invalid("the volume's id is missing");
        }
        let dir = directory("target path", &request.target_path)?;
        let access = Access::parse(request.volume_capability.as_ref())?;
        let context = Context::parse(&request.volume_context)?;
        // A pod's own volume has an id of kubelet's.
        let handle = context.inline.clone().map_or_else(|| handle(&request.volume_id), Ok)?;
        let asked = Asked {
            volume: &handle,
            claimed_by: context.claimed_by.as_deref(),
            context: &request.volume_context,
            secrets: &request.secrets,
        };
        let granted = self.gate.check(asked).await.and_then(|granted| squashed(granted, context.ids));
        let granted = granted.inspect_err(|e| self.withdraw(&dir, e))?;
        let warm = context.mount.warm.clone();
        let read_only = context.mount.read_only || request.readonly || access.read_only;
        let wish = Wish { handle, dir: dir.clone(), read_only, access, context };
        self.publish_granted(&wish, granted, Pod::of(&request.volume_context)).await?;
        match warm {
            Some(warm) => self.bring(&dir, &warm).await,
            None => Ok(()),
        }
    }

    async fn publish_granted(
        &self,
        wish: &Wish,
        granted: Granted,
        pod: Option<Pod>,
    ) -> granary_core::Result<()> {
        let wanted = wish.mount(granted);
        let _turn = self.watch.turns.take(&wanted.dir.to_string_lossy()).await;
        match self.volumes().mounted(&wanted.dir).await? {
            Some(there) if wanted.is(&there) => self.volumes().renew(&wanted, pod.as_ref()).await?,
            Some(there) => match self.gate.compare(wish, granted, &there) {
                Compared::Less => {
                    let mounted = MountWanted { read_only: there.read_only, ..wanted.clone() };
                    self.volumes().renew(&mounted, pod.as_ref()).await?;
                }
                Compared::More => {
                    let why = Error::new(
                        Kind::Permission,
                        format!(
                            "the pod has more of {} than it may by now; a mount in use cannot be narrowed: delete the pod",
                            wish.handle
                        ),
                    );
                    self.withdraw(&wanted.dir, &why);
                    return Err(why);
                }
                Compared::Other => return Err(other(&wanted, &there)),
            },
            None => {
                make_dir(&wanted.dir)?;
                if let Err(e) = self.volumes().mount(wanted.clone(), pod.as_ref()).await {
                    let _best = std::fs::remove_dir(&wanted.dir);
                    return Err(e);
                }
            }
        }
        self.watch.published.note(wanted, pod);
        Ok(())
    }

    /// Remembered for the volume's condition, where a pod has it already.
    fn withdraw(&self, dir: &Path, why: &Error) {
        if why.kind() == Kind::Permission {
            self.watch.published.change(dir, |it| it.withdrawn = Some(why.to_string()));
        }
    }

    /// Brings what a volume's `warmup` says to this node; waits for it within a bound where it says so.
    async fn bring(&self, dir: &Path, warm: &Warm) -> granary_core::Result<()> {
        if self.watch.published.get(dir).is_some_and(|it| it.warmed) {
            return Ok(());
        }
        let begun = self.volumes().warm(dir, &warm.paths).await;
        let id = match begun {
            Ok(id) => id,
            Err(e) if warm.wait => {
                return Err(again(format!("it is not being brought to this node yet: {e}")));
            }
            // The pod does not need it.
            Err(e) => {
                tracing::warn!(dir = %dir.display(), "a warmup cannot be begun; it is tried again: {e}");
                return Ok(());
            }
        };
        if warm.wait {
            let waited = tokio::time::timeout(WARM_WAIT, self.warmed(id)).await;
            match waited {
                Ok(done) => done?,
                Err(_) => return Err(again(progress(&self.volumes().warmth(id).await?))),
            }
        }
        self.watch.published.change(dir, |it| it.warmed = true);
        Ok(())
    }

    /// Returns when it has ended well.
    async fn warmed(&self, id: u64) -> granary_core::Result<()> {
        loop {
            let warmth = self.volumes().warmth(id).await?;
            match (warmth.ended, &warmth.failure) {
                (true, None) => return Ok(()),
                (true, Some(why)) => {
                    return Err(again(format!("{}, and it ended: {why}", progress(&warmth))));
                }
                (false, _) => tokio::time::sleep(WARM_INTERVAL).await,
            }
        }
    }

    async fn unmount(&self, id: &str, dir: PathBuf) -> granary_core::Result<()> {
        if id.is_empty() {
            return invalid("the volume's id is missing");
        }
        let _turn = self.watch.turns.take(&dir.to_string_lossy()).await;
        self.watch.published.remove(&dir);
        match self.volumes().unmount(&dir).await {
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
        if !self.volumes().shows(&dir).await? {
            return Err(Error::new(Kind::NotFound, format!("no volume is mounted at {}", dir.display())));
        }
        let found = condition(self.volumes(), &self.watch.probes, &dir).await?;
        let usage = match &found {
            Condition::Serves(room, _) => usage(room),
            _ => Vec::new(),
        };
        let withdrawn = || self.watch.published.get(&dir).and_then(|it| it.withdrawn);
        let trouble = found.trouble().or_else(withdrawn);
        let volume_condition = Some(VolumeCondition {
            abnormal: trouble.is_some(),
            message: trouble.unwrap_or_else(|| "works".to_owned()),
        });
        Ok(NodeGetVolumeStatsResponse { usage, volume_condition })
    }

    async fn expand(&self, request: NodeExpandVolumeRequest) -> granary_core::Result<i64> {
        let handle = handle(&request.volume_id)?;
        // Every mount of the namespace shows its new size; the staged one, which kubelet names, may be dead and gone by now.
        directory("volume path", &request.volume_path)?;
        let space = self.volumes().find(&handle.namespace).await?;
        Ok(i64::try_from(space.bytes_max).unwrap_or(i64::MAX))
    }
}

/// Begun, and not done within this call.
fn again(what: String) -> Error {
    Error::new(Kind::Interrupted, format!("the volume is not ready: {what}"))
}

fn progress(warmth: &Warmth) -> String {
    let percent =
        (u128::from(warmth.bytes_here) * 100).checked_div(u128::from(warmth.bytes_total)).unwrap_or(0);
    let counted = if warmth.counted { "" } else { ", as far as they are counted" };
    format!("{percent} % of its {} bytes{counted} are on this node", warmth.bytes_total)
}

fn usage(room: &Room) -> Vec<VolumeUsage> {
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let usage = |amount: Amount, unit: Unit| VolumeUsage {
        available: number(amount.available),
        total: number(amount.total),
        used: number(amount.used),
        unit: unit.into(),
    };
    vec![usage(room.bytes, Unit::Bytes), usage(room.files, Unit::Inodes)]
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
            rpc::Type::VolumeMountGroup,
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
        let node_id = self.watch.node_id.clone();
        // Kubelet makes a label of it.
        let accessible_topology = (node_id.len() <= LABEL_BYTES_MAX)
            .then(|| Topology { segments: [(TOPOLOGY_KEY.to_owned(), node_id.clone())].into() });
        Ok(Response::new(NodeGetInfoResponse { node_id, accessible_topology, max_volumes_per_node: 0 }))
    }
}
