//! A process that takes the place of the one that had a session.

use granary_core::Kind;

use super::rig::*;
use crate::call::*;
use crate::lease::{LeaseKind, Lock, LockKind, LockOwner, LockRequest, Scope};
use crate::service::Rights;

fn anew(rig: &Rig, of: &Client) -> Client {
    let hello = Hello { anew: true, ..hello(1, Some(of.greeting.session)) };
    let mut next = Client::greet(&rig.service, identity("a", &["g"], Rights::ReadWrite), hello).unwrap();
    (next.ns, next.next_id) = (of.ns, next.greeting.next_call);
    next
}

fn exclusive(owner: u64) -> LockRequest {
    let lock = Lock { flock: false, kind: LockKind::Exclusive, start: 3, end: 9, pid: 7 };
    LockRequest { owner: LockOwner(owner), lock, unlock: false, wait: false }
}

#[test]
fn it_is_told_what_the_session_has_and_goes_on_with_it() {
    let rig = Rig::new();
    let (mut a, mut b) = (rig.client(1), rig.client(2));
    let f = a.attr(create("f", true)).ino;
    let before = a.attr(create("before", false)).ino;
    a.ask(Call::Lock { ino: f, request: exclusive(1) }).unwrap();
    a.acked_below = a.next_id;
    let made = a.attr(mkdir("made")).ino;
    // Somebody waits for what it has, and is asked for it once more on the new connection.
    let id = b.submit(lookup("f"));
    let recall = a.recall();
    let mut next = anew(&rig, &a);
    assert_eq!(a.ended().kind(), Kind::Busy, "the connection of the other process is over");
    let greeting = next.greeting.clone();
    assert!(greeting.resumed && greeting.next_call == a.next_id, "{greeting:?}");
    let [had] = &greeting.had[..] else { panic!("{greeting:?}") };
    assert_eq!((had.ns, &had.opens), (a.ns, &vec![f]));
    assert_eq!(had.locks, [(f, LockOwner(1), exclusive(1).lock)]);
    for lease in [writes(Scope::Inode(f)), reads(Scope::Directory(ROOT))] {
        assert!(had.leases.contains(&lease), "{had:?}");
    }
    assert!(had.changed.contains(&made) && !had.changed.contains(&before), "{had:?}");
    assert_eq!(next.recall(), recall);
    // It gives up what was asked for, and has the rest still.
    next.connection.released(Released { id: recall.id, open: true });
    assert!(b.response(id).result.is_ok());
    assert_eq!(b.error(Call::Lock { ino: f, request: exclusive(1) }), Kind::WouldBlock);
    let id = b.submit(unlink("f"));
    next.give_all_up();
    assert!(b.response(id).result.is_ok());
    assert_eq!(next.attr(Call::GetAttr { ino: f }).nlink, 0, "it is open");
    // Numbers go on: nothing of it is taken for a call of the other process.
    let id = next.submit(create("other", false));
    b.give_all_up();
    let answer = next.response(id).result.unwrap();
    assert!(matches!(answer, Answer::Attr(other) if other.ino != made));
    assert_eq!(next.error(create("other", false)), Kind::Exists);
}

#[test]
fn calls_of_the_other_process_are_done_or_never_will_be() {
    let rig = Rig::new();
    let (mut a, mut b) = (rig.client(1), rig.client(2));
    let f = b.attr(create("f", false)).ino;
    b.ask(Call::Lock { ino: f, request: exclusive(1) }).unwrap();
    // One waits for a lease, one for a lock.
    a.submit(chmod(f, 0o600));
    let recall = b.recall();
    let waits = LockRequest { wait: true, ..exclusive(1) };
    a.submit(Call::Lock { ino: f, request: waits });
    let mut next = anew(&rig, &a);
    b.connection.released(Released { id: recall.id, open: false });
    b.ask(Call::Lock { ino: f, request: LockRequest { unlock: true, ..exclusive(1) } }).unwrap();
    assert_eq!(next.attr(Call::GetAttr { ino: f }).mode & 0o777, 0o644);
    b.ask(Call::Lock { ino: f, request: exclusive(1) }).unwrap();
}

#[test]
fn after_a_restart_of_the_service_too_or_for_others_there_is_a_new_session() {
    let mut rig = Rig::new();
    let mut a = rig.client(1);
    a.attr(create("f", true));
    for (user, node) in [("b", 1), ("a", 2)] {
        let hello = Hello { anew: true, ..hello(node, Some(a.greeting.session)) };
        let other = Client::greet(&rig.service, identity(user, &["g"], Rights::ReadWrite), hello).unwrap();
        assert!(!other.greeting.resumed && other.greeting.had.is_empty(), "{:?}", other.greeting);
        other.connection.leave();
    }
    rig.restart();
    let hello = Hello { anew: true, ..hello(1, Some(a.greeting.session)) };
    Client::greet(&rig.service, identity("b", &["g"], Rights::ReadWrite), hello).unwrap();
    assert!(rig.service.stats().in_grace, "it is not theirs to give up");
    let next = anew(&rig, &a);
    assert!(!rig.service.stats().in_grace, "nobody else can come back with it");
    assert!(!next.greeting.resumed && next.greeting.session != a.greeting.session);
    assert_eq!((next.greeting.next_call, next.greeting.had.len()), (0, 0));
}

#[test]
fn who_comes_back_by_itself_is_told_nothing() {
    let rig = Rig::new();
    let mut a = rig.client(1);
    let f = a.attr(create("f", true)).ino;
    let hello = hello(1, Some(a.greeting.session));
    let again = Client::greet(&rig.service, identity("a", &["g"], Rights::ReadWrite), hello).unwrap();
    assert!(again.greeting.resumed && again.greeting.had.is_empty() && again.greeting.next_call == 0);
    assert_eq!(rig.service.stats().opens, 1);
    drop(again);
    let next = anew(&rig, &a);
    assert_eq!(next.greeting.had[0].opens, [f]);
    assert!(next.greeting.had[0].leases.iter().any(|(_, kind)| *kind == LeaseKind::Write));
}
