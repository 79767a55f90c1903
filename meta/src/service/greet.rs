//! A session's beginning, its coming back, and its end.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use granary_core::{Error, Ino, Kind, NodeId, Result, SessionId};

use super::identity::Identity;
use super::leases::ScopeKey;
use super::locks::{Asked, normal};
use super::replies::Replies;
use super::session::{About, Granted, Session};
use super::space::{Job, Space};
use super::{Connection, Service, grace, lock, stops};
use crate::api::Metadata;
use crate::call::{Greeting, Had, Held, Hello, Recall};
use crate::lease::{LeaseKind, Scope};
use crate::record::session::{self as records, SessionRecord};

/// Longest host name and address that a session may give, as DNS has it, with a port.
const TEXT_MAX: usize = 300;
/// Nodes that are remembered after their last session ended.
const NODES_MAX: usize = 10_000;

/// A session that was greeted.
struct Begun {
    session: Arc<Session>,
    /// Its new connection.
    epoch: u64,
    /// It is the one that was asked for.
    resumed: bool,
    next_call: u64,
    had: Vec<Had>,
}

/// What is known of a node, also after its session ended.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub name: String,
    /// By the clock.
    pub heard: Duration,
}

impl Service {
    /// Begins a session, goes on with one, or takes one back after a restart of the service. `who` was proven by the
    /// caller. `Denied` for a revoked token, `Busy` when there are too many sessions, `Unavailable` when the service stops.
    pub fn greet(self: &Arc<Self>, who: Identity, hello: Hello) -> Result<(Greeting, Connection)> {
        let texts = [
            Some(&hello.name),
            hello.data_address.as_ref(),
            Some(&who.user),
            Some(&who.token),
            who.parent.as_ref(),
        ];
        if texts.into_iter().flatten().any(|text| text.len() > TEXT_MAX) {
            return Err(Error::new(Kind::Invalid, "a name or address of the session is too long"));
        }
        if self.is_revoked(&who.token) || who.parent.as_ref().is_some_and(|parent| self.is_revoked(parent)) {
            self.refuse_greeting(&who, &hello, "a greeting with a revoked token");
            return Err(Error::new(Kind::Denied, "the token is not accepted"));
        }
        let mut woken = Vec::new();
        let begun = {
            let stopping = lock(&self.greeting);
            if *stopping {
                return Err(stops());
            }
            self.resume_or_begin(&who, &hello, &mut woken)
        };
        self.enqueue_all(woken);
        self.end_grace_if_due()?;
        let Begun { session, epoch, resumed, next_call, had } = begun?;
        let answer = Greeting {
            session: session.id,
            incarnation: self.incarnation,
            resumed,
            lease_time: self.options.lease_time,
            volume: self.volume.info().clone(),
            ticket_key: self.options.ticket_key.clone(),
            next_call,
            had,
        };
        Ok((answer, Connection::new(self.clone(), session, epoch)))
    }

    fn refuse_greeting(&self, who: &Identity, hello: &Hello, what: &str) {
        self.counts.refused.fetch_add(1, Ordering::Relaxed);
        self.audit.refused(&*self.clock, who, hello.session, hello.node, what);
    }

    fn resume_or_begin(&self, who: &Identity, hello: &Hello, woken: &mut Vec<Job>) -> Result<Begun> {
        let (session, resumed) = match self.resume(who, hello, woken)? {
            Some(session) => (session, true),
            None => (self.begin(who, hello)?, false),
        };
        session.heard(self.clock.monotonic());
        self.see(&session);
        let epoch = self.connect(&session, woken);
        let (next_call, had) = match hello.anew && resumed {
            true => self.had(&session)?,
            false => (0, Vec::new()),
        };
        Ok(Begun { session, epoch, resumed, next_call, had })
    }

    /// What a session has, and the number of its next call. Its calls of earlier connections are done, or never will be:
    /// [`Service::connect`] went through all its namespaces.
    fn had(&self, session: &Session) -> Result<(u64, Vec<Had>)> {
        let mut last = session.queue.last_call();
        self.volume.scan_records(&records::answered_prefix(session.id), &mut |key, _| {
            last = last.max(records::decode_answered_key(key)?);
            Ok(true)
        })?;
        let mut all = Vec::new();
        for space in session.spaces() {
            let state = space.lock();
            let (leases, locks) = (state.leases.of(session.member), state.locks.of(session.member));
            let opens = state.opens.get(&session.member).into_iter().flatten().copied();
            let mut opens: Vec<Ino> = opens.collect();
            opens.sort_unstable();
            let replies = state.replies.get(&session.id);
            last = last.max(replies.map_or(0, Replies::last));
            let changed = replies.map_or_else(Vec::new, Replies::changed);
            all.push(Had { ns: space.id, leases, opens, locks, changed });
        }
        Ok((last.saturating_add(1), all))
    }

