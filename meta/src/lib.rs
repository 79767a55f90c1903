//! Metadata: inodes, names, extents, quotas of each namespace, over an ordered key-value engine.
//!
//! [`machine`] decides what an operation does, without I/O; [`record`] says how its result lies in an [`engine`];
//! [`local`] runs both in this process and writes in groups. Others use [`Metadata`] and [`Volume`].

pub mod acl;
pub mod api;
pub mod call;
pub mod changes;
pub mod engine;
pub mod lease;
pub mod local;
pub mod machine;
pub mod record;
pub mod remote;
pub mod server;
pub mod service;
mod settings;
pub mod token;
pub mod types;
pub mod wire;

pub use api::Metadata;
pub use lease::{Holder, LeaseKind, Lock, LockKind, LockOwner, LockRequest, Lost, PeerInfo, Scope};
pub use local::{Inventory, LocalNamespace, Tuning, Volume};
pub use types::*;
