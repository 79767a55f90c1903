//! Giving a lease up: what is held back is committed, and what the kernel keeps is dropped.
//!
//! **Why no recall waits for ever.** A recall waits for a commit, and for the kernel to drop pages, which waits for the
//! requests that have pages locked:
//!
//! * A READ is answered from the state, since until the recall is answered the lease is ours; if the state is not loaded the
//!   service is asked, which answers reads without waiting for recalls of read leases; the bytes come from the store or from
//!   a peer's stage, which wait for no lease. A READ that waits for a lease (to let the kernel keep what it gets) stops
//!   waiting when a recall begins.
//! * A WRITE that has pages locked is answered under the write lease if that is ours. If it is not, it waits for the lease,
//!   and so for other nodes, which may wait for us: therefore a recall goes on without its pages after `PAGES_MS`. They are
//!   dropped when the WRITE is answered; all others are dropped before the recall is.
//! * A commit is ours to make while we have the lease: the service applies it without asking anybody.
//!
//! Whatever was answered during the recall may have put pages back, so they are dropped again, until nothing was answered in
//! between. READs are held back for a while, longer from round to round: so the drop overtakes even a reader that never
//! pauses, and the READ is then answered after the recall.

use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use granary_core::{Ino, Kind};
use granary_meta::lease::LeaseKind;

use super::{File, State};
use crate::range_set::RangeSet;
use crate::stage::Shape;

/// A recall waits this long for pages while a write that has some locked waits for the write lease: most often it is these
/// that are in the way.
const PAGES_MS: u64 = 3;
/// And this long for the others.
const OTHERS_MS: u64 = 200;
/// Pages are locked as wholes, and the kernel may lock large ones as one.
const PAGES_ALIGN: u64 = 64 << 10;
/// Reads are held back this long in the first round, twice as long in each other one, up to the second.
const HOLD_MS: (u64, u64) = (4, 1000);
/// From this round on, writes wait for the end of the recall.
const CLOSED_FROM: u32 = 2;
/// A commit that failed for want of the service, or of room, is tried again after this.
const AGAIN_MS: u64 = 200;

/// The kernel's page cache of a mount.
#[async_trait]
pub trait PageCache: Send + Sync {
    /// Returns when no page is left of what the inode had before the call, in a range.
    async fn drop_pages(&self, ino: Ino, range: Range<u64>);
}

/// No kernel keeps pages.
#[derive(Clone, Copy, Debug)]
pub struct NoPages;

#[async_trait]
impl PageCache for NoPages {
    async fn drop_pages(&self, _ino: Ino, _range: Range<u64>) {}
}

/// A recall under way.
struct Recall<'a>(&'a File);

impl Drop for Recall<'_> {
    fn drop(&mut self) {
        let mut s = self.0.state();
        s.lease.recalls -= 1;
        if s.lease.recalls == 0 {
            s.lease.hold = Duration::ZERO;
            s.lease.closed = false;
        }
        drop(s);
        self.0.lease_news.notify_waiters();
    }
}

impl File {
    /// At the return nothing is held back, and (`Write`) nothing that was read is used again without asking.
    pub(crate) async fn recall(&self, wanted: LeaseKind, pages: &dyn PageCache) {
        let generation = {
            let mut s = self.state();
            s.lease.recalls += 1;
            s.lease.generation
        };
        let _recall = Recall(self);
        self.lease_news.notify_waiters(); // reads that wait for a lease, and writes
        for round in 0.. {
            let served = self.begin_round(wanted, round);
            if wanted == LeaseKind::Write {
                self.drop_pages(pages).await;
            }
            if !self.hand_over(generation).await {
                return;
            }
            let mut s = self.state();
            if s.is_held() || wanted == LeaseKind::Write && s.lease.served != served {
                continue;
            }
            if s.lease.generation == generation || wanted == LeaseKind::Write {
                s.lease.write = false;
                s.lease.given_up += 1;
            }
            if wanted == LeaseKind::Write {
                self.outdate(&mut s);
            }
            return;
        }
    }

