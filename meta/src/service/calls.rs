//! What each call of a namespace does. Under the namespace's lock, once for each trial.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use granary_core::{EntryName, Error, Ino, Kind, Result};

use super::Service;
use super::answer::Parts;
use super::leases::{NOBODY, ScopeKey};
use super::locks::{Asked, Owner, Ticket, normal};
use super::outgoing::Turn;
use super::run::interrupted;
use super::session::Session;
use super::space::{Job, Space, State};
use crate::call::{Answer, Call, Response};
use crate::changes::Changes;
use crate::lease::{LeaseKind, Lock, LockRequest, Scope};
use crate::local::{Keep, Verdict};
use crate::machine::{self, Operation, Reply, read};
use crate::record::{Answered, Key, ReplyRecord, Value};
use crate::types::Attr;

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

    fn lock(&self, space: &Space, state: &mut State, job: &Job, ino: Ino, request: LockRequest) -> Flow {
        let (member, id) = (job.session.member, job.request.id);
        let Some(lock) = normal(request.lock) else { return failed(empty_range()) };
        if !request.unlock {
            if let Err(e) = space.local.attr_now(ino) {
                return failed(e);
            }
            if state.locks.count(member) >= self.options.locks_max {
                return failed(Error::new(Kind::Busy, "this node holds too many locks; release some"));
            }
            if request.wait && job.session.queue.is_cancelled(job.epoch, id) {
                return failed(interrupted());
            }
        }
        let mut granted = Vec::new();
        let owner = (member, request.owner);
        if !request.unlock
            && let Some(silent) = self.silent_holders(state, ino, owner, &lock)
        {
            return silent;
        }
        let asked = state.locks.request(ino, owner, &lock, request.unlock, request.wait, &mut granted);
        self.locks_granted(space, state, granted);
        match asked {
            Asked::Done => done(),
            Asked::Waits(ticket) => Flow::Waits(ticket),
            Asked::WouldBlock => {
                failed(Error::new(Kind::WouldBlock, "somebody else has a lock that is in the way"))
            }
            Asked::Deadlock => failed(Error::new(Kind::Deadlock, "who has the lock waits for this one")),
        }
    }

    /// Whether a lock is held by sessions that were not heard of for the lease time.
    fn silent_holders(&self, state: &State, ino: Ino, owner: Owner, lock: &Lock) -> Option<Flow> {
        let now = self.clock.monotonic();
        let holders = state.locks.in_the_way(ino, owner, lock).into_iter();
        let sessions = holders.filter_map(|member| self.sessions.get(member));
        let silent: Vec<_> =
            sessions.filter(|session| session.silent(now) >= self.options.lease_time).collect();
        (!silent.is_empty()).then_some(Flow::Silent(silent))
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

    /// A call that changes something: applied, if nobody holds what it would change, with the record of its answer.
    fn change(&self, space: &Space, state: &mut State, job: &Job) -> Flow {
        let (operation, open) = match operation(&job.request.call) {
            Ok(operation) => operation,
            Err(e) => return failed(e),
        };
        let (session, id) = (&job.session, job.request.id);
        if open && session.opens.load(Ordering::Relaxed) >= self.options.opens_max {
            return failed(Error::new(Kind::Busy, "this node has too many files open; close some"));
        }
        let replies = state.replies.entry(session.id).or_default();
        if replies.len() >= self.options.replies_max {
            let why = format!(
                "the session has not confirmed {} answers; it must before it changes more",
                replies.len()
            );
            return failed(Error::new(Kind::Busy, why));
        }
        let place = replies.place();
        // Where bytes lie is no content: who has old extents finds them moved, and asks again.
        let is_content = !matches!(
            operation,
            Operation::Relocate { .. } | Operation::KeepInline { .. } | Operation::ForgetObjects { .. }
        );
        let mut trial = Trial::default();
        let leases = &state.leases;
        let source = match &job.request.call {
            Call::CopyRange(copy) => Some(key_of(copy.from)),
            _ => None,
        };
        let source = match source.transpose() {
            Ok(source) => source,
            Err(e) => return failed(e),
        };
        let keep = if open { Keep::Open } else { self.keeps_nameless(&job.request.call) };
        let may_purge = |ino: Ino| key_of(ino).is_ok_and(|key| leases.is_free(NOBODY, key, LeaseKind::Write));
        if let Err(e) = space.local.make_room(&operation, &mut { may_purge }) {
            return failed(e);
        }
        let served = space.local.serve(operation, keep, |changes, reply| {
            if is_content {
                trial.scopes = changed_scopes(changes);
            }
            for key in &trial.scopes {
                if !leases.is_free(session.member, *key, LeaseKind::Write) {
                    trial.blocked.push((*key, LeaseKind::Write));
                }
            }
            if let Some(key) = source
                && !leases.is_free(session.member, key, LeaseKind::Read)
            {
                trial.blocked.push((key, LeaseKind::Read));
            }
            if !trial.blocked.is_empty() {
                return Verdict::Wait;
            }
            if is_content {
                trial.touched = touched(changes, reply, &job.request.call);
            }
            let Some(answer) = answered(reply) else { return Verdict::Apply(None) };
            let inos = trial.touched.iter().map(|attr| attr.ino).collect();
            let record = Arc::new(ReplyRecord { id, answer, touched: inos });
            trial.record = Some(record.clone());
            Verdict::Apply(Some((Key::Reply(session.id, place), Value::Reply(record))))
        });
        match served {
            Err(e) => failed(e),
            Ok(None) => Flow::Blocked { scopes: trial.blocked, patient: false },
            Ok(Some(reply)) => self.changed(space, state, job, keep, trial, &reply),
        }
    }

    fn changed(
        &self,
        space: &Space,
        state: &mut State,
        job: &Job,
        keep: Keep,
        trial: Trial,
        reply: &Reply,
    ) -> Flow {
        let session = &job.session;
        let Some(record) = trial.record else {
            return failed(Error::new(
                Kind::Bug,
                format!("a call was answered with what is no answer: {reply:?}"),
            ));
        };
        let answer = Answer::from(&record.answer);
        state.replies.entry(session.id).or_default().insert(record);
        let mut parts = Parts::of(Ok(answer));
        for key in trial.scopes {
            parts.wants.push((key.scope(), LeaseKind::Read));
        }
        match reply {
            Reply::Attr(attr) if keep == Keep::Open => {
                // The open was counted with the change.
                if state.opens.entry(session.member).or_default().insert(attr.ino) {
                    session.opens.fetch_add(1, Ordering::Relaxed);
                } else {
                    space.local.unopen(attr.ino);
                }
                parts.wants.retain(|(scope, _)| *scope != Scope::Inode(attr.ino));
                parts.wants.push((Scope::Inode(attr.ino), LeaseKind::Write));
            }
            Reply::Attr(Attr { ino, nlink: 0, .. }) | Reply::Renamed(Some(Attr { ino, nlink: 0, .. }))
                if keep == Keep::Nameless =>
            {
                match &job.space {
                    Some(space) => self.linger(space, *ino),
                    None => {
                        space.local.unopen(*ino);
                    }
                }
            }
            Reply::Attr(Attr { ino, nlink: 0, .. }) | Reply::Renamed(Some(Attr { ino, nlink: 0, .. }))
                if !space.local.is_open(*ino) =>
            {
                // It is gone, and so is what there was to hold.
                for scope in [Scope::Inode(*ino), Scope::Directory(*ino)] {
                    parts.wants.retain(|(wanted, _)| *wanted != scope);
                    if let Some(key) = ScopeKey::new(scope) {
                        self.drop_lease(state, session, key);
                    }
                }
            }
            _ => {}
        }
        parts.touched = trial.touched;
        if let Call::SetNamespace { .. } = job.request.call {
            parts.result = space.local.info().map(Answer::Namespace);
            self.tell_settings(space);
        }
        Flow::Answered(parts)
    }
}

