//! Samples a second over a data set: `cargo run --release -p granary-loader --example rate -- DS [SECONDS] [BATCH] [THREADS]`
//!
//! Prints one line of JSON for each way: `loader` (batches in shuffled order), `read_many` (chunks of random numbers), `sample` (one at a time).
//! Every byte is verified, and what a training would do with it is not done: sums are of one byte of each file, so that nothing is left out.

use std::sync::Arc;
use std::time::Duration;

use granary_core::{Clock, Result, SystemClock};
use granary_loader::order::permutation::{Permutation, key};
use granary_loader::{Loader, Options, Sample, Source, SourceOptions};

fn main() -> std::process::ExitCode {
    match run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let Some(data) = args.next() else {
        eprintln!("usage: rate DS [SECONDS] [BATCH] [THREADS]");
        return Ok(());
    };
    let mut number = |default: u64| args.next().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (seconds, batch, threads) = (number(3), number(256), number(0));
    let place = granary_packer::place::Options::from_env();
    let source =
        Source::open(&data, SourceOptions { place, threads: threads as usize, ..SourceOptions::default() })?;
    let time = Duration::from_secs(seconds);
    let options = Options { batch_samples: batch, seed: 1, threads: threads as u32, ..Options::default() };
    let loader = Loader::new(vec![source.clone()], options)?;
    measure("loader", time, || {
        loop {
            if let Some(batch) = loader.next_batch()? {
                return Ok(batch.samples);
            }
        }
    })?;
    let order = Permutation::new(source.len(), key(&[2]));
    let mut at = 0;
    let mut numbers = |count: u64| -> Vec<u64> {
        (0..count)
            .map(|_| {
                at = (at + 1) % source.len();
                order.get(at)
            })
            .collect()
    };
    measure("read_many", time, || source.read_many(&numbers(batch)))?;
    measure("sample", time, || numbers(batch).into_iter().map(|n| source.sample(n)).collect())
}

/// One untimed second first.
fn measure(name: &str, time: Duration, mut next: impl FnMut() -> Result<Vec<Sample>>) -> Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut until = |time: Duration| -> Result<(u64, u64, u64, f64)> {
        let start = clock.monotonic();
        let (mut samples, mut bytes, mut sum) = (0, 0, 0_u64);
        loop {
            for sample in next()? {
                samples += 1;
                for at in 0..sample.len() {
                    let member = sample.member(at)?;
                    bytes += member.bytes.len() as u64;
                    sum = sum.wrapping_add(u64::from(member.bytes.first().copied().unwrap_or(0)));
                }
            }
            let took = clock.monotonic() - start;
            if took >= time {
                return Ok((samples, bytes, sum, took.as_secs_f64()));
            }
        }
    };
    until(Duration::from_secs(1))?;
    let (samples, bytes, sum, took) = until(time)?;
    println!(
        "{{\"way\":\"{name}\",\"samples_per_s\":{:.0},\"mb_per_s\":{:.1},\"samples\":{samples},\"sum\":{sum}}}",
        samples as f64 / took,
        bytes as f64 / 1e6 / took
    );
    Ok(())
}
