//! An object that was taken for garbage between its PUT and its naming.

use granary_core::ObjectId;
use granary_core::limits::Limits;
use granary_meta::types::Durability;
use granary_store::{Fault, Operation, Store};

use super::world::{World, limits};

/// Names so long that the directory of one pack does not hold them all: two packs of one upload.
const FILES: usize = 4000;

fn name(i: usize) -> String {
    format!("{i:0>255}")
}

#[tokio::test(flavor = "multi_thread")]
async fn its_bytes_are_stored_again_and_none_is_lost() {
    let mut w =
        World::with(Limits { log_segment_bytes_max: 32 << 20, ..limits() }, 0, Durability::Local).await;
    for i in 0..FILES {
        w.write_new(&name(i), &[i as u8]).await;
    }
    // The first pack is stored, the second under way: none is named yet.
    w.store.script(Operation::Put, Fault::None, 1);
    w.store.script(Operation::Put, Fault::Delay, 1);
    let tree = w.up().tree.clone();
    let sync = tokio::spawn(async move { tree.sync().await });
    w.store.until_held(1).await;
    let keys = w.memory_store.keys();
    assert_eq!(keys.len(), 1, "{keys:?}");
    let id: ObjectId = keys[0].rsplit('/').next().unwrap().parse().unwrap();
    assert_eq!(w.meta().condemn(vec![id]).unwrap(), [true]);
    w.memory_store.delete(keys.clone()).await.unwrap();
    w.store.release();
    let e = sync.await.unwrap().unwrap_err();
    assert!(e.to_string().contains("its bytes are stored again"), "{e}");
    w.tree_ref().sync().await.unwrap();
    assert!(!w.memory_store.keys().contains(&keys[0]));
    w.restart_with_empty_cache().await;
    for i in 0..FILES {
        assert_eq!(w.content(&name(i)).await, [i as u8]);
    }
    w.check().await;
}
