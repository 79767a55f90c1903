//! What the metadata service asks of a namespace: operations that are judged before they take effect, and written with a
//! record of their answer.
//!
//! Nothing here wakes the committer: who changes something waits for [`super::Volume::write_through`], which writes it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use granary_core::{Ino, Result, SessionId};

use super::namespace::{LocalNamespace, ORPHANS_AT_ONCE};
use super::{Volume, lock};
use crate::changes::Changes;
use crate::engine::Write;
use crate::machine::{self, Operation, Records, Reply, read};
use crate::record::{Family, Key, ReplyRecord, Span, Value};
use crate::types::Attr;

/// Whether the inode that an operation answers counts as open afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    No,
    Open,
    /// If it lost its last name.
    Nameless,
}

/// What is to become of an operation's changes.
pub(crate) enum Verdict {
    /// They take effect, with this record.
    Apply(Option<(Key, Value)>),
    /// They are forgotten.
    Wait,
}

impl LocalNamespace {
    /// Applies an operation if `judge` says so, who sees what it would change and answer. `keep` says
    /// whether the inode that it answers counts as open. `None`: it was not applied. An inode that lost its last name and is
    /// not open is freed.
    pub(crate) fn serve(
        &self,
        mut operation: Operation,
        keep: Keep,
        judge: impl FnOnce(&Changes, &Reply) -> Verdict,
    ) -> Result<Option<Reply>> {
        let mut guard = self.lock_with_room()?;
        let state = &mut *guard;
        if let Some(e) = &state.refused {
            return Err(e.duplicate());
        }
        self.tell_open(state, &mut operation)?;
        let now = self.shared.clock.now();
        let (mut changes, reply) = machine::apply(&mut self.layers(state), operation, now)?;
        match judge(&changes, &reply) {
            Verdict::Wait => return Ok(None),
            Verdict::Apply(None) => {}
            Verdict::Apply(Some((key, value))) => changes.set(key, Some(value)),
        }
        self.absorb(state, changes);
        match &reply {
            Reply::Attr(attr) if keep == Keep::Open => *state.opens.entry(attr.ino).or_default() += 1,
            Reply::Attr(Attr { ino, nlink: 0, .. }) | Reply::Renamed(Some(Attr { ino, nlink: 0, .. }))
                if keep == Keep::Nameless =>
            {
                *state.opens.entry(*ino).or_default() += 1;
            }
            Reply::Attr(Attr { ino, nlink: 0, .. }) | Reply::Renamed(Some(Attr { ino, nlink: 0, .. }))
                if !state.opens.contains_key(ino) =>
            {
                let ino = *ino;
                self.free(state, ino);
            }
            _ => {}
        }
        Ok(Some(reply))
    }

    pub(crate) fn attr_now(&self, ino: Ino) -> Result<Attr> {
        self.read(|view| Ok(view.inode(ino)?.attr.clone()))
    }

    pub(crate) fn is_open(&self, ino: Ino) -> bool {
        lock(&self.state).opens.contains_key(&ino)
    }

    /// Something was changed that is not in the engine yet.
    pub(crate) fn has_unwritten(&self) -> bool {
        lock(&self.state).overlay.is_dirty()
    }

    /// Counts an open of an inode that may be without a name: the session had it open before the service was started.
    pub(crate) fn reopen(&self, ino: Ino) -> Result<()> {
        let mut state = lock(&self.state);
        self.layers(&mut state).inode(ino)?;
        *state.opens.entry(ino).or_default() += 1;
        Ok(())
    }

    /// Takes an open back; what that frees is pending afterwards. `true`: it was the last, and the inode went to the trash.
    pub(crate) fn unopen(&self, ino: Ino) -> bool {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        let Some(count) = state.opens.get_mut(&ino) else { return false };
        *count -= 1;
        if *count > 0 {
            return false;
        }
        state.opens.remove(&ino);
        match self.layers(state).find_inode(ino) {
            Ok(Some(inode)) if inode.attr.nlink == 0 => {
                self.free(state, ino);
                matches!(self.layers(state).find_inode(ino), Ok(Some(inode)) if inode.attr.nlink > 0)
            }
            Ok(_) => false,
            Err(e) => {
                tracing::warn!("inode {ino} of namespace {} cannot be read at its close: {e}", self.id);
                false
            }
        }
    }

    /// Remembered answers of sessions, as they lie in the engine.
    pub(crate) fn replies(&self, visit: &mut dyn FnMut(SessionId, u32, Arc<ReplyRecord>)) -> Result<()> {
        self.read(|view| {
            view.scan(Span::All(Family::Reply), None, &mut |key, value| {
                if let (Key::Reply(session, slot), Value::Reply(reply)) = (key, value) {
                    visit(session, slot, reply);
                }
                Ok(true)
            })
        })
    }

    /// Forgets answers; pending afterwards.
    pub(crate) fn forget_replies(&self, of: impl IntoIterator<Item = (SessionId, u32)>) {
        let mut changes = Changes::default();
        for (session, slot) in of {
            changes.set(Key::Reply(session, slot), None);
        }
        let mut state = lock(&self.state);
        self.absorb(&mut state, changes);
    }

    /// Frees what has no name and is not open.
    pub(crate) fn free_unopened(&self) -> Result<()> {
        let mut after = Ino(0);
        loop {
            let found = self.read(|view| read::orphans(view, after, ORPHANS_AT_ONCE))?;
            let Some(last) = found.last() else { return Ok(()) };
            after = *last;
            for ino in found {
                let mut guard = self.lock_with_room()?;
                let state = &mut *guard;
                if !state.opens.contains_key(&ino) {
                    self.free(state, ino);
                }
            }
        }
    }
}

impl Volume {
    /// From now on the volume has sessions.
    pub(crate) fn begin_service(&self) {
        self.shared.served.store(true, Ordering::SeqCst);
    }

    /// All who had files open, and come back, are back: what nobody has open is freed.
    pub fn free_orphans(&self) -> Result<()> {
        self.shared.keep_orphans.store(false, Ordering::SeqCst);
        for (_, id) in self.names()? {
            let view = &mut machine::EngineView { engine: &*self.shared.engine, ns: id };
            let space = self.namespace_by_id(id)?;
            if !read::orphans(view, Ino(0), 1)?.is_empty() || space.has_unwritten() {
                space.free_unopened()?;
                self.shared.bell.dirty();
            }
        }
        Ok(())
    }

    /// Writes records of the volume; with `sync` they are durable at return.
    pub(crate) fn put_records(&self, batch: Vec<Write>, sync: bool) -> Result<()> {
        if let Some(e) = self.shared.bell.failure() {
            return Err(e);
        }
        self.shared.bell.refuse_when_stopped()?;
        self.shared.engine.write(batch, sync)?;
        if !sync && self.shared.coverage.wrote() {
            self.shared.bell.nudge();
        }
        Ok(())
    }

    /// The volume's records that begin with `prefix`.
    pub(crate) fn scan_records(&self, prefix: &[u8], visit: &mut crate::engine::Visit<'_>) -> Result<()> {
        self.shared.engine.scan(prefix, prefix, visit)
    }

    pub(crate) fn get_record(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.shared.engine.get(key)
    }

    /// The waiter is called after the next sync.
    pub(crate) fn ask_sync(&self, waiter: super::Waiter) -> Result<()> {
        self.shared.bell.ask_sync(waiter)
    }
}
