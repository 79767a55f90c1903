//! What keeps a volume in order: metadata and store checked against each other ([`fsck`]), what nobody needs deleted
//! ([`garbage`]), the metadata saved and brought back ([`backup`]), or made anew from the bucket alone ([`rebuild`]).
//!
//! Knows metadata and store, and no file on a node. All of it works while nodes write: what may differ between a listing of
//! the store and a look at the metadata only because time went on between the two is looked at again before it is told.

pub mod backup;
pub mod finding;
mod fresh;
pub mod fsck;
pub mod garbage;
pub mod progress;
pub mod rebuild;
#[cfg(test)]
#[allow(clippy::unwrap_used)] // test code, though not inside a #[test] function
mod rig;

use granary_core::{Error, Kind, Result};

/// Runs what waits for a disk on a thread where it may.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(Error::new(Kind::Bug, "a look at the metadata ended early").with_source(e)),
    }
}
