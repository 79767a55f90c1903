//! Where the bytes of a namespace's reads came from, as the node sees it: what the kernel had in its page cache, or read from a
//! stage file itself (passthrough), never comes here.

use std::sync::atomic::{AtomicU64, Ordering};

/// Where bytes came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tier {
    /// Nowhere: they are zeros.
    Hole,
    /// The node's stage: what is not in the store yet, and whole copies of large files.
    Stage,
    /// The node's cache of objects, its memory and disk.
    Cache,
    /// A copy in the metadata.
    Inline,
    /// Another node's stage.
    Peer,
    /// The store: a part of them, at least, was not here yet.
    Store,
}

impl Tier {
    pub const ALL: [Tier; 6] = [Tier::Hole, Tier::Stage, Tier::Cache, Tier::Inline, Tier::Peer, Tier::Store];

    pub fn name(self) -> &'static str {
        match self {
            Tier::Hole => "hole",
            Tier::Stage => "stage",
            Tier::Cache => "cache",
            Tier::Inline => "inline",
            Tier::Peer => "peer",
            Tier::Store => "store",
        }
    }
}

/// What came from one of them since the namespace was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServedFrom {
    pub tier: Tier,
    /// Stretches of reads: one that is partly here and partly there counts in both places.
    pub reads: u64,
    pub bytes: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Served([(AtomicU64, AtomicU64); Tier::ALL.len()]);

impl Served {
    pub fn count(&self, tier: Tier, bytes: usize) {
        let (reads, all) = &self.0[tier as usize];
        reads.fetch_add(1, Ordering::Relaxed);
        all.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub fn snapshot(&self) -> Vec<ServedFrom> {
        let of = |tier: Tier| {
            let (reads, bytes) = &self.0[tier as usize];
            ServedFrom { tier, reads: reads.load(Ordering::Relaxed), bytes: bytes.load(Ordering::Relaxed) }
        };
        Tier::ALL.into_iter().map(of).collect()
    }
}
