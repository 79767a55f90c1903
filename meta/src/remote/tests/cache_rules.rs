//! What may be kept, and for how long, against one that keeps nothing.

use granary_core::{Error, Ino, Kind};

use super::rig::*;
use crate::Metadata;
use crate::call::CallKind;
use crate::remote::RemoteNamespace;
use crate::types::*;

/// What somebody sees of a directory's names.
async fn seen(space: &RemoteNamespace, dir: Ino, names: &[String]) -> Vec<Result<Attr, Kind>> {
    let mut all = Vec::new();
    for text in names {
        all.push(space.lookup(dir, name(text)).await.map_err(|e: Error| e.kind()));
    }
    all
}

/// Random changes from three nodes, one at a time; after each, all see the same as one that asks anew.
#[test]
fn nobody_ever_sees_what_is_not_any_more() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let rig = Rig::start().await;
        let mut nodes = Vec::new();
        for _ in 0..3 {
            nodes.push(rig.space().await);
        }
        let names: Vec<String> = (0..6).map(|i| format!("n{i}")).collect();
        for seed in [1u64, 2, 3] {
            let dir = format!("dir-{seed}");
            let dir =
                nodes[0].1.create(Ino::ROOT, name(&dir), new(FileType::Directory), false).await.unwrap().ino;
            let mut random = random(seed);
            for step in 0..150 {
                let space = &nodes[(random() % 3) as usize].1;
                let (a, b) = (&names[(random() % 6) as usize], &names[(random() % 6) as usize]);
                change(space, dir, a, b, random() % 9).await;
                // Now and then one that has kept nothing yet.
                let anew = if step % 30 == 29 { Some(rig.space().await) } else { None };
                let fresh = anew.as_ref().map_or(&nodes[0].1, |(_, space)| space);
                let truth = seen(fresh, dir, &names).await;
                let mut listed = list(fresh, dir).await;
                listed.sort();
                for (_, space) in &nodes {
                    assert_eq!(seen(space, dir, &names).await, truth, "seed {seed}, step {step}");
                    let mut all = list(space, dir).await;
                    all.sort();
                    assert_eq!(all, listed, "seed {seed}, step {step}");
                    for attr in truth.iter().flatten() {
                        assert_eq!(space.getattr(attr.ino).await.unwrap(), *attr, "seed {seed}, step {step}");
                        let value = space.getxattr(attr.ino, b"user.x").await.map_err(|e| e.kind());
                        let other = fresh.getxattr(attr.ino, b"user.x").await.map_err(|e| e.kind());
                        assert_eq!(value, other, "seed {seed}, step {step}");
                    }
                }
                if let Some((client, _)) = anew {
                    client.close().await;
                }
            }
        }
        for (_, space) in &nodes {
            space.state().cache.check();
        }
        rig.end().await;
    });
}

/// What the service was asked since `before`, by kind; closes come when they come.
fn asked(rig: &Rig, before: &[(CallKind, u64)]) -> Vec<(CallKind, u64)> {
    let since = rig.service().stats().calls.into_iter().zip(before);
    let counts = since.map(|((kind, now), (_, then))| (kind, now - then));
    counts.filter(|(kind, count)| *count > 0 && *kind != CallKind::Close).collect()
}

#[test]
fn a_new_file_is_two_calls_and_what_is_known_none() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let rig = Rig::start().await;
        let (_client, a) = rig.space().await;
        let before = rig.service().stats().calls;
        for text in ["f", "g", "h"] {
            let made = a.create(Ino::ROOT, name(text), new(FileType::File), true).await.unwrap();
            // The kernel's question before content changes.
            let e = a.removexattr(made.ino, b"security.capability").await.unwrap_err();
            assert_eq!(e.kind(), Kind::NoAttribute);
            let (ino, mtime, ctime) = (made.ino, made.mtime, made.ctime);
            let (extents, holes) = (vec![], vec![(0, 1)]);
            a.commit(Commit { ino, size: 1, mtime, ctime, extents, holes, staged_seq: 0 }).await.unwrap();
            a.close(ino);
            assert_eq!(at_once(a.lookup(Ino::ROOT, name(text))).unwrap().size, 1);
        }
        assert_eq!(asked(&rig, &before), [(CallKind::Create, 3), (CallKind::Commit, 3)]);
        rig.end().await;
    });
}

#[test]
fn what_is_durable_is_not_synced_again() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let rig = Rig::start().await;
        let ((_ca, a), (_cb, b)) = (rig.space().await, rig.space().await);
        create(&a, Ino::ROOT, "f").await.unwrap();
        let before = rig.service().stats().calls;
        for _ in 0..3 {
            a.sync().await.unwrap();
        }
        assert_eq!(asked(&rig, &before), [(CallKind::Sync, 1)]);
        // What another did counts once it is seen here.
        b.lookup(Ino::ROOT, name("f")).await.unwrap();
        b.sync().await.unwrap();
        b.sync().await.unwrap();
        assert_eq!(asked(&rig, &before), [(CallKind::Lookup, 1), (CallKind::Sync, 2)]);
        rig.end().await;
    });
}

/// One change; those that are refused are refused.
async fn change(space: &RemoteNamespace, dir: Ino, a: &str, b: &str, what: u64) {
    let found = space.lookup(dir, name(a)).await;
    let result = match (what, found) {
        (0 | 1, _) => create(space, dir, a).await.map(drop),
        (2, _) => space.unlink(dir, name(a)).await.map(drop),
        (3, _) => space.rename(dir, name(a), dir, name(b), RenameMode::Replace).await.map(drop),
        (4, _) => space.rename(dir, name(a), dir, name(b), RenameMode::Exchange).await.map(drop),
        (5, Ok(attr)) => space.link(attr.ino, dir, name(b)).await.map(drop),
        (6, Ok(attr)) => {
            let set = SetAttr { size: Some(attr.size + 1), ..Default::default() };
            space.setattr(attr.ino, set).await.map(drop)
        }
        (7, Ok(attr)) => space.setxattr(attr.ino, b"user.x", b.as_bytes(), false, false).await,
        (8, Ok(attr)) => space.removexattr(attr.ino, b"user.x").await,
        (_, Err(e)) => Err(e),
        _ => Ok(()),
    };
    if let Err(e) = result {
        let expected = [Kind::NotFound, Kind::Exists, Kind::NoAttribute];
        assert!(expected.contains(&e.kind()), "{e:?}");
    }
}

#[test]
fn what_is_kept_is_bounded_and_given_back() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let rig = Rig::start().await;
        let mut options = rig.options("bob");
        options.limits.leases_max = 50;
        let client = super::super::Client::connect(options).await.unwrap();
        let space = client.namespace(&NAME.parse().unwrap()).await.unwrap();
        for i in 0..300 {
            create(&space, Ino::ROOT, &format!("f{i}")).await.unwrap();
        }
        while client.status().leases > 50 || rig.service().stats().leases > 60 {
            client.tick();
            // Answered after the leases that were given back before.
            space.call_attr(crate::call::Call::GetAttr { ino: Ino(u64::MAX >> 2) }).await.unwrap_err();
        }
        space.state().cache.check();
        assert_eq!(list(&space, Ino::ROOT).await.len(), 300);
        rig.end().await;
    });
}
