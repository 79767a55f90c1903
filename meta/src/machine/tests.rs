//! One rule at a time, on the machine alone. Random sequences against a reference tree are in `local::tests`.

use granary_core::limits::{FILE_BYTES_MAX, LINKS_MAX};
use granary_core::{NamespaceId, NodeId, ObjectKind};

use super::*;
use crate::engine::{Engine, MemoryEngine};

const NS: NamespaceId = NamespaceId(1);

/// A namespace in memory, and a clock that goes one second an operation.
struct World {
    engine: Arc<dyn Engine>,
    now: Timestamp,
}

impl World {
    fn new() -> World {
        World::with_limits(0, 0)
    }

    fn with_limits(bytes_max: u64, inodes_max: u64) -> World {
        World::with_trash(0, bytes_max, inodes_max)
    }

    fn with_trash(trash_ms: u64, bytes_max: u64, inodes_max: u64) -> World {
        let mut world = World { engine: MemoryEngine::new(), now: Timestamp { secs: 100, nanos: 5 } };
        let name = "user/a".parse().unwrap();
        let new = NewNamespace {
            name,
            uid: 7,
            gid: 8,
            mode: 0o755,
            bytes_max,
            inodes_max,
            durability: Durability::Local,
            trash_ms,
            packed: None,
        };
        world.run(Operation::Init { new }).unwrap();
        world
    }

    fn view(&self) -> EngineView<'_> {
        EngineView { engine: &*self.engine, ns: NS }
    }

    fn run(&mut self, operation: Operation) -> Result<Reply> {
        self.now.secs += 1;
        let result = apply(&mut EngineView { engine: &*self.engine, ns: NS }, operation, self.now);
        let reply = result.map(|(changes, reply)| {
            let mut batch = Vec::new();
            changes.encode(NS, &mut batch);
            self.engine.write(batch, false).unwrap();
            reply
        });
        assert_eq!(check::check(&mut self.view()).unwrap(), []);
        reply
    }

    fn attr(&mut self, operation: Operation) -> Attr {
        match self.run(operation).unwrap() {
            Reply::Attr(attr) => attr,
            other => panic!("{other:?}"),
        }
    }

    fn kind(&mut self, operation: Operation) -> Kind {
        self.run(operation).unwrap_err().kind()
    }

    fn get(&self, ino: Ino) -> Attr {
        self.view().inode(ino).unwrap().attr.clone()
    }

    fn create(&mut self, dir: Ino, name: &str, kind: FileType) -> Ino {
        self.attr(create(dir, name, kind)).ino
    }

    fn file(&mut self, name: &str) -> Ino {
        self.create(Ino::ROOT, name, FileType::File)
    }

    fn mkdir(&mut self, dir: Ino, name: &str) -> Ino {
        self.create(dir, name, FileType::Directory)
    }

    fn extents(&self, ino: Ino) -> Vec<Extent> {
        read::extents(&mut self.view(), ino).unwrap().1
    }
}

fn create(dir: Ino, name: &str, kind: FileType) -> Operation {
    let target = if kind == FileType::Symlink { b"to".to_vec() } else { Vec::new() };
    let new = NewInode { kind, mode: 0o644, umask: 0, uid: 1, gid: 2, rdev: 0, target };
    Operation::Create { dir, name: name.as_bytes().into(), new }
}

fn rename(dir: Ino, name: &str, to_dir: Ino, to_name: &str, mode: RenameMode) -> Operation {
    let (name, to_name) = (name.as_bytes().into(), to_name.as_bytes().into());
    Operation::Rename { dir, name, to_dir, to_name, mode, open: false }
}

fn link(ino: Ino, name: &str) -> Operation {
    Operation::Link { ino, dir: Ino::ROOT, name: name.as_bytes().into() }
}

fn unlink(dir: Ino, name: &str) -> Operation {
    Operation::Unlink { dir, name: name.as_bytes().into(), open: false }
}

fn rmdir(dir: Ino, name: &str) -> Operation {
    Operation::Rmdir { dir, name: name.as_bytes().into() }
}

fn log(offset: u64, len: u64, at: u64) -> Extent {
    Extent { offset, len, place: Place::Log { node: NodeId(1), segment: 1, offset: at }, crc: 77 }
}

fn commit(ino: Ino, size: u64, extents: Vec<Extent>) -> Operation {
    let mtime = Timestamp { secs: 5, nanos: 0 };
    Operation::Commit(Commit { ino, size, mtime, ctime: mtime, extents, holes: Vec::new(), staged_seq: 3 })
}

