//! What the policy is chosen by: traces as our users' work makes them, and how much of each is found in the cache by S3-FIFO as it
//! is here, by LRU, FIFO, and SIEVE (Zhang, Yang, Yue, Vigfusson, Rashmi: "SIEVE is simpler than LRU", NSDI '24). All are made of
//! fixed seeds, so that the table (printed with `--nocapture`) is the same everywhere.

use std::collections::{HashMap, VecDeque};

use granary_core::NamespaceId;

use super::S3Fifo;

mod told;

/// A use of a chunk: it is read from its beginning to its end.
type Trace = Vec<u32>;

/// Chunks that the cache holds in all traces.
const CACHE: usize = 1000;

trait Cache {
    /// Whether it was there; afterwards it is.
    fn access(&mut self, key: u32) -> bool;
}

struct Ours(S3Fifo<u32>);

impl Cache for Ours {
    fn access(&mut self, key: u32) -> bool {
        let hit = self.0.contains(&key);
        if !hit {
            self.0.evict_to(CACHE as u64 - 1, CACHE as u64);
            self.0.insert(key, 1, NamespaceId(1));
        }
        // Two reads make a use; the fetch and the first read are one.
        for frame in [0, 8] {
            self.0.touch(&key, frame, NamespaceId(1));
        }
        hit
    }
}

/// LRU when a hit renews, else FIFO.
struct Queue {
    renews: bool,
    at: HashMap<u32, u64>,
    order: VecDeque<(u32, u64)>,
    next: u64,
}

impl Cache for Queue {
    fn access(&mut self, key: u32) -> bool {
        let hit = self.at.contains_key(&key);
        if !hit && self.at.len() == CACHE {
            while let Some((oldest, at)) = self.order.pop_front() {
                if self.at.get(&oldest) == Some(&at) {
                    self.at.remove(&oldest);
                    break;
                }
            }
        }
        if !hit || self.renews {
            self.next += 1;
            self.at.insert(key, self.next);
            self.order.push_back((key, self.next));
        }
        hit
    }
}

/// Newest first; the hand goes from the oldest to the newest.
#[derive(Default)]
struct Sieve {
    visited: HashMap<u32, bool>,
    list: Vec<u32>,
    hand: usize,
}

impl Cache for Sieve {
    fn access(&mut self, key: u32) -> bool {
        if let Some(visited) = self.visited.get_mut(&key) {
            *visited = true;
            return true;
        }
        if self.list.len() == CACHE {
            loop {
                let at = self.hand % self.list.len();
                if self.visited.insert(self.list[at], false) == Some(false) {
                    self.visited.remove(&self.list.remove(at));
                    self.hand = at;
                    break;
                }
                self.hand = at + 1;
            }
        }
        self.visited.insert(key, false);
        self.list.push(key);
        false
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 16) % below as u64) as usize
    }

    fn shuffled(&mut self, keys: std::ops::Range<u32>) -> Trace {
        let mut keys: Trace = keys.collect();
        for i in (1..keys.len()).rev() {
            keys.swap(i, self.next(i + 1));
        }
        keys
    }

    /// Ten times the cache's keys, the n-th as often as 1/n (s = 1).
    fn zipf(&mut self, accesses: usize) -> Trace {
        let mut sums = vec![0.0];
        for n in 1..=10 * CACHE {
            sums.push(sums[n - 1] + 1.0 / n as f64);
        }
        let all = sums[10 * CACHE];
        let one = |r: &mut Random| {
            let x = r.next(1 << 40) as f64 / (1_u64 << 40) as f64 * all;
            sums.partition_point(|&sum| sum <= x) as u32
        };
        (0..accesses).map(|_| one(self)).collect()
    }
}

fn zipf() -> Trace {
    Random(1).zipf(200_000)
}

