use granary_core::{Ino, Kind, NamespaceId};

use super::rig::*;
use crate::call::*;
use crate::lease::{Lock, LockKind, LockOwner, LockRequest, Scope};
use crate::service::{Rights, ServiceOptions};
use crate::types::NewNamespace;

#[test]
fn leases_opens_locks_answers_and_calls_are_bounded() {
    let rig = Rig::with(ServiceOptions {
        leases_max: 5,
        opens_max: 2,
        locks_max: 2,
        calls_max: 4,
        replies_max: 6,
        ..options()
    });
    let mut a = rig.client(1);
    let f = a.attr(create("0", true)).ino;
    a.attr(create("1", true));
    assert_eq!(a.error(create("2", true)), Kind::Busy);
    let made = a.call(create("2", false));
    assert!(made.result.is_ok());
    let more = a.call(create("3", false));
    assert!(
        more.grants.iter().all(|(scope, _)| matches!(scope, Scope::Inode(ROOT) | Scope::Directory(ROOT)))
    );
    assert_eq!(rig.service.stats().leases, 5);
    a.call(create("4", false)).result.unwrap();
    a.call(create("5", false)).result.unwrap();
    assert_eq!(a.error(create("6", false)), Kind::Busy, "six answers are not confirmed");
    a.acked_below = a.next_id;
    a.call(create("6", false)).result.unwrap();
    for (start, fits) in [(0, true), (10, true), (20, false)] {
        let lock = Lock { flock: false, kind: LockKind::Exclusive, start, end: start, pid: 7 };
        let request = LockRequest { owner: LockOwner(1), lock, unlock: false, wait: false };
        let answer = a.ask(Call::Lock { ino: f, request });
        assert_eq!(answer.is_ok(), fits, "{answer:?}");
    }
    for _ in 0..4 {
        a.submit(Call::GetAttr { ino: f });
    }
    a.submit(Call::GetAttr { ino: f });
    assert_eq!(a.ended().kind(), Kind::Invalid);
}

#[test]
fn a_forgotten_lease_is_free() {
    let rig = Rig::new();
    let (mut a, mut b) = (rig.client(1), rig.client(2));
    let ino = a.attr(create("f", true)).ino;
    let id = b.submit(chmod(ino, 0o600));
    a.recall();
    a.ask(Call::Forget { scopes: vec![Scope::Inode(ino)] }).unwrap();
    assert!(b.response(id).result.is_ok());
}

#[test]
fn who_may_only_read_changes_nothing() {
    let rig = Rig::new();
    let mut a = rig.client(1);
    let ino = a.attr(create("f", false)).ino;
    let mut r = rig.greet(identity("r", &["g"], Rights::ReadOnly), 2);
    r.enter("group/g");
    assert_eq!(r.attr(Call::GetAttr { ino }).ino, ino);
    for call in [create("g", false), unlink("f"), chmod(ino, 0), commit(ino, 1), Call::Lease { ino }] {
        assert_eq!(r.error(call), Kind::ReadOnly);
    }
    assert!(a.is_quiet());
}