/// What was found out while an operation was tried.
#[derive(Default)]
struct Trial {
    scopes: Vec<ScopeKey>,
    blocked: Vec<(ScopeKey, LeaseKind)>,
    touched: Vec<Attr>,
    record: Option<Arc<ReplyRecord>>,
}

fn done() -> Flow {
    Flow::Answered(Parts::of(Ok(Answer::Done)))
}

fn failed(e: Error) -> Flow {
    Flow::Answered(Parts::of(Err(e)))
}

fn empty_range() -> Error {
    Error::new(Kind::Invalid, "a lock's range ends before it begins")
}

fn key_of(ino: Ino) -> Result<ScopeKey> {
    let stale = || Error::new(Kind::Stale, "the file or directory does not exist any more");
    ScopeKey::new(Scope::Inode(ino)).ok_or_else(stale)
}

/// The scopes of the records that an operation would change.
fn changed_scopes(changes: &Changes) -> Vec<ScopeKey> {
    let mut scopes = Vec::with_capacity(4);
    for key in changes.points.keys().chain(changes.ranges.keys()) {
        let scope = match key {
            Key::Inode(ino) | Key::Xattr(ino, _) | Key::Target(ino) | Key::Extent(ino, _) => {
                Scope::Inode(*ino)
            }
            Key::Entry(dir, _) | Key::Listing(dir, _) => Scope::Directory(*dir),
            // It comes and goes with the content; whose record is changed too.
            Key::Inline(_)
            | Key::Counters
            | Key::Condemned(_)
            | Key::Dead(..)
            | Key::Redo(..)
            | Key::Namespace
            | Key::Object(_)
            | Key::Reply(..)
            | Key::Orphan(_) => continue,
        };
        scopes.extend(ScopeKey::new(scope));
    }
    scopes.sort_unstable();
    scopes.dedup();
    scopes
}

