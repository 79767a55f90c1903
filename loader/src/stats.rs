//! What a loader has done: counted where it happens, read at any time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use granary_core::Error;
use serde::Serialize;

/// Messages of samples that could not be read that are kept.
pub const MESSAGES_MAX: usize = 16;

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub batches: AtomicU64,
    pub samples: AtomicU64,
    pub bytes: AtomicU64,
    pub wait_ns: AtomicU64,
    pub waits: AtomicU64,
    pub skipped: AtomicU64,
    pub substituted: AtomicU64,
    pub overtaken: AtomicU64,
    pub decode_ns: AtomicU64,
    pub requests: AtomicU64,
    pub request_bytes: AtomicU64,
    pub cache_hit_bytes: AtomicU64,
    pub cache_miss_bytes: AtomicU64,
    /// Guards the first messages; held to add one.
    messages: Mutex<Vec<String>>,
}

/// Since the loader was made.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    pub batches: u64,
    pub samples: u64,
    /// Of samples' files.
    pub bytes: u64,
    /// How long `next_batch` waited for data, all together, and how often it had to.
    pub data_wait_seconds: f64,
    pub data_waits: u64,
    /// How long threads decoded, all together.
    pub decode_seconds: f64,
    /// Batches that are ready now.
    pub ready_batches: u64,
    /// Batches that may be ready or under way now.
    pub ahead_batches: u64,
    /// Samples left out, and samples that others stand in for.
    pub skipped: u64,
    pub substituted: u64,
    /// Batches given before one that should have come first.
    pub overtaken: u64,
    /// Ranges asked of the store, and their bytes; retries and hedges not counted.
    pub requests: u64,
    pub request_bytes: u64,
    /// Requests that were sent a second time since the first was late; of sources that the loader's process opened by name.
    pub hedges: u64,
    /// Bytes of chunks that the disk cache had, and had not.
    pub cache_hit_bytes: u64,
    pub cache_miss_bytes: u64,
    /// The first of the messages of samples that could not be read.
    pub messages: Vec<String>,
}

impl Counters {
    pub fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    pub fn waited(&self, time: Duration) {
        Counters::add(&self.wait_ns, time.as_nanos() as u64);
    }

    pub fn errors(&self, errors: &[Error]) {
        if errors.is_empty() {
            return;
        }
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        let room = MESSAGES_MAX - messages.len();
        messages.extend(errors.iter().take(room).map(|e| e.to_string()));
    }

    pub fn stats(&self) -> Stats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            batches: get(&self.batches),
            samples: get(&self.samples),
            bytes: get(&self.bytes),
            data_wait_seconds: get(&self.wait_ns) as f64 / 1e9,
            data_waits: get(&self.waits),
            decode_seconds: get(&self.decode_ns) as f64 / 1e9,
            ready_batches: 0,
            ahead_batches: 0,
            skipped: get(&self.skipped),
            substituted: get(&self.substituted),
            overtaken: get(&self.overtaken),
            requests: get(&self.requests),
            request_bytes: get(&self.request_bytes),
            hedges: 0,
            cache_hit_bytes: get(&self.cache_hit_bytes),
            cache_miss_bytes: get(&self.cache_miss_bytes),
            messages: self.messages.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

impl Stats {
    /// In Prometheus' text.
    pub fn prometheus(&self) -> String {
        let mut text = String::new();
        let mut put = |kind: &str, name: &str, help: &str, value: String| {
            text += &format!("# HELP granary_loader_{name} {help}.\n# TYPE granary_loader_{name} {kind}\n");
            text += &format!("granary_loader_{name} {value}\n");
        };
        for (name, help, seconds) in [
            ("data_wait_seconds_total", "Time that was waited for data", self.data_wait_seconds),
            ("decode_seconds_total", "Time that threads decoded, all together", self.decode_seconds),
        ] {
            put("counter", name, help, seconds.to_string());
        }
        for (name, help, value) in [
            ("batches_total", "Batches given", self.batches),
            ("samples_total", "Samples given", self.samples),
            ("bytes_total", "Bytes of samples given", self.bytes),
            ("data_waits_total", "Batches that were waited for", self.data_waits),
            ("skipped_total", "Samples left out since they could not be read", self.skipped),
            ("substituted_total", "Samples that others stood in for", self.substituted),
            ("overtaken_total", "Batches given before one that straggled", self.overtaken),
            ("requests_total", "Ranges asked of the store", self.requests),
            ("request_bytes_total", "Bytes asked of the store", self.request_bytes),
            ("cache_hit_bytes_total", "Bytes found in the disk cache", self.cache_hit_bytes),
            ("cache_miss_bytes_total", "Bytes not found in the disk cache", self.cache_miss_bytes),
        ] {
            put("counter", name, help, value.to_string());
        }
        for (name, help, value) in [
            ("ready_batches", "Batches that are ready", self.ready_batches),
            ("ahead_batches", "Batches that may be ready or under way", self.ahead_batches),
        ] {
            put("gauge", name, help, value.to_string());
        }
        text
    }
}

/// The sum of a metric's values in such a text.
pub(crate) fn value_of(text: &str, name: &str) -> u64 {
    let values = text.lines().filter_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    values.sum()
}

/// Texts of several registries as one: each metric's lines together, its help once.
pub(crate) fn joined(texts: impl IntoIterator<Item = String>) -> String {
    let mut families: Vec<(String, String, String)> = Vec::new();
    for text in texts {
        let mut now = 0;
        for line in text.lines().filter(|line| *line != "# EOF") {
            if let Some(name) = line.strip_prefix("# HELP ").and_then(|rest| rest.split(' ').next()) {
                now = match families.iter().position(|(known, _, _)| known == name) {
                    Some(at) => at,
                    None => {
                        families.push((name.to_owned(), String::new(), String::new()));
                        families.len() - 1
                    }
                };
            }
            let Some((_, head, values)) = families.get_mut(now) else { continue };
            let (into, once) = if line.starts_with('#') { (head, true) } else { (values, false) };
            if !(once && into.lines().any(|known| known == line)) {
                *into += line;
                into.push('\n');
            }
        }
    }
    families.into_iter().map(|(_, head, values)| head + &values).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_joined_and_each_is_explained_once() {
        let one =
            "# HELP a Of a.\n# TYPE a counter\na{s=\"1\"} 1\n# HELP b Of b.\n# TYPE b gauge\nb 2\n# EOF\n";
        let two = "# HELP a Of a.\n# TYPE a counter\na{s=\"2\"} 3\n# EOF\n";
        assert_eq!(
            joined([one.to_owned(), two.to_owned()]),
            "# HELP a Of a.\n# TYPE a counter\na{s=\"1\"} 1\na{s=\"2\"} 3\n# HELP b Of b.\n# TYPE b gauge\nb 2\n"
        );
    }

    #[test]
    fn a_value_is_found_by_its_whole_name() {
        let text = "# TYPE hedges counter\nhedges_total 3\nhedges_won_total 2\nhedges_total_x 9\n";
        assert_eq!((value_of(text, "hedges_total"), value_of(text, "none")), (3, 0));
    }

    #[test]
    fn only_the_first_messages_are_kept() {
        let counters = Counters::default();
        let errors: Vec<Error> =
            (0..40).map(|n| Error::new(granary_core::Kind::Corrupt, format!("e{n}"))).collect();
        counters.errors(&errors[..10]);
        counters.errors(&errors[10..]);
        let stats = counters.stats();
        assert_eq!((stats.messages.len(), &stats.messages[15][..]), (16, "e15"));
        assert!(stats.prometheus().contains("\ngranary_loader_samples_total 0\n"));
    }
}
