//! A packed data set as a namespace: the tree that was packed, read-only, from the shards that lie in the store.
//!
//! ```text
//! kernel -> fuse -> cache::Tree -> PackedMetadata: names, attributes, extents     (tree over order and indexes)
//!                        |
//!                        +-> ReadCache -> Router -> ShardStore -> the data set's folder or bucket
//!                                            \---> the volume's store
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`order`] | one file on the node for each version: all entries in the order of their paths |
//! | [`tree`] | names, attributes and listings, found in the order each time |
//! | [`shards`] | tars as objects of 15 MiB, which the node's read cache treats as packs |
//! | [`metadata`] | all that as [`granary_meta::Metadata`] |
//! | [`router`] | one store for volume and data sets |
//! | [`open`] | a version opened: indexes fetched, order made |
//! | [`opening`] | how far that is |
//!
//! Memory does not grow with the number of files: indexes and order are mapped, and an inode is no more than its number. Knows
//! no FUSE and no cache.

pub mod metadata;
pub mod names;
pub mod open;
pub mod opening;
pub mod order;
#[cfg(test)]
mod rig;
pub mod router;
pub mod shards;
pub mod tree;

pub use metadata::{PackedMetadata, SHARDS_NAME};
pub use open::{Packed, manifest_of, open};
pub use opening::{HowFar, Opening};
pub use router::Router;
pub use tree::Owner;
