//! Calls that change something: what each does to the state machine, what it would change, and what is told of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use granary_core::{Error, Ino, Kind, Result};

use super::{Flow, failed, key_of};
use crate::call::{Answer, Call};
use crate::changes::Changes;
use crate::lease::{LeaseKind, Scope};
use crate::local::{Keep, Verdict};
use crate::machine::{Operation, Reply};
use crate::record::{Answered, Key, ReplyRecord, Value};
use crate::service::Service;
use crate::service::answer::Parts;
use crate::service::leases::{NOBODY, ScopeKey};
use crate::service::space::{Job, Space, State};
use crate::types::Attr;

/// What was found out while an operation was tried.
#[derive(Default)]
struct Trial {
    scopes: Vec<ScopeKey>,
    blocked: Vec<(ScopeKey, LeaseKind)>,
    touched: Vec<Attr>,
    record: Option<Arc<ReplyRecord>>,
}

impl Service {
    /// A call that changes something: applied, if nobody holds what it would change, with the record of its answer.
    pub(super) fn change(&self, space: &Space, state: &mut State, job: &Job) -> Flow {
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