fn object(n: u128, payload_len: u64) -> ObjectInfo {
    ObjectInfo { id: ObjectId(n), kind: ObjectKind::Pack, payload_len, total_len: payload_len + 100 }
}

#[test]
fn mkdir_and_rmdir_count_links_and_times_of_the_parent() {
    let mut w = World::new();
    let before = w.get(Ino::ROOT);
    let d = w.mkdir(Ino::ROOT, "d");
    let root = w.get(Ino::ROOT);
    assert_eq!((before.nlink, root.nlink, w.get(d).nlink), (2, 3, 2));
    assert_eq!((root.mtime, root.ctime, root.atime), (w.now, w.now, before.atime));
    assert_eq!(w.kind(unlink(Ino::ROOT, "d")), Kind::IsDirectory);
    w.create(d, "f", FileType::File);
    assert_eq!(w.kind(rmdir(Ino::ROOT, "d")), Kind::NotEmpty);
    assert_eq!(w.kind(rmdir(d, "f")), Kind::NotDirectory);
    w.run(unlink(d, "f")).unwrap();
    let gone = w.attr(rmdir(Ino::ROOT, "d"));
    assert_eq!((gone.nlink, w.get(Ino::ROOT).nlink), (0, 2));
    // Still there for whoever has it open, but nothing can be made in it.
    assert_eq!(w.kind(create(d, "x", FileType::File)), Kind::NotFound);
    assert_eq!(w.run(Operation::Free { ino: d, extents_max: 9 }).unwrap(), Reply::Freed(true));
    assert_eq!(w.kind(create(d, "x", FileType::File)), Kind::Stale);
}

#[test]
fn setgid_directories_hand_their_group_down() {
    let mut w = World::new();
    let d = w.mkdir(Ino::ROOT, "d");
    let set = SetAttr { mode: Some(0o2770), gid: Some(50), ..SetAttr::default() };
    w.run(Operation::SetAttr { ino: d, set }).unwrap();
    let f = w.create(d, "f", FileType::File);
    let sub = w.mkdir(d, "sub");
    assert_eq!((w.get(f).gid, w.get(f).mode), (50, 0o644));
    assert_eq!((w.get(sub).gid, w.get(sub).mode), (50, 0o2644));
    assert_eq!(w.create(Ino::ROOT, "f", FileType::File), Ino(5));
    assert_eq!(w.get(Ino(5)).gid, 2);
}

#[test]
fn rename_rules() {
    let mut w = World::new();
    let (a, b) = (w.mkdir(Ino::ROOT, "a"), w.mkdir(Ino::ROOT, "b"));
    let sub = w.mkdir(a, "sub");
    let f = w.file("f");
    use RenameMode::*;
    assert_eq!(w.kind(rename(Ino::ROOT, "no", Ino::ROOT, "x", Replace)), Kind::NotFound);
    assert_eq!(w.kind(rename(Ino::ROOT, "f", Ino::ROOT, "a", Replace)), Kind::IsDirectory);
    assert_eq!(w.kind(rename(Ino::ROOT, "a", Ino::ROOT, "f", Replace)), Kind::NotDirectory);
    assert_eq!(w.kind(rename(Ino::ROOT, "b", Ino::ROOT, "a", Replace)), Kind::NotEmpty);
    assert_eq!(w.kind(rename(Ino::ROOT, "a", sub, "x", Replace)), Kind::Invalid);
    assert_eq!(w.kind(rename(Ino::ROOT, "a", a, "x", Replace)), Kind::Invalid);
    assert_eq!(w.kind(rename(Ino::ROOT, "f", Ino::ROOT, "b", NoReplace)), Kind::Exists);
    assert_eq!(w.kind(rename(Ino::ROOT, "f", Ino::ROOT, "x", Exchange)), Kind::NotFound);
    assert_eq!(w.kind(rename(a, "sub", Ino::ROOT, "a", Exchange)), Kind::Invalid);
    // A directory over an empty directory, into another parent: link counts follow.
    w.run(rename(a, "sub", Ino::ROOT, "b", Replace)).unwrap();
    assert_eq!((w.get(a).nlink, w.get(Ino::ROOT).nlink, w.get(b).nlink), (2, 4, 0));
    assert_eq!(read::parent(&mut w.view(), sub).unwrap(), Ino::ROOT);
    assert_eq!(w.get(sub).ctime, w.now);
    // A file and a directory change places across directories.
    w.run(rename(Ino::ROOT, "a", sub, "a", Replace)).unwrap();
    w.run(rename(Ino::ROOT, "f", sub, "a", Exchange)).unwrap();
    assert_eq!((w.get(sub).nlink, w.get(Ino::ROOT).nlink), (2, 4));
    assert_eq!(read::parent(&mut w.view(), a).unwrap(), Ino::ROOT);
    let name = EntryName(b"a");
    assert_eq!(read::lookup(&mut w.view(), sub, name.get()).unwrap().ino, f);
}

