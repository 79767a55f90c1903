//! Their command lines.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Index tars that are there, without rewriting them, so that each file in them can be read alone
///
/// Puts NAME.gidx beside each NAME.tar, and a version into manifests/. Tars may be v7, ustar, GNU or pax; shards of webdataset
/// are. What is damaged, compressed, sparse or twice there is told with tar and offset. Run again, it takes what is new.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: granary index /data/imagenet\n         granary index s3://training/laion\n         granary index train-0.tar train-1.tar\n         granary index /data/imagenet --delete train/n01440764"
)]
pub struct IndexArgs {
    /// A folder, s3://bucket/prefix, or tars
    #[arg(required = true, value_name = "DIR|S3|TAR")]
    pub what: Vec<String>,
    /// What makes files a sample: their name up to the first dot (webdataset), or their directory
    #[arg(long, value_name = "WHAT", default_value = "stem")]
    pub by: GroupingArg,
    /// Leave out what is damaged or twice there, and tell it
    #[arg(long)]
    pub skip_errors: bool,
    /// Read also tars whose index is there and newer
    #[arg(long)]
    pub anew: bool,
    /// Index nothing: make a version without these files, samples (by their keys) and folders. No shard is written
    #[arg(long, value_name = "PATH", num_args = 1.., conflicts_with_all = ["skip_errors", "anew", "by"])]
    pub delete: Vec<String>,
    /// Put Megatron Energon's index beside each tar too: NAME.tar.idx
    #[arg(long, conflicts_with = "delete")]
    pub energon: bool,
    /// Put NVIDIA DALI's index beside each tar too: NAME.idx
    #[arg(long, conflicts_with = "delete")]
    pub dali: bool,
    /// Tars at once [default: as many as there are processors]
    #[arg(long, value_name = "COUNT", value_parser = count())]
    pub threads: Option<u16>,
    /// For programs
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GroupingArg {
    Stem,
    Directory,
}

/// Read every byte of a data set, and compare it with its checksum, its index and its versions
///
/// Exit codes: 0 all of it is whole, 1 something is not, or it could not be looked at, 2 and 3 as everywhere.
#[derive(Debug, Args)]
#[command(after_help = "Example: granary verify s3://training/imagenet --threads 16")]
pub struct VerifyArgs {
    /// A folder or s3://bucket/prefix
    #[arg(value_name = "DATASET")]
    pub data_set: String,
    /// Of this version [default: the latest]
    #[arg(long, value_name = "NUMBER")]
    pub version: Option<u64>,
    /// Shards at once [default: as many as there are processors]
    #[arg(long, value_name = "COUNT", value_parser = count())]
    pub threads: Option<u16>,
    /// For programs
    #[arg(long)]
    pub json: bool,
}

/// List the files of a data set, or its versions
#[derive(Debug, Args)]
#[command(
    after_help = "Example: granary ls -l /data/imagenet\n         granary ls --versions /data/imagenet"
)]
pub struct LsArgs {
    /// A folder, s3://bucket/prefix, or a tar
    #[arg(value_name = "DATASET|TAR")]
    pub data_set: String,
    /// Only paths that begin with this
    #[arg(value_name = "PREFIX")]
    pub prefix: Option<String>,
    /// Mode, owner, bytes and time too
    #[arg(short, long)]
    pub long: bool,
    /// The versions, and what made them
    #[arg(long, conflicts_with_all = ["long", "version", "prefix"])]
    pub versions: bool,
    /// Of this version [default: the latest]
    #[arg(long, value_name = "NUMBER")]
    pub version: Option<u64>,
    /// For programs: one line of JSON for each
    #[arg(long)]
    pub json: bool,
}

/// Write files of a data set, or of a tar, to standard output
#[derive(Debug, Args)]
#[command(after_help = "Example: granary cat /data/imagenet train/n01440764/10026.cls")]
pub struct CatArgs {
    /// A folder, s3://bucket/prefix, or a tar
    #[arg(value_name = "DATASET|TAR")]
    pub data_set: String,
    /// Paths in it
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<String>,
    /// Of this version [default: the latest]
    #[arg(long, value_name = "NUMBER")]
    pub version: Option<u64>,
}

/// Make files of a data set again, with their modes and times
///
/// Files appear when they are whole. Run again, it goes on: files that are there with the same length and time are kept, others of
/// the same name replaced. Nothing is written outside of DIR, whatever the shards say.
#[derive(Debug, Args)]
#[command(after_help = "Example: granary unpack s3://training/imagenet /nvme/imagenet --threads 16")]
pub struct UnpackArgs {
    /// A folder or s3://bucket/prefix
    #[arg(value_name = "DATASET")]
    pub data_set: String,
    /// Made when it is missing
    pub dir: PathBuf,
    /// Of this version [default: the latest]
    #[arg(long, value_name = "NUMBER")]
    pub version: Option<u64>,
    /// Each shard into a folder of its own: for shards with the same paths
    #[arg(long)]
    pub by_shard: bool,
    /// Set user, group and set-user-id bits too; wants root
    #[arg(long)]
    pub owners: bool,
    /// Leave out what is damaged, and tell it
    #[arg(long)]
    pub skip_errors: bool,
    /// Threads that write [default: as many as there are processors]
    #[arg(long, value_name = "COUNT", value_parser = count())]
    pub threads: Option<u16>,
    /// For programs
    #[arg(long)]
    pub json: bool,
}

fn count() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(1..=1024)
}
