use std::time::Duration;

use granary_core::{Clock, Ino, Kind, NamespaceId, Timestamp};

use super::rig::*;
use crate::call::*;
use crate::lease::{Lock, LockKind, LockOwner, LockRequest, Scope};
use crate::service::{Identity, Rights};
use crate::types::{Attr, RenameMode};

fn back(rig: &Rig, client: &Client, held: Vec<Held>) -> Client {
    let node = if client.greeting.session.0.is_multiple_of(2) { 2 } else { 1 };
    let mut greeting = hello(node, Some(client.greeting.session));
    greeting.held = held;
    let who = identity("a", &["g"], Rights::ReadWrite);
    let mut back = Client::greet(&rig.service, who, greeting).unwrap();
    (back.ns, back.next_id, back.acked_below) = (client.ns, client.next_id, client.acked_below);
    back
}

/// Two sessions on nodes whose numbers their ids tell.
fn two(rig: &Rig) -> [Client; 2] {
    let first = rig.client(1);
    if first.greeting.session.0.is_multiple_of(2) {
        first.connection.leave();
        return two(rig);
    }
    [first, rig.client(2)]
}

fn held(ns: NamespaceId) -> Held {
    Held { ns, opens: vec![], writes: vec![], locks: vec![] }
}

#[test]
fn a_service_that_stops_greets_nobody() {
    let rig = Rig::new();
    let a = rig.client(1);
    rig.service.stop().unwrap();
    let e = a.ended();
    assert_eq!((e.kind(), e.to_string().contains("stops")), (Kind::Unavailable, true), "{e}");
    // Its session waits for the next service: this one must not take calls that it cannot do.
    let who = identity("a", &["g"], Rights::ReadWrite);
    for session in [None, Some(a.greeting.session)] {
        let e = rig.service.greet(who.clone(), hello(1, session)).unwrap_err();
        assert_eq!(e.kind(), Kind::Unavailable, "{e}");
    }
}

#[test]
fn every_call_that_changes_is_done_once_also_across_a_restart() {
    for kill in [false, true] {
        let mut rig = Rig::new();
        let mut a = rig.client(1);
        let dir = a.attr(mkdir("d")).ino;
        let f = a.attr(create("f", true)).ino;
        a.acked_below = a.next_id;
        let name = |s: &str| s.as_bytes().into();
        let calls = vec![
            create("x", false),
            Call::SetXattr {
                ino: f,
                name: name("user.k"),
                value: name("v"),
                create_only: true,
                replace_only: false,
            },
            Call::RemoveXattr { ino: f, name: name("user.k") },
            Call::Link { ino: f, dir, name: name("l") },
            Call::Rename {
                dir: ROOT,
                name: name("x"),
                to_dir: dir,
                to_name: name("y"),
                mode: RenameMode::NoReplace,
            },
            chmod(f, 0o600),
            commit(f, 77),
            Call::Unlink { dir, name: name("l") },
            Call::Unlink { dir, name: name("y") },
            Call::Rmdir { dir: ROOT, name: name("d") },
        ];
        let mut first = Vec::new();
        for call in &calls {
            let id = a.submit(call.clone());
            let response = a.response(id);
            first.push((id, response.result.unwrap()));
        }
        if kill {
            rig.restart();
        }
        let mut ours = held(a.ns);
        ours.opens.push(f);
        let node_session = a.greeting.session;
        let mut greeting = hello(1, Some(node_session));
        greeting.held = vec![ours];
        let again = Client::greet(&rig.service, identity("a", &["g"], Rights::ReadWrite), greeting).unwrap();
        assert!(again.greeting.resumed);
        let (again, before) = (Client { ns: a.ns, acked_below: a.acked_below, ..again }, state(&rig, a.ns));
        for (call, (id, answer)) in calls.iter().zip(&first) {
            again.again(*id, call.clone());
            let response = again.response(*id);
            assert_eq!(&response.result.unwrap(), answer, "{call:?}");
            assert_eq!(response.grants, [], "what is told again may not be kept for it");
        }
        assert_eq!(state(&rig, a.ns), before, "something was done twice");
        // Confirmed: forgotten, so it would be done again.
        let mut again = again;
        again.acked_below = a.next_id;
        again.next_id = a.next_id;
        again.ask(Call::GetAttr { ino: f }).unwrap();
        again.again(first[5].0, chmod(f, 0o644));
        let Ok(Answer::Attr(attr)) = again.response(first[5].0).result else { panic!() };
        assert_eq!(attr.mode, 0o644);
    }
}

