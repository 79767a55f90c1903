use std::sync::Arc;
use std::task::{Context, Waker};

use futures::executor::block_on;
use granary_core::{EntryName, Ino, NodeId, TestClock};
use proptest::prelude::*;

use super::*;
use crate::Metadata;
use crate::engine::{FaultyEngine, MemoryEngine, RocksEngine};
use crate::types::*;

mod driver;
mod model;
mod redo;
mod trash;

use driver::{Action, Driver, action, difference, listing};

fn info() -> VolumeInfo {
    VolumeInfo {
        uuid: "0123456789abcdef0123456789abcdef".into(),
        store_url: "file:///x".into(),
        created_unix_ms: 5,
    }
}

/// A committer that does nothing unless asked.
fn quiet() -> Limits {
    Limits { commit_interval_ms: 60_000, sync_interval_ms: 600_000, ..Limits::default() }
}

/// A committer that is always busy.
fn busy() -> Limits {
    Limits { commit_interval_ms: 1, sync_interval_ms: 3, ..Limits::default() }
}

fn new_namespace(name: &str) -> NewNamespace {
    let name = name.parse().unwrap();
    NewNamespace {
        name,
        uid: 7,
        gid: 8,
        mode: 0o755,
        bytes_max: 0,
        inodes_max: 0,
        durability: Durability::Local,
        trash_ms: TRASH_MS_DEFAULT,
        packed: None,
    }
}

fn volume_on(engine: Arc<dyn Engine>, clock: Arc<TestClock>, limits: &Limits, tuning: Tuning) -> Arc<Volume> {
    Volume::init(&*engine, &info()).unwrap();
    let volume = Volume::open_tuned(engine, clock, limits, tuning).unwrap();
    volume.create_namespace(new_namespace("user/a")).unwrap();
    volume
}

fn user_a(volume: &Volume) -> Arc<LocalNamespace> {
    volume.namespace(&"user/a".parse().unwrap()).unwrap()
}

fn volume() -> Arc<Volume> {
    volume_on(MemoryEngine::new(), Arc::default(), &quiet(), Tuning::default())
}

fn name(s: &str) -> EntryName<'_> {
    EntryName::new(s.as_bytes()).unwrap()
}

fn new_file() -> NewInode {
    NewInode { kind: FileType::File, mode: 0o644, umask: 0, uid: 1, gid: 2, rdev: 0, target: vec![] }
}

fn create(space: &LocalNamespace, file: &str) -> Result<Attr> {
    block_on(space.create(Ino::ROOT, name(file), new_file(), false))
}

fn commit(space: &LocalNamespace, ino: Ino, pieces: u64) -> Attr {
    let extents = (0..pieces)
        .map(|i| Extent {
            offset: i * 10,
            len: 5,
            place: Place::Log { node: NodeId(1), segment: 1, offset: i * 100 },
            crc: 1,
        })
        .collect();
    let mtime = granary_core::Timestamp::default();
    let commit =
        Commit { ino, size: pieces * 10, mtime, ctime: mtime, extents, holes: vec![], staged_seq: 1 };
    block_on(space.commit(commit)).unwrap()
}

/// A checksum of all that is in an engine.
fn digest(engine: &dyn Engine) -> (u32, usize) {
    let (mut crc, mut records) = (0, 0);
    engine
        .scan(b"", b"", &mut |key, value| {
            crc = granary_core::crc32c_append(granary_core::crc32c_append(crc, key), value);
            records += 1;
            Ok(true)
        })
        .unwrap();
    (crc, records)
}

