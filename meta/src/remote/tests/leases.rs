//! Leases between two nodes: what is kept, what is given back, what is opened without asking.

use granary_core::{Ino, Kind, ObjectId, ObjectKind};

use super::rig::*;
use crate::lease::{LeaseKind, Lock, LockKind, LockOwner, LockRequest, Scope};
use crate::remote::RemoteNamespace;
use crate::types::*;
use crate::{Commit, Extent, Metadata, Place};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

#[test]
fn what_one_node_does_another_sees_and_what_nobody_changed_is_not_asked_again() {
    runtime().block_on(async {
        let rig = Rig::start().await;
        let ((client_a, a), (_client_b, b)) = (rig.space().await, rig.space().await);
        assert!(a.is_shared());
        let made = create(&a, Ino::ROOT, "one").await.unwrap();
        assert_eq!(b.lookup(Ino::ROOT, name("one")).await.unwrap(), made);
        // Warm: at the first poll, and without a call.
        let calls = rig.calls();
        assert_eq!(at_once(b.lookup(Ino::ROOT, name("one"))).unwrap(), made);
        assert_eq!(at_once(b.getattr(made.ino)).unwrap(), made);
        assert_eq!(rig.calls(), calls);

        let set = SetAttr { mode: Some(0o700), ..Default::default() };
        a.setattr(made.ino, set).await.unwrap();
        assert_eq!(b.getattr(made.ino).await.unwrap().mode, 0o700);
        a.rename(Ino::ROOT, name("one"), Ino::ROOT, name("two"), RenameMode::Replace).await.unwrap();
        assert_eq!(b.lookup(Ino::ROOT, name("one")).await.unwrap_err().kind(), Kind::NotFound);
        assert_eq!(b.lookup(Ino::ROOT, name("two")).await.unwrap().ino, made.ino);
        assert_eq!(list(&b, Ino::ROOT).await, ["two"]);
        a.unlink(Ino::ROOT, name("two")).await.unwrap();
        assert_eq!(list(&b, Ino::ROOT).await, Vec::<String>::new());
        let status = client_a.status();
        assert!(status.connected && status.fenced.is_none() && status.waiting_calls == 0, "{status:?}");
        rig.end().await;
    });
}

#[test]
fn the_second_create_in_a_directory_needs_no_lookup() {
    runtime().block_on(async {
        let rig = Rig::start().await;
        let (_client, a) = rig.space().await;
        let dir = a.create(Ino::ROOT, name("d"), new(FileType::Directory), false).await.unwrap().ino;
        assert_eq!(a.lookup(dir, name("f0")).await.unwrap_err().kind(), Kind::NotFound);
        for i in 0..20 {
            let text = format!("f{i}");
            assert_eq!(at_once(a.lookup(dir, name(&text))).unwrap_err().kind(), Kind::NotFound);
            create(&a, dir, &text).await.unwrap();
            assert_eq!(at_once(a.lookup(dir, name(&text))).unwrap().nlink, 1);
        }
        // Its own removal leaves the directory known.
        a.unlink(dir, name("f3")).await.unwrap();
        assert_eq!(at_once(a.lookup(dir, name("f3"))).unwrap_err().kind(), Kind::NotFound);
        assert_eq!(at_once(a.lookup(dir, name("f99"))).unwrap_err().kind(), Kind::NotFound);
        let first = list(&a, dir).await;
        let calls = rig.calls();
        assert_eq!(list(&a, dir).await, first);
        assert_eq!((first.len(), rig.calls()), (19, calls));
        // Only the tail is asked for after one more.
        create(&a, dir, "late").await.unwrap();
        assert_eq!(list(&a, dir).await.len(), 20);
        rig.end().await;
    });
}

#[test]
fn a_recall_reaches_the_holder_and_the_change_waits_for_him() {
    runtime().block_on(async {
        let rig = Rig::start().await;
        let ((_ca, a), (_cb, b)) = (rig.space().await, rig.space().await);
        let ino = create(&a, Ino::ROOT, "f").await.unwrap().ino;
        b.getattr(ino).await.unwrap();
        let scope = Scope::Inode(ino);
        assert!(b.holds(scope, LeaseKind::Read) && !b.holds(scope, LeaseKind::Write));
        let (mut tells, gate) = Watcher::set_gated(&b);
        let changing = {
            let a = a.clone();
            let set = SetAttr { uid: Some(7), ..Default::default() };
            tokio::spawn(async move { a.setattr(ino, set).await })
        };
        assert_eq!(soon(tells.recv()).await, Some(Told::Recall(scope, LeaseKind::Write)));
        // Being recalled: ours to finish with, not to begin with.
        assert!(!b.holds(scope, LeaseKind::Read) && b.holds_for_finishing(scope, LeaseKind::Read));
        assert_eq!(at_once(b.getattr(ino)).unwrap().uid, 0);
        assert!(!changing.is_finished());
        gate.add_permits(1);
        assert_eq!(soon(changing).await.unwrap().unwrap().uid, 7);
        assert!(!b.holds_for_finishing(scope, LeaseKind::Read));
        assert_eq!(b.getattr(ino).await.unwrap().uid, 7);
        rig.end().await;
    });
}

