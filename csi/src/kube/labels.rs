//! Labels of a node: which data sets its cache holds, for schedulers.
//!
//! CSI's own topology cannot say it: what NodeGetInfo answers is asked once, when the driver registers, and what a node holds comes
//! and goes. So the driver keeps labels of the node:
//!
//! ```text
//! dataset.granary.dev/libri-960: warm      at least 80 % of dataset/libri-960's bytes are in this node's cache
//! dataset.granary.dev/images: part         at least 20 %
//! ```
//!
//! A pod prefers such nodes by `preferredDuringSchedulingIgnoredDuringExecution` and `operator: Exists`, or `In: [warm]`. They are hints:
//! what they say was so up to a minute ago, counts chunks in the cache, or what the last warmup found here, of data sets that are mounted
//! here, and promises nothing.
//! Data sets whose name cannot be a label's are left out, and of more than 64 the smaller ones.

use std::collections::{BTreeMap, HashMap};

use granary_core::{Error, Kind, NamespaceKind, Result};
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

use super::{Call, Kube, segment};
use crate::volumes::Held;

/// How the labels begin.
pub const PREFIX: &str = "dataset.granary.dev/";
/// On one node.
const LABELS_MAX: usize = 64;
/// Of a label's name behind its prefix, as Kubernetes bounds it.
const NAME_BYTES_MAX: usize = 63;
/// Of a hundred bytes, how many have to be here.
const WARM_PERCENT: u64 = 80;
const PART_PERCENT: u64 = 20;

const CALL: Call<'static> = Call { what: "for the node's labels", right: "get and patch nodes" };

#[derive(Deserialize)]
struct Node {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    labels: HashMap<String, String>,
}

impl Kube {
    /// Makes the node's labels say what it holds. Whether anything had to be changed.
    pub async fn label(&self, node: &str, held: &[Held]) -> Result<bool> {
        let path = format!("/api/v1/nodes/{}", segment(node)?);
        let answer = self.send(CALL, Method::GET, &path, None).await?.good(CALL)?;
        let there: Node = serde_json::from_slice(&answer).map_err(|e| {
            Error::new(Kind::Unavailable, "the API server's node cannot be read").with_source(e)
        })?;
        let changes = changes(&there.metadata.labels, &wanted(held));
        if changes.is_empty() {
            return Ok(false);
        }
        let body = serde_json::to_vec(&json!({ "metadata": { "labels": changes } }))
            .map_err(|e| Error::new(Kind::Bug, "labels cannot be written").with_source(e))?;
        let patch = Some(("application/merge-patch+json", body));
        self.send(CALL, Method::PATCH, &path, patch).await?.good(CALL).map(|_| true)
    }
}

/// The labels that fit what is held.
fn wanted(held: &[Held]) -> BTreeMap<String, &'static str> {
    let mut sets: Vec<&Held> = held
        .iter()
        .filter(|held| held.namespace.kind() == NamespaceKind::Dataset && is_label(held.namespace.leaf()))
        .collect();
    sets.sort_by_key(|held| std::cmp::Reverse(held.cached_bytes));
    let labels = sets.into_iter().filter_map(|held| {
        let percent = (u128::from(held.cached_bytes) * 100).checked_div(u128::from(held.bytes))? as u64;
        let value = match percent {
            WARM_PERCENT.. => "warm",
            PART_PERCENT.. => "part",
            _ => return None,
        };
        Some((format!("{PREFIX}{}", held.namespace.leaf()), value))
    });
    labels.take(LABELS_MAX).collect()
}

/// What has to be set, and with `None` removed. Other labels are not ours.
fn changes<'a>(
    there: &HashMap<String, String>,
    wanted: &BTreeMap<String, &'a str>,
) -> BTreeMap<String, Option<&'a str>> {
    let set = wanted
        .iter()
        .filter(|(key, value)| there.get(*key).map(String::as_str) != Some(**value))
        .map(|(key, value)| (key.clone(), Some(*value)));
    let gone = there
        .keys()
        .filter(|key| key.starts_with(PREFIX) && !wanted.contains_key(*key))
        .map(|key| (key.clone(), None));
    set.chain(gone).collect()
}

/// Whether Kubernetes takes it behind a prefix: letters, digits, `._-`, the first and last a letter or digit.
fn is_label(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric();
    name.len() <= NAME_BYTES_MAX
        && name.starts_with(plain)
        && name.ends_with(plain)
        && name.chars().all(|c| plain(c) || "._-".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(name: &str, cached_bytes: u64, bytes: u64) -> Held {
        Held { namespace: name.parse().unwrap(), cached_bytes, bytes }
    }

    #[test]
    fn labels_follow_what_the_cache_holds() {
        let all = [
            held("dataset/libri", 80, 100),
            held("dataset/more", 120, 100),
            held("dataset/half", 50, 100),
            held("dataset/cold", 19, 100),
            held("dataset/empty", 0, 0),
            held("dataset/_odd", 100, 100),
            held("user/alice", 100, 100),
        ];
        let wanted = wanted(&all);
        let expected = [("half", "part"), ("libri", "warm"), ("more", "warm")];
        let expected: BTreeMap<_, _> =
            expected.into_iter().map(|(name, value)| (format!("{PREFIX}{name}"), value)).collect();
        assert_eq!(wanted, expected);
    }

    #[test]
    fn only_our_labels_are_touched_and_only_where_they_differ() {
        let there: HashMap<String, String> = [
            ("kubernetes.io/hostname", "n"),
            ("dataset.granary.dev/gone", "warm"),
            ("dataset.granary.dev/same", "warm"),
            ("dataset.granary.dev/less", "warm"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
        let wanted = BTreeMap::from([
            ("dataset.granary.dev/same".to_owned(), "warm"),
            ("dataset.granary.dev/less".to_owned(), "part"),
            ("dataset.granary.dev/new".to_owned(), "warm"),
        ]);
        let expected = BTreeMap::from([
            ("dataset.granary.dev/gone".to_owned(), None),
            ("dataset.granary.dev/less".to_owned(), Some("part")),
            ("dataset.granary.dev/new".to_owned(), Some("warm")),
        ]);
        assert_eq!(changes(&there, &wanted), expected);
    }

    #[test]
    fn there_are_never_more_than_a_node_bears() {
        let many: Vec<Held> = (0..200_u64).map(|n| held(&format!("dataset/d{n}"), 1000 + n, 1000)).collect();
        let wanted = wanted(&many);
        assert_eq!(wanted.len(), LABELS_MAX);
        assert!(
            wanted.contains_key(&format!("{PREFIX}d199")) && !wanted.contains_key(&format!("{PREFIX}d0"))
        );
    }
}
