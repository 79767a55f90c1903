//! The command line. Settings' flags are made from the table in [`crate::settings`]; the rest is declared here.

mod observe;

use std::path::PathBuf;

use clap::{
    Arg, ArgAction, ArgMatches, Args, Command as ClapCommand, FromArgMatches, Parser, Subcommand, ValueEnum,
};

pub use observe::{ExplainArgs, TopArgs, TraceArgs};

pub use crate::datasets::{CatArgs, IndexArgs, LsArgs, PackArgs, PlanArgs, UnpackArgs, VerifyArgs};

use crate::settings::{SETTINGS, Scope, Sources, Unit, Who, dashed};

#[derive(Debug, Parser)]
#[command(
    name = "granary",
    version,
    about = "A POSIX file system over object storage, as fast as the node's disk",
    after_help = "Every setting is a flag, a GRANARY_* variable and a key of granary.toml; the first that gives it wins.\n\
                  Exit codes: 0 done, 1 failed, 2 cannot be used as given, 3 the store is unavailable."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Init(InitArgs),
    Node(NodeArgs),
    Mount(MountArgs),
    Umount(UmountArgs),
    Sync(SyncArgs),
    Warmup(WarmupArgs),
    Status(StatusArgs),
    Bench(BenchArgs),
    Top(TopArgs),
    Trace(TraceArgs),
    Explain(ExplainArgs),
    Doctor(DoctorArgs),
    Csi(CsiArgs),
    /// Hold the mounts of a node, so that they outlive its process
    #[command(hide = true)]
    Keeper(KeeperArgs),
    Ns(Box<NsArgs>),
    Fsck(FsckArgs),
    Gc(GcArgs),
    Rebuild(RebuildArgs),
    Recover(RecoverArgs),
    Meta(MetaArgs),
    Token(TokenArgs),
    Pack(Box<PackArgs>),
    Index(IndexArgs),
    Verify(VerifyArgs),
    Ls(LsArgs),
    Cat(CatArgs),
    Unpack(UnpackArgs),
    Plan(Box<PlanArgs>),
    /// Print the version
    Version,
}

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
    #[command(flatten)]
    pub flags: NodeFlags,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: granary keeper --socket /run/granary/node.sock.keeper")]
