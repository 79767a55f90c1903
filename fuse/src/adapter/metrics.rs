//! What a mount was asked, how often, and how long answers took. A request that need not wait costs two atomic additions: that
//! it came, and its place in the histogram. Nothing is allocated after the start; a mount has 72 KiB of it.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::histogram::{self, Counts, Histogram};
use super::trace::Trace;

macro_rules! ops {
    ($($name:ident = $text:literal),* $(,)?) => {
        /// The kernel's requests.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Op { $($name),* }

        impl Op {
            pub const ALL: &'static [Op] = &[$(Op::$name),*];

            pub fn name(self) -> &'static str {
                match self { $(Op::$name => $text),* }
            }
        }
    };
}

ops! {
    Lookup = "lookup", Forget = "forget", Getattr = "getattr", Setattr = "setattr", Readlink = "readlink",
    Mknod = "mknod", Mkdir = "mkdir", Symlink = "symlink", Link = "link", Unlink = "unlink", Rmdir = "rmdir",
    Rename = "rename", Create = "create", Open = "open", Read = "read", Write = "write", Flush = "flush",
    Release = "release", Fsync = "fsync", Opendir = "opendir", Readdir = "readdir", Readdirplus = "readdirplus",
    Releasedir = "releasedir", Fsyncdir = "fsyncdir", Statfs = "statfs", Setxattr = "setxattr",
    Getxattr = "getxattr", Listxattr = "listxattr", Removexattr = "removexattr", Fallocate = "fallocate",
    Lseek = "lseek", CopyFileRange = "copy_file_range", Ioctl = "ioctl", Other = "other",
    Statx = "statx", Tmpfile = "tmpfile", Getlk = "getlk", Setlk = "setlk", Syncfs = "syncfs",
}

impl Op {
    /// Programs that wait for one of these wait for data, or for a name that leads to it.
    pub const IO: [Op; 3] = [Op::Read, Op::Open, Op::Lookup];
}

const OPS: usize = Op::ALL.len();
/// The borders that Prometheus sees, in microseconds: `2^i` below this, and infinity. Finer ones are for [`Snapshot`].
const BORDERS: usize = 24;

/// Requests that could not be answered on the thread that read them.
#[derive(Clone, Copy, Debug, Default)]
struct Waiting {
    /// Not answered yet, and the sum of the times since when.
    now: u32,
    since: Duration,
    /// Answered, and how long they waited together.
    ended: u64,
    took: Duration,
}

#[derive(Debug, Default)]
struct PerOp {
    begun: AtomicU64,
    /// Came, and are not measured.
    unmeasured: AtomicU64,
    failed: AtomicU64,
    took: Histogram,
    /// Guards the figures together, for an addition; only requests that wait come here.
    waiting: Mutex<Waiting>,
}

impl PerOp {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was counted of one kind of request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub op: Op,
    /// Came, answered or not.
    pub count: u64,
    pub failed: u64,
    /// Not answered yet.
    pub in_flight: u64,
    /// Requests that waited, in which also those that do still are, and for how long together, until now.
    pub waited: u64,
    pub waited_for: Duration,
    /// Times from reading a request to its answer, in buckets of [`histogram`].
    pub took: Counts,
}

/// One mount's figures.
#[derive(Debug)]
pub struct Metrics {
    namespace: String,
    ops: [PerOp; OPS],
    written_bytes: AtomicU64,
    trace: Arc<Trace>,
}

impl Metrics {
    pub fn new(namespace: impl Into<String>) -> Arc<Metrics> {
        Arc::new(Metrics {
            namespace: namespace.into(),
            ops: std::array::from_fn(|_| PerOp::default()),
            written_bytes: AtomicU64::new(0),
            trace: Arc::default(),
        })
    }

    /// Shows them in `registry` from now on.
    pub fn register(self: &Arc<Metrics>, registry: &mut Registry) {
        registry.register_collector(Box::new(self.clone()));
    }

    /// Requests of this kind that came, answered or not.
    pub fn count(&self, op: Op) -> u64 {
        let per_op = &self.ops[op as usize];
        per_op.begun.load(Ordering::Relaxed) + per_op.unmeasured.load(Ordering::Relaxed)
    }

    /// All kinds that came at least once.
    pub fn counts(&self) -> Vec<(Op, u64)> {
        Op::ALL.iter().map(|&op| (op, self.count(op))).filter(|&(_, n)| n > 0).collect()
    }

    /// Bytes that WRITE requests brought. What the kernel writes itself (passthrough) is not seen.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }

    /// Who watches slow requests.
    pub fn trace(&self) -> &Arc<Trace> {
        &self.trace
    }

