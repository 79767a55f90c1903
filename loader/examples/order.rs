//! What the order costs: `cargo run --release -p granary-loader --example order -- [SAMPLES] [SHARDS] [SHARD_BYTES]`
//!
//! Makes the order of a data set that is not there (100 million samples in 10,000 shards of 1 GiB if nothing is said), and prints one line of JSON: how
//! long an epoch's table takes, a random position, the way back, and one global batch of 4,096.

use std::hint::black_box;
use std::sync::Arc;

use granary_core::{Clock, Result, SystemClock};
use granary_loader::Shuffle;
use granary_loader::order::permutation::key;
use granary_loader::order::shape::Shape;
use granary_loader::order::stream::{Stream, StreamOptions};

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let mut number = |default: u64| args.next().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (samples, shards, bytes) = (number(100_000_000), number(10_000).max(1), number(1 << 30));
    let clock = SystemClock;
    let shape = Arc::new(Shape::new((0..shards).map(|_| ((samples / shards) as u32, bytes)), b"")?);
    let (samples, batch) = (shape.samples(), 4096);
    let options = StreamOptions {
        shuffle: Shuffle::default(),
        seed: 1,
        batch,
        weights: Vec::new(),
        epoch_samples: None,
    };
    let stream = Stream::new(vec![shape], &options)?;
    let start = clock.monotonic();
    let epoch = stream.epoch(0, 0);
    let table = clock.monotonic() - start;
    let random = |n: u64| key(&[n]) % samples;
    let times = 1_000_000;
    let each = |work: &dyn Fn(u64)| {
        let start = clock.monotonic();
        (0..times).for_each(work);
        (clock.monotonic() - start).as_nanos() as f64 / times as f64
    };
    let forward = each(&|n| {
        black_box(epoch.at(random(n)));
    });
    let both = each(&|n| {
        black_box(epoch.position(epoch.at(random(n))));
    });
    let start = clock.monotonic();
    let batches = 200;
    for n in 0..batches {
        let first = random(n) / batch * batch;
        black_box(stream.picks(0, first..first + batch));
    }
    let of_batch = (clock.monotonic() - start).as_micros() as f64 / batches as f64;
    println!(
        "{{\"samples\":{samples},\"runs\":{},\"epoch_ms\":{:.1},\"position_ns\":{forward:.0},\"back_ns\":{:.0},\"batch_of_{batch}_us\":{of_batch:.0}}}",
        stream.order(0).runs(),
        table.as_secs_f64() * 1e3,
        both - forward
    );
    Ok(())
}
