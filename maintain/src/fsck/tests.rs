//! Each kind of damage, made on purpose: found, named, and told what to do about.

use granary_core::{ObjectId, ObjectKind};
use granary_meta::Place;
use granary_meta::record::{Key, Value};
use granary_store::MemoryStore;

use super::*;
use crate::rig::{Between, Rig, named};

const FULL: FsckOptions = FsckOptions { data: true, quick: false, repair: false };

async fn check(rig: &Rig, options: FsckOptions) -> FsckReport {
    run(&rig.volume, &*rig.store, &[], options, &rig.progress()).await.unwrap()
}

/// The one problem there is.
async fn problem(rig: &Rig, options: FsckOptions) -> Finding {
    let report = check(rig, options).await;
    let problems: Vec<_> = report.findings.told.iter().filter(|f| f.what.is_problem()).collect();
    assert!(problems.len() == 1 && report.findings.problems == 1, "{:#?}", report.findings);
    problems[0].clone()
}

fn paths(finding: &Finding) -> Vec<&str> {
    finding.files.iter().map(|f| f.path.as_deref().unwrap_or("-")).collect()
}

fn id_of(key: &str) -> ObjectId {
    key.rsplit('/').next().unwrap().parse().unwrap()
}

/// Other bytes in an object's place.
fn tamper(store: &MemoryStore, key: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = store.object(key).unwrap().to_vec();
    change(&mut bytes);
    store.tamper(key, bytes.into());
}

#[tokio::test]
async fn a_sound_volume_has_no_finding() {
    let rig = Rig::new();
    rig.filled();
    rig.staged(Ino::ROOT, "staged", &[1; 77]);
    for options in [
        FsckOptions::default(),
        FULL,
        FsckOptions { quick: true, ..FULL },
        FsckOptions { repair: true, ..FULL },
    ] {
        let report = check(&rig, options).await;
        assert_eq!(report.findings, Findings::default());
        let c = &report.namespaces[0];
        assert_eq!(
            (c.namespace.as_str(), c.inodes, c.objects, c.bytes, c.staged_bytes),
            ("user/a", 6, 1, 15_003, 77)
        );
    }
}

#[tokio::test]
async fn a_lost_object_names_its_files() {
    let rig = Rig::new();
    let (_, key) = rig.filled();
    rig.store.delete(vec![key.clone()]).await.unwrap();
    let f = problem(&rig, FsckOptions { quick: true, ..FsckOptions::default() }).await;
    assert_eq!((f.what, f.object.as_deref()), (What::Lost, Some(key.as_str())));
    assert_eq!(paths(&f), ["/d/f0", "/d/f1", "/d/f2"]);
    let text = f.to_string();
    assert!(
        text.starts_with("user/a: an object with 15003 bytes of files is not in the store")
            && text.contains("copy of the bucket"),
        "{text}"
    );
}

#[tokio::test]
async fn a_truncated_object_is_found_by_the_listing() {
    let rig = Rig::new();
    let (_, key) = rig.filled();
    tamper(&rig.store, &key, |bytes| bytes.truncate(bytes.len() - 1));
    let f = problem(&rig, FsckOptions { quick: true, ..FsckOptions::default() }).await;
    assert_eq!((f.what, f.object, f.files_total), (What::Length, Some(key), 3));
}

#[tokio::test]
async fn a_flipped_bit_is_found_with_data_and_one_in_the_footer_without() {
    let rig = Rig::new();
    let (_, key) = rig.filled();
    tamper(&rig.store, &key, |bytes| bytes[7000] ^= 1);
    assert_eq!(check(&rig, FsckOptions::default()).await.findings, Findings::default());
    let f = problem(&rig, FULL).await;
    assert!(
        f.what == What::Damaged && f.object.as_ref() == Some(&key) && f.message.contains("checksum"),
        "{f}"
    );
    tamper(&rig.store, &key, |bytes| bytes[7000] ^= 1);
    assert_eq!(check(&rig, FULL).await.findings, Findings::default());
    tamper(&rig.store, &key, |bytes| {
        let at = bytes.len() - 40;
        bytes[at] ^= 1;
    });
    assert_eq!(problem(&rig, FsckOptions::default()).await.what, What::Damaged);
}

