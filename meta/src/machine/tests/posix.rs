//! Files without a name, shared ranges, access control lists, privileges.

use super::*;
use crate::acl::{ACCESS, Acl, DEFAULT, Entry, Who};

const CAPABILITY: &[u8] = b"security.capability";

fn new(kind: FileType, mode: u32, umask: u32) -> NewInode {
    NewInode { kind, mode, umask, uid: 1, gid: 2, rdev: 0, target: vec![] }
}

fn make(w: &mut World, dir: Ino, name: &str, new: NewInode) -> Attr {
    w.attr(Operation::Create { dir, name: name.as_bytes().into(), new })
}

fn set(ino: Ino, name: &[u8], value: &[u8]) -> Operation {
    let (name, value) = (name.into(), value.into());
    Operation::SetXattr { ino, name, value, create_only: false, replace_only: false }
}

fn xattr(w: &World, ino: Ino, name: &[u8]) -> Option<Vec<u8>> {
    read::getxattr(&mut w.view(), ino, name).ok()
}

fn acl(w: &World, ino: Ino, name: &[u8]) -> Option<Vec<(Who, u8)>> {
    let acl = Acl::parse(&xattr(w, ino, name)?).unwrap().unwrap();
    Some(acl.entries().iter().map(|e| (e.who, e.perm)).collect())
}

fn list(entries: &[(Who, u8)]) -> Vec<u8> {
    Acl::new(entries.iter().map(|&(who, perm)| Entry { who, perm }).collect()).unwrap().encode()
}

fn named() -> Vec<u8> {
    list(&[(Who::Owner, 6), (Who::User(1000), 6), (Who::OwningGroup, 4), (Who::Mask, 7), (Who::Others, 0)])
}

#[test]
fn a_file_without_a_name_may_get_one_but_not_twice_the_first() {
    let mut w = World::with_limits(0, 2);
    let dir_before = w.get(Ino::ROOT);
    let a = w.attr(Operation::Tmpfile { dir: Ino::ROOT, new: new(FileType::File, 0o666, 0o022) });
    assert_eq!((a.nlink, a.mode, a.kind), (0, 0o644, FileType::File));
    assert_eq!(w.get(Ino::ROOT), dir_before, "the directory has no entry more");
    assert_eq!(read::orphans(&mut w.view(), Ino(0), 9).unwrap(), [a.ino]);
    assert_eq!(check::check(&mut w.view()).unwrap(), []);
    assert_eq!(
        w.kind(Operation::Tmpfile { dir: Ino::ROOT, new: new(FileType::File, 0o600, 0) }),
        Kind::QuotaExceeded
    );
    assert_eq!(w.attr(link(a.ino, "name")).nlink, 1);
    assert_eq!(read::orphans(&mut w.view(), Ino(0), 9).unwrap(), []);
    assert_eq!(w.attr(unlink(Ino::ROOT, "name")).nlink, 0);
    assert_eq!(w.kind(link(a.ino, "again")), Kind::NotFound, "it was removed");
    w.run(Operation::Free { ino: a.ino, extents_max: 10 }).unwrap();
    assert_eq!(check::check(&mut w.view()).unwrap(), []);
    let new = new(FileType::Directory, 0o700, 0);
    assert_eq!(w.kind(Operation::Tmpfile { dir: Ino::ROOT, new }), Kind::Invalid);
}

fn copy(from: Ino, from_offset: u64, to: Ino, to_offset: u64, len: u64) -> Operation {
    Operation::CopyRange(CopyRange { from, from_offset, to, to_offset, len, staged_seq: 0 })
}

fn copied(w: &mut World, operation: Operation) -> Copied {
    match w.run(operation).unwrap() {
        Reply::Copied(copied) => copied,
        other => panic!("{other:?}"),
    }
}

/// A file with bytes 0..40 and 60..100 in object 1, and a hole between.
fn stored(w: &mut World, name: &str, id: u128) -> Ino {
    let f = w.file(name);
    let parts = [log(0, 40, 0), log(60, 40, 100)];
    w.run(commit(f, 120, parts.to_vec())).unwrap();
    let moves =
        vec![Move { ino: f, from: parts[0], to_offset: 0 }, Move { ino: f, from: parts[1], to_offset: 40 }];
    w.run(Operation::Relocate { object: object(id, 80), moves }).unwrap();
    f
}

