//! What a large data set takes in a loader: `cargo run --release -p granary-loader --example large -- FOLDER`
//!
//! FOLDER is one that `granary-packer`'s example `open` made. Prints one line of JSON: milliseconds to open it, to read a thousand samples by number
//! and a thousand by path, spread over all; and after each the resident KiB that are the process's own, of indexes, and of shards.

use granary_core::{Clock, Result, SystemClock};
use granary_loader::{Source, SourceOptions};

const SAMPLES: u64 = 1000;

fn main() -> std::process::ExitCode {
    let Some(folder) = std::env::args().nth(1) else {
        eprintln!("usage: large FOLDER");
        return std::process::ExitCode::FAILURE;
    };
    match run(&folder) {
        Ok(line) => {
            println!("{line}");
            std::process::ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("{e}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run(folder: &str) -> Result<String> {
    let before = resident_kib().0;
    let (open_ms, source) = ms(|| Source::open(folder, SourceOptions::default()))?;
    let mut parts = vec![said("open", open_ms, before)];
    // By a prime: spread over all, the same each time.
    let scattered = |n: u64| n * 2_654_435_761 % source.len();
    let (number_ms, paths) = ms(|| {
        let path = |n: u64| {
            let sample = source.sample(scattered(n))?;
            Ok(sample.member(0)?.path.to_vec())
        };
        (0..SAMPLES).map(path).collect::<Result<Vec<_>>>()
    })?;
    parts.push(said("by_number", number_ms, before));
    let (path_ms, ()) = ms(|| paths.iter().try_for_each(|path| source.file(path).map(|_| ())))?;
    parts.push(said("by_path", path_ms, before));
    Ok(format!("{{\"samples\":{},{}}}", source.len(), parts.join(",")))
}

fn ms<T>(work: impl FnOnce() -> Result<T>) -> Result<(f64, T)> {
    let begun = SystemClock.monotonic();
    let value = work()?;
    Ok(((SystemClock.monotonic() - begun).as_secs_f64() * 1000.0, value))
}

fn said(name: &str, ms: f64, before: u64) -> String {
    let (own, indexes, shards) = resident_kib();
    let own = own.saturating_sub(before);
    format!(
        "\"{name}\":{{\"ms\":{ms:.2},\"own_kib\":{own},\"indexes_kib\":{indexes},\"shards_kib\":{shards}}}"
    )
}

/// Of no file; of indexes; of tars.
fn resident_kib() -> (u64, u64, u64) {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    let (mut kind, mut sums) = (3, [0; 4]);
    for line in maps.lines() {
        let first = line.split_whitespace().next().unwrap_or_default();
        if first == "Rss:" {
            sums[kind] += line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0);
        } else if !first.ends_with(':') {
            kind = match line.split_whitespace().nth(5) {
                None => 0,
                Some(name) if name.starts_with('[') => 0,
                Some(name) if name.ends_with(".gidx") => 1,
                Some(name) if name.ends_with(".tar") => 2,
                Some(_) => 3,
            };
        }
    }
    (sums[0], sums[1], sums[2])
}
