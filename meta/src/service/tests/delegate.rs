//! Tokens that the service makes for others.

use std::sync::Arc;
use std::time::Duration;

use granary_core::{Clock, Kind, TestClock, Timestamp};

use super::rig::*;
use crate::call::*;
use crate::service::{Identity, Rights, ServiceOptions};
use crate::token::{CLOCK_SKEW_SECS, DELEGATED_SECS_MAX, Delegator, SigningKey, Token, Verifier};

const VOLUME: &str = "00000000000000000000000000000000";

fn rig() -> Rig {
    let key = SigningKey::from_seed(&[5; 32]).unwrap();
    // Its clock is the rig's as it stands: these tests move it only once tokens are made.
    let clock = Arc::new(TestClock::default());
    let delegator = Some(Arc::new(Delegator::new(VOLUME, key, clock)));
    Rig::with(ServiceOptions { delegator, ..options() })
}

fn delegates(namespaces: Option<&[&str]>) -> Identity {
    let namespaces = namespaces.map(|all| all.iter().map(|text| text.parse().unwrap()).collect());
    Identity { namespaces, ..identity("csi", &["g"], Rights::Delegate) }
}

fn ask(namespace: &str, lifetime_secs: u64) -> Call {
    let namespace = namespace.parse().unwrap();
    Call::Delegate { namespace, read_only: false, lifetime_secs, purpose: "pod team-a/train-0".into() }
}

fn said(client: &mut Client, call: Call) -> Token {
    let Ok(Answer::Token(token)) = client.ask(call) else { panic!("a token was due") };
    crate::token::inspect(&token.0).unwrap()
}

/// The bearer of a token that was delegated, as the server makes one of a token's words.
fn heir(rig: &Rig, token: &Token) -> Identity {
    let expires = token.expires + CLOCK_SKEW_SECS;
    Identity {
        user: token.only().unwrap().to_string(),
        groups: vec![],
        rights: Rights::ReadWrite,
        namespaces: token.namespaces.clone(),
        token: token.id.clone(),
        parent: token.parent.clone(),
        expires: Some(Timestamp { secs: i64::try_from(expires).unwrap(), ..rig.clock.now() }),
    }
}

#[test]
fn nobody_delegates_more_than_is_theirs_to_delegate() {
    let rig = rig();
    let mut some = rig.greet(delegates(Some(&["user/*"])), 1);
    let mut all = rig.greet(delegates(None), 2);
    let mut admin = rig.greet(identity("root", &[], Rights::Admin), 3);
    assert_eq!(said(&mut some, ask("user/a", 60)).only().unwrap().as_str(), "user/a");
    assert_eq!(some.error(ask("group/g", 60)), Kind::Permission);
    // Whether a namespace is there is told only to who could have it.
    assert_eq!(some.error(ask("group/none", 60)), Kind::Permission);
    assert_eq!(some.error(ask("user/none", 60)), Kind::NotFound);
    for client in [&mut all, &mut admin] {
        let token = said(client, ask("group/g", 60));
        assert_eq!(
            (token.only().unwrap().as_str(), token.rights),
            ("group/g", crate::token::Rights::ReadWrite)
        );
        for bad in [0, DELEGATED_SECS_MAX + 1] {
            assert_eq!(client.error(ask("group/g", bad)), Kind::Invalid);
        }
    }
    assert_ne!(said(&mut all, ask("group/g", 60)).id, said(&mut all, ask("group/g", 60)).id);
    // To delegate is no right to anything else.
    for client in [&mut some, &mut all] {
        for call in [
            Call::Namespace { name: "user/a".parse().unwrap() },
            Call::Namespace { name: "group/g".parse().unwrap() },
        ] {
            assert_eq!(client.error(call), Kind::NotFound);
        }
        let Ok(Answer::Namespaces(found)) = client.ask(Call::Namespaces) else { panic!() };
        assert!(found.is_empty());
        assert_eq!(client.error(Call::RevokeToken { token: "x".into() }), Kind::Permission);
    }
    // And whoever reaches a namespace may not pass it on.
    let mut a = rig.greet(identity("a", &["g"], Rights::ReadWrite), 4);
    assert_eq!(a.error(ask("user/a", 60)), Kind::Permission);
    let child = said(&mut all, ask("group/g", 60));
    let mut child = rig.greet(heir(&rig, &child), 5);
    assert_eq!(child.error(ask("group/g", 60)), Kind::Permission);
}

