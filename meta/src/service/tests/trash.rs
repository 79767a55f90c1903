//! The trash of a namespace that many sessions use: who is asked for leases because of it, and who is not.

use std::time::Duration;

use granary_core::{Ino, Kind, NodeId, ObjectId, ObjectKind, Timestamp};

use super::rig::*;
use crate::call::*;
use crate::lease::Scope;
use crate::types::*;

const HOUR: &[u8] = b"1970-01-12T13";

/// A file of nine bytes that are in an object.
fn stored(client: &mut Client, dir: Ino, name: &str, n: u64) -> Ino {
    let Call::Create { new, open, .. } = create(name, false) else { unreachable!() };
    let ino = client.attr(Call::Create { dir, name: name.as_bytes().into(), new, open }).ino;
    let place = Place::Log { node: NodeId(1), segment: 1, offset: n * 100 };
    let from = Extent { offset: 0, len: 9, place, crc: 7 };
    let time = Timestamp::default();
    let (extents, holes) = (vec![from], vec![]);
    let commit = Commit { ino, size: 9, mtime: time, ctime: time, extents, holes, staged_seq: n };
    client.ask(Call::Commit(commit)).unwrap();
    let (id, kind) = (ObjectId(u128::from(n)), ObjectKind::Pack);
    let object = ObjectInfo { id, kind, payload_len: 9, total_len: 99 };
    client.ask(Call::Relocate { object, moves: vec![Move { ino, from, to_offset: 0 }] }).unwrap();
    ino
}

fn remove(dir: Ino, name: &str) -> Call {
    Call::Unlink { dir, name: name.as_bytes().into() }
}

fn find(dir: Ino, name: &[u8]) -> Call {
    Call::Lookup { dir, name: name.into() }
}

fn is_of_trash(scope: Scope) -> bool {
    let (Scope::Inode(ino) | Scope::Directory(ino)) = scope;
    ino.is_of_trash()
}

#[test]
fn nobody_has_leases_of_the_trash_so_nobody_is_asked_for_them() {
    let rig = Rig::new();
    let (mut a, mut b) = (rig.client(1), rig.client(2));
    let [of_a, of_b] = [(&mut a, "a"), (&mut b, "b")].map(|(client, name)| client.submit(mkdir(name)));
    a.response(of_a).result.unwrap();
    a.give_all_up();
    b.response(of_b).result.unwrap();
    let [dir_a, dir_b] = [a.attr(lookup("a")).ino, b.attr(lookup("b")).ino];
    for n in 0..3 {
        let names = [format!("a{n}"), format!("b{n}")];
        stored(&mut a, dir_a, &names[0], 2 * n + 1);
        stored(&mut b, dir_b, &names[1], 2 * n + 2);
        for (client, dir, name) in [(&mut a, dir_a, &names[0]), (&mut b, dir_b, &names[1])] {
            let done = client.call(remove(dir, name));
            assert!(matches!(&done.result, Ok(Answer::Attr(attr)) if attr.nlink == 1), "{:?}", done.result);
            assert!(done.touched.iter().all(|attr| !attr.ino.is_of_trash()), "{:?}", done.touched);
            assert!(!done.grants.iter().any(|(scope, _)| is_of_trash(*scope)), "{:?}", done.grants);
            // Who looks sees it, and may keep nothing but what is of the file.
            let mut at = Ino::TRASH;
            for part in [HOUR, if dir == dir_a { b"a" } else { b"b" }, name.as_bytes()] {
                at = found(client, find(at, part));
            }
        }
        assert!(a.is_quiet() && b.is_quiet());
    }
    let listed = a.call(Call::ReadDir { dir: Ino::TRASH, cookie: 0, max: 10, with_attr: true });
    assert!(matches!(&listed.result, Ok(Answer::Entries(all)) if all.len() == 1) && listed.grants.is_empty());
    let itself = a.call(lookup(".trash"));
    assert!(matches!(&itself.result, Ok(Answer::Attr(attr)) if attr.ino == Ino::TRASH));
    assert!(!itself.grants.iter().any(|(scope, _)| is_of_trash(*scope)));
}

