//! What is deleted, what never is, and every order in which a node and a collection may meet.

use granary_core::Ino;
use granary_meta::Place;
use granary_meta::engine::{Engine, MemoryEngine};
use granary_store::{Fault, FaultStore, Operation};

use super::*;
use crate::rig::{Between, Rig, info, named};

const HOUR_MS: u64 = 3_600_000;

fn deleting() -> GcOptions {
    GcOptions { grace_ms: HOUR_MS, delete: true }
}

async fn gc(rig: &Rig, store: &dyn Store, delete: bool) -> GcReport {
    let options = GcOptions { grace_ms: HOUR_MS, delete };
    run(&rig.volume, store, &*rig.clock, &[], options, &rig.progress()).await.unwrap()
}

/// Objects found for this reason, and deleted.
fn heap(report: &GcReport, why: Why) -> (u64, u64) {
    let of_why = report.heaps.iter().filter(|h| h.why == why);
    of_why.fold((0, 0), |sum, h| (sum.0 + h.heap.objects, sum.1 + h.heap.deleted_objects))
}

#[tokio::test]
async fn what_a_crash_left_goes_when_it_is_old_enough_and_nothing_else_does() {
    let rig = Rig::new();
    let (_, live) = rig.filled();
    rig.later(7200);
    let file = rig.staged(Ino::ROOT, "g", b"stored, never named");
    let (sealed, _) = rig.pack(&[file]);
    let left = rig.put(&sealed);
    rig.store.put(&format!("ns/{}/notes.txt", rig.ns), vec!["x".into()]).await.unwrap();
    rig.store.put("meta-backup/x", vec!["x".into()]).await.unwrap();

    let report = gc(&rig, &*rig.store, true).await;
    assert_eq!(
        (heap(&report, Why::Young), heap(&report, Why::Strange), report.garbage()),
        ((1, 0), (1, 0), (0, 0))
    );
    rig.later(3599);
    assert_eq!(heap(&gc(&rig, &*rig.store, true).await, Why::Young), (1, 0));
    rig.later(1);
    let report = gc(&rig, &*rig.store, false).await;
    assert_eq!((heap(&report, Why::Unnamed), report.garbage()), ((1, 0), (1, sealed.info.total_len)));
    let told = report.objects.iter().find(|o| o.why == Why::Unnamed).unwrap();
    assert_eq!((told.key.as_str(), told.age_ms), (left.as_str(), HOUR_MS));
    assert_eq!(rig.keys().len(), 4, "without delete nothing goes");

    let report = gc(&rig, &*rig.store, true).await;
    assert_eq!((heap(&report, Why::Unnamed), report.gone()), ((1, 1), (1, sealed.info.total_len)));
    assert_eq!(rig.keys(), ["meta-backup/x", &format!("ns/{}/notes.txt", rig.ns), &live]);
    assert_eq!(gc(&rig, &*rig.store, true).await.garbage(), (0, 0));
}

#[tokio::test]
async fn with_everything_deleted_nothing_is_left() {
    let rig = Rig::new();
    rig.filled();
    rig.put(&rig.pack(&[rig.staged(Ino::ROOT, "g", b"unnamed")]).0);
    let dir = rig.lookup(Ino::ROOT, "d").ino;
    (0..3).for_each(|i| rig.unlink(dir, &format!("f{i}")));
    // Readers may still be on their way to what has just died.
    let report = gc(&rig, &*rig.store, true).await;
    assert_eq!((heap(&report, Why::Dead), rig.keys().len()), ((0, 0), 2));
    assert_eq!(heap(&gc(&rig, &*rig.store, false).await, Why::Dead), (1, 0));
    rig.later(3600);
    let report = gc(&rig, &*rig.store, true).await;
    assert_eq!((heap(&report, Why::Dead), heap(&report, Why::Unnamed)), ((1, 1), (1, 1)));
    assert_eq!(rig.keys().len(), 0);
    assert_eq!(rig.space.check().unwrap(), []);
    assert_eq!(gc(&rig, &*rig.store, true).await.heaps, []);
}

#[tokio::test]
async fn objects_of_a_removed_namespace_go_and_of_one_that_is_not_made_yet_stay() {
    let rig = Rig::new();
    let gone = rig.volume.create_namespace(named("group/gone")).unwrap().id;
    rig.volume.remove_namespace(&"group/gone".parse().unwrap(), true).unwrap();
    for (ns, n) in [(gone, 1), (gone, 2), (NamespaceId(gone.0 + 1), 3)] {
        let key = object_key(ns, granary_core::ObjectKind::Block, ObjectId(n));
        rig.store.put(&key, vec!["bytes".into()]).await.unwrap();
    }
    let report = gc(&rig, &*rig.store, true).await;
    assert_eq!((heap(&report, Why::Removed), heap(&report, Why::Later)), ((2, 2), (1, 0)));
    assert!(report.heaps.iter().any(|h| h.namespace == format!("removed {gone}")), "{report:#?}");
    assert_eq!(rig.keys().len(), 1);
    // Asked about one namespace, others are not looked at.
    let names = ["user/a".parse().unwrap()];
    let report =
        run(&rig.volume, &*rig.store, &*rig.clock, &names, deleting(), &rig.progress()).await.unwrap();
    assert_eq!(report.heaps, []);
}