fn run(actions: &[Action], engine: Arc<dyn Engine>, limits: &Limits, tuning: Tuning) -> (u32, usize) {
    let clock = Arc::new(TestClock::default());
    let volume = volume_on(engine.clone(), clock.clone(), limits, tuning);
    // Nothing is purged when it pleases the committer.
    volume.begin_service();
    let mut driver = Driver::new(user_a(&volume), clock);
    actions.iter().for_each(|action| driver.act(action));
    driver.compare();
    volume.flush().unwrap();
    let ns = driver.space.id();
    assert_eq!(machine::check::check(&mut EngineView { engine: &*engine, ns }).unwrap(), []);
    driver.compare();
    digest(&*engine)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 4000, ..ProptestConfig::default() })]

    /// The reference tree agrees after every operation, and the same operations leave the same bytes: whatever the
    /// committer did meanwhile, however small the cache.
    #[test]
    fn random_operations_agree_with_the_model(actions in prop::collection::vec(action(), 1..120)) {
        let small = Tuning { cached_records_max: 6, pending_bytes_max: 2000 };
        let first = run(&actions, MemoryEngine::new(), &quiet(), Tuning::default());
        let second = run(&actions, MemoryEngine::new(), &busy(), small);
        prop_assert_eq!(first, second);
    }

    /// After a power loss the state is one that was, not older than the last sync that returned.
    #[test]
    fn a_crash_leaves_a_state_that_was(actions in prop::collection::vec(action(), 1..80), keep in 0usize..6, fast: bool) {
        let clock = Arc::new(TestClock::default());
        let engine = Arc::new(MemoryEngine::default());
        let tuning = Tuning { pending_bytes_max: 4000, ..Tuning::default() };
        let limits = if fast { busy() } else { quiet() };
        let volume = volume_on(engine.clone(), clock.clone(), &limits, tuning);
        volume.begin_service();
        let mut driver = Driver::new(user_a(&volume), clock.clone());
        let mut states = vec![driver.model.clone()];
        let mut synced = 0;
        for action in &actions {
            driver.act(action);
            states.append(&mut driver.between);
            states.push(driver.model.clone());
            if matches!(action, Action::Sync) { synced = states.len() - 1; }
        }
        let survivor: Arc<dyn Engine> = Arc::new(engine.crash(keep));
        let volume_after = Volume::open_served(survivor, clock.clone(), &quiet(), Tuning::default()).unwrap();
        volume_after.free_orphans().unwrap();
        let space = user_a(&volume_after);
        prop_assert_eq!(space.check().unwrap(), []);
        let now = driver.model.now;
        let found = states[synced..].iter().find(|s| difference(&space, &(*s).clone().crashed(now)).is_none());
        prop_assert!(found.is_some(), "{:?}", difference(&space, &states[synced].clone().crashed(now)));
    }

    /// Entries that are there all the time are listed exactly once, whatever comes and goes between two pages.
    #[test]
    fn cookies_stay_valid(
        page in 1usize..9,
        changes in prop::collection::vec((any::<bool>(), 0u32..40, any::<bool>()), 0..60),
    ) {
        let volume = volume();
        let space = user_a(&volume);
        for i in 0..40 { create(&space, &format!("f{i}")).unwrap(); }
        let mut stays = [true; 40];
        let mut seen = [0; 40];
        let mut changes = changes.into_iter();
        let mut cookie = 0;
        let mut made = 0;
        loop {
            let entries = block_on(space.readdir(Ino::ROOT, cookie, page, false)).unwrap();
            let Some(last) = entries.last() else { break };
            prop_assert!(entries.len() <= page && entries[0].cookie > cookie);
            cookie = last.cookie;
            for e in &entries {
                let text = String::from_utf8(e.name.clone()).unwrap();
                if let Ok(i) = text[1..].parse::<usize>() && text.starts_with('f') { seen[i] += 1; }
            }
            for (add, i, sync) in changes.by_ref().take(3) {
                let file = format!("f{i}");
                if add {
                    made += 1;
                    create(&space, &format!("new{made}")).unwrap();
                    // Over an existing name: it stays where it is in the listing.
                    if stays[i as usize] {
                        let (from, to) = (format!("new{made}"), name(&file));
                        block_on(space.rename(Ino::ROOT, name(&from), Ino::ROOT, to, RenameMode::Replace)).unwrap();
                    }
                } else if std::mem::replace(&mut stays[i as usize], false) {
                    block_on(space.unlink(Ino::ROOT, name(&file))).unwrap();
                }
                if sync { block_on(space.sync()).unwrap(); }
            }
        }
        for (i, stays) in stays.iter().enumerate() {
            prop_assert!(seen[i] == 1 || (!stays && seen[i] == 0), "f{} was listed {} times", i, seen[i]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 500, ..ProptestConfig::default() })]

    #[test]
    fn rocks_and_memory_end_with_the_same_bytes(actions in prop::collection::vec(action(), 50..200)) {
        let dir = tempfile::tempdir().unwrap();
        let rocks = run(&actions, RocksEngine::open(dir.path()).unwrap(), &busy(), Tuning::default());
        prop_assert_eq!(rocks, run(&actions, MemoryEngine::new(), &quiet(), Tuning::default()));
    }
}

