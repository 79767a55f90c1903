//! Condemned objects, and counts that are mended.

use super::*;
use crate::engine::Write;
use crate::machine::repair;

fn relocate(f: Ino, id: u128) -> Operation {
    let moves = vec![Move { ino: f, from: log(0, 100, 0), to_offset: 0 }];
    Operation::Relocate { object: object(id, 100), moves }
}

fn condemn(ids: &[u128]) -> Operation {
    Operation::Condemn { ids: ids.iter().copied().map(ObjectId).collect() }
}

#[test]
fn a_condemned_object_is_never_named() {
    let mut w = World::new();
    let f = w.file("f");
    w.run(commit(f, 100, vec![log(0, 100, 0)])).unwrap();
    assert_eq!(w.run(condemn(&[1, 2])).unwrap(), Reply::Condemned(vec![true, true]));
    let before = w.extents(f);
    for _ in 0..2 {
        // Refused as an error: an answer without effect would let the node drop the bytes that were to be moved.
        let e = w.run(relocate(f, 1)).unwrap_err();
        assert!(e.kind() == Kind::Stale && e.to_string().contains("stored again"), "{e}");
    }
    assert_eq!(w.extents(f), before);
    // What was forgotten stays condemned; and a new object takes the bytes.
    w.run(Operation::ForgetObjects { ids: vec![ObjectId(1)] }).unwrap();
    assert_eq!(w.kind(relocate(f, 1)), Kind::Stale);
    assert_eq!(w.run(relocate(f, 3)).unwrap(), Reply::Moved(vec![vec![(0, 100)]]));
    let in_condemned = Extent {
        place: Place::Object { kind: ObjectKind::Pack, id: ObjectId(2), offset: 0 },
        ..log(0, 100, 0)
    };
    assert_eq!(w.kind(commit(f, 100, vec![in_condemned])), Kind::Invalid);
}

#[test]
fn known_objects_are_not_condemned() {
    let mut w = World::new();
    let f = w.file("f");
    w.run(commit(f, 100, vec![log(0, 100, 0)])).unwrap();
    w.run(relocate(f, 1)).unwrap();
    // Too late for its bytes: dead at once.
    w.run(relocate(f, 2)).unwrap();
    assert_eq!(w.run(condemn(&[1, 2, 3])).unwrap(), Reply::Condemned(vec![false, false, true]));
    assert_eq!(w.view().find_object(ObjectId(1)).unwrap().unwrap().live, 100);
    assert_eq!(read::dead_objects(&mut w.view(), 9).unwrap().len(), 1);
}

/// Writes a record behind the machine's back.
fn damage(w: &World, key: Key, value: Option<Value>) {
    let key = key.encode(NS);
    let write = value.map_or(Write::Delete(key.clone()), |v| Write::Put(key, v.encode()));
    w.engine.write(vec![write], false).unwrap();
}

fn repaired(w: &World) -> Vec<String> {
    let (changes, mended) = repair::repair(&mut w.view()).unwrap();
    let mut batch = Vec::new();
    changes.encode(NS, &mut batch);
    w.engine.write(batch, false).unwrap();
    mended.into_iter().map(|p| p.text).collect()
}

#[test]
fn wrong_counts_are_made_right() {
    let mut w = World::new();
    let f = w.file("f");
    w.mkdir(Ino::ROOT, "d");
    w.run(commit(f, 100, vec![log(0, 100, 0)])).unwrap();
    w.run(relocate(f, 1)).unwrap();
    let before = (w.get(f), w.get(Ino::ROOT), w.view().counters().unwrap());

    let mut root = (*w.view().inode(Ino::ROOT).unwrap()).clone();
    (root.entries, root.attr.size, root.attr.nlink) = (9, 9 * DIRECTORY_ENTRY_BYTES, 7);
    damage(&w, Key::Inode(Ino::ROOT), Some(Value::Inode(root.into())));
    let mut file = (*w.view().inode(f).unwrap()).clone();
    (file.attr.nlink, file.attr.stored, file.xattr_names) = (3, 60, 20);
    damage(&w, Key::Inode(f), Some(Value::Inode(file.into())));
    let counters = Counters { next_ino: f, bytes: 5, inodes: 50, capabilities: 2, ..before.2 };
    damage(&w, Key::Counters, Some(Value::Counters(counters)));
    let mut object = w.view().find_object(ObjectId(1)).unwrap().unwrap();
    object.live = 150;
    damage(&w, Key::Object(ObjectId(1)), Some(Value::Object(object)));

    let mended = repaired(&w);
    assert_eq!(mended.len(), 10, "{mended:#?}");
    assert_eq!(check::check(&mut w.view()).unwrap(), []);
    assert_eq!((w.get(f), w.get(Ino::ROOT), w.view().counters().unwrap()), before);
    assert_eq!(w.view().find_object(ObjectId(1)).unwrap().unwrap().live, 100);
}

#[test]
fn where_something_is_lost_no_count_is_made_smaller() {
    let mut w = World::new();
    let (f, g) = (w.file("f"), w.file("g"));
    for (ino, id) in [(f, 1), (g, 2)] {
        w.run(commit(ino, 100, vec![log(0, 100, 0)])).unwrap();
        w.run(relocate(ino, id)).unwrap();
    }
    let counters = w.view().counters().unwrap();
    // A lost inode: the object with its bytes must not die for it.
    damage(&w, Key::Inode(g), None);
    let mut file = (*w.view().inode(f).unwrap()).clone();
    file.attr.stored = 60;
    damage(&w, Key::Inode(f), Some(Value::Inode(file.into())));
    let mended = repaired(&w);
    assert!(mended.len() == 1 && mended[0].contains("stored bytes is 60, should be 100"), "{mended:?}");
    assert_eq!(w.view().counters().unwrap(), counters);
    assert_eq!(w.view().find_object(ObjectId(2)).unwrap().unwrap().live, 100);
    // Lost extents are told, not counted away.
    let mut file = (*w.view().inode(f).unwrap()).clone();
    file.extents.clear();
    damage(&w, Key::Inode(f), Some(Value::Inode(file.into())));
    assert_eq!(repaired(&w), Vec::<String>::new());
    let found = check::check(&mut w.view()).unwrap();
    assert!(found.iter().any(|p| p.ino == Some(f) && p.text.contains("stored bytes is 100, should be 0")));
    assert!(found.iter().any(|p| p.object == Some(ObjectId(1)) && p.fix.is_none()));
}
