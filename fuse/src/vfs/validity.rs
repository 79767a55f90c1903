//! How long the kernel may keep what it is told.

use std::time::Duration;

use granary_core::Ino;
use granary_meta::Attr;

use super::{VALID, Vfs};

/// How long an entry and the attributes behind it are true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub entry: Duration,
    pub attr: Duration,
}

/// While it is held, no lease of the inodes that it was taken for ends: what is answered under it is either true, or
/// dropped by a notification that comes after it. Never held across `.await`.
#[derive(Debug)]
#[must_use = "the answer is to be written while it is held"]
pub struct Gate;

impl Vfs {
    /// Taken around working out validity and writing the answer. `dir`: where the answer is about an entry in it. Here
    /// all leases are held for ever, so there is nothing to keep out.
    pub fn gate(&self, _ino: Ino, _dir: Option<Ino>) -> Gate {
        Gate
    }

    /// Of an answer about `attr`, as entry of `dir` or by itself.
    pub fn valid(&self, _attr: &Attr, _dir: Option<Ino>) -> Validity {
        Validity { entry: VALID, attr: VALID }
    }

    /// Of the answer that a name is not in `dir`.
    pub fn valid_absent(&self, _dir: Ino) -> Duration {
        VALID
    }
}
