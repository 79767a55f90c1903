//! Bytes that are only in another node's stage: read from that node, over gRPC.
//!
//! ```text
//! read --> extents say "staged at node N" --> metadata: N's address, a ticket --> N: checks the ticket and what it has
//! ```
//!
//! The ticket is the metadata service's word that its bearer may read a namespace. What a node has is checked against what
//! is asked for, so that an old question gets no newer bytes for an answer; bytes are checked by crc32c, as sent and as the
//! metadata knows them. A node that does not answer makes a read fail within some seconds, naming it: there are no other
//! bytes to give.

mod client;
mod server;
#[cfg(test)]
mod tests;
mod wire;

use async_trait::async_trait;
use bytes::Bytes;
use granary_core::{Ino, NamespaceId, Result};
use granary_meta::Extent;

pub use client::{PeerClient, PeerClientOptions};
pub use server::{PeerServer, PeerServerOptions, ServerTls, TicketCheck};

/// Longest part of an extent that is read by one call.
pub const PEER_BYTES_MAX: u64 = 4 << 20;

/// Reads what other nodes have staged.
#[async_trait]
pub trait Peers: Send + Sync + 'static {
    /// The bytes of `part`, which is cut off `whole`, an extent as the metadata named it. `None`: that node has them no more,
    /// they are elsewhere by now: ask for the extents again.
    ///
    /// Errors: `Unavailable` when the node does not answer within some seconds, `Corrupt` when its bytes are damaged.
    async fn read(&self, ns: NamespaceId, ino: Ino, part: &Extent, whole: &Extent) -> Result<Option<Bytes>>;
}
