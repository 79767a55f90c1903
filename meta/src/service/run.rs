//! How a call gets done: its line, its turn, its trial, and what waits for it afterwards.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use granary_core::{Error, Kind, NamespaceId, Result};

use super::calls::Flow;
use super::identity::Rights;
use super::leases::{Member, ScopeKey};
use super::locks::Ticket;
use super::outgoing::Turn;
use super::session::Session;
use super::space::{Job, Space, State};
use super::{RECALL_TIMES, Service, lock};
use crate::call::{Answer, Call, Recall, Released, Response};
use crate::lease::LeaseKind;

/// Turns that a caller makes for others before it hands them over.
const TURNS_OF_A_CALLER: usize = 4;
/// Calls about the volume have a line of their own.
pub(super) const VOLUME: NamespaceId = NamespaceId(0);

pub(super) fn interrupted() -> Error {
    Error::new(Kind::Interrupted, "the wait for the lock was ended by who waited")
}

impl Service {
    /// Sends a call on its way: refused, kept until the grace time is over, or into its line.
    pub(super) fn dispatch(self: &Arc<Self>, mut job: Job) {
        self.counts.calls.add(job.request.call.kind());
        if self.in_grace.load(Ordering::SeqCst) {
            self.keeps_nothing(job.session.id);
            if let Err(e) = self.end_grace_if_due() {
                return self.refuse(&job, e);
            }
            if let Some(grace) = lock(&self.grace).as_mut() {
                grace.waiting.push(job);
                return;
            }
        }
        match self.check(&mut job) {
            Ok(ns) => self.enqueue(ns, job),
            Err(e) => self.refuse(&job, e),
        }
    }

    /// Whether the session may ask this, and in whose line the call belongs.
    fn check(&self, job: &mut Job) -> Result<NamespaceId> {
        let call = &job.request.call;
        if is_of_volume(call) {
            return self.check_volume_call(job);
        }
        let ns = job.request.ns;
        let Some(granted) = job.session.granted(ns) else {
            self.audit_refusal(&job.session, &format!("a call to namespace id {ns}, which was not granted"));
            // As for an id that was never given out.
            return Err(Error::new(Kind::NotFound, format!("there is no namespace with id {ns}")));
        };
        let is_write = call.changes() || matches!(call, Call::Lease { .. });
        // A node lists objects to delete or to rewrite them, whoever mounted: no attempt at anything.
        let is_upkeep = matches!(call, Call::DeadObjects { .. } | Call::LiveObjects { .. });
        if granted.rights == Rights::ReadOnly && (is_write || is_upkeep) {
            if is_write {
                self.audit_refusal(
                    &job.session,
                    &format!("a change to namespace {} with a read-only token", granted.space.name),
                );
            }
            let why = format!(
                "namespace {} is read-only for this token; ask for one that may write",
                granted.space.name
            );
            return Err(Error::new(Kind::ReadOnly, why));
        }
        job.space = Some(granted.space);
        Ok(ns)
    }

    pub(super) fn audit_refusal(&self, session: &Session, what: &str) {
        self.counts.refused.fetch_add(1, Ordering::Relaxed);
        let who = session.about().who.clone();
        self.audit.refused(&*self.clock, &who, Some(session.id), session.node, what);
    }

    /// Answers a call with an error that has no effect on anything.
    pub(super) fn refuse(&self, job: &Job, e: Error) {
        let (grants, touched) = (Vec::new(), Vec::new());
        let response = Response { id: job.request.id, result: Err(e), grants, touched, usage: None };
        job.session.queue.respond(&job.session, job.epoch, response, None);
    }

    pub(super) fn enqueue(self: &Arc<Self>, ns: NamespaceId, job: Job) {
        let starts = lock(&self.lines).push(ns, job);
        if starts {
            self.run(TURNS_OF_A_CALLER);
        }
    }

    /// Calls that need not wait any more.
    pub(super) fn enqueue_all(self: &Arc<Self>, jobs: Vec<Job>) {
        for job in jobs {
            self.enqueue(job.request.ns, job);
        }
    }