#[test]
fn what_is_in_objects_is_shared_and_counted_for_each() {
    let mut w = World::new();
    let (f, g) = (stored(&mut w, "f", 1), w.file("g"));
    w.run(commit(g, 30, vec![log(0, 30, 500)])).unwrap();
    let before = w.get(g);
    let done = copied(&mut w, copy(f, 10, g, 20, 1000));
    assert_eq!((done.len, done.attr.size, done.attr.stored), (110, 130, 20 + 30 + 40));
    assert_eq!((done.attr.version, done.attr.mtime, done.attr.ctime), (before.version + 1, w.now, w.now));
    let places: Vec<(u64, u64)> = w.extents(g).iter().map(|e| (e.offset, e.len)).collect();
    assert_eq!(places, [(0, 20), (20, 30), (70, 40)]);
    assert_eq!(w.view().find_object(ObjectId(1)).unwrap().unwrap().live, 80 + 70);
    assert_eq!(w.view().counters().unwrap().bytes, 80 + 90);
    assert_eq!(check::check(&mut w.view()).unwrap(), []);
    // The object outlives its first file.
    w.run(unlink(Ino::ROOT, "f")).unwrap();
    w.run(Operation::Free { ino: f, extents_max: 100 }).unwrap();
    assert_eq!(w.view().find_object(ObjectId(1)).unwrap().unwrap().live, 70);
    w.run(unlink(Ino::ROOT, "g")).unwrap();
    w.run(Operation::Free { ino: g, extents_max: 100 }).unwrap();
    assert!(w.view().find_object(ObjectId(1)).unwrap().unwrap().dead_since.is_some());
    assert_eq!(check::check(&mut w.view()).unwrap(), []);
}

#[test]
fn staged_bytes_end_what_is_shared_and_a_range_is_not_copied_onto_itself() {
    let mut w = World::new();
    let (f, g) = (stored(&mut w, "f", 1), w.file("g"));
    w.run(commit(f, 120, vec![log(20, 5, 900)])).unwrap();
    assert_eq!(copied(&mut w, copy(f, 0, g, 0, 120)).len, 20);
    let same = w.get(g);
    assert_eq!(copied(&mut w, copy(f, 22, g, 0, 3)), Copied { len: 0, attr: same.clone() });
    assert_eq!(copied(&mut w, copy(f, 120, g, 0, 3)), Copied { len: 0, attr: same });
    assert_eq!(w.kind(copy(f, 0, f, 10, 11)), Kind::Invalid);
    assert_eq!(w.kind(copy(f, 10, f, 0, 11)), Kind::Invalid);
    assert_eq!(copied(&mut w, copy(f, 0, f, 200, 20)).len, 20);
    let d = w.mkdir(Ino::ROOT, "d");
    assert_eq!(w.kind(copy(d, 0, f, 0, 1)), Kind::Invalid);
    assert_eq!(w.kind(copy(f, 0, g, granary_core::limits::FILE_BYTES_MAX, 1)), Kind::FileTooLarge);
    assert_eq!(check::check(&mut w.view()).unwrap(), []);
}

#[test]
fn sharing_counts_against_the_quota() {
    let mut w = World::with_limits(120, 0);
    let (f, g) = (stored(&mut w, "f", 1), w.file("g"));
    assert_eq!(w.kind(copy(f, 0, g, 0, 120)), Kind::QuotaExceeded);
    assert_eq!(w.get(g).size, 0, "nothing was done");
    assert_eq!(copied(&mut w, copy(f, 0, g, 0, 50)).attr.stored, 40);
    assert_eq!(copied(&mut w, copy(f, 0, g, 0, 40)).attr.stored, 40, "what is replaced is not counted twice");
}

#[test]
fn an_access_list_and_the_mode_are_one_thing() {
    let mut w = World::new();
    let f = make(&mut w, Ino::ROOT, "f", new(FileType::File, 0o4755, 0)).ino;
    w.run(set(f, ACCESS, &named())).unwrap();
    assert_eq!((w.get(f).mode, w.get(f).ctime), (0o4670, w.now));
    let chmod = |mode| Operation::SetAttr { ino: f, set: SetAttr { mode: Some(mode), ..SetAttr::default() } };
    w.run(chmod(0o641)).unwrap();
    let after =
        [(Who::Owner, 6), (Who::User(1000), 6), (Who::OwningGroup, 4), (Who::Mask, 4), (Who::Others, 1)];
    assert_eq!(acl(&w, f, ACCESS).unwrap(), after);
    // A list that says no more than a mode is not kept.
    w.run(set(f, ACCESS, &list(&[(Who::Owner, 7), (Who::OwningGroup, 5), (Who::Others, 5)]))).unwrap();
    assert_eq!((w.get(f).mode, xattr(&w, f, ACCESS)), (0o755, None));
    w.run(set(f, ACCESS, &named())).unwrap();
    w.run(set(f, ACCESS, &[2, 0, 0, 0])).unwrap();
    assert_eq!((w.get(f).mode, xattr(&w, f, ACCESS)), (0o670, None));
    w.run(Operation::RemoveXattr { ino: f, name: ACCESS.into() }).unwrap();
    assert_eq!(w.kind(set(f, ACCESS, b"no list")), Kind::Unsupported);
    assert_eq!(w.kind(set(f, DEFAULT, &named())), Kind::Access);
    let s = w.create(Ino::ROOT, "s", FileType::Symlink);
    assert_eq!(w.kind(set(s, ACCESS, &named())), Kind::Unsupported);
    assert_eq!(check::check(&mut w.view()).unwrap(), []);
}

