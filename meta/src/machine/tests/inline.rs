//! Copies of tiny files' bytes: there while they are the content, gone with it.

use super::*;

/// A namespace that keeps copies of up to `bytes_max` bytes, with a file whose content is in object 1.
fn world(bytes_max: u64) -> (World, Ino) {
    let mut w = World::new();
    let policy = PolicyChange { inline_bytes_max: Some(bytes_max), ..PolicyChange::default() };
    w.run(Operation::Configure { change: NamespaceChange { policy, ..NamespaceChange::default() } }).unwrap();
    let f = w.file("f");
    w.run(commit(f, 5, vec![unchecked(0, 5, 40)])).unwrap();
    w.run(moved(f, 1, vec![unchecked(0, 5, 40)])).unwrap();
    (w, f)
}

/// Bytes in the log, without a checksum.
fn unchecked(offset: u64, len: u64, at: u64) -> Extent {
    Extent { crc: 0, ..log(offset, len, at) }
}

/// One after the other into the object.
fn moved(f: Ino, id: u128, from: Vec<Extent>) -> Operation {
    let mut to_offset = 10;
    let moves = from.into_iter().map(|from| {
        to_offset += from.len;
        Move { ino: f, from, to_offset: to_offset - from.len }
    });
    Operation::Relocate { object: object(id, 100), moves: moves.collect() }
}

fn offer(f: Ino, bytes: &[u8]) -> NewInline {
    NewInline { ino: f, at: 10, crc: granary_core::crc32c(bytes), bytes: bytes.into() }
}

fn keep(id: u128, copy: NewInline) -> Operation {
    Operation::KeepInline { object: ObjectId(id), copies: vec![copy] }
}

fn kept(w: &World, f: Ino) -> Option<Vec<u8>> {
    read::inline(&mut w.view(), f).unwrap().map(|copy| copy.bytes.to_vec())
}

fn records(w: &World) -> usize {
    let mut n = 0;
    let visit = &mut |_, _| {
        n += 1;
        Ok(true)
    };
    w.view().scan(Span::All(crate::record::Family::Inline), None, visit).unwrap();
    n
}

#[test]
fn only_the_whole_present_content_is_kept() {
    let (mut w, f) = world(5);
    let version = w.get(f).version;
    for other in [
        keep(2, offer(f, b"hello")),
        keep(1, NewInline { at: 9, ..offer(f, b"hello") }),
        keep(1, offer(f, b"hell")),
        keep(1, offer(Ino(99), b"hello")),
        keep(1, offer(Ino::ROOT, b"hello")),
    ] {
        assert_eq!(w.run(other).unwrap(), Reply::Done);
        assert_eq!((kept(&w, f), records(&w)), (None, 0));
    }
    let damaged = NewInline { crc: 5, ..offer(f, b"hello") };
    assert_eq!(w.kind(keep(1, damaged)), Kind::Invalid);
    assert_eq!(w.kind(keep(1, offer(f, &[1; 2049]))), Kind::Invalid);
    w.run(keep(1, offer(f, b"hello"))).unwrap();
    assert_eq!(kept(&w, f).unwrap(), b"hello");
    assert_eq!((w.get(f).version, records(&w)), (version, 1), "it is no content of its own");
    // Longer ones than the namespace wants, and all where it wants none.
    let (mut w, f) = world(4);
    w.run(keep(1, offer(f, b"hello"))).unwrap();
    assert_eq!(records(&w), 0);
    let (mut w, f) = world(0);
    w.run(keep(1, offer(f, b"hello"))).unwrap();
    assert_eq!(records(&w), 0);
}

#[test]
fn a_checksum_of_the_extent_is_the_copys_too() {
    let (mut w, _) = world(5);
    let g = w.file("g");
    let from = Extent { crc: granary_core::crc32c(b"hello"), ..log(0, 5, 90) };
    w.run(commit(g, 5, vec![from])).unwrap();
    w.run(moved(g, 2, vec![from])).unwrap();
    w.run(keep(2, offer(g, b"jello"))).unwrap();
    assert_eq!(kept(&w, g), None);
    w.run(keep(2, offer(g, b"hello"))).unwrap();
    assert_eq!(kept(&w, g).unwrap(), b"hello");
}

