//! The driver, and calls as kubelet makes them.

use std::collections::HashMap;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Child;

use granary_csi::proto::controller_client::ControllerClient;
use granary_csi::proto::node_client::NodeClient;
use granary_csi::proto::volume_capability::access_mode::Mode;
use granary_csi::proto::volume_capability::{AccessMode, AccessType, MountVolume};
use granary_csi::proto::*;
use granary_tests::{Node, start_logged, until};
use tokio::runtime::Runtime;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::api::{Api, Pod};

/// Ended when the test is.
pub struct Driver {
    child: Child,
    runtime: Runtime,
    channel: Channel,
}

/// One publishing.
#[derive(Clone, Debug, Default)]
pub struct Publish {
    pub volume: String,
    pub attributes: Vec<(&'static str, String)>,
    pub pod: Option<Pod>,
    pub read_only: bool,
    pub fs_group: &'static str,
}

impl Publish {
    /// A pod's own volume.
    pub fn inline(pod: Pod, namespace: &str) -> Publish {
        let attributes =
            vec![("namespace", namespace.to_owned()), ("csi.storage.k8s.io/ephemeral", "true".to_owned())];
        Publish { volume: "csi-0123".to_owned(), attributes, pod: Some(pod), ..Publish::default() }
    }

    pub fn with(mut self, key: &'static str, value: &str) -> Publish {
        self.attributes.push((key, value.to_owned()));
        self
    }

    fn context(&self) -> HashMap<String, String> {
        let mut context: HashMap<String, String> =
            self.attributes.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        if let Some(pod) = self.pod {
            let tokens = serde_json::json!({ "granary.dev": { "token": pod.token() } }).to_string();
            for (key, value) in [
                ("pod.name", pod.name.to_owned()),
                ("pod.namespace", pod.namespace.to_owned()),
                ("pod.uid", pod.uid()),
                ("serviceAccount.name", pod.account.to_owned()),
                ("serviceAccount.tokens", tokens),
            ] {
                context.insert(format!("csi.storage.k8s.io/{key}"), value);
            }
        }
        context
    }
}

fn capability(fs_group: &str) -> VolumeCapability {
    VolumeCapability {
        access_mode: Some(AccessMode { mode: Mode::MultiNodeMultiWriter.into() }),
        access_type: Some(AccessType::Mount(MountVolume {
            volume_mount_group: fs_group.to_owned(),
            ..MountVolume::default()
        })),
    }
}

impl Driver {
    pub fn start(node: &Node, args: &[&str]) -> Driver {
        let socket = node.path("csi.sock");
        let endpoint = format!("unix://{}", socket.display());
        let mut command = node.command(&["csi", "--endpoint", &endpoint, "--node-id", "node-1"]);
        command.args(args);
        let child = start_logged(command, node.path("csi.log"));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let channel = {
            let _inside = runtime.enter();
            Endpoint::from_shared(endpoint).expect("an endpoint").connect_lazy()
        };
        let driver = Driver { child, runtime, channel };
        until("the driver listens", || UnixStream::connect(&socket).is_ok());
        driver
    }

    /// Guarded by grants, with an API server.
    pub fn guarded(node: &Node, api: &Api, grants: &str) -> Driver {
        Driver::guarded_with(node, api, grants, &[])
    }

    /// The same with more flags.
    pub fn guarded_with(node: &Node, api: &Api, grants: &str, more: &[&str]) -> Driver {
        let file = node.path("access.toml");
        std::fs::write(&file, grants).expect("grants");
        let credentials = node.path("credentials");
        std::fs::create_dir_all(&credentials).expect("a directory");
        let mut args = vec![
            "--access",
            file.to_str().expect("utf-8"),
            "--kube-api",
            &api.url,
            "--kube-credentials",
            credentials.to_str().expect("utf-8"),
        ];
        args.extend(more);
        Driver::start(node, &args)
    }

    pub fn publish(&self, dir: &Path, publish: &Publish) -> Result<(), Status> {
        let request = NodePublishVolumeRequest {
            volume_id: publish.volume.clone(),
            target_path: dir.display().to_string(),
            volume_capability: Some(capability(publish.fs_group)),
            readonly: publish.read_only,
            volume_context: publish.context(),
            ..NodePublishVolumeRequest::default()
        };
        let mut client = NodeClient::new(self.channel.clone());
        self.runtime.block_on(client.node_publish_volume(request)).map(drop)
    }

    /// For the node, at `dir`.
    pub fn stage(&self, dir: &Path, volume: &str) -> Result<(), Status> {
        let request = NodeStageVolumeRequest {
            volume_id: volume.to_owned(),
            staging_target_path: dir.display().to_string(),
            volume_capability: Some(capability("")),
            ..NodeStageVolumeRequest::default()
        };
        let mut client = NodeClient::new(self.channel.clone());
        self.runtime.block_on(client.node_stage_volume(request)).map(drop)
    }

    /// As kubelet asks once a volume is larger, with where it is staged.
    pub fn expand(&self, dir: &Path, volume: &str) -> Result<i64, Status> {
        let request = NodeExpandVolumeRequest {
            volume_id: volume.to_owned(),
            volume_path: dir.display().to_string(),
            ..NodeExpandVolumeRequest::default()
        };
        let mut client = NodeClient::new(self.channel.clone());
        Ok(self.runtime.block_on(client.node_expand_volume(request))?.into_inner().capacity_bytes)
    }

    pub fn unpublish(&self, dir: &Path) -> Result<(), Status> {
        let request = NodeUnpublishVolumeRequest {
            volume_id: "csi-0123".to_owned(),
            target_path: dir.display().to_string(),
        };
        let mut client = NodeClient::new(self.channel.clone());
        self.runtime.block_on(client.node_unpublish_volume(request)).map(drop)
    }

    pub fn condition(&self, dir: &Path) -> Result<VolumeCondition, Status> {
        let request = NodeGetVolumeStatsRequest {
            volume_id: "csi-0123".to_owned(),
            volume_path: dir.display().to_string(),
            ..NodeGetVolumeStatsRequest::default()
        };
        let mut client = NodeClient::new(self.channel.clone());
        let answer = self.runtime.block_on(client.node_get_volume_stats(request))?.into_inner();
        Ok(answer.volume_condition.expect("a condition"))
    }

    pub fn delete(&self, volume: &str) -> Result<(), Status> {
        let request = DeleteVolumeRequest { volume_id: volume.to_owned(), ..DeleteVolumeRequest::default() };
        let mut client = ControllerClient::new(self.channel.clone());
        self.runtime.block_on(client.delete_volume(request)).map(drop)
    }

    /// As the provisioner asks for a claim of this Kubernetes namespace. The volume's id and context.
    pub fn claim(&self, name: &str, namespace: &str) -> (String, HashMap<String, String>) {
        let parameters = [("csi.storage.k8s.io/pvc/namespace".to_owned(), namespace.to_owned())];
        let request = CreateVolumeRequest {
            name: name.to_owned(),
            volume_capabilities: vec![capability("")],
            parameters: parameters.into(),
            ..CreateVolumeRequest::default()
        };
        let mut client = ControllerClient::new(self.channel.clone());
        let made = self.runtime.block_on(client.create_volume(request)).expect("a volume");
        let volume = made.into_inner().volume.expect("a volume");
        (volume.volume_id, volume.volume_context)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where a pod's volume is.
pub fn target(node: &Node, name: &str) -> PathBuf {
    let above = node.path("pods");
    std::fs::create_dir_all(&above).expect("a directory");
    above.join(name)
}
