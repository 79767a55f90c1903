//! What calls are answered with.

use granary_core::{Ino, ObjectKind, Result};

use super::pb::response::Result as Wire;
use super::{attr, bounds, kind, lists, lock, malformed, namespace, pb, required};
use crate::call::{Answer, TokenText};
use crate::types::{Copied, DeadObject, Inline, LiveObject, ObjectInfo};

pub fn encode_object(o: &ObjectInfo) -> pb::Object {
    pb::Object {
        id: o.id.0.to_le_bytes().to_vec(),
        pack: o.kind == ObjectKind::Pack,
        payload_len: o.payload_len,
        total_len: o.total_len,
    }
}

pub fn decode_object(o: pb::Object) -> Result<ObjectInfo> {
    Ok(ObjectInfo {
        id: lists::decode_id(&o.id)?,
        kind: if o.pack { ObjectKind::Pack } else { ObjectKind::Block },
        payload_len: o.payload_len,
        total_len: o.total_len,
    })
}

fn encode_inline(copy: &Inline) -> pb::Inline {
    pb::Inline { version: copy.version, crc: copy.crc, bytes: copy.bytes.to_vec() }
}

fn decode_inline(copy: pb::Inline) -> Result<Inline> {
    Ok(Inline { version: copy.version, crc: copy.crc, bytes: bounds::inline(&copy.bytes)? })
}

fn encode_dead(d: &DeadObject) -> pb::DeadObject {
    pb::DeadObject { object: Some(encode_object(&d.object)), since: Some(attr::encode_time(d.since)) }
}

fn decode_dead(d: pb::DeadObject) -> Result<DeadObject> {
    Ok(DeadObject {
        object: decode_object(required(d.object, "the object")?)?,
        since: attr::decode_time(required(d.since, "since")?)?,
    })
}

fn encode_live(l: &LiveObject) -> pb::LiveObject {
    pb::LiveObject { object: Some(encode_object(&l.object)), live: l.live }
}

fn decode_live(l: pb::LiveObject) -> Result<LiveObject> {
    Ok(LiveObject { object: decode_object(required(l.object, "the object")?)?, live: l.live })
}

fn encode_parts(parts: &[Vec<(u64, u64)>]) -> pb::Parts {
    pb::Parts {
        counts: parts.iter().map(|p| p.len() as u32).collect(),
        bounds: parts.iter().flat_map(|p| bounds::flat(p)).collect(),
    }
}

fn decode_parts(p: &pb::Parts) -> Result<Vec<Vec<(u64, u64)>>> {
    let mut rest = &bounds::ranges(&p.bounds, "a part")?[..];
    let mut all = Vec::with_capacity(p.counts.len());
    for &count in &p.counts {
        let (head, tail) =
            rest.split_at_checked(count as usize).ok_or_else(|| malformed("parts are missing"))?;
        all.push(head.to_vec());
        rest = tail;
    }
    if !rest.is_empty() {
        return Err(malformed("parts are left over"));
    }
    Ok(all)
}

