//! What a file's state may be used for when other nodes change the namespace too.
//!
//! The state is *current* while the inode's lease is held without a break since it was loaded; then it is read as it is.
//! Without the lease it is loaded again before each use, and used once. It is changed only under the write lease, before
//! which it was made current.
//!
//! Whether a lease was held without a break is known from `Leased::generation`, which every loss of it moves on: what was
//! asked for after the lease was seen, and is put in place before the generation moved, was true all the time between.

use std::ops::Range;
use std::sync::MutexGuard;
use std::time::Duration;

use granary_core::waits::{self, Cause};
use granary_core::{Error, Result};
use granary_meta::lease::{LeaseKind, Scope};

use super::{File, State};

/// The right to make one change under a write lease that was waited for, even if it is being recalled by now: else nodes
/// that all want to change one file could hand its lease around for ever, and none of them would come to use it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn(u64);

/// A read for the page cache that finds no lease asks again after this long, ever longer up to the second: somebody else is
/// changing the file, and its pages are only worth keeping afterwards.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(16));

/// Leases, in a file's state. Not used where one node has the namespace for itself.
#[derive(Debug, Default)]
pub(crate) struct Leased {
    /// The write lease is ours, and the state is current.
    pub write: bool,
    /// The lease was lost since the state was loaded, or it was loaded without one.
    pub stale: bool,
    /// Recalls under way. Until they are answered the lease is ours.
    pub recalls: u32,
    /// Counts what was answered during recalls and may be in the page cache.
    pub served: u64,
    /// Reads that come during a recall wait for its end for so long; zero: they do not.
    pub hold: Duration,
    /// Nothing is changed any more until the recall has ended.
    pub closed: bool,
    /// Writes that wait for the write lease while the kernel keeps their pages locked: their ranges.
    pub waiting: Vec<Range<u64>>,
    /// Moved on by every loss of the lease.
    pub generation: u64,
    /// The same, and by every recall that leaves a read lease of a write lease.
    pub given_up: u64,
    /// The service ended the session while something was held back here: nothing of this file counts any more.
    pub fenced: Option<Error>,
}

/// A write that waits, as long as it lives.
struct Waiting<'a>(&'a File, Range<u64>);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let waiting = &mut self.0.state().lease.waiting;
        if let Some(at) = waiting.iter().position(|range| *range == self.1) {
            waiting.swap_remove(at);
        }
    }
}

impl File {
    fn scope(&self) -> Scope {
        Scope::Inode(self.ino)
    }

    fn holds(&self, kind: LeaseKind) -> bool {
        self.shared.meta.holds(self.scope(), kind)
    }

    /// Whether the state is that of the metadata, without asking.
    pub(crate) fn is_current(&self, s: &State) -> bool {
        s.loaded
            && (!self.shared.many || !s.lease.stale && (s.lease.recalls > 0 || self.holds(LeaseKind::Read)))
    }

    /// The state, to be changed; `None`: the write lease is needed first. `pages`: the kernel keeps pages locked until it is
    /// answered, so that a recall may wait for it.
    pub(super) fn begin_change(
        &self,
        pages: bool,
        turn: Option<Turn>,
    ) -> Result<Option<MutexGuard<'_, State>>> {
        let mut s = self.state();
        s.alive(self.ino)?;
        if !self.shared.many {
            return Ok(Some(s));
        }
        let lease = &mut s.lease;
        if !lease.write || lease.stale {
            return Ok(None);
        }
        if turn.is_some_and(|turn| turn.0 == lease.given_up) {
            lease.served += 1;
        } else if lease.recalls > 0 {
            // Who holds no pages can wait until the others have had their turn.
            if !pages || lease.closed {
                return Ok(None);
            }
            lease.served += 1;
        } else if !self.holds(LeaseKind::Write) {
            return Ok(None);
        }
        Ok(Some(s))
    }

    /// A file that was made this moment has its leases with the answer.
    pub(super) fn begin_leased(&self, s: &mut State) {
        if self.shared.many {
            s.lease.write = self.holds(LeaseKind::Write);
            s.lease.stale = !self.holds(LeaseKind::Read);
        }
    }

    /// Loads the state unless it is current. `false`: there is no lease to be had now, so it is good for one use.
    pub(crate) async fn make_current(&self) -> Result<bool> {
        if self.is_current(&self.state()) {
            return Ok(true);
        }
        if !self.holds(LeaseKind::Read) {
            self.shared.meta.getattr(self.ino).await?; // brings the lease, unless somebody waits for it
        }
        let generation = self.state().lease.generation;
        let held = self.holds(LeaseKind::Read);
        self.follow().await?;
        let mut s = self.state();
        if held && s.lease.generation == generation && self.holds(LeaseKind::Read) {
            s.lease.stale = false;
            return Ok(true);
        }
        // A lease that comes later says nothing of a state that was loaded without one.
        s.lease.stale = true;
        Ok(false)
    }

    /// Loads the state if it is of another version than the metadata's.
    async fn follow(&self) -> Result<()> {
        let attr = self.shared.meta.getattr(self.ino).await?;
        let same = {
            let s = self.state();
            s.loaded && s.committed.version == attr.version
        };
        if same { Ok(()) } else { self.refresh().await }
    }

    /// Waits for the write lease, and loads the state of the moment it began. `None`: it is gone again already.
    /// `pages`: the range whose pages the kernel keeps locked meanwhile.
    pub(super) async fn take_lease(&self, pages: Option<Range<u64>>) -> Result<Option<Turn>> {
        let _waiting = pages.map(|range| {
            self.state().lease.waiting.push(range.clone());
            self.lease_news.notify_waiters();
            Waiting(self, range)
        });
        waits::on(|| Cause::Lease, self.recall_over()).await;
        let before = self.state().lease.given_up;
        waits::on(|| Cause::Lease, self.shared.meta.lease(self.ino)).await?;
        self.follow().await?;
        {
            let mut s = self.state();
            if s.lease.given_up == before {
                // Nothing was given up since, so it is ours still, though perhaps wanted back.
                s.lease.write = true;
                s.lease.stale = false;
                return Ok(Some(Turn(before)));
            }
        }
        self.wait_for_lease(0).await;
        Ok(None)
    }

    /// Returns when no recall of the file is being worked at.
    async fn recall_over(&self) {
        loop {
            let mut news = std::pin::pin!(self.lease_news.notified());
            news.as_mut().enable();
            if self.state().lease.recalls == 0 {
                return;
            }
            news.await;
        }
    }

    /// A read that came during a recall waits for its end, at most `hold`.
    pub(super) async fn hold_back(&self, hold: Duration) {
        // Elapsed is as good as ended: then it is answered with what there is.
        let _ = waits::on(|| Cause::Lease, tokio::time::timeout(hold, self.recall_over())).await;
    }

    /// For a read that has to wait until the file has a lease.
    pub(super) async fn wait_for_lease(&self, attempt: u32) {
        let sleep = tokio::time::sleep(ASK_AGAIN.1.min(ASK_AGAIN.0 * (1 << attempt.min(4))));
        waits::on(|| Cause::Lease, sleep).await;
    }
}