#[test]
fn held_state_is_committed_at_the_recall_of_a_write_lease() {
    struct Commits(std::sync::Weak<super::super::RemoteNamespace>, Commit);
    #[async_trait::async_trait]
    impl crate::Holder for Commits {
        async fn recall(&self, scope: Scope, wanted: LeaseKind) {
            assert_eq!((scope, wanted), (Scope::Inode(self.1.ino), LeaseKind::Read));
            self.0.upgrade().unwrap().commit(self.1.clone()).await.unwrap();
        }
        async fn lost(&self, _: crate::Lost) {}
    }
    runtime().block_on(async {
        let rig = Rig::start().await;
        let ((_ca, a), (_cb, b)) = (rig.space().await, rig.space().await);
        let made = a.create(Ino::ROOT, name("f"), new(FileType::File), true).await.unwrap();
        let scope = Scope::Inode(made.ino);
        assert!(a.holds(scope, LeaseKind::Write), "who creates may write");
        let place = Place::Log { node: granary_core::NodeId(1), segment: 1, offset: 0 };
        let extents = vec![Extent { offset: 0, len: 9, place, crc: 1 }];
        let commit = Commit {
            ino: made.ino,
            size: 9,
            mtime: made.mtime,
            ctime: made.mtime,
            extents,
            holes: vec![],
            staged_seq: 1,
        };
        a.set_holder(std::sync::Arc::new(Commits(std::sync::Arc::downgrade(&a), commit.clone())));
        // Reading asks only for the writing to end.
        assert_eq!(b.getattr(made.ino).await.unwrap().size, 9);
        assert!(a.holds(scope, LeaseKind::Read) && !a.holds(scope, LeaseKind::Write));
        assert_eq!(at_once(a.getattr(made.ino)).unwrap().size, 9);
        assert_eq!(at_once(a.extents(made.ino)).unwrap().1, commit.extents);
        assert_eq!(b.extents(made.ino).await.unwrap().1, commit.extents);
        rig.end().await;
    });
}

#[test]
fn an_open_without_a_call_keeps_the_file_that_another_removes() {
    runtime().block_on(async {
        let rig = Rig::start().await;
        let ((_ca, a), (_cb, b)) = (rig.space().await, rig.space().await);
        let ino = create(&a, Ino::ROOT, "f").await.unwrap().ino;
        b.lookup(Ino::ROOT, name("f")).await.unwrap();
        let calls = rig.calls();
        assert_eq!(at_once(b.open(ino)).unwrap().ino, ino);
        assert_eq!(rig.calls(), calls);
        assert_eq!(a.unlink(Ino::ROOT, name("f")).await.unwrap().nlink, 0);
        // Told with the recall.
        assert_eq!(b.getattr(ino).await.unwrap().nlink, 0);
        assert_eq!(a.open(ino).await.unwrap().nlink, 0);
        a.close(ino);
        b.close(ino);
        // The close is done before the next call of the same namespace.
        assert_eq!(b.lookup(Ino::ROOT, name("f")).await.unwrap_err().kind(), Kind::NotFound);
        assert_eq!(a.lookup(Ino::ROOT, name("f")).await.unwrap_err().kind(), Kind::NotFound);
        // A lookup may be answered without a call.
        let _either = a.call_attr(crate::call::Call::GetAttr { ino }).await;
        assert_eq!(b.call_attr(crate::call::Call::GetAttr { ino }).await.unwrap_err().kind(), Kind::Stale);
        rig.end().await;
    });
}

#[test]
fn an_open_without_a_call_keeps_the_file_that_the_node_itself_removes() {
    runtime().block_on(async {
        let rig = Rig::start().await;
        let (_client, a) = rig.space().await;
        for (text, over) in [("f", false), ("g", true)] {
            let ino = create(&a, Ino::ROOT, text).await.unwrap().ino;
            assert_eq!(at_once(a.open(ino)).unwrap().ino, ino);
            if over {
                create(&a, Ino::ROOT, "other").await.unwrap();
                let lost = a
                    .rename(Ino::ROOT, name("other"), Ino::ROOT, name(text), RenameMode::Replace)
                    .await
                    .unwrap();
                assert_eq!(lost.unwrap().ino, ino);
            } else {
                a.unlink(Ino::ROOT, name(text)).await.unwrap();
            }
            let call = crate::call::Call::GetAttr { ino };
            assert_eq!(a.call_attr(call.clone()).await.unwrap().nlink, 0, "{text}");
            a.close(ino);
            assert_eq!(a.call_attr(call).await.unwrap_err().kind(), Kind::Stale, "{text}");
        }
        rig.end().await;
    });
}