    /// The session that is asked for, if it lives and is theirs who ask.
    fn resume(&self, who: &Identity, hello: &Hello, woken: &mut Vec<Job>) -> Result<Option<Arc<Session>>> {
        let Some(id) = hello.session else { return Ok(None) };
        let Some(session) = self.sessions.find(id) else {
            if hello.anew {
                // Nobody is left who knows what it had: the process that did and this service's predecessor are both gone.
                self.give_up(id, who, hello)?;
                return Ok(None);
            }
            return self.take_back(id, who, hello, woken);
        };
        if session.about().who.user != who.user || session.node != hello.node {
            self.refuse_greeting(who, hello, "a greeting for somebody else's session");
            return Ok(None);
        }
        let mut lost = Vec::new();
        {
            let mut about = session.about();
            about.who = who.clone();
            about.name.clone_from(&hello.name);
            about.data_address.clone_from(&hello.data_address);
            // A new token may reach less.
            about.granted.retain(|_, granted| match who.may(&granted.space.name) {
                Some(rights) => {
                    granted.rights = rights;
                    true
                }
                None => {
                    lost.push(granted.space.clone());
                    false
                }
            });
        }
        for space in lost {
            self.leave_space(&session, &space, woken);
        }
        Ok(Some(session))
    }

    /// A session from before the restart will not come back, so nobody waits for it.
    fn give_up(&self, id: SessionId, who: &Identity, hello: &Hello) -> Result<()> {
        let gone = {
            let mut grace = lock(&self.grace);
            let Some(grace) = grace.as_mut() else { return Ok(()) };
            let is_theirs = |record: &SessionRecord| record.user == who.user && record.node == hello.node;
            if !grace.absent.get(&id).is_some_and(is_theirs) {
                return Ok(());
            }
            grace.absent.remove(&id)
        };
        self.forget_absent(&gone.map(|record| (id, record)).into_iter().collect())
    }

    /// A session from before the restart: it has again what it says it holds, unless somebody else has it.
    fn take_back(
        &self,
        id: SessionId,
        who: &Identity,
        hello: &Hello,
        woken: &mut Vec<Job>,
    ) -> Result<Option<Arc<Session>>> {
        let known = lock(&self.grace).as_ref().and_then(|grace| grace.absent.get(&id).cloned());
        let Some(record) = known else { return Ok(None) };
        if record.user != who.user || record.node != hello.node {
            self.refuse_greeting(who, hello, "a greeting for somebody else's session");
            return Ok(None);
        }
        let session = self.new_session(id, who, hello);
        session.note_recorded();
        self.sessions.insert(session.clone());
        for held in &hello.held {
            if let Err(e) = self.reclaim(&session, who, held) {
                tracing::warn!("session {id} of node {} cannot come back: {e}", hello.name);
                let why = Error::new(Kind::Fenced, "what the session held is somebody else's");
                self.end_greeted(&session, why, woken);
                if let Some(grace) = lock(&self.grace).as_mut() {
                    grace.absent.remove(&id);
                }
                return Ok(None);
            }
        }
        if let Some(grace) = lock(&self.grace).as_mut() {
            grace.absent.remove(&id);
            if !hello.held.is_empty() {
                grace.keeping.insert(id);
            }
        }
        Ok(Some(session))
    }

    fn reclaim(&self, session: &Arc<Session>, who: &Identity, held: &Held) -> Result<()> {
        let space = self.space(held.ns)?;
        let Some(rights) = who.may(&space.name) else {
            self.audit_refusal(session, &format!("to hold on to namespace id {}", held.ns));
            return Err(Error::new(Kind::NotFound, format!("there is no namespace with id {}", held.ns)));
        };
        session.about().granted.insert(held.ns, Granted { rights, space: space.clone() });
        let mut state = space.lock();
        for ino in &held.opens {
            match self.count_open(&space, &mut state, session, *ino) {
                // It was removed while nobody knew that it was open: reading it will say so.
                Err(e) if e.kind() == Kind::Stale => {}
                other => other?,
            }
        }
        for ino in &held.writes {
            let Some(key) = ScopeKey::new(Scope::Inode(*ino)) else { continue };
            if !state.leases.is_free(session.member, key, LeaseKind::Write) {
                return Err(Error::new(Kind::Busy, format!("inode {ino} is leased to another session")));
            }
            if state.leases.grant(session.member, key, LeaseKind::Write) {
                session.leases.fetch_add(1, Ordering::Relaxed);
            }
        }
        for (ino, owner, lock) in &held.locks {
            let (mut granted, owner) = (Vec::new(), (session.member, *owner));
            let Some(lock) = normal(*lock) else { continue };
            if state.locks.request(*ino, owner, &lock, false, false, &mut granted) != Asked::Done {
                return Err(Error::new(Kind::Busy, format!("inode {ino} is locked by another session")));
            }
        }
        Ok(())
    }

