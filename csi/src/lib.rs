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
//! | `turns` | calls for one volume, one after another |
//! | `volumes` | what is asked of the node process |
//! | `identity`, `controller`, `node` | the three services |
//! | `serve` | the socket |
//!
//! Calls of one volume wait for each other, and each may be repeated: it then finds its work done. The services keep nothing,
//! so that they may be killed and started again at any moment: no mount depends on them.

mod access;
mod controller;
pub mod handle;
mod identity;
mod node;
pub mod parameters;
pub mod serve;
mod status;
mod turns;
pub mod volumes;

/// The interface's messages and services.
pub mod proto {
    #![allow(clippy::pedantic, clippy::all, missing_docs)]
    tonic::include_proto!("csi.v1");
}

pub use handle::Handle;
pub use serve::{Role, ServeOptions, serve};
pub use volumes::{MountWanted, Mounted, NewVolume, Space, Volumes};

/// What the driver is called in CSIDriver objects and storage classes.
pub const DRIVER_NAME: &str = "csi.granary.dev";
