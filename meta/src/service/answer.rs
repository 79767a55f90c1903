//! From what a call did to the response that goes out.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use granary_core::{Kind, Result};

use super::Service;
use super::leases::ScopeKey;
use super::outgoing::Turn;
use super::session::Session;
use super::space::{Job, Space, State};
use crate::api::Metadata;
use crate::call::{Answer, Response};
use crate::lease::{LeaseKind, Scope};
use crate::types::Attr;

/// What a call answers, and which leases would go with it.
#[derive(Debug)]
pub(super) struct Parts {
    pub result: Result<Answer>,
    pub wants: Vec<(Scope, LeaseKind)>,
    pub touched: Vec<Attr>,
}

impl Parts {
    pub fn of(result: Result<Answer>) -> Parts {
        Parts { result, wants: Vec::new(), touched: Vec::new() }
    }

    /// With read leases of these scopes.
    pub fn reading(result: Result<Answer>, scopes: impl IntoIterator<Item = Scope>) -> Parts {
        let keeps = match &result {
            Ok(_) => true,
            // That something is missing may be kept; any other error says nothing that could be.
            Err(e) => matches!(e.kind(), Kind::NotFound | Kind::NoAttribute),
        };
        let scopes = scopes.into_iter().filter(|_| keeps);
        let wants = scopes.map(|scope| (scope, LeaseKind::Read)).collect();
        Parts { result, wants, touched: Vec::new() }
    }
}

impl Service {
    /// Grants what may be granted and puts the response into the session's stream: under the namespace's lock, so that
    /// recalls come after it. With `turn` it goes out when all that it can tell of is in the engine.
    pub(super) fn answer(
        &self,
        space: &Space,
        state: &mut State,
        job: &Job,
        parts: Parts,
        turn: Option<&Arc<Turn>>,
    ) {
        let session = &job.session;
        let mut grants = Vec::with_capacity(parts.wants.len());
        let mut passed_on = Vec::new();
        for (scope, kind) in parts.wants {
            // What comes into the trash's directories asks nobody for leases: so nobody has any.
            if let Scope::Inode(ino) | Scope::Directory(ino) = scope
                && space.local.is_in_trash(ino)
            {
                continue;
            }
            if let Some(has) = self.grant(state, session, scope, kind) {
                grants.push((scope, has));
                if let Some(key) = ScopeKey::new(scope)
                    && has == LeaseKind::Write
                    && let Some(wanted) = state.wanted_by_others(session.member, key)
                {
                    passed_on.push((key, wanted));
                }
            }
        }
        let usage = space.local.usage();
        let told = state.usage_told.insert(session.member, usage);
        let response = Response {
            id: job.request.id,
            result: parts.result,
            grants,
            touched: parts.touched,
            usage: (told != Some(usage)).then_some(usage),
        };
        let turn = turn.filter(|_| space.local.has_unwritten());
        session.queue.respond(session, job.epoch, response, turn);
        for (key, wanted) in passed_on {
            self.recall_one(space, state, session.member, key, wanted);
        }
    }

    /// Gives a lease if nobody else has or wants it; what kind the session holds then. The limit is for what a session keeps
    /// to read: a write lease that was asked for is given, since its holder goes on to write.
    fn grant(
        &self,
        state: &mut State,
        session: &Session,
        scope: Scope,
        kind: LeaseKind,
    ) -> Option<LeaseKind> {
        let (key, member) = (ScopeKey::new(scope)?, session.member);
        if !state.may_grant(member, key, kind) {
            return None;
        }
        let has = state.leases.holds(member, key);
        if has.is_none() {
            let full = session.leases.load(Ordering::Relaxed) >= self.options.leases_max;
            if full && kind == LeaseKind::Read {
                return None;
            }
            session.leases.fetch_add(1, Ordering::Relaxed);
        }
        if has != Some(LeaseKind::Write) {
            state.leases.grant(member, key, kind);
        }
        state.leases.holds(member, key)
    }

    /// Gives a call that was done before its first answer, with the present attributes of what it changed.
    pub(super) fn answer_again(
        &self,
        space: &Space,
        state: &mut State,
        job: &Job,
        turn: &Arc<Turn>,
    ) -> Option<()> {
        let reply = state.replies.get(&job.session.id)?.find(job.request.id)?;
        let answer = Answer::from(&reply.answer);
        let mut inos = reply.touched.clone();
        match &answer {
            Answer::Attr(attr) | Answer::Renamed(Some(attr)) => inos.push(attr.ino),
            Answer::Copied(copied) => inos.push(copied.attr.ino),
            _ => {}
        }
        let mut touched = Vec::with_capacity(inos.len());
        for ino in inos {
            match space.local.attr_now(ino) {
                Ok(attr) => touched.push(attr),
                // It is gone since: nothing to tell.
                Err(e) if e.kind() == Kind::Stale => {}
                Err(e) => {
                    self.answer(space, state, job, Parts::of(Err(e)), Some(turn));
                    return Some(());
                }
            }
        }
        let parts = Parts { result: Ok(answer), wants: Vec::new(), touched };
        self.answer(space, state, job, parts, Some(turn));
        Some(())
    }
}