/// The new attributes of what was changed besides the inode that the reply tells of. Not of the trash's directories, of which
/// nobody has leases; only those that the call is about may have been moved out of it.
fn touched(changes: &Changes, reply: &Reply, call: &Call) -> Vec<Attr> {
    let dirs = match call {
        Call::Create { dir, .. }
        | Call::Tmpfile { dir, .. }
        | Call::Link { dir, .. }
        | Call::Unlink { dir, .. }
        | Call::Rmdir { dir, .. } => [*dir; 2],
        Call::Rename { dir, to_dir, .. } => [*dir, *to_dir],
        Call::SetAttr { ino, .. } | Call::SetXattr { ino, .. } | Call::RemoveXattr { ino, .. } => [*ino; 2],
        _ => [Ino::ROOT; 2],
    };
    let told = match reply {
        Reply::Attr(attr) | Reply::Renamed(Some(attr)) => Some(attr.ino),
        Reply::Copied(copied) => Some(copied.attr.ino),
        _ => None,
    };
    let inodes = changes.points.values().filter_map(|value| match value {
        Some(Value::Inode(inode))
            if Some(inode.attr.ino) != told
                && (!inode.attr.ino.is_of_trash() || dirs.contains(&inode.attr.ino)) =>
        {
            Some(inode.attr.clone())
        }
        _ => None,
    });
    inodes.collect()
}

fn answered(reply: &Reply) -> Option<Answered> {
    Some(match reply {
        Reply::Done => Answered::Done,
        Reply::Attr(attr) => Answered::Attr(attr.clone()),
        Reply::Renamed(lost) => Answered::Renamed(lost.clone()),
        Reply::Moved(parts) => Answered::Parts(parts.clone()),
        Reply::Copied(copied) => Answered::Copied(copied.clone()),
        Reply::Freed(_) | Reply::Condemned(_) | Reply::Purged(_) => return None,
    })
}

/// What a call does to the state machine, and whether it opens what it makes.
fn operation(call: &Call) -> Result<(Operation, bool)> {
    let mut opens = false;
    let operation = match call.clone() {
        Call::SetXattr { ino, name, value, create_only, replace_only } => {
            Operation::SetXattr { ino, name, value, create_only, replace_only }
        }
        Call::RemoveXattr { ino, name } => Operation::RemoveXattr { ino, name },
        Call::Create { dir, name, new, open } => {
            opens = open;
            Operation::Create { dir, name, new }
        }
        Call::Link { ino, dir, name } => Operation::Link { ino, dir, name },
        Call::Unlink { dir, name } => Operation::Unlink { dir, name, open: false },
        Call::Rmdir { dir, name } => Operation::Rmdir { dir, name },
        Call::Rename { dir, name, to_dir, to_name, mode } => {
            Operation::Rename { dir, name, to_dir, to_name, mode, open: false }
        }
        Call::SetAttr { ino, set } => Operation::SetAttr { ino, set },
        Call::Commit(commit) => Operation::Commit(commit),
        Call::Relocate { object, moves } => Operation::Relocate { object, moves },
        Call::KeepInline { object, copies } => Operation::KeepInline { object: object.id, copies },
        Call::ForgetObjects { ids } => Operation::ForgetObjects { ids },
        Call::SetNamespace { change, .. } => Operation::Configure { change },
        Call::Tmpfile { dir, new } => {
            opens = true;
            Operation::Tmpfile { dir, new }
        }
        Call::CopyRange(copy) => Operation::CopyRange(copy),
        other => {
            return Err(Error::new(
                Kind::Bug,
                format!("a call that changes nothing came to be applied: {other:?}"),
            ));
        }
    };
    Ok((operation, opens))
}

