//! Bringing held state into the metadata, one commit at a time; and making it durable.

use granary_core::waits::{self, Cause};
use granary_core::{Failpoint, Kind, Result};
use granary_meta::Attr;

use super::{File, State};

/// The right to commit, or to move extents: whoever has it is alone. Given back when dropped; a commit that was not ended by
/// then is held again.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    file: &'a File,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut s = self.file.state();
        s.busy = false;
        s.end_commit(None);
        self.file.settle(&mut s);
        drop(s);
        self.file.turn_over.notify_waiters();
    }
}

impl File {
    pub(crate) async fn turn(&self) -> Turn<'_> {
        loop {
            let mut over = std::pin::pin!(self.turn_over.notified());
            over.as_mut().enable();
            {
                let mut s = self.state();
                if !s.busy {
                    s.busy = true;
                    return Turn { file: self };
                }
            }
            over.await;
        }
    }

    /// For who waits until somebody's turn, or upload, is over.
    pub(crate) fn turn_over(&self) -> tokio::sync::futures::Notified<'_> {
        self.turn_over.notified()
    }

    pub(crate) fn tell_turn_over(&self) {
        self.turn_over.notify_waiters();
    }

    /// Commits what is held at the moment of the call. An inode that is gone is no error: its bytes are dropped.
    pub(crate) async fn commit(&self) -> Result<()> {
        if !self.state().is_held() {
            return Ok(());
        }
        let turn = self.turn().await;
        self.commit_in(&turn).await.map(drop)
    }

    /// The same for who has the turn.
    pub(crate) async fn commit_in(&self, _turn: &Turn<'_>) -> Result<Option<Attr>> {
        let (commit, sync_first) = {
            let mut s = self.state();
            if s.dead || !s.delta.any {
                return Ok(None);
            }
            let sync_first = s.replaces_kept();
            (s.begin_commit(self.ino), sync_first)
        };
        if sync_first {
            self.sync_stage().await?;
            if !self.shared.hand_over().await? {
                self.shared.log.sync(&self.shared.runtime).await?;
            }
        }
        Failpoint::CommitBefore.reach();
        match self.shared.meta.commit(commit).await {
            Ok(attr) => {
                Failpoint::CommitAfter.reach();
                let mut s = self.state();
                s.end_commit(Some(&attr));
                self.settle(&mut s);
                Ok(Some(attr))
            }
            Err(e) if e.kind() == Kind::Stale => {
                self.bury();
                Ok(None)
            }
            Err(e) => Err(e.context(format_args!("cannot commit inode {}", self.ino))),
        }
    }

    /// Content and metadata survive a power loss of this node.
    pub(crate) async fn make_durable(&self) -> Result<()> {
        {
            let mut s = self.state();
            if s.writers > 0 {
                self.absorb(&mut s)?;
            }
            s.promised = true;
        }
        let handed_over = self.shared.hand_over().await?;
        // What the commit only adds may reach the disk before the log does: nothing was promised yet.
        self.commit().await?;
        let sync_log =
            async { if handed_over { Ok(()) } else { self.shared.log.sync(&self.shared.runtime).await } };
        let (stage, log, meta) = futures::join!(
            waits::on(|| Cause::Disk("sync of the file's stage file"), self.sync_stage()),
            waits::on(|| Cause::Disk("sync of the stage log"), sync_log),
            waits::on(|| Cause::MetadataSync, self.shared.meta.sync()),
        );
        stage.and(log).and(meta)
    }

    /// Brings the tree's sums and lists up to date with the state.
    pub(crate) fn settle(&self, s: &mut State) {
        let shared = &self.shared;
        let growth = if s.dead { 0 } else { s.map.covered() as i64 - s.committed.stored as i64 };
        let staged = if s.dead { 0 } else { s.map.staged() };
        let out_of_reach = s.writers > 0 || s.stage.as_ref().is_some_and(|stage| stage.mapped);
        let open_staged = if out_of_reach { staged } else { 0 };
        let large = !s.dead
            && s.stage.as_ref().is_some_and(|stage| !matches!(stage.shape, crate::stage::Shape::Clean(_)));
        if growth != s.counted.growth {
            shared.count_growth(growth - s.counted.growth);
        }
        if (staged, open_staged) != (s.counted.staged, s.counted.open_staged) {
            shared.dirty.count(s.counted.staged, staged, s.counted.open_staged, open_staged);
        }
        if (large || s.counted.large)
            && let Some(me) = self.me.upgrade()
        {
            shared.note_large(&me, large, staged != s.counted.staged || s.delta.any);
        }
        s.counted = super::state::Counted { growth, staged, open_staged, large };
        if s.is_held()
            && !s.listed
            && let Some(me) = self.me.upgrade()
        {
            s.listed = true;
            shared.list_held(me);
        }
    }
}
