//! How far a pack is: numbers that its threads move and anybody may look at.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::counts::Counts;

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Scanning,
    Packing,
    Verifying,
    Deleting,
}

#[derive(Debug, Default)]
pub struct Progress {
    /// Files and bytes that the scan found so far.
    pub found: Counts,
    /// Packed so far, or verified or deleted in those phases; and of how much.
    pub counts: Counts,
    phase: AtomicU8,
}

impl Progress {
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Scanning,
            1 => Phase::Packing,
            2 => Phase::Verifying,
            _ => Phase::Deleting,
        }
    }

    /// Begins a phase in which so much is to be done.
    pub fn begin(&self, phase: Phase, files: u64, bytes: u64) {
        self.counts.expect(files, bytes);
        self.counts.files.store(0, Ordering::Relaxed);
        self.counts.bytes.store(0, Ordering::Relaxed);
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// So much more is done.
    pub fn add(&self, files: u64, bytes: u64) {
        self.counts.add(files, bytes);
    }

    /// So much is to be done again.
    pub fn take_back(&self, files: u64, bytes: u64) {
        self.counts.files.fetch_sub(files, Ordering::Relaxed);
        self.counts.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}
