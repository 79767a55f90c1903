//! Namespaces.

use clap::{Args, Subcommand, ValueEnum};

use super::PlaceFlags;

/// Make, list, change and remove namespaces
///
/// Works through the node when it runs, and on the metadata folder itself otherwise.
#[derive(Debug, Args)]
#[command(after_help = "Example: granary ns create user/alice --bytes-max 1TiB")]
pub struct NsArgs {
    #[command(subcommand)]
    pub command: NsCommand,
}

#[derive(Debug, Subcommand)]
pub enum NsCommand {
    /// Make a namespace
    #[command(
        after_help = "Example: granary ns create group/asr --bytes-max 10TiB --durability object\n         granary ns create dataset/images --packed s3://training/images"
    )]
    Create {
        name: String,
        #[command(flatten)]
        what: NsFields,
        /// Show a packed data set, read-only: a folder, or s3://bucket/prefix, which every node that mounts it can read
        #[arg(long, value_name = "WHERE")]
        packed: Option<String>,
        /// The data set's version to show [default: the newest at each mount]
        #[arg(long, value_name = "N", requires = "packed")]
        version: Option<u64>,
        #[command(flatten)]
        flags: PlaceFlags,
    },
    /// List namespaces with owner, mode and usage
    #[command(visible_alias = "ls", after_help = "Example: granary ns list --json")]
    List {
        /// For programs
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        flags: PlaceFlags,
    },
    /// Show all settings of one namespace
    #[command(after_help = "Example: granary ns show user/alice --json")]
    Show {
        name: String,
        /// For programs
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        flags: PlaceFlags,
    },
    /// Change a namespace; what is not given stays
    ///
    /// Takes effect at once where it is mounted, on every node.
    #[command(
        after_help = "Example: granary ns set user/alice --bytes-max 2TiB\n         granary ns set group/asr --small-period 500ms --upload-bandwidth 100MiB/s\n         granary ns set user/alice --trash 7d"
    )]
    Set {
        name: String,
        #[command(flatten)]
        what: NsFields,
        #[command(flatten)]
        policy: Box<PolicyFields>,
        #[command(flatten)]
        flags: PlaceFlags,
    },
    /// Remove a namespace that is empty and not mounted
    #[command(visible_alias = "rm", after_help = "Example: granary ns remove user/alice --force")]
    Remove {
        name: String,
        /// Also when it has files: they are gone for good
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        flags: PlaceFlags,
    },
}

#[derive(Clone, Debug, Default, Args)]
pub struct NsFields {
    /// Owner of its top directory: a login or a number
    #[arg(long, value_name = "USER")]
    pub owner: Option<String>,
    /// Group of its top directory: a name or a number
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
    /// Permission bits of its top directory, in octal
    #[arg(long, value_name = "MODE")]
    pub mode: Option<String>,
    /// Quota of bytes, for example 1TiB; 0: none
    #[arg(long, value_name = "SIZE")]
    pub bytes_max: Option<String>,
    /// Quota of files and directories; 0: none
    #[arg(long, value_name = "COUNT")]
    pub inodes_max: Option<u64>,
    /// Where fsync makes bytes safe: on the node's disk, or in the store
    #[arg(long, value_name = "WHERE")]
    pub durability: Option<DurabilityArg>,
    /// How long removed files stay in .trash of its top directory, for example 12h or 7d; 0: there is no trash [default: 1d]
    #[arg(long, value_name = "PERIOD")]
    pub trash: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DurabilityArg {
    /// The same as local
    Default,
    Local,
    Object,
}

/// How a namespace's writes reach the store; each also `default`: as the node's setting says.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "How writes reach the store (a value, or `default`: the node's setting)")]
pub struct PolicyFields {
    /// Small files leave for the store this long after they were written
    #[arg(long, value_name = "PERIOD")]
    pub small_period: Option<String>,
    /// Large files leave after this long without writes
    #[arg(long, value_name = "PERIOD")]
    pub large_period: Option<String>,
    /// Files up to this size are small, and packed
    #[arg(long, value_name = "SIZE")]
    pub small_size: Option<String>,
    /// Bytes a second that each node sends to the store, for example 100MiB/s
    #[arg(long, value_name = "SIZE/s")]
    pub upload_bandwidth: Option<String>,
    /// Uploads at once, on each node
    #[arg(long, value_name = "COUNT")]
    pub uploads: Option<String>,
    /// Bytes on a node not yet in the store: near it writers are slowed, at it they wait
    #[arg(long, value_name = "SIZE")]
    pub dirty_bytes: Option<String>,
    /// The same for files
    #[arg(long, value_name = "COUNT")]
    pub dirty_files: Option<String>,
    /// How new objects are compressed: none, lz4 or zstd [default: none]
    #[arg(long, value_name = "CODEC")]
    pub compression: Option<String>,
    /// Files up to this size, at most 2KiB, are kept beside their inodes too, once they are stored: reading them asks nothing
    /// of the store, and the metadata is as much larger [default: 0, none]
    #[arg(long, value_name = "SIZE")]
    pub inline: Option<String>,
}