/// One epoch after another over a set of so many percent of the cache, each in an order of its own.
fn epochs(percent: usize, count: usize) -> Trace {
    let mut random = Random(2);
    (0..count).flat_map(|_| random.shuffled(0..(CACHE * percent / 100) as u32)).collect()
}

/// The same order each time.
fn loops(percent: usize, count: usize) -> Trace {
    (0..count).flat_map(|_| 0..(CACHE * percent / 100) as u32).collect()
}

/// A hot set of half of the cache, used at random, between long scans that are never repeated.
fn scans() -> Trace {
    let (mut random, mut scanned) = (Random(3), 1_000_000);
    let mut trace = Trace::new();
    for _ in 0..40 {
        trace.extend((0..3000).map(|_| random.next(CACHE / 2) as u32));
        trace.extend(scanned..scanned + 2 * CACHE as u32);
        scanned += 2 * CACHE as u32;
    }
    trace
}

/// Shuffled epochs over twice the cache, and after each a checkpoint of a fifth of it that is read once.
fn training() -> Trace {
    let (mut random, mut checkpoint) = (Random(4), 1_000_000);
    let mut trace = Trace::new();
    for _ in 0..10 {
        trace.extend(random.shuffled(0..2 * CACHE as u32));
        trace.extend(checkpoint..checkpoint + CACHE as u32 / 5);
        checkpoint += CACHE as u32 / 5;
    }
    trace
}

/// Epochs over a set of 1.5 caches, and then as many over another one.
fn another_set() -> Trace {
    let first = epochs(150, 8);
    let second: Trace = first.iter().map(|key| key + 1_000_000).collect();
    [first, second].concat()
}

/// Percent of the trace's second half that was there.
fn hits(mut cache: impl Cache, trace: &Trace) -> f64 {
    let (learn, measure) = trace.split_at(trace.len() / 2);
    learn.iter().for_each(|&key| {
        cache.access(key);
    });
    100.0 * measure.iter().filter(|&&key| cache.access(key)).count() as f64 / measure.len() as f64
}

fn queue(renews: bool) -> Queue {
    Queue { renews, at: HashMap::new(), order: VecDeque::new(), next: 0 }
}

#[test]
fn ours_is_as_good_as_any_on_the_traces_we_care_for() {
    let traces = [
        ("Zipf, s = 1, over ten times the cache", zipf()),
        ("hot half of the cache between scans", scans()),
        ("shuffled epochs over 1.25 caches", epochs(125, 16)),
        ("shuffled epochs over 2 caches", epochs(200, 16)),
        ("shuffled epochs over 4 caches", epochs(400, 16)),
        ("the same order over 2 caches, again and again", loops(200, 16)),
        ("epochs over 2 caches, a checkpoint read after each", training()),
        ("8 epochs over 1.5 caches, after 8 over another set", another_set()),
    ];
    println!("| trace | here | LRU | FIFO | SIEVE |\n|---|---|---|---|---|");
    let mut ours = Vec::new();
    for (name, trace) in &traces {
        let here = hits(Ours(S3Fifo::new()), trace);
        let others = [hits(queue(true), trace), hits(queue(false), trace), hits(Sieve::default(), trace)];
        let [lru, fifo, sieve] = others;
        println!("| {name} | {here:.0} % | {lru:.0} % | {fifo:.0} % | {sieve:.0} % |");
        ours.push((here, others));
    }
    // What a cache that keeps a fixed part of the set has: cache / set.
    for (at, ideal) in [(2, 80.0), (3, 50.0), (4, 25.0), (5, 50.0)] {
        let here = ours[at].0;
        assert!(here >= 0.75 * ideal, "{}: {here:.1} % of {ideal} %", traces[at].0);
    }
    for (at, (here, others)) in ours.iter().enumerate() {
        let best = others.iter().copied().fold(0.0, f64::max);
        assert!(*here >= best - 8.0, "{}: {here:.1} %, another {best:.1} %", traces[at].0);
    }
}
