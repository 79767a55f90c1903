//! A client that goes on with the session of one that ended without a word.

use std::sync::Arc;

use granary_core::{Ino, Kind, NodeId};

use super::super::{Client, ClientLimits, ClientOptions, RemoteNamespace};
use super::rig::*;
use crate::Metadata;
use crate::lease::{LeaseKind, Lock, LockKind, LockOwner, LockRequest, Scope};
use crate::types::*;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn exclusive() -> LockRequest {
    let lock = Lock { flock: false, kind: LockKind::Exclusive, start: 0, end: 9, pid: 1 };
    LockRequest { owner: LockOwner(1), lock, unlock: false, wait: false }
}

/// A client that confirms late, and its node.
async fn first(rig: &Rig) -> (Arc<Client>, Arc<RemoteNamespace>, NodeId) {
    let mut options = rig.options("bob");
    let node = options.node;
    options.limits = ClientLimits { answers_told_late: 4, ..options.limits };
    let client = Client::connect(options).await.unwrap();
    let space = client.namespace(&NAME.parse().unwrap()).await.unwrap();
    (client, space, node)
}

/// The client of the node's next process. The one that ended tells the service nothing.
async fn next(rig: &Rig, node: NodeId, ended: Arc<Client>) -> Arc<Client> {
    let resume = ended.session();
    drop(ended);
    Client::connect(ClientOptions { node, resume, ..rig.options("bob") }).await.unwrap()
}

#[test]
fn leases_locks_and_opens_go_on_and_what_nobody_has_any_more_is_given_back() {
    runtime().block_on(async {
        let rig = Rig::start().await;
        let (client, a, node) = first(&rig).await;
        let (_other, b) = rig.space().await;
        let session = client.session();
        let open = async |text: &str| {
            let made = a.create(Ino::ROOT, name(text), new(FileType::File), true).await.unwrap();
            a.unlink(Ino::ROOT, name(text)).await.unwrap();
            made.ino
        };
        let (kept, left) = (open("kept").await, open("left").await);
        let f = create(&a, Ino::ROOT, "f").await.unwrap().ino;
        a.lock(f, exclusive()).await.unwrap();
        a.lease(f).await.unwrap();
        let calls = rig.calls();
        let client = next(&rig, node, client).await;
        drop(a);
        assert_eq!((client.session(), rig.service().stats().sessions), (session, 2));
        let a = client.namespace(&NAME.parse().unwrap()).await.unwrap();
        let mut tells = Watcher::set(&a);
        assert!(a.holds(Scope::Inode(f), LeaseKind::Write) && a.leased().contains(&f));
        assert_eq!(a.locks(), [(f, LockOwner(1), exclusive().lock)]);
        assert_eq!(b.lock(f, exclusive()).await.unwrap_err().kind(), Kind::WouldBlock);
        assert_eq!(a.open(kept).await.unwrap().nlink, 0);
        // A recall waits until what is under the lease is known again.
        let reads = tokio::spawn({
            let b = b.clone();
            async move { b.getattr(f).await }
        });
        while rig.service().stats().parked == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(soon(a.getattr(f)).await.unwrap().ino, f);
        assert!(tells.try_recv().is_err() && !reads.is_finished());
        client.settle(Some(a.namespace()));
        assert_eq!(soon(tells.recv()).await, Some(Told::Recall(Scope::Inode(f), LeaseKind::Read)));
        assert_eq!(soon(reads).await.unwrap().unwrap().ino, f);
        client.settle(None);
        client.tick();
        while rig.service().stats().opens != 1 {
            tokio::task::yield_now().await;
        }
        assert_eq!(a.getattr(left).await.unwrap_err().kind(), Kind::Stale);
        assert_eq!(b.getattr(kept).await.unwrap().nlink, 0);
        a.lock(f, LockRequest { unlock: true, ..exclusive() }).await.unwrap();
        b.lock(f, exclusive()).await.unwrap();
        assert!(rig.calls() > calls);
        rig.end().await;
    });
}

