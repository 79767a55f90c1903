//! Connections that break, answers that get lost, services that are started anew, time that runs out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use granary_core::{Ino, Kind, TestClock};

use super::super::{Client, ClientLimits};
use super::rig::*;
use crate::lease::{LeaseKind, Lock, LockKind, LockOwner, LockRequest, Lost, Scope};
use crate::server::ServeLimits;
use crate::service::ServiceOptions;
use crate::types::*;
use crate::{Commit, Metadata};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Four workers make files in one directory while `trouble` happens; then exactly those are there, each once.
async fn made_once(rig: &Rig, files: usize, trouble: impl AsyncFn(usize)) {
    let (_client, space) = rig.space().await;
    let (_other, witness) = rig.space().await;
    let done = Arc::new(tokio::sync::Semaphore::new(0));
    let workers: Vec<_> = (0..4)
        .map(|w| {
            let (space, done) = (space.clone(), done.clone());
            tokio::spawn(async move {
                for i in 0..files {
                    let (first, then) = (format!("{w}-{i}-new"), format!("{w}-{i}"));
                    // `Exists` or `NotFound` would tell that something was done twice.
                    create(&space, Ino::ROOT, &first).await.unwrap();
                    let (first, then) = (name(&first), name(&then));
                    let replaced =
                        space.rename(Ino::ROOT, first, Ino::ROOT, then, RenameMode::NoReplace).await.unwrap();
                    assert_eq!(replaced, None);
                    done.add_permits(1);
                }
            })
        })
        .collect();
    // In the midst of the work, not before and not after.
    for round in 0..files / 2 {
        soon(done.acquire_many(4)).await.unwrap().forget();
        trouble(round).await;
    }
    rig.proxy.heal();
    for worker in workers {
        soon(worker).await.unwrap();
    }
    let mut expected: Vec<String> =
        (0..4).flat_map(|w| (0..files).map(move |i| format!("{w}-{i}"))).collect();
    expected.sort();
    for space in [&space, &witness] {
        let mut all = list(space, Ino::ROOT).await;
        all.sort();
        assert_eq!(all, expected);
    }
    assert_eq!(rig.service().volume().check(&NAME.parse().unwrap()).unwrap(), vec![]);
}

#[test]
fn connections_are_cut_and_nothing_is_done_twice_or_lost() {
    runtime().block_on(async {
        let rig = Rig::start().await;
        made_once(&rig, 40, async |_| rig.proxy.cut()).await;
        rig.end().await;
    });
}

#[test]
fn answers_get_lost_and_nothing_is_done_twice_or_lost() {
    runtime().block_on(async {
        let rig = Rig::start().await;
        made_once(&rig, 40, async |round| {
            rig.proxy.drop_answers();
            if round % 3 != 0 {
                rig.proxy.heal();
            } else {
                // Whatever was asked by now was done, and its answer swallowed.
                let calls = rig.calls();
                while rig.calls() == calls && !rig.service().stats().in_grace {
                    tokio::task::yield_now().await;
                    if rig.calls() == calls {
                        break;
                    }
                }
                rig.proxy.heal();
            }
        })
        .await;
        rig.end().await;
    });
}

#[test]
fn connections_break_in_the_midst_of_a_message() {
    runtime().block_on(async {
        let rig = Rig::start().await;
        made_once(&rig, 30, async |round| rig.proxy.cut_after(50 + 37 * round as i64)).await;
        rig.end().await;
    });
}

#[test]
fn nonsense_instead_of_answers_ends_the_connection_not_the_client() {
    runtime().block_on(async {
        let rig = Rig::start().await;
        made_once(&rig, 30, async |_| rig.proxy.garble_once()).await;
        rig.end().await;
    });
}

#[test]
fn the_service_is_restarted_amid_load() {
    runtime().block_on(async {
        let rig = Rig::start().await;
        made_once(&rig, 16, async |_| rig.restart_service().await).await;
        rig.end().await;
    });
}

#[test]
fn the_service_is_killed_amid_load() {
    runtime().block_on(async {
        let rig = Rig::start().await;
        made_once(&rig, 16, async |_| rig.kill_service().await).await;
        rig.end().await;
    });
}