pub struct KeeperArgs {
    /// Where the node finds it: the node's own socket with `.keeper` behind it
    #[arg(long, value_name = "PATH")]
    pub socket: std::path::PathBuf,
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

/// Show the node, its mounts, and what is not in the store yet
#[derive(Debug, Args)]
#[command(after_help = "Example: granary status --json")]
pub struct StatusArgs {
    /// For programs
    #[arg(long)]
    pub json: bool,
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

/// Serve the Container Storage Interface: namespaces as volumes of Kubernetes' pods
///
/// A thin client of the node process, which makes the mounts: it may end and be started again while pods use them.
/// Runs until SIGTERM.
#[derive(Debug, Args)]
#[command(after_help = "Example: granary csi --endpoint unix:///csi/csi.sock --node-id worker-7")]
pub struct CsiArgs {
    /// The socket to serve at, which kubelet and the provisioner are told
    #[arg(long, value_name = "unix:///PATH", env = "CSI_ENDPOINT")]
    pub endpoint: String,
    /// What Kubernetes calls this node
    #[arg(long, value_name = "NAME", env = "KUBE_NODE_NAME", default_value = "")]
    pub node_id: String,
    /// Services to serve beside identity
    #[arg(long, value_enum, default_value_t = CsiRole::Both)]
    pub serve: CsiRole,
    /// Which pods may mount what: a file of grants, read anew each time; `none`: whoever reaches the socket may mount everything
    #[arg(long, value_name = "FILE|none", env = "GRANARY_CSI_ACCESS")]
    pub access: Option<String>,
    /// A token with the right to delegate, read anew each time: each volume is mounted by a short-lived token for its namespace alone,
    /// which the metadata service (--meta) makes. Without it the node process mounts by its own token
    #[arg(long, value_name = "FILE", env = "GRANARY_CSI_DELEGATE")]
    pub delegate: Option<PathBuf>,
    /// How long each of those lasts; they are renewed at half of it for as long as the pod may have the volume
    #[arg(long, value_name = "PERIOD", env = "GRANARY_CSI_DELEGATE_TTL", default_value = "1h")]
    pub delegate_ttl: String,
    /// An administrator's token, read anew each time, by which volumes are made, grown and deleted. Without it the node process does that by
    /// its own token
    #[arg(long, value_name = "FILE", env = "GRANARY_CSI_VOLUMES_TOKEN")]
    pub volumes_token: Option<PathBuf>,
    /// Write events of pods whose volumes are unwell
    #[arg(long)]
    pub events: bool,
    /// Keep labels of this node that say which data sets its cache holds
    #[arg(long)]
    pub labels: bool,
    /// Kubernetes' API server [default: the cluster's own]
    #[arg(long, value_name = "URL", env = "GRANARY_KUBE_API")]
    pub kube_api: Option<String>,
    /// A directory with the driver's `token` and the API server's `ca.crt`
    #[arg(long, value_name = "DIR", default_value = granary_csi::kube::CREDENTIALS)]
    pub kube_credentials: PathBuf,
    #[command(flatten)]
    pub flags: PlaceFlags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CsiRole {
    Controller,
    Node,
    Both,
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

/// Serve a volume's metadata to many machines, look at that service, save metadata and bring it back
///
/// One machine needs none of this: there the node has the metadata itself. For many machines, one runs the service and
/// the others name it: `granary mount user/alice /mnt/alice --meta https://HOST:7411 --token-file FILE`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: granary meta serve --meta /var/lib/granary/meta --listen 0.0.0.0:7411 \\\n           \
                        --tls-cert cert.pem --tls-key key.pem --trust granary.key.pub"
)]
pub struct MetaArgs {
    #[command(subcommand)]
    pub command: MetaCommand,
}

#[derive(Debug, Subcommand)]
pub enum MetaCommand {
    /// Run the service, in the foreground; SIGTERM stops it cleanly
    ///
    /// Who may do what is said by tokens (`granary token`), which count when a key given with --trust has signed them.
    /// Stopped and started again, it goes on where it was: programs on other machines see a pause.
    #[command(
        after_help = "Example: granary meta serve --meta /var/lib/granary/meta --listen 10.0.0.1:7411 \\\n           \
                      --tls-cert cert.pem --tls-key key.pem --trust granary.key.pub"
    )]
    Serve {
        /// Listen beyond this machine without TLS: anybody on the network can then read tokens and names
        #[arg(long)]
        insecure: bool,
        /// Tell on standard output, in one line of JSON, that the service is ready or why it is not.
        #[arg(long, hide = true)]
        notify: bool,
        #[command(flatten)]
        flags: ServiceFlags,
    },
    /// Save the metadata in a file, while programs go on
    ///
    /// Works through the node when it runs, and on the metadata folder itself otherwise. A node, and a metadata service, also
    /// save it in the store by themselves (setting meta_backup_interval_ms).
    #[command(after_help = "Example: granary meta backup /srv/backups/granary.meta")]
    Backup {
        /// The file, replaced when all of it is written
        file: PathBuf,
        #[command(flatten)]
        flags: PlaceFlags,
    },
    /// Bring saved metadata back, into a new folder
    ///
    /// The folder of --meta must be new or empty. What was changed since the backup was made is not in it; files whose objects
    /// were deleted since are told by `granary fsck`. Objects that were stored since are garbage for it.
    #[command(
        after_help = "Example: granary meta restore --from-store s3://training/granary --meta /var/lib/granary/meta-new\n         \
                      granary meta restore /srv/backups/granary.meta --meta /var/lib/granary/meta-new"
    )]
    Restore {
        /// A file made by `granary meta backup`
        #[arg(conflicts_with = "from_store")]
        file: Option<PathBuf>,
        /// The store of the volume, with the backups that its node or service wrote
        #[arg(long, value_name = "URL")]
        from_store: Option<String>,
        /// The newest backup made no later than then: 2026-01-31T12:00, or 3h for three hours ago [default: the newest]
        #[arg(long, value_name = "WHEN", requires = "from_store")]
        at: Option<String>,
        #[command(flatten)]
        flags: PlaceFlags,
    },
    /// Show whether the service answers, whom it takes you for, and what is connected
    #[command(
        after_help = "Example: granary meta status --meta https://meta.example:7411 --token-file admin.token"
    )]
    Status {
        /// For programs
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        flags: PlaceFlags,
    },
    /// List the nodes that are connected, with what they have open: an administrator sees all, others their own
    #[command(
        after_help = "Example: granary meta sessions --meta https://meta.example:7411 --token-file admin.token"
    )]
    Sessions {
        /// For programs
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        flags: PlaceFlags,
    },
}