    /// Of all kinds that came at least once. `now`: of the monotonic clock that requests are measured by.
    pub fn snapshot(&self, now: Duration) -> Vec<Snapshot> {
        let seen = Op::ALL.iter().filter(|&&op| self.count(op) > 0);
        seen.map(|&op| {
            let per_op = &self.ops[op as usize];
            let took = per_op.took.snapshot();
            let waiting = *per_op.waiting();
            Snapshot {
                op,
                count: self.count(op),
                failed: per_op.failed.load(Ordering::Relaxed),
                // Counted at different moments: one that was answered in between does not make it less than nothing.
                in_flight: per_op.begun.load(Ordering::Relaxed).saturating_sub(took.total()),
                waited: waiting.ended + u64::from(waiting.now),
                waited_for: waiting.took + (now * waiting.now).saturating_sub(waiting.since),
                took,
            }
        })
        .collect()
    }

    pub(super) fn begin(&self, op: Op) {
        self.ops[op as usize].begun.fetch_add(1, Ordering::Relaxed);
    }

    /// A request that is not measured.
    pub(super) fn came(&self, op: Op) {
        self.ops[op as usize].unmeasured.fetch_add(1, Ordering::Relaxed);
    }

    /// A request that came at `since` could not be answered at once.
    pub(super) fn waits(&self, op: Op, since: Duration) {
        let mut waiting = self.ops[op as usize].waiting();
        waiting.now += 1;
        waiting.since += since;
    }

    /// It is answered.
    pub(super) fn waited(&self, op: Op, since: Duration, took: Duration) {
        let mut waiting = self.ops[op as usize].waiting();
        waiting.now -= 1;
        waiting.since -= since;
        waiting.ended += 1;
        waiting.took += took;
    }

