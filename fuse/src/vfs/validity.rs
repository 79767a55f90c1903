//! How long the kernel may keep what it is told.
//!
//! Where one node has the namespace for itself: for ever, but for what is in the trash's directories, where files come and go by
//! time and with the last close of others. Else for as long as the leases last that cover it, if what is told
//! is what they cover: an answer that was got before the lease is compared with what is known under it, and one that differs
//! is good for one use.
//!
//! | what | kept while the session has | dropped at a recall by |
//! |---|---|---|
//! | an entry, an absent name | the directory's lease, and the kernel has epochs | a new epoch of all entries |
//! | attributes | the inode's lease, and the kernel knew the inode before | a notification, which moves the inode's attribute version on, so that the kernel takes no older answer |
//! | pages | the inode's lease | a notification |
//! | listings | never | |
//!
//! An entry of a listing with attributes (READDIRPLUS) is not kept: the kernel gives it the epoch of the moment at which it
//! reads the answer, which may be one after the recall. The other calls take the epoch before they ask.
//!
//! An inode that the kernel makes for an answer has no attribute version that a notification could have moved on. So the
//! answer that makes it known gives its attributes no validity.

use std::pin::pin;
use std::sync::{PoisonError, RwLockReadGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use granary_core::{EntryName, Ino, Kind};
use granary_meta::Attr;
use granary_meta::lease::{LeaseKind, Scope};

use super::{VALID, Vfs};
use crate::Notifier;

/// The kernel begins to count when it reads an answer, which is a little later than it was worked out: one part in this
/// many of the lease is left out.
const MARGIN: u32 = 8;

/// How long an entry and the attributes behind it are true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub entry: Duration,
    pub attr: Duration,
}

/// The entry that an answer is about. Without a name it is not kept.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    pub dir: Ino,
    pub name: Option<&'a [u8]>,
}

/// While it is held, no recall of a lease goes on: what is answered under it is either true, or dropped by a notification
/// that comes after it. Never held across `.await`.
#[derive(Debug)]
#[must_use = "the answer is to be written while it is held"]
pub struct Gate<'a> {
    _shut_out: Option<RwLockReadGuard<'a, ()>>,
}

/// The answer, if it is there without waiting.
fn at_once<T>(work: impl Future<Output = T>) -> Option<T> {
    match pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => None,
    }
}

impl Vfs {
    /// Taken around working out validity and writing the answer. One gate for all inodes: it is held for a system call.
    pub fn gate(&self) -> Gate<'_> {
        Gate { _shut_out: self.many.then(|| self.gate.read().unwrap_or_else(PoisonError::into_inner)) }
    }

    /// Returns when the kernel has all answers that were given under a lease which `holds` denies by now.
    pub(super) async fn pass_gate(&self) {
        drop(self.gate.write().unwrap_or_else(PoisonError::into_inner));
        if let Some(notifier) = self.notifier().filter(Notifier::lags)
            && let Err(e) = tokio::task::spawn_blocking(move || notifier.settle()).await
        {
            tracing::error!(error = %e, "the kernel may keep what was answered before a recall");
        }
    }

    /// Whether others change the namespace too.
    pub fn is_shared(&self) -> bool {
        self.many
    }

    fn lease_left(&self) -> Duration {
        let left = self.meta.lease_left();
        VALID.min(left - left / MARGIN)
    }

    /// Of an answer about `attr`, as an entry or by itself.
    pub fn valid(&self, attr: &Attr, at: Option<At<'_>>) -> Validity {
        if !self.many {
            let of = |dir: Ino| if self.is_in_trash(dir) { Duration::ZERO } else { VALID };
            return Validity { entry: at.map_or(VALID, |at| of(at.dir)), attr: of(attr.ino) };
        }
        let left = self.lease_left();
        // The answer itself was counted before it is written.
        let known = at.is_none() || self.knew(attr.ino);
        Validity {
            entry: if at.is_some_and(|at| self.is_entry(at, attr.ino)) { left } else { Duration::ZERO },
            attr: if known && self.is_true(attr) { left } else { Duration::ZERO },
        }
    }

    /// Of the answer that a name is not there.
    pub fn valid_absent(&self, at: At<'_>) -> Duration {
        if !self.many {
            return if self.is_in_trash(at.dir) { Duration::ZERO } else { VALID };
        }
        let absent = self.keeps_entries(at.dir)
            && self.looked_at(at).is_some_and(|found| found.is_err_and(|e| e.kind() == Kind::NotFound));
        if absent { self.lease_left() } else { Duration::ZERO }
    }

    /// Whether it is a directory of the trash: of those nobody has leases.
    fn is_in_trash(&self, dir: Ino) -> bool {
        dir.is_of_trash() && !self.meta.holds(Scope::Directory(dir), LeaseKind::Read)
    }

    /// Whether `attr` is what the lease covers.
    fn is_true(&self, attr: &Attr) -> bool {
        self.meta.holds(Scope::Inode(attr.ino), LeaseKind::Read)
            && at_once(self.meta.getattr(attr.ino))
                .is_some_and(|now| now.is_ok_and(|now| self.current(now) == *attr))
    }

    fn keeps_entries(&self, dir: Ino) -> bool {
        self.meta.holds(Scope::Directory(dir), LeaseKind::Read)
            && self.notifier().is_some_and(|n| n.supported())
    }

    fn looked_at(&self, at: At<'_>) -> Option<granary_core::Result<Attr>> {
        at_once(self.meta.lookup(at.dir, EntryName::new(at.name?).ok()?))
    }

    fn is_entry(&self, at: At<'_>, ino: Ino) -> bool {
        at.name.is_some()
            && self.keeps_entries(at.dir)
            && matches!(self.looked_at(at), Some(Ok(found)) if found.ino == ino)
    }
}
