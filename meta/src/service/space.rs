//! One namespace, served: its leases, who waits, what is open and locked, and the remembered answers, under one lock with
//! which operations are done.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use granary_core::{Ino, NamespaceId, NamespaceName, SessionId};

use super::leases::{Leases, Member, ScopeKey};
use super::locks::{Locks, Ticket};
use super::replies::Replies;
use super::session::Session;
use crate::call::Request;
use crate::changes::KeyHash;
use crate::lease::LeaseKind;
use crate::local::LocalNamespace;
use crate::types::Usage;

/// A call on its way: in a line, or waiting for leases or a lock.
#[derive(Debug)]
pub(super) struct Job {
    pub session: Arc<Session>,
    /// The connection on which it came. When that is over the call is asked again, so this one is dropped.
    pub epoch: u64,
    pub request: Request,
    /// The namespace it is for; calls about the volume have none.
    pub space: Option<Arc<Space>>,
    /// Its place among those that waited for leases: the lower, the earlier. 0: it has not waited.
    pub number: u64,
    /// The scopes that it is noted to want.
    pub marks: Vec<ScopeKey>,
}

#[derive(Debug)]
pub(super) struct Space {
    pub id: NamespaceId,
    pub name: NamespaceName,
    pub local: Arc<LocalNamespace>,
    /// Held for one call: some microseconds, and engine reads when records are not cached. Inside it the namespace's own
    /// lock, sessions' queues and the table of sessions are taken.
    state: Mutex<State>,
}

/// Somebody waits for a scope.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    number: u64,
    member: Member,
    kind: LeaseKind,
}

#[derive(Debug)]
struct Parked {
    job: Job,
    /// What it still waits for.
    left: Vec<(ScopeKey, LeaseKind)>,
    /// It also waits for those who waited before it.
    patient: bool,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub leases: Leases,
    parked: HashMap<u64, Parked>,
    wanted: HashMap<ScopeKey, Vec<Wanted>, KeyHash>,
    pub opens: HashMap<Member, HashSet<Ino>>,
    pub locks: Locks,
    pub lock_waits: HashMap<Ticket, Job>,
    pub replies: HashMap<SessionId, Replies>,
    /// What each session last heard of the namespace's usage.
    pub usage_told: HashMap<Member, Usage, KeyHash>,
    /// Calls that need not wait any more because of the one that is being done.
    pub woken: Vec<Job>,
    numbers: u64,
    recalls: u32,
}

impl Space {
    pub fn new(local: Arc<LocalNamespace>, name: NamespaceName) -> Space {
        Space { id: local.id(), name, local, state: Mutex::default() }
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The namespace that a recall's number belongs to.
    pub fn of_recall(id: u64) -> NamespaceId {
        NamespaceId((id >> 32) as u32)
    }

    /// A recall's number: never twice among those that are not answered.
    pub fn recall_id(&self, state: &mut State) -> u64 {
        state.recalls = state.recalls.wrapping_add(1);
        u64::from(self.id.0) << 32 | u64::from(state.recalls)
    }

    /// Takes all away that a session has here. What waited for it and need not wait any more is put in `woken`, the locks'
    /// waits that are over in `granted`. How many leases it had.
    pub fn remove_session(
        &self,
        state: &mut State,
        session: &Session,
        woken: &mut Vec<Job>,
        granted: &mut Vec<Ticket>,
    ) -> u64 {
        let member = session.member;
        state.drop_jobs(session, u64::MAX, woken, granted);
        let keys = state.leases.remove_member(member);
        for key in &keys {
            state.changed(*key, woken);
        }
        state.locks.remove_member(member, granted);
        for ino in state.opens.remove(&member).unwrap_or_default() {
            self.local.unopen(ino);
        }
        if let Some(replies) = state.replies.remove(&session.id) {
            self.local.forget_replies(replies.places().map(|place| (session.id, place)));
        }
        state.usage_told.remove(&member);
        keys.len() as u64
    }
}

impl State {
    /// Whether a lease may be given: nobody else has one in the way, and it is not being recalled. A read lease is not given
    /// while somebody waits to change the scope. A write lease is: who has it waited in line for it, and would otherwise come
    /// back for ever, as would those behind; they get it afterwards.
    pub fn may_grant(&self, member: Member, key: ScopeKey, kind: LeaseKind) -> bool {
        self.leases.is_free(member, key, kind)
            && !self.leases.is_recalled(member, key)
            && (kind == LeaseKind::Write || self.wanted_by_others(member, key) != Some(LeaseKind::Write))
    }