    pub(super) fn end(&self, op: Op, took: Duration, failed: bool) {
        let per_op = &self.ops[op as usize];
        per_op.took.count(took);
        if failed {
            per_op.failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn wrote(&self, bytes: u32) {
        self.written_bytes.fetch_add(u64::from(bytes), Ordering::Relaxed);
    }
}

/// Without a clock: of what waits still, nothing is shown.
impl Collector for Metrics {
    fn encode(&self, encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        Metrics::encode_all(&[self], Duration::ZERO, encoder)
    }
}

/// Below which border how many were counted: each alone, as the encoder wants them.
fn prometheus_buckets(took: &Counts) -> Vec<(f64, u64)> {
    let mut buckets: Vec<(f64, u64)> = (0..BORDERS).map(|i| ((1_u64 << i) as f64 / 1e6, 0)).collect();
    buckets.push((f64::MAX, 0));
    for &(bucket, n) in &took.0 {
        let from = histogram::lower_bound(bucket as usize).as_secs_f64();
        let at = buckets.partition_point(|&(border, _)| border <= from);
        buckets[at].1 += n;
    }
    buckets
}

impl Metrics {
    /// Several mounts' figures: each family has one description, and samples of every mount. `now` as for
    /// [`Metrics::snapshot`].
    pub fn encode_all(
        mounts: &[&Metrics],
        now: Duration,
        mut encoder: DescriptorEncoder,
    ) -> Result<(), fmt::Error> {
        let seen: Vec<(&str, Snapshot)> = mounts
            .iter()
            .flat_map(|m| m.snapshot(now).into_iter().map(|snapshot| (m.namespace.as_str(), snapshot)))
            .collect();
        {
            let mut family = encoder.encode_descriptor(
                "granary_fuse_request_seconds",
                "Time from reading a request to its answer; its sum is right to a sixteenth",
                None,
                MetricType::Histogram,
            )?;
            for (namespace, s) in &seen {
                let labels = [("namespace", *namespace), ("op", s.op.name())];
                let buckets = prometheus_buckets(&s.took);
                let (sum, count) = (s.took.sum().as_secs_f64(), s.took.total());
                family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
            }
        }
        type Value = fn(&Snapshot) -> f64;
        let families: [(&str, &str, MetricType, Value); 4] = [
            (
                "granary_fuse_request_errors",
                "Requests answered with an errno other than a plain absence",
                MetricType::Counter,
                |s| s.failed as f64,
            ),
            (
                "granary_fuse_waited_requests",
                "Requests that were not ready in memory when they came",
                MetricType::Counter,
                |s| s.waited as f64,
            ),
            (
                "granary_fuse_wait_seconds",
                "Seconds that programs waited for these, those that still wait included",
                MetricType::Counter,
                |s| s.waited_for.as_secs_f64(),
            ),
            ("granary_fuse_in_flight", "Requests that are not answered yet", MetricType::Gauge, |s| {
                s.in_flight as f64
            }),
        ];
        for (name, help, kind, value) in families {
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for (namespace, s) in &seen {
                let labels = [("namespace", *namespace), ("op", s.op.name())];
                let mut sample = family.encode_family(&labels)?;
                match kind {
                    MetricType::Gauge => sample.encode_gauge(&value(s))?,
                    _ => sample.encode_counter::<NoLabelSet, _, u64>(&value(s), None)?,
                }
            }
        }
        let mut family = encoder.encode_descriptor(
            "granary_io_wait_seconds",
            "Seconds that programs waited for data, or a name that leads to it: read, open and lookup together",
            None,
            MetricType::Counter,
        )?;
        for mount in mounts {
            let labels = [("namespace", mount.namespace.as_str())];
            let waited = mount.snapshot(now).into_iter().filter(|s| Op::IO.contains(&s.op));
            let seconds = waited.map(|s| s.waited_for).sum::<Duration>().as_secs_f64();
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&seconds, None)?;
        }
        let mut family = encoder.encode_descriptor(
            "granary_written_bytes",
            "Bytes that programs wrote through the node process",
            None,
            MetricType::Counter,
        )?;
        for mount in mounts {
            let labels = [("namespace", mount.namespace.as_str())];
            let bytes = mount.written_bytes();
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&bytes, None)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_shown() {
        let metrics = Metrics::new("user/alice");
        metrics.begin(Op::Read);
        metrics.end(Op::Read, Duration::from_micros(3), false);
        metrics.begin(Op::Read);
        metrics.end(Op::Read, Duration::from_secs(100), true);
        metrics.begin(Op::CopyFileRange);
        metrics.waits(Op::CopyFileRange, Duration::from_secs(1));
        metrics.came(Op::Forget);
        metrics.wrote(4096);
        assert_eq!(metrics.counts(), vec![(Op::Forget, 1), (Op::Read, 2), (Op::CopyFileRange, 1)]);
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            r#"granary_fuse_request_seconds_count{namespace="user/alice",op="read"} 2"#,
            r#"granary_fuse_request_seconds_bucket{le="0.000004",namespace="user/alice",op="read"} 1"#,
            r#"granary_fuse_request_seconds_bucket{le="+Inf",namespace="user/alice",op="read"} 2"#,
            r#"granary_fuse_request_errors_total{namespace="user/alice",op="read"} 1.0"#,
            r#"granary_fuse_in_flight{namespace="user/alice",op="copy_file_range"} 1.0"#,
            r#"granary_fuse_in_flight{namespace="user/alice",op="forget"} 0.0"#,
            r#"granary_written_bytes_total{namespace="user/alice"} 4096"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn who_waits_is_counted_while_he_waits() {
        let second = Duration::from_secs(1);
        let metrics = Metrics::new("user/alice");
        let io = |now: u32| {
            let all = metrics.snapshot(second * now);
            let read = all.iter().find(|s| s.op == Op::Read).unwrap();
            (read.waited, read.waited_for, read.in_flight)
        };
        metrics.begin(Op::Read);
        metrics.begin(Op::Read);
        assert_eq!(io(9), (0, Duration::ZERO, 2));
        metrics.waits(Op::Read, second * 10);
        metrics.waits(Op::Read, second * 12);
        assert_eq!(io(13), (2, second * 4, 2));
        metrics.waited(Op::Read, second * 10, second * 5);
        metrics.end(Op::Read, second * 5, false);
        assert_eq!(io(16), (2, second * 9, 1));
        metrics.waited(Op::Read, second * 12, second * 4);
        metrics.end(Op::Read, second * 4, false);
        assert_eq!(io(100), (2, second * 9, 0));
    }

    #[test]
    fn every_border_of_prometheus_is_one_of_ours() {
        let h = Histogram::default();
        for micros in [0, 1, 2, 3, 4, 1 << 22, 1 << 23, 1 << 24] {
            h.count(Duration::from_micros(micros));
        }
        let buckets = prometheus_buckets(&h.snapshot());
        let of = |i: usize| buckets[i].1;
        assert_eq!((of(0), of(1), of(2), of(3)), (1, 1, 2, 1), "{buckets:?}");
        assert_eq!((of(BORDERS - 1), of(BORDERS)), (1, 2));
        assert_eq!(buckets.iter().map(|(_, n)| n).sum::<u64>(), 8);
    }

    #[test]
    fn every_op_has_its_own_place() {
        for (i, &op) in Op::ALL.iter().enumerate() {
            assert_eq!(op as usize, i);
        }
    }
}
