//! The trash as it is seen from several nodes.

use std::sync::Arc;

use granary_core::{Clock, Ino, Kind, NodeId, ObjectId, ObjectKind, TestClock};

use super::rig::*;
use crate::Metadata;
use crate::remote::RemoteNamespace;
use crate::server::ServeLimits;
use crate::service::ServiceOptions;
use crate::types::*;

async fn stored(space: &RemoteNamespace, dir: Ino, text: &str, n: u64) -> Ino {
    let ino = create(space, dir, text).await.unwrap().ino;
    space.lease(ino).await.unwrap();
    let place = Place::Log { node: NodeId(1), segment: 1, offset: n * 100 };
    let from = Extent { offset: 0, len: 9, place, crc: 7 };
    let time = TestClock::default().now();
    let (extents, holes) = (vec![from], vec![]);
    let commit = Commit { ino, size: 9, mtime: time, ctime: time, extents, holes, staged_seq: n };
    space.commit(commit).await.unwrap();
    let (id, kind) = (ObjectId(u128::from(n)), ObjectKind::Pack);
    let object = ObjectInfo { id, kind, payload_len: 9, total_len: 99 };
    space.relocate(object, vec![Move { ino, from, to_offset: 0 }]).await.unwrap();
    ino
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_removes_another_finds_and_brings_back() {
    // A clock that stands still: all of it is in one hour.
    let options = ServiceOptions { linger: std::time::Duration::ZERO, ..ServiceOptions::default() };
    let rig = Rig::start_with(Arc::new(TestClock::default()), options, ServeLimits::default()).await;
    let ((a, on_a), (b, on_b)) = (rig.space().await, rig.space().await);
    let d = on_a.create(Ino::ROOT, name("d"), new(FileType::Directory), false).await.unwrap().ino;
    let inos = [stored(&on_a, d, "f", 1).await, stored(&on_a, d, "g", 2).await];
    // All names of the root are known, and the trash is none of them.
    assert_eq!(list(&on_b, Ino::ROOT).await, ["d"]);
    assert_eq!(on_b.lookup(Ino::ROOT, name("none")).await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(on_b.lookup(Ino::ROOT, name(".trash")).await.unwrap().ino, Ino::TRASH);
    assert_eq!(list(&on_b, Ino::ROOT).await, ["d"]);
    assert_eq!(list(&on_b, Ino::TRASH).await, [""; 0]);

    assert_eq!(on_a.unlink(d, name("f")).await.unwrap().nlink, 1);
    let hours = list(&on_b, Ino::TRASH).await;
    assert_eq!(hours.len(), 1);
    let hour = on_b.lookup(Ino::TRASH, name(&hours[0])).await.unwrap().ino;
    let mirror = on_b.lookup(hour, name("d")).await.unwrap().ino;
    assert_eq!(list(&on_b, mirror).await, ["f"]);
    assert_eq!(on_b.lookup(mirror, name("g")).await.unwrap_err().kind(), Kind::NotFound);
    // The node that removes, and the other, see the next one at once.
    on_a.unlink(d, name("g")).await.unwrap();
    for space in [&on_a, &on_b] {
        assert_eq!(list(space, mirror).await, ["f", "g"]);
        assert_eq!(space.lookup(mirror, name("g")).await.unwrap().ino, inos[1]);
    }
    let create_there = create(&on_b, mirror, "x").await.unwrap_err();
    assert_eq!(create_there.kind(), Kind::Permission);
    // One file comes back by itself, the other with its directory.
    on_b.rename(mirror, name("f"), d, name("f"), RenameMode::NoReplace).await.unwrap();
    on_b.rename(hour, name("d"), Ino::ROOT, name("e"), RenameMode::NoReplace).await.unwrap();
    for (i, space) in [&on_a, &on_b].into_iter().enumerate() {
        assert_eq!(space.lookup(d, name("f")).await.unwrap().ino, inos[0]);
        let e = space.lookup(Ino::ROOT, name("e")).await.unwrap().ino;
        assert_eq!(list(space, e).await.len(), 1 + i);
        assert_eq!(list(space, hour).await, [""; 0]);
        create(space, e, &format!("made-{i}")).await.unwrap();
    }
    let e = on_a.lookup(Ino::ROOT, name("e")).await.unwrap().ino;
    assert_eq!(list(&on_a, e).await, list(&on_b, e).await);
    a.close().await;
    b.close().await;
    rig.end().await;
}
