//! Namespaces, the volume, sessions as they are listed.

use std::time::Duration;

use granary_core::policy::POLICY_NAMES;
use granary_core::{NamespaceId, NamespaceName, NodeId, Result, SessionId};

use super::attr::{decode_usage, encode_usage};
use super::bounds::{long_text, text};
use super::{malformed, pb};
use crate::call::SessionInfo;
use crate::lease::PeerInfo;
use crate::types::{
    Durability, NamespaceChange, NamespaceInfo, NamespacePolicy, NewNamespace, PackedSource, PolicyChange,
    TRASH_MS_DEFAULT, VolumeInfo, WriteSettings,
};

pub(super) fn name(name: &str) -> Result<NamespaceName> {
    name.parse().map_err(|_| malformed("a namespace's name is impossible"))
}

fn encode_durability(d: Durability) -> pb::Durability {
    match d {
        Durability::Local => pb::Durability::Local,
        Durability::Object => pb::Durability::Object,
    }
}

fn decode_durability(number: i32) -> Result<Durability> {
    match pb::Durability::try_from(number) {
        Ok(pb::Durability::Local) => Ok(Durability::Local),
        Ok(pb::Durability::Object) => Ok(Durability::Object),
        Err(_) => Err(malformed("a durability is unknown")),
    }
}

fn encode_policy(values: [Option<u64>; POLICY_NAMES.len()]) -> pb::WritePolicy {
    let [small_period, large_period, small_size, bandwidth, uploads, bytes, files, compression, inline] =
        values;
    pb::WritePolicy {
        small_period_ms: small_period,
        large_period_ms: large_period,
        small_file_bytes_max: small_size,
        upload_bytes_per_s_max: bandwidth,
        uploads_max: uploads,
        dirty_bytes_max: bytes,
        dirty_files_max: files,
        compression,
        inline_bytes_max: inline,
    }
}

fn decode_policy(p: Option<pb::WritePolicy>) -> [Option<u64>; POLICY_NAMES.len()] {
    let p = p.unwrap_or_default();
    [
        p.small_period_ms,
        p.large_period_ms,
        p.small_file_bytes_max,
        p.upload_bytes_per_s_max,
        p.uploads_max,
        p.dirty_bytes_max,
        p.dirty_files_max,
        p.compression,
        p.inline_bytes_max,
    ]
}

fn own_policy(p: &NamespacePolicy) -> Option<pb::WritePolicy> {
    let own = p.values().map(|value| (value > 0).then_some(value));
    (*p != NamespacePolicy::default()).then(|| encode_policy(own))
}

fn decode_own_policy(p: Option<pb::WritePolicy>) -> NamespacePolicy {
    NamespacePolicy::from_values(decode_policy(p).map(Option::unwrap_or_default))
}

pub fn encode_settings(ns: NamespaceId, s: &WriteSettings) -> pb::WriteSettings {
    pb::WriteSettings {
        ns: ns.0,
        durability: encode_durability(s.durability) as i32,
        policy: own_policy(&s.policy),
    }
}

pub fn decode_settings(s: pb::WriteSettings) -> Result<(NamespaceId, WriteSettings)> {
    let settings =
        WriteSettings { durability: decode_durability(s.durability)?, policy: decode_own_policy(s.policy) };
    Ok((NamespaceId(s.ns), settings))
}

fn encode_packed(p: &PackedSource) -> pb::PackedSource {
    pb::PackedSource { url: p.url.clone(), version: p.version }
}

fn decode_packed(p: pb::PackedSource) -> Result<PackedSource> {
    let packed = PackedSource { url: p.url, version: p.version };
    packed.validate().map_err(|e| malformed(&e.to_string()))?;
    Ok(packed)
}

pub fn encode_new(n: &NewNamespace) -> pb::NewNamespace {
    pb::NewNamespace {
        name: n.name.as_str().to_owned(),
        uid: n.uid,
        gid: n.gid,
        mode: n.mode,
        bytes_max: n.bytes_max,
        inodes_max: n.inodes_max,
        durability: encode_durability(n.durability) as i32,
        trash_ms: Some(n.trash_ms),
        packed: n.packed.as_ref().map(encode_packed),
    }
}

pub fn decode_new(n: pb::NewNamespace) -> Result<NewNamespace> {
    Ok(NewNamespace {
        name: name(&n.name)?,
        uid: n.uid,
        gid: n.gid,
        mode: n.mode,
        bytes_max: n.bytes_max,
        inodes_max: n.inodes_max,
        durability: decode_durability(n.durability)?,
        trash_ms: n.trash_ms.unwrap_or(TRASH_MS_DEFAULT),
        packed: n.packed.map(decode_packed).transpose()?,
    })
}

