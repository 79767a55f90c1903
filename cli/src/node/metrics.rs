//! What Prometheus sees: the store's counters, and the state of every namespace on this node, read when asked.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use granary_cache::ReadCache;
use granary_core::{ByteBudget, Clock};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use tokio::net::TcpListener;

use super::lock::disk_room;
use super::table::{Space, Table};
use crate::exit::{Failure, Outcome};

/// At this address, when metrics are wanted.
pub async fn listen(address: Option<SocketAddr>) -> Outcome<Option<TcpListener>> {
    let Some(address) = address else { return Ok(None) };
    let listener = TcpListener::bind(address).await.map_err(|e| {
        Failure::io(format!("cannot listen at {address} for metrics (setting metrics_port)"), &e)
    })?;
    Ok(Some(listener))
}

/// Resident memory of this process, in bytes; 0 when the kernel does not say.
pub fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix("kB")).and_then(|n| n.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Adds what is read when asked.
pub fn register(
    registry: &mut Registry,
    table: Arc<Table>,
    reads: Arc<ReadCache>,
    cache: &Path,
    memory: ByteBudget,
    clock: Arc<dyn Clock>,
) {
    registry.register_collector(Box::new(MountCollector { table: table.clone(), clock }));
    registry.register_collector(Box::new(NodeCollector { table, reads, cache: cache.to_owned(), memory }));
}

/// What the kernel asked of each mount.
struct MountCollector {
    table: Arc<Table>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for MountCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MountCollector").finish_non_exhaustive()
    }
}

impl Collector for MountCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let spaces = self.table.spaces();
        let all: Vec<&granary_fuse::Metrics> = spaces.iter().map(|space| &*space.metrics).collect();
        granary_fuse::Metrics::encode_all(&all, self.clock.monotonic(), encoder)
    }
}

struct NodeCollector {
    table: Arc<Table>,
    reads: Arc<ReadCache>,
    cache: PathBuf,
    memory: ByteBudget,
}

impl fmt::Debug for NodeCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeCollector").finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    namespace: String,
}

type Value = fn(&Space) -> u64;

