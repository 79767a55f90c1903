//! The first words.

use std::time::Duration;

use granary_core::{Ino, NamespaceId, NodeId, Result, SessionId};

use super::bounds::text;
use super::namespace::{decode_volume, encode_volume, ms};
use super::{lists, malformed, pb, required};
use crate::call::{Greeting, Had, Held, Hello};
use crate::lease::{LeaseKind, Scope};

/// Inodes and locks of one namespace that a session may claim after a restart of the service, or is told that it has.
pub const HELD_MAX: usize = 1_000_000;

pub fn encode_hello(h: &Hello) -> pb::Hello {
    pb::Hello {
        session: h.session.map_or(0, |s| s.0),
        node: h.node.0,
        name: h.name.clone(),
        data_address: h.data_address.clone().unwrap_or_default(),
        held: h.held.iter().map(encode_held).collect(),
        anew: h.anew,
    }
}

pub fn decode_hello(h: pb::Hello) -> Result<Hello> {
    Ok(Hello {
        session: (h.session != 0).then_some(SessionId(h.session)),
        node: NodeId(h.node),
        name: text(h.name, "a node's name")?,
        data_address: Some(text(h.data_address, "a node's address")?).filter(|a| !a.is_empty()),
        held: h.held.into_iter().map(decode_held).collect::<Result<_>>()?,
        anew: h.anew,
    })
}

fn encode_held(h: &Held) -> pb::Held {
    pb::Held {
        ns: h.ns.0,
        opens: h.opens.iter().map(|ino| ino.0).collect(),
        writes: h.writes.iter().map(|ino| ino.0).collect(),
        locks: lists::encode_locks(&h.locks),
    }
}

fn decode_held(h: pb::Held) -> Result<Held> {
    let locks = lists::decode_locks(&h.locks)?;
    if h.opens.len().max(h.writes.len()).max(locks.len()) > HELD_MAX {
        return Err(malformed("a session claims to hold too much"));
    }
    Ok(Held {
        ns: NamespaceId(h.ns),
        opens: h.opens.into_iter().map(Ino).collect(),
        writes: h.writes.into_iter().map(Ino).collect(),
        locks,
    })
}

pub fn encode_greeting(g: &Greeting) -> pb::Greeting {
    pb::Greeting {
        session: g.session.0,
        incarnation: g.incarnation,
        resumed: g.resumed,
        lease_time_ms: ms(g.lease_time),
        volume: Some(encode_volume(&g.volume)),
        ticket_key: g.ticket_key.clone(),
        next_call: g.next_call,
        had: g.had.iter().map(encode_had).collect(),
    }
}

fn encode_had(h: &Had) -> pb::Had {
    let scopes = |kind| {
        let of_kind = h.leases.iter().filter(move |(_, held)| *held == kind);
        of_kind.map(|(scope, _)| encode_scope(*scope)).collect()
    };
    pb::Had {
        ns: h.ns.0,
        reads: scopes(LeaseKind::Read),
        writes: scopes(LeaseKind::Write),
        opens: h.opens.iter().map(|ino| ino.0).collect(),
        locks: lists::encode_locks(&h.locks),
        changed: h.changed.iter().map(|ino| ino.0).collect(),
    }
}

fn decode_had(h: pb::Had) -> Result<Had> {
    let locks = lists::decode_locks(&h.locks)?;
    let longest = [h.reads.len(), h.writes.len(), h.opens.len(), locks.len(), h.changed.len()];
    if longest.iter().any(|len| *len > HELD_MAX) {
        return Err(malformed("a session is told that it has too much"));
    }
    let reads = h.reads.into_iter().map(|scope| (decode_scope(scope), LeaseKind::Read));
    let writes = h.writes.into_iter().map(|scope| (decode_scope(scope), LeaseKind::Write));
    Ok(Had {
        ns: NamespaceId(h.ns),
        leases: reads.chain(writes).collect(),
        opens: h.opens.into_iter().map(Ino).collect(),
        locks,
        changed: h.changed.into_iter().map(Ino).collect(),
    })
}

fn encode_scope(scope: Scope) -> u64 {
    match scope {
        Scope::Inode(ino) => ino.0 << 1,
        Scope::Directory(ino) => ino.0 << 1 | 1,
    }
}

fn decode_scope(scope: u64) -> Scope {
    let ino = Ino(scope >> 1);
    if scope & 1 == 0 { Scope::Inode(ino) } else { Scope::Directory(ino) }
}

pub fn decode_greeting(g: pb::Greeting) -> Result<Greeting> {
    if g.session == 0 || g.lease_time_ms == 0 {
        return Err(malformed("a greeting without session or lease time"));
    }
    if ![0, 32].contains(&g.ticket_key.len()) {
        return Err(malformed("a key for tickets that is none of Ed25519"));
    }
    Ok(Greeting {
        session: SessionId(g.session),
        incarnation: g.incarnation,
        resumed: g.resumed,
        lease_time: Duration::from_millis(g.lease_time_ms),
        volume: decode_volume(required(g.volume, "the volume")?)?,
        ticket_key: g.ticket_key,
        next_call: g.next_call,
        had: g.had.into_iter().map(decode_had).collect::<Result<_>>()?,
    })
}
