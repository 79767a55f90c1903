//! The same work on Granary, on a fresh ext4 and, when asked, on JuiceFS, s3fs and rclone, side by side.
//!
//! What is compared is a ratio within one round, since machines are noisy: every piece of work runs on every system one after
//! another, in an order that changes from round to round, on fresh file systems made for the round. Every byte read is verified.
//! Nothing here fails because something was slow: figures stand beside their aims, and a person judges.
//!
//! `bench/run` sets up what this needs and cleans up after it.

mod args;
mod ceph;
mod disk;
mod nodes;
mod plan;
mod process;
mod proxy;
mod report;
mod system;
mod target;
mod tree;
mod work;

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use granary_bench_work::{clock, content, stats, stop};

use crate::args::{Cli, Command, RunArgs};
use crate::clock::Stopwatch;
use crate::plan::{Group, Plan};
use crate::report::{Head, Report};
use crate::system::{Peer, Programs};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        Some(Command::Proxy(args)) => proxy::run(args),
        Some(Command::ReadEpoch(args)) => plan::read_epoch(args),
        None => run(cli.run),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("granary-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: RunArgs) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "granary-bench mounts file systems and drops the page cache, which needs root: run it with sudo"
    );
    stop::catch_signals()?;
    let granary = args.granary_binary()?;
    let dir = tempfile::Builder::new()
        .prefix("granary-bench.")
        .tempdir_in(&args.dir)
        .with_context(|| format!("cannot make a directory in {}", args.dir.display()))?;
    let target = target::Target::open(&args.store, dir.path(), &args.ceph_rgw)?;
    let over_s3 = target.bucket().is_some();
    let groups = if args.only.is_empty() { Group::usual(over_s3) } else { args.only.clone() };
    if let Some(group) = groups.iter().find(|group| group.needs_s3() && !over_s3) {
        anyhow::bail!("{group:?} goes through a proxy before an S3 store: run it with --store ceph");
    }
    let binary = |peer| match peer {
        Peer::Juicefs => args.juicefs.clone(),
        Peer::S3fs => args.s3fs.clone(),
        Peer::Rclone => args.rclone.clone(),
    };
    let (programs, notes) = Programs::choose(granary, &args.peers, binary, over_s3);
    notes.iter().for_each(|note| eprintln!("{note}"));
    let (rounds, seed, scale) = (args.rounds, args.seed, args.scale());
    let head = |subject| Head {
        store: target.describe.clone(),
        subject,
        rounds,
        quick: scale.quick,
        seed,
        versions: programs.versions(),
    };
    let report = if let Some(nodes) = args.nodes {
        let nodes = nodes as usize;
        let programs = programs.clone();
        let plan = nodes::NodesPlan { programs, target: &target, dir: dir.path(), scale, seed, nodes };
        let mut report = Report::new(head(plan.subject()), notes);
        rounds_of(&args, &mut report, |round, report| plan.round(round, report))?;
        report
    } else {
        let tree = tree::Tree::prepare(args.tree.as_deref(), dir.path(), seed, scale.tree_files)?;
        let programs = programs.clone();
        let (target, tree, dir) = (&target, &tree, dir.path());
        let plan = Plan { programs, target, tree, dir, scale, seed, groups };
        let mut report = Report::new(head(plan.subject()), notes);
        rounds_of(&args, &mut report, |round, report| plan.round(round, report))?;
        report
    };
    println!("\n{}", report.markdown());
    if let Some(dir) = &args.output {
        report.write(dir)?;
    }
    Ok(())
}

/// Disk that a round takes over a store on the same disk, with all peers: each has a file system of its own, and what is removed
/// from the store goes only later.
const ROUND_DISK_BYTES: u64 = 30_000_000_000;

/// Whether the disk has room for a round. A full one would be told as an error of whichever program meets it first.
fn room(args: &RunArgs) -> Result<(bool, String)> {
    let disk = rustix::fs::statvfs(&args.dir)
        .with_context(|| format!("cannot tell the free space of {}", args.dir.display()))?;
    let free = disk.f_bavail * disk.f_frsize;
    let gb = |bytes: u64| bytes / 1_000_000_000;
    let words = format!(
        "{} has {} GB free, and a round may take {}: free some, or name another disk in GRANARY_BENCH_DIR",
        args.dir.display(),
        gb(free),
        gb(ROUND_DISK_BYTES)
    );
    Ok((free >= ROUND_DISK_BYTES || args.quick, words))
}

/// Rounds until all are done, or one more would take longer than there is time or more disk than there is. What was done is
/// written after each.
fn rounds_of(
    args: &RunArgs,
    report: &mut Report,
    mut work: impl FnMut(u32, &mut Report) -> Result<()>,
) -> Result<()> {
    let (whole, seconds_max) = (Stopwatch::start(), f64::from(args.minutes_max) * 60.0);
    let (enough, words) = room(args)?;
    anyhow::ensure!(enough, words);
    for round in 0..args.rounds {
        let watch = Stopwatch::start();
        work(round, report)?;
        report.round_done();
        if let Some(dir) = &args.output {
            report.write(dir)?;
        }
        let took = watch.seconds();
        if round + 1 < args.rounds && whole.seconds() + took > seconds_max {
            report.note(format!(
                "{} of {} rounds: one took {:.0} minutes, and --minutes-max is {}.",
                round + 1,
                args.rounds,
                took / 60.0,
                args.minutes_max
            ));
            break;
        }
        let (enough, words) = room(args)?;
        if round + 1 < args.rounds && !enough {
            report.note(format!("{} of {} rounds: {words}.", round + 1, args.rounds));
            break;
        }
    }
    Ok(())
}