impl Collector for NodeCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let spaces = self.table.spaces();
        let gauges: [(&str, &str, Option<&Unit>, Value); 13] = [
            ("granary_dirty", "Bytes not yet in the store", Some(&Unit::Bytes), |s| s.status.dirty_bytes),
            ("granary_dirty_files", "Files not yet in the store", None, |s| s.status.dirty_files),
            ("granary_oldest_dirty_milliseconds", "Age of the oldest byte not yet in the store", None, |s| {
                s.status.oldest_dirty_ms
            }),
            ("granary_drain_failing", "1 while storing fails and is tried again", None, |s| {
                u64::from(s.status.error.is_some())
            }),
            ("granary_disk_failing", "1 while the node's disk does not take what is written", None, |s| {
                u64::from(s.status.disk_error.is_some())
            }),
            (
                "granary_stage_damaged",
                "1 while the node's disk does not give back what is staged",
                None,
                |s| u64::from(s.status.damage.is_some()),
            ),
            (
                "granary_drain_bytes_per_second",
                "Bytes a second that reach the store; 0 while nothing drains",
                None,
                |s| s.status.drain_bytes_per_s.unwrap_or(0),
            ),
            (
                "granary_drain_left_milliseconds",
                "How long what is dirty takes; 0 while that is not known",
                None,
                |s| s.status.left_ms.unwrap_or(0),
            ),
            ("granary_drain_retry_milliseconds", "When storing is tried again that fails", None, |s| {
                s.status.retry_in_ms.unwrap_or(0)
            }),
            ("granary_dirty_max", "Limit of bytes not yet in the store", Some(&Unit::Bytes), |s| {
                s.status.policy.dirty_bytes_max
            }),
            ("granary_dirty_files_max", "Limit of files not yet in the store", None, |s| {
                s.status.policy.dirty_files_max
            }),
            ("granary_uploads_max", "Uploads at once", None, |s| u64::from(s.status.policy.uploads_max)),
            ("granary_mountpoints", "Directories at which the namespace is mounted", None, |s| {
                s.dirs.len() as u64
            }),
        ];
        for (name, help, unit, value) in gauges {
            let family =
                encoder.encode_descriptor(name, help, unit, prometheus_client::metrics::MetricType::Gauge)?;
            each(family, &spaces, |space, encoder| ConstGauge::new(value(space) as i64).encode(encoder))?;
        }
        let counters: [(&str, &str, Option<&Unit>, Value); 4] = [
            ("granary_uploaded", "Bytes of objects stored", Some(&Unit::Bytes), |s| s.status.uploaded_bytes),
            ("granary_uploaded_objects", "Objects stored", None, |s| s.status.uploaded_objects),
            (
                "granary_compacted",
                "Bytes of objects that were rewritten because they were mostly dead or small",
                Some(&Unit::Bytes),
                |s| s.status.compacted_bytes,
            ),
            ("granary_compaction_written", "Bytes stored to rewrite objects", Some(&Unit::Bytes), |s| {
                s.status.compaction_written_bytes
            }),
        ];
        for (name, help, unit, value) in counters {
            let family = encoder.encode_descriptor(
                name,
                help,
                unit,
                prometheus_client::metrics::MetricType::Counter,
            )?;
            each(family, &spaces, |space, encoder| ConstCounter::new(value(space)).encode(encoder))?;
        }
        encode_tiers(&mut encoder, &spaces)?;
        let family = encoder.encode_descriptor(
            "granary_read_cache_namespace",
            "Bytes in the read cache that are known to be the namespace's, without clean copies of whole files",
            Some(&Unit::Bytes),
            prometheus_client::metrics::MetricType::Gauge,
        )?;
        each(family, &spaces, |space, encoder| {
            ConstGauge::new(self.reads.namespace_bytes(space.id) as i64).encode(encoder)
        })?;
        for (name, count) in self.reads.stats().named() {
            let name = format!("granary_read_cache_{name}");
            let counter = ConstCounter::new(count);
            let one = encoder.encode_descriptor(
                &name,
                "Of the read cache, since it was opened",
                None,
                counter.metric_type(),
            )?;
            counter.encode(one)?;
        }
        let free = disk_room(&self.cache).map_or(0, |(free, _)| free);
        for (name, help, value) in [
            ("granary_memory_resident", "Resident memory of the node process", resident_bytes()),
            ("granary_memory_in_flight", "Memory held by data in flight", self.memory.used()),
            ("granary_memory_in_flight_max", "Limit of the memory held by data in flight", self.memory.max()),
            ("granary_read_cache", "Bytes in the read cache", self.reads.usage().0),
            ("granary_cache_disk_free", "Free space of the cache's disk", free),
        ] {
            let gauge = ConstGauge::new(value as i64);
            let one = encoder.encode_descriptor(name, help, Some(&Unit::Bytes), gauge.metric_type())?;
            gauge.encode(one)?;
        }
        Ok(())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TierLabels {
    namespace: String,
    tier: &'static str,
}

/// Where what was read came from.
fn encode_tiers(encoder: &mut DescriptorEncoder<'_>, spaces: &[Space]) -> fmt::Result {
    type Value = fn(&granary_cache::ServedFrom) -> u64;
    let families: [(&str, &str, Option<&Unit>, Value); 2] = [
        ("granary_reads", "Stretches of reads that each place answered", None, |s| s.reads),
        ("granary_read", "Bytes that were read from each place", Some(&Unit::Bytes), |s| s.bytes),
    ];
    for (name, help, unit, value) in families {
        let kind = prometheus_client::metrics::MetricType::Counter;
        let mut family = encoder.encode_descriptor(name, help, unit, kind)?;
        for space in spaces {
            for served in &space.served {
                let labels = TierLabels { namespace: space.name.to_string(), tier: served.tier.name() };
                ConstCounter::new(value(served)).encode(family.encode_family(&labels)?)?;
            }
        }
    }
    Ok(())
}

/// One sample for each namespace.
fn each(
    mut family: prometheus_client::encoding::MetricEncoder<'_>,
    spaces: &[Space],
    sample: impl Fn(&Space, prometheus_client::encoding::MetricEncoder<'_>) -> fmt::Result,
) -> fmt::Result {
    for space in spaces {
        let labels = Labels { namespace: space.name.to_string() };
        sample(space, family.encode_family(&labels)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory() {
        assert!(resident_bytes() > 1 << 20);
    }
}