/// Shorthand for a checked name.
struct EntryName<'a>(&'a [u8]);

impl<'a> EntryName<'a> {
    fn get(&self) -> granary_core::EntryName<'a> {
        granary_core::EntryName::new(self.0).unwrap()
    }
}

#[test]
fn renaming_one_of_two_names_onto_the_other_does_nothing() {
    let mut w = World::new();
    let f = w.file("f");
    w.run(link(f, "g")).unwrap();
    let before = w.get(f);
    let reply = w.run(rename(Ino::ROOT, "f", Ino::ROOT, "g", RenameMode::Replace)).unwrap();
    assert_eq!((reply, w.get(f), w.get(f).nlink), (Reply::Renamed(None), before, 2));
}

#[test]
fn links_have_a_limit_and_directories_one_name() {
    let mut w = World::new();
    let (f, d) = (w.file("f"), w.mkdir(Ino::ROOT, "d"));
    assert_eq!(w.kind(link(d, "x")), Kind::Permission);
    assert_eq!(w.kind(link(f, "d")), Kind::Exists);
    assert_eq!(w.attr(link(f, "g")).nlink, 2);
    let mut inode = Arc::unwrap_or_clone(w.view().inode(f).unwrap());
    inode.attr.nlink = LINKS_MAX;
    let many = apply(&mut Patched(w.view(), inode), link(f, "h"), w.now);
    assert_eq!(many.unwrap_err().kind(), Kind::TooManyLinks);
    w.run(unlink(Ino::ROOT, "f")).unwrap();
    assert_eq!(w.attr(unlink(Ino::ROOT, "g")).nlink, 0);
    assert_eq!(w.kind(link(f, "again")), Kind::NotFound);
}

/// A view with one inode changed.
struct Patched<'e>(EngineView<'e>, Inode);

impl View for Patched<'_> {
    fn get(&mut self, key: &Key) -> Result<Option<Value>> {
        if *key == Key::Inode(self.1.attr.ino) {
            return Ok(Some(Value::Inode(Arc::new(self.1.clone()))));
        }
        self.0.get(key)
    }

    fn scan(
        &mut self,
        span: Span,
        from: Option<&Key>,
        visit: &mut dyn FnMut(Key, Value) -> Result<bool>,
    ) -> Result<()> {
        self.0.scan(span, from, visit)
    }
}

#[test]
fn sizes_and_targets_are_bounded() {
    let mut w = World::new();
    let (f, d) = (w.file("f"), w.mkdir(Ino::ROOT, "d"));
    let s = w.create(Ino::ROOT, "s", FileType::Symlink);
    let size =
        |ino, size| Operation::SetAttr { ino, set: SetAttr { size: Some(size), ..SetAttr::default() } };
    assert_eq!(w.kind(size(d, 0)), Kind::IsDirectory);
    assert_eq!(w.kind(size(s, 0)), Kind::Invalid);
    assert_eq!(w.kind(size(f, FILE_BYTES_MAX + 1)), Kind::FileTooLarge);
    assert_eq!(w.attr(size(f, FILE_BYTES_MAX)).size, FILE_BYTES_MAX);
    assert_eq!(w.kind(commit(f, 10, vec![log(u64::MAX - 3, 9, 0)])), Kind::FileTooLarge);
    assert_eq!(w.kind(create(Ino::ROOT, &"x".repeat(256), FileType::File)), Kind::NameTooLong);
    let new = NewInode {
        kind: FileType::Symlink,
        mode: 0,
        umask: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        target: vec![b'x'; 4096],
    };
    let long = Operation::Create { dir: Ino::ROOT, name: (*b"l").into(), new };
    assert_eq!(w.kind(long), Kind::NameTooLong);
    assert_eq!(read::readlink(&mut w.view(), s).unwrap(), b"to");
    assert_eq!(read::readlink(&mut w.view(), f).unwrap_err().kind(), Kind::Invalid);
    assert_eq!(w.get(s).size, 2);
}