#[test]
fn a_volume_survives_its_restart_in_rocks() {
    let dir = tempfile::tempdir().unwrap();
    let engine = RocksEngine::open(dir.path()).unwrap();
    let first = volume_on(engine, Arc::default(), &quiet(), Tuning::default());
    let space = user_a(&first);
    let made = create(&space, "f").unwrap();
    drop(space);
    first.shutdown().unwrap();
    first.shutdown().unwrap();
    let engine = RocksEngine::open(dir.path()).unwrap();
    let again = Volume::open(engine, Arc::new(TestClock::default()), &quiet()).unwrap();
    assert_eq!(again.info(), &info());
    assert_eq!(block_on(user_a(&again).lookup(Ino::ROOT, name("f"))).unwrap(), made);
}

#[test]
fn init_refuses_a_volume_and_other_data_and_open_wants_one() {
    let engine = MemoryEngine::new();
    let open = Volume::open(engine.clone(), Arc::new(TestClock::default()), &quiet());
    assert_eq!(open.unwrap_err().kind(), Kind::NotFound);
    let bad = VolumeInfo { uuid: "x".into(), ..info() };
    assert_eq!(Volume::init(&*engine, &bad).unwrap_err().kind(), Kind::Invalid);
    Volume::init(&*engine, &info()).unwrap();
    assert_eq!(Volume::init(&*engine, &info()).unwrap_err().kind(), Kind::Exists);
    let other = MemoryEngine::new();
    other.write(vec![Write::Put(b"x".to_vec(), vec![])], true).unwrap();
    assert_eq!(Volume::init(&*other, &info()).unwrap_err().kind(), Kind::Exists);
    let volume = Volume::open(engine, Arc::new(TestClock::default()), &quiet()).unwrap();
    volume.check_uuid("0123456789ABCDEF0123456789abcdef").unwrap();
    let e = volume.check_uuid("ffff").unwrap_err();
    assert!(e.to_string().contains("belongs to volume ffff"), "{e}");
}

#[test]
fn a_newer_format_is_refused() {
    let engine = MemoryEngine::new();
    let mut bytes = records::encode_volume(&info());
    bytes[1] = 2;
    engine.write(vec![Write::Put(records::VOLUME_KEY.to_vec(), bytes)], true).unwrap();
    let e = Volume::open(engine, Arc::new(TestClock::default()), &quiet()).unwrap_err();
    assert_eq!(e.kind(), Kind::Unsupported);
    assert!(e.to_string().contains("format 2") && e.to_string().contains("newer granary"), "{e}");
}