/// Make, read and revoke the tokens that prove to a metadata service who asks
///
/// A token is a line of text that says who its bearer is and until when; whoever has it may use it, so keep it as you
/// keep a password. It is signed with a key that only the administrator has; the service knows its public part.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: granary token issue --user alice --group asr --ttl 30d --key granary.key >alice.token"
)]
pub struct TokenArgs {
    #[command(subcommand)]
    pub command: TokenCommand,
}

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a key that signs tokens, and beside it FILE.pub, which a service is given with --trust
    #[command(after_help = "Example: granary token key --key granary.key --meta /var/lib/granary/meta")]
    Key {
        /// The new file, readable by its owner only
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// The volume whose tokens it signs [default: the one of --meta, or of the node that runs here]
        #[arg(long, value_name = "UUID")]
        volume: Option<String>,
        /// One that is not there yet: `granary init --key FILE` makes it
        #[arg(long, conflicts_with = "volume")]
        new_volume: bool,
        #[command(flatten)]
        flags: PlaceFlags,
    },
    /// Print a new token
    #[command(
        after_help = "Example: granary token issue --user alice --group asr --rights read-write --ttl 30d --key granary.key"
    )]
    Issue {
        /// Whose token it is: it opens user/NAME
        #[arg(long, value_name = "NAME")]
        user: String,
        /// A group of theirs: it opens group/NAME too; may be given several times
        #[arg(long = "group", value_name = "NAME")]
        groups: Vec<String>,
        /// What it is good for; delegate: having the service make short-lived tokens, and nothing else; admin: everything of everybody
        #[arg(long, value_enum, default_value = "read-write")]
        rights: RightsArg,
        /// These namespaces and no others, as KIND/NAME, KIND/* or */*; may be given several times [default: user/NAME and the groups'; with
        /// --rights delegate all]
        #[arg(long = "namespace", value_name = "NAMESPACE")]
        namespaces: Vec<String>,
        /// For how long, for example 12h or 30d
        #[arg(long, value_name = "PERIOD", default_value = "30d")]
        ttl: String,
        /// The key that signs it
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// The volume that it is for [default: the one that the key was made for]
        #[arg(long, value_name = "UUID")]
        volume: Option<String>,
        #[command(flatten)]
        flags: PlaceFlags,
    },
    /// Print a short-lived token for one namespace, which the metadata service makes by your token's right to delegate
    ///
    /// It ends with your token, or when that is revoked. No key is needed.
    #[command(
        after_help = "Example: granary token delegate group/asr --ttl 1h --meta https://meta.example:7411 --token-file csi.token"
    )]
    Delegate {
        /// The namespace that it is for
        namespace: String,
        /// To read only
        #[arg(long)]
        read_only: bool,
        /// For how long, a day at most
        #[arg(long, value_name = "PERIOD", default_value = "1h")]
        ttl: String,
        /// For whom, as the service's audit log tells it
        #[arg(long, value_name = "TEXT", default_value = "")]
        purpose: String,
        #[command(flatten)]
        flags: PlaceFlags,
    },
    /// Give the node here a token: what it has of a namespace goes on with it, and what is left of one goes to the store
    #[command(after_help = "Example: granary token hand asr.token --socket /run/granary/node.sock")]
    Hand {
        /// The token, a file with it, or - for standard input
        token: String,
        /// The namespace that is meant [default: the one that the token is for]
        #[arg(long, value_name = "NAMESPACE")]
        namespace: Option<String>,
        #[command(flatten)]
        flags: PlaceFlags,
    },
    /// Show what a token says; no key is needed
    #[command(after_help = "Example: granary token inspect alice.token")]
    Inspect {
        /// The token, a file with it, or - for standard input
        token: String,
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// Make a token worthless before its time, with all that was delegated from it; mounts that use it end (administrators only)
    #[command(
        after_help = "Example: granary token revoke alice.token --meta https://meta.example:7411 --token-file admin.token"
    )]
    Revoke {
        /// The token, a file with it, or - for standard input
        token: String,
        #[command(flatten)]
        flags: PlaceFlags,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RightsArg {
    ReadOnly,
    ReadWrite,
    Delegate,
    Admin,
}

/// The flags of settings, as they were given: those that concern `WHO`, a [`Who`] as a number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettingFlags<const WHO: u8> {
    pub config: Option<PathBuf>,
    pub given: Vec<(String, String)>,
}

pub type PlaceFlags = SettingFlags<{ Who::Caller as u8 }>;
pub type NodeFlags = SettingFlags<{ Who::Node as u8 }>;
pub type ServiceFlags = SettingFlags<{ Who::Service as u8 }>;

impl<const WHO: u8> SettingFlags<WHO> {
    fn concerning(scope: Scope) -> bool {
        let who = [Who::Caller, Who::Node, Who::Service];
        who.into_iter().any(|who| who as u8 == WHO && scope.concerns(who))
    }

    /// With these in front: what `other` gives, wins.
    pub fn and<const OTHER: u8>(mut self, other: SettingFlags<OTHER>) -> NodeFlags {
        self.given.extend(other.given);
        NodeFlags { config: other.config.or(self.config), given: self.given }
    }