#[test]
fn a_delegated_token_reaches_one_namespace_and_makes_none() {
    let rig = rig();
    let mut all = rig.greet(delegates(None), 1);
    let token = said(&mut all, ask("user/a", 60));
    let mut child = rig.greet(heir(&rig, &token), 2);
    child.enter("user/a");
    child.attr(create("f", false));
    for other in ["user/b", "group/g"] {
        assert_eq!(child.error(Call::Namespace { name: other.parse().unwrap() }), Kind::NotFound);
    }
    let Ok(Answer::Namespaces(found)) = child.ask(Call::Namespaces) else { panic!() };
    assert_eq!(found.iter().map(|info| info.name.as_str()).collect::<Vec<_>>(), ["user/a"]);
    let mut admin = rig.greet(identity("root", &[], Rights::Admin), 9);
    // Gone while it is out: the name is not for its bearer to take again.
    let mut child = rig.greet(heir(&rig, &said(&mut all, ask("user/b", 60))), 3);
    let name = "user/b".parse().unwrap();
    admin.ask(Call::RemoveNamespace { name, force: true }).unwrap();
    let new = new_namespace("user/b");
    assert_eq!(child.error(Call::CreateNamespace { new }), Kind::Permission);
}

#[test]
fn revoking_the_parent_cuts_its_heirs_and_who_has_another_token_goes_on() {
    let mut rig = rig();
    let mut all = rig.greet(delegates(None), 1);
    let mut other = rig.greet(Identity { token: "second".into(), ..delegates(None) }, 2);
    let mut admin = rig.greet(identity("root", &[], Rights::Admin), 9);
    let (first, second) = (said(&mut all, ask("group/g", 600)), said(&mut other, ask("group/g", 600)));
    let mut mount = rig.greet(heir(&rig, &first), 3);
    mount.enter("group/g");
    let ino = mount.attr(create("f", true)).ino;
    admin.ask(Call::RevokeToken { token: "token-of-csi".into() }).unwrap();
    assert_eq!(all.ended().kind(), Kind::Fenced);
    let why = mount.ended();
    assert!(why.kind() == Kind::Unavailable && why.to_string().contains("delegated from"), "{why}");
    let again = |rig: &Rig, token: &Token, session| {
        Client::greet(&rig.service, heir(rig, token), hello(3, Some(session)))
    };
    let session = mount.greeting.session;
    assert_eq!(again(&rig, &first, session).map(drop).unwrap_err().kind(), Kind::Denied);
    let resumed = again(&rig, &second, session).unwrap();
    assert!(resumed.greeting.resumed, "what it has open goes on");
    assert_eq!(rig.service.stats().opens, 1, "inode {ino} is open still");
    drop(resumed);
    rig.restart();
    assert_eq!(again(&rig, &first, session).map(drop).unwrap_err().kind(), Kind::Denied);
}

#[test]
fn a_session_goes_on_over_renewals_and_ends_with_the_last_token() {
    let rig = rig();
    let mut all = rig.greet(delegates(None), 1);
    let first = said(&mut all, ask("group/g", 60));
    let second = said(&mut all, ask("group/g", 120));
    let mut mount = rig.greet(heir(&rig, &first), 3);
    mount.enter("group/g");
    mount.attr(create("f", true));
    let session = mount.greeting.session;
    rig.clock.advance(Duration::from_secs(60 + CLOCK_SKEW_SECS));
    mount.connection.heard();
    rig.service.tick();
    assert_eq!(mount.ended().kind(), Kind::Unavailable);
    let resumed = Client::greet(&rig.service, heir(&rig, &second), hello(3, Some(session))).unwrap();
    assert!(resumed.greeting.resumed);
    // The bearer of a token for another namespace does not get hold of it.
    let stranger = said(&mut all, ask("user/a", 60));
    let other = Client::greet(&rig.service, heir(&rig, &stranger), hello(3, Some(session))).unwrap();
    assert!(!other.greeting.resumed && other.greeting.session != session);
}

#[test]
fn a_delegated_token_never_outlives_its_parent() {
    let rig = rig();
    let now = rig.clock.now();
    let ends =
        |secs: i64| Identity { expires: Some(Timestamp { secs: now.secs + secs, ..now }), ..delegates(None) };
    let skew = i64::try_from(CLOCK_SKEW_SECS).unwrap();
    let mut soon = rig.greet(ends(100 + skew), 1);
    let token = said(&mut soon, ask("group/g", 3600));
    assert_eq!(i64::try_from(token.expires).unwrap(), now.secs + 100);
    let mut over = rig.greet(ends(skew), 2);
    assert_eq!(over.error(ask("group/g", 60)), Kind::Denied);
}

#[test]
fn a_service_without_a_key_delegates_nothing() {
    let rig = Rig::new();
    let mut all = rig.greet(delegates(None), 1);
    assert_eq!(all.error(ask("group/g", 60)), Kind::Unsupported);
}

/// What a verifier makes of a token that this service made.
#[test]
fn what_it_makes_is_accepted() {
    let rig = rig();
    let mut all = rig.greet(delegates(None), 1);
    let Ok(Answer::Token(token)) = all.ask(ask("group/g", 60)) else { panic!() };
    let key = SigningKey::from_seed(&[5; 32]).unwrap();
    let clock = Arc::new(TestClock::default());
    let verifier = Verifier::of_delegated(VOLUME, key.public().as_bytes(), clock).unwrap();
    let token = verifier.check(&token.0).unwrap();
    assert_eq!((token.user.as_str(), token.parent.as_deref()), ("csi", Some("token-of-csi")));
}
