//! Locks and leases.

use granary_core::{Ino, Result};

use super::{malformed, pb, required};
use crate::lease::{LeaseKind, Lock, LockKind, LockOwner, LockRequest, Scope};

pub fn encode(l: &Lock) -> pb::Lock {
    pb::Lock {
        flock: l.flock,
        exclusive: l.kind == LockKind::Exclusive,
        start: l.start,
        end_from_max: u64::MAX - l.end,
        pid: l.pid,
    }
}

pub fn decode(l: pb::Lock) -> Result<Lock> {
    let (start, end) = (l.start, u64::MAX - l.end_from_max);
    if start > end {
        return Err(malformed("a lock ends before it begins"));
    }
    let kind = if l.exclusive { LockKind::Exclusive } else { LockKind::Shared };
    Ok(Lock { flock: l.flock, kind, start, end, pid: l.pid })
}

pub fn encode_request(ino: Ino, r: &LockRequest) -> pb::LockCall {
    pb::LockCall { ino: ino.0, owner: r.owner.0, lock: Some(encode(&r.lock)), unlock: r.unlock, wait: r.wait }
}

pub fn decode_request(c: pb::LockCall) -> Result<(Ino, LockRequest)> {
    let lock = decode(required(c.lock, "the lock")?)?;
    Ok((Ino(c.ino), LockRequest { owner: LockOwner(c.owner), lock, unlock: c.unlock, wait: c.wait }))
}

pub fn encode_scope(s: Scope) -> pb::Scope {
    match s {
        Scope::Inode(ino) => pb::Scope { ino: ino.0, directory: false },
        Scope::Directory(ino) => pb::Scope { ino: ino.0, directory: true },
    }
}

pub fn decode_scope(ino: u64, directory: bool) -> Scope {
    if directory { Scope::Directory(Ino(ino)) } else { Scope::Inode(Ino(ino)) }
}

pub fn encode_grant(&(scope, kind): &(Scope, LeaseKind)) -> pb::Grant {
    let s = encode_scope(scope);
    pb::Grant { ino: s.ino, directory: s.directory, write: kind == LeaseKind::Write }
}

pub fn decode_grant(g: pb::Grant) -> (Scope, LeaseKind) {
    (decode_scope(g.ino, g.directory), decode_kind(g.write))
}

pub fn decode_kind(write: bool) -> LeaseKind {
    if write { LeaseKind::Write } else { LeaseKind::Read }
}