    /// What others wait for: to change the scope, or only to read it.
    pub fn wanted_by_others(&self, member: Member, key: ScopeKey) -> Option<LeaseKind> {
        self.wanted.get(&key)?.iter().filter(|w| w.member != member).map(|w| w.kind).max()
    }

    /// Whether a call must wait for this scope. A patient one does not pass those who waited before it, nor what its own
    /// session was asked to give back.
    pub fn is_blocked(
        &self,
        member: Member,
        number: u64,
        key: ScopeKey,
        kind: LeaseKind,
        patient: bool,
    ) -> bool {
        let earlier = |w: &Wanted| {
            w.member != member && w.kind == LeaseKind::Write && (number == 0 || w.number < number)
        };
        let before = || {
            self.leases.is_recalled(member, key)
                || self.wanted.get(&key).is_some_and(|all| all.iter().any(earlier))
        };
        !self.leases.is_free(member, key, kind) || (patient && before())
    }

    /// Lets a call wait until nothing is in the way of these scopes. It keeps its place when it waited before.
    pub fn park(&mut self, mut job: Job, left: Vec<(ScopeKey, LeaseKind)>, patient: bool) {
        if job.number == 0 {
            self.numbers += 1;
            job.number = self.numbers;
        }
        let (number, member) = (job.number, job.session.member);
        for &(key, kind) in &left {
            self.wanted.entry(key).or_default().push(Wanted { number, member, kind });
            job.marks.push(key);
        }
        self.parked.insert(number, Parked { job, left, patient });
    }

    /// A call that waited is done, or dropped: what it wanted is nobody's wish any more.
    pub fn unmark(&mut self, job: &mut Job, woken: &mut Vec<Job>) {
        for key in std::mem::take(&mut job.marks) {
            if let Some(all) = self.wanted.get_mut(&key) {
                all.retain(|w| w.number != job.number);
                if all.is_empty() {
                    self.wanted.remove(&key);
                } else {
                    self.changed(key, woken);
                }
            }
        }
    }

    /// Something about a scope changed: who waits for nothing any more is put in `woken`. It stays noted as one who wants.
    pub fn changed(&mut self, key: ScopeKey, woken: &mut Vec<Job>) {
        let Some(all) = self.wanted.get(&key) else { return };
        let numbers: Vec<u64> = all.iter().map(|w| w.number).collect();
        for number in numbers {
            let Some(parked) = self.parked.get(&number) else { continue };
            let (member, patient) = (parked.job.session.member, parked.patient);
            let is_over = |&(k, kind): &(ScopeKey, LeaseKind)| {
                k == key && !self.is_blocked(member, number, k, kind, patient)
            };
            let left: Vec<_> = parked.left.iter().filter(|&pair| !is_over(pair)).copied().collect();
            if left.is_empty() {
                woken.extend(self.parked.remove(&number).map(|parked| parked.job));
            } else if let Some(parked) = self.parked.get_mut(&number) {
                parked.left = left;
            }
        }
    }

    /// Drops the calls of a session that wait and came on connections before `epoch`: they are asked again, or never.
    pub fn drop_jobs(
        &mut self,
        session: &Session,
        epoch: u64,
        woken: &mut Vec<Job>,
        granted: &mut Vec<Ticket>,
    ) {
        let is_old = |job: &Job| job.session.member == session.member && job.epoch < epoch;
        let parked: Vec<u64> =
            self.parked.iter().filter(|(_, p)| is_old(&p.job)).map(|(number, _)| *number).collect();
        for number in parked {
            if let Some(mut parked) = self.parked.remove(&number) {
                self.unmark(&mut parked.job, woken);
            }
        }
        let locks: Vec<Ticket> =
            self.lock_waits.iter().filter(|(_, job)| is_old(job)).map(|(ticket, _)| *ticket).collect();
        for ticket in &locks {
            self.lock_waits.remove(ticket);
        }
        self.locks.cancel(&locks, granted);
    }

    pub fn is_open(&self, member: Member, ino: Ino) -> bool {
        self.opens.get(&member).is_some_and(|all| all.contains(&ino))
    }

    /// Calls that wait for leases.
    pub fn parked(&self) -> usize {
        self.parked.len()
    }
}
