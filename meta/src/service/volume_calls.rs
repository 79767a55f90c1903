//! Calls about the volume: which namespaces there are, sessions, tokens, peers.
//!
//! A namespace that is not granted does not exist: the same is looked up (a name that nobody can make), the same error
//! comes, with the same words.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use granary_core::{Error, Kind, NamespaceId, NamespaceName, NodeId, Result, Timestamp};

use super::identity::{Identity, Rights};
use super::run::VOLUME;
use super::session::{Granted, Session};
use super::space::{Job, Space};
use super::{Service, lock};
use crate::Volume;
use crate::api::Metadata;
use crate::call::{Answer, Call, Response, SessionInfo, TokenText};
use crate::engine::Write;
use crate::lease::PeerInfo;
use crate::record::session::{self as records, AnsweredNamespace};
use crate::token::{CLOCK_SKEW_SECS, Delegation, Parent};
use crate::types::{Durability, NewNamespace, TRASH_MS_DEFAULT};

/// Longest id of a token that can be revoked.
const TOKEN_MAX: usize = 300;
/// Revoked tokens that are remembered.
const REVOKED_MAX: usize = 1_000_000;

/// The revoked tokens that did not end by themselves meanwhile; the others are forgotten.
pub(super) fn load_revoked(volume: &Volume, now: Timestamp) -> Result<HashSet<String>> {
    let (mut revoked, mut ended) = (HashSet::new(), Vec::new());
    volume.scan_records(records::REVOKED_PREFIX, &mut |key, value| {
        let token = records::decode_revoked_key(key)?;
        if records::decode_revoked(value)? < now.secs {
            ended.push(Write::Delete(key.to_vec()));
        } else {
            revoked.insert(token);
        }
        Ok(true)
    })?;
    if !ended.is_empty() {
        volume.put_records(ended, false)?;
    }
    Ok(revoked)
}

/// A user's own namespace, or a group's, is made at its first mount by whoever it belongs to, with nothing that only an
/// administrator may set.
fn makes_own(who: &Identity, new: &NewNamespace) -> bool {
    let plain = NewNamespace {
        bytes_max: 0,
        inodes_max: 0,
        durability: Durability::default(),
        trash_ms: TRASH_MS_DEFAULT,
        packed: None,
        ..new.clone()
    };
    // A token that names namespaces is for those that are there.
    who.namespaces.is_none() && who.may(&new.name) == Some(Rights::ReadWrite) && *new == plain
}

impl Service {
    /// Whether the session may ask this about the volume, and whose line the call belongs to.
    pub(super) fn check_volume_call(&self, job: &mut Job) -> Result<NamespaceId> {
        let what = match &job.request.call {
            Call::Namespace { .. } | Call::Namespaces | Call::Sessions => return Ok(VOLUME),
            Call::CreateNamespace { new } if makes_own(&job.session.about().who, new) => return Ok(VOLUME),
            Call::Delegate { namespace, .. } if job.session.about().who.may_delegate(namespace) => {
                return Ok(VOLUME);
            }
            Call::Delegate { namespace, .. } => {
                self.audit_refusal(&job.session, &format!("to delegate namespace {namespace}"));
                return Err(Error::new(
                    Kind::Permission,
                    format!(
                        "this token may not delegate namespace {namespace}: an administrator's may, or one that was issued with \
                         --rights delegate for it"
                    ),
                ));
            }
            Call::CreateNamespace { new } => format!("to make namespace {}", new.name),
            Call::RemoveNamespace { name, .. } => format!("to remove namespace {name}"),
            Call::SetNamespace { name, .. } => format!("to change the settings of namespace {name}"),
            _ => "to revoke a token".to_owned(),
        };
        if job.session.about().who.rights != Rights::Admin {
            self.audit_refusal(&job.session, &what);
            let why = "only an administrator's token may do that; ask one";
            return Err(Error::new(Kind::Permission, why));
        }
        if let Call::SetNamespace { name, .. } = &job.request.call {
            // Owner and mode are the root directory's: sessions may hold leases of it, so it is a call of the namespace.
            let granted = self.reach(&job.session, &name.clone())?;
            job.request.ns = granted.space.id;
            job.space = Some(granted.space);
            return Ok(job.request.ns);
        }
        Ok(VOLUME)
    }