    /// Makes turns while there are calls in line, at most so many.
    fn run(self: &Arc<Self>, turns: usize) {
        let mut done = None;
        for _ in 0..turns {
            let Some((ns, jobs)) = lock(&self.lines).take(done) else { return };
            self.turn(ns, jobs);
            done = Some(ns);
        }
        // Others have calls still: not this caller's time. The turn is given back, the runner is handed over.
        let next = lock(&self.lines).pause(done);
        if next {
            self.threads.hand_over();
        }
    }

    /// Goes on as a runner that was handed over.
    pub(super) fn run_on(self: &Arc<Self>) {
        self.run(usize::MAX);
    }

    /// Does calls of one namespace, and has all that they changed written at once.
    fn turn(self: &Arc<Self>, ns: NamespaceId, jobs: Vec<Job>) {
        let turn = Arc::new(Turn::default());
        for job in jobs {
            if ns == VOLUME {
                self.volume_call(job);
            } else {
                self.try_call(job, &turn);
            }
        }
        if turn.is_waited_for() {
            self.volume.write_through(Box::new(move |result| turn.finish(result)));
        }
    }

    /// Does a call, or lets it wait for what is in its way.
    fn try_call(self: &Arc<Self>, mut job: Job, turn: &Arc<Turn>) {
        let ns = job.request.ns;
        let (mut woken, mut silent) = (Vec::new(), Vec::new());
        let Some(space) = job.space.clone() else {
            return self
                .refuse(&job, Error::new(Kind::Bug, "a call came into the line of another namespace"));
        };
        let mut state = space.lock();
        loop {
            state.unmark(&mut job, &mut woken);
            if job.session.ended().is_some() || !job.session.queue.is_current(job.epoch) {
                break;
            }
            if job.session.granted(ns).is_none() {
                // Taken away since it came.
                self.refuse(&job, Error::new(Kind::NotFound, format!("there is no namespace with id {ns}")));
                break;
            }
            match self.perform(&space, &mut state, &job, turn) {
                Flow::Answered(parts) => {
                    self.answer(&space, &mut state, &job, parts, Some(turn));
                    break;
                }
                Flow::Waits(ticket) => {
                    state.lock_waits.insert(ticket, job);
                    break;
                }
                Flow::Elsewhere => break,
                Flow::Silent(mut sessions) => {
                    silent.append(&mut sessions);
                    // Again, when they have ended.
                    woken.push(job);
                    break;
                }
                Flow::Blocked { scopes, patient } => {
                    let waits = self.recall(&space, &mut state, &job, scopes, patient, &mut silent);
                    if !waits.is_empty() {
                        state.park(job, waits, patient);
                        break;
                    }
                }
            }
        }
        woken.append(&mut state.woken);
        drop(state);
        let now = self.clock.monotonic();
        for session in silent {
            self.fence_if_due(&session, now);
        }
        self.enqueue_all(woken);
    }

    /// Asks back what is in the way of a call. What is left to wait for; empty when it may be tried again at once. Sessions
    /// whose time is over are put in `silent` too.
    fn recall(
        &self,
        space: &Space,
        state: &mut State,
        job: &Job,
        scopes: Vec<(ScopeKey, LeaseKind)>,
        patient: bool,
        silent: &mut Vec<Arc<Session>>,
    ) -> Vec<(ScopeKey, LeaseKind)> {
        let (member, now) = (job.session.member, self.clock.monotonic());
        let mut left = Vec::with_capacity(scopes.len());
        for (key, kind) in scopes {
            let mut holders = Vec::new();
            state.leases.in_the_way(member, key, kind, &mut holders);
            for holder in holders {
                // Without one, its end is under way, and will say that its leases are gone.
                let Some(session) = self.sessions.get(holder) else { continue };
                if session.silent(now) >= self.options.lease_time {
                    // Asked too: it may come back before it is ended, and then must answer.
                    silent.push(session);
                }
                self.recall_one(space, state, holder, key, kind);
            }
            if state.is_blocked(member, job.number, key, kind, patient) {
                left.push((key, kind));
            }
        }
        left
    }

