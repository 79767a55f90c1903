//! A node's bytes: the read cache, the stage of what is not yet in the store, its journal, and the drain.
//! Knows inodes and extents, neither names nor FUSE.
//!
//! The way of a write: [`File::write`] appends a record to the stage log (small files) or writes the stage file (large ones)
//! and changes the file's extent map in memory; [`Tree::close`], fsync or the committer bring that *held state* into the
//! metadata as one commit; the drain uploads what the metadata says is still there and moves its extents to the object.
//! The way of a read: the extent map says where each byte is, and [`ReadCache`] has what is in objects.
//!
//! Locks, in the order they may be taken: the drain policy, a shard of the table of files in use, a file's state, then the log's writer, the
//! log's segments, or one of the tree's other tables (held, large, clean, objects). None is held across `.await` or a store
//! request.

mod drain;
mod extent_map;
pub mod file;
#[doc(hidden)]
pub mod fuzzing;
pub mod peer;
pub mod prefetch;
mod range_set;
pub mod read;
mod recover;
mod room;
mod sealed;
mod stage;
pub mod tree;
mod util;

pub use file::{Backing, File, NoPages, PageCache};
pub use peer::Peers;
pub use read::{CacheFolder, CacheShare, ReadCache};
pub use recover::{RecoveryStep, RecoveryWatch};
pub use tree::{PathHint, ServedFrom, Tier, Tree, TreeParts, TreeStatus};