#[test]
fn what_the_other_made_last_is_known_from_what_others_made() {
    runtime().block_on(async {
        let rig = Rig::start().await;
        let (client, a, node) = first(&rig).await;
        let (_other, b) = rig.space().await;
        let mut made = Vec::new();
        for i in 0..10 {
            made.push(create(&a, Ino::ROOT, &format!("a{i}")).await.unwrap().ino);
        }
        let others = create(&b, Ino::ROOT, "b").await.unwrap().ino;
        let client = next(&rig, node, client).await;
        let again = client.namespace(&NAME.parse().unwrap()).await.unwrap();
        // Four answers are told late; the fifth was confirmed when the sixth was asked, or not at all.
        assert!(made[6..].iter().all(|ino| again.was_changed_before(*ino)), "{made:?}");
        assert!(!again.was_changed_before(made[0]) && !again.was_changed_before(others));
        // No call of the new one is taken for one of the other.
        for i in 0..10 {
            assert_eq!(create(&again, Ino::ROOT, &format!("a{i}")).await.unwrap_err().kind(), Kind::Exists);
            create(&again, Ino::ROOT, &format!("c{i}")).await.unwrap();
        }
        assert_eq!(list(&b, Ino::ROOT).await.len(), 21);
        rig.end().await;
    });
}

#[test]
fn what_it_had_in_namespaces_that_nobody_asks_for_is_free() {
    runtime().block_on(async {
        let rig = Rig::start().await;
        let (client, a, node) = first(&rig).await;
        let (_other, b) = rig.space().await;
        let made = a.create(Ino::ROOT, name("f"), new(FileType::File), true).await.unwrap();
        a.unlink(Ino::ROOT, name("f")).await.unwrap();
        let f = create(&a, Ino::ROOT, "g").await.unwrap().ino;
        a.lock(f, exclusive()).await.unwrap();
        let client = next(&rig, node, client).await;
        drop(a);
        client.settle(None);
        while b.lock(f, exclusive()).await.is_err() || rig.service().stats().opens != 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(b.getattr(made.ino).await.unwrap_err().kind(), Kind::Stale);
        soon(b.lease(f)).await.unwrap();
        rig.end().await;
    });
}

#[test]
fn a_session_that_is_over_is_lost_and_another_begins() {
    runtime().block_on(async {
        let rig = Rig::start().await;
        let (client, a, _) = first(&rig).await;
        let session = client.session();
        let made = a.create(Ino::ROOT, name("f"), new(FileType::File), true).await.unwrap();
        rig.restart_service().await;
        soon(a.getattr(made.ino)).await.unwrap();
        // Both end, one after the other, before they meet again.
        let ended = client.session();
        assert_eq!(ended, session);
        rig.proxy.close().await;
        drop(a);
        let other = tokio::spawn({
            let options = ClientOptions { resume: ended, ..rig.options("carol") };
            async move { Client::connect(options).await }
        });
        rig.proxy.heal();
        // Another user's, so not his to go on with.
        let other = soon(other).await.unwrap().unwrap();
        assert!(other.session().is_some() && other.session() != session);
        assert!(other.status().fenced.is_some());
        assert_eq!(other.last_session(), other.session());
        drop(client);
        rig.end().await;
    });
}

/// What the kernel asks again of a process may be under way still when the next one ends, too.
#[test]
fn what_a_process_made_is_known_to_the_one_after_the_next() {
    runtime().block_on(async {
        let rig = Rig::start().await;
        let (mut client, mut space, node) = first(&rig).await;
        let made = create(&space, Ino::ROOT, "f").await.unwrap().ino;
        for text in ["g", "h"] {
            let resume = client.session();
            drop(client);
            let options = rig.options("bob");
            let limits = ClientLimits { answers_told_late: 4, ..options.limits };
            client = Client::connect(ClientOptions { node, resume, limits, ..options }).await.unwrap();
            space = client.namespace(&NAME.parse().unwrap()).await.unwrap();
            assert!(space.was_changed_before(made), "before {text}");
            create(&space, Ino::ROOT, text).await.unwrap();
        }
        client.close().await;
    });
}
