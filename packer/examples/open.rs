//! How fast a large index opens, and what of it stays in memory.
//!
//! ```text
//! cargo run --release -p granary-packer --example open -- [FILES]      ten million unless said
//! ```
//!
//! Builds an index of so many files in a temporary folder, drops it from the page cache, then measures in this process: opening it, one
//! file by number, one by path, a thousand random samples, and the resident memory that each adds. Prints one line of JSON.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::fd::AsFd;

use granary_core::{Clock, SystemClock};
use granary_packer::index::{Builder, Index, NewFile};
use granary_packer::key::Grouping;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files: u32 = std::env::args().nth(1).map_or(Ok(10_000_000), |n| n.parse())?;
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("large.gidx");
    let (building, ()) = ms(|| build(dir.path(), &path, files))?;
    let file = File::open(&path)?;
    file.sync_all()?;
    rustix::fs::fadvise(file.as_fd(), 0, None, rustix::fs::Advice::DontNeed)?;

    let before = resident_kib()?;
    let (open, index) = ms(|| Ok(Index::open(&path)?))?;
    let resident = resident_kib()?.saturating_sub(before);
    let (again, _) = ms(|| Ok(Index::open(&path)?))?;
    let (by_number, _) = ms(|| Ok(index.file(files / 2)?))?;
    let wanted = index.file(files / 3)?.path.to_vec();
    let (by_path, _) = ms(|| Ok(index.find(&wanted)?))?;
    let samples = index.sample_count();
    let (thousand, ()) = ms(|| {
        for n in 0..1000u64 {
            // Spread over all of it, the same each time.
            index.sample_span((n * 2_654_435_761 % u64::from(samples)) as u32)?;
        }
        Ok(())
    })?;
    let resident_after = resident_kib()?.saturating_sub(before);
    println!(
        "{{\"files\":{files},\"index_bytes\":{},\"build_ms\":{building:.0},\"open_ms\":{open:.2},\"open_again_ms\":{again:.2},\
         \"open_resident_kib\":{resident},\"file_ms\":{by_number:.3},\"find_ms\":{by_path:.3},\
         \"thousand_samples_ms\":{thousand:.2},\"resident_after_kib\":{resident_after}}}",
        index.bytes()
    );
    Ok(())
}

fn build(
    work_dir: &std::path::Path,
    to: &std::path::Path,
    files: u32,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut builder = Builder::new(Grouping::Stem, work_dir);
    for n in 0..files {
        let extension = if n % 2 == 0 { "cls" } else { "jpg" };
        // As a shuffled shard has them: not in the order of their names.
        let sample = u64::from(n / 2) * 7_919 % u64::from(files.div_ceil(2));
        builder.push(&NewFile {
            path: format!("train/{sample:08}.{extension}").as_bytes(),
            offset: u64::from(n) * 1024 + 512,
            length: 300,
            crc32c: n,
            mode: 0o644,
            mtime: 0,
            uid: 0,
            gid: 0,
        })?;
    }
    let mut out = BufWriter::with_capacity(1 << 20, File::create(to)?);
    builder.seal(u64::from(files) * 1024 + 1024)?.write_to(&mut out)?;
    Ok(out.flush()?)
}

fn ms<T>(
    work: impl FnOnce() -> Result<T, Box<dyn std::error::Error>>,
) -> Result<(f64, T), Box<dyn std::error::Error>> {
    let begun = SystemClock.monotonic();
    let value = work()?;
    Ok(((SystemClock.monotonic() - begun).as_secs_f64() * 1000.0, value))
}

/// Of this process, mapped pages too.
fn resident_kib() -> Result<u64, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}
