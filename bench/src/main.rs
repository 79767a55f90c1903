//! The same work on Granary, on a fresh ext4 and, when asked, on JuiceFS, side by side.
//!
//! What is compared is a ratio within one round, since machines are noisy: every piece of work runs on every system one after
//! another, in an order that changes from round to round, on fresh file systems made for the round. Every byte read is verified.
//! Nothing here fails because something was slow: figures stand beside their aims, and a person judges.
//!
//! `bench/run` sets up what this needs and cleans up after it.

mod ceph;
mod clock;
mod content;
mod disk;
mod nodes;
mod plan;
mod process;
mod report;
mod stats;
mod stop;
mod system;
mod target;
mod tree;
mod work;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};

use crate::plan::{Group, Plan, Scale};
use crate::system::Programs;
use crate::target::StoreKind;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Peer {
    Juicefs,
}

/// Measure Granary beside a fresh ext4 and, when asked, beside other file systems over the same store. Needs root.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Where objects go: a folder, a Ceph RGW started for the run, or s3://bucket/prefix with the AWS_* variables set
    #[arg(long, default_value = "file", value_parser = StoreKind::parse)]
    store: StoreKind,
    /// Other file systems to measure
    #[arg(long, value_enum, value_delimiter = ',')]
    peers: Vec<Peer>,
    /// How often everything is done
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Parts to run (default: all)
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Group>,
    /// Measure one namespace on so many nodes through a metadata service, instead of all else
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=16), conflicts_with = "only")]
    nodes: Option<u32>,
    /// A tenth of the work: says whether it runs, not how fast it is
    #[arg(long)]
    quick: bool,
    /// Seed of contents and of the order of reads
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A directory on a disk with 30 GB free, where images, stores and trees live during the run
    #[arg(long, env = "GRANARY_BENCH_DIR", default_value = "/var/tmp")]
    dir: PathBuf,
    /// The binary to measure (default: beside this one)
    #[arg(long, env = "GRANARY_BIN")]
    granary: Option<PathBuf>,
    /// The JuiceFS binary
    #[arg(long, env = "JUICEFS_BIN", default_value = "juicefs")]
    juicefs: PathBuf,
    /// The tool that starts a Ceph RGW
    #[arg(long, env = "CEPH_RGW_TOOL", default_value = "tools/ceph-rgw")]
    ceph_rgw: PathBuf,
    /// A real tree of small files (default: a generated one)
    #[arg(long, env = "GRANARY_BENCH_TREE")]
    tree: Option<PathBuf>,
    /// Write the table, Markdown, here too
    #[arg(long)]
    output: Option<PathBuf>,
    /// Write every sample, JSON, here
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("granary-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "granary-bench mounts file systems and drops the page cache, which needs root: run it with sudo"
    );
    ensure!(args.rounds > 0, "--rounds must be at least 1");
    stop::catch_signals()?;

    let granary = match args.granary {
        Some(path) => path,
        None => std::env::current_exe()?.with_file_name("granary"),
    };
    ensure!(
        granary.is_file(),
        "{} is not there: build it with 'make build', or name it with --granary",
        granary.display()
    );
    let programs = Programs {
        granary: granary.canonicalize()?,
        juicefs: args.peers.contains(&Peer::Juicefs).then(|| args.juicefs.clone()),
    };
    let dir = tempfile::Builder::new()
        .prefix("granary-bench.")
        .tempdir_in(&args.dir)
        .with_context(|| format!("cannot make a directory in {}", args.dir.display()))?;
    let target = target::Target::open(&args.store, dir.path(), &args.ceph_rgw)?;
    let scale = if args.quick { Scale::quick() } else { Scale::full() };
    let (rounds, seed) = (args.rounds, args.seed);
    let head = |subject| report::Report::new(target.describe.clone(), subject, rounds, scale.quick, seed);
    let report = if let Some(nodes) = args.nodes {
        let nodes = nodes as usize;
        let plan = nodes::NodesPlan { programs, target: &target, dir: dir.path(), scale, seed, nodes };
        let mut report = head(plan.subject());
        (0..rounds).try_for_each(|round| plan.round(round, &mut report))?;
        report
    } else {
        let tree = tree::Tree::prepare(args.tree.as_deref(), dir.path(), seed, scale.tree_files)?;
        let groups = if args.only.is_empty() { Group::usual(target.is_s3()) } else { args.only };
        let (target, tree, dir) = (&target, &tree, dir.path());
        let plan = Plan { programs, target, tree, dir, scale, seed, groups };
        let mut report = head(plan.subject());
        (0..rounds).try_for_each(|round| plan.round(round, &mut report))?;
        report
    };
    let markdown = report.markdown();
    println!("\n{markdown}");
    if let Some(path) = &args.output {
        std::fs::write(path, &markdown).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