    fn begin_round(&self, wanted: LeaseKind, round: u32) -> u64 {
        let mut s = self.state();
        s.lease.hold = match wanted {
            LeaseKind::Read => s.lease.hold,
            LeaseKind::Write => Duration::from_millis((HOLD_MS.0 << round.min(10)).min(HOLD_MS.1)),
        };
        s.lease.closed |= wanted == LeaseKind::Read || round >= CLOSED_FROM;
        s.lease.served
    }

    async fn drop_pages(&self, pages: &dyn PageCache) {
        let blocked = async {
            self.a_write_waits().await;
            tokio::time::sleep(Duration::from_millis(PAGES_MS)).await;
        };
        tokio::select! {
            biased;
            () = pages.drop_pages(self.ino, 0..u64::MAX) => {}
            () = blocked => {
                // Elapsed: another write came to wait, or the kernel locked more at once than assumed.
                let _ = tokio::time::timeout(Duration::from_millis(OTHERS_MS), self.drop_others(pages)).await;
            }
        }
    }

    /// Drops all pages but those that writes which wait have locked: these are being dropped since before, and will be when
    /// the writes are answered.
    async fn drop_others(&self, pages: &dyn PageCache) {
        let mut locked = RangeSet::default();
        for range in &self.state().lease.waiting {
            let start = range.start / PAGES_ALIGN * PAGES_ALIGN;
            locked.insert(start..range.end.saturating_add(PAGES_ALIGN) / PAGES_ALIGN * PAGES_ALIGN);
        }
        for gap in locked.gaps(0..u64::MAX) {
            pages.drop_pages(self.ino, gap).await;
        }
    }

    async fn a_write_waits(&self) {
        loop {
            let mut news = std::pin::pin!(self.lease_news.notified());
            news.as_mut().enable();
            if !self.state().lease.waiting.is_empty() {
                return;
            }
            news.await;
        }
    }

    /// Commits what is held, for as long as that makes sense. `false`: the lease was lost meanwhile.
    async fn hand_over(&self, generation: u64) -> bool {
        let mut told = false;
        loop {
            let e = match self.commit().await {
                Ok(()) => return true,
                Err(e) => e,
            };
            if self.state().lease.generation != generation {
                return false;
            }
            let again = e.kind().is_transient() || e.kind() == Kind::NoSpace;
            if !again {
                self.fence(&e).await;
                return true;
            }
            if !std::mem::replace(&mut told, true) {
                tracing::warn!(ino = %self.ino, error = %e, "another node wants a file whose changes cannot be committed yet");
            }
            tokio::time::sleep(Duration::from_millis(AGAIN_MS)).await;
        }
    }

    /// The lease is gone: what is known here is what was.
    pub(crate) fn outdate(&self, s: &mut State) {
        s.lease.write = false;
        s.lease.stale = true;
        s.lease.generation += 1;
        s.lease.given_up += 1;
        let Some(stage) = &mut s.stage else { return };
        match stage.shape {
            // The copy stays in the table of clean ones, and is taken up again if it is of the version to come.
            Shape::Clean(_) => s.stage = None,
            Shape::Whole => match self.shared.files.reshape(self.ino, Shape::Whole, Shape::Sparse) {
                Ok(()) => {
                    stage.shape = Shape::Sparse;
                    stage.loose = false;
                    stage.mapped = false;
                }
                // Only a disk that fails does this. The file ends here rather than lie.
                Err(e) => {
                    tracing::error!(ino = %self.ino, error = %e, "a stage file that is no longer whole cannot be marked so");
                    s.lease.fenced = Some(e);
                }
            },
            Shape::Sparse => {}
        }
    }

    /// All leases were lost at once.
    pub(crate) fn lose_lease(&self) {
        self.outdate(&mut self.state());
        self.lease_news.notify_waiters();
    }
}
