//! What the metadata service remembers of its sessions across a restart, among the volume's own records.
//!
//! | key after the four zero bytes | value |
//! |---|---|
//! | `G` | how often the service was started: version u8 = 1, u64 |
//! | `K`, token id | a revoked token: version u8 = 1, when it ends anyway: seconds i64 (`i64::MAX`: not known) |
//! | `Q`, session u64, call u64 | an answered call that made or removed a namespace: version u8 = 1, 1 made or 2 removed, its id u32 |
//! | `S`, session u64 | a session, below |
//!
//! | bytes | field |
//! |---|---|
//! | 1 | version, 1 |
//! | 8 | node u64 |
//! | 2 + n | its host's name: length u16, UTF-8 |
//! | 2 + n | the user, length u16, UTF-8 |
//! | 2 + n | the token's id, length u16, UTF-8 |

use granary_core::codec::{Put, Reader};
use granary_core::{Error, Kind, NamespaceId, NodeId, Result, SessionId};

const VERSION: u8 = 1;

pub const INCARNATION_KEY: &[u8] = b"\0\0\0\0G";
pub const REVOKED_PREFIX: &[u8] = b"\0\0\0\0K";
pub const SESSION_PREFIX: &[u8] = b"\0\0\0\0S";
pub const ANSWERED_PREFIX: &[u8] = b"\0\0\0\0Q";

/// A session, as far as it must be known to come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRecord {
    pub node: NodeId,
    pub name: String,
    pub user: String,
    pub token: String,
}

pub fn session_key(id: SessionId) -> Vec<u8> {
    [SESSION_PREFIX, &id.0.to_be_bytes()].concat()
}

pub fn decode_session_key(key: &[u8]) -> Result<SessionId> {
    let id = key.strip_prefix(SESSION_PREFIX).and_then(|rest| rest.try_into().ok());
    id.map(|id| SessionId(u64::from_be_bytes(id)))
        .ok_or_else(|| Error::new(Kind::Corrupt, format!("a session's key is damaged: {key:02x?}")))
}

impl SessionRecord {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u8(VERSION);
        out.put_u64(self.node.0);
        for text in [&self.name, &self.user, &self.token] {
            out.put_bytes16(text.as_bytes());
        }
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<SessionRecord> {
        let mut r = Reader::new(bytes, "a session's record");
        r.version(VERSION)?;
        let node = NodeId(r.u64()?);
        let mut text = || -> Result<String> {
            let bytes = r.bytes16()?;
            String::from_utf8(bytes.to_vec()).map_err(|_| r.corrupt("a text in it is not UTF-8"))
        };
        let record = SessionRecord { node, name: text()?, user: text()?, token: text()? };
        r.finish()?;
        Ok(record)
    }
}

pub fn encode_incarnation(number: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(9);
    out.put_u8(VERSION);
    out.put_u64(number);
    out
}

pub fn decode_incarnation(bytes: &[u8]) -> Result<u64> {
    let mut r = Reader::new(bytes, "the count of the service's starts");
    r.version(VERSION)?;
    let number = r.u64()?;
    r.finish()?;
    Ok(number)
}

pub fn revoked_key(token: &str) -> Vec<u8> {
    [REVOKED_PREFIX, token.as_bytes()].concat()
}

pub fn decode_revoked_key(key: &[u8]) -> Result<String> {
    let token = key.strip_prefix(REVOKED_PREFIX).and_then(|rest| String::from_utf8(rest.to_vec()).ok());
    token.ok_or_else(|| Error::new(Kind::Corrupt, format!("a revoked token's key is damaged: {key:02x?}")))
}

/// Seconds since 1970.
pub fn encode_revoked(ends: i64) -> Vec<u8> {
    let mut out = Vec::with_capacity(9);
    out.put_u8(VERSION);
    out.put_i64(ends);
    out
}

pub fn decode_revoked(bytes: &[u8]) -> Result<i64> {
    let mut r = Reader::new(bytes, "a revoked token's record");
    r.version(VERSION)?;
    let ends = r.i64()?;
    r.finish()?;
    Ok(ends)
}

/// What a call about namespaces did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnsweredNamespace {
    Made(NamespaceId),
    Removed(NamespaceId),
}

/// What the keys of all such answers of a session begin with.
pub fn answered_prefix(session: SessionId) -> Vec<u8> {
    [ANSWERED_PREFIX, &session.0.to_be_bytes()].concat()
}

pub fn answered_key(session: SessionId, call: u64) -> Vec<u8> {
    [&answered_prefix(session)[..], &call.to_be_bytes()].concat()
}

/// The call's number.
pub fn decode_answered_key(key: &[u8]) -> Result<u64> {
    let call = key.len().checked_sub(8).map(|at| &key[at..]).and_then(|call| call.try_into().ok());
    call.map(u64::from_be_bytes)
        .ok_or_else(|| Error::new(Kind::Corrupt, format!("an answered call's key is damaged: {key:02x?}")))
}

impl AnsweredNamespace {
    pub fn encode(self) -> Vec<u8> {
        let (kind, id) = match self {
            AnsweredNamespace::Made(id) => (1, id),
            AnsweredNamespace::Removed(id) => (2, id),
        };
        let mut out = Vec::with_capacity(6);
        out.put_u8(VERSION);
        out.put_u8(kind);
        out.put_u32(id.0);
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<AnsweredNamespace> {
        let mut r = Reader::new(bytes, "an answer about a namespace");
        r.version(VERSION)?;
        let (kind, id) = (r.u8()?, NamespaceId(r.u32()?));
        let answer = match kind {
            1 => AnsweredNamespace::Made(id),
            2 => AnsweredNamespace::Removed(id),
            _ => return Err(r.corrupt("its kind is unknown")),
        };
        r.finish()?;
        Ok(answer)
    }
}