#[tokio::test]
async fn another_objects_bytes_are_found() {
    let rig = Rig::new();
    let bytes = |n| vec![n; 300];
    let keys: Vec<String> =
        (1..3).map(|n| rig.stored(&[rig.staged(Ino::ROOT, &format!("f{n}"), &bytes(n))])).collect();
    let second = rig.store.object(&keys[1]).unwrap();
    rig.store.tamper(&keys[0], second);
    let f = problem(&rig, FsckOptions::default()).await;
    assert!(f.what == What::Directory && paths(&f) == ["/f1"] && f.message.contains("there is"), "{f}");
}

#[tokio::test]
async fn an_extent_outside_or_of_another_kind_or_between_entries_is_found() {
    type Change = fn(&mut Place);
    let cases: [(What, Change, &str); 3] = [
        (
            What::Outside,
            |p| {
                if let Place::Object { offset, .. } = p {
                    *offset += 10_000_000
                }
            },
            "names bytes",
        ),
        (
            What::Outside,
            |p| {
                if let Place::Object { kind, .. } = p {
                    *kind = ObjectKind::Block
                }
            },
            "calls its object",
        ),
        // Bytes of the pack, but not the file's own entry: its checksum is another.
        (
            What::Directory,
            |p| {
                if let Place::Object { offset, .. } = p {
                    *offset = 0
                }
            },
            "no entry",
        ),
    ];
    for (what, change, part) in cases {
        let rig = Rig::new();
        let files: Vec<_> = (0..2).map(|i| rig.staged(Ino::ROOT, &format!("f{i}"), &[i + 1; 500])).collect();
        rig.stored(&files);
        let ino = files[1].ino;
        let rig = rig.damaged(Key::Inode(ino), |value| {
            if let Value::Inode(inode) = value {
                change(&mut Arc::make_mut(inode).extents[0].place);
            }
        });
        let report = check(&rig, FsckOptions::default()).await;
        let f = report
            .findings
            .told
            .iter()
            .find(|f| f.what == what)
            .unwrap_or_else(|| panic!("{:#?}", report.findings));
        assert!(paths(f) == ["/f1"] && f.message.contains(part), "{f}");
    }
}

#[tokio::test]
async fn an_extents_own_checksum_counts_with_data() {
    let rig = Rig::new();
    // Part of an entry: only the extent's checksum can tell.
    let (files, _) = rig.filled();
    let rig = rig.damaged(Key::Inode(files[0]), |value| {
        if let Value::Inode(inode) = value {
            let inode = Arc::make_mut(inode);
            (inode.extents[0].len, inode.extents[0].crc) = (4000, 99);
        }
    });
    let report = check(&rig, FULL).await;
    assert!(
        report.findings.told.iter().any(|f| f.what == What::Damaged && paths(f) == ["/d/f0"]),
        "{:#?}",
        report.findings
    );
}

#[tokio::test]
async fn an_object_that_metadata_does_not_know_is_a_note_and_one_that_files_name_a_problem() {
    let rig = Rig::new();
    let (files, _) = rig.filled();
    let (sealed, _) = rig.pack(&[rig.staged(Ino::ROOT, "g", b"on its way")]);
    rig.put(&sealed);
    rig.store.put(&format!("ns/{}/p/README", rig.ns), vec!["x".into()]).await.unwrap();
    let report = check(&rig, FULL).await;
    assert_eq!(report.findings.problems, 0);
    assert_eq!(
        report.findings.told.iter().map(|f| f.what).collect::<Vec<_>>(),
        [What::Strange, What::Unnamed]
    );
    assert_eq!(
        (report.namespaces[0].unnamed_objects, report.namespaces[0].unnamed_bytes),
        (1, sealed.info.total_len)
    );

    let rig = rig.damaged(Key::Inode(files[2]), |value| {
        if let Value::Inode(inode) = value
            && let Place::Object { id, .. } = &mut Arc::make_mut(inode).extents[0].place
        {
            *id = ObjectId(9);
        }
    });
    let report = check(&rig, FsckOptions::default()).await;
    let f = report.findings.told.iter().find(|f| f.message.contains("which is not known")).unwrap();
    assert_eq!(paths(f), ["/d/f2"]);
}

