//! `granary bench MOUNTPOINT`: how fast a mounted file system is, in a minute; it need not be Granary.

use granary_bench_work::mountpoint::{Bounds, Line, Measured, measure};
use granary_bench_work::stop;
use rand::RngExt;
use serde::Serialize;

use super::{columns, print, print_json};
use crate::args::BenchArgs;
use crate::exit::{Failure, Outcome};
use crate::output::say;
use crate::randomness;
use crate::units::{parse_bytes, parse_period_ms};

/// What programs get.
#[derive(Debug, Serialize)]
struct Answer {
    mountpoint: String,
    bytes: u64,
    files: usize,
    threads: usize,
    results: Vec<Figure>,
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Figure {
    work: String,
    unit: &'static str,
    value: f64,
}

pub fn run(args: &BenchArgs) -> Outcome<()> {
    let bounds = bounds_of(args)?;
    let mountpoint = super::real_dir(&args.mountpoint)?;
    // From here on Ctrl-C ends the work, which then removes what it made.
    let failed =
        |error: anyhow::Error| Failure::failed(format!("cannot measure {}: {error:#}", mountpoint.display()));
    stop::catch_signals().map_err(failed)?;
    let quiet = args.json;
    let mut tell = |line: &Line| {
        if !quiet {
            say(format_args!("{}: {} {}", line.work, figure(line.value), line.unit));
        }
    };
    let measured = measure(&mountpoint, bounds, &mut tell).map_err(failed)?;
    if args.json {
        return print_json(&answer(&mountpoint.to_string_lossy(), bounds, measured));
    }
    print(&table(&measured))
}

fn bounds_of(args: &BenchArgs) -> Outcome<Bounds> {
    let wrong = |flag: &str, error: String| Failure::usage(format!("--{flag}: {error}"));
    let bytes = parse_bytes(&args.bytes).map_err(|e| wrong("bytes", e))?;
    if bytes < 1 << 20 {
        return Err(wrong("bytes", "the large file has at least 1MiB".into()));
    }
    let time_ms = parse_period_ms(&args.time).map_err(|e| wrong("time", e))?;
    let seed = randomness::generator()?.random();
    let (files, threads) = (args.files as usize, args.threads as usize);
    Ok(Bounds { bytes, files, threads, seconds_max: time_ms as f64 / 1e3, seed })
}

fn answer(mountpoint: &str, bounds: Bounds, measured: Measured) -> Answer {
    let figure = |line: Line| Figure { work: line.work, unit: line.unit, value: line.value };
    Answer {
        mountpoint: mountpoint.to_owned(),
        bytes: bounds.bytes,
        files: bounds.files,
        threads: bounds.threads,
        results: measured.lines.into_iter().map(figure).collect(),
        notes: measured.notes,
    }
}

fn table(measured: &Measured) -> String {
    let mut rows = vec![["WORK", "VALUE", "UNIT"].map(str::to_owned)];
    rows.extend(measured.lines.iter().map(|l| [l.work.clone(), figure(l.value), l.unit.to_owned()]));
    let notes: String = measured.notes.iter().map(|note| format!("{note}\n")).collect();
    columns(&rows) + &notes
}

/// Digits enough to compare.
fn figure(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn args(more: &[&str]) -> BenchArgs {
        let words = ["granary", "bench", "/mnt/alice"].iter().chain(more);
        match crate::args::Cli::try_parse_from(words).unwrap().command {
            crate::args::Command::Bench(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_become_bounds_and_wrong_ones_are_named() {
        let bounds =
            bounds_of(&args(&["--bytes", "8MiB", "--files", "10", "--threads", "3", "--time", "5s"]))
                .unwrap();
        assert_eq!((bounds.bytes, bounds.files, bounds.threads, bounds.seconds_max), (8 << 20, 10, 3, 5.0));
        assert!(bounds_of(&args(&[])).is_ok());
        assert!(bounds_of(&args(&["--bytes", "much"])).unwrap_err().message.contains("--bytes"));
        assert!(bounds_of(&args(&["--bytes", "1k"])).unwrap_err().message.contains("1MiB"));
        assert!(bounds_of(&args(&["--time", "soon"])).unwrap_err().message.contains("--time"));
    }

    #[test]
    fn people_get_a_table_and_programs_json() {
        let lines = vec![Line { work: "stat, warm".into(), unit: "files/s", value: 1234.5 }];
        let measured = Measured { lines, notes: vec!["warm only".into()] };
        let text = table(&measured);
        assert!(text.contains("stat, warm  12") && text.ends_with("warm only\n"), "{text}");
        let bounds = bounds_of(&args(&[])).unwrap();
        let json = serde_json::to_value(answer("/mnt/alice", bounds, measured)).unwrap();
        assert_eq!(json["results"][0]["value"], 1234.5);
        assert_eq!(json["mountpoint"], "/mnt/alice");
    }
}
