//! The Container Storage Interface (CSI 1.12): pods get namespaces as volumes.
//!
//! ```text
//! kubelet, external-provisioner --gRPC over a UNIX socket--> identity, controller, node --> Volumes (the node process)
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | `handle` | what a volume id says |
//! | `parameters` | what a StorageClass, a PV or a pod may ask for |
//! | `access` | which ways of access there are |
//! | `gate`, `grants`, `pod` | who may have what: the administrator's file, and the token that proves a pod |
//! | `kube` | the API server: token reviews, events, labels |
//! | `wish` | what a publishing asks for, and the mount that comes of it |
//! | `turns` | calls for one volume, one after another |
//! | `volumes` | what is asked of the node process |
//! | `health`, `published`, `watch` | whether mounts answer, which there are, and what is done about those that do not |
//! | `identity`, `controller`, `node` | the three services |
//! | `serve` | the socket |
//!
//! Calls of one volume wait for each other, and each may be repeated: it then finds its work done. The services keep nothing that an
//! answer rests on, so that they may be killed and started again at any moment: no mount depends on them. No call waits without a
//! bound, also where a mount or the node process hangs.
//!
//! # In a cluster
//!
//! | object | has |
//! |---|---|
//! | CSIDriver `csi.granary.dev` | `podInfoOnMount: true`, `requiresRepublish: true`, `tokenRequests: [{audience: granary.dev, expirationSeconds: 3600}]`, `attachRequired: false`, `fsGroupPolicy: None` (the driver takes `fsGroup` itself), both `volumeLifecycleModes` |
//! | provisioner | `--extra-create-metadata`: a claim's namespace is its Kubernetes namespace's |
//! | rights of the node plugin's service account | `create tokenreviews`; with `--events` `create events` of `events.k8s.io`; with `--labels` `get` and `patch nodes` |
//!
//! The StorageClass's and volumes' words are `parameters`', the access file's `grants`'. A right that is taken back, or narrowed, while a
//! pod has the volume does not take the mount from it, which the kernel could not do without errors in its programs: the pod's events and
//! the volume's condition say so, and the next pod does not get it. Where each volume is mounted by a token of its own (a metadata service,
//! `granary csi --delegate`), it is not renewed then: the mount answers EACCES when the token has ended, at the latest after its whole life,
//! unless another pod of the node has the same namespace still, through the same session.

mod access;
mod controller;
pub mod gate;
pub mod grants;
pub mod handle;
mod health;
mod identity;
pub mod kube;
mod node;
pub mod parameters;
pub mod pod;
mod published;
pub mod serve;
mod status;
mod turns;
pub mod volumes;
mod watch;
mod wish;

/// The interface's messages and services.
pub mod proto {
    #![allow(clippy::pedantic, clippy::all, missing_docs)]
    tonic::include_proto!("csi.v1");
}

pub use gate::Gate;
pub use handle::Handle;
pub use kube::Kube;
pub use serve::{Role, ServeOptions, serve};
pub use volumes::{Held, MountWanted, Mounted, NewVolume, Space, Volumes, Warmth};

/// What the driver is called in CSIDriver objects and storage classes.
pub const DRIVER_NAME: &str = "csi.granary.dev";