    pub fn sources(&self) -> Sources {
        Sources::new(self.config.clone(), self.given.clone())
    }
}

impl<const WHO: u8> Args for SettingFlags<WHO> {
    fn augment_args(command: ClapCommand) -> ClapCommand {
        let config = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help("Settings file [default: GRANARY_CONFIG, then /etc/granary/granary.toml if it exists]")
            .help_heading("Settings");
        let wanted = SETTINGS.iter().filter(|s| Self::concerning(s.scope));
        command.arg(config).args(wanted.map(|s| {
            let value = match s.unit {
                Unit::Path => "PATH",
                Unit::Text => "TEXT",
                Unit::Bytes => "SIZE",
                Unit::Period => "PERIOD",
                Unit::Count => "COUNT",
                Unit::Port => "PORT",
            };
            let heading = match s.scope {
                Scope::Place => "Settings",
                Scope::Process if WHO == Who::Service as u8 => "Settings of the service",
                Scope::Node | Scope::Process => "Settings of the node process",
                Scope::Service => "Settings of the service",
                Scope::Limit => "Limits (sizes like 16GiB, periods like 2s; --help shows all)",
            };
            Arg::new(s.name)
                .long(dashed(s.name))
                .value_name(value)
                .help(s.help)
                .help_heading(heading)
                .action(if s.name == "trust" { ArgAction::Append } else { ArgAction::Set })
                .hide_short_help(![Scope::Place, Scope::Service].contains(&s.scope))
        }))
    }

    fn augment_args_for_update(command: ClapCommand) -> ClapCommand {
        Self::augment_args(command)
    }
}

impl<const WHO: u8> FromArgMatches for SettingFlags<WHO> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.config = matches.get_one::<PathBuf>("config").cloned();
        for s in SETTINGS.iter().filter(|s| Self::concerning(s.scope)) {
            if let Some(values) = matches.get_many::<String>(s.name) {
                let values: Vec<&str> = values.map(String::as_str).collect();
                self.given.push((s.name.to_owned(), values.join(",")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent_and_every_command_has_an_example() {
        Cli::command().debug_assert();
        fn check(command: &ClapCommand) {
            for sub in command.get_subcommands() {
                if sub.get_name() == "help" {
                    continue;
                }
                assert!(sub.get_about().is_some(), "{}", sub.get_name());
                let example =
                    sub.get_after_help().is_some_and(|h| h.to_string().contains("Example: granary"));
                assert!(
                    example || ["version", "run", "stop"].contains(&sub.get_name()),
                    "{}",
                    sub.get_name()
                );
                check(sub);
            }
        }
        check(&Cli::command());
    }

    #[test]
    fn every_setting_is_a_flag_of_the_process_that_it_concerns() {
        let of = |who: Who| SETTINGS.iter().filter(move |s| s.scope.concerns(who));
        let line = |words: &[&str], who: Who| {
            let flags = of(who).flat_map(|s| [format!("--{}", dashed(s.name)), "1".to_owned()]);
            Cli::try_parse_from(words.iter().map(|&w| w.to_owned()).chain(flags)).unwrap().command
        };
        let Command::Node(node) = line(&["granary", "node"], Who::Node) else {
            panic!("not the node command")
        };
        assert_eq!(node.flags.given.len(), of(Who::Node).count());
        let Command::Meta(meta) = line(&["granary", "meta", "serve"], Who::Service) else {
            panic!("not meta")
        };
        let MetaCommand::Serve { flags, .. } = meta.command else { panic!("not serve") };
        assert_eq!(flags.given.len(), of(Who::Service).count());
        assert!(SETTINGS.iter().all(|s| s.scope.concerns(Who::Node) || s.scope.concerns(Who::Service)));
    }

    #[test]
    fn flags_after_a_subcommand_win() {
        let line = ["granary", "node", "--meta", "/a", "run", "--meta", "/b"];
        let Command::Node(node) = Cli::try_parse_from(line).unwrap().command else {
            panic!("not the node command")
        };
        let Some(NodeCommand::Run { flags }) = node.command else { panic!("not run") };
        let settings = Sources { env: Vec::new(), ..node.flags.and(flags).sources() }.resolve().unwrap();
        assert_eq!(settings.meta.folder().unwrap(), PathBuf::from("/b"));
    }

    #[test]
    fn unknown_flags_are_refused() {
        let e = Cli::try_parse_from(["granary", "node", "--dirty-byte-max", "1"]).unwrap_err();
        assert!(e.to_string().contains("--dirty-bytes-max"), "{e}");
        assert!(Cli::try_parse_from(["granary", "status", "--dirty-bytes-max", "1"]).is_err());
    }
}