#[test]
fn one_call_gets_a_write_lease_for_all_who_want_it() {
    runtime().block_on(async {
        let rig = Rig::start().await;
        let ((_ca, a), (_cb, b)) = (rig.space().await, rig.space().await);
        let ino = create(&b, Ino::ROOT, "f").await.unwrap().ino;
        let calls = rig.calls();
        let all = futures::future::join_all((0..10).map(|_| a.lease(ino))).await;
        assert!(all.iter().all(Result::is_ok));
        assert_eq!(rig.calls(), calls + 1);
        assert!(a.holds(Scope::Inode(ino), LeaseKind::Write));
        assert_eq!(at_once(a.lease(ino)).unwrap().ino, ino);
        rig.end().await;
    });
}

fn exclusive() -> LockRequest {
    let lock = Lock { flock: false, kind: LockKind::Exclusive, start: 0, end: 9, pid: 1 };
    LockRequest { owner: LockOwner(1), lock, unlock: false, wait: false }
}

#[test]
fn a_lock_that_is_not_waited_for_any_more_is_not_taken() {
    runtime().block_on(async {
        let rig = Rig::start().await;
        let ((_ca, a), (_cb, b)) = (rig.space().await, rig.space().await);
        let ino = create(&a, Ino::ROOT, "f").await.unwrap().ino;
        a.lock(ino, exclusive()).await.unwrap();
        assert_eq!(b.lock(ino, exclusive()).await.unwrap_err().kind(), Kind::WouldBlock);
        assert_eq!(b.test_lock(ino, LockOwner(5), exclusive().lock).await.unwrap().unwrap().pid, 1);
        let waiting = LockRequest { wait: true, ..exclusive() };
        {
            let gone = b.lock(ino, waiting);
            futures::pin_mut!(gone);
            assert!(futures::poll!(gone.as_mut()).is_pending());
            // It arrived: a later call of the session was answered.
            b.call_attr(crate::call::Call::GetAttr { ino }).await.unwrap();
            assert!(futures::poll!(gone.as_mut()).is_pending());
        }
        b.call_attr(crate::call::Call::GetAttr { ino }).await.unwrap();
        a.lock(ino, LockRequest { unlock: true, ..exclusive() }).await.unwrap();
        assert_eq!(a.test_lock(ino, LockOwner(5), exclusive().lock).await.unwrap(), None);
        // And one that waits gets it.
        a.lock(ino, exclusive()).await.unwrap();
        let b2 = b.clone();
        let got = tokio::spawn(async move { b2.lock(ino, waiting).await });
        a.lock(ino, LockRequest { unlock: true, ..exclusive() }).await.unwrap();
        soon(got).await.unwrap().unwrap();
        rig.end().await;
    });
}

