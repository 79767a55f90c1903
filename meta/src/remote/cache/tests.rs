use granary_core::{Ino, Timestamp};

use super::*;
use crate::types::{DirEntry, FileType};

fn attr(ino: u64, size: u64) -> Attr {
    let (kind, t) = (FileType::File, Timestamp::default());
    let ino = Ino(ino);
    let (mode, uid, gid, nlink, rdev, stored, version, staged_seq) = (0, 0, 0, 1, 0, 0, 0, 0);
    let (atime, mtime, ctime, btime) = (t, t, t, t);
    Attr {
        ino,
        kind,
        mode,
        uid,
        gid,
        nlink,
        rdev,
        size,
        stored,
        atime,
        mtime,
        ctime,
        btime,
        version,
        staged_seq,
    }
}

fn cache(leases_max: usize) -> Cache {
    Cache::new(CacheLimits { leases_max, bytes_max: 1 << 20 })
}

fn entry(name: &str, ino: u64, cookie: u64) -> DirEntry {
    DirEntry { name: name.into(), ino: Ino(ino), kind: FileType::File, cookie, attr: None }
}

#[test]
fn nothing_is_kept_without_a_lease_and_goes_with_it() {
    let (mut c, scope) = (cache(10), Scope::Inode(Ino(5)));
    c.put_attr(&attr(5, 1));
    assert_eq!(c.attr(Ino(5)), None);
    c.grant(scope, LeaseKind::Read);
    c.put_attr(&attr(5, 1));
    assert_eq!(c.attr(Ino(5)), Some(&attr(5, 1)));
    let stamp = c.stamp(scope);
    c.recall(scope, LeaseKind::Write);
    assert!(!c.holds(scope, LeaseKind::Read) && c.has(scope, LeaseKind::Read));
    // Still ours: it answers, and own changes alter it.
    c.put_attr(&attr(5, 2));
    assert_eq!(c.attr(Ino(5)).unwrap().size, 2);
    assert!(c.release(scope, stamp, LeaseKind::Write));
    assert_eq!(c.attr(Ino(5)), None);
    assert_eq!((c.len(), c.bytes()), (0, 0));
    // A later lease is another.
    c.grant(scope, LeaseKind::Read);
    assert!(!c.release(scope, stamp, LeaseKind::Write) && c.has(scope, LeaseKind::Read));
    c.check();
}

#[test]
fn a_write_lease_recalled_to_read_goes_on_as_one() {
    let (mut c, scope) = (cache(10), Scope::Inode(Ino(5)));
    c.grant(scope, LeaseKind::Write);
    assert_eq!(c.writes(), [Ino(5)]);
    c.put_attr(&attr(5, 1));
    let stamp = c.stamp(scope);
    c.recall(scope, LeaseKind::Read);
    assert!(c.holds(scope, LeaseKind::Read) && !c.holds(scope, LeaseKind::Write));
    assert!(c.has(scope, LeaseKind::Write));
    c.release(scope, stamp, LeaseKind::Read);
    assert!(c.holds(scope, LeaseKind::Read) && !c.has(scope, LeaseKind::Write));
    assert!(c.attr(Ino(5)).is_some() && c.writes().is_empty());
    c.grant(scope, LeaseKind::Write);
    assert!(c.holds(scope, LeaseKind::Write));
}

#[test]
fn what_was_not_used_for_longest_is_given_back() {
    let mut c = cache(3);
    for i in 1..=5 {
        c.grant(Scope::Inode(Ino(i)), LeaseKind::Read);
    }
    c.grant(Scope::Inode(Ino(6)), LeaseKind::Write);
    // A second chance for those that were used, all by their grant; then the oldest but for what is open.
    assert!(c.victims(0, |_| false).is_empty());
    let scopes = |victims: Vec<(Scope, u64)>| victims.into_iter().map(|(s, _)| s).collect::<Vec<_>>();
    let chosen = scopes(c.victims(10, |ino| ino == Ino(1)));
    assert_eq!(chosen, [2, 3, 4].map(|i| Scope::Inode(Ino(i))));
    assert!(c.victims(10, |_| false).is_empty(), "those are on their way");
    for scope in chosen {
        let stamp = c.stamp(scope);
        c.release(scope, stamp, LeaseKind::Write);
    }
    assert_eq!(c.len(), 3);
    c.check();
}