#[test]
fn what_a_session_has_outlives_a_restart_of_the_service() {
    runtime().block_on(async {
        let rig = Rig::start().await;
        let ((_ca, a), (_cb, b)) = (rig.space().await, rig.space().await);
        let mut tells = Watcher::set(&a);
        let made = a.create(Ino::ROOT, name("open"), new(FileType::File), true).await.unwrap();
        let locked = create(&a, Ino::ROOT, "locked").await.unwrap().ino;
        let lock = Lock { flock: true, kind: LockKind::Exclusive, start: 0, end: u64::MAX, pid: 1 };
        let request = LockRequest { owner: LockOwner(1), lock, unlock: false, wait: false };
        a.lock(locked, request).await.unwrap();
        assert!(a.holds(Scope::Inode(made.ino), LeaseKind::Write));
        rig.restart_service().await;
        // Leases are gone, and the holder is told, before anything of the new service is answered.
        assert_eq!(b.test_lock(locked, LockOwner(2), lock).await.unwrap().unwrap(), lock);
        assert_eq!(soon(tells.recv()).await, Some(Told::Lost(Lost::Unheard)));
        b.unlink(Ino::ROOT, name("open")).await.unwrap();
        assert_eq!(soon(tells.recv()).await, Some(Told::Recall(Scope::Inode(made.ino), LeaseKind::Write)));
        // Still open: it has no name, and is there.
        assert_eq!(a.getattr(made.ino).await.unwrap().nlink, 0);
        a.close(made.ino);
        assert_eq!(a.lookup(Ino::ROOT, name("open")).await.unwrap_err().kind(), Kind::NotFound);
        assert_eq!(a.getattr(made.ino).await.unwrap_err().kind(), Kind::Stale);
        rig.end().await;
    });
}

#[test]
fn after_a_restart_nobody_changes_what_another_still_keeps() {
    /// Takes its time to drop what it keeps.
    #[derive(Default)]
    struct Slow(AtomicBool);
    #[async_trait::async_trait]
    impl crate::Holder for Slow {
        async fn recall(&self, _: Scope, _: LeaseKind) {}
        async fn lost(&self, _: Lost) {
            for _ in 0..10_000 {
                tokio::task::yield_now().await;
            }
            self.0.store(true, Ordering::SeqCst);
        }
    }
    runtime().block_on(async {
        let rig = Rig::start().await;
        let ((_ca, a), (_cb, b)) = (rig.space().await, rig.space().await);
        create(&a, Ino::ROOT, "f").await.unwrap();
        let slow = Arc::new(Slow::default());
        a.set_holder(slow.clone());
        for kill in [false, true] {
            slow.0.store(false, Ordering::SeqCst);
            if kill {
                rig.kill_service().await
            } else {
                rig.restart_service().await
            }
            soon(b.getattr(Ino::ROOT)).await.unwrap();
            let there = create(&b, Ino::ROOT, if kill { "killed" } else { "restarted" });
            soon(there).await.unwrap();
            assert!(slow.0.load(Ordering::SeqCst), "kill: {kill}");
        }
        rig.end().await;
    });
}

#[test]
fn leases_end_with_their_time_and_only_by_what_was_heard() {
    runtime().block_on(async {
        let clock = Arc::new(TestClock::default());
        let options = ServiceOptions { tick: None, ..Default::default() };
        let rig = Rig::start_with(clock.clone(), options, ServeLimits::default()).await;
        let (client, a) = rig.space().await;
        let mut tells = Watcher::set(&a);
        let ino = create(&a, Ino::ROOT, "f").await.unwrap().ino;
        let scope = Scope::Inode(ino);
        assert!(a.holds(scope, LeaseKind::Read));
        rig.proxy.close().await;
        clock.advance(Duration::from_secs(5));
        assert!(a.holds(scope, LeaseKind::Read));
        assert_eq!(at_once(a.getattr(ino)).unwrap().ino, ino);
        clock.advance(Duration::from_millis(4_950));
        // From that instant on, whether or not anybody noticed.
        assert!(!a.holds(scope, LeaseKind::Read) && a.lease_left().is_zero());
        client.tick();
        assert_eq!(soon(tells.recv()).await, Some(Told::Lost(Lost::Unheard)));
        // The service waits a moment longer: the session goes on.
        rig.proxy.heal();
        assert_eq!(soon(a.getattr(ino)).await.unwrap().ino, ino);
        assert!(client.status().fenced.is_none());
        assert!(a.holds(scope, LeaseKind::Read));
        rig.end().await;
    });
}