#[test]
fn truncation_cuts_extents_and_changes_times_and_version() {
    let mut w = World::new();
    let f = w.file("f");
    let born = w.now;
    let a = w.attr(commit(f, 300, vec![log(0, 100, 1000), log(200, 100, 2000)]));
    let expected = (300, 200, 2, 5, born);
    assert_eq!(
        (a.size, a.stored, a.version, a.mtime.secs, a.ctime),
        expected,
        "an older ctime does not count"
    );
    let set = SetAttr { size: Some(250), staged_seq: Some(9), ..SetAttr::default() };
    let a = w.attr(Operation::SetAttr { ino: f, set });
    assert_eq!((a.size, a.stored, a.version, a.mtime, a.staged_seq), (250, 150, 3, w.now, 9));
    let cut = Extent { len: 50, crc: 0, ..log(200, 100, 2000) };
    assert_eq!(w.extents(f), [log(0, 100, 1000), cut]);
    // Chmod is no content change.
    let set = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    let b = w.attr(Operation::SetAttr { ino: f, set });
    assert_eq!((b.version, b.mtime, b.ctime, b.mode), (3, a.mtime, w.now, 0o600));
}

#[test]
fn a_commit_replaces_what_was_in_its_range() {
    let mut w = World::new();
    let f = w.file("f");
    w.run(commit(f, 100, vec![log(0, 100, 1000)])).unwrap();
    w.run(commit(f, 100, vec![log(40, 20, 5000)])).unwrap();
    let left = Extent { len: 40, crc: 0, ..log(0, 100, 1000) };
    let right = Extent { crc: 0, ..log(60, 40, 1060) };
    assert_eq!(w.extents(f), [left, log(40, 20, 5000), right]);
    let mut hole = Commit {
        ino: f,
        size: 100,
        mtime: w.now,
        ctime: w.now,
        extents: vec![],
        holes: vec![(10, 80)],
        staged_seq: 0,
    };
    let a = w.attr(Operation::Commit(hole.clone()));
    assert_eq!((a.stored, a.staged_seq), (20, 3));
    assert_eq!(w.extents(f), [Extent { len: 10, ..left }, Extent { offset: 90, len: 10, ..right }.moved(30)]);
    // A commit that only tells the sequence number changes no content.
    hole.holes.clear();
    assert_eq!(w.attr(Operation::Commit(hole)).version, a.version);
}

impl Extent {
    fn moved(mut self, by: u64) -> Extent {
        if let Place::Log { offset, .. } = &mut self.place {
            *offset += by;
        }
        self
    }
}

#[test]
fn a_file_written_in_pieces_has_one_extent_again_once_it_is_uploaded() {
    let mut w = World::new();
    let f = w.file("f");
    let pieces: Vec<Extent> = (0..40).map(|i| log(i * 10, 10, 1000 + i * 50)).collect();
    w.run(commit(f, 400, pieces.clone())).unwrap();
    assert_eq!(w.extents(f), pieces);
    assert_eq!(w.view().inode(f).unwrap().spilled, 40);
    let version = w.get(f).version;
    let moves = pieces.iter().map(|e| Move { ino: f, from: *e, to_offset: e.offset }).collect();
    let reply = w.run(Operation::Relocate { object: object(1, 400), moves }).unwrap();
    assert_eq!(reply, Reply::Moved(pieces.iter().map(|e| vec![(e.offset, e.len)]).collect()));
    let place = Place::Object { kind: ObjectKind::Pack, id: ObjectId(1), offset: 0 };
    assert_eq!(w.extents(f), [Extent { offset: 0, len: 400, place, crc: 0 }]);
    assert_eq!((w.view().inode(f).unwrap().spilled, w.get(f).version), (0, version));
}

