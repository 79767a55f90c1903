//! What a namespace reads beyond its maximum.

use super::*;

#[tokio::test]
async fn what_is_not_kept_is_read_all_the_same() {
    let mut b = Bench::new();
    let share = CacheShare { bytes_min: 0, bytes_max: 5 * MIB };
    b.cache.set_share(NS, share);
    let len = 12 * MIB;
    let object = b.object(1, len).await;
    for pass in 0..2 {
        for at in 0..12 {
            b.check(&object, at * MIB..(at + 1) * MIB).await;
            b.cache.idle().await;
            let here = b.cache.namespace_bytes(NS);
            assert!(here > 0 && here <= 5 * MIB, "{here} in pass {pass}");
        }
    }
    assert_eq!(b.cache.usage().0, b.cache.namespace_bytes(NS));
    // Nothing of its own can go: it is read, and not kept.
    let other = b.object(2, 4 * MIB).await;
    b.cache.pin_chunks(NS, object.id, 0..12).unwrap();
    let kept = b.cache.usage();
    b.check(&other, 0..4 * MIB).await;
    b.cache.idle().await;
    let pinned = b.cache.namespace_bytes(NS);
    assert!(pinned <= 5 * MIB, "{pinned}");
    let whole = (0..4).filter(|at| b.cache.has(other.id, at * MIB..(at + 1) * MIB)).count();
    assert!(whole < 4 && b.cache.usage().1 <= kept.1 + 1 + whole);
    let e = b.cache.bring(NS, &other, 0..4 * MIB, Patience::Background).await.unwrap_err();
    assert!(e.kind() == Kind::NoSpace && e.to_string().contains("cache_shares"), "{e}");
    // After a restart its chunks are its own when they are read.
    b.reopen().await;
    b.cache.set_share(NS, share);
    assert_eq!(b.cache.namespace_bytes(NS), 0);
    let bytes = b.cache.usage().0;
    b.store.set_dead(true);
    for at in (0..12).filter(|at| b.cache.has(object.id, at * MIB..(at + 1) * MIB)) {
        b.check(&object, at * MIB..(at + 1) * MIB).await;
    }
    assert!(b.cache.namespace_bytes(NS) > 3 * MIB && b.cache.namespace_bytes(NS) <= bytes);
}