#[test]
fn a_namespace_that_was_not_granted_is_as_one_that_is_not_there() {
    let rig = Rig::new();
    let mut a = rig.greet(identity("a", &[], Rights::ReadWrite), 1);
    let text = |e: granary_core::Error, name: &str| e.to_string().replace(name, "NAME");
    let theirs = a.ask(Call::Namespace { name: "user/b".parse().unwrap() }).unwrap_err();
    let nobodys = a.ask(Call::Namespace { name: "user/x".parse().unwrap() }).unwrap_err();
    assert_eq!((theirs.kind(), nobodys.kind()), (Kind::NotFound, Kind::NotFound));
    assert_eq!(text(theirs, "user/b"), text(nobodys, "user/x"));
    // Nor by its id: group/g is 2, user/b is 3; 77 is nobody's.
    let mut texts = Vec::new();
    for ns in [2, 3, 77] {
        a.ns = NamespaceId(ns);
        for call in [Call::GetAttr { ino: ROOT }, create("f", false), Call::Sync, Call::Open { ino: ROOT }] {
            let e = a.ask(call).unwrap_err();
            assert_eq!(e.kind(), Kind::NotFound);
            texts.push(text(e, &NamespaceId(ns).to_string()));
        }
    }
    texts.dedup();
    assert_eq!(texts.len(), 1, "{texts:?}");
    let Ok(Answer::Namespaces(all)) = a.ask(Call::Namespaces) else { panic!() };
    assert_eq!(all.iter().map(|info| info.name.as_str()).collect::<Vec<_>>(), ["user/a"]);
    for call in [
        Call::CreateNamespace { new: new_namespace("user/c") },
        Call::CreateNamespace { new: NewNamespace { bytes_max: 9, ..new_namespace("group/h") } },
        Call::RemoveNamespace { name: "user/b".parse().unwrap(), force: true },
        Call::RemoveNamespace { name: "user/x".parse().unwrap(), force: true },
        Call::SetNamespace { name: "user/b".parse().unwrap(), change: Default::default() },
        Call::RevokeToken { token: "token-of-b".into() },
    ] {
        assert_eq!(a.error(call), Kind::Permission);
    }
    // What is theirs they may make, as a first mount does.
    let mut h = rig.greet(identity("h", &["asr"], Rights::ReadWrite), 7);
    for name in ["user/h", "group/asr"] {
        let Ok(Answer::Namespace(made)) = h.ask(Call::CreateNamespace { new: new_namespace(name) }) else {
            panic!()
        };
        assert_eq!(made.name.as_str(), name);
    }
    let full = NewNamespace { bytes_max: 1 << 30, ..new_namespace("group/asr") };
    assert_eq!(h.error(Call::CreateNamespace { new: full }), Kind::Permission);
    // Sessions are seen by their own.
    let _b = rig.greet(identity("b", &[], Rights::ReadWrite), 2);
    let Ok(Answer::Sessions(all)) = a.ask(Call::Sessions) else { panic!() };
    assert_eq!(all.len(), 1);
    assert!(rig.service.stats().refused > 10);
}

#[test]
fn inode_numbers_that_are_never_given_out_do_no_harm() {
    let rig = Rig::new();
    let mut a = rig.client(1);
    for ino in [Ino(0), Ino(u64::MAX), Ino(1 << 63)] {
        for call in [
            Call::GetAttr { ino },
            Call::Open { ino },
            Call::Lease { ino },
            chmod(ino, 0),
            Call::Extents { ino, with_inline: true },
        ] {
            let response = a.call(call);
            assert_eq!(response.result.unwrap_err().kind(), Kind::Stale);
            assert_eq!(response.grants, []);
        }
        a.ask(Call::Close { inos: vec![ino] }).unwrap();
        a.ask(Call::Forget { scopes: vec![Scope::Inode(ino), Scope::Directory(ino)] }).unwrap();
    }
}

#[test]
fn a_revoked_token_ends_its_sessions_and_stays_revoked() {
    let mut rig = Rig::new();
    let mut admin = rig.greet(identity("root", &[], Rights::Admin), 9);
    let a = rig.client(1);
    admin.ask(Call::RevokeToken { token: "token-of-a".into() }).unwrap();
    assert_eq!(a.ended().kind(), Kind::Fenced);
    for _ in 0..2 {
        let who = identity("a", &["g"], Rights::ReadWrite);
        let e = Client::greet(&rig.service, who, hello(1, None)).map(|_| ()).unwrap_err();
        assert_eq!(e.kind(), Kind::Denied);
        rig.restart();
    }
}

#[test]
fn settings_of_a_namespace_change_the_root_that_others_keep() {
    let rig = Rig::new();
    let mut admin = rig.greet(identity("root", &[], Rights::Admin), 9);
    let mut a = rig.client(1);
    assert!(a.call(Call::GetAttr { ino: ROOT }).grants.contains(&reads(Scope::Inode(ROOT))));
    let change = crate::types::NamespaceChange { mode: Some(0o700), ..Default::default() };
    let id = admin.submit(Call::SetNamespace { name: "group/g".parse().unwrap(), change });
    a.release();
    let Ok(Answer::Namespace(info)) = admin.response(id).result else { panic!() };
    assert_eq!(info.mode, 0o700);
    assert_eq!(a.attr(Call::GetAttr { ino: ROOT }).mode, 0o700);
}