#[test]
fn relocation_takes_effect_only_where_the_file_is_unchanged() {
    let mut w = World::new();
    let f = w.file("f");
    let first = log(0, 100, 1000);
    w.run(commit(f, 100, vec![first])).unwrap();
    w.run(commit(f, 100, vec![log(30, 40, 9000)])).unwrap();
    let moves =
        vec![Move { ino: f, from: first, to_offset: 500 }, Move { ino: Ino(99), from: first, to_offset: 0 }];
    let reply = w.run(Operation::Relocate { object: object(1, 600), moves: moves.clone() }).unwrap();
    assert_eq!(reply, Reply::Moved(vec![vec![(0, 30), (70, 30)], vec![]]));
    assert_eq!(w.view().find_object(ObjectId(1)).unwrap().unwrap().live, 60);
    // A second object comes too late for all of it: dead at once.
    let reply = w.run(Operation::Relocate { object: object(2, 600), moves }).unwrap();
    assert_eq!(reply, Reply::Moved(vec![vec![], vec![]]));
    let dead = read::dead_objects(&mut w.view(), 9).unwrap();
    assert_eq!(dead, [DeadObject { object: object(2, 600), since: w.now }]);
    let outside = vec![Move { ino: f, from: log(30, 40, 9000), to_offset: 570 }];
    assert_eq!(w.kind(Operation::Relocate { object: object(3, 600), moves: outside }), Kind::Invalid);
    assert_eq!(w.kind(Operation::Relocate { object: object(1, 601), moves: vec![] }), Kind::Invalid);
}

