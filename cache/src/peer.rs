//! Bytes that are only in another node's stage.

use async_trait::async_trait;
use bytes::Bytes;
use granary_core::{Ino, NamespaceId, Result};
use granary_meta::Extent;

/// Reads what other nodes have staged.
#[async_trait]
pub trait Peers: Send + Sync + 'static {
    /// The bytes of `part`, which is cut off `whole`, an extent as the metadata named it. `None`: that node has them no more,
    /// they are elsewhere by now: ask for the extents again.
    ///
    /// Errors: `Unavailable` when the node does not answer within some seconds, `Corrupt` when its bytes are damaged.
    async fn read(&self, ns: NamespaceId, ino: Ino, part: &Extent, whole: &Extent) -> Result<Option<Bytes>>;
}
