//! The trash, one rule at a time.

use granary_core::limits::XATTR_BYTES_MAX;

use super::*;
use crate::acl::{self, Acl, Who};
use crate::machine::trash::DEPTH_MAX;
use crate::machine::trash::expiry::{self, Hint, Victim};

const DAY_MS: u64 = 86_400_000;
const HOUR: &str = "1970-01-01T00";

/// Objects that were named, so that none is twice.
struct Trash {
    w: World,
    objects: u128,
}

impl Trash {
    fn new() -> Trash {
        Trash::with_limits(0, 0)
    }

    fn with_limits(bytes_max: u64, inodes_max: u64) -> Trash {
        Trash { w: World::with_trash(DAY_MS, bytes_max, inodes_max), objects: 0 }
    }

    /// A file of `len` bytes, all in an object.
    fn stored(&mut self, dir: Ino, name: &str, len: u64) -> Ino {
        let ino = self.w.create(dir, name, FileType::File);
        self.store(ino, len);
        ino
    }

    fn store(&mut self, ino: Ino, len: u64) {
        self.objects += 1;
        let from = log(0, len, self.objects as u64 * 1000);
        self.w.run(commit(ino, len, vec![from])).unwrap();
        let moves = vec![Move { ino, from, to_offset: 0 }];
        self.w.run(Operation::Relocate { object: object(self.objects, len), moves }).unwrap();
    }

    /// What is at a path below the trash.
    fn at(&self, path: &str) -> Option<Inode> {
        let mut at = Ino::TRASH;
        for name in path.split('/') {
            at = self.w.view().entry(at, name.as_bytes()).unwrap()?.ino;
        }
        Some((*self.w.view().inode(at).unwrap()).clone())
    }

    fn dir(&self, path: &str) -> Ino {
        self.at(path).unwrap().attr.ino
    }

    fn usage(&self) -> (u64, u64, u64, u64) {
        let u = read::usage(&mut self.w.view()).unwrap();
        (u.bytes, u.inodes, u.trash_bytes, u.trash_inodes)
    }

    fn due(&self, max: usize, hint: Hint) -> Vec<Victim> {
        expiry::due(&mut self.w.view(), self.w.now, 0, max, hint).unwrap()
    }

    fn purge(&mut self, victims: &[Victim]) -> Vec<Ino> {
        let victims = victims.iter().map(|v| (v.dir, v.name.clone())).collect();
        match self.w.run(Operation::Purge { victims }).unwrap() {
            Reply::Purged(gone) => gone,
            other => panic!("{other:?}"),
        }
    }

    fn free(&mut self, ino: Ino) {
        assert_eq!(self.w.run(Operation::Free { ino, extents_max: 100 }).unwrap(), Reply::Freed(true));
    }

    fn set(&mut self, change: NamespaceChange) {
        self.w.run(Operation::Configure { change }).unwrap();
    }
}