#[test]
fn an_object_dies_with_its_last_byte_and_stays_dead() {
    let mut w = World::new();
    let f = w.file("f");
    w.run(commit(f, 100, vec![log(0, 100, 0)])).unwrap();
    let moves = vec![Move { ino: f, from: log(0, 100, 0), to_offset: 0 }];
    w.run(Operation::Relocate { object: object(1, 100), moves }).unwrap();
    let in_object = w.extents(f);
    assert_eq!(w.kind(Operation::ForgetObjects { ids: vec![ObjectId(1)] }), Kind::Bug);
    w.run(unlink(Ino::ROOT, "f")).unwrap();
    assert_eq!(read::dead_objects(&mut w.view(), 9).unwrap(), []);
    w.run(Operation::Free { ino: f, extents_max: 9 }).unwrap();
    let since = w.now;
    assert_eq!(read::dead_objects(&mut w.view(), 9).unwrap(), [DeadObject { object: object(1, 100), since }]);
    // Its deletion may be under way: nothing may name it again.
    let g = w.file("g");
    assert_eq!(w.kind(commit(g, 100, in_object)), Kind::Stale);
    w.run(Operation::ForgetObjects { ids: vec![ObjectId(1), ObjectId(5)] }).unwrap();
    assert_eq!(read::object(&mut w.view(), ObjectId(1)).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(w.view().counters().unwrap().bytes, 0);
}

#[test]
fn a_file_of_many_extents_is_freed_in_steps() {
    let mut w = World::new();
    let f = w.file("f");
    w.run(commit(f, 1000, (0..100).map(|i| log(i * 10, 5, i * 7)).collect())).unwrap();
    w.run(unlink(Ino::ROOT, "f")).unwrap();
    for left in [60, 20] {
        assert_eq!(w.run(Operation::Free { ino: f, extents_max: 40 }).unwrap(), Reply::Freed(false));
        let Counters { next_ino, bytes, inodes, .. } = w.view().counters().unwrap();
        assert_eq!((next_ino, bytes, inodes), (Ino(3), left * 5, 1));
        assert!(w.view().find_inode(f).unwrap().is_none());
    }
    assert_eq!(w.run(Operation::Free { ino: f, extents_max: 40 }).unwrap(), Reply::Freed(true));
    assert_eq!(w.view().counters().unwrap().bytes, 0);
    assert_eq!(read::orphans(&mut w.view(), Ino(0), 9).unwrap(), []);
}

#[test]
fn a_full_namespace_refuses_new_files_but_can_be_tidied_up() {
    let mut w = World::with_limits(100, 4);
    let f = w.file("f");
    // Never refused: it was acknowledged.
    w.run(commit(f, 200, vec![log(0, 200, 0)])).unwrap();
    let e = w.run(create(Ino::ROOT, "g", FileType::File)).unwrap_err();
    assert_eq!(e.kind(), Kind::QuotaExceeded);
    assert!(e.to_string().contains("user/a is full (200 of 100 bytes)"), "{e}");
    w.mkdir(Ino::ROOT, "trash");
    w.create(Ino::ROOT, "s", FileType::Symlink);
    assert_eq!(w.kind(create(Ino::ROOT, "more", FileType::Fifo)), Kind::QuotaExceeded);
    w.run(link(f, "h")).unwrap();
    w.run(Operation::SetAttr { ino: f, set: SetAttr { size: Some(0), ..SetAttr::default() } }).unwrap();
    let change = NamespaceChange { inodes_max: Some(0), uid: Some(33), ..NamespaceChange::default() };
    w.run(Operation::Configure { change }).unwrap();
    w.file("g");
    assert_eq!(w.get(Ino::ROOT).uid, 33);
}

#[test]
fn extended_attributes() {
    let mut w = World::new();
    let f = w.file("f");
    let set = |name: &[u8], len: usize, create_only, replace_only| Operation::SetXattr {
        ino: f,
        name: name.into(),
        value: vec![1; len].into(),
        create_only,
        replace_only,
    };
    assert_eq!(w.kind(set(b"user.a", 1, false, true)), Kind::NoAttribute);
    w.run(set(b"user.a", 0, true, false)).unwrap();
    assert_eq!(w.kind(set(b"user.a", 1, true, false)), Kind::Exists);
    w.run(set(b"user.a", 65_536, false, true)).unwrap();
    assert_eq!(w.kind(set(b"user.a", 65_537, false, false)), Kind::NoSpace);
    assert_eq!(w.kind(set(&[b'x'; 256], 1, false, false)), Kind::Range);
    for i in 0..255u8 {
        w.run(set(&[i.max(1); 255][..=254 - usize::from(i == 0)], 1, false, false)).unwrap();
    }
    assert_eq!(w.kind(set(&[255; 255], 1, false, false)), Kind::NoSpace);
    assert_eq!(read::listxattr(&mut w.view(), f).unwrap().len(), 256);
    assert_eq!(read::getxattr(&mut w.view(), f, b"user.a").unwrap().len(), 65_536);
    let remove = Operation::RemoveXattr { ino: f, name: (*b"user.a").into() };
    w.run(remove.clone()).unwrap();
    assert_eq!(w.get(f).ctime, w.now);
    assert_eq!(w.kind(remove), Kind::NoAttribute);
    assert_eq!(read::getxattr(&mut w.view(), f, b"user.a").unwrap_err().kind(), Kind::NoAttribute);
}

#[test]
fn devices_keep_their_number_and_others_have_none() {
    let mut w = World::new();
    for (kind, rdev) in [(FileType::CharDevice, 0x501), (FileType::BlockDevice, 0x501), (FileType::Fifo, 0)] {
        let new = NewInode { kind, mode: 0o7644, umask: 0, uid: 0, gid: 0, rdev: 0x501, target: vec![] };
        let a =
            w.attr(Operation::Create { dir: Ino::ROOT, name: format!("{kind:?}").into_bytes().into(), new });
        assert_eq!((a.rdev, a.mode, a.kind), (rdev, 0o7644, kind));
    }
}

#[test]
fn the_check_finds_what_is_wrong() {
    let mut w = World::new();
    let f = w.file("f");
    w.run(commit(f, 10, vec![log(0, 10, 0)])).unwrap();
    let good = w.view().inode(f).unwrap();
    type Damage = Box<dyn Fn(&mut Inode)>;
    let broken: Vec<(&str, Damage)> = vec![
        ("link count", Box::new(|i| i.attr.nlink = 2)),
        ("stored bytes", Box::new(|i| i.attr.stored = 9)),
        ("beyond size", Box::new(|i| i.attr.size = 9)),
        ("another type", Box::new(|i| i.attr.kind = FileType::Fifo)),
        ("attributes' names", Box::new(|i| i.xattr_names = 4)),
        ("counts 10 bytes", Box::new(|i| i.extents.clear())),
        (
            "which is not known",
            Box::new(|i| {
                i.extents[0].place = Place::Object { kind: ObjectKind::Pack, id: ObjectId(9), offset: 0 }
            }),
        ),
    ];
    for (text, damage) in broken {
        let mut inode = (*good).clone();
        damage(&mut inode);
        let key = Key::Inode(f).encode(NS);
        let put = |inode: &Inode| {
            let value = Value::Inode(Arc::new(inode.clone())).encode();
            w.engine.write(vec![crate::engine::Write::Put(key.clone(), value)], false).unwrap();
        };
        put(&inode);
        let found = check::check(&mut w.view()).unwrap();
        assert!(found.iter().any(|p| p.text.contains(text)), "{text}: {found:?}");
        put(&good);
    }
    let listing = Key::Listing(Ino::ROOT, 3).encode(NS);
    w.engine.write(vec![crate::engine::Write::Delete(listing)], false).unwrap();
    assert_eq!(check::check(&mut w.view()).unwrap().len(), 1);
}

mod inline;
mod maintenance;
mod posix;
mod trash;
