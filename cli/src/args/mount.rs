//! Mounting, and what is done with a mount.

use std::path::PathBuf;

use clap::Args;

use super::{NodeFlags, PlaceFlags};

/// Mount a namespace at a directory, and return when it can be used
///
/// A namespace that does not exist is made: user/NAME belongs to that user with mode 0700, group/NAME to that group
/// with mode 2770, dataset/NAME and bucket/NAME to the caller with mode 0755. Starts the node if none runs.
#[derive(Debug, Args)]
#[command(after_help = "Example: granary mount user/alice /mnt/alice -o mode=work")]
pub struct MountArgs {
    /// user/NAME, group/NAME, dataset/NAME or bucket/NAME
    pub namespace: String,
    /// An existing directory
    pub dir: PathBuf,
    /// Mount options: mode=work|data, ro, noatime, ...; settings too (cache=/nvme/granary)
    #[arg(short = 'o', value_name = "OPTIONS")]
    pub options: Vec<String>,
    #[command(flatten)]
    pub flags: NodeFlags,
}

/// Unmount a directory
///
/// What is not in the store yet stays on the node's disk, and the node goes on storing it.
#[derive(Debug, Args)]
#[command(after_help = "Example: granary umount --drain /mnt/alice")]
pub struct UmountArgs {
    pub dir: PathBuf,
    /// Detach at once although it is in use; programs that use it may finish
    #[arg(long, short)]
    pub lazy: bool,
    /// Return when everything is in the store
    #[arg(long)]
    pub drain: bool,
    #[command(flatten)]
    pub flags: PlaceFlags,
}

/// Return when what was written before is in the store: a file, a tree, a whole mount, or everything
#[derive(Debug, Args)]
#[command(
    after_help = "Example: granary sync /mnt/alice\n         granary sync /mnt/alice/ckpt/7.pt\n         granary sync --all"
)]
pub struct SyncArgs {
    /// A file, a directory with all below it, or a mount point
    #[arg(required_unless_present = "all")]
    pub path: Option<PathBuf>,
    /// Every namespace on this node, also those that are not mounted now
    #[arg(long, conflicts_with = "path")]
    pub all: bool,
    #[command(flatten)]
    pub flags: PlaceFlags,
}

/// Bring files into the node's cache before they are read; see what is there; drop it
///
/// Goes through the trees in the node, behind all that programs read meanwhile. What is there is not fetched again, so that a
/// warmup that was stopped is simply asked for again. Files that you may not read are left out, and told.
/// Exit codes: 0 all of it is on the node (with --background: it began), 1 not all of it, 2 and 3 as everywhere.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: granary warmup /mnt/asr/train\n         granary warmup --files-from epoch-1.txt /mnt/asr/train\n         granary warmup --check --json /mnt/asr/train"
)]
pub struct WarmupArgs {
    /// Files and directories with all below them
    #[arg(required_unless_present_any = ["files_from", "list", "cancel"])]
    pub paths: Vec<PathBuf>,
    /// Only the files named in LIST, one a line, in this order; `-`: standard input. Names are below PATH [default: here]
    #[arg(long, value_name = "LIST")]
    pub files_from: Option<PathBuf>,
    /// Return at once; `granary status` and --list tell how far it is
    #[arg(long, conflicts_with_all = ["check"])]
    pub background: bool,
    /// Fetch nothing: say how much of it is on this node
    #[arg(long, conflicts_with_all = ["evict", "pin", "unpin"])]
    pub check: bool,
    /// Drop it from the node's cache (not from the kernel's); what is not in the store yet stays
    #[arg(long, conflicts_with_all = ["pin", "unpin"])]
    pub evict: bool,
    /// Fetch it and keep it, whatever else is read, and what is added there later
    #[arg(long, conflicts_with = "unpin")]
    pub pin: bool,
    /// Keep it no longer
    #[arg(long)]
    pub unpin: bool,
    /// Show the warmups of this node
    #[arg(long, conflicts_with_all = ["paths", "files_from"])]
    pub list: bool,
    /// End one of them
    #[arg(long, value_name = "ID", conflicts_with_all = ["paths", "files_from", "list"])]
    pub cancel: Option<u64>,
    /// For programs
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub flags: PlaceFlags,
}

/// Measure a mounted file system, Granary or any other
///
/// In a private directory that is made below the mount point and removed again, also on Ctrl-C: small files, and one large one.
/// What is read is verified. Cold figures are of these files' own pages, dropped from the page cache, where the kernel lets
/// them go; what a file system keeps elsewhere, as Granary its cache on the node's disk, stays.
#[derive(Debug, Args)]
#[command(after_help = "Example: granary bench /mnt/alice --bytes 1GiB --threads 8")]
pub struct BenchArgs {
    /// A directory of the file system
    #[arg(value_name = "MOUNTPOINT")]
    pub mountpoint: PathBuf,
    /// Size of the large file
    #[arg(long, value_name = "SIZE", default_value = "256MiB")]
    pub bytes: String,
    /// Small files, each 4 KiB
    #[arg(long, value_name = "COUNT", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub files: u32,
    /// Threads, where there are several
    #[arg(long, value_name = "COUNT", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: u32,
    /// All of it ends after about so long
    #[arg(long, value_name = "PERIOD", default_value = "60s")]
    pub time: String,
    /// For programs
    #[arg(long)]
    pub json: bool,
}
