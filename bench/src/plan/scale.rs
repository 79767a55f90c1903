//! How much of everything.

use crate::work::Limits;

#[derive(Clone, Copy, Debug)]
pub struct Scale {
    pub quick: bool,
    pub small: usize,
    pub medium: usize,
    pub large_bytes: u64,
    pub tree_files: usize,
    /// Entries of the directory that is listed.
    pub listed: usize,
    /// Files of 100 KiB read cold in one epoch.
    pub epoch_files: usize,
    /// Of them, what each of many processes reads.
    pub shared_files: usize,
    /// Walked, and read, while the node's memory is looked at.
    pub memory_files: usize,
    pub memory_bytes: u64,
    pub drain_bytes: u64,
    pub drain_files: usize,
    pub million: usize,
    /// Not stored when a node is killed, as one large file after the other, and as small ones.
    pub stage_bytes: u64,
    pub limits: Limits,
}

impl Scale {
    pub fn full() -> Self {
        let limits = Limits { seconds_min: 2.0, seconds_max: 15.0 };
        Scale {
            quick: false,
            small: 10_000,
            medium: 3_000,
            large_bytes: 1 << 30,
            tree_files: 10_401,
            listed: 100_000,
            epoch_files: 10_000,
            shared_files: 2_000,
            memory_files: 100_000,
            memory_bytes: 4 << 30,
            drain_bytes: 1 << 30,
            drain_files: 100_000,
            million: 1_000_000,
            stage_bytes: 10 << 30,
            limits,
        }
    }

    pub fn quick() -> Self {
        let limits = Limits { seconds_min: 0.2, seconds_max: 2.0 };
        Scale {
            quick: true,
            small: 1_000,
            medium: 300,
            large_bytes: 100 << 20,
            tree_files: 1_000,
            listed: 5_000,
            epoch_files: 600,
            shared_files: 200,
            memory_files: 5_000,
            memory_bytes: 200 << 20,
            drain_bytes: 60 << 20,
            drain_files: 5_000,
            million: 20_000,
            stage_bytes: 200 << 20,
            limits,
        }
    }
}