    fn begin(&self, who: &Identity, hello: &Hello) -> Result<Arc<Session>> {
        if self.sessions.len() >= self.options.sessions_max {
            return Err(Error::new(Kind::Busy, "the metadata service has too many sessions; try later"));
        }
        let id = loop {
            let id = SessionId((lock(&self.random))());
            if id.0 != 0 && self.sessions.find(id).is_none() && !self.may_come_back(id) {
                break id;
            }
        };
        let session = self.new_session(id, who, hello);
        self.sessions.insert(session.clone());
        Ok(session)
    }

    /// The session itself lives for as long as its leases: its node comes back with a newer token, if it has one.
    pub(super) fn end_connection_if_token_ended(&self, session: &Session) {
        let ended = session.about().who.expires.is_some_and(|expires| expires <= self.clock.now());
        if ended {
            let why = "the token of this connection has ended; connect again with a newer one";
            session.queue.stop(Error::new(Kind::Unavailable, why));
        }
    }

    fn new_session(&self, id: SessionId, who: &Identity, hello: &Hello) -> Arc<Session> {
        let about = About {
            who: who.clone(),
            name: hello.name.clone(),
            data_address: hello.data_address.clone(),
            granted: HashMap::new(),
        };
        let session = Session::new(self.sessions.member(), id, hello.node, about, self.options.calls_max);
        session.heard(self.clock.monotonic());
        Arc::new(session)
    }

    /// Begins a connection: calls of the one before that wait are dropped, and recalls that may not have arrived are sent
    /// again.
    fn connect(&self, session: &Arc<Session>, woken: &mut Vec<Job>) -> u64 {
        let epoch = session.queue.connect();
        for space in session.spaces() {
            let mut granted = Vec::new();
            let mut state = space.lock();
            state.drop_jobs(session, epoch, woken, &mut granted);
            self.locks_granted(&space, &mut state, granted);
            for (id, key, wanted) in state.leases.unanswered(session.member) {
                session.queue.recall(Recall { id, ns: space.id, scope: key.scope(), wanted });
            }
            // What it was told may not have arrived.
            state.usage_told.remove(&session.member);
            session.queue.tell_settings(space.id, space.local.write_settings());
        }
        epoch
    }

    fn see(&self, session: &Session) {
        let mut nodes = lock(&self.nodes);
        if nodes.len() >= NODES_MAX && !nodes.contains_key(&session.node) {
            let oldest = nodes.iter().min_by_key(|(_, seen)| seen.heard).map(|(node, _)| *node);
            oldest.map(|node| nodes.remove(&node));
        }
        let about = session.about();
        let heard = self.clock.monotonic();
        let seen = Seen { name: about.name.clone(), heard };
        nodes.insert(session.node, seen);
    }

    pub(super) fn seen(&self, node: NodeId) -> Option<Seen> {
        lock(&self.nodes).get(&node).cloned()
    }

    /// Ends a session: all that it has is free, and every word of it is refused with `why`. Whether it lived.
    pub(super) fn end(self: &Arc<Self>, session: &Arc<Session>, why: Error) -> bool {
        let mut woken = Vec::new();
        let ended = {
            let _greeting = lock(&self.greeting);
            self.end_greeted(session, why, &mut woken)
        };
        self.enqueue_all(woken);
        ended
    }

    /// The same, for who has `greeting`.
    fn end_greeted(&self, session: &Arc<Session>, why: Error, woken: &mut Vec<Job>) -> bool {
        // First: nothing of it is done from here on.
        if !session.set_ended(why.duplicate()) {
            return false;
        }
        tracing::info!("session {} of node {} ended: {why}", session.id, session.about().name);
        session.queue.end(&why);
        self.sessions.remove(session);
        self.keeps_nothing(session.id);
        let spaces = session.spaces();
        session.about().granted.clear();
        for space in spaces {
            self.leave_space(session, &space, woken);
        }
        if let Some(seen) = lock(&self.nodes).get_mut(&session.node) {
            let silent = session.silent(self.clock.monotonic());
            seen.heard = self.clock.monotonic().saturating_sub(silent);
        }
        if session.end_record()
            && let Err(e) = self.volume.put_records(grace::forget(session.id).into(), false)
        {
            tracing::warn!("session {} stays on record until the next start: {e}", session.id);
        }
        true
    }

    /// Takes away what a session has in a namespace.
    pub(super) fn leave_space(&self, session: &Session, space: &Space, woken: &mut Vec<Job>) {
        let mut granted = Vec::new();
        let mut state = space.lock();
        let opens = state.opens.get(&session.member).map_or(0, |all| all.len() as u64);
        let leases = space.remove_session(&mut state, session, woken, &mut granted);
        session.leases.fetch_sub(leases, Ordering::Relaxed);
        session.opens.fetch_sub(opens, Ordering::Relaxed);
        self.locks_granted(space, &mut state, granted);
        let unwritten = space.local.has_unwritten();
        drop(state);
        if unwritten {
            // Nobody waits for what was freed.
            self.volume.write_through(Box::new(|_| {}));
        }
    }
}