fn open(operation: Operation) -> Operation {
    match operation {
        Operation::Unlink { dir, name, .. } => Operation::Unlink { dir, name, open: true },
        Operation::Rename { dir, name, to_dir, to_name, mode, .. } => {
            Operation::Rename { dir, name, to_dir, to_name, mode, open: true }
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_removed_file_lies_where_it_was_with_its_inode_and_content() {
    let mut t = Trash::new();
    let d = t.w.mkdir(Ino::ROOT, "d");
    let e = t.w.mkdir(d, "e");
    t.w.run(Operation::SetAttr {
        ino: e,
        set: SetAttr { mode: Some(0o2750), uid: Some(9), ..SetAttr::default() },
    })
    .unwrap();
    let f = t.stored(e, "f", 30);
    let before = (t.w.get(f), t.w.extents(f));
    assert_eq!(t.usage(), (30, 4, 0, 0));
    let after = t.w.attr(unlink(e, "f"));
    assert_eq!(after, Attr { ctime: t.w.now, ..before.0 });
    assert_eq!((t.w.get(f), t.w.extents(f)), (after, before.1));
    assert_eq!(t.at(&format!("{HOUR}/d/e/f")).unwrap().attr.ino, f);
    for (path, original) in [(HOUR, Ino::ROOT), (&format!("{HOUR}/d"), d), (&format!("{HOUR}/d/e"), e)] {
        let (mirror, original) = (t.at(path).unwrap().attr, t.w.get(original));
        assert_eq!((mirror.mode, mirror.uid, mirror.gid), (original.mode, original.uid, original.gid));
    }
    // Three mirrors and the file; the object lives.
    assert_eq!(t.usage(), (0, 3, 30, 4));
    assert!(t.w.view().find_object(ObjectId(1)).unwrap().unwrap().dead_since.is_none());
    // A second one uses the same mirrors.
    t.stored(e, "g", 5);
    t.w.run(unlink(e, "g")).unwrap();
    assert_eq!(t.usage(), (0, 3, 35, 5));
}

#[test]
fn what_is_not_worth_it_does_not_go_there() {
    let mut t = Trash::new();
    t.w.create(Ino::ROOT, "empty", FileType::File);
    let staged = t.w.file("staged");
    t.w.run(commit(staged, 9, vec![log(0, 9, 0)])).unwrap();
    t.w.create(Ino::ROOT, "symlink", FileType::Symlink);
    t.w.create(Ino::ROOT, "fifo", FileType::Fifo);
    let linked = t.stored(Ino::ROOT, "linked", 4);
    t.w.run(link(linked, "other")).unwrap();
    for name in ["empty", "staged", "symlink", "fifo"] {
        let gone = t.w.attr(unlink(Ino::ROOT, name));
        assert_eq!(gone.nlink, 0, "{name}");
        t.free(gone.ino);
    }
    assert_eq!(t.w.attr(unlink(Ino::ROOT, "linked")).nlink, 1);
    assert_eq!(t.usage(), (4, 2, 0, 0));
    t.w.mkdir(Ino::ROOT, "d");
    let d = t.w.attr(rmdir(Ino::ROOT, "d")).ino;
    t.free(d);
    // A part in the store is enough, and the staged rest goes along.
    let part = t.stored(Ino::ROOT, "part", 10);
    t.w.run(commit(part, 15, vec![log(10, 5, 90)])).unwrap();
    assert_eq!(t.w.attr(unlink(Ino::ROOT, "part")).nlink, 1);
    assert_eq!(t.w.extents(part).len(), 2);
    let moves = vec![Move { ino: part, from: log(10, 5, 90), to_offset: 0 }];
    let moved = t.w.run(Operation::Relocate { object: object(99, 5), moves }).unwrap();
    assert_eq!(moved, Reply::Moved(vec![vec![(10, 5)]]));
}

#[test]
fn without_a_trash_nothing_goes_there_and_what_is_there_is_due() {
    let mut t = Trash::new();
    t.stored(Ino::ROOT, "f", 3);
    t.w.run(unlink(Ino::ROOT, "f")).unwrap();
    assert_eq!(t.due(10, Hint::default()), []);
    t.set(NamespaceChange { trash_ms: Some(0), ..NamespaceChange::default() });
    let g = t.stored(Ino::ROOT, "g", 3);
    assert_eq!(t.w.attr(unlink(Ino::ROOT, "g")).nlink, 0);
    t.free(g);
    let due = t.due(10, Hint::default());
    assert_eq!(due.len(), 2);
    let gone = t.purge(&due);
    gone.into_iter().for_each(|ino| t.free(ino));
    assert_eq!(t.usage(), (0, 1, 0, 0));
    for id in [1, 2] {
        assert!(t.w.view().find_object(ObjectId(id)).unwrap().unwrap().dead_since.is_some());
    }
    let change = NamespaceChange { trash_ms: Some(999), ..NamespaceChange::default() };
    assert_eq!(t.w.kind(Operation::Configure { change }), Kind::Invalid);
}

#[test]
fn who_has_it_open_sees_no_link_and_it_comes_at_the_last_close() {
    let mut t = Trash::new();
    let d = t.w.mkdir(Ino::ROOT, "d");
    let f = t.stored(d, "f", 8);
    assert_eq!(t.w.attr(open(unlink(d, "f"))).nlink, 0);
    assert!(t.at(&format!("{HOUR}/d/f")).is_none());
    assert_eq!(t.w.kind(link(f, "again")), Kind::NotFound);
    // Its directory may be gone by then.
    let gone = t.w.attr(rmdir(Ino::ROOT, "d")).ino;
    t.free(gone);
    assert_eq!(t.usage(), (8, 2, 0, 2));
    t.free(f);
    assert_eq!(t.at(&format!("{HOUR}/d/f")).unwrap().attr.nlink, 1);
    assert_eq!(t.usage(), (0, 1, 8, 3));
    // What was cut to nothing meanwhile does not come, nor what has no place any more.
    let g = t.stored(Ino::ROOT, "g", 8);
    t.w.run(open(unlink(Ino::ROOT, "g"))).unwrap();
    t.w.run(Operation::SetAttr { ino: g, set: SetAttr { size: Some(0), ..SetAttr::default() } }).unwrap();
    t.free(g);
    let h = t.stored(Ino::ROOT, "h", 8);
    t.w.run(open(unlink(Ino::ROOT, "h"))).unwrap();
    t.set(NamespaceChange { trash_ms: Some(0), ..NamespaceChange::default() });
    t.free(h);
    assert_eq!(t.usage(), (0, 1, 8, 3));
}

#[test]
fn a_place_that_was_moved_out_or_purged_is_none_any_more() {
    let mut t = Trash::new();
    let d = t.w.mkdir(Ino::ROOT, "d");
    for (i, name) in ["f", "g"].into_iter().enumerate() {
        let f = t.stored(d, name, 8);
        t.w.run(open(unlink(d, name))).unwrap();
        let hour = t.dir(HOUR);
        match i {
            0 => drop(t.w.run(rename(hour, "d", Ino::ROOT, "e", RenameMode::Replace)).unwrap()),
            _ => {
                let gone = t.w.attr(rmdir(hour, "d")).ino;
                t.free(gone);
            }
        }
        t.free(f);
        assert!(t.w.view().find_inode(f).unwrap().is_none());
    }
}

#[test]
fn a_file_that_rename_replaces_goes_there_by_the_name_it_had() {
    let mut t = Trash::new();
    let d = t.w.mkdir(Ino::ROOT, "d");
    let old = t.stored(d, "f", 6);
    t.stored(Ino::ROOT, "new", 7);
    let replaced = t.w.run(rename(Ino::ROOT, "new", d, "f", RenameMode::Replace)).unwrap();
    assert_eq!(replaced, Reply::Renamed(Some(t.w.get(old))));
    assert_eq!(t.at(&format!("{HOUR}/d/f")).unwrap().attr.ino, old);
    let open_one = t.stored(Ino::ROOT, "newer", 8);
    let held = t.w.view().entry(d, b"f").unwrap().unwrap().ino;
    t.w.run(open(rename(Ino::ROOT, "newer", d, "f", RenameMode::Replace))).unwrap();
    assert_eq!((t.w.get(held).nlink, t.w.get(open_one).nlink), (0, 1));
    t.free(held);
    assert_eq!(t.at(&format!("{HOUR}/d/f~2")).unwrap().attr.ino, held);
    // Exchanged, nothing is lost.
    t.stored(Ino::ROOT, "x", 1);
    t.w.run(rename(Ino::ROOT, "x", d, "f", RenameMode::Exchange)).unwrap();
    assert_eq!(t.usage().2, 13);
}

#[test]
fn names_that_are_taken_get_numbers() {
    let mut t = Trash::new();
    let long = "ä".repeat(127);
    let mut inos = Vec::new();
    for i in 0..20 {
        let f = t.stored(Ino::ROOT, "f", 1);
        inos.push(f);
        t.w.run(unlink(Ino::ROOT, "f")).unwrap();
        let name = if i == 0 { "f".to_owned() } else { format!("f~{}", i + 1) };
        assert_eq!(t.at(&format!("{HOUR}/{name}")).unwrap().attr.ino, f);
    }
    for _ in 0..2 {
        t.stored(Ino::ROOT, &long, 1);
        t.w.run(unlink(Ino::ROOT, &long)).unwrap();
    }
    // 254 bytes and two more do not fit; no character is cut.
    assert!(t.at(&format!("{HOUR}/{}~2", "ä".repeat(126))).is_some());
    // One that was removed is used again, sooner or later; nothing is replaced.
    let hour = t.dir(HOUR);
    t.w.run(unlink(hour, "f~2")).unwrap();
    t.free(inos[1]);
    let again = t.stored(Ino::ROOT, "f", 1);
    t.w.run(unlink(Ino::ROOT, "f")).unwrap();
    assert_eq!(t.at(&format!("{HOUR}/f~2")).unwrap().attr.ino, again);
}

#[test]
fn a_directory_whose_rights_changed_has_another_mirror() {
    let mut t = Trash::new();
    let d = t.w.mkdir(Ino::ROOT, "d");
    let attribute = |name: &[u8], value: Vec<u8>| Operation::SetXattr {
        ino: d,
        name: name.into(),
        value: value.into(),
        create_only: false,
        replace_only: false,
    };
    let remove = |t: &mut Trash, name: &str| {
        t.stored(d, name, 1);
        t.w.run(unlink(d, name)).unwrap();
    };
    let mode = |mode| SetAttr { mode: Some(mode), ..SetAttr::default() };
    t.w.run(attribute(b"user.note", vec![7; XATTR_BYTES_MAX])).unwrap();
    remove(&mut t, "open to all");
    t.w.run(Operation::SetAttr { ino: d, set: mode(0o700) }).unwrap();
    remove(&mut t, "secret");
    let entries =
        [(Who::Owner, 7), (Who::User(42), 4), (Who::OwningGroup, 0), (Who::Mask, 4), (Who::Others, 0)];
    let list = Acl::new(entries.map(|(who, perm)| acl::Entry { who, perm }).to_vec()).unwrap().encode();
    t.w.run(attribute(acl::ACCESS, list.clone())).unwrap();
    remove(&mut t, "for 42");
    t.w.run(Operation::RemoveXattr { ino: d, name: acl::ACCESS.into() }).unwrap();
    t.w.run(Operation::SetAttr { ino: d, set: mode(0o644) }).unwrap();
    remove(&mut t, "again");

    let modes = ["d", "d~2", "d~3"].map(|name| t.at(&format!("{HOUR}/{name}")).unwrap().attr.mode);
    assert_eq!(modes, [0o644, 0o700, 0o740]);
    assert!(t.at(&format!("{HOUR}/d/again")).is_some() && t.at(&format!("{HOUR}/d~2/secret")).is_some());
    let third = t.dir(&format!("{HOUR}/d~3"));
    assert_eq!(read::getxattr(&mut t.w.view(), third, acl::ACCESS).unwrap(), list);
    assert_eq!(read::getxattr(&mut t.w.view(), third, b"user.note").unwrap().len(), XATTR_BYTES_MAX);
}

#[test]
fn nothing_is_made_in_the_trash_or_moved_to_it() {
    let mut t = Trash::new();
    let d = t.w.mkdir(Ino::ROOT, "d");
    let f = t.stored(d, "f", 1);
    t.w.run(unlink(d, "f")).unwrap();
    let other = t.w.file("other");
    let mirror = t.dir(&format!("{HOUR}/d"));
    let new =
        NewInode { kind: FileType::File, mode: 0o600, umask: 0, uid: 0, gid: 0, rdev: 0, target: Vec::new() };
    for dir in [Ino::TRASH, mirror] {
        for refused in [
            create(dir, "x", FileType::File),
            create(dir, "x", FileType::Directory),
            Operation::Tmpfile { dir, new: new.clone() },
            Operation::Link { ino: other, dir, name: b"x"[..].into() },
            rename(Ino::ROOT, "other", dir, "x", RenameMode::Replace),
            rename(Ino::ROOT, "d", dir, "x", RenameMode::NoReplace),
            rename(mirror, "f", dir, "x", RenameMode::Replace),
        ] {
            assert_eq!(t.w.kind(refused.clone()), Kind::Permission, "{refused:?}");
        }
    }
    for refused in [
        link(f, "x"),
        rename(mirror, "f", Ino::ROOT, "other", RenameMode::Exchange),
        rename(Ino::ROOT, "other", mirror, "f", RenameMode::Exchange),
        rename(Ino::ROOT, "other", mirror, "f", RenameMode::Replace),
        // Nor has anything its name.
        create(Ino::ROOT, ".trash", FileType::Directory),
        link(other, ".trash"),
        rename(Ino::ROOT, "other", Ino::ROOT, ".trash", RenameMode::Replace),
        rename(Ino::ROOT, ".trash", Ino::ROOT, "x", RenameMode::Replace),
        unlink(Ino::ROOT, ".trash"),
        rmdir(Ino::ROOT, ".trash"),
    ] {
        assert_eq!(t.w.kind(refused.clone()), Kind::Permission, "{refused:?}");
    }
    // Elsewhere the name is free.
    t.w.create(d, ".trash", FileType::File);
}

#[test]
fn it_is_found_by_name_and_not_listed() {
    let mut t = Trash::new();
    let name = granary_core::EntryName::new(b".trash").unwrap();
    let found = read::lookup(&mut t.w.view(), Ino::ROOT, name).unwrap();
    assert_eq!((found.ino, found.mode, found.nlink, found.size), (Ino::TRASH, 0o755, 2, 0));
    t.stored(Ino::ROOT, "f", 1);
    t.w.run(unlink(Ino::ROOT, "f")).unwrap();
    let found = read::lookup(&mut t.w.view(), Ino::ROOT, name).unwrap();
    assert_eq!((found.ino, found.nlink, found.size), (Ino::TRASH, 3, DIRECTORY_ENTRY_BYTES));
    assert_eq!(read::readdir(&mut t.w.view(), Ino::ROOT, 0, 10, true).unwrap(), []);
    let hours = read::readdir(&mut t.w.view(), Ino::TRASH, 0, 10, true).unwrap();
    assert_eq!(hours.iter().map(|e| e.name.as_slice()).collect::<Vec<_>>(), [HOUR.as_bytes()]);
    assert_eq!(read::parent(&mut t.w.view(), Ino::TRASH).unwrap(), Ino::ROOT);
}

#[test]
fn removing_from_the_trash_is_for_good() {
    let mut t = Trash::new();
    let f = t.stored(Ino::ROOT, "f", 4);
    t.w.run(unlink(Ino::ROOT, "f")).unwrap();
    let hour = t.dir(HOUR);
    assert_eq!(t.w.kind(rmdir(Ino::TRASH, HOUR)), Kind::NotEmpty);
    assert_eq!(t.w.attr(unlink(hour, "f")).nlink, 0);
    t.free(f);
    let gone = t.w.attr(rmdir(Ino::TRASH, HOUR)).ino;
    t.free(gone);
    assert_eq!(t.usage(), (0, 1, 0, 0));
    assert!(t.w.view().find_object(ObjectId(1)).unwrap().unwrap().dead_since.is_some());
    // And comes back by the same name.
    t.stored(Ino::ROOT, "f", 4);
    t.w.run(unlink(Ino::ROOT, "f")).unwrap();
    assert_ne!(t.dir(HOUR), hour);
}

#[test]
fn a_file_and_a_tree_are_moved_out_again() {
    let mut t = Trash::new();
    let d = t.w.mkdir(Ino::ROOT, "d");
    let e = t.w.mkdir(d, "e");
    let inos: Vec<Ino> = ["a", "b"].into_iter().map(|name| t.stored(e, name, 10)).collect();
    let f = t.stored(Ino::ROOT, "f", 5);
    for (dir, name) in [(e, "a"), (e, "b"), (Ino::ROOT, "f")] {
        t.w.run(unlink(dir, name)).unwrap();
    }
    assert_eq!(t.usage(), (0, 3, 25, 6));
    let hour = t.dir(HOUR);
    t.w.run(rename(hour, "f", d, "f", RenameMode::NoReplace)).unwrap();
    assert_eq!((t.usage(), t.w.get(f).nlink), ((5, 4, 20, 5), 1));
    t.w.run(rename(hour, "d", Ino::ROOT, "restored", RenameMode::Replace)).unwrap();
    assert_eq!(t.usage(), (25, 8, 0, 1));
    let restored = t.w.view().entry(Ino::ROOT, b"restored").unwrap().unwrap().ino;
    let below = t.w.view().entry(restored, b"e").unwrap().unwrap().ino;
    // All is as anywhere: made in, linked, written, moved, removed.
    t.w.create(below, "new", FileType::File);
    t.w.run(link(inos[0], "linked")).unwrap();
    t.w.run(commit(inos[1], 12, vec![log(10, 2, 5)])).unwrap();
    assert_eq!(t.usage(), (27, 9, 0, 1));
    t.w.run(rename(below, "b", Ino::ROOT, "b", RenameMode::Replace)).unwrap();
    t.w.run(unlink(Ino::ROOT, "b")).unwrap();
    assert_eq!(t.at(&format!("{HOUR}/b")).unwrap().attr.ino, inos[1]);
    assert_eq!(t.usage(), (15, 8, 12, 2));
    // A directory that was made for the trash is mirrored like any other.
    t.stored(below, "x", 3);
    t.w.run(unlink(below, "x")).unwrap();
    assert!(t.at(&format!("{HOUR}/restored/e/x")).is_some());
}

#[test]
fn what_is_written_in_the_trash_counts_there() {
    let mut t = Trash::with_limits(100, 0);
    let f = t.stored(Ino::ROOT, "f", 10);
    t.w.run(unlink(Ino::ROOT, "f")).unwrap();
    t.w.run(commit(f, 40, vec![log(10, 30, 0)])).unwrap();
    assert_eq!(t.usage(), (0, 1, 40, 2));
    t.w.run(Operation::SetAttr { ino: f, set: SetAttr { size: Some(15), ..SetAttr::default() } }).unwrap();
    assert_eq!(t.usage(), (0, 1, 15, 2));
    // Removed for good while it is open, it counts as any file that is open.
    let hour = t.dir(HOUR);
    t.w.run(open(unlink(hour, "f"))).unwrap();
    t.w.run(commit(f, 20, vec![log(0, 20, 40)])).unwrap();
    assert_eq!(t.usage(), (20, 2, 0, 1));
    t.free(f);
}

#[test]
fn the_quota_bounds_the_trash_and_what_is_moved_out_of_it() {
    let mut t = Trash::with_limits(100, 8);
    t.stored(Ino::ROOT, "a", 60);
    t.w.run(unlink(Ino::ROOT, "a")).unwrap();
    assert_eq!(t.usage(), (0, 1, 60, 2));
    let b = t.stored(Ino::ROOT, "b", 60);
    assert_eq!(t.w.attr(unlink(Ino::ROOT, "b")).nlink, 0);
    t.free(b);
    assert_eq!(t.usage(), (0, 1, 60, 2));
    let hour = t.dir(HOUR);
    t.stored(Ino::ROOT, "c", 50);
    assert_eq!(t.w.kind(rename(hour, "a", Ino::ROOT, "a", RenameMode::Replace)), Kind::QuotaExceeded);
    t.w.run(unlink(Ino::ROOT, "c")).unwrap();
    t.free(Ino(4));
    t.w.run(rename(hour, "a", Ino::ROOT, "a", RenameMode::Replace)).unwrap();
    assert_eq!(t.usage(), (60, 2, 0, 1));
    // Inodes too: seven small ones, with the hour, and one directory too many.
    t.set(NamespaceChange { inodes_max: Some(6), ..NamespaceChange::default() });
    let kept = |t: &mut Trash, dir, name: &str| {
        t.stored(dir, name, 1);
        let attr = t.w.attr(unlink(dir, name));
        if attr.nlink == 0 {
            t.free(attr.ino);
        }
        attr.nlink == 1
    };
    for i in 0..4 {
        assert!(kept(&mut t, Ino::ROOT, &i.to_string()));
    }
    let d = t.w.mkdir(Ino::ROOT, "d");
    assert!(!kept(&mut t, d, "in d"));
    assert!(kept(&mut t, Ino::ROOT, "x"));
    assert!(!kept(&mut t, Ino::ROOT, "y"));
}

#[test]
fn the_oldest_hour_is_due_when_its_last_file_is_old_enough() {
    let mut t = Trash::new();
    let d = t.w.mkdir(Ino::ROOT, "d");
    t.stored(d, "a", 1);
    t.w.run(unlink(d, "a")).unwrap();
    t.w.now.secs = 3590;
    t.stored(d, "b", 1);
    t.w.run(unlink(d, "b")).unwrap();
    let last = t.w.now.secs;
    t.w.now.secs += 1800;
    t.stored(Ino::ROOT, "c", 1);
    t.w.run(unlink(Ino::ROOT, "c")).unwrap();
    assert!(t.at("1970-01-01T01/c").is_some());
    t.w.now.secs = last + 86_399;
    assert_eq!(t.due(10, Hint::default()), []);
    t.w.now.secs = last + 86_400;
    let due = t.due(10, Hint::default());
    let names: Vec<_> = due.iter().map(|v| String::from_utf8_lossy(&v.name).into_owned()).collect();
    assert_eq!(names, ["a", "b", "d", HOUR]);
    let gone = t.purge(&due);
    assert_eq!(gone.len(), 4);
    gone.into_iter().for_each(|ino| t.free(ino));
    assert!(t.at(HOUR).is_none() && t.at("1970-01-01T01/c").is_some());
    assert_eq!(t.due(10, Hint::default()), []);
}

#[test]
fn purging_goes_on_where_it_stopped_and_finds_what_was_skipped() {
    let mut t = Trash::new();
    let d = t.w.mkdir(Ino::ROOT, "d");
    for name in 0..7 {
        t.stored(d, &name.to_string(), 1);
        t.w.run(unlink(d, &name.to_string())).unwrap();
    }
    t.w.now.secs += 100_000;
    let (mut hint, mut rounds, mut kept) = (Hint::default(), 0, None);
    loop {
        let due = t.due(3, hint);
        if due.is_empty() {
            break;
        }
        assert!(due.len() <= 3);
        // The first is in use for a while.
        let now: Vec<Victim> = due.iter().filter(|v| rounds > 2 || *v.name != *b"0").cloned().collect();
        kept = kept.or(due.iter().find(|v| *v.name == *b"0").map(|v| v.ino));
        let gone = t.purge(&now);
        gone.into_iter().for_each(|ino| t.free(ino));
        hint = Hint::after(&due);
        rounds += 1;
    }
    assert!(rounds > 3 && t.w.view().find_inode(kept.unwrap()).unwrap().is_none());
    assert_eq!(t.usage(), (0, 2, 0, 0));
}

#[test]
fn a_trash_that_is_nearly_full_loses_its_oldest_hour() {
    let mut t = Trash::with_limits(80, 0);
    t.stored(Ino::ROOT, "old", 40);
    t.w.run(unlink(Ino::ROOT, "old")).unwrap();
    t.w.now.secs += 3600;
    t.stored(Ino::ROOT, "new", 30);
    t.w.run(unlink(Ino::ROOT, "new")).unwrap();
    assert_eq!(t.due(10, Hint::default()), []);
    t.stored(Ino::ROOT, "newer", 1);
    t.w.run(unlink(Ino::ROOT, "newer")).unwrap();
    let due = t.due(10, Hint::default());
    let names: Vec<_> = due.iter().map(|v| String::from_utf8_lossy(&v.name).into_owned()).collect();
    assert_eq!(names, ["old", HOUR]);
    t.purge(&due).into_iter().for_each(|ino| t.free(ino));
    assert_eq!(t.due(10, Hint::default()), []);
}

#[test]
fn only_what_is_in_the_trash_is_purged() {
    let mut t = Trash::new();
    let d = t.w.mkdir(Ino::ROOT, "d");
    for name in ["f", "g"] {
        t.stored(d, name, 1);
    }
    t.w.run(unlink(d, "f")).unwrap();
    let (hour, mirror) = (t.dir(HOUR), t.dir(&format!("{HOUR}/d")));
    let victim = |dir: Ino, name: &str| (dir, Box::from(name.as_bytes()));
    let none = vec![
        victim(d, "g"),
        victim(Ino::ROOT, "d"),
        victim(hour, "d"),
        victim(hour, "missing"),
        victim(Ino(999), "f"),
    ];
    assert_eq!(t.w.run(Operation::Purge { victims: none }).unwrap(), Reply::Purged(vec![]));
    t.w.run(rename(hour, "d", Ino::ROOT, "back", RenameMode::Replace)).unwrap();
    let out = vec![victim(mirror, "f")];
    assert_eq!(t.w.run(Operation::Purge { victims: out }).unwrap(), Reply::Purged(vec![]));
}

#[test]
fn deeper_than_the_limit_nothing_is_kept() {
    let mut t = Trash::new();
    let mut dir = Ino::ROOT;
    for depth in 0..=DEPTH_MAX {
        t.stored(dir, "f", 1);
        let attr = t.w.attr(unlink(dir, "f"));
        assert_eq!(attr.nlink, 1, "{depth}");
        dir = t.w.mkdir(dir, "d");
    }
    let f = t.stored(dir, "f", 1);
    assert_eq!(t.w.attr(unlink(dir, "f")).nlink, 0);
    t.free(f);
    // All of it is purged without recursion, and in small batches.
    t.w.now.secs += 100_000;
    let mut hint = Hint::default();
    loop {
        let due = t.due(50, hint);
        if due.is_empty() {
            break;
        }
        t.purge(&due).into_iter().for_each(|ino| t.free(ino));
        hint = Hint::after(&due);
    }
    assert_eq!(t.usage().2, 0);
}

#[test]
fn a_directory_from_before_names_were_kept_is_found_by_looking() {
    let mut t = Trash::new();
    let d = t.w.mkdir(Ino::ROOT, "d");
    let f = t.stored(d, "f", 1);
    let nameless = Inode { name: Box::default(), ..(*t.w.view().inode(d).unwrap()).clone() };
    let mut batch = Vec::new();
    let mut changes = Changes::default();
    changes.set(Key::Inode(d), Some(Value::Inode(nameless.into())));
    changes.encode(NS, &mut batch);
    t.w.engine.write(batch, false).unwrap();
    t.w.run(unlink(d, "f")).unwrap();
    assert_eq!(t.at(&format!("{HOUR}/d/f")).unwrap().attr.ino, f);
}

#[test]
fn a_file_of_many_extents_goes_there_as_it_is() {
    let mut t = Trash::new();
    let f = t.stored(Ino::ROOT, "f", 500);
    t.w.run(commit(f, 500, (0..50).map(|i| log(i * 10, 5, i * 7)).collect())).unwrap();
    assert_eq!(t.w.view().inode(f).unwrap().spilled, 100);
    let before = t.w.extents(f);
    t.w.run(unlink(Ino::ROOT, "f")).unwrap();
    assert_eq!(t.w.extents(f), before);
    assert_eq!(t.usage(), (0, 1, 500, 2));
}

#[test]
fn wrong_counts_in_the_trash_are_told_and_mended() {
    let mut t = Trash::new();
    t.stored(Ino::ROOT, "f", 4);
    t.w.run(unlink(Ino::ROOT, "f")).unwrap();
    let hour = t.dir(HOUR);
    let mut wrong = t.at(HOUR).unwrap();
    wrong.held.bytes = 9;
    let put = |t: &Trash, inode: Inode| {
        let mut changes = Changes::default();
        changes.set(Key::Inode(inode.attr.ino), Some(Value::Inode(inode.into())));
        let mut batch = Vec::new();
        changes.encode(NS, &mut batch);
        t.w.engine.write(batch, false).unwrap();
    };
    put(&t, wrong);
    let told = check::check(&mut t.w.view()).unwrap();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].text.contains("counts 9 bytes below it, it has 4"), "{}", told[0]);
    let (changes, mended) = repair::repair(&mut t.w.view()).unwrap();
    assert_eq!(mended, told);
    let mut batch = Vec::new();
    changes.encode(NS, &mut batch);
    t.w.engine.write(batch, false).unwrap();
    assert_eq!(check::check(&mut t.w.view()).unwrap(), []);
    // A file that says another place is not mended by a count.
    let mut file = (*t.w.view().inode(Ino(2)).unwrap()).clone();
    assert_eq!(file.parent, hour);
    file.parent = Ino(0);
    put(&t, file);
    let told = check::check(&mut t.w.view()).unwrap();
    assert!(told.len() == 1 && told[0].fix.is_none(), "{told:?}");
}
