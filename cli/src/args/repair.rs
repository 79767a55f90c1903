//! Volumes that are looked through, and brought back.

use std::path::PathBuf;

use clap::Args;

use super::PlaceFlags;

/// Check that everything is there and agrees: metadata with itself, and with the store
///
/// Works through the node when it runs, while programs write, and on the metadata folder itself otherwise. Where a metadata
/// service has the volume: on its machine, while it is stopped. Reads objects' footers; nothing is changed without --repair.
/// Exit codes: 0 nothing is wrong (any more), 1 something is, or the check failed, 2 and 3 as everywhere.
#[derive(Debug, Args)]
#[command(after_help = "Example: granary fsck user/alice --data")]
pub struct FsckArgs {
    /// Namespaces to check [default: all]
    pub namespaces: Vec<String>,
    /// Read every object, and verify every checksum
    #[arg(long, conflicts_with = "quick")]
    pub data: bool,
    /// Compare metadata and the store's listing only: no object is read
    #[arg(long)]
    pub quick: bool,
    /// Make wrong counts right where that is proven; deletes nothing
    #[arg(long)]
    pub repair: bool,
    /// For programs
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub flags: PlaceFlags,
}

/// Show what lies in the store and nobody needs, and delete it with --delete
///
/// That is: objects without a live byte, objects that a crash left before anybody named them, and objects of removed
/// namespaces. Works as `granary fsck` does, also while programs write. After `granary meta restore`, what was stored
/// since the backup counts as garbage: look before you delete.
#[derive(Debug, Args)]
#[command(after_help = "Example: granary gc --delete")]
pub struct GcArgs {
    /// Namespaces to look through [default: all, and what is left of removed ones]
    pub namespaces: Vec<String>,
    /// Delete it
    #[arg(long)]
    pub delete: bool,
    /// How long an object may lie in the store before anybody has named it
    #[arg(long, value_name = "PERIOD", default_value = "1h")]
    pub grace: String,
    /// For programs; with each object, up to 1,000
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub flags: PlaceFlags,
}

/// Make metadata anew from the store alone: the last resort, when no backup is left
///
/// Objects say whose bytes they hold: inode, name, and the directory's inode. What comes back is files under the names they
/// were stored with, owned by root, in namespaces dataset/rebuilt-ID; deleted files come back too. Directories' names,
/// owners, modes, links and attributes are not in the store. Try `granary meta restore --from-store` first.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: granary rebuild --store s3://training/granary --meta /var/lib/granary/meta-rebuilt"
)]
pub struct RebuildArgs {
    /// For programs
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub flags: PlaceFlags,
}

/// Store what a node had not stored, from its cache directory: its disk in another machine
///
/// The node itself must not run. Its log and stage files are brought into the volume's metadata as that node would have done at
/// its next start, and all of it is uploaded. What other nodes changed since is not overwritten: this node's version of it is
/// put into a folder beside, and told. It can be done again, and says then that nothing is left.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: granary recover --stage /mnt/old-disk/granary --meta https://meta:7411 --token-file admin.token"
)]
pub struct RecoverArgs {
    /// The node's cache directory (its setting `cache`), which has `node.json` and `stage` in it
    #[arg(long, value_name = "DIR")]
    pub stage: PathBuf,
    /// For programs
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub flags: PlaceFlags,
}
