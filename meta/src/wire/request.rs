//! Calls.

use granary_core::{Ino, NamespaceId, NodeId, Result};

use super::bounds::{entry_name, list, range, ranges, target, text, xattr_name, xattr_value};
use super::pb::request::Call as Wire;
use super::{answer, attr, bounds, lists, lock, malformed, namespace, pb, required};
use crate::call::{Call, Request};
use crate::lease::{LockRequest, Scope};
use crate::types::{Commit, CopyRange, NewInode, RenameMode};

pub fn encode(r: &Request) -> pb::Request {
    pb::Request {
        id: r.id,
        unacked: r.id.saturating_sub(r.acked_below),
        ns: r.ns.0,
        call: Some(encode_call(&r.call)),
    }
}

pub fn decode(r: pb::Request) -> Result<Request> {
    let acked_below = r.id.checked_sub(r.unacked).ok_or_else(|| malformed("unacked is above the id"))?;
    let call = decode_call(required(r.call, "the call")?)?;
    Ok(Request { id: r.id, acked_below, ns: NamespaceId(r.ns), call })
}

fn encode_inode(ino: Ino) -> pb::Inode {
    pb::Inode { ino: ino.0 }
}

fn encode_new(n: &NewInode) -> pb::NewInode {
    pb::NewInode {
        kind: attr::encode_type(n.kind),
        mode: n.mode,
        umask: n.umask,
        uid: n.uid,
        gid: n.gid,
        rdev: n.rdev,
        target: n.target.clone(),
    }
}

fn decode_new(n: Option<pb::NewInode>) -> Result<NewInode> {
    let n = required(n, "the new inode")?;
    Ok(NewInode {
        kind: attr::decode_type(n.kind)?,
        mode: n.mode,
        umask: n.umask,
        uid: n.uid,
        gid: n.gid,
        rdev: n.rdev,
        target: target(n.target)?,
    })
}

fn encode_entry(dir: Ino, name: &[u8]) -> pb::Entry {
    pb::Entry { dir: dir.0, name: name.to_vec() }
}

fn decode_entry(e: pb::Entry) -> Result<(Ino, Box<[u8]>)> {
    Ok((Ino(e.dir), entry_name(e.name)?))
}

fn encode_commit(c: &Commit) -> pb::Commit {
    pb::Commit {
        ino: c.ino.0,
        size: c.size,
        mtime: Some(attr::encode_time(c.mtime)),
        ctime: (c.ctime != c.mtime).then(|| attr::encode_time(c.ctime)),
        extents: lists::encode_extents(&c.extents),
        holes: bounds::flat(&c.holes),
        staged_seq: c.staged_seq,
    }
}

fn decode_commit(c: pb::Commit) -> Result<Commit> {
    let mtime = attr::decode_time(required(c.mtime, "mtime")?)?;
    Ok(Commit {
        ino: Ino(c.ino),
        size: c.size,
        mtime,
        ctime: c.ctime.map_or(Ok(mtime), attr::decode_time)?,
        extents: lists::decode_extents(&c.extents)?,
        holes: ranges(&c.holes, "a hole")?,
        staged_seq: c.staged_seq,
    })
}

fn encode_rename(dir: Ino, name: &[u8], to_dir: Ino, to_name: &[u8], mode: RenameMode) -> pb::Rename {
    let mode = match mode {
        RenameMode::Replace => pb::rename::Mode::Replace,
        RenameMode::NoReplace => pb::rename::Mode::NoReplace,
        RenameMode::Exchange => pb::rename::Mode::Exchange,
    };
    let (name, to_name) = (name.to_vec(), to_name.to_vec());
    pb::Rename { dir: dir.0, name, to_dir: to_dir.0, to_name, mode: mode as i32 }
}

fn decode_rename(r: pb::Rename) -> Result<Call> {
    let mode = match pb::rename::Mode::try_from(r.mode) {
        Ok(pb::rename::Mode::Replace) => RenameMode::Replace,
        Ok(pb::rename::Mode::NoReplace) => RenameMode::NoReplace,
        Ok(pb::rename::Mode::Exchange) => RenameMode::Exchange,
        Err(_) => return Err(malformed("a rename's mode is unknown")),
    };
    let (name, to_name) = (entry_name(r.name)?, entry_name(r.to_name)?);
    Ok(Call::Rename { dir: Ino(r.dir), name, to_dir: Ino(r.to_dir), to_name, mode })
}

