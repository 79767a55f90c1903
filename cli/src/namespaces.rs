//! What a namespace's name says about its owner, and what may be asked of it: the same through the node and without one.

use granary_core::{Kind, NamespaceKind, NamespaceName};
use granary_meta::{NamespaceChange, NewNamespace, PackedSource, TRASH_MS_DEFAULT, check_trash_ms};

use crate::exit::{Failure, Outcome};
use crate::users;
use crate::wire::CreateRequest;

/// Owner, group and mode of a new namespace's top directory when nothing else is asked for: `user/alice` belongs to
/// alice (0700), `group/asr` to the group asr (2770), others to the caller (0755). A user or group the system does
/// not know leaves it to the caller.
pub fn defaults(name: &NamespaceName, caller_uid: u32, caller_gid: u32) -> (u32, u32, u32) {
    match name.kind() {
        NamespaceKind::User => {
            let (uid, gid) =
                users::by_login(name.leaf()).map_or((caller_uid, caller_gid), |u| (u.uid, u.gid));
            (uid, gid, 0o700)
        }
        NamespaceKind::Group => match users::group(name.leaf()) {
            Some(gid) => (0, gid, 0o2770),
            None => (caller_uid, caller_gid, 0o2770),
        },
        NamespaceKind::Dataset | NamespaceKind::Bucket => (caller_uid, caller_gid, 0o755),
    }
}

/// A request by name alone.
pub fn by_name(namespace: &NamespaceName) -> CreateRequest {
    CreateRequest {
        namespace: namespace.to_string(),
        uid: None,
        gid: None,
        mode: None,
        bytes_max: 0,
        inodes_max: 0,
        durability: granary_meta::Durability::default(),
        trash_ms: None,
        packed: None,
        token: None,
    }
}

/// What is asked for, checked, with what the name says about the rest.
pub fn wanted(request: &CreateRequest, caller_uid: u32, caller_gid: u32) -> Outcome<NewNamespace> {
    let name: NamespaceName = request.namespace.parse()?;
    let (uid, gid, mode) = defaults(&name, caller_uid, caller_gid);
    let mode = request.mode.unwrap_or(mode);
    check_mode(mode)?;
    request.trash_ms.map_or(Ok(()), check_trash_ms)?;
    request.packed.as_ref().map_or(Ok(()), PackedSource::validate)?;
    Ok(NewNamespace {
        name,
        uid: request.uid.unwrap_or(uid),
        gid: request.gid.unwrap_or(gid),
        mode,
        bytes_max: request.bytes_max,
        inodes_max: request.inodes_max,
        durability: request.durability,
        trash_ms: request.trash_ms.unwrap_or(TRASH_MS_DEFAULT),
        packed: request.packed.clone(),
    })
}

/// Refuses what no namespace can have.
pub fn check_change(change: &NamespaceChange) -> Outcome<()> {
    change.mode.map_or(Ok(()), check_mode)?;
    change.trash_ms.map_or(Ok(()), check_trash_ms)?;
    Ok(change.policy.validate()?)
}

fn check_mode(mode: u32) -> Outcome<()> {
    if mode > 0o7777 {
        return Err(Failure::of_kind(
            Kind::Invalid,
            format!("mode {mode:o} has bits that are no permissions; give one up to 7777, for example 0750"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_choose_owners() {
        let of = |s: &str| defaults(&s.parse().unwrap(), 1234, 5678);
        let daemon = users::by_login("daemon").unwrap();
        assert_eq!(of("user/daemon"), (daemon.uid, daemon.gid, 0o700));
        assert_eq!(of("user/no-such-user-here"), (1234, 5678, 0o700));
        assert_eq!(of("group/daemon"), (0, users::group("daemon").unwrap(), 0o2770));
        assert_eq!(of("group/no-such-group-here"), (1234, 5678, 0o2770));
        assert_eq!(of("dataset/libri"), (1234, 5678, 0o755));
        assert_eq!(of("bucket/labels"), (1234, 5678, 0o755));
        assert!(check_mode(0o2770).is_ok() && check_mode(0o10000).is_err());
    }
}