#[test]
fn namespaces_are_made_listed_changed_and_removed() {
    let volume = volume();
    let b = volume.create_namespace(new_namespace("group/b")).unwrap();
    assert_eq!((b.id, b.uid, b.gid, b.mode, b.usage.inodes), (NamespaceId(2), 7, 8, 0o755, 1));
    assert_eq!(volume.create_namespace(new_namespace("group/b")).unwrap_err().kind(), Kind::Exists);
    let names =
        |v: &Volume| v.namespaces().unwrap().into_iter().map(|n| n.name.to_string()).collect::<Vec<_>>();
    assert_eq!(names(&volume), ["group/b", "user/a"]);
    let space = volume.namespace(&b.name).unwrap();
    assert!(Arc::ptr_eq(&space, &volume.namespace_by_id(b.id).unwrap()));
    let change = NamespaceChange {
        bytes_max: Some(99),
        mode: Some(0o700),
        durability: Some(Durability::Object),
        policy: PolicyChange { small_period_ms: Some(500), uploads_max: Some(9), ..PolicyChange::default() },
        ..NamespaceChange::default()
    };
    let changed = volume.set_namespace(&b.name, change).unwrap();
    assert_eq!((changed.usage.bytes_max, changed.mode), (99, 0o700));
    assert_eq!((space.headroom(), space.durability()), (99, Durability::Object));
    assert_eq!(space.write_settings().policy, changed.policy);
    assert_eq!((changed.policy.small_period_ms, changed.policy.uploads_max), (Some(500), Some(9)));
    // One goes back to the node's limits, the other stays; what cannot work changes nothing.
    let back = PolicyChange { small_period_ms: Some(0), ..PolicyChange::default() };
    let policy = |policy| NamespaceChange { policy, ..NamespaceChange::default() };
    volume.set_namespace(&b.name, policy(back)).unwrap();
    let bad = PolicyChange { small_period_ms: Some(1), uploads_max: Some(1000), ..PolicyChange::default() };
    let e = volume.set_namespace(&b.name, policy(bad)).unwrap_err();
    assert!(e.kind() == Kind::Invalid && e.to_string().contains("uploads_max = 1000"), "{e}");
    let now = space.write_settings().policy;
    assert_eq!((now.small_period_ms, now.uploads_max), (None, Some(9)));
    // A chmod of the mounted root shows.
    block_on(space.setattr(Ino::ROOT, SetAttr { mode: Some(0o711), ..SetAttr::default() })).unwrap();
    assert_eq!(volume.namespace_info(&b.name).unwrap().mode, 0o711);

    create(&space, "f").unwrap();
    assert_eq!(volume.remove_namespace(&b.name, false).unwrap_err().kind(), Kind::NotEmpty);
    assert_eq!(volume.remove_namespace(&b.name, true).unwrap_err().kind(), Kind::Busy);
    drop(space);
    volume.remove_namespace(&b.name, true).unwrap();
    assert_eq!(volume.namespace(&b.name).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(volume.namespace_by_id(b.id).unwrap_err().kind(), Kind::NotFound);
    // What was pending does not come back, and the id is not used again.
    volume.flush().unwrap();
    let mut left = 0;
    let prefix = b.id.0.to_be_bytes();
    volume
        .shared
        .engine
        .scan(&prefix, &prefix, &mut |_, _| {
            left += 1;
            Ok(true)
        })
        .unwrap();
    assert_eq!(left, 0);
    assert_eq!(volume.create_namespace(new_namespace("group/b")).unwrap().id, NamespaceId(3));
    let missing = volume.remove_namespace(&"user/none".parse().unwrap(), true).unwrap_err();
    assert!(missing.to_string().contains("granary ns list"), "{missing}");
}

#[test]
fn namespaces_do_not_see_each_other() {
    let volume = volume();
    let b = volume.create_namespace(new_namespace("user/b")).unwrap();
    let (a, b) = (user_a(&volume), volume.namespace(&b.name).unwrap());
    let of_a = create(&a, "f").unwrap();
    assert_eq!(block_on(b.lookup(Ino::ROOT, name("f"))).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(create(&b, "g").unwrap().ino, of_a.ino);
    volume.flush().unwrap();
    assert_eq!(listing(&a, Ino::ROOT, 10).unwrap().len(), 1);
    assert_eq!(listing(&b, Ino::ROOT, 10).unwrap()[0].name, b"g");
}

#[test]
fn an_unlinked_open_file_lives_until_its_last_close() {
    let volume = volume();
    let space = user_a(&volume);
    let ino = block_on(space.create(Ino::ROOT, name("f"), new_file(), true)).unwrap().ino;
    block_on(space.open(ino)).unwrap();
    commit(&space, ino, 8);
    assert_eq!(block_on(space.unlink(Ino::ROOT, name("f"))).unwrap().nlink, 0);
    space.close(ino);
    assert_eq!(commit(&space, ino, 9).stored, 45);
    volume.flush().unwrap();
    space.close(ino);
    assert_eq!(block_on(space.getattr(ino)).unwrap_err().kind(), Kind::Stale);
    assert_eq!(block_on(space.open(ino)).unwrap_err().kind(), Kind::Stale);
    assert_eq!((space.usage().bytes, space.usage().inodes), (0, 1));
    // One close too many is logged, not counted.
    space.close(ino);
    assert_eq!(space.check().unwrap(), []);
}

#[test]
fn orphans_of_a_crash_are_freed_at_open() {
    let clock = Arc::new(TestClock::default());
    let engine = Arc::new(MemoryEngine::default());
    let volume = volume_on(engine.clone(), clock.clone(), &quiet(), Tuning::default());
    let space = user_a(&volume);
    let ino = block_on(space.create(Ino::ROOT, name("f"), new_file(), true)).unwrap().ino;
    commit(&space, ino, 3000);
    block_on(space.unlink(Ino::ROOT, name("f"))).unwrap();
    block_on(space.sync()).unwrap();
    assert_eq!(space.usage().bytes, 15_000);
    let again = Volume::open(Arc::new(engine.crash(0)), clock, &quiet()).unwrap();
    let space = user_a(&again);
    assert_eq!((space.usage().bytes, space.usage().inodes), (0, 1));
    assert_eq!(space.check().unwrap(), []);
}

#[test]
fn a_huge_file_is_freed_by_the_committer_step_by_step() {
    let volume = volume();
    let space = user_a(&volume);
    let ino = create(&space, "f").unwrap().ino;
    commit(&space, ino, 5000);
    block_on(space.unlink(Ino::ROOT, name("f"))).unwrap();
    assert_eq!(block_on(space.getattr(ino)).unwrap_err().kind(), Kind::Stale);
    let after_one_step = space.usage().bytes;
    assert!(after_one_step > 0 && after_one_step < 25_000, "{after_one_step}");
    // Each flush lets the committer make a round; each round makes progress.
    for _ in 0..10 {
        volume.flush().unwrap();
    }
    assert_eq!(space.usage().bytes, 0);
    assert_eq!(space.check().unwrap(), []);
}

#[test]
fn many_who_sync_share_one() {
    let faulty = FaultyEngine::new(Arc::new(MemoryEngine::default()));
    let volume = volume_on(faulty.clone(), Arc::default(), &quiet(), Tuning::default());
    let space = user_a(&volume);
    create(&space, "a").unwrap();
    let before = faulty.syncs();
    faulty.shut_gate(true);
    let cx = &mut Context::from_waker(Waker::noop());
    let mut first = space.sync();
    assert!(first.as_mut().poll(cx).is_pending());
    faulty.wait_until_held();
    create(&space, "b").unwrap();
    let mut others: Vec<_> = (0..50).map(|_| space.sync()).collect();
    assert!(others.iter_mut().all(|sync| sync.as_mut().poll(cx).is_pending()));
    faulty.shut_gate(false);
    block_on(first).unwrap();
    others.into_iter().for_each(|sync| block_on(sync).unwrap());
    assert_eq!(faulty.syncs() - before, 2);
    // With nothing new there is nothing to sync.
    block_on(space.sync()).unwrap();
    assert_eq!(faulty.syncs() - before, 2);
}

#[test]
fn operations_go_on_while_the_committer_writes() {
    let faulty = FaultyEngine::new(Arc::new(MemoryEngine::default()));
    let volume = volume_on(faulty.clone(), Arc::default(), &quiet(), Tuning::default());
    let space = user_a(&volume);
    let a = create(&space, "a").unwrap();
    faulty.shut_gate(true);
    let mut sync = space.sync();
    assert!(sync.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    faulty.wait_until_held();
    // "a" is being written, "b" comes after it: both are there, in listings too.
    let b = create(&space, "b").unwrap();
    block_on(space.unlink(Ino::ROOT, name("a"))).unwrap();
    assert_eq!(block_on(space.getattr(a.ino)).unwrap_err().kind(), Kind::Stale);
    assert_eq!(listing(&space, Ino::ROOT, 1).unwrap()[0].ino, b.ino);
    assert_eq!(space.check().unwrap(), []);
    faulty.shut_gate(false);
    block_on(sync).unwrap();
    volume.flush().unwrap();
    assert_eq!(listing(&space, Ino::ROOT, 1).unwrap().len(), 1);
    assert_eq!(space.check().unwrap(), []);
}

#[test]
fn pending_changes_are_bounded() {
    let tuning = Tuning { pending_bytes_max: 10_000, ..Tuning::default() };
    let volume = volume_on(MemoryEngine::new(), Arc::default(), &quiet(), tuning);
    let space = user_a(&volume);
    for i in 0..1000 {
        create(&space, &format!("f{i}")).unwrap();
        let weight = space.pending_weight();
        assert!(weight < 10_000 + 4096, "{weight} bytes are pending");
    }
    assert_eq!(listing(&space, Ino::ROOT, 100).unwrap().len(), 1000);
}

#[test]
fn a_failed_engine_stops_changes_but_not_reading_and_goes_on_when_it_works_again() {
    let memory = Arc::new(MemoryEngine::default());
    let faulty = FaultyEngine::new(memory.clone());
    let volume = volume_on(faulty.clone(), Arc::default(), &quiet(), Tuning::default());
    let space = user_a(&volume);
    create(&space, "a").unwrap();
    volume.flush().unwrap();
    for round in 0..3 {
        faulty.fail_writes_after(0);
        create(&space, &format!("b{round}")).unwrap();
        let e = block_on(space.sync()).unwrap_err();
        assert_eq!(e.kind(), Kind::Io);
        assert_eq!(create(&space, "c").unwrap_err().kind(), Kind::Io);
        assert!(block_on(space.sync()).is_err() && volume.flush().is_err() && volume.failure().is_some());
        assert_eq!(listing(&space, Ino::ROOT, 10).unwrap().len(), 2 + round);
        // What was acknowledged before is written when it works again.
        faulty.fail_writes_after(1000);
        block_on(space.sync()).unwrap();
        assert!(volume.failure().is_none());
    }
    create(&space, "d").unwrap();
    volume.flush().unwrap();
    let survivor = Arc::new(memory.crash(0));
    drop((space, volume));
    let volume = Volume::open(survivor, Arc::<TestClock>::default(), &quiet()).unwrap();
    assert_eq!(listing(&user_a(&volume), Ino::ROOT, 10).unwrap().len(), 5);
    assert_eq!(user_a(&volume).check().unwrap(), []);
}

#[test]
fn a_failed_engine_that_works_again_loses_nothing_at_the_end() {
    let memory = Arc::new(MemoryEngine::default());
    let faulty = FaultyEngine::new(memory.clone());
    let volume = volume_on(faulty.clone(), Arc::default(), &quiet(), Tuning::default());
    create(&user_a(&volume), "a").unwrap();
    faulty.fail_writes_after(0);
    assert!(volume.flush().is_err());
    faulty.fail_writes_after(1000);
    volume.shutdown().unwrap();
    let volume = Volume::open(Arc::new(memory.crash(0)), Arc::<TestClock>::default(), &quiet()).unwrap();
    assert_eq!(listing(&user_a(&volume), Ino::ROOT, 10).unwrap().len(), 1);
}

#[test]
fn a_read_error_is_told_and_passes() {
    let faulty = FaultyEngine::new(Arc::new(MemoryEngine::default()));
    let volume = volume_on(faulty.clone(), Arc::default(), &quiet(), Tuning::default());
    let space = user_a(&volume);
    faulty.fail_reads_after(0);
    assert_eq!(create(&space, "never-seen").unwrap_err().kind(), Kind::Io);
    faulty.fail_reads_after(1000);
    create(&space, "never-seen").unwrap();
    assert_eq!(space.check().unwrap(), []);
}

#[test]
fn warm_reads_do_not_touch_the_engine() {
    let faulty = FaultyEngine::new(Arc::new(MemoryEngine::default()));
    let volume = volume_on(faulty.clone(), Arc::default(), &quiet(), Tuning::default());
    let space = user_a(&volume);
    let a = create(&space, "a").unwrap();
    assert!(block_on(space.lookup(Ino::ROOT, name("missing"))).is_err());
    volume.flush().unwrap();
    faulty.fail_reads_after(0);
    assert_eq!(block_on(space.lookup(Ino::ROOT, name("a"))).unwrap(), a);
    assert_eq!(block_on(space.getattr(a.ino)).unwrap(), a);
    assert_eq!(block_on(space.lookup(Ino::ROOT, name("missing"))).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(
        block_on(space.getxattr(a.ino, b"security.capability")).unwrap_err().kind(),
        Kind::NoAttribute
    );
    assert_eq!(block_on(space.extents(a.ino)).unwrap().1, []);
}

#[test]
fn a_closed_volume_refuses() {
    let volume = volume();
    let space = user_a(&volume);
    volume.shutdown().unwrap();
    assert_eq!(create(&space, "a").unwrap_err().kind(), Kind::Unavailable);
    assert_eq!(block_on(space.sync()).unwrap_err().kind(), Kind::Unavailable);
    assert_eq!(volume.namespace(&"user/a".parse().unwrap()).unwrap_err().kind(), Kind::Unavailable);
    assert_eq!(volume.create_namespace(new_namespace("user/b")).unwrap_err().kind(), Kind::Unavailable);
}

#[test]
fn without_asking_changes_are_written_and_synced() {
    let faulty = FaultyEngine::new(Arc::new(MemoryEngine::default()));
    let volume = volume_on(faulty.clone(), Arc::default(), &busy(), Tuning::default());
    let before = (faulty.writes(), faulty.syncs());
    let space = user_a(&volume);
    create(&space, "a").unwrap();
    // The committer comes by itself: wait for it, however slow the machine.
    while faulty.writes() == before.0 || faulty.syncs() == before.1 {
        std::thread::yield_now();
    }
}

#[test]
fn who_waits_for_a_change_to_be_written_writes_it_at_once_and_without_a_sync() {
    let faulty = FaultyEngine::new(Arc::new(MemoryEngine::default()));
    let volume = volume_on(faulty.clone(), Arc::default(), &quiet(), Tuning::default());
    let space = user_a(&volume);
    let at_once = || space.written().as_mut().poll(&mut Context::from_waker(Waker::noop()));
    block_on(space.written()).unwrap();
    let before = (faulty.writes(), faulty.syncs());
    create(&space, "a").unwrap();
    // No other thread has to do anything.
    assert!(matches!(at_once(), std::task::Poll::Ready(Ok(()))));
    assert_eq!((faulty.writes(), faulty.syncs()), (before.0 + 1, before.1));
    block_on(space.written()).unwrap();
    assert_eq!(faulty.writes(), before.0 + 1, "nothing is left to write");
    faulty.fail_writes_after(0);
    create(&space, "b").unwrap();
    assert!(matches!(at_once(), std::task::Poll::Ready(Err(_))));
}

#[test]
fn unused_namespaces_are_let_go() {
    let volume = volume();
    let space = user_a(&volume);
    let weak = Arc::downgrade(&space);
    create(&space, "a").unwrap();
    drop(space);
    volume.flush().unwrap();
    // The second is served in the next round, after the first's end.
    volume.flush().unwrap();
    assert!(weak.upgrade().is_none());
    assert_eq!(listing(&user_a(&volume), Ino::ROOT, 10).unwrap().len(), 1);
}

#[test]
fn what_is_on_its_way_during_a_sync_is_durable_after_the_next() {
    let memory = Arc::new(MemoryEngine::default());
    let engine = FaultyEngine::new(memory.clone());
    let volume = volume_on(engine.clone(), Arc::default(), &quiet(), Tuning::default());
    // Then syncs run beside writes.
    volume.begin_service();
    let space = user_a(&volume);
    create(&space, "before").unwrap();
    block_on(space.written()).unwrap();
    create(&space, "f").unwrap();
    let (shared, spaces) = (volume.shared.clone(), volume.spaces.clone());
    engine.midway(move || committer::sync_written(&shared, &spaces).unwrap());
    block_on(space.written()).unwrap();
    block_on(space.sync()).unwrap();
    assert_eq!(memory.unsynced_batches(), 0);
    let clock = Arc::new(TestClock::default());
    let survivor = Volume::open(Arc::new(memory.crash(0)), clock, &quiet()).unwrap();
    block_on(user_a(&survivor).lookup(Ino::ROOT, name("f"))).unwrap();
}
