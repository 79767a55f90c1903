//! Rates and percentiles of what was counted between two looks.

use granary_fuse::Counts;
use serde::Serialize;

use crate::wire::observe::{MountStats, OpStats, Stats};

/// The operations for which programs wait when they want data.
const IO: [&str; 3] = ["read", "open", "lookup"];

/// What is shown of one interval.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Frame {
    pub seconds: f64,
    pub node: NodeFrame,
    pub mounts: Vec<MountFrame>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct NodeFrame {
    pub memory_bytes: u64,
    pub cache_bytes: u64,
    pub cache_bytes_max: u64,
    /// Of the reads of objects, those that memory, the node's disk and the store answered: parts of 1; none: no reads.
    pub memory_hits: Option<f64>,
    pub disk_hits: Option<f64>,
    pub store_reads: Option<f64>,
    pub fetched_bytes_per_s: f64,
    pub prefetch_useful_per_s: f64,
    pub prefetch_wasted_per_s: f64,
    /// Requests to the store that are not answered, and those that wait to be sent.
    pub store_in_flight: f64,
    pub store_waiting: f64,
    /// Where the store counts them.
    pub hedges_per_s: Option<f64>,
    pub stragglers_per_s: Option<f64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct MountFrame {
    pub namespace: String,
    pub mode: String,
    pub dirs: Vec<String>,
    pub ops_per_s: f64,
    pub read_bytes_per_s: f64,
    pub written_bytes_per_s: f64,
    /// Seconds that programs waited for data in each second.
    pub io_wait: f64,
    pub in_flight: u64,
    pub dirty_bytes: u64,
    pub dirty_files: u64,
    pub drain_bytes_per_s: Option<u64>,
    pub left_ms: Option<u64>,
    pub error: Option<String>,
    pub tiers: Vec<TierFrame>,
    /// Those with most time first.
    pub ops: Vec<OpFrame>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TierFrame {
    pub tier: String,
    /// Of all reads, as a part of 1.
    pub share: f64,
    pub reads: u64,
    pub bytes: u64,
    pub bytes_per_s: f64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct OpFrame {
    pub op: String,
    pub count: u64,
    pub per_s: f64,
    pub failed: u64,
    pub in_flight: u64,
    /// Requests that were not ready in memory.
    pub waited: u64,
    pub waited_seconds: f64,
    /// Of what was answered; none: nothing was.
    pub p50_us: Option<u64>,
    pub p95_us: Option<u64>,
    pub p99_us: Option<u64>,
    pub p999_us: Option<u64>,
}

/// By what the mounts are in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    #[default]
    Name,
    Ops,
    Read,
    Written,
    Wait,
    Dirty,
}

impl Order {
    pub fn next(self) -> Order {
        match self {
            Order::Name => Order::Ops,
            Order::Ops => Order::Read,
            Order::Read => Order::Written,
            Order::Written => Order::Wait,
            Order::Wait => Order::Dirty,
            Order::Dirty => Order::Name,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Order::Name => "name",
            Order::Ops => "ops",
            Order::Read => "read",
            Order::Written => "written",
            Order::Wait => "io wait",
            Order::Dirty => "dirty",
        }
    }
}

/// Differences of counters over an interval. What began again counts from nothing.
struct Interval {
    seconds: f64,
}

impl Interval {
    fn rate(&self, before: u64, now: u64) -> f64 {
        now.saturating_sub(before) as f64 / self.seconds
    }
}

impl Frame {
    /// Averages since the node started.
    pub fn since_start(now: &Stats) -> Frame {
        Frame::between(&Stats::default(), now)
    }

    pub fn between(before: &Stats, now: &Stats) -> Frame {
        let millis = now.at_ms.saturating_sub(before.at_ms).max(1);
        let interval = Interval { seconds: millis as f64 / 1000.0 };
        let nothing = MountStats::default();
        let mounts = now.mounts.iter().map(|mount| {
            let earlier = before.mounts.iter().find(|m| m.namespace == mount.namespace);
            mount_frame(&interval, earlier.unwrap_or(&nothing), mount)
        });
        Frame {
            seconds: interval.seconds,
            node: node_frame(&interval, before, now),
            mounts: mounts.collect(),
        }
    }

    pub fn sort(&mut self, order: Order) {
        let by = |a: f64, b: f64| b.total_cmp(&a);
        self.mounts.sort_by(|a, b| {
            match order {
                Order::Name => std::cmp::Ordering::Equal,
                Order::Ops => by(a.ops_per_s, b.ops_per_s),
                Order::Read => by(a.read_bytes_per_s, b.read_bytes_per_s),
                Order::Written => by(a.written_bytes_per_s, b.written_bytes_per_s),
                Order::Wait => by(a.io_wait, b.io_wait),
                Order::Dirty => b.dirty_bytes.cmp(&a.dirty_bytes),
            }
            .then_with(|| a.namespace.cmp(&b.namespace))
        });
    }
}

fn node_frame(interval: &Interval, before: &Stats, now: &Stats) -> NodeFrame {
    let of = |stats: &Stats, name: &str| stats.reads.get(name).copied().unwrap_or(0);
    let grown = |name: &str| of(now, name).saturating_sub(of(before, name));
    let rate = |name: &str| interval.rate(of(before, name), of(now, name));
    let all = grown("memory_hits") + grown("disk_hits") + grown("misses");
    let share = |name: &str| (all > 0).then(|| grown(name) as f64 / all as f64);
    let gauge = |name: &str| now.store.get(name).copied().unwrap_or(0.0);
    // Counters that name such a thing, whichever they are.
    let named = |part: &str| {
        let counters = now.store.iter().filter(|(name, _)| name.contains(part) && name.ends_with("_total"));
        counters
            .map(|(name, value)| {
                (value - before.store.get(name).copied().unwrap_or(0.0)).max(0.0) / interval.seconds
            })
            .reduce(|a, b| a + b)
    };
    NodeFrame {
        memory_bytes: now.memory_bytes,
        cache_bytes: now.cache_bytes,
        cache_bytes_max: now.cache_bytes_max,
        memory_hits: share("memory_hits"),
        disk_hits: share("disk_hits"),
        store_reads: share("misses"),
        fetched_bytes_per_s: rate("fetched_bytes"),
        prefetch_useful_per_s: rate("prefetch_useful"),
        prefetch_wasted_per_s: rate("prefetch_wasted"),
        store_in_flight: gauge("in_flight"),
        store_waiting: gauge("waiting"),
        hedges_per_s: named("hedge"),
        stragglers_per_s: named("straggler"),
    }
}

fn mount_frame(interval: &Interval, before: &MountStats, now: &MountStats) -> MountFrame {
    let nothing = OpStats::default();
    let earlier = |op: &str| before.ops.iter().find(|o| o.op == op).unwrap_or(&nothing);
    let mut ops: Vec<OpFrame> = now
        .ops
        .iter()
        .map(|op| op_frame(interval, earlier(&op.op), op))
        .filter(|op| op.count > 0 || op.in_flight > 0)
        .collect();
    ops.sort_by(|a, b| {
        b.waited_seconds.total_cmp(&a.waited_seconds).then(b.count.cmp(&a.count)).then(a.op.cmp(&b.op))
    });
    let waited = sum(ops.iter().filter(|op| IO.contains(&op.op.as_str())).map(|op| op.waited_seconds));
    let tiers = tier_frames(interval, before, now);
    MountFrame {
        namespace: now.namespace.clone(),
        mode: now.mode.clone(),
        dirs: now.dirs.clone(),
        ops_per_s: sum(ops.iter().map(|op| op.per_s)),
        read_bytes_per_s: sum(tiers.iter().map(|tier| tier.bytes_per_s)),
        written_bytes_per_s: interval.rate(before.written_bytes, now.written_bytes),
        io_wait: waited / interval.seconds,
        in_flight: ops.iter().map(|op| op.in_flight).sum(),
        dirty_bytes: now.dirty_bytes,
        dirty_files: now.dirty_files,
        drain_bytes_per_s: now.drain_bytes_per_s,
        left_ms: now.left_ms,
        error: now.error.clone(),
        tiers,
        ops,
    }
}

/// Of nothing it is 0; what the standard library says is -0.
fn sum(of: impl Iterator<Item = f64>) -> f64 {
    of.fold(0.0, |a, b| a + b)
}

fn tier_frames(interval: &Interval, before: &MountStats, now: &MountStats) -> Vec<TierFrame> {
    let earlier = |tier: &str| {
        before.tiers.iter().find(|t| t.tier == tier).map_or((0, 0), |tier| (tier.reads, tier.bytes))
    };
    let mut tiers: Vec<TierFrame> = now
        .tiers
        .iter()
        .map(|tier| {
            let (reads, bytes) = earlier(&tier.tier);
            TierFrame {
                tier: tier.tier.clone(),
                share: 0.0,
                reads: tier.reads.saturating_sub(reads),
                bytes: tier.bytes.saturating_sub(bytes),
                bytes_per_s: interval.rate(bytes, tier.bytes),
            }
        })
        .collect();
    let all: u64 = tiers.iter().map(|tier| tier.reads).sum();
    for tier in &mut tiers {
        tier.share = tier.reads as f64 / all.max(1) as f64;
    }
    tiers
}

fn op_frame(interval: &Interval, before: &OpStats, now: &OpStats) -> OpFrame {
    let took = Counts(now.took.clone()).since(&Counts(before.took.clone()));
    let quantile = |part| took.quantile(part).map(|took| took.as_micros() as u64);
    OpFrame {
        op: now.op.clone(),
        count: now.count.saturating_sub(before.count),
        per_s: interval.rate(before.count, now.count),
        failed: now.failed.saturating_sub(before.failed),
        in_flight: now.in_flight,
        waited: now.waited.saturating_sub(before.waited),
        waited_seconds: now.waited_ns.saturating_sub(before.waited_ns) as f64 / 1e9,
        p50_us: quantile(0.5),
        p95_us: quantile(0.95),
        p99_us: quantile(0.99),
        p999_us: quantile(0.999),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::wire::observe::TierStats;
    use granary_fuse::adapter::histogram::bucket_of;
    use std::collections::BTreeMap;
    use std::time::Duration;

    fn op(name: &str, count: u64, micros: u64, waited_ns: u64) -> OpStats {
        OpStats {
            op: name.into(),
            count,
            failed: 0,
            in_flight: 1,
            waited: u64::from(waited_ns > 0),
            waited_ns,
            took: vec![(bucket_of(Duration::from_micros(micros)) as u16, count - 1)],
        }
    }

    pub fn before() -> Stats {
        Stats {
            at_ms: 10_000,
            reads: BTreeMap::from([("memory_hits".into(), 10), ("misses".into(), 5)]),
            store: BTreeMap::from([("hedges_total".into(), 2.0)]),
            mounts: vec![MountStats {
                namespace: "user/alice".into(),
                ops: vec![op("read", 101, 4, 0)],
                tiers: vec![TierStats { tier: "store".into(), reads: 1, bytes: 1 << 20 }],
                ..MountStats::default()
            }],
            ..Stats::default()
        }
    }

    pub fn now() -> Stats {
        let mut read = op("read", 101, 4, 3_000_000_000);
        read.count = 301;
        read.took.push((bucket_of(Duration::from_millis(100)) as u16, 200));
        Stats {
            at_ms: 12_000,
            memory_bytes: 100 << 20,
            cache_bytes: 1 << 30,
            cache_bytes_max: 64 << 30,
            reads: BTreeMap::from([
                ("memory_hits".into(), 40),
                ("misses".into(), 15),
                ("prefetch_useful".into(), 4),
            ]),
            store: BTreeMap::from([("hedges_total".into(), 6.0), ("in_flight".into(), 3.0)]),
            mounts: vec![
                MountStats {
                    namespace: "user/alice".into(),
                    mode: "work".into(),
                    dirs: vec!["/mnt/alice".into()],
                    written_bytes: 8 << 20,
                    tiers: vec![
                        TierStats { tier: "stage".into(), reads: 3, bytes: 1 << 20 },
                        TierStats { tier: "store".into(), reads: 2, bytes: 5 << 20 },
                    ],
                    ops: vec![op("getattr", 5, 2, 0), read],
                    dirty_bytes: 3 << 20,
                    dirty_files: 7,
                    drain_bytes_per_s: Some(1 << 20),
                    left_ms: Some(3_000),
                    ..MountStats::default()
                },
                MountStats { namespace: "group/asr".into(), mode: "data".into(), ..MountStats::default() },
            ],
        }
    }

    #[test]
    fn rates_are_differences_over_the_time_between() {
        let frame = Frame::between(&before(), &now());
        let alice = &frame.mounts[0];
        assert_eq!((frame.seconds, alice.ops_per_s, alice.io_wait, alice.in_flight), (2.0, 102.5, 1.5, 2));
        assert_eq!(
            (alice.read_bytes_per_s, alice.written_bytes_per_s),
            (2.5 * f64::from(1 << 20), f64::from(4 << 20))
        );
        assert_eq!((alice.tiers[0].share, alice.tiers[1].share), (0.75, 0.25));
        let read = &alice.ops[0];
        assert_eq!((read.op.as_str(), read.count, read.per_s), ("read", 200, 100.0));
        let p50 = read.p50_us.unwrap();
        assert!((90_000..115_000).contains(&p50), "the fast ones were before: {p50}");
        let node = &frame.node;
        assert_eq!((node.memory_hits, node.disk_hits, node.store_reads), (Some(0.75), Some(0.0), Some(0.25)));
        assert_eq!((node.hedges_per_s, node.stragglers_per_s), (Some(2.0), None));
        assert_eq!((node.store_in_flight, node.prefetch_useful_per_s), (3.0, 2.0));
    }

    #[test]
    fn a_counter_that_began_again_is_no_negative_rate() {
        let frame = Frame::between(&now(), &Stats { at_ms: 13_000, ..before() });
        assert_eq!(frame.mounts[0].ops_per_s, 0.0);
        assert_eq!(frame.mounts[0].read_bytes_per_s, 0.0);
    }

    #[test]
    fn mounts_come_in_the_order_that_was_chosen() {
        let mut frame = Frame::between(&before(), &now());
        let first = |frame: &Frame| frame.mounts[0].namespace.clone();
        let mut order = Order::Name;
        for wanted in ["group/asr", "user/alice", "user/alice", "user/alice", "user/alice", "user/alice"] {
            frame.sort(order);
            assert_eq!(first(&frame), wanted, "{}", order.name());
            order = order.next();
        }
        assert_eq!(order, Order::Name);
    }
}