fn state(rig: &Rig, ns: NamespaceId) -> (crate::types::Usage, Vec<crate::types::DirEntry>) {
    use crate::Metadata;
    let space = rig.service.volume().namespace_by_id(ns).unwrap();
    assert_eq!(space.check().unwrap(), []);
    (space.usage(), futures::executor::block_on(space.readdir(ROOT, 0, 100, true)).unwrap())
}

#[test]
fn namespaces_are_made_and_removed_once() {
    let mut rig = Rig::new();
    let mut admin = rig.greet(identity("root", &[], Rights::Admin), 9);
    let made = Call::CreateNamespace { new: new_namespace("dataset/d") };
    let id = admin.submit(made.clone());
    let Ok(Answer::Namespace(info)) = admin.response(id).result else { panic!() };
    rig.restart();
    let who = identity("root", &[], Rights::Admin);
    let mut admin = Client {
        next_id: 5,
        ..Client::greet(&rig.service, who, hello(9, Some(admin.greeting.session))).unwrap()
    };
    admin.again(id, made.clone());
    assert_eq!(admin.response(id).result.unwrap(), Answer::Namespace(info));
    assert_eq!(admin.error(made), Kind::Exists);
    let removed = Call::RemoveNamespace { name: "dataset/d".parse().unwrap(), force: false };
    let id = admin.submit(removed.clone());
    assert_eq!(admin.response(id).result.unwrap(), Answer::Done);
    admin.again(id, removed.clone());
    assert_eq!(admin.response(id).result.unwrap(), Answer::Done);
    assert_eq!(admin.error(removed), Kind::NotFound);
}

#[test]
fn after_a_restart_who_was_there_comes_first() {
    let mut rig = Rig::new();
    let [mut a, mut b] = two(&rig);
    let f = a.attr(create("f", true)).ino;
    let id = b.submit(create("g", true));
    a.release();
    a.release();
    let Ok(Answer::Attr(Attr { ino: g, .. })) = b.response(id).result else { panic!() };
    let lock = Lock { flock: false, kind: LockKind::Exclusive, start: 0, end: 9, pid: 7 };
    let request = LockRequest { owner: LockOwner(1), lock, unlock: false, wait: false };
    a.ask(Call::Lock { ino: f, request }).unwrap();
    let gone = a.submit(unlink("f"));
    let mut answered = false;
    while let Some(out) = b.poll().or_else(|| a.poll()) {
        match out {
            crate::service::Outgoing::Recall(recall) => {
                b.connection.released(Released { id: recall.id, open: false });
            }
            crate::service::Outgoing::Response(r) => answered |= r.id == gone && r.result.is_ok(),
            other => panic!("{other:?}"),
        }
    }
    assert!(answered);

    rig.restart();
    // A newcomer waits, and so does who is back, until all are.
    let mut c = rig.greet(identity("b", &["g"], Rights::ReadWrite), 3);
    let entered = c.submit(Call::Namespace { name: "group/g".parse().unwrap() });
    let mut ours = held(a.ns);
    (ours.opens, ours.writes, ours.locks) = (vec![f], vec![f], vec![(f, LockOwner(1), lock)]);
    let mut a = back(&rig, &a, vec![ours]);
    assert!(a.greeting.resumed && a.greeting.incarnation == 2);
    assert!(c.is_quiet() && rig.service.stats().in_grace);
    let mut b = back(&rig, &b, vec![held(b.ns)]);
    assert!(b.greeting.resumed);
    // What they keep from before they have dropped when they call.
    let name = || Call::Namespace { name: "group/g".parse().unwrap() };
    let first = a.submit(name());
    assert!(a.is_quiet() && c.is_quiet() && rig.service.stats().in_grace);
    let second = b.submit(name());
    assert!(a.response(first).result.is_ok() && b.response(second).result.is_ok());
    let Ok(Answer::Namespace(info)) = c.response(entered).result else { panic!() };
    c.ns = info.id;
    // A has what it had: the file without a name, its write lease, its lock.
    let id = c.submit(Call::GetAttr { ino: f });
    assert!(c.is_quiet());
    a.release();
    let Ok(Answer::Attr(attr)) = c.response(id).result else { panic!() };
    assert_eq!((attr.ino, attr.nlink), (f, 0));
    assert_eq!(b.error(Call::Lock { ino: f, request }), Kind::WouldBlock);
    // B did not say that it has g open still.
    b.ask(unlink("g")).unwrap();
    assert_eq!(b.error(Call::GetAttr { ino: g }), Kind::Stale);
}

