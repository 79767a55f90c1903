//! Answers with what comes along, and recalls.

use granary_core::{NamespaceId, Result};

use super::{answer, attr, lock, pb, required};
use crate::call::{Recall, Released, Response};
use crate::lease::LeaseKind;

pub fn encode(r: &Response) -> pb::Response {
    pb::Response {
        id: r.id,
        grants: r.grants.iter().map(lock::encode_grant).collect(),
        touched: r.touched.iter().map(attr::encode).collect(),
        usage: r.usage.as_ref().map(attr::encode_usage),
        result: Some(answer::encode(&r.result)),
    }
}

pub fn decode(r: pb::Response) -> Result<Response> {
    Ok(Response {
        id: r.id,
        result: answer::decode(required(r.result, "the result")?)?,
        grants: r.grants.into_iter().map(lock::decode_grant).collect(),
        touched: r.touched.into_iter().map(attr::decode).collect::<Result<_>>()?,
        usage: r.usage.map(attr::decode_usage),
    })
}

pub fn encode_recall(r: &Recall) -> pb::Recall {
    let scope = Some(lock::encode_scope(r.scope));
    pb::Recall { id: r.id, ns: r.ns.0, scope, write: r.wanted == LeaseKind::Write }
}

pub fn decode_recall(r: pb::Recall) -> Result<Recall> {
    let scope = required(r.scope, "the scope")?;
    Ok(Recall {
        id: r.id,
        ns: NamespaceId(r.ns),
        scope: lock::decode_scope(scope.ino, scope.directory),
        wanted: lock::decode_kind(r.write),
    })
}

pub fn encode_released(r: &Released) -> pb::Released {
    pb::Released { id: r.id, open: r.open }
}

pub fn decode_released(r: pb::Released) -> Released {
    Released { id: r.id, open: r.open }
}