    /// Answers a call about the volume.
    pub(super) fn volume_call(self: &Arc<Self>, job: Job) {
        if job.session.ended().is_some() || !job.session.queue.is_current(job.epoch) {
            return;
        }
        let (session, id) = (&job.session, job.request.id);
        let result = match &job.request.call {
            Call::Namespace { name } => self
                .reach(session, name)
                .and_then(|granted| granted.space.local.info())
                .map(Answer::Namespace),
            Call::Namespaces => self.granted_namespaces(session),
            Call::CreateNamespace { new } => self.create_namespace(session, id, new.clone()),
            Call::RemoveNamespace { name, force } => self.remove_namespace(session, id, name, *force),
            Call::Sessions => Ok(Answer::Sessions(self.list_sessions(session))),
            Call::RevokeToken { token } => self.revoke(token),
            Call::Delegate { namespace, read_only, lifetime_secs, purpose } => {
                let wanted = Delegation {
                    namespace: namespace.clone(),
                    read_only: *read_only,
                    lifetime_secs: *lifetime_secs,
                };
                self.delegate(session, &wanted, purpose)
            }
            other => Err(Error::new(Kind::Bug, format!("a call came into the volume's line: {other:?}"))),
        };
        let told = match &result {
            Ok(Answer::Namespace(info)) => Some((info.id, info.write_settings())),
            _ => None,
        };
        let response = Response { id, result, grants: Vec::new(), touched: Vec::new(), usage: None };
        session.queue.respond(session, job.epoch, response, None);
        // Somebody may have changed them between the look at them and the answer, which then would be the later word.
        if let Some((ns, told)) = told
            && let Some(granted) = session.granted(ns)
            && granted.space.local.write_settings() != told
        {
            session.queue.tell_settings(ns, granted.space.local.write_settings());
        }
    }

    /// Everybody who was told of the namespace hears how its writes reach the store from now on.
    pub(super) fn tell_settings(&self, space: &Space) {
        let settings = space.local.write_settings();
        for session in self.sessions.all() {
            if session.granted(space.id).is_some() {
                session.queue.tell_settings(space.id, settings);
            }
        }
    }

    /// The namespace of this name, from now on granted to the session; `NotFound` also when it is not theirs.
    fn reach(&self, session: &Arc<Session>, name: &NamespaceName) -> Result<Granted> {
        let may = session.about().who.may(name);
        // What is not theirs is looked for under a key that no namespace has.
        let key = match may {
            Some(_) => crate::record::volume::name_key(name),
            None => [&crate::record::volume::name_key(name)[..], b"/"].concat(),
        };
        let missing = || {
            Error::new(
                Kind::NotFound,
                format!(
                    "there is no namespace {name}, or this token does not reach it; granary ns list shows yours"
                ),
            )
        };
        let found = self.volume.get_record(&key)?;
        let (Some(rights), Some(bytes)) = (may, found) else {
            if may.is_none() {
                self.audit_refusal(session, &format!("namespace {name}"));
            }
            return Err(missing());
        };
        self.record(session)?;
        let space = self.space(crate::record::volume::decode_id(&bytes)?)?;
        let granted = Granted { rights, space };
        session.about().granted.insert(granted.space.id, granted.clone());
        Ok(granted)
    }

    fn granted_namespaces(&self, session: &Session) -> Result<Answer> {
        let who = session.about().who.clone();
        let mut all = Vec::new();
        for (name, id) in self.volume.names()? {
            if who.may(&name).is_some() {
                all.push(self.volume.namespace_by_id(id)?.info()?);
            }
        }
        Ok(Answer::Namespaces(all))
    }

    /// From here on the session has something that it may come back to after a restart: it is on record, durably.
    fn record(&self, session: &Session) -> Result<()> {
        session.record(|record| {
            let put = Write::Put(records::session_key(session.id), record.encode());
            self.volume.put_records(vec![put], true)
        })
    }

    /// What this call of the session did, if it was done.
    fn answered(&self, session: &Session, id: u64) -> Result<Option<AnsweredNamespace>> {
        let bytes = self.volume.get_record(&records::answered_key(session.id, id))?;
        bytes.map(|bytes| AnsweredNamespace::decode(&bytes)).transpose()
    }

    fn create_namespace(&self, session: &Session, id: u64, new: NewNamespace) -> Result<Answer> {
        if let Some(AnsweredNamespace::Made(ns)) = self.answered(session, id)? {
            return self.volume.namespace_by_id(ns)?.info().map(Answer::Namespace);
        }
        self.record(session)?;
        let key = records::answered_key(session.id, id);
        let note = |ns| Some(Write::Put(key, AnsweredNamespace::Made(ns).encode()));
        self.volume.create_namespace_noting(new, note).map(Answer::Namespace)
    }

    fn remove_namespace(
        self: &Arc<Self>,
        session: &Arc<Session>,
        id: u64,
        name: &NamespaceName,
        force: bool,
    ) -> Result<Answer> {
        if let Some(AnsweredNamespace::Removed(_)) = self.answered(session, id)? {
            return Ok(Answer::Done);
        }
        let busy =
            || Error::new(Kind::Busy, format!("namespace {name} is in use; unmount it on every node first"));
        let space = self.reach(session, name)?.space;
        let (ns, key) = (space.id, records::answered_key(session.id, id));
        let used = {
            let state = space.lock();
            state.leases.is_member(session.member) || state.opens.contains_key(&session.member)
        };
        if used {
            return Err(busy());
        }
        session.about().granted.remove(&ns);
        self.end_lingering_of(&space);
        let mut woken = Vec::new();
        self.leave_space(session, &space, &mut woken);
        drop(space);
        self.enqueue_all(woken);
        let mut spaces = lock(&self.spaces);
        if spaces.get(&ns).is_some_and(|space| Arc::strong_count(space) > 1) {
            return Err(busy());
        }
        spaces.remove(&ns);
        let note = Write::Put(key, AnsweredNamespace::Removed(ns).encode());
        self.volume.remove_namespace_noting(name, force, Some(note))?;
        Ok(Answer::Done)
    }

