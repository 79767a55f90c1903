//! A loader in a process of its own, which goes on as it is told: `loading URL SOCKET BATCH [SEED]`.
//!
//! A line of standard input is a number of batches, `rest` for those that the epoch still has, or `metrics`. Each batch becomes a line:
//! its number, and of each sample number and checksum. After the last: `end`; an error: `error: ...`; after each command: `ok`.

use std::io::BufRead;

use granary_core::Result;
use granary_loader::{Batch, Loader, Options, Source, SourceOptions};
use granary_packer::place;

fn line(batch: &Batch) -> Result<String> {
    let mut line = batch.number.to_string();
    for sample in &batch.samples {
        let mut crc = 0;
        for at in 0..sample.len() {
            crc = granary_core::crc32c_append(crc, &sample.bytes(at)?);
        }
        line += &format!(" {}:{crc:08x}", sample.number());
    }
    Ok(line)
}

/// False at the end of the epoch.
fn next(loader: &Loader) -> Result<bool> {
    let batch = loader.next_batch()?;
    match &batch {
        Some(batch) => println!("{}", line(batch)?),
        None => println!("end"),
    }
    Ok(batch.is_some())
}

fn work(args: &[String]) -> Result<()> {
    let [url, socket, batch, more @ ..] = args else {
        println!("error: usage: loading URL SOCKET BATCH [SEED]");
        return Ok(());
    };
    let seed = more.first().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    let options = SourceOptions {
        place: place::Options::from_env(),
        socket: Some(socket.into()),
        threads: 2,
        ..SourceOptions::default()
    };
    let source = Source::open(url, options)?;
    let batch_samples = batch.parse().unwrap_or(1);
    let options =
        Options { batch_samples, seed, threads: 2, memory_bytes_max: 8 << 20, ..Options::default() };
    let loader = Loader::new(vec![source], options)?;
    for command in std::io::stdin().lock().lines().map_while(|line| line.ok()) {
        match &command[..] {
            "rest" => while next(&loader)? {},
            "metrics" => print!("{}", loader.metrics()),
            count => {
                for _ in 0..count.parse().unwrap_or(0) {
                    next(&loader)?;
                }
            }
        }
        println!("ok");
    }
    Ok(())
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Err(e) = work(&args) {
        println!("error: {e}");
    }
}
