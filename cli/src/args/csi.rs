//! The Container Storage Interface.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::PlaceFlags;

/// Serve the Container Storage Interface: namespaces as volumes of Kubernetes' pods
///
/// A thin client of the node process, which makes the mounts: it may end and be started again while pods use them.
/// Runs until SIGTERM.
#[derive(Debug, Args)]
#[command(after_help = "Example: granary csi --endpoint unix:///csi/csi.sock --node-id worker-7")]
pub struct CsiArgs {
    /// The socket to serve at, which kubelet and the provisioner are told
    #[arg(long, value_name = "unix:///PATH", env = "CSI_ENDPOINT")]
    pub endpoint: String,
    /// What Kubernetes calls this node
    #[arg(long, value_name = "NAME", env = "KUBE_NODE_NAME", default_value = "")]
    pub node_id: String,
    /// Services to serve beside identity
    #[arg(long, value_enum, default_value_t = CsiRole::Both)]
    pub serve: CsiRole,
    /// Which pods may mount what: a file of grants, read anew each time; `none`: whoever reaches the socket may mount everything
    #[arg(long, value_name = "FILE|none", env = "GRANARY_CSI_ACCESS")]
    pub access: Option<String>,
    /// A token with the right to delegate, read anew each time: each volume is mounted by a short-lived token for its namespace alone,
    /// which the metadata service (--meta) makes. Without it the node process mounts by its own token
    #[arg(long, value_name = "FILE", env = "GRANARY_CSI_DELEGATE")]
    pub delegate: Option<PathBuf>,
    /// How long each of those lasts; they are renewed at half of it for as long as the pod may have the volume
    #[arg(long, value_name = "PERIOD", env = "GRANARY_CSI_DELEGATE_TTL", default_value = "1h")]
    pub delegate_ttl: String,
    /// An administrator's token, read anew each time, by which volumes are made, grown and deleted. Without it the node process does that by
    /// its own token
    #[arg(long, value_name = "FILE", env = "GRANARY_CSI_VOLUMES_TOKEN")]
    pub volumes_token: Option<PathBuf>,
    /// Write events of pods whose volumes are unwell
    #[arg(long)]
    pub events: bool,
    /// Keep labels of this node that say which data sets its cache holds
    #[arg(long)]
    pub labels: bool,
    /// Kubernetes' API server [default: the cluster's own]
    #[arg(long, value_name = "URL", env = "GRANARY_KUBE_API")]
    pub kube_api: Option<String>,
    /// A directory with the driver's `token` and the API server's `ca.crt`
    #[arg(long, value_name = "DIR", default_value = granary_csi::kube::CREDENTIALS)]
    pub kube_credentials: PathBuf,
    #[command(flatten)]
    pub flags: PlaceFlags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CsiRole {
    Controller,
    Node,
    Both,
}