#[test]
fn a_session_that_was_not_heard_of_is_fenced_and_says_so() {
    runtime().block_on(async {
        let clock = Arc::new(TestClock::default());
        let options = ServiceOptions { tick: None, ..Default::default() };
        let rig = Rig::start_with(clock.clone(), options, ServeLimits::default()).await;
        let (client, a) = rig.space().await;
        let mut tells = Watcher::set(&a);
        let made = a.create(Ino::ROOT, name("f"), new(FileType::File), true).await.unwrap();
        let session = client.status().session;
        rig.proxy.close().await;
        clock.advance(ServiceOptions::default().silence_max);
        rig.service().tick();
        client.tick();
        rig.proxy.heal();
        let told = [soon(tells.recv()).await.unwrap(), soon(tells.recv()).await.unwrap()];
        assert!(told.contains(&Told::Lost(Lost::Unheard)) && told.contains(&Told::Lost(Lost::Fenced)));
        let commit = Commit {
            ino: made.ino,
            size: 0,
            mtime: made.mtime,
            ctime: made.mtime,
            extents: vec![],
            holes: vec![],
            staged_seq: 1,
        };
        let e = soon(a.commit(commit.clone())).await.unwrap_err();
        assert_eq!((e.kind(), e.errno()), (Kind::Fenced, 5));
        let text = e.to_string();
        assert!(text.contains("node-1") && text.contains("open it again"), "{text}");
        // What is opened now belongs to the next session.
        assert_eq!(soon(a.open(made.ino)).await.unwrap().ino, made.ino);
        a.lease(made.ino).await.unwrap();
        a.commit(commit).await.unwrap();
        let status = client.status();
        assert!(status.connected && status.fenced.is_some() && status.session != session, "{status:?}");
        a.close(made.ino);
        a.close(made.ino);
        rig.end().await;
    });
}

#[test]
fn a_session_that_nobody_missed_goes_on_with_what_it_held_back() {
    runtime().block_on(async {
        let clock = Arc::new(TestClock::default());
        let options = ServiceOptions { tick: None, ..Default::default() };
        let rig = Rig::start_with(clock.clone(), options, ServeLimits::default()).await;
        let (client, a) = rig.space().await;
        let mut tells = Watcher::set(&a);
        let made = a.create(Ino::ROOT, name("f"), new(FileType::File), true).await.unwrap();
        let session = client.status().session;
        rig.proxy.close().await;
        clock.advance(Duration::from_secs(60));
        rig.service().tick();
        client.tick();
        assert_eq!(soon(tells.recv()).await, Some(Told::Lost(Lost::Unheard)));
        rig.proxy.heal();
        let (ino, mtime, ctime) = (made.ino, made.mtime, made.ctime);
        let (extents, holes) = (vec![], vec![(0, 9)]);
        let commit = Commit { ino, size: 9, mtime, ctime, extents, holes, staged_seq: 0 };
        assert_eq!(soon(a.commit(commit)).await.unwrap().size, 9);
        let status = client.status();
        assert!(status.fenced.is_none() && status.session == session, "{status:?}");
        a.close(ino);
        rig.end().await;
    });
}

