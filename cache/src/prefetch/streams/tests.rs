use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;
const KIB: u64 = 1 << 10;
const SIZE: u64 = 1 << 30;
const WINDOW: u64 = 32 * MIB;

/// A reader that reads these ranges; chunks that were there when they were read, those that were not, and those fetched for nothing.
struct Sim {
    streams: Streams,
    size: u64,
    read: BTreeSet<u64>,
    ahead: BTreeSet<u64>,
    hits: u64,
    misses: u64,
    asks: usize,
}

impl Sim {
    fn new(size: u64) -> Sim {
        Sim {
            streams: Streams::default(),
            size,
            read: BTreeSet::new(),
            ahead: BTreeSet::new(),
            hits: 0,
            misses: 0,
            asks: 0,
        }
    }

    fn read(&mut self, range: Range<u64>) {
        for chunk in range.start / MIB..range.end.div_ceil(MIB) {
            if self.read.insert(chunk) {
                let hit = self.ahead.contains(&chunk);
                (self.hits, self.misses) = (self.hits + u64::from(hit), self.misses + u64::from(!hit));
            }
        }
        for wish in self.streams.on_read(&range, self.size, WINDOW) {
            assert!(wish.start < wish.end && wish.end <= self.size, "{wish:?}");
            self.asks += 1;
            self.ahead.extend(wish.start / MIB..wish.end.div_ceil(MIB));
        }
    }

    fn wasted(&self) -> usize {
        self.ahead.difference(&self.read).count()
    }
}

fn random(x: &mut u64) -> u64 {
    *x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    *x >> 20
}

#[test]
fn forward_the_window_grows_and_requests_are_large() {
    let mut streams = Streams::default();
    let mut asked = Vec::new();
    for start in (0..64 * MIB).step_by(128 << 10) {
        for wish in streams.on_read(&(start..start + 128 * KIB), 64 * MIB, 16 * MIB) {
            asked.push(wish);
        }
    }
    assert_eq!(asked[0], 128 * KIB..MIB + 128 * KIB);
    assert!(asked.windows(2).all(|w| w[0].end == w[1].start), "without gaps or repetitions: {asked:?}");
    assert_eq!(asked.last().unwrap().end, 64 * MIB);
    assert!(asked[4..].iter().all(|r| r.end - r.start >= 4 * MIB || r.end == 64 * MIB), "{asked:?}");
}

#[test]
fn forward_backward_and_strided_readers_find_what_they_need() {
    let mut sim = Sim::new(SIZE);
    (0..4096).for_each(|i| sim.read(i * 128 * KIB..(i + 1) * 128 * KIB));
    assert_eq!((sim.hits, sim.misses), (511, 1));
    assert!(sim.wasted() as u64 * MIB <= WINDOW);

    let mut sim = Sim::new(SIZE);
    (0..2048).rev().for_each(|i| sim.read(i * 128 * KIB..(i + 1) * 128 * KIB));
    assert!(sim.misses <= 2 && sim.hits >= 254 && sim.wasted() == 0, "{} {}", sim.hits, sim.misses);

    for stride in [10 * MIB as i64, 3 * MIB as i64 + 4096, -(7 * MIB as i64)] {
        let mut sim = Sim::new(SIZE);
        let first = if stride > 0 { 5 * MIB } else { SIZE - 5 * MIB };
        for i in 0..100 {
            let start = first.saturating_add_signed(stride * i);
            sim.read(start..start + 4096);
        }
        assert!(sim.misses <= 5, "stride {stride}: {} of 100 were waited for", sim.misses);
        assert!(sim.wasted() <= STRIDES_MAX as usize, "{}", sim.wasted());
    }
}

#[test]
fn eight_threads_in_one_file_are_eight_streams() {
    let mut sim = Sim::new(SIZE);
    let part = SIZE / 8;
    for step in 0..256 {
        for thread in 0..8 {
            let start = thread * part + step * 128 * KIB;
            sim.read(start..start + 128 * KIB);
        }
    }
    assert!(sim.misses <= 16, "{} of 256 chunks were waited for", sim.misses);
    assert!(sim.wasted() as u64 <= 8 * WINDOW / MIB);
}

#[test]
fn the_kernels_reordering_does_not_end_a_stream() {
    let mut sim = Sim::new(SIZE);
    for pair in 0..1000u64 {
        let at = |i: u64| i * 128 * KIB..(i + 1) * 128 * KIB;
        sim.read(at(2 * pair + 1));
        sim.read(at(2 * pair));
    }
    assert!(sim.misses <= 2, "{}", sim.misses);
}

#[test]
fn random_reads_fetch_next_to_nothing_ahead() {
    for seed in 0..20u64 {
        let (mut x, mut sim) = (seed, Sim::new(16 << 30));
        for _ in 0..3000 {
            let start = random(&mut x) % (sim.size / 4096 - 1) * 4096;
            sim.read(start..start + 4096);
        }
        assert!(sim.ahead.len() <= 30, "seed {seed}: {} chunks ahead for 3,000 reads", sim.ahead.len());
    }
}

#[test]
fn what_was_refused_is_asked_for_again() {
    let mut streams = Streams::default();
    let first = streams.on_read(&(0..MIB), SIZE, WINDOW);
    assert_eq!((first.len(), first[0].clone()), (1, MIB..2 * MIB));
    streams.on_refused(&first[0]);
    let again = streams.on_read(&(MIB..MIB + 4096), SIZE, WINDOW);
    assert_eq!(again[0].start, MIB + 4096);
}

proptest! {
    /// Whatever is read: what is asked for is within the file, bounded, and at most 16 streams are remembered.
    #[test]
    fn wishes_are_bounded(reads in proptest::collection::vec((0..64 * MIB, 1u64..3 * MIB), 1..200), window in 0..64 * MIB) {
        let mut streams = Streams::default();
        for (start, len) in reads {
            let size = 64 * MIB;
            let range = start..(start + len).min(size);
            let wishes = streams.on_read(&range, size, window);
            let bytes: u64 = wishes.iter().map(|w| w.end - w.start).sum();
            prop_assert!(bytes <= window.max(MIB) + 3 * MIB, "{:?}", wishes);
            prop_assert!(wishes.iter().all(|w| w.start < w.end && w.end <= size));
            prop_assert!(streams.streams.len() <= STREAMS_MAX && streams.recent.len() <= RECENT_MAX);
        }
    }
}
