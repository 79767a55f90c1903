//! How far a work on a data set is, and what it came upon: moved by its threads, looked at by whoever waits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Of faults and of what is left out, so many are kept to be told; all are counted.
pub const TOLD_MAX: usize = 1000;

/// Done and to do. A total of 0 is not known yet.
#[derive(Debug, Default)]
pub struct Counts {
    pub files: AtomicU64,
    pub bytes: AtomicU64,
    pub files_total: AtomicU64,
    pub bytes_total: AtomicU64,
}

impl Counts {
    pub fn add(&self, files: u64, bytes: u64) {
        self.files.fetch_add(files, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn expect(&self, files: u64, bytes: u64) {
        self.files_total.store(files, Ordering::Relaxed);
        self.bytes_total.store(bytes, Ordering::Relaxed);
    }
}

/// Messages about single files that did not end the work: the first thousand, and how many there were.
#[derive(Debug, Default)]
pub struct Told {
    /// Guards the list; held to add one.
    messages: Mutex<Vec<String>>,
    count: AtomicU64,
}

impl Told {
    pub fn tell(&self, message: String) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        if messages.len() < TOLD_MAX {
            messages.push(message);
        }
    }

    /// How many there were, and the first of them in alphabetical order, which no number of threads changes.
    pub fn into_parts(self) -> (u64, Vec<String>) {
        let mut messages = self.messages.into_inner().unwrap_or_else(PoisonError::into_inner);
        messages.sort();
        (self.count.into_inner(), messages)
    }
}
