use std::time::Duration;

use granary_core::Kind;

use super::rig::*;
use crate::api::Metadata;
use crate::call::*;
use crate::lease::{LeaseKind, Lock, LockKind, LockOwner, LockRequest, Scope};
use crate::service::{Rights, ServiceOptions};
use crate::types::RenameMode;

#[test]
fn a_reader_does_not_wait_for_readers() {
    let rig = Rig::new();
    let (mut a, mut b, mut c) = (rig.client(1), rig.client(2), rig.client(3));
    let ino = a.attr(create("f", false)).ino;
    assert!(b.call(Call::GetAttr { ino }).grants.contains(&reads(Scope::Inode(ino))));
    let id = c.submit(chmod(ino, 0o600));
    let (ra, rb) = (a.recall(), b.recall());
    assert!(c.is_quiet());
    // While C waits for them, A and B are answered at once, but given nothing.
    let seen = b.call(Call::GetAttr { ino });
    assert!(seen.result.is_ok() && seen.grants.is_empty());
    a.connection.released(Released { id: ra.id, open: false });
    assert!(c.is_quiet());
    // An answer to what somebody else was asked does not count.
    a.connection.released(Released { id: rb.id, open: false });
    assert!(c.is_quiet());
    b.connection.released(Released { id: rb.id, open: false });
    let changed = c.response(id);
    assert!(changed.result.is_ok() && changed.grants == [reads(Scope::Inode(ino))]);
    // Again: ignored.
    b.connection.released(Released { id: rb.id, open: false });
    assert!(c.is_quiet());
}

#[test]
fn two_who_change_one_directory_take_turns() {
    let rig = Rig::new();
    let (mut a, mut b) = (rig.client(1), rig.client(2));
    a.call(create("x", false)).result.unwrap();
    let to_b = b.submit(create("y", false));
    // A asks too, before it answers: it holds both leases itself, so it is done; but it is granted nothing more.
    let made = a.submit(create("z", false));
    let recalls = [a.recall(), a.recall()];
    let response = a.response(made);
    assert!(response.result.is_ok());
    let of_dir = [Scope::Directory(ROOT), Scope::Inode(ROOT)];
    assert!(response.grants.iter().all(|(scope, _)| !of_dir.contains(scope)), "{:?}", response.grants);
    for recall in recalls {
        a.connection.released(Released { id: recall.id, open: false });
    }
    assert!(b.response(to_b).result.is_ok());
}

#[test]
fn an_error_needs_no_recall() {
    let rig = Rig::new();
    let (mut a, mut b) = (rig.client(1), rig.client(2));
    a.call(create("x", false)).result.unwrap();
    assert_eq!(b.error(create("x", false)), Kind::Exists);
    assert_eq!(b.error(unlink("y")), Kind::NotFound);
    assert!(a.is_quiet());
}

#[test]
fn an_unlinked_file_lives_while_any_session_has_it_open() {
    let rig = Rig::new();
    let (mut a, mut b) = (rig.client(1), rig.client(2));
    let ino = a.attr(create("f", true)).ino;
    let opened = b.submit(Call::Open { ino });
    let recall = a.recall();
    a.connection.released(Released { id: recall.id, open: true });
    b.response(opened).result.unwrap();
    let id = a.submit(unlink("f"));
    let recall = b.recall();
    b.connection.released(Released { id: recall.id, open: true });
    let Ok(Answer::Attr(attr)) = a.response(id).result else { panic!() };
    assert_eq!(attr.nlink, 0);
    a.ask(Call::Close { inos: vec![ino] }).unwrap();
    assert_eq!(b.attr(Call::GetAttr { ino }).ino, ino);
    b.ask(Call::Close { inos: vec![ino] }).unwrap();
    assert_eq!(b.error(Call::GetAttr { ino }), Kind::Stale);
    assert_eq!(b.error(Call::Open { ino }), Kind::Stale);
    let space = rig.service.volume().namespace_by_id(a.ns).unwrap();
    assert_eq!(space.check().unwrap(), []);
}

#[test]
fn a_session_that_stops_answering_is_fenced_and_the_others_go_on() {
    let rig = Rig::new();
    let (mut a, mut b) = (rig.client(1), rig.client(2));
    let attr = a.attr(create("f", true));
    let lock = Lock { flock: false, kind: LockKind::Exclusive, start: 0, end: 9, pid: 7 };
    let request = LockRequest { owner: LockOwner(1), lock, unlock: false, wait: true };
    a.ask(Call::Lock { ino: attr.ino, request }).unwrap();
    let waits = b.submit(Call::Lock { ino: attr.ino, request });
    let change = b.submit(chmod(attr.ino, 0o600));
    assert!(b.is_quiet());
    rig.pass(Duration::from_secs(9));
    b.connection.heard();
    assert!(b.is_quiet());
    rig.pass(Duration::from_secs(2));
    let answers = [b.response(waits), b.response(change)];
    assert!(answers.iter().all(|answer| answer.result.is_ok()), "{answers:?}");
    let why = a.ended();
    assert_eq!(why.kind(), Kind::Fenced);
    assert!(why.to_string().contains("node-1") && why.to_string().contains("open the files again"), "{why}");
    // What it says later counts for nothing.
    a.submit(commit(attr.ino, 999));
    assert_eq!(a.ended().kind(), Kind::Fenced);
    assert_eq!(b.attr(Call::GetAttr { ino: attr.ino }).size, 0);
    let again = Client::greet(
        &rig.service,
        identity("a", &["g"], Rights::ReadWrite),
        hello(1, Some(a.greeting.session)),
    );
    let mut again = again.unwrap();
    assert!(!again.greeting.resumed);
    again.enter("group/g");
    again.call(create("g", false));
}

