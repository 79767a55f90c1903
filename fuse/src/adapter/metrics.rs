//! What a mount was asked, how often, and how long answers took. Atomics only, nothing is allocated after the start.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

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

/// Bucket `i` counts answers that took less than `2^i` microseconds (and not less than half of that); the last one the rest.
const BUCKETS: usize = 24;
const OPS: usize = Op::ALL.len();

#[derive(Debug, Default)]
struct PerOp {
    begun: AtomicU64,
    failed: AtomicU64,
    sum_ns: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

/// One mount's figures.
#[derive(Debug)]
pub struct Metrics {
    namespace: String,
    ops: [PerOp; OPS],
}

impl Metrics {
    pub fn new(namespace: impl Into<String>) -> Arc<Metrics> {
        Arc::new(Metrics { namespace: namespace.into(), ops: std::array::from_fn(|_| PerOp::default()) })
    }

    /// Shows them in `registry` from now on.
    pub fn register(self: &Arc<Metrics>, registry: &mut Registry) {
        registry.register_collector(Box::new(self.clone()));
    }

    /// Requests of this kind that came, answered or not.
    pub fn count(&self, op: Op) -> u64 {
        self.ops[op as usize].begun.load(Ordering::Relaxed)
    }

    /// All kinds that came at least once.
    pub fn counts(&self) -> Vec<(Op, u64)> {
        Op::ALL.iter().map(|&op| (op, self.count(op))).filter(|&(_, n)| n > 0).collect()
    }

    pub(super) fn begin(&self, op: Op) {
        self.ops[op as usize].begun.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end(&self, op: Op, took: Duration, failed: bool) {
        let per_op = &self.ops[op as usize];
        let micros = took.as_micros() as u64;
        let bucket = ((u64::BITS - micros.leading_zeros()) as usize).min(BUCKETS - 1);
        per_op.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        per_op.sum_ns.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
        if failed {
            per_op.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Collector for Metrics {
    fn encode(&self, encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        Metrics::encode_all(&[self], encoder)
    }
}

impl Metrics {
    /// Several mounts' figures: each family has one description, and samples of every mount.
    pub fn encode_all(mounts: &[&Metrics], mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let seen: Vec<(&Metrics, Op)> =
            mounts.iter().flat_map(|m| m.counts().into_iter().map(|(op, _)| (*m, op))).collect();
        {
            let mut family = encoder.encode_descriptor(
                "granary_fuse_request_seconds",
                "Time from reading a request to its answer",
                None,
                MetricType::Histogram,
            )?;
            for &(mount, op) in &seen {
                let per_op = &mount.ops[op as usize];
                let buckets: Vec<(f64, u64)> = per_op
                    .buckets
                    .iter()
                    .enumerate()
                    .map(|(i, n)| {
                        let upper = if i + 1 == BUCKETS { f64::MAX } else { (1_u64 << i) as f64 / 1e6 };
                        (upper, n.load(Ordering::Relaxed))
                    })
                    .collect();
                let count = buckets.iter().map(|(_, n)| n).sum();
                let sum = per_op.sum_ns.load(Ordering::Relaxed) as f64 / 1e9;
                let labels = [("namespace", mount.namespace.as_str()), ("op", op.name())];
                family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
            }
        }
        let mut family = encoder.encode_descriptor(
            "granary_fuse_request_errors",
            "Requests answered with an errno other than a plain absence",
            None,
            MetricType::Counter,
        )?;
        for &(mount, op) in &seen {
            let failed = mount.ops[op as usize].failed.load(Ordering::Relaxed);
            let labels = [("namespace", mount.namespace.as_str()), ("op", op.name())];
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&failed, None)?;
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
        assert_eq!(metrics.counts(), vec![(Op::Read, 2), (Op::CopyFileRange, 1)]);
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            r#"granary_fuse_request_seconds_count{namespace="user/alice",op="read"} 2"#,
            r#"granary_fuse_request_seconds_bucket{le="0.000004",namespace="user/alice",op="read"} 1"#,
            r#"granary_fuse_request_seconds_bucket{le="+Inf",namespace="user/alice",op="read"} 2"#,
            r#"granary_fuse_request_errors_total{namespace="user/alice",op="read"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn every_op_has_its_own_place() {
        for (i, &op) in Op::ALL.iter().enumerate() {
            assert_eq!(op as usize, i);
        }
    }
}