#[test]
fn what_is_made_in_a_directory_inherits_its_default_list_and_no_umask() {
    let mut w = World::new();
    let d = make(&mut w, Ino::ROOT, "d", new(FileType::Directory, 0o777, 0o022)).ino;
    assert_eq!(w.get(d).mode, 0o755, "without a list the umask is applied");
    w.run(set(d, DEFAULT, &named())).unwrap();
    assert_eq!(w.get(d).mode, 0o755, "a default list does not change the directory's own mode");
    let f = make(&mut w, d, "f", new(FileType::File, 0o666, 0o077));
    assert_eq!(f.mode, 0o660);
    let expected =
        [(Who::Owner, 6), (Who::User(1000), 6), (Who::OwningGroup, 4), (Who::Mask, 6), (Who::Others, 0)];
    assert_eq!(acl(&w, f.ino, ACCESS).unwrap(), expected);
    assert_eq!(xattr(&w, f.ino, DEFAULT), None);
    let sub = make(&mut w, d, "sub", new(FileType::Directory, 0o2777, 0o077));
    assert_eq!(sub.mode, 0o2670);
    assert_eq!(xattr(&w, sub.ino, DEFAULT), Some(named()));
    let tmp = w.attr(Operation::Tmpfile { dir: sub.ino, new: new(FileType::File, 0o600, 0o077) });
    assert_eq!(tmp.mode, 0o600);
    assert_eq!(acl(&w, tmp.ino, ACCESS).unwrap()[3], (Who::Mask, 0));
    let target = b"x".to_vec();
    let s = make(&mut w, d, "s", NewInode { target, ..new(FileType::Symlink, 0o777, 0o077) });
    assert_eq!((s.mode, xattr(&w, s.ino, ACCESS)), (0o777, None));
    let plain = list(&[(Who::Owner, 7), (Who::OwningGroup, 5), (Who::Others, 0)]);
    w.run(set(d, DEFAULT, &plain)).unwrap();
    let g = make(&mut w, d, "g", new(FileType::File, 0o666, 0o077));
    assert_eq!((g.mode, xattr(&w, g.ino, ACCESS)), (0o640, None));
    assert_eq!(check::check(&mut w.view()).unwrap(), []);
}

#[test]
fn privileges_end_with_a_change_of_owner_or_content() {
    let mut w = World::new();
    let f = make(&mut w, Ino::ROOT, "f", new(FileType::File, 0o6775, 0)).ino;
    let change = |set| Operation::SetAttr { ino: f, set };
    let chmod = |mode| change(SetAttr { mode: Some(mode), ..SetAttr::default() });
    let kill = SetAttr { kill_priv: true, ..SetAttr::default() };
    let chgrp = SetAttr { gid: Some(9), ..SetAttr::default() };
    for how in [kill, chgrp] {
        w.run(chmod(0o6775)).unwrap();
        w.run(set(f, CAPABILITY, b"cap")).unwrap();
        assert_eq!(w.view().counters().unwrap().capabilities, 1);
        assert_eq!(w.attr(change(how)).mode, 0o775);
        assert_eq!(xattr(&w, f, CAPABILITY), None);
        assert_eq!(w.view().counters().unwrap().capabilities, 0);
        w.run(chmod(0o6765)).unwrap();
        assert_eq!(w.attr(change(how)).mode, 0o2765, "setgid without execution is no privilege");
    }
    // The kernel says the mode itself when it did the sums.
    assert_eq!(w.attr(change(SetAttr { mode: Some(0o6775), ..chgrp })).mode, 0o6775);
    let d = make(&mut w, Ino::ROOT, "d", new(FileType::Directory, 0o2775, 0)).ino;
    assert_eq!(w.attr(Operation::SetAttr { ino: d, set: chgrp }).mode, 0o2775);
    w.run(set(f, CAPABILITY, b"cap")).unwrap();
    w.run(unlink(Ino::ROOT, "f")).unwrap();
    w.run(Operation::Free { ino: f, extents_max: 1 }).unwrap();
    assert_eq!(w.view().counters().unwrap().capabilities, 0);
    assert_eq!(check::check(&mut w.view()).unwrap(), []);
}

#[test]
fn reading_moves_atime_forward_and_nothing_else() {
    let mut w = World::new();
    let f = w.file("f");
    let before = w.get(f);
    let at = |secs| Operation::SetAttr {
        ino: f,
        set: SetAttr { accessed: Some(Timestamp { secs, nanos: 0 }), ..SetAttr::default() },
    };
    let later = w.now.secs + 100;
    let after = w.attr(at(later));
    assert_eq!(after, Attr { atime: Timestamp { secs: later, nanos: 0 }, ..before });
    assert_eq!(w.attr(at(later - 50)), after, "never back");
}