#[test]
fn a_session_hears_of_changed_settings_without_asking() {
    runtime().block_on(async {
        let rig = Rig::start().await;
        let ((client, a), (_cb, b)) = (rig.space().await, rig.space().await);
        let admin = rig.client("admin").await;
        let set = async |ms| {
            let policy = PolicyChange { small_period_ms: Some(ms), ..PolicyChange::default() };
            let change = NamespaceChange {
                durability: Some(Durability::Object),
                policy,
                ..NamespaceChange::default()
            };
            admin.set_namespace(&NAME.parse().unwrap(), change).await.unwrap().write_settings()
        };
        let heard = async |space: &RemoteNamespace, wanted| {
            soon(async {
                while space.write_settings() != wanted {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        };
        assert_eq!(a.write_settings(), WriteSettings::default());
        let calls = rig.calls();
        let told = set(700).await;
        heard(&a, told).await;
        heard(&b, told).await;
        assert_eq!(rig.calls(), calls + 1, "nobody asked");
        // While the service is away nothing is heard; with the connection comes what was missed.
        rig.restart_service().await;
        let told = set(900).await;
        heard(&a, told).await;
        rig.proxy.cut();
        let told = set(0).await;
        assert_eq!(told.policy, NamespacePolicy::default());
        heard(&a, told).await;
        drop(a);
        let again = client.namespace(&NAME.parse().unwrap()).await.unwrap();
        assert_eq!(again.write_settings(), told);
        rig.end().await;
    });
}

/// Extents are kept while the inode's lease is held; that another node moved them to another object recalls nothing, and so
/// there is a way to ask all the same.
#[test]
fn extents_that_another_node_compacted_are_asked_for_anew() {
    runtime().block_on(async {
        let rig = Rig::start().await;
        let ((_ca, a), (_cb, b)) = (rig.space().await, rig.space().await);
        let made = create(&a, Ino::ROOT, "f").await.unwrap();
        let (ino, mtime, ctime) = (made.ino, made.mtime, made.mtime);
        let place = Place::Log { node: granary_core::NodeId(1), segment: 1, offset: 0 };
        let staged = Extent { offset: 0, len: 9, place, crc: 1 };
        let (extents, holes) = (vec![staged], vec![]);
        a.commit(Commit { ino, size: 9, mtime, ctime, extents, holes, staged_seq: 1 }).await.unwrap();
        let stored_in = async |id: u128, from: Extent| {
            let (id, kind) = (ObjectId(id), ObjectKind::Pack);
            let object = ObjectInfo { id, kind, payload_len: 9, total_len: 100 };
            let moved = a.relocate(object, vec![Move { ino, from, to_offset: 0 }]).await.unwrap();
            assert_eq!(moved, [[(0, 9)]]);
            Extent { place: Place::Object { kind, id, offset: 0 }, ..from }
        };
        let first = stored_in(1, staged).await;
        assert_eq!(b.extents(ino).await.unwrap().1, [first]);
        let second = stored_in(2, first).await;
        assert_eq!(at_once(b.extents(ino)).unwrap().1, [first], "they are kept");
        assert_eq!(b.extents_anew(ino).await.unwrap().1, [second]);
        assert_eq!(at_once(b.extents(ino)).unwrap().1, [second]);
        rig.end().await;
    });
}

/// A copy of a tiny file's bytes comes with its extents, is kept with them, and is never of another content.
#[test]
fn copies_come_with_the_extents_and_go_with_the_content() {
    runtime().block_on(async {
        let rig = Rig::start().await;
        let ((_ca, a), (_cb, b)) = (rig.space().await, rig.space().await);
        let policy = PolicyChange { inline_bytes_max: Some(100), ..PolicyChange::default() };
        let change = NamespaceChange { policy, ..NamespaceChange::default() };
        rig.client("admin").await.set_namespace(&NAME.parse().unwrap(), change).await.unwrap();
        let made = create(&a, Ino::ROOT, "f").await.unwrap();
        let (ino, mtime, ctime) = (made.ino, made.mtime, made.mtime);
        let mut stored = 0_u128;
        let mut store = async |bytes: &[u8]| {
            stored += 1;
            let (crc, len) = (granary_core::crc32c(bytes), bytes.len() as u64);
            let place = Place::Log { node: granary_core::NodeId(1), segment: 1, offset: stored as u64 * 100 };
            let from = Extent { offset: 0, len, place, crc };
            let (extents, holes) = (vec![from], vec![]);
            a.commit(Commit { ino, size: len, mtime, ctime, extents, holes, staged_seq: 1 }).await.unwrap();
            let (id, kind) = (ObjectId(stored), ObjectKind::Pack);
            let object = ObjectInfo { id, kind, payload_len: len, total_len: 200 };
            a.relocate(object, vec![Move { ino, from, to_offset: 0 }]).await.unwrap();
            a.keep_inline(object, vec![NewInline { ino, at: 0, crc, bytes: bytes.into() }]).await.unwrap();
        };
        store(b"first").await;
        let (attr, _) = b.extents(ino).await.unwrap();
        let calls = rig.calls();
        let copy = at_once(b.inline(ino)).unwrap().unwrap();
        assert_eq!((&copy.bytes[..], copy.version, copy.is_sound()), (&b"first"[..], attr.version, true));
        assert_eq!(rig.calls(), calls, "it came with the extents");
        store(b"second").await;
        let copy = b.inline(ino).await.unwrap().unwrap();
        assert_eq!(&copy.bytes[..], b"second");
        assert_eq!(b.getattr(ino).await.unwrap().version, copy.version);
        // Longer than the namespace wants: that there is none is known, too.
        store(&[7; 101]).await;
        b.extents(ino).await.unwrap();
        assert_eq!(at_once(b.inline(ino)).unwrap(), None);
        store(b"third").await;
        let size = Some(0);
        b.setattr(ino, SetAttr { size, ..SetAttr::default() }).await.unwrap();
        assert_eq!(b.inline(ino).await.unwrap(), None);
        assert_eq!(a.inline(ino).await.unwrap(), None);
        rig.end().await;
    });
}
