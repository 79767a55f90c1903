//! What each call of a namespace does. Under the namespace's lock, once for each trial.

mod change;
mod lock;
mod read;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use granary_core::{Error, Ino, Kind, Result};

use self::lock::empty_range;
use self::read::read_call;
use super::Service;
use super::answer::Parts;
use super::leases::{NOBODY, ScopeKey};
use super::locks::{Ticket, normal};
use super::outgoing::Turn;
use super::session::Session;
use super::space::{Job, Space, State};
use crate::call::{Answer, Call, Response};
use crate::lease::{LeaseKind, Scope};

/// What became of a trial.
#[allow(clippy::large_enum_variant)] // nearly all are answers; a box for each would cost more than the room
pub(super) enum Flow {
    Answered(Parts),
    /// These scopes must be free first.
    Blocked {
        scopes: Vec<(ScopeKey, LeaseKind)>,
        patient: bool,
    },
    /// For a lock.
    Waits(Ticket),
    /// These sessions are in the way, and their time is over.
    Silent(Vec<Arc<Session>>),
    /// It was answered, or will be, by somebody else.
    Elsewhere,
}

impl Service {
    pub(super) fn perform(
        self: &Arc<Self>,
        space: &Space,
        state: &mut State,
        job: &Job,
        turn: &Arc<Turn>,
    ) -> Flow {
        if let Some(replies) = state.replies.get_mut(&job.session.id) {
            replies.confirm(job.request.acked_below);
        }
        if job.request.call.changes() {
            return match self.answer_again(space, state, job, turn) {
                Some(()) => Flow::Elsewhere,
                None => self.change(space, state, job),
            };
        }
        match &job.request.call {
            Call::Open { ino } => self.open(space, state, &job.session, *ino),
            Call::Close { inos } => {
                inos.iter().for_each(|ino| self.close(space, state, &job.session, *ino));
                done()
            }
            Call::Lease { ino } => self.lease(space, state, &job.session, job.number, *ino),
            Call::Forget { scopes } => self.forget(state, job, scopes),
            Call::TestLock { ino, owner, lock } => {
                let Some(lock) = normal(*lock) else { return failed(empty_range()) };
                if let Some(silent) = self.silent_holders(state, *ino, (job.session.member, *owner), &lock) {
                    return silent;
                }
                let found = state.locks.test(*ino, (job.session.member, *owner), &lock);
                Flow::Answered(Parts::of(Ok(Answer::Lock(found))))
            }
            Call::Lock { ino, request } => self.lock(space, state, job, *ino, *request),
            Call::Sync => self.sync(job),
            Call::Peer { node } => Flow::Answered(Parts::of(self.peer(space, &job.session, *node))),
            call => self.read(space, state, &job.session, call),
        }
    }

    /// Calls that only read. A write lease of somebody else on what is answered is in the way.
    fn read(&self, space: &Space, state: &State, session: &Session, call: &Call) -> Flow {
        let (result, scopes) = read_call(space, call);
        let mut blocked = Vec::new();
        for scope in &scopes {
            if let Some(key) = ScopeKey::new(*scope)
                && !state.leases.is_free(session.member, key, LeaseKind::Read)
            {
                blocked.push((key, LeaseKind::Read));
            }
        }
        if blocked.is_empty() {
            Flow::Answered(Parts::reading(result, scopes))
        } else {
            Flow::Blocked { scopes: blocked, patient: false }
        }
    }

    fn open(&self, space: &Space, state: &mut State, session: &Session, ino: Ino) -> Flow {
        match key_of(ino) {
            Ok(key) if !state.leases.is_free(session.member, key, LeaseKind::Read) => {
                return Flow::Blocked { scopes: vec![(key, LeaseKind::Read)], patient: false };
            }
            Ok(_) => {}
            Err(e) => return failed(e),
        }
        let opened = space.local.attr_now(ino).and_then(|attr| {
            if attr.nlink == 0 && !state.is_open(session.member, ino) && !space.local.is_open(ino) {
                return Err(Error::new(Kind::Stale, "the file or directory does not exist any more"));
            }
            self.count_open(space, state, session, ino)?;
            Ok(Answer::Attr(attr))
        });
        Flow::Answered(Parts::reading(opened, [Scope::Inode(ino)]))
    }

