//! How much is under way: a policy without I/O.
//!
//! Memory is for two things: what every lane has of its run ([`ahead`](super::ahead)), and batches that are ahead of the consumer. Three
//! quarters are for the first, since requests are as long as that allows, or less when batches are large; half of it in a data set that is so
//! small that lanes ask for their next parts all at once. By Little's law a link of 1 GB/s with 30 ms to the first byte is busy when 30 MB are under way; so
//! much is from the beginning, before anybody waited.

use super::line::Line;
use crate::depth::Depth;
use crate::options::Options;
use crate::order::epoch::RUN_BYTES_MIN;
use crate::order::shuffle::Method;

/// Threads by default, at most.
const THREADS_MAX: usize = 16;
/// What one request should bring. RGW, its OSD and the client together take 2.3 s of processor time for a GiB in requests of 8 MiB, 2.7 of 4 MiB,
/// 3.0 of 2.4 MB, 3.9 of 1.4 MB.
const REQUEST_BYTES: u64 = 8 << 20;
/// Lanes with fewer runs go in step.
const IN_STEP_RUNS: u64 = 8;
/// Stretches that memory has room for: one is given while others are fetched.
const STRETCHES: u64 = 4;
/// Under way from the beginning, if memory has room for twice as much.
const BEGIN_BYTES: u64 = 32 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Batches that are begun together.
    pub stretch: u64,
    /// How many may be ready or under way.
    pub depth: Depth,
    /// Of each data set, what is asked for at once of a lane's run; 0: nothing but the stretch.
    pub part_bytes: Vec<u64>,
    /// Batches in which a lane goes through such a part; 0 without parts.
    pub part_batches: u64,
    /// Memory with which requests are as long as they should be; 0 when nothing is fetched.
    pub long_memory_bytes: u64,
    /// Whether an epoch waits until the one before it is made.
    pub epoch_by_epoch: bool,
}

/// Threads that make batches, of a number that was set.
pub(crate) fn threads(set: u32) -> usize {
    match set {
        0 => std::thread::available_parallelism().map_or(1, |n| n.get()).min(THREADS_MAX),
        threads => threads as usize,
    }
}

impl Bounds {
    /// `mapped`: of each data set, whether its bytes are lent.
    pub fn new(options: &Options, line: &Line, mapped: &[bool]) -> Bounds {
        let (min, max) = (u64::from(options.ahead_batches_min), u64::from(options.ahead_batches_max));
        if mapped.iter().all(|mapped| *mapped) {
            // Making one is work and no waiting: more than keep all threads busy only take memory.
            let threads = threads(options.threads) as u64;
            return Bounds {
                stretch: 1,
                depth: Depth::new(min.max(2 * threads), max.min(8 * threads)),
                part_bytes: vec![0; mapped.len()],
                part_batches: 0,
                long_memory_bytes: 0,
                epoch_by_epoch: false,
            };
        }
        let (mut bytes, mut samples, mut lanes) = (0, 0, 0);
        // Of lanes that go through runs: how many, what is mixed at most, how long the shortest runs are.
        let (mut windows, mut mix_bytes, mut run_bytes, mut whole) = (0, 0, u64::MAX, false);
        for (source, mapped) in mapped.iter().enumerate() {
            let order = line.stream().order(source);
            bytes += order.shape().bytes();
            samples += order.shape().samples();
            if *mapped {
                continue;
            }
            lanes += order.lanes();
            if order.method() == Method::Window {
                windows += order.lanes();
                mix_bytes = order.mix_bytes().max(mix_bytes);
                run_bytes = order.run_bytes().min(run_bytes);
            }
            // Samples from anywhere are near each other only when most of the data set is wanted.
            whole |= order.method() == Method::Full;
        }
        let batch_bytes = (bytes / samples.max(1) * line.part_samples()).max(1);
        let own = |lanes: u64| lanes.div_ceil(u64::from(options.ranks)).max(1);
        let memory = options.memory_bytes_max;
        let long = if whole { line.epoch_end() } else { (REQUEST_BYTES * own(lanes)).div_ceil(batch_bytes) };
        // No further than the next epoch: what is small is not fetched again and again for nothing.
        let stretch_of = |long: u64, memory: u64| {
            let fits = memory / batch_bytes / STRETCHES;
            long.min(fits).min(max / 2).min(line.epoch_end()).max(1)
        };
        // Less than is mixed would be asked for in pieces after all, and again with the next. What is asked for as a whole has no parts, and
        // short runs are best joined by chance.
        let part_of = |for_parts: u64| {
            let for_parts = for_parts.min(memory.saturating_sub(STRETCHES * batch_bytes));
            Some(windows)
                .filter(|&windows| windows > 0)
                .map(|windows| (for_parts / own(windows)).min(REQUEST_BYTES))
                .filter(|&part| part >= mix_bytes && run_bytes >= RUN_BYTES_MIN)
                .filter(|_| stretch_of(long, memory) < line.epoch_end())
        };
        // Lanes that have few runs come to their next parts together, which then must be under way before those at hand are given.
        let in_step = windows > 0 && bytes / windows / run_bytes < IN_STEP_RUNS;
        let half = in_step.then(|| part_of(memory / 2)).flatten();
        let part = half.or_else(|| part_of(memory / 4 * 3)).unwrap_or(0);
        let of_parts = part * own(windows);
        let fits = ((memory - of_parts) / batch_bytes).max(1);
        let stretch = stretch_of(if whole || part == 0 { long } else { 1 }, memory - of_parts);
        let begin = (BEGIN_BYTES / batch_bytes).min(fits / 2);
        let depth = Depth::new(min.max(2 * stretch).max(begin.min(max)), max.min(fits));
        let part_bytes = mapped.iter().enumerate().map(|(source, mapped)| {
            let is_window = !mapped && line.stream().order(source).method() == Method::Window;
            if is_window { part } else { 0 }
        });
        Bounds {
            stretch,
            part_bytes: part_bytes.collect(),
            part_batches: of_parts.div_ceil(batch_bytes),
            long_memory_bytes: if part > 0 {
                REQUEST_BYTES * own(windows) / 3 * 4
            } else {
                STRETCHES * long.min(max / 2).min(line.epoch_end()).max(1) * batch_bytes
            },
            // Of an epoch that is not longer than what is under way this would leave too little.
            epoch_by_epoch: line.epoch_end() > max.min(fits),
            depth,
        }
    }
    /// Batches behind those that begin of which samples may be asked for: twice as many as a lane of middling samples needs for a part.
    pub fn horizon(&self) -> u64 {
        2 * self.part_batches
    }
}
