//! How fast large indexes open, and what of them stays in memory.
//!
//! ```text
//! cargo run --release -p granary-packer --example open -- [FILES [SHARDS [FOLDER]]]      ten million in one shard unless said
//! ```
//!
//! Makes a data set of so many files in FOLDER, unless it is there (else in a temporary folder): indexes of 60 bytes a file beside tars that are one
//! hole. Drops the indexes from the page cache, then measures in this process: opening the data set and all its indexes; a thousand files by
//! number and a thousand by path, spread over all; the same when every block was checked before. Prints one line of JSON: milliseconds, and
//! KiB that became resident, mapped pages too; `most` is the most that was seen after any one of another thousand look-ups.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::fd::AsFd;
use std::path::Path;

use granary_core::{Clock, SystemClock};
use granary_packer::dataset::DataSet;
use granary_packer::index::{Builder, Index, NewFile};
use granary_packer::key::Grouping;
use granary_packer::manifest::{self, Manifest, Runs, Shard};
use granary_packer::place::{self, Place};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const LOOK_UPS: u64 = 1000;
/// Each file's bytes: zeros, as a hole has them.
const FILE: [u8; 300] = [0; 300];

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let files: u64 = args.next().map_or(Ok(10_000_000), |n| n.parse())?;
    let shards: u32 = args.next().map_or(Ok(1), |n| n.parse())?;
    let temporary = tempfile::tempdir()?;
    let folder = args.next().map_or(temporary.path().to_owned(), Into::into);
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let clock: std::sync::Arc<dyn Clock> = std::sync::Arc::new(SystemClock);
    std::fs::create_dir_all(folder.join("shards"))?;
    let text = folder.to_str().ok_or("a folder's name must be UTF-8")?;
    let place = Place::open(text, &place::Options::default(), clock)?;
    if !folder.join("manifests").is_dir() {
        runtime.block_on(make(&place, &folder, files, shards))?;
    }
    for shard in 0..shards {
        let file = File::open(folder.join(index_name(shard)))?;
        file.sync_all()?;
        rustix::fs::fadvise(file.as_fd(), 0, None, rustix::fs::Advice::DontNeed)?;
    }

    let before = resident_kib()?;
    let grown = || -> Result<u64> { Ok(resident_kib()?.saturating_sub(before)) };
    let (set_ms, set) = ms(|| Ok(runtime.block_on(DataSet::open(place, None))?))?;
    let indexes = || -> Result<Vec<Index>> {
        (0..shards).map(|shard| Ok(runtime.block_on(set.index(shard))?)).collect()
    };
    let (open_ms, indexes) = ms(indexes)?;
    let opened = grown()?;
    let each = files / u64::from(shards);
    let by_number = |n: u64| -> Result<()> {
        let n = scattered(n, each * u64::from(shards));
        indexes[(n / each) as usize].file((n % each) as u32)?;
        Ok(())
    };
    let by_path = |n: u64| -> Result<()> {
        let found = runtime.block_on(set.find(path(scattered(n, files)).as_bytes()))?;
        found.map(|_| ()).ok_or_else(|| "a path is not found".into())
    };
    let many = |look: &dyn Fn(u64) -> Result<()>, first: u64| -> Result<(f64, u64)> {
        let (time, ()) = ms(|| (first..first + LOOK_UPS).try_for_each(look))?;
        let mut most = 0;
        for n in first + LOOK_UPS..first + 2 * LOOK_UPS {
            look(n)?;
            most = most.max(grown()?);
        }
        Ok((time, most))
    };
    let (number_ms, number_most) = many(&by_number, 0)?;
    let (path_ms, path_most) = many(&by_path, 2 * LOOK_UPS)?;
    let (verify_ms, ()) = ms(|| Ok(indexes.iter().try_for_each(Index::verify)?))?;
    let verified = grown()?;
    let (again_ms, again_most) = many(&by_number, 4 * LOOK_UPS)?;
    let (path_again_ms, path_again_most) = many(&by_path, 6 * LOOK_UPS)?;
    let bytes: u64 = indexes.iter().map(Index::bytes).sum();
    println!(
        "{{\"files\":{files},\"shards\":{shards},\"index_bytes\":{bytes},\"set_ms\":{set_ms:.2},\"open_ms\":{open_ms:.2},\
         \"open_kib\":{opened},\"thousand_ms\":{number_ms:.2},\"most_kib\":{number_most},\"thousand_paths_ms\":{path_ms:.2},\
         \"paths_most_kib\":{path_most},\"verify_ms\":{verify_ms:.0},\"verified_kib\":{verified},\"thousand_again_ms\":{again_ms:.2},\
         \"again_most_kib\":{again_most},\"thousand_paths_again_ms\":{path_again_ms:.2},\"paths_again_most_kib\":{path_again_most}}}"
    );
    Ok(())
}

fn tar_name(shard: u32) -> String {
    format!("shards/{shard:06}.tar")
}

fn index_name(shard: u32) -> String {
    manifest::index_path(&tar_name(shard))
}

fn path(n: u64) -> String {
    format!("train/{:08}.{}", n / 2, if n.is_multiple_of(2) { "cls" } else { "jpg" })
}

/// Spread over all of them, the same each time, none twice: by a prime.
fn scattered(n: u64, of: u64) -> u64 {
    n * 2_654_435_761 % of
}

async fn make(place: &Place, folder: &Path, files: u64, shards: u32) -> Result<()> {
    let each = files / u64::from(shards);
    if each == 0 || !each.is_multiple_of(2) || each * u64::from(shards) != files {
        return Err("files must be an even number for each shard".into());
    }
    let of = |shard: u32| build(folder, shard, each, files);
    let all = (0..shards).map(of).collect::<Result<Vec<Shard>>>()?;
    let version = Manifest::new(1, manifest::id_of(&all), Grouping::Stem, "made to be measured", all)?;
    manifest::write(place, &version).await?;
    Ok(())
}

/// One shard's index, and a tar that is a hole.
fn build(folder: &Path, shard: u32, each: u64, files: u64) -> Result<Shard> {
    let mut builder = Builder::new(Grouping::Stem, folder);
    let crc32c = granary_core::crc32c(&FILE);
    for n in 0..each {
        // As a shuffled data set has them: not in the order of their names.
        let sample = scattered(u64::from(shard) * each / 2 + n / 2, files / 2);
        builder.push(&NewFile {
            path: path(2 * sample + n % 2).as_bytes(),
            offset: n * 1024 + 512,
            length: FILE.len() as u64,
            crc32c,
            mode: 0o644,
            mtime: 0,
            uid: 0,
            gid: 0,
        })?;
    }
    let bytes = each * 1024 + 1024;
    let to = folder.join(index_name(shard));
    let mut out = BufWriter::with_capacity(1 << 20, File::create(&to)?);
    builder.seal(bytes)?.write_to(&mut out)?;
    out.flush()?;
    File::create(folder.join(tar_name(shard)))?.set_len(bytes)?;
    let index = Index::open(&to)?;
    Ok(Shard {
        path: tar_name(shard),
        bytes,
        files: index.file_count(),
        samples: index.sample_count(),
        index_bytes: index.bytes(),
        index_crc32c: index.crc32c(),
        dead_samples: Runs::default(),
        dead_files: Runs::default(),
    })
}

fn ms<T>(work: impl FnOnce() -> Result<T>) -> Result<(f64, T)> {
    let begun = SystemClock.monotonic();
    let value = work()?;
    Ok(((SystemClock.monotonic() - begun).as_secs_f64() * 1000.0, value))
}

/// Of this process, mapped pages too.
fn resident_kib() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}