pub fn encode(result: &Result<Answer>) -> Wire {
    let answer = match result {
        Ok(answer) => answer,
        Err(e) => return Wire::Failure(kind::encode(e)),
    };
    match answer {
        Answer::Done => Wire::Done(pb::Nothing {}),
        Answer::Attr(a) => Wire::Attr(attr::encode(a)),
        Answer::Entries(all) => {
            Wire::Entries(pb::Entries { entries: all.iter().map(attr::encode_entry).collect() })
        }
        Answer::Ino(ino) => Wire::Ino(ino.0),
        Answer::Bytes(bytes) => Wire::Bytes(bytes.clone()),
        Answer::Names(names) => Wire::Names(pb::Names { names: names.clone() }),
        Answer::Renamed(a) => Wire::Renamed(pb::Renamed { replaced: a.as_ref().map(attr::encode) }),
        Answer::Extents(a, extents, copy) => Wire::Extents(pb::Extents {
            attr: Some(attr::encode(a)),
            extents: lists::encode_extents(extents),
            inline: copy.as_ref().map(encode_inline),
        }),
        Answer::Parts(parts) => Wire::Parts(encode_parts(parts)),
        Answer::Object(o) => Wire::Object(encode_object(o)),
        Answer::DeadObjects(all) => {
            Wire::DeadObjects(pb::DeadObjects { objects: all.iter().map(encode_dead).collect() })
        }
        Answer::LiveObjects(all) => {
            Wire::LiveObjects(pb::LiveObjects { objects: all.iter().map(encode_live).collect() })
        }
        Answer::Copied(c) => Wire::Copied(pb::Copied { len: c.len, attr: Some(attr::encode(&c.attr)) }),
        Answer::Lock(l) => Wire::Lock(pb::FoundLock { lock: l.as_ref().map(lock::encode) }),
        Answer::Peer(p) => Wire::Peer(namespace::encode_peer(p)),
        Answer::Namespace(n) => Wire::Namespace(namespace::encode_info(n)),
        Answer::Namespaces(all) => {
            Wire::Namespaces(pb::Namespaces { namespaces: all.iter().map(namespace::encode_info).collect() })
        }
        Answer::Token(token) => Wire::Token(token.0.clone()),
        Answer::Sessions(all) => {
            Wire::Sessions(pb::Sessions { sessions: all.iter().map(namespace::encode_session).collect() })
        }
    }
}

/// Outer: the message is malformed. Inner: what the service said.
pub fn decode(wire: Wire) -> Result<Result<Answer>> {
    Ok(Ok(match wire {
        Wire::Failure(f) => return Ok(Err(kind::decode(f))),
        Wire::Done(_) => Answer::Done,
        Wire::Attr(a) => Answer::Attr(attr::decode(a)?),
        Wire::Entries(e) => {
            let entries = bounds::list(e.entries, "a listing")?;
            Answer::Entries(entries.into_iter().map(attr::decode_entry).collect::<Result<_>>()?)
        }
        Wire::Ino(ino) => Answer::Ino(Ino(ino)),
        Wire::Bytes(bytes) => Answer::Bytes(bytes),
        Wire::Names(n) => Answer::Names(bounds::list(n.names, "a list of names")?),
        Wire::Renamed(r) => Answer::Renamed(r.replaced.map(attr::decode).transpose()?),
        Wire::Extents(e) => {
            let attr = attr::decode(required(e.attr, "attributes")?)?;
            let copy = e.inline.map(decode_inline).transpose()?;
            Answer::Extents(attr, lists::decode_extents(&e.extents)?, copy)
        }
        Wire::Parts(p) => Answer::Parts(decode_parts(&p)?),
        Wire::Object(o) => Answer::Object(decode_object(o)?),
        Wire::DeadObjects(d) => {
            Answer::DeadObjects(d.objects.into_iter().map(decode_dead).collect::<Result<_>>()?)
        }
        Wire::LiveObjects(l) => {
            Answer::LiveObjects(l.objects.into_iter().map(decode_live).collect::<Result<_>>()?)
        }
        Wire::Copied(c) => {
            Answer::Copied(Copied { len: c.len, attr: attr::decode(required(c.attr, "attributes")?)? })
        }
        Wire::Lock(l) => Answer::Lock(l.lock.map(lock::decode).transpose()?),
        Wire::Peer(p) => Answer::Peer(namespace::decode_peer(p)?),
        Wire::Namespace(n) => Answer::Namespace(namespace::decode_info(n)?),
        Wire::Namespaces(n) => {
            Answer::Namespaces(n.namespaces.into_iter().map(namespace::decode_info).collect::<Result<_>>()?)
        }
        Wire::Token(token) => Answer::Token(TokenText(bounds::long_text(token, "a token")?)),
        Wire::Sessions(s) => {
            Answer::Sessions(s.sessions.into_iter().map(namespace::decode_session).collect::<Result<_>>()?)
        }
    }))
}
