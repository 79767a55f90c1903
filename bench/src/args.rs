//! The command line.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::{Args, Parser, Subcommand};

use crate::plan::{Group, ReaderArgs, Scale};
use crate::proxy::ProxyArgs;
use crate::system::Peer;
use crate::target::StoreKind;

/// Measure Granary beside a fresh ext4 and, when asked, beside other file systems over the same store. Needs root.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub run: RunArgs,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Proxy(ProxyArgs),
    #[command(hide = true)]
    ReadEpoch(ReaderArgs),
}

#[derive(Debug, Args)]
pub struct RunArgs {
    /// Where objects go: a folder, a Ceph RGW started for the run, or s3://bucket/prefix with the AWS_* variables set
    #[arg(long, default_value = "file", value_parser = StoreKind::parse)]
    pub store: StoreKind,
    /// Other file systems to measure
    #[arg(long, value_enum, value_delimiter = ',')]
    pub peers: Vec<Peer>,
    /// How often everything is done
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// No round begins that would probably end later than this
    #[arg(long, value_name = "MINUTES", default_value_t = 40)]
    pub minutes_max: u32,
    /// Parts to run (default: all that say nothing else)
    #[arg(long, value_enum, value_delimiter = ',')]
    pub only: Vec<Group>,
    /// Measure one namespace on so many nodes through a metadata service, instead of all else
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=16), conflicts_with = "only")]
    pub nodes: Option<u32>,
    /// A tenth of the work: says whether it runs, not how fast it is
    #[arg(long)]
    pub quick: bool,
    /// Files that the part `memory` walks
    #[arg(long, value_name = "COUNT")]
    pub memory_files: Option<usize>,
    /// GiB that it reads
    #[arg(long, value_name = "GIB")]
    pub memory_gib: Option<u64>,
    /// Seed of contents, of the order of reads, and of the proxy's stalls
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// A directory on a disk with 30 GB free, where images, stores and trees live during the run
    #[arg(long, env = "GRANARY_BENCH_DIR", default_value = "/var/tmp")]
    pub dir: PathBuf,
    /// The binary to measure (default: beside this one)
    #[arg(long, env = "GRANARY_BIN")]
    granary: Option<PathBuf>,
    /// The JuiceFS binary
    #[arg(long, env = "JUICEFS_BIN", default_value = "juicefs")]
    pub juicefs: PathBuf,
    /// The s3fs binary
    #[arg(long, env = "S3FS_BIN", default_value = "s3fs")]
    pub s3fs: PathBuf,
    /// The rclone binary
    #[arg(long, env = "RCLONE_BIN", default_value = "rclone")]
    pub rclone: PathBuf,
    /// The tool that starts a Ceph RGW
    #[arg(long, env = "CEPH_RGW_TOOL", default_value = "tools/ceph-rgw")]
    pub ceph_rgw: PathBuf,
    /// A real tree of small files (default: a generated one)
    #[arg(long, env = "GRANARY_BENCH_TREE")]
    pub tree: Option<PathBuf>,
    /// Write report.md, samples.json and the plots into this folder
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

impl RunArgs {
    pub fn granary_binary(&self) -> Result<PathBuf> {
        let granary = match &self.granary {
            Some(path) => path.clone(),
            None => std::env::current_exe()?.with_file_name("granary"),
        };
        ensure!(
            granary.is_file(),
            "{} is not there: build it with 'make build', or name it with --granary",
            granary.display()
        );
        Ok(granary.canonicalize()?)
    }

    pub fn scale(&self) -> Scale {
        let mut scale = if self.quick { Scale::quick() } else { Scale::full() };
        scale.memory_files = self.memory_files.unwrap_or(scale.memory_files);
        scale.memory_bytes = self.memory_gib.map_or(scale.memory_bytes, |gib| gib << 30);
        scale
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        let cli = Cli::parse_from([
            "granary-bench",
            "--store",
            "ceph",
            "--peers",
            "juicefs,s3fs,rclone",
            "--only",
            "read,cold",
        ]);
        assert_eq!(cli.run.peers, [Peer::Juicefs, Peer::S3fs, Peer::Rclone]);
        assert_eq!(cli.run.only, [Group::Read, Group::Cold]);
        assert!(cli.command.is_none());
        let cli = Cli::parse_from(["granary-bench", "--memory-files", "10000000", "--memory-gib", "100"]);
        assert_eq!((cli.run.scale().memory_files, cli.run.scale().memory_bytes), (10_000_000, 100 << 30));
        let proxy = ["granary-bench", "proxy", "--to", "http://127.0.0.1:1", "--stall-percent", "2"];
        assert!(matches!(Cli::parse_from(proxy).command, Some(Command::Proxy(_))));
    }
}