    /// From now on the session has the inode open.
    pub(super) fn count_open(
        &self,
        space: &Space,
        state: &mut State,
        session: &Session,
        ino: Ino,
    ) -> Result<()> {
        if state.is_open(session.member, ino) {
            return Ok(());
        }
        if session.opens.load(Ordering::Relaxed) >= self.options.opens_max {
            return Err(Error::new(Kind::Busy, "this node has too many files open; close some"));
        }
        space.local.reopen(ino)?;
        state.opens.entry(session.member).or_default().insert(ino);
        session.opens.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn close(&self, space: &Space, state: &mut State, session: &Session, ino: Ino) {
        let Some(all) = state.opens.get_mut(&session.member) else { return };
        if all.remove(&ino) {
            if all.is_empty() {
                state.opens.remove(&session.member);
            }
            session.opens.fetch_sub(1, Ordering::Relaxed);
            let to_trash = space.local.unopen(ino);
            self.forget_gone(space, state, Some(session), ino, to_trash);
        }
    }

    /// After a close, of `session` if it was one's: nothing needs to be kept of an inode that went with it. With `to_trash` it
    /// has a name again, which nobody was told.
    pub(super) fn forget_gone(
        &self,
        space: &Space,
        state: &mut State,
        session: Option<&Session>,
        ino: Ino,
        to_trash: bool,
    ) {
        let Ok(key) = key_of(ino) else { return };
        if !to_trash && space.local.attr_now(ino).is_ok() {
            return;
        }
        let session = session.filter(|_| !to_trash);
        if let Some(session) = session {
            self.drop_lease(state, session, key);
        }
        let mut holders = Vec::new();
        let member = session.map_or(NOBODY, |session| session.member);
        state.leases.in_the_way(member, key, LeaseKind::Write, &mut holders);
        for holder in holders {
            self.recall_one(space, state, holder, key, LeaseKind::Write);
        }
    }

    fn lease(&self, space: &Space, state: &State, session: &Session, number: u64, ino: Ino) -> Flow {
        let attr = match space.local.attr_now(ino) {
            Ok(attr) => attr,
            Err(e) => return failed(e),
        };
        let key = match key_of(ino) {
            Ok(key) => key,
            Err(e) => return failed(e),
        };
        let is_writer = state.leases.holds(session.member, key) == Some(LeaseKind::Write)
            && !state.leases.is_recalled(session.member, key);
        if !is_writer && state.is_blocked(session.member, number, key, LeaseKind::Write, true) {
            return Flow::Blocked { scopes: vec![(key, LeaseKind::Write)], patient: true };
        }
        let mut parts = Parts::of(Ok(Answer::Attr(attr)));
        parts.wants.push((Scope::Inode(ino), LeaseKind::Write));
        Flow::Answered(parts)
    }

    fn forget(&self, state: &mut State, job: &Job, scopes: &[Scope]) -> Flow {
        for key in scopes.iter().filter_map(|scope| ScopeKey::new(*scope)) {
            self.drop_lease(state, &job.session, key);
        }
        done()
    }

    /// Takes a lease of the session that asks away; who waited for it goes on after this call.
    fn drop_lease(&self, state: &mut State, session: &Session, key: ScopeKey) {
        if state.leases.remove(session.member, key) {
            session.leases.fetch_sub(1, Ordering::Relaxed);
            let mut woken = std::mem::take(&mut state.woken);
            state.changed(key, &mut woken);
            state.woken = woken;
        }
    }

    /// Answered when all that was acknowledged is durable.
    fn sync(&self, job: &Job) -> Flow {
        let (session, epoch, id) = (job.session.clone(), job.epoch, job.request.id);
        let asked = self.volume.ask_sync(Box::new(move |result| {
            let (grants, touched) = (Vec::new(), Vec::new());
            let result = result.map(|()| Answer::Done);
            session.queue.respond(
                &session,
                epoch,
                Response { id, result, grants, touched, usage: None },
                None,
            );
        }));
        match asked {
            Ok(()) => Flow::Elsewhere,
            Err(e) => failed(e),
        }
    }
}

fn done() -> Flow {
    Flow::Answered(Parts::of(Ok(Answer::Done)))
}

fn failed(e: Error) -> Flow {
    Flow::Answered(Parts::of(Err(e)))
}

fn key_of(ino: Ino) -> Result<ScopeKey> {
    let stale = || Error::new(Kind::Stale, "the file or directory does not exist any more");
    ScopeKey::new(Scope::Inode(ino)).ok_or_else(stale)
}
