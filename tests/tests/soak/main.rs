//! Random programs for a given time, while nodes and the metadata service are killed, the store goes away, and the node's disk
//! is full: after each round everything that was promised is there, and the rest is as it was at one moment; in the end
//! everything comes from the store alone, and nothing is left there when all was deleted.
//!
//! What programs do and what must be there afterwards: [`granary_tests::Worker`], [`granary_tests::Model`].
//! `GRANARY_SOAK_SECONDS` sets how long [20], `GRANARY_TEST_SEED` repeats a seed as far as threads and time allow,
//! `GRANARY_SOAK_LANE` takes one kind of node alone.

mod many;
mod progress;
mod single;
mod store;
mod team;

use std::time::{Duration, Instant};

use granary_tests::seed;

use many::Many;
use single::Single;

/// Kinds of nodes, side by side.
const LANES: [&str; 4] = ["disk", "object", "store", "many"];

/// Short periods: the drain, relocations, compactions and deletions are in the middle of it all.
const SETTINGS: [(&str, &str); 9] = [
    ("GRANARY_SMALL_FILE_BYTES_MAX", "65536"),
    ("GRANARY_SMALL_PERIOD_MS", "50"),
    ("GRANARY_LARGE_PERIOD_MS", "150"),
    ("GRANARY_LOG_SEGMENT_BYTES_MAX", "1048576"),
    ("GRANARY_SYNC_INTERVAL_MS", "300"),
    ("GRANARY_DEAD_OBJECT_GRACE_MS", "1"),
    ("GRANARY_COMPACTION_PERIOD_MS", "100"),
    ("GRANARY_CACHE_FREE_BYTES_MIN", "0"),
    ("GRANARY_META_BACKUP_INTERVAL_MS", "0"),
];

/// One kind of node, and what becomes of it.
trait Lane {
    /// Works, and goes through something.
    fn round(&mut self);
    /// Everything comes from the store alone, is deleted, and leaves nothing behind. How many operations there were in all.
    fn end(self) -> u64;
}

#[allow(clippy::disallowed_methods)] // how long to go on, not a measurement
fn go<L: Lane>(mut lane: L, start: Instant, long: Duration) -> u64 {
    lane.round();
    while start.elapsed() < long {
        lane.round();
    }
    lane.end()
}

#[test]
#[allow(clippy::disallowed_methods)] // as above
fn nothing_is_lost_whatever_happens() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let long = Duration::from_secs(number("GRANARY_SOAK_SECONDS").unwrap_or(20));
    let only = std::env::var("GRANARY_SOAK_LANE").ok();
    let lanes: Vec<&str> = LANES.into_iter().filter(|l| only.as_ref().is_none_or(|o| o == l)).collect();
    assert!(!lanes.is_empty(), "there is no lane {only:?}, only {LANES:?}");
    let seed = seed();
    let start = Instant::now();
    let done: Vec<u64> = std::thread::scope(|scope| {
        let lanes: Vec<_> = lanes
            .iter()
            .map(|&lane| {
                scope.spawn(move || match lane {
                    "disk" => go(Single::on_a_small_disk(seed, "local"), start, long),
                    "object" => go(Single::on_a_small_disk(seed ^ 3, "object"), start, long),
                    "store" => go(Single::by_a_bad_network(seed), start, long),
                    _ => go(Many::new(seed), start, long),
                })
            })
            .collect();
        // All are waited for, so that each takes its mounts down; then the first failure is told.
        let ended: Vec<_> = lanes.into_iter().map(|lane| lane.join()).collect();
        ended.into_iter().map(|lane| lane.unwrap_or_else(|e| std::panic::resume_unwind(e))).collect()
    });
    println!("operations: {done:?} by {lanes:?}, none lost");
    assert!(done.iter().all(|&n| n > 0));
}
