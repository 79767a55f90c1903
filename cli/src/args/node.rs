//! The node process, and what it is asked.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{NodeFlags, PlaceFlags};

/// Make a volume: metadata in a folder, objects in a store
///
/// The store is tried first (write, read, list, delete), so that wrong keys or a missing bucket are told now.
/// S3's endpoint, region and keys are taken as the AWS tools take them (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ...).
#[derive(Debug, Args)]
#[command(after_help = "Example: granary init --meta /var/lib/granary/meta --store s3://training/granary")]
pub struct InitArgs {
    /// When the volume is there already, say so and succeed
    #[arg(long)]
    pub if_missing: bool,
    /// Make the volume that this key is for (`granary token key --new-volume`); its public part is enough
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    #[command(flatten)]
    pub flags: NodeFlags,
}

/// Run the node process: every mount of this machine is served by it
///
/// In the foreground; `granary mount` starts one in the background when none runs. SIGTERM stops it cleanly.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: granary node --meta /var/lib/granary/meta --cache /nvme/granary --dirty-bytes-max 64GiB"
)]
pub struct NodeArgs {
    #[command(subcommand)]
    pub command: Option<NodeCommand>,
    /// Tell on standard output, in one line of JSON, that the node is ready or why it is not.
    #[arg(long, hide = true)]
    pub notify: bool,
    /// Take the place of the node that runs now; mounts that are kept (setting keeper) go on, with their open files
    #[arg(long)]
    pub replace: bool,
    /// Wait until no other node uses the cache directory, instead of failing
    #[arg(long, conflicts_with = "replace")]
    pub when_free: bool,
    /// When another node takes this one's place, wait and serve again once that one ends; for containers, which would be started again
    ///
    /// The node runs as a process below this one. SIGTERM has it leave its mounts to the next one, where all are kept (setting keeper),
    /// else stop cleanly.
    #[arg(long, conflicts_with = "notify")]
    pub stay: bool,
    #[command(flatten)]
    pub flags: NodeFlags,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: granary keeper --socket /run/granary/node.sock.keeper")]
pub struct KeeperArgs {
    /// Where the node finds it: the node's own socket with `.keeper` behind it
    #[arg(long, value_name = "PATH")]
    pub socket: PathBuf,
    /// End when nothing is kept and no node is there
    #[arg(long)]
    pub ends_idle: bool,
}

#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// Run it in the foreground (the default)
    Run {
        #[command(flatten)]
        flags: NodeFlags,
    },
    /// Empty the running node: no new mounts, everything stored and unmounted
    ///
    /// Also stores what is left of namespaces that are not mounted. A mount that is in use stays, as with `granary umount`,
    /// and is told with who uses it. Ends with code 0 when nothing is on this node that is not in the store, otherwise with
    /// the list of what is left and why; it can be asked for again. Mounts are refused until the node is started again.
    #[command(after_help = "Example: granary node drain --stop")]
    Drain {
        /// When nothing is left, stop the node
        #[arg(long)]
        stop: bool,
        /// For programs: what is left, as JSON
        #[arg(long)]
        json: bool,
        /// How long to wait for the store, for example 5min; then what is left is told [default: as long as it takes]
        #[arg(long, value_name = "PERIOD")]
        wait: Option<String>,
        #[command(flatten)]
        flags: PlaceFlags,
    },
    /// Stop the running node: unmount everything, keep what is not yet stored on its disk
    Stop {
        #[command(flatten)]
        flags: PlaceFlags,
    },
    /// End the running node and leave its mounts, with their open files, to the next one (setting keeper)
    ///
    /// Programs wait until it is there. Refused, and the node goes on, while a mount could not outlive it.
    #[command(after_help = "Example: granary node leave && granary node")]
    Leave {
        #[command(flatten)]
        flags: PlaceFlags,
    },
}

/// Show the node, its mounts, and what is not in the store yet
#[derive(Debug, Args)]
#[command(after_help = "Example: granary status --json")]
pub struct StatusArgs {
    /// For programs
    #[arg(long)]
    pub json: bool,
    /// Fail unless the node is of this container (it has this command's mount namespace): whether a pod serves itself
    #[arg(long)]
    pub here: bool,
    #[command(flatten)]
    pub flags: PlaceFlags,
}

/// Look whether this machine can do what a node needs: kernel, mounting, disk, metadata, store, clock
///
/// Everything is tried: a mount of a moment, an unnamed file in the cache directory, a small object in the store. What it makes
/// is gone when it ends. As root, since only root can mount. Exit codes: 0 a node works here, perhaps with less; 1 it does not.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: granary doctor --meta /var/lib/granary/meta --cache /nvme/granary\n         granary doctor --store s3://training/granary"
)]
pub struct DoctorArgs {
    /// For programs
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub flags: NodeFlags,
}
