//! What a large data set's tree costs: `cargo run --release -p granary-packed --example tree -- FILES SHARDS`.
//!
//! Indexes are made without tars, in a temporary directory (`TMPDIR`): about 60 bytes a file. Printed: how long the order takes to
//! make and to open, look-ups and listings a second, and what memory that left.

use std::path::Path;
use std::time::Duration;

use granary_core::{Clock, Error, Ino, Kind, Result, SystemClock, Timestamp};
use granary_packed::Owner;
use granary_packed::order::{self, Identity, Order};
use granary_packed::tree::Tree;
use granary_packer::index::{Builder, Index, NewFile};
use granary_packer::key::Grouping;
use granary_packer::manifest::Runs;

/// Files of one directory.
const FILES_OF_DIRECTORY: u64 = 1000;
const LOOKUPS: u64 = 20_000;

fn path(n: u64) -> String {
    format!("train/n{:08}/image_{:09}.jpg", n / FILES_OF_DIRECTORY, n)
}

/// Multiplies by an odd number: visits all of `files` in an order that no cache likes, if that is no multiple of it.
fn scattered(n: u64, files: u64) -> u64 {
    n.wrapping_mul(7_368_787) % files
}

fn index(dir: &Path, shard: u64, shards: u64, files: u64) -> Result<Index> {
    let mut builder = Builder::new(Grouping::Stem, dir);
    let mut at = 512;
    for n in (shard..files).step_by(shards as usize) {
        let path = path(n);
        let (offset, length) = (at, 100);
        let (crc32c, mode, mtime, uid, gid) = (n as u32, 0o644, 0, 0, 0);
        builder.push(&NewFile { path: path.as_bytes(), offset, length, crc32c, mode, mtime, uid, gid })?;
        at += 1024;
    }
    let sealed = builder.seal(at + 1024)?;
    let path = dir.join(format!("{shard}.gidx"));
    let mut out = std::io::BufWriter::new(std::fs::File::create(&path).map_err(failed)?);
    sealed.write_to(&mut out)?;
    drop(out);
    Index::open(&path)
}

fn failed(e: std::io::Error) -> Error {
    Error::io("cannot measure", e)
}

/// Resident bytes that belong to the process alone, and all of them.
fn resident() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    (kib("RssAnon:").unwrap_or(0) << 10, kib("VmRSS:").unwrap_or(0) << 10)
}

fn rate(n: u64, took: Duration) -> f64 {
    n as f64 / took.as_secs_f64().max(1e-9)
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1).filter_map(|arg| arg.parse::<u64>().ok());
    let (files, shards) = (args.next().unwrap_or(1_000_000), args.next().unwrap_or(100));
    if files == 0 || shards == 0 {
        return Err(Error::new(Kind::Invalid, "give a number of files and one of shards"));
    }
    let clock = SystemClock;
    let dir = tempfile::tempdir().map_err(failed)?;
    let indexes =
        (0..shards).map(|shard| index(dir.path(), shard, shards, files)).collect::<Result<Vec<_>>>()?;
    let of = Identity { data_set: [0; 16], version: 1, digest: 0 };
    let (order_path, dead_files) = (dir.path().join("order"), Runs::default());
    let began = clock.monotonic();
    order::make(
        &order_path,
        of,
        indexes.iter().map(|index| order::Shard { index, dead_files: &dead_files }),
        &granary_packed::Opening::default(),
    )?;
    let took = clock.monotonic() - began;
    println!(
        "order of {files} files in {shards} shards made in {took:.1?} ({:.0} a second)",
        rate(files, took)
    );

    let began = clock.monotonic();
    let order = Order::open(&order_path, &of)?;
    let owner = Owner { uid: 0, gid: 0, mode: 0o755, time: Timestamp { secs: 0, nanos: 0 } };
    let tree = Tree::new(order, indexes, owner)?;
    println!("opened in {:.1?}", clock.monotonic() - began);

    let train = tree.lookup(Ino::ROOT, b"train")?.ino;
    let began = clock.monotonic();
    for n in 0..LOOKUPS {
        let path = path(scattered(n, files));
        let (dir, name) = path["train/".len()..].split_at(9);
        let dir = tree.lookup(train, dir.as_bytes())?.ino;
        tree.lookup(dir, &name.as_bytes()[1..])?;
    }
    println!("{:.0} look-ups of two names a second", rate(LOOKUPS, clock.monotonic() - began));

    let (began, mut listed, mut cookie) = (clock.monotonic(), 0, 0);
    while let Some(last) = tree.readdir(train, cookie, 1, true)?.last() {
        let (mut of_dir, dir) = (0, last.ino);
        cookie = last.cookie;
        loop {
            let page = tree.readdir(dir, of_dir, 64, true)?;
            let Some(last) = page.last() else { break };
            (of_dir, listed) = (last.cookie, listed + page.len() as u64);
        }
    }
    println!("{:.0} entries a second listed with attributes", rate(listed, clock.monotonic() - began));
    let (own, all) = resident();
    println!("{} MiB of memory of its own, {} MiB with pages of files", own >> 20, all >> 20);
    Ok(())
}