fn encode_forget(scopes: &[Scope]) -> pb::Forget {
    let mut forget = pb::Forget::default();
    for scope in scopes {
        match scope {
            Scope::Inode(ino) => forget.inodes.push(ino.0),
            Scope::Directory(ino) => forget.directories.push(ino.0),
        }
    }
    forget
}

fn decode_forget(f: pb::Forget) -> Result<Call> {
    let inodes = list(f.inodes, "Forget")?.into_iter().map(|ino| Scope::Inode(Ino(ino)));
    let dirs = list(f.directories, "Forget")?.into_iter().map(|ino| Scope::Directory(Ino(ino)));
    Ok(Call::Forget { scopes: inodes.chain(dirs).collect() })
}

fn encode_copy(c: &CopyRange) -> pb::CopyRange {
    pb::CopyRange {
        from: c.from.0,
        from_offset: c.from_offset,
        to: c.to.0,
        to_offset: c.to_offset,
        len: c.len,
        staged_seq: c.staged_seq,
    }
}

fn decode_copy(c: pb::CopyRange) -> Result<CopyRange> {
    range(c.from_offset, c.len.max(1), "a copy")?;
    range(c.to_offset, c.len.max(1), "a copy")?;
    Ok(CopyRange {
        from: Ino(c.from),
        from_offset: c.from_offset,
        to: Ino(c.to),
        to_offset: c.to_offset,
        len: c.len,
        staged_seq: c.staged_seq,
    })
}

fn decode_relocate(r: pb::Relocate) -> Result<Call> {
    let object = answer::decode_object(required(r.object, "the object")?)?;
    let moves = lists::decode_moves(&r.moves)?;
    match &r.inline[..] {
        [] => Ok(Call::Relocate { object, moves }),
        copies if moves.is_empty() => Ok(Call::KeepInline { object, copies: lists::decode_inline(copies)? }),
        _ => Err(malformed("moves and copies come in one call")),
    }
}