    /// An administrator sees all, everybody else their own.
    fn list_sessions(&self, session: &Session) -> Vec<SessionInfo> {
        let (now, who) = (self.clock.monotonic(), session.about().who.clone());
        let mut all = Vec::new();
        for other in self.sessions.all() {
            let (user, name) = {
                let about = other.about();
                (about.who.user.clone(), about.name.clone())
            };
            if who.rights != Rights::Admin && user != who.user {
                continue;
            }
            let locks = other.spaces().iter().map(|space| space.lock().locks.count(other.member)).sum();
            all.push(SessionInfo {
                session: other.id,
                node: other.node,
                name,
                user,
                silent: other.silent(now),
                leases: other.leases.load(Ordering::Relaxed),
                opens: other.opens.load(Ordering::Relaxed),
                locks,
            });
        }
        all
    }

    /// From now on nobody greets with this token, durably; sessions that did are ended.
    fn revoke(self: &Arc<Self>, token: &str) -> Result<Answer> {
        if token.is_empty() || token.len() > TOKEN_MAX {
            return Err(Error::new(Kind::Invalid, "that is no token's id; granary token inspect shows it"));
        }
        if lock(&self.revoked).len() >= REVOKED_MAX {
            return Err(Error::new(
                Kind::NoSpace,
                "too many tokens are revoked; change the signing key instead",
            ));
        }
        let (users, heirs): (Vec<_>, Vec<_>) = self
            .sessions
            .all()
            .into_iter()
            .filter(|session| session.about().who.comes_from(token))
            .partition(|session| session.about().who.token == token);
        // When it ends is known only if somebody used it.
        let ends = users.iter().find_map(|session| session.about().who.expires).map_or(i64::MAX, |t| t.secs);
        let record = Write::Put(records::revoked_key(token), records::encode_revoked(ends));
        self.volume.put_records(vec![record], true)?;
        lock(&self.revoked).insert(token.to_owned());
        for session in users {
            let why = "the token of this session was revoked; ask for a new one";
            self.end(&session, Error::new(Kind::Fenced, why));
        }
        // The mount's programs did nothing wrong: who has a good token within the lease time goes on.
        for session in heirs {
            let why =
                "the token that this connection's was delegated from was revoked; connect again with another";
            session.queue.stop(Error::new(Kind::Unavailable, why));
        }
        Ok(Answer::Done)
    }

    /// Makes a token for one namespace that is there. Who asks was found to be allowed to.
    fn delegate(&self, session: &Session, wanted: &Delegation, purpose: &str) -> Result<Answer> {
        let Some(delegator) = &self.options.delegator else {
            return Err(Error::new(Kind::Unsupported, "this metadata service makes no tokens"));
        };
        let who = session.about().who.clone();
        if self.volume.get_record(&crate::record::volume::name_key(&wanted.namespace))?.is_none() {
            let why = format!("there is no namespace {}; granary ns create makes it", wanted.namespace);
            return Err(Error::new(Kind::NotFound, why));
        }
        // A connection lasts a little longer than its token says; what is delegated must not.
        let skew = i64::try_from(CLOCK_SKEW_SECS).unwrap_or(0);
        let ends = who.expires.map_or(u64::MAX, |t| u64::try_from(t.secs - skew).unwrap_or(0));
        let parent = Parent { user: &who.user, id: &who.token, expires: ends };
        let random = {
            let mut random = lock(&self.random);
            u128::from((random)()) << 64 | u128::from((random)())
        };
        let made = delegator.delegate(parent, wanted, random)?;
        self.audit.delegated(&who, session.node, wanted, &made, purpose);
        Ok(Answer::Token(TokenText(made.token)))
    }

    /// Where a node serves what is staged there, for this namespace.
    pub(super) fn peer(&self, space: &Space, session: &Session, node: NodeId) -> Result<Answer> {
        let now = self.clock.monotonic();
        let live = self.sessions.all().into_iter().find(|other| other.node == node);
        let (name, address, silent) = match (live, self.seen(node)) {
            (Some(live), _) => {
                let about = live.about();
                (about.name.clone(), about.data_address.clone(), std::time::Duration::ZERO)
            }
            (None, Some(seen)) => (seen.name, None, now.saturating_sub(seen.heard)),
            (None, None) => {
                let why = format!("no node {node} is known to the metadata service since its start");
                return Err(Error::new(Kind::NotFound, why));
            }
        };
        let ticket = match &self.options.tickets {
            Some(make) => make(space.id, session.id)?,
            None => String::new(),
        };
        Ok(Answer::Peer(PeerInfo { node, name, address, ticket, silent }))
    }
}