#[test]
fn a_listing_is_known_as_far_as_it_was_told() {
    let (mut c, dir) = (cache(100), Ino(1));
    c.grant(Scope::Directory(dir), LeaseKind::Read);
    c.with_directory(dir, |d| d.put_page(0, &[entry("a", 2, 10), entry("b", 3, 11)]));
    let names = |page: Option<Vec<DirEntry>>| {
        page.map(|p| p.into_iter().map(|e| String::from_utf8(e.name).unwrap()).collect::<Vec<_>>())
    };
    assert_eq!(names(c.list(dir, 0, 9, false)), Some(vec!["a".into(), "b".into()]));
    assert_eq!(names(c.list(dir, 0, 1, false)), Some(vec!["a".into()]));
    assert_eq!(names(c.list(dir, 11, 9, false)), None, "whether more follows is unknown");
    c.with_directory(dir, |d| d.put_page(11, &[]));
    assert_eq!(names(c.list(dir, 11, 9, false)), Some(vec![]));
    assert_eq!(c.lookup(dir, b"zz"), Some(None), "all names are known");
    // One that is made comes after the end that was known.
    c.with_directory(dir, |d| d.made(b"c", Ino(4), FileType::File));
    assert_eq!(names(c.list(dir, 0, 9, false)), Some(vec!["a".into(), "b".into()]));
    assert_eq!(names(c.list(dir, 11, 9, false)), None);
    c.with_directory(dir, |d| d.put_page(11, &[entry("c", 4, 12)]));
    c.with_directory(dir, |d| d.put_absent(b"a"));
    assert_eq!(names(c.list(dir, 0, 9, false)), Some(vec!["b".into(), "c".into()]));
    // A page that does not begin where the known part ends tells names only.
    c.with_directory(dir, |d| d.put_page(50, &[entry("x", 9, 60)]));
    assert_eq!(names(c.list(dir, 12, 9, false)), None);
    c.check();
}

#[test]
fn names_are_complete_when_there_are_as_many_as_the_directory_has() {
    let (mut c, dir) = (cache(100), Ino(1));
    c.grant(Scope::Directory(dir), LeaseKind::Read);
    assert_eq!(c.lookup(dir, b"x"), None, "its size is unknown");
    c.grant(Scope::Inode(dir), LeaseKind::Read);
    c.put_attr(&attr(1, 32));
    assert_eq!(c.lookup(dir, b"x"), None);
    c.with_directory(dir, |d| d.put(b"a", Ino(2), FileType::File));
    assert_eq!(c.lookup(dir, b"x"), Some(None));
    c.put_attr(&attr(1, 64));
    assert_eq!(c.lookup(dir, b"x"), None);
    assert_eq!(c.lookup(dir, b"a"), None, "its attributes are unknown");
    c.grant(Scope::Inode(Ino(2)), LeaseKind::Read);
    c.put_attr(&attr(2, 7));
    assert_eq!(c.lookup(dir, b"a"), Some(Some(&attr(2, 7))));
    c.with_directory(dir, |d| d.forget(b"a"));
    assert_eq!(c.lookup(dir, b"a"), None);
}

#[test]
fn one_directory_does_not_push_out_all_others() {
    let (mut c, dir) = (cache(100), Ino(1));
    c.grant(Scope::Directory(dir), LeaseKind::Read);
    for i in 0..20_000u64 {
        let name = format!("{i:032}");
        c.with_directory(dir, |d| d.put(name.as_bytes(), Ino(i + 2), FileType::File));
        assert!(c.bytes() <= 1 << 20);
    }
    c.check();
}