#[tokio::test]
async fn wrong_counts_are_found_and_repaired() {
    let rig = Rig::new();
    let (_, key) = rig.filled();
    let rig = rig.damaged(Key::Object(id_of(&key)), |value| {
        if let Value::Object(record) = value {
            record.live += 17;
        }
    });
    let f = problem(&rig, FsckOptions::default()).await;
    assert_eq!((f.what, f.object.as_ref()), (What::Metadata, Some(&key)));
    assert!(f.message.contains("counts 15020 live bytes") && f.mend.contains("--repair"), "{f}");
    let report = check(&rig, FsckOptions { repair: true, ..FULL }).await;
    assert_eq!((report.findings.problems, report.findings.repaired), (0, 1));
    assert_eq!(check(&rig, FULL).await.findings, Findings::default());
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_a_finding() {
    let rig = Rig::new();
    let (files, _) = rig.filled();
    rig.volume.flush().unwrap();
    let key = Key::Inode(files[0]).encode(rig.ns);
    rig.engine.write(vec![granary_meta::engine::Write::Put(key, vec![1, 99])], true).unwrap();
    let f = problem(&rig, FULL).await;
    assert!(f.message.contains("cannot be read") && f.mend.contains("backup"), "{f}");
}

/// What nodes do between the listing and the look at the metadata is no finding.
#[tokio::test]
async fn what_changes_meanwhile_is_not_told() {
    // Stored and named after the listing.
    let rig = Arc::new(Rig::new());
    rig.filled();
    let between = Between::new(&rig.store);
    let acting = rig.clone();
    *between.after_list.lock().unwrap() = Some(Box::new(move || {
        acting.stored(&[acting.staged(Ino::ROOT, "new", b"new bytes")]);
    }));
    let report = run(&rig.volume, &between, &[], FULL, &rig.progress()).await.unwrap();
    assert_eq!((report.findings, report.namespaces[0].objects), (Findings::default(), 2));

    // Known as live when the metadata is read; dead, deleted and forgotten when it is looked for.
    let known = Known::read(&rig.volume, rig.ns, &rig.progress()).unwrap().unwrap();
    rig.unlink(Ino::ROOT, "new");
    let dead = futures::executor::block_on(granary_meta::Metadata::dead_objects(&*rig.space, 9)).unwrap();
    assert_eq!(dead.len(), 1);
    let key = object_key(rig.ns, dead[0].object.kind, dead[0].object.id);
    rig.store.delete(vec![key]).await.unwrap();
    let progress = rig.progress();
    let listed = Listed::read(&*rig.store, rig.ns, &progress).await.unwrap();
    let options = FULL;
    let name = "user/a".to_owned();
    let mut check = Check {
        volume: &rig.volume,
        store: &*rig.store,
        name,
        ns: rig.ns,
        options,
        progress: &progress,
        findings: vec![],
    };
    check.compare(&known, &listed).await.unwrap();
    assert!(check.findings.is_empty(), "{:?}", check.findings);
}

#[tokio::test]
async fn namespaces_are_chosen_by_name_and_a_store_that_does_not_answer_is_an_error() {
    let rig = Rig::new();
    rig.volume.create_namespace(named("group/b")).unwrap();
    assert_eq!(check(&rig, FULL).await.namespaces.len(), 2);
    let one = ["group/b".parse().unwrap()];
    let report = run(&rig.volume, &*rig.store, &one, FULL, &rig.progress()).await.unwrap();
    assert_eq!(report.namespaces.iter().map(|c| c.namespace.as_str()).collect::<Vec<_>>(), ["group/b"]);
    let none = ["user/none".parse().unwrap()];
    assert_eq!(
        run(&rig.volume, &*rig.store, &none, FULL, &rig.progress()).await.unwrap_err().kind(),
        Kind::NotFound
    );
    let faulty = granary_store::FaultStore::new(rig.store.clone(), 1);
    faulty.script(granary_store::Operation::List, granary_store::Fault::SlowDown, 1);
    let e = run(&rig.volume, &faulty, &[], FULL, &rig.progress()).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Unavailable);
}