pub fn encode_call(call: &Call) -> Wire {
    match call {
        Call::Lookup { dir, name } => Wire::Lookup(encode_entry(*dir, name)),
        Call::GetAttr { ino } => Wire::GetAttr(encode_inode(*ino)),
        Call::ReadDir { dir, cookie, max, with_attr } => {
            Wire::ReadDir(pb::ReadDir { dir: dir.0, cookie: *cookie, max: *max, with_attr: *with_attr })
        }
        Call::Parent { dir } => Wire::Parent(encode_inode(*dir)),
        Call::ReadLink { ino } => Wire::ReadLink(encode_inode(*ino)),
        Call::GetXattr { ino, name } => Wire::GetXattr(pb::Xattr { ino: ino.0, name: name.to_vec() }),
        Call::ListXattr { ino } => Wire::ListXattr(encode_inode(*ino)),
        Call::SetXattr { ino, name, value, create_only, replace_only } => Wire::SetXattr(pb::SetXattr {
            ino: ino.0,
            name: name.to_vec(),
            value: value.to_vec(),
            create_only: *create_only,
            replace_only: *replace_only,
        }),
        Call::RemoveXattr { ino, name } => Wire::RemoveXattr(pb::Xattr { ino: ino.0, name: name.to_vec() }),
        Call::Create { dir, name, new, open } => Wire::Create(pb::Create {
            dir: dir.0,
            name: name.to_vec(),
            new: Some(encode_new(new)),
            open: *open,
        }),
        Call::Tmpfile { dir, new } => Wire::Tmpfile(pb::Tmpfile { dir: dir.0, new: Some(encode_new(new)) }),
        Call::Link { ino, dir, name } => Wire::Link(pb::Link { ino: ino.0, dir: dir.0, name: name.to_vec() }),
        Call::Unlink { dir, name } => Wire::Unlink(encode_entry(*dir, name)),
        Call::Rmdir { dir, name } => Wire::Rmdir(encode_entry(*dir, name)),
        Call::Rename { dir, name, to_dir, to_name, mode } => {
            Wire::Rename(encode_rename(*dir, name, *to_dir, to_name, *mode))
        }
        Call::SetAttr { ino, set } => Wire::SetAttr(attr::encode_set(*ino, set)),
        Call::Open { ino } => Wire::Open(encode_inode(*ino)),
        Call::Close { inos } => Wire::Close(pb::Inodes { inodes: inos.iter().map(|ino| ino.0).collect() }),
        Call::Extents { ino, with_inline } => {
            Wire::Extents(pb::ExtentsOf { ino: ino.0, with_inline: *with_inline })
        }
        Call::Commit(commit) => Wire::Commit(encode_commit(commit)),
        Call::Relocate { object, moves } => Wire::Relocate(pb::Relocate {
            object: Some(answer::encode_object(object)),
            moves: lists::encode_moves(moves),
            inline: Vec::new(),
        }),
        Call::KeepInline { object, copies } => Wire::Relocate(pb::Relocate {
            object: Some(answer::encode_object(object)),
            moves: Vec::new(),
            inline: lists::encode_inline(copies),
        }),
        Call::Live { staged } => Wire::Live(lists::encode_staged(staged)),
        Call::Object { id } => Wire::Object(id.0.to_le_bytes().to_vec()),
        Call::DeadObjects { max } => Wire::DeadObjects(*max),
        Call::LiveObjects { after, max } => {
            Wire::LiveObjects(pb::ListObjects { after: after.0.to_le_bytes().to_vec(), max: *max })
        }
        Call::ForgetObjects { ids } => Wire::ForgetObjects(lists::encode_ids(ids)),
        Call::CopyRange(copy) => Wire::CopyRange(encode_copy(copy)),
        Call::Sync => Wire::Sync(pb::Nothing {}),
        Call::Lease { ino } => Wire::Lease(encode_inode(*ino)),
        Call::TestLock { ino, owner, lock: l } => {
            let request = LockRequest { owner: *owner, lock: *l, unlock: false, wait: false };
            Wire::TestLock(lock::encode_request(*ino, &request))
        }
        Call::Lock { ino, request } => Wire::Lock(lock::encode_request(*ino, request)),
        Call::Forget { scopes } => Wire::Forget(encode_forget(scopes)),
        Call::Peer { node } => Wire::Peer(node.0),
        Call::Namespace { name } => Wire::Namespace(name.as_str().to_owned()),
        Call::Namespaces => Wire::Namespaces(pb::Nothing {}),
        Call::CreateNamespace { new } => Wire::CreateNamespace(namespace::encode_new(new)),
        Call::SetNamespace { name, change } => Wire::SetNamespace(namespace::encode_change(name, change)),
        Call::RemoveNamespace { name, force } => {
            Wire::RemoveNamespace(pb::RemoveNamespace { name: name.as_str().to_owned(), force: *force })
        }
        Call::Sessions => Wire::Sessions(pb::Nothing {}),
        Call::RevokeToken { token } => Wire::RevokeToken(token.clone()),
        Call::Delegate { namespace, read_only, lifetime_secs, purpose } => Wire::Delegate(pb::Delegate {
            namespace: namespace.as_str().to_owned(),
            read_only: *read_only,
            lifetime_secs: *lifetime_secs,
            purpose: purpose.clone(),
        }),
    }
}