fn found(client: &mut Client, call: Call) -> Ino {
    let response = client.call(call);
    assert!(!response.grants.iter().any(|(scope, _)| is_of_trash(*scope)), "{:?}", response.grants);
    match response.result {
        Ok(Answer::Attr(attr)) => attr.ino,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_tree_that_was_moved_out_is_leased_again() {
    let rig = Rig::new();
    let mut a = rig.client(1);
    let d = a.attr(mkdir("d")).ino;
    stored(&mut a, d, "f", 1);
    a.ask(remove(d, "f")).unwrap();
    let hour = a.attr(find(Ino::TRASH, HOUR)).ino;
    let (name, to_name) = (b"d"[..].into(), b"back"[..].into());
    a.ask(Call::Rename { dir: hour, name, to_dir: ROOT, to_name, mode: RenameMode::Replace }).unwrap();
    let found = a.call(lookup("back"));
    let Ok(Answer::Attr(back)) = found.result else { panic!() };
    assert!(back.ino.is_of_trash() && found.grants.contains(&reads(Scope::Inode(back.ino))));
    let inside = a.call(find(back.ino, b"f"));
    assert!(inside.grants.contains(&reads(Scope::Directory(back.ino))));
    // What is made there later is told, as everywhere.
    let Call::Create { new, .. } = create("x", false) else { unreachable!() };
    let made = a.call(Call::Create { dir: back.ino, name: b"x"[..].into(), new, open: false });
    assert!(made.touched.iter().any(|attr| attr.ino == back.ino));
}

#[test]
fn a_file_that_may_be_open_somewhere_is_purged_later() {
    let rig = Rig::new();
    let change = NamespaceChange { trash_ms: Some(1000), ..NamespaceChange::default() };
    rig.service.volume().set_namespace(&"group/g".parse().unwrap(), change).unwrap();
    let (mut a, mut b) = (rig.client(1), rig.client(2));
    let f = stored(&mut a, ROOT, "f", 1);
    a.ask(unlink("f")).unwrap();
    a.ask(Call::Forget { scopes: vec![Scope::Inode(f)] }).unwrap();
    let hour = b.attr(find(Ino::TRASH, HOUR)).ino;
    assert_eq!(b.attr(find(hour, b"f")).ino, f);
    rig.pass(Duration::from_millis(999));
    assert!(b.is_quiet());
    rig.pass(Duration::from_millis(1));
    let recall = b.recall();
    assert_eq!(recall.scope, Scope::Inode(f));
    rig.service.tick();
    assert!(b.is_quiet() && a.attr(Call::GetAttr { ino: f }).nlink == 1);
    a.ask(Call::Forget { scopes: vec![Scope::Inode(f)] }).unwrap();
    b.connection.released(Released { id: recall.id, open: true });
    rig.service.tick();
    assert_eq!(a.error(find(Ino::TRASH, HOUR)), Kind::NotFound);
    // Open it lives on, without a name.
    assert_eq!(b.attr(Call::GetAttr { ino: f }).nlink, 0);
    b.ask(Call::Close { inos: vec![f] }).unwrap();
    assert_eq!(b.error(Call::GetAttr { ino: f }), Kind::Stale);
    rig.service.tick();
    let usage = rig.service.volume().namespace_info(&"group/g".parse().unwrap()).unwrap().usage;
    assert_eq!((usage.bytes, usage.trash_bytes, usage.trash_inodes), (0, 0, 0));
}

#[test]
fn an_open_file_comes_with_its_last_close_and_whoever_knew_it_hears() {
    let rig = Rig::new();
    let (mut a, mut b) = (rig.client(1), rig.client(2));
    let f = stored(&mut a, ROOT, "f", 1);
    b.ask(Call::Open { ino: f }).unwrap();
    let id = a.submit(unlink("f"));
    let recall = b.recall();
    b.connection.released(Released { id: recall.id, open: true });
    assert!(matches!(a.response(id).result, Ok(Answer::Attr(Attr { nlink: 0, .. }))));
    let hour = a.attr(find(Ino::TRASH, HOUR)).ino;
    assert_eq!(a.error(find(hour, b"f")), Kind::NotFound);
    // A leases it as it is now, without a name.
    assert_eq!(a.attr(Call::GetAttr { ino: f }).nlink, 0);
    rig.pass(Duration::from_millis(200));
    b.ask(Call::Close { inos: vec![f] }).unwrap();
    assert_eq!(a.release().scope, Scope::Inode(f));
    assert_eq!(a.attr(find(hour, b"f")), a.attr(Call::GetAttr { ino: f }));
    assert_eq!(a.attr(Call::GetAttr { ino: f }).nlink, 1);
}

#[test]
fn an_open_file_comes_after_a_restart_too() {
    let mut rig = Rig::new();
    let mut a = rig.client(1);
    let f = stored(&mut a, ROOT, "f", 1);
    a.ask(Call::Open { ino: f }).unwrap();
    assert_eq!(a.attr(unlink("f")).nlink, 0);
    drop(a);
    rig.restart();
    rig.pass(Duration::from_secs(3600));
    let mut b = rig.client(2);
    let hour = b.attr(find(Ino::TRASH, HOUR)).ino;
    assert_eq!(b.attr(find(hour, b"f")).ino, f);
}