#[test]
fn every_change_of_the_content_takes_the_copy_away() {
    let g_to = |f, g| {
        let copy = CopyRange { from: g, from_offset: 0, to: f, to_offset: 0, len: 5, staged_seq: 0 };
        Operation::CopyRange(copy)
    };
    let resize =
        |f, size| Operation::SetAttr { ino: f, set: SetAttr { size: Some(size), ..SetAttr::default() } };
    let hole = |f| {
        let Operation::Commit(c) = commit(f, 5, vec![]) else { unreachable!() };
        Operation::Commit(Commit { holes: vec![(1, 2)], ..c })
    };
    for which in 0..7 {
        let (mut w, f) = world(100);
        let g = w.file("g");
        w.run(commit(g, 5, vec![unchecked(0, 5, 90)])).unwrap();
        w.run(moved(g, 2, vec![unchecked(0, 5, 90)])).unwrap();
        w.run(keep(1, offer(f, b"hello"))).unwrap();
        assert!(kept(&w, f).is_some());
        let change = match which {
            0 => commit(f, 5, vec![unchecked(0, 5, 200)]),
            1 => commit(f, 9, vec![]),
            2 => hole(f),
            3 => resize(f, 4),
            4 => resize(f, 6),
            5 => resize(f, 0),
            _ => g_to(f, g),
        };
        w.run(change).unwrap();
        assert_eq!((kept(&w, f), records(&w)), (None, 0), "change {which}");
        // It was of the content before: coming back to the same place and length brings nothing back.
        w.run(keep(1, offer(f, b"hello"))).unwrap();
        assert_eq!(records(&w), 0, "change {which}");
    }
}

#[test]
fn what_is_no_change_of_the_content_leaves_it() {
    let (mut w, f) = world(100);
    w.run(keep(1, offer(f, b"hello"))).unwrap();
    w.run(commit(f, 5, vec![])).unwrap();
    w.run(Operation::SetAttr { ino: f, set: SetAttr { size: Some(5), mode: Some(0), ..SetAttr::default() } })
        .unwrap();
    w.run(rename(Ino::ROOT, "f", Ino::ROOT, "g", RenameMode::Replace)).unwrap();
    w.run(link(f, "h")).unwrap();
    w.run(unlink(Ino::ROOT, "g")).unwrap();
    assert_eq!(kept(&w, f).unwrap(), b"hello");
    // Compaction moves the bytes, and the old object does not have them any more.
    let in_object = w.extents(f)[0];
    w.run(moved(f, 7, vec![in_object])).unwrap();
    assert_eq!(kept(&w, f).unwrap(), b"hello");
    w.run(unlink(Ino::ROOT, "h")).unwrap();
    assert_eq!(kept(&w, f).unwrap(), b"hello", "it may be open");
    w.run(Operation::Free { ino: f, extents_max: 9 }).unwrap();
    assert_eq!(records(&w), 0);
}

#[test]
fn a_file_in_two_objects_has_none() {
    let (mut w, f) = world(100);
    w.run(keep(1, offer(f, b"hello"))).unwrap();
    let whole = w.extents(f)[0];
    w.run(moved(f, 7, vec![Extent { len: 2, ..whole }])).unwrap();
    assert_eq!((w.extents(f).len(), kept(&w, f), records(&w)), (2, None, 0));
}

#[test]
fn what_is_damaged_is_not_there_and_is_a_finding() {
    let (mut w, f) = world(100);
    w.run(keep(1, offer(f, b"hello"))).unwrap();
    let sound = read::inline(&mut w.view(), f).unwrap().unwrap();
    let key = Key::Inline(f).encode(NS);
    let put = |value: Vec<u8>| {
        w.engine.write(vec![crate::engine::Write::Put(key.clone(), value)], false).unwrap();
        (read::inline(&mut w.view(), f).unwrap(), check::check(&mut w.view()))
    };
    let encode = |copy: Inline| Value::Inline(copy.into()).encode();
    for (damage, text) in [
        (Inline { bytes: (*b"jello").into(), ..sound.clone() }, "is damaged"),
        (Inline { version: sound.version - 1, ..sound.clone() }, "that are not its content"),
        (Inline { bytes: (*b"hell").into(), ..sound.clone() }, "that are not its content"),
    ] {
        let (found, problems) = put(encode(damage));
        assert_eq!(found, None);
        let problems = problems.unwrap();
        assert!(problems.len() == 1 && problems[0].text.contains(text), "{problems:?}");
    }
    let (found, problems) = put(encode(sound.clone())[..8].to_vec());
    assert_eq!((found, problems.unwrap_err().kind()), (None, Kind::Corrupt));
    let (found, problems) = put(encode(sound.clone()));
    assert_eq!((found, problems.unwrap()), (Some(sound.clone()), vec![]));
    // It is in nobody's way: it is replaced, or goes with the content.
    put(encode(sound.clone())[..8].to_vec()).1.unwrap_err();
    w.run(keep(1, offer(f, b"hello"))).unwrap();
    assert_eq!(kept(&w, f).unwrap(), b"hello");
    w.engine.write(vec![crate::engine::Write::Put(key.clone(), vec![1])], false).unwrap();
    w.run(commit(f, 5, vec![unchecked(0, 5, 300)])).unwrap();
    assert_eq!(records(&w), 0);
}