/// Answers a reading call, and says what the answer depends on.
fn read_call(space: &Space, call: &Call) -> (Result<Answer>, Vec<Scope>) {
    let inode = |ino: &Ino| vec![Scope::Inode(*ino)];
    match call {
        Call::Lookup { dir, name } => lookup(space, *dir, name),
        Call::GetAttr { ino } => (space.local.attr_now(*ino).map(Answer::Attr), inode(ino)),
        Call::ReadDir { dir, cookie, max, with_attr } => read_dir(space, *dir, *cookie, *max, *with_attr),
        Call::Parent { dir } => {
            (space.local.read(|view| read::parent(view, *dir)).map(Answer::Ino), inode(dir))
        }
        Call::ReadLink { ino } => {
            (space.local.read(|view| read::readlink(view, *ino)).map(Answer::Bytes), inode(ino))
        }
        Call::GetXattr { ino, name } => {
            (space.local.read(|view| read::getxattr(view, *ino, name)).map(Answer::Bytes), inode(ino))
        }
        Call::ListXattr { ino } => {
            (space.local.read(|view| read::listxattr(view, *ino)).map(Answer::Names), inode(ino))
        }
        Call::Extents { ino, with_inline } => {
            let found = space.local.read(|view| {
                let copy = if *with_inline { read::inline(view, *ino)? } else { None };
                read::extents(view, *ino).map(|(attr, extents)| Answer::Extents(attr, extents, copy))
            });
            (found, inode(ino))
        }
        Call::Live { staged } => {
            (space.local.read(|view| machine::live(view, staged)).map(Answer::Parts), Vec::new())
        }
        Call::Object { id } => {
            (space.local.read(|view| read::object(view, *id)).map(Answer::Object), Vec::new())
        }
        Call::DeadObjects { max } => {
            let dead = space.local.read(|view| read::dead_objects(view, (*max).min(ITEMS_MAX) as usize));
            (dead.map(Answer::DeadObjects), Vec::new())
        }
        Call::LiveObjects { after, max } => {
            let max = (*max).min(ITEMS_MAX) as usize;
            let live = space.local.read(|view| read::live_objects(view, *after, max));
            (live.map(Answer::LiveObjects), Vec::new())
        }
        other => {
            let e = Error::new(Kind::Bug, format!("a call that reads nothing came to be read: {other:?}"));
            (Err(e), Vec::new())
        }
    }
}

fn lookup(space: &Space, dir: Ino, name: &[u8]) -> (Result<Answer>, Vec<Scope>) {
    let found = space.local.read(|view| {
        let name = EntryName::new(name)?;
        read::lookup(view, dir, name)
    });
    let mut scopes = vec![Scope::Directory(dir)];
    match found {
        Ok(attr) => {
            scopes.push(Scope::Inode(attr.ino));
            (Ok(Answer::Attr(attr)), scopes)
        }
        Err(e) => (Err(e), scopes),
    }
}

fn read_dir(space: &Space, dir: Ino, cookie: u64, max: u32, with_attr: bool) -> (Result<Answer>, Vec<Scope>) {
    let max = max.min(ITEMS_MAX) as usize;
    let entries = space.local.read(|view| read::readdir(view, dir, cookie, max, with_attr));
    let mut scopes = Vec::new();
    if let Ok(entries) = &entries {
        let inodes: BTreeSet<Ino> =
            entries.iter().filter_map(|entry| entry.attr.as_ref()).map(|attr| attr.ino).collect();
        scopes.push(Scope::Directory(dir));
        scopes.extend(inodes.into_iter().map(Scope::Inode));
    }
    (entries.map(Answer::Entries), scopes)
}

/// Entries, or objects, in one answer.
const ITEMS_MAX: u32 = 10_000;
