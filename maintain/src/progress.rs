//! How far a long work is: told by the work, looked at by whoever shows it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use granary_core::{Error, Kind, Result};
use serde::{Deserialize, Serialize};

/// Where a work is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What is done now, in words.
    pub doing: String,
    pub done: u64,
    /// 0: not known.
    pub total: u64,
    /// Read from the store so far.
    pub bytes: u64,
}

#[derive(Debug, Default)]
pub struct Progress {
    /// Guards the words, for a few instructions.
    doing: Mutex<String>,
    done: AtomicU64,
    total: AtomicU64,
    bytes: AtomicU64,
    ended: AtomicBool,
}

impl Progress {
    /// A new step, of `total` things (0: not known).
    pub fn step(&self, doing: impl Into<String>, total: u64) {
        *self.doing.lock().unwrap_or_else(PoisonError::into_inner) = doing.into();
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }

    /// `things` more are done. `Interrupted` when nobody waits for the work any more.
    pub fn advance(&self, things: u64) -> Result<()> {
        self.done.fetch_add(things, Ordering::Relaxed);
        if self.ended.load(Ordering::Relaxed) {
            return Err(Error::new(Kind::Interrupted, "who asked for it is gone"));
        }
        Ok(())
    }

    pub fn read(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn now(&self) -> Step {
        Step {
            doing: self.doing.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            done: self.done.load(Ordering::Relaxed),
            total: self.total.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }

    /// Ends the work soon after this is dropped, also on threads that wait for nothing.
    pub fn while_wanted(self: &Arc<Self>) -> Wanted {
        Wanted(self.clone())
    }
}

/// See [`Progress::while_wanted`].
#[derive(Debug)]
pub struct Wanted(Arc<Progress>);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Relaxed);
    }
}