#[test]
fn who_does_not_come_back_is_forgotten_when_the_grace_time_is_over() {
    let mut rig = Rig::new();
    let mut a = rig.client(1);
    let f = a.attr(create("f", true)).ino;
    a.ask(unlink("f")).unwrap();
    rig.restart();
    let mut b = rig.greet(identity("b", &["g"], Rights::ReadWrite), 2);
    let id = b.submit(Call::Namespace { name: "group/g".parse().unwrap() });
    rig.pass(Duration::from_secs(9));
    assert!(b.is_quiet());
    b.connection.heard();
    rig.pass(Duration::from_secs(2));
    let Ok(Answer::Namespace(info)) = b.response(id).result else { panic!() };
    b.ns = info.id;
    assert_eq!(b.error(Call::GetAttr { ino: f }), Kind::Stale);
    assert_eq!(b.error(Call::Open { ino: Ino(f.0) }), Kind::Stale);
    let late = Client::greet(
        &rig.service,
        identity("a", &["g"], Rights::ReadWrite),
        hello(1, Some(a.greeting.session)),
    );
    assert!(!late.unwrap().greeting.resumed);
    let space = rig.service.volume().namespace_by_id(b.ns).unwrap();
    let mut replies = 0;
    space.replies(&mut |_, _, _| replies += 1).unwrap();
    assert_eq!(replies, 0, "answers of a session that is gone are kept");
    assert_eq!(space.check().unwrap(), []);
}

/// It has nothing that others could wait for.
#[test]
fn a_session_that_reached_nothing_is_not_waited_for() {
    let mut rig = Rig::new();
    let admin = || identity("root", &[], Rights::Admin);
    let mut idle = rig.greet(identity("a", &["g"], Rights::ReadWrite), 1);
    assert!(matches!(idle.ask(Call::Namespaces), Ok(Answer::Namespaces(all)) if !all.is_empty()));
    assert_eq!(idle.error(Call::Namespace { name: "user/none".parse().unwrap() }), Kind::NotFound);
    rig.restart();
    assert!(!rig.service.stats().in_grace);
    assert!(!back(&rig, &idle, vec![]).greeting.resumed);
    // One that made a namespace comes back, and is told again what came of it.
    let mut maker = rig.greet(admin(), 1);
    let new = Call::CreateNamespace { new: new_namespace("group/made") };
    let Ok(Answer::Namespace(made)) = maker.ask(new.clone()) else { panic!("not made") };
    let id = maker.next_id - 1;
    rig.restart();
    assert!(rig.service.stats().in_grace);
    let again = Client::greet(&rig.service, admin(), hello(1, Some(maker.greeting.session))).unwrap();
    assert!(again.greeting.resumed && !rig.service.stats().in_grace);
    again.again(id, new);
    let Ok(Answer::Namespace(told)) = again.response(id).result else { panic!("made twice") };
    assert_eq!(told.id, made.id);
    // No record is left of one that is over.
    again.connection.leave();
    rig.restart();
    assert!(!rig.service.stats().in_grace);
}

#[test]
fn a_session_cannot_be_taken_over_by_somebody_else() {
    let mut rig = Rig::new();
    let a = rig.client(1);
    let asked = |rig: &Rig, user: &str, node: u64| {
        let who = identity(user, &["g"], Rights::ReadWrite);
        Client::greet(&rig.service, who, hello(node, Some(a.greeting.session))).unwrap().greeting.resumed
    };
    assert!(!asked(&rig, "b", 1) && !asked(&rig, "a", 2));
    rig.restart();
    assert!(!asked(&rig, "b", 1) && !asked(&rig, "a", 2));
    assert!(asked(&rig, "a", 1));
}

/// What a session holds is not lost with a token that is renewed in time, and a token that has ended serves nobody.
#[test]
fn a_connection_ends_with_its_token_and_the_session_goes_on_with_a_newer_one() {
    let rig = Rig::new();
    let until = |secs| {
        let now = rig.clock.now();
        let expires = Some(Timestamp { secs: now.secs + secs, ..now });
        Identity { expires, ..identity("a", &["g"], Rights::ReadWrite) }
    };
    let mut a = rig.greet(until(5), 1);
    a.enter("group/g");
    let ino = a.attr(create("f", true)).ino;
    rig.pass(Duration::from_secs(4));
    a.connection.heard();
    assert!(a.is_quiet());
    rig.pass(Duration::from_secs(1));
    let why = a.ended();
    assert!(why.kind() == Kind::Unavailable && why.to_string().contains("newer"), "{why}");
    let mut again = Client::greet(&rig.service, until(60), hello(1, Some(a.greeting.session))).unwrap();
    assert!(again.greeting.resumed);
    (again.ns, again.next_id) = (a.ns, a.next_id);
    let id = rig.client(2).submit(Call::Open { ino });
    assert_eq!(
        again.recall().scope,
        Scope::Inode(ino),
        "it still holds the write lease; call {id} waits for it"
    );
}