/// It is ended when somebody needs what it has: until then it may come back to all of it.
#[test]
fn a_silent_session_keeps_what_nobody_needs() {
    let rig = Rig::new();
    let (mut a, mut b) = (rig.client(1), rig.client(2));
    let ino = a.attr(create("f", true)).ino;
    let lock = Lock { flock: false, kind: LockKind::Exclusive, start: 0, end: 9, pid: 7 };
    let request = LockRequest { owner: LockOwner(1), lock, unlock: false, wait: false };
    let elsewhere = Lock { start: 20, end: 29, ..lock };
    a.ask(Call::Lock { ino, request }).unwrap();
    rig.pass(Duration::from_secs(60));
    b.connection.heard();
    b.attr(Call::GetAttr { ino: ROOT });
    b.ask(Call::Lock { ino, request: LockRequest { lock: elsewhere, ..request } }).unwrap();
    let who = identity("a", &["g"], Rights::ReadWrite);
    let back = Client::greet(&rig.service, who.clone(), hello(1, Some(a.greeting.session))).unwrap();
    assert!(back.greeting.resumed);
    assert_eq!(b.error(Call::Lock { ino, request }), Kind::WouldBlock);
    // When it is silent again, it is not in the way even of who only asks.
    rig.pass(Duration::from_secs(11));
    b.connection.heard();
    let owner = LockOwner(1);
    assert_eq!(b.ask(Call::TestLock { ino, owner, lock }).unwrap(), Answer::Lock(None));
    assert_eq!(back.ended().kind(), Kind::Fenced);
    assert_eq!(b.ask(Call::Lock { ino, request }).unwrap(), Answer::Done);
    // Nobody needs anything, but it is gone for very long.
    rig.pass(options().silence_max);
    assert_eq!(b.ended().kind(), Kind::Fenced);
    assert_eq!(rig.service.stats().sessions, 0);
}

/// Nobody looks at the time by itself: who waits finds out.
#[test]
fn a_silent_holder_is_found_by_who_needs_its_lease() {
    let rig = Rig::new();
    let (mut a, mut b) = (rig.client(1), rig.client(2));
    let ino = a.attr(create("f", true)).ino;
    rig.clock.advance(Duration::from_secs(11));
    let id = b.submit(chmod(ino, 0o600));
    assert!(b.response(id).result.is_ok());
    assert_eq!(a.ended().kind(), Kind::Fenced);
}

#[test]
fn a_session_that_lives_but_keeps_a_lease_is_ended() {
    let rig = Rig::new();
    let (mut a, mut b) = (rig.client(1), rig.client(2));
    let ino = a.attr(create("f", true)).ino;
    let id = b.submit(chmod(ino, 0o600));
    for _ in 0..7 {
        rig.pass(Duration::from_secs(5));
        a.connection.heard();
        b.connection.heard();
    }
    assert!(b.response(id).result.is_ok());
    let recall = a.poll();
    assert!(
        matches!(&recall, Some(crate::service::Outgoing::Ended(e)) if e.kind() == Kind::Fenced),
        "{recall:?}"
    );
}

#[test]
fn a_new_connection_takes_over_and_recalls_come_again() {
    let rig = Rig::new();
    let (mut a, mut b) = (rig.client(1), rig.client(2));
    let ino = a.attr(create("f", true)).ino;
    let id = b.submit(chmod(ino, 0o600));
    let lost = a.recall();
    let who = identity("a", &["g"], Rights::ReadWrite);
    let again = Client::greet(&rig.service, who, hello(1, Some(a.greeting.session))).unwrap();
    assert!(again.greeting.resumed && again.greeting.session == a.greeting.session);
    assert_eq!(a.ended().kind(), Kind::Busy);
    let recall = again.recall();
    assert_eq!(recall, lost);
    // Words on the old connection do not count.
    a.connection.released(Released { id: recall.id, open: false });
    assert!(b.is_quiet());
    again.connection.released(Released { id: recall.id, open: false });
    assert!(b.response(id).result.is_ok());
}