    /// Asks a lease back, unless that was done.
    pub(super) fn recall_one(
        &self,
        space: &Space,
        state: &mut State,
        holder: Member,
        key: ScopeKey,
        wanted: LeaseKind,
    ) {
        let Some(session) = self.sessions.get(holder) else { return };
        let (id, now) = (space.recall_id(state), self.clock.monotonic());
        if state.leases.recall(holder, key, wanted, id, now) {
            self.counts.recalls.fetch_add(1, Ordering::Relaxed);
            session.queue.recall(Recall { id, ns: space.id, scope: key.scope(), wanted });
        }
    }

    /// A session answered a recall.
    pub(super) fn released(self: &Arc<Self>, session: &Arc<Session>, space: &Arc<Space>, released: Released) {
        let mut woken = Vec::new();
        let mut state = space.lock();
        if session.ended().is_some() {
            return;
        }
        let Some((key, gone)) = state.leases.released(session.member, released.id) else { return };
        if gone {
            session.leases.fetch_sub(1, Ordering::Relaxed);
        }
        if released.open
            && let crate::lease::Scope::Inode(ino) = key.scope()
            && let Err(e) = self.count_open(space, &mut state, session, ino)
        {
            tracing::warn!("inode {ino} of namespace {} is open in a session but cannot be: {e}", space.name);
        }
        state.changed(key, &mut woken);
        drop(state);
        self.enqueue_all(woken);
    }

    /// Answers lock calls whose wait is over.
    pub(super) fn locks_granted(&self, space: &Space, state: &mut State, granted: Vec<Ticket>) {
        for ticket in granted {
            let Some(job) = state.lock_waits.remove(&ticket) else { continue };
            let parts = super::answer::Parts::of(Ok(Answer::Done));
            self.answer(space, state, &job, parts, None);
        }
    }

    /// Ends a session that was not heard of for the lease time: somebody needs what it has.
    pub(super) fn fence_if_due(self: &Arc<Self>, session: &Arc<Session>, now: Duration) {
        let silent = session.silent(now);
        if silent >= self.options.lease_time && self.end(session, session.fenced(silent)) {
            self.counts.fenced.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Ends sessions that were not heard of for the lease time while somebody waits for what they have, or for much longer.
    pub(super) fn end_silent(self: &Arc<Self>, now: Duration) {
        let mut ended: Vec<Arc<Session>> = self.sessions.all();
        ended.retain(|session| session.silent(now) >= self.options.silence_max);
        let spaces: Vec<_> = lock(&self.spaces).values().cloned().collect();
        for space in spaces {
            let state = space.lock();
            let needed = state.leases.overdue(now).into_iter().chain(state.locks.waited_for());
            ended.extend(needed.filter_map(|member| self.sessions.get(member)));
        }
        for session in ended {
            self.fence_if_due(&session, now);
        }
    }

    /// Ends sessions that live but leave recalls unanswered for too long.
    pub(super) fn end_overdue(self: &Arc<Self>, now: Duration) {
        let bound = self.options.lease_time * RECALL_TIMES;
        let Some(before) = now.checked_sub(bound) else { return };
        let spaces: Vec<_> = lock(&self.spaces).values().cloned().collect();
        for space in spaces {
            let members = space.lock().leases.overdue(before);
            for session in members.into_iter().filter_map(|member| self.sessions.get(member)) {
                let why = format!(
                    "session {} of node {} did not give back a lease for {} s though it was asked to, so the metadata \
                     service ended it: its locks and open files went to others; look at that node, and open the files again",
                    session.id,
                    session.about().name,
                    bound.as_secs()
                );
                if self.end(&session, Error::new(Kind::Fenced, why)) {
                    self.counts.fenced.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

/// Calls that concern the volume, or a namespace by its name.
fn is_of_volume(call: &Call) -> bool {
    matches!(
        call,
        Call::Namespace { .. }
            | Call::Namespaces
            | Call::CreateNamespace { .. }
            | Call::SetNamespace { .. }
            | Call::RemoveNamespace { .. }
            | Call::Sessions
            | Call::RevokeToken { .. }
            | Call::Delegate { .. }
    )
}