pub fn encode_change(name: &NamespaceName, c: &NamespaceChange) -> pb::SetNamespace {
    pb::SetNamespace {
        name: name.as_str().to_owned(),
        uid: c.uid,
        gid: c.gid,
        mode: c.mode,
        bytes_max: c.bytes_max,
        inodes_max: c.inodes_max,
        durability: c.durability.map(|d| encode_durability(d) as i32),
        policy: (c.policy != PolicyChange::default()).then(|| encode_policy(c.policy.values())),
        trash_ms: c.trash_ms,
    }
}

pub fn decode_change(c: pb::SetNamespace) -> Result<(NamespaceName, NamespaceChange)> {
    let change = NamespaceChange {
        uid: c.uid,
        gid: c.gid,
        mode: c.mode,
        bytes_max: c.bytes_max,
        inodes_max: c.inodes_max,
        durability: c.durability.map(decode_durability).transpose()?,
        policy: PolicyChange::from_values(decode_policy(c.policy)),
        trash_ms: c.trash_ms,
    };
    Ok((name(&c.name)?, change))
}

pub fn encode_info(n: &NamespaceInfo) -> pb::NamespaceInfo {
    pb::NamespaceInfo {
        id: n.id.0,
        name: n.name.as_str().to_owned(),
        uid: n.uid,
        gid: n.gid,
        mode: n.mode,
        durability: encode_durability(n.durability) as i32,
        usage: Some(encode_usage(&n.usage)),
        policy: own_policy(&n.policy),
        trash_ms: n.trash_ms,
        packed: n.packed.as_ref().map(encode_packed),
    }
}

pub fn decode_info(n: pb::NamespaceInfo) -> Result<NamespaceInfo> {
    Ok(NamespaceInfo {
        id: NamespaceId(n.id),
        name: name(&n.name)?,
        uid: n.uid,
        gid: n.gid,
        mode: n.mode,
        durability: decode_durability(n.durability)?,
        usage: n.usage.map(decode_usage).unwrap_or_default(),
        policy: decode_own_policy(n.policy),
        trash_ms: n.trash_ms,
        packed: n.packed.map(decode_packed).transpose()?,
    })
}

pub fn encode_volume(v: &VolumeInfo) -> pb::VolumeInfo {
    pb::VolumeInfo {
        uuid: v.uuid.clone(),
        store_url: v.store_url.clone(),
        created_unix_ms: v.created_unix_ms,
    }
}

pub fn decode_volume(v: pb::VolumeInfo) -> Result<VolumeInfo> {
    Ok(VolumeInfo {
        uuid: text(v.uuid, "a volume's uuid")?,
        store_url: long_text(v.store_url, "a store's URL")?,
        created_unix_ms: v.created_unix_ms,
    })
}

pub fn encode_peer(p: &PeerInfo) -> pb::Peer {
    pb::Peer {
        node: p.node.0,
        name: p.name.clone(),
        address: p.address.clone(),
        ticket: p.ticket.clone(),
        silent_ms: ms(p.silent),
    }
}

pub fn decode_peer(p: pb::Peer) -> Result<PeerInfo> {
    Ok(PeerInfo {
        node: NodeId(p.node),
        name: text(p.name, "a node's name")?,
        address: p.address.map(|a| text(a, "a node's address")).transpose()?,
        ticket: long_text(p.ticket, "a ticket")?,
        silent: Duration::from_millis(p.silent_ms),
    })
}

pub fn encode_session(s: &SessionInfo) -> pb::SessionInfo {
    pb::SessionInfo {
        session: s.session.0,
        node: s.node.0,
        name: s.name.clone(),
        user: s.user.clone(),
        silent_ms: ms(s.silent),
        leases: s.leases,
        opens: s.opens,
        locks: s.locks,
    }
}

pub fn decode_session(s: pb::SessionInfo) -> Result<SessionInfo> {
    Ok(SessionInfo {
        session: SessionId(s.session),
        node: NodeId(s.node),
        name: text(s.name, "a node's name")?,
        user: text(s.user, "a user's name")?,
        silent: Duration::from_millis(s.silent_ms),
        leases: s.leases,
        opens: s.opens,
        locks: s.locks,
    })
}

pub(super) fn ms(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}