/// A node hung between PUT and naming for longer than the grace, and goes on at each possible moment.
#[tokio::test]
async fn a_node_that_names_its_object_late_loses_nothing() {
    for moment in ["before", "after the listing", "before the deletion", "after"] {
        let rig = Arc::new(Rig::new());
        let file = rig.staged(Ino::ROOT, "f", b"bytes that must not be lost");
        let (ino, extent) = (file.ino, file.extent);
        let (sealed, moves) = rig.pack(&[file]);
        let key = rig.put(&sealed);
        rig.later(7200);
        let (acting, outcome) = (rig.clone(), Arc::new(std::sync::Mutex::new(None)));
        let told = outcome.clone();
        let go_on = move || *told.lock().unwrap() = Some(acting.relocate(&sealed, moves));
        let between = Between::new(&rig.store);
        let mut after: Option<Box<dyn FnOnce() + Send>> = None;
        match moment {
            "before" => go_on(),
            "after the listing" => *between.after_list.lock().unwrap() = Some(Box::new(go_on)),
            "before the deletion" => *between.before_delete.lock().unwrap() = Some(Box::new(go_on)),
            _ => after = Some(Box::new(go_on)),
        }
        gc(&rig, &between, true).await;
        if let Some(act) = after {
            act();
        }
        let outcome = outcome.lock().unwrap().take().expect("the node went on");
        let place = futures::executor::block_on(rig.space.extents(ino)).unwrap().1[0].place;
        match outcome {
            Ok(parts) => {
                assert!(["before", "after the listing"].contains(&moment), "{moment}");
                assert_eq!(parts, [[(0, 27)]]);
                assert!(
                    matches!(place, Place::Object { .. }) && rig.store.object(&key).is_some(),
                    "{moment}"
                );
            }
            Err(e) => {
                assert!(["before the deletion", "after"].contains(&moment), "{moment}: {e}");
                assert_eq!((e.kind(), place), (Kind::Stale, extent.place));
                assert!(rig.store.object(&key).is_none());
            }
        }
        assert_eq!(rig.space.check().unwrap(), []);
    }
}

/// A PUT that arrives after the deletion: what it brings back goes again, at once.
#[tokio::test]
async fn a_put_that_comes_late_brings_back_garbage_only() {
    let rig = Rig::new();
    let (sealed, moves) = rig.pack(&[rig.staged(Ino::ROOT, "f", b"bytes")]);
    rig.put(&sealed);
    rig.later(7200);
    gc(&rig, &*rig.store, true).await;
    rig.put(&sealed);
    assert_eq!(rig.relocate(&sealed, moves).unwrap_err().kind(), Kind::Stale);
    assert_eq!(heap(&gc(&rig, &*rig.store, true).await, Why::Unnamed), (1, 1));
    assert_eq!(rig.keys().len(), 0);
}

/// The order of writes: condemned durably, then deleted. A power loss before the deletion leaves an object that is never named.
#[tokio::test]
async fn what_is_deleted_is_condemned_durably_before() {
    let engine = Arc::new(MemoryEngine::default());
    Volume::init(&*engine, &info()).unwrap();
    let rig = Rig::over(engine.clone(), Arc::default());
    let (sealed, _) = rig.pack(&[rig.staged(Ino::ROOT, "f", b"bytes")]);
    let key = rig.put(&sealed);
    rig.later(7200);
    let store = FaultStore::new(rig.store.clone(), 1);
    store.script(Operation::Delete, Fault::Before(Kind::Unavailable), 1);
    let e = run(&rig.volume, &store, &*rig.clock, &[], deleting(), &rig.progress()).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Unavailable);
    // A power loss now leaves what was synced.
    let record = granary_meta::record::Key::Condemned(sealed.info.id).encode(rig.ns);
    assert_eq!(engine.unsynced_batches(), 0);
    assert!(engine.get(&record).unwrap().is_some());
    assert!(rig.store.object(&key).is_some());
    // The next run needs no grace for it.
    let options = GcOptions { grace_ms: u64::MAX, delete: true };
    run(&rig.volume, &store, &*rig.clock, &[], options, &rig.progress()).await.unwrap();
    assert!(rig.store.object(&key).is_none());
}

#[tokio::test]
async fn many_objects_go_in_pages() {
    let rig = Rig::new();
    for n in 0..2500u128 {
        let key = object_key(rig.ns, granary_core::ObjectKind::Pack, ObjectId(n));
        rig.store.put(&key, vec!["x".into()]).await.unwrap();
    }
    rig.later(7200);
    let report = gc(&rig, &*rig.store, true).await;
    assert_eq!((report.gone(), report.objects.len()), ((2500, 2500), OBJECTS_TOLD_MAX));
    assert_eq!(rig.keys().len(), 0);
}

#[tokio::test]
async fn another_volumes_store_is_not_touched() {
    let rig = Rig::new();
    let other = granary_store::MemoryStore::new(rig.clock.clone());
    let key = object_key(rig.ns, granary_core::ObjectKind::Pack, ObjectId(1));
    other.put(&key, vec!["another volume's".into()]).await.unwrap();
    rig.later(7200);
    for (marked, kind) in [(false, Kind::NotFound), (true, Kind::Invalid)] {
        if marked {
            granary_store::marker::write(&other, &"cd".repeat(16)).await.unwrap();
        }
        let e = run(&rig.volume, &other, &*rig.clock, &[], deleting(), &rig.progress()).await.unwrap_err();
        assert_eq!(e.kind(), kind);
        assert!(other.object(&key).is_some());
    }
}