#[test]
fn a_call_fails_only_after_its_bound_and_names_the_service() {
    runtime().block_on(async {
        let clock = Arc::new(TestClock::default());
        let options = ServiceOptions { tick: None, ..Default::default() };
        let rig = Rig::start_with(clock.clone(), options, ServeLimits::default()).await;
        let (client, a) = rig.space().await;
        create(&a, Ino::ROOT, "f").await.unwrap();
        rig.proxy.close().await;
        let b = a.clone();
        let asked = tokio::spawn(async move { create(&b, Ino::ROOT, "g").await });
        while client.status().waiting_calls == 0 || client.status().connected {
            tokio::task::yield_now().await;
        }
        clock.advance(Duration::from_secs(59));
        client.tick();
        assert_eq!(client.status().waiting_calls, 1);
        clock.advance(Duration::from_secs(2));
        client.tick();
        let e = soon(asked).await.unwrap().unwrap_err();
        assert_eq!(e.kind(), Kind::Unavailable);
        let text = e.to_string();
        assert!(text.contains(&rig.proxy.address().to_string()) && text.contains("61 s"), "{text}");
        rig.end().await;
    });
}

#[test]
fn connecting_to_nobody_fails_within_its_bound() {
    runtime().block_on(async {
        let rig = Rig::start().await;
        rig.proxy.close().await;
        let mut options = rig.options("bob");
        options.limits = ClientLimits { connect_wait_ms_max: 50, ..options.limits };
        let e = soon(Client::connect(options)).await.unwrap_err();
        assert_eq!(e.kind(), Kind::Unavailable);
        assert!(e.to_string().contains("metadata service"), "{e}");
        rig.end().await;
    });
}

#[test]
fn another_address_is_tried() {
    runtime().block_on(async {
        let rig = Rig::start().await;
        let mut options = rig.options("bob");
        // The discard port of loopback: nobody is there.
        options.urls.insert(0, "http://127.0.0.1:9".into());
        let client = soon(Client::connect(options)).await.unwrap();
        assert_eq!(client.namespaces().await.unwrap().len(), 1);
        client.close().await;
        rig.end().await;
    });
}

#[test]
fn a_client_that_leaves_is_waited_for_by_nobody() {
    runtime().block_on(async {
        let rig = Rig::start().await;
        let ((client, a), (_cb, b)) = (rig.space().await, rig.space().await);
        let made = a.create(Ino::ROOT, name("f"), new(FileType::File), true).await.unwrap();
        let before = rig.service().stats().sessions;
        client.close().await;
        assert_eq!(rig.service().stats().sessions, before - 1);
        assert_eq!(b.getattr(made.ino).await.unwrap().ino, made.ino);
        assert_eq!(a.getattr(made.ino).await.unwrap_err().kind(), Kind::Unavailable);
        rig.end().await;
    });
}

/// A service that was started anew would wait for it.
#[test]
fn who_leaves_while_the_service_is_away_says_so_when_it_is_back() {
    runtime().block_on(async {
        for restarts in [false, true] {
            let rig = Rig::start().await;
            let ((client, a), (_cb, b)) = (rig.space().await, rig.space().await);
            let before = rig.service().stats().sessions;
            create(&a, Ino::ROOT, "f").await.unwrap();
            rig.proxy.close().await;
            drop(a);
            let leaving = tokio::spawn(async move { client.close().await });
            tokio::task::yield_now().await;
            assert!(!leaving.is_finished());
            match restarts {
                true => rig.kill_service().await,
                false => rig.proxy.heal(),
            }
            soon(leaving).await.unwrap();
            // In the grace time its answer waits until nobody is missing.
            soon(b.lookup(Ino::ROOT, name("f"))).await.unwrap();
            assert_eq!((rig.service().stats().sessions, rig.service().stats().in_grace), (before - 1, false));
            rig.end().await;
        }
    });
}

/// It had nothing to lose, so it is not told of as lost.
#[test]
fn a_client_that_reached_nothing_begins_anew_after_a_restart() {
    runtime().block_on(async {
        let rig = Rig::start().await;
        let client = rig.client("bob").await;
        let session = client.status().session;
        rig.kill_service().await;
        assert_eq!(soon(client.namespaces()).await.unwrap().len(), 1);
        let status = client.status();
        assert!(status.fenced.is_none() && status.session != session, "{status:?}");
        rig.end().await;
    });
}
