//! Ten processes read one data set on one node at once, each in an order of its own: what the store is asked for.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::cold::{EPOCH, place_of};
use super::{Round, row};
use crate::process::drop_caches;
use crate::proxy::{Delays, Proxy};
use crate::report::Aim;
use crate::stop;
use crate::system::{JUICEFS, System};
use crate::work::{Limits, Outcome, once};

const READERS: u64 = 10;
/// What is asked for more than once, or beside the files' bytes.
const TIMES_MAX: f64 = 1.1;
/// A reader that is at it for longer has stopped at part of the data set, which is an error.
const READ_S_MAX: f64 = 300.0;

/// Read a part of the data set, when standard input ends; the benchmark starts these
#[derive(Debug, Args)]
pub struct ReaderArgs {
    #[arg(long)]
    root: PathBuf,
    #[arg(long)]
    files: usize,
    /// The seed of the order.
    #[arg(long)]
    order: u64,
}

/// One reader.
pub fn read(args: &ReaderArgs) -> Result<()> {
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    let limits = Limits { seconds_min: 0.0, seconds_max: READ_S_MAX };
    let pass = once::shuffled_pass(&args.root, EPOCH, args.files, 1, args.order, limits, None)?;
    ensure!(pass.files == args.files as u64, "only {} of {} files were read", pass.files, args.files);
    Ok(())
}

/// Readers that were not waited for are ended.
struct Readers(Vec<Child>);

impl Drop for Readers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Round<'_> {
    pub(super) fn sharing(&mut self) -> Result<()> {
        let (files, seed) = (self.plan.scale.shared_files, self.plan.seed);
        let bytes = (files * EPOCH.size) as f64;
        let of = format!("{READERS} processes read {files} files of 100 KiB at once, cold");
        let traffic =
            row(format!("{of}: bytes from the store"), "times the files'", Aim::ValueMax(TIMES_MAX));
        let requests = row(format!("{of}: GETs"), "requests", Aim::None);
        let rate = row(format!("{of}: rate of all"), "MB/s", Aim::None);
        let bucket = self.plan.target.bucket().context("a proxy needs an S3 store before it")?;
        let made = self.made.clone();
        let mut found = Vec::new();
        for system in self.systems.of(super::Who::Stored, self.number) {
            stop::check()?;
            let name = system.name();
            // Of peers, the one that shares a cache among its mount's readers at a rate that ends.
            if !system.is_posix() || made.get(&(name, EPOCH.name)).is_none_or(|&made| made < files) {
                continue;
            }
            let proxy =
                Proxy::start(([127, 0, 0, 1], 0).into(), bucket.endpoint()?, Delays::default(), seed)?;
            let outcome = read_by_all(system, &proxy, files).with_context(|| format!("sharing: {name}"))?;
            let gets = proxy.by_method().get("GET").copied().unwrap_or_default();
            ensure!(gets.requests > 0, "sharing: {name} went past the proxy to the store");
            found.push((name, gets, outcome));
            system.forget(None)?;
        }
        if self.systems.peers.iter().any(|p| p.name() == JUICEFS) && !found.iter().any(|f| f.0 == JUICEFS) {
            self.report.note(format!("sharing: juicefs made fewer than {files} files, and is left out."));
        }
        for (name, gets, outcome) in found {
            self.report.add(&traffic, name, gets.received_bytes as f64 / bytes);
            self.report.add(&requests, name, gets.requests as f64);
            self.report.add(&rate, name, outcome.mb_rate());
        }
        Ok(())
    }
}

fn read_by_all(system: &mut dyn System, proxy: &Proxy, files: usize) -> Result<Outcome> {
    system.forget(Some(&proxy.url()))?;
    drop_caches()?;
    let mut readers = Readers(Vec::new());
    for order in 0..READERS {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("read-epoch").arg("--root").arg(place_of(system));
        command.args(["--files", &files.to_string(), "--order", &order.to_string()]);
        command.stdin(Stdio::piped());
        readers.0.push(command.spawn().context("cannot start a reader")?);
    }
    let watch = crate::clock::Stopwatch::start();
    for child in &mut readers.0 {
        let mut input = child.stdin.take().context("a reader has no standard input")?;
        input.flush()?; // and it ends: go
    }
    for child in &mut readers.0 {
        let status = child.wait()?;
        ensure!(status.success(), "a reader ended with {status}");
    }
    Ok(Outcome { done: READERS * (files * EPOCH.size) as u64, seconds: watch.seconds() })
}