pub fn decode_call(call: Wire) -> Result<Call> {
    Ok(match call {
        Wire::Lookup(e) => {
            let (dir, name) = decode_entry(e)?;
            Call::Lookup { dir, name }
        }
        Wire::GetAttr(i) => Call::GetAttr { ino: Ino(i.ino) },
        Wire::ReadDir(r) => {
            Call::ReadDir { dir: Ino(r.dir), cookie: r.cookie, max: r.max, with_attr: r.with_attr }
        }
        Wire::Parent(i) => Call::Parent { dir: Ino(i.ino) },
        Wire::ReadLink(i) => Call::ReadLink { ino: Ino(i.ino) },
        Wire::GetXattr(x) => Call::GetXattr { ino: Ino(x.ino), name: xattr_name(x.name)? },
        Wire::ListXattr(i) => Call::ListXattr { ino: Ino(i.ino) },
        Wire::SetXattr(x) => Call::SetXattr {
            ino: Ino(x.ino),
            name: xattr_name(x.name)?,
            value: xattr_value(x.value)?,
            create_only: x.create_only,
            replace_only: x.replace_only,
        },
        Wire::RemoveXattr(x) => Call::RemoveXattr { ino: Ino(x.ino), name: xattr_name(x.name)? },
        Wire::Create(c) => {
            Call::Create { dir: Ino(c.dir), name: entry_name(c.name)?, new: decode_new(c.new)?, open: c.open }
        }
        Wire::Tmpfile(t) => Call::Tmpfile { dir: Ino(t.dir), new: decode_new(t.new)? },
        Wire::Link(l) => Call::Link { ino: Ino(l.ino), dir: Ino(l.dir), name: entry_name(l.name)? },
        Wire::Unlink(e) => {
            let (dir, name) = decode_entry(e)?;
            Call::Unlink { dir, name }
        }
        Wire::Rmdir(e) => {
            let (dir, name) = decode_entry(e)?;
            Call::Rmdir { dir, name }
        }
        Wire::Rename(r) => decode_rename(r)?,
        Wire::SetAttr(s) => {
            let (ino, set) = attr::decode_set(s)?;
            Call::SetAttr { ino, set }
        }
        Wire::Open(i) => Call::Open { ino: Ino(i.ino) },
        Wire::Close(close) => {
            Call::Close { inos: list(close.inodes, "Close")?.into_iter().map(Ino).collect() }
        }
        Wire::Extents(e) => Call::Extents { ino: Ino(e.ino), with_inline: e.with_inline },
        Wire::Commit(c) => Call::Commit(decode_commit(c)?),
        Wire::Relocate(r) => decode_relocate(r)?,
        Wire::Live(staged) => Call::Live { staged: lists::decode_staged(&staged)? },
        Wire::Object(id) => Call::Object { id: lists::decode_id(&id)? },
        Wire::DeadObjects(max) => Call::DeadObjects { max },
        Wire::LiveObjects(l) => Call::LiveObjects { after: lists::decode_id(&l.after)?, max: l.max },
        Wire::ForgetObjects(ids) => Call::ForgetObjects { ids: lists::decode_ids(&ids)? },
        Wire::CopyRange(c) => Call::CopyRange(decode_copy(c)?),
        Wire::Sync(_) => Call::Sync,
        Wire::Lease(i) => Call::Lease { ino: Ino(i.ino) },
        Wire::TestLock(c) => {
            let (ino, request) = lock::decode_request(c)?;
            Call::TestLock { ino, owner: request.owner, lock: request.lock }
        }
        Wire::Lock(c) => {
            let (ino, request) = lock::decode_request(c)?;
            Call::Lock { ino, request }
        }
        Wire::Forget(f) => decode_forget(f)?,
        Wire::Peer(node) => Call::Peer { node: NodeId(node) },
        Wire::Namespace(n) => Call::Namespace { name: namespace::name(&n)? },
        Wire::Namespaces(_) => Call::Namespaces,
        Wire::CreateNamespace(n) => Call::CreateNamespace { new: namespace::decode_new(n)? },
        Wire::SetNamespace(c) => {
            let (name, change) = namespace::decode_change(c)?;
            Call::SetNamespace { name, change }
        }
        Wire::RemoveNamespace(r) => Call::RemoveNamespace { name: namespace::name(&r.name)?, force: r.force },
        Wire::Sessions(_) => Call::Sessions,
        Wire::RevokeToken(token) => Call::RevokeToken { token: text(token, "a token's id")? },
        Wire::Delegate(d) => Call::Delegate {
            namespace: namespace::name(&d.namespace)?,
            read_only: d.read_only,
            lifetime_secs: d.lifetime_secs,
            purpose: text(d.purpose, "whom a token is for")?,
        },
    })
}