#[test]
fn a_cancelled_wait_for_a_lock_is_interrupted() {
    let rig = Rig::new();
    let (mut a, mut b) = (rig.client(1), rig.client(2));
    let ino = a.attr(create("f", false)).ino;
    let lock = Lock { flock: true, kind: LockKind::Exclusive, start: 0, end: 0, pid: 7 };
    let mut request = LockRequest { owner: LockOwner(1), lock, unlock: false, wait: true };
    a.ask(Call::Lock { ino, request }).unwrap();
    let id = b.submit(Call::Lock { ino, request });
    assert!(b.is_quiet());
    b.connection.cancel(id + 1);
    assert!(b.is_quiet());
    b.connection.cancel(id);
    assert_eq!(b.response(id).result.unwrap_err().kind(), Kind::Interrupted);
    request.wait = false;
    assert_eq!(b.error(Call::Lock { ino, request }), Kind::WouldBlock);
    let Ok(Answer::Lock(Some(found))) = b.ask(Call::TestLock { ino, owner: LockOwner(1), lock }) else {
        panic!()
    };
    assert_eq!(found.pid, 7);
    a.connection.leave();
    assert_eq!(b.ask(Call::Lock { ino, request }).unwrap(), Answer::Done);
}

/// Both wait, each gets it once, nobody is answered without it: otherwise they would ask again for ever.
#[test]
fn nodes_that_all_want_to_write_one_file_get_its_lease_in_turn() {
    let rig = Rig::new();
    let mut nodes = [rig.client(1), rig.client(2), rig.client(3)];
    let ino = nodes[0].attr(create("f", true)).ino;
    let writes = (Scope::Inode(ino), LeaseKind::Write);
    let asked = [nodes[1].submit(Call::Lease { ino }), nodes[2].submit(Call::Lease { ino })];
    let first = nodes[0].recall();
    // The holder wants it again before it has given it up: behind those who waited.
    let again = nodes[0].submit(Call::Lease { ino });
    assert!(nodes[0].is_quiet() && nodes[1].is_quiet());
    nodes[0].connection.released(Released { id: first.id, open: true });
    for (who, id) in [(1, asked[0]), (2, asked[1])] {
        let given = nodes[who].response(id);
        assert!(given.result.is_ok() && given.grants.contains(&writes), "{who}: {given:?}");
        // It is asked back at once, for the next.
        let recall = nodes[who].recall();
        assert_eq!((recall.scope, recall.wanted), writes);
        nodes[who].connection.released(Released { id: recall.id, open: false });
    }
    assert!(nodes[0].response(again).grants.contains(&writes));
    assert!(nodes.iter_mut().all(|node| node.is_quiet()), "nobody else waits");
}

#[test]
fn a_write_lease_that_is_asked_for_is_given_above_the_limit() {
    let rig = Rig::with(ServiceOptions { leases_max: 1, ..options() });
    let mut a = rig.client(1);
    let ino = a.attr(create("f", false)).ino;
    let given = a.call(Call::Lease { ino });
    assert!(given.grants.contains(&(Scope::Inode(ino), LeaseKind::Write)), "{given:?}");
    assert!(a.call(Call::ReadLink { ino: ROOT }).grants.is_empty());
}

#[test]
fn a_file_that_lost_its_name_can_be_opened_for_a_moment_where_there_are_others() {
    let linger = Duration::from_millis(200);
    let rig = Rig::with(ServiceOptions { linger, ..options() });
    let mut a = rig.client(1);
    let alone = a.attr(create("alone", false)).ino;
    a.ask(unlink("alone")).unwrap();
    assert_eq!(a.error(Call::GetAttr { ino: alone }), Kind::Stale, "nobody else could be about to open it");
    let mut b = rig.client(2);
    for replaced in [false, true] {
        let ino = a.attr(create("f", false)).ino;
        let gone = match replaced {
            false => unlink("f"),
            true => {
                a.attr(create("new", false));
                let [name, to_name] = ["new", "f"].map(|name| name.as_bytes().into());
                Call::Rename { dir: ROOT, name, to_dir: ROOT, to_name, mode: RenameMode::Replace }
            }
        };
        assert_eq!(b.attr(lookup("f")).ino, ino);
        let id = a.submit(gone);
        b.give_all_up();
        a.response(id).result.unwrap();
        b.ask(Call::Open { ino }).unwrap();
        rig.pass(linger);
        b.give_all_up();
        assert_eq!(b.attr(Call::GetAttr { ino }).nlink, 0, "it is open");
        b.ask(Call::Close { inos: vec![ino] }).unwrap();
        a.give_all_up();
        assert_eq!(b.error(Call::GetAttr { ino }), Kind::Stale);
        assert_eq!(b.error(Call::Open { ino }), Kind::Stale);
    }
    // Nobody opens it: it goes by itself.
    let ino = b.attr(lookup("f")).ino;
    let id = a.submit(unlink("f"));
    b.give_all_up();
    a.response(id).result.unwrap();
    assert_eq!(b.attr(Call::GetAttr { ino }).nlink, 0);
    rig.pass(linger);
    a.give_all_up();
    b.give_all_up();
    assert_eq!(b.error(Call::GetAttr { ino }), Kind::Stale);
    let space = rig.service.volume().namespace_by_id(a.ns).unwrap();
    assert_eq!(space.check().unwrap(), []);
    assert_eq!(space.usage().inodes, 1, "nothing but the root is left");
}
