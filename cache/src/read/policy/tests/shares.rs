//! Minimums and maximums of owners.

use super::*;

const OTHER: NamespaceId = NamespaceId(8);

fn share(bytes_min: u64, bytes_max: u64) -> CacheShare {
    CacheShare { bytes_min, bytes_max }
}

/// As many turns as it takes with a bound on each; how many.
fn make_room(policy: &mut S3Fifo<u32>, size: u64) -> usize {
    let turns = (1..100).find(|_| {
        policy.evict_for(NS, size);
        policy.room_of(NS).0 >= size
    });
    turns.expect("there is something to evict")
}

#[test]
fn an_entry_takes_no_more_memory_for_its_owner() {
    assert_eq!(size_of::<Entry>(), 40);
    assert_eq!(line::place_bytes::<(u128, u32)>(), 48);
    assert_eq!(size_of::<((u128, u32), u64)>(), 48, "key and stay alone");
}

#[test]
fn what_others_need_passes_over_a_minimum() {
    let mut policy = S3Fifo::new();
    policy.set_share(NS, share(40, u64::MAX));
    for key in 0..50 {
        add(&mut policy, key, 1, 100);
    }
    for key in 1000..2000 {
        policy.evict_to(99, 100);
        policy.insert(key, 1, OTHER);
        for frame in [0, 8, 0, 8] {
            policy.touch(&key, frame, OTHER);
        }
    }
    assert_eq!(policy.bytes_of(NS), 40, "what it had beyond is gone");
    assert_eq!((policy.bytes_of(OTHER), policy.held_bytes()), (60, 40));
    policy.set_share(NS, share(0, u64::MAX));
    for key in 2000..3000 {
        policy.evict_to(99, 100);
        policy.insert(key, 1, OTHER);
        for frame in [0, 8, 0, 8] {
            policy.touch(&key, frame, OTHER);
        }
    }
    assert!(policy.bytes_of(NS) < 40, "without one it leaves as others do");
}

#[test]
fn it_ends_when_all_is_held() {
    let mut policy = S3Fifo::new();
    policy.set_share(NS, share(60, u64::MAX));
    policy.set_share(OTHER, share(40, u64::MAX));
    for key in 0..60 {
        add(&mut policy, key, 1, 100);
    }
    for key in 100..140 {
        policy.insert(key, 1, OTHER);
    }
    policy.set_pinned(&3, true);
    assert_eq!(policy.evict_to(0, 100), []);
    assert_eq!((policy.held_bytes(), policy.held_against(NS)), (100, 41));
    let gone = policy.evict_held_of(NS, 5);
    assert_eq!(gone.len(), 5, "an owner's own leave for its own");
    assert!(gone.iter().all(|(key, _)| *key < 60 && *key != 3));
    assert_eq!(policy.evict_all_to(0, 100).len(), 94, "all but what is pinned leaves when it must");
    assert_eq!((policy.bytes(), policy.pinned_bytes()), (1, 1));
}

/// A set of twice its maximum in shuffled epochs, in a cache that is never full, while others read too: its maximum is used about as
/// well as a cache of that size.
#[test]
fn a_maximum_is_used_as_a_cache_of_that_size() {
    let epochs: Vec<Vec<u32>> = (0..12)
        .map(|epoch| {
            let mut keys: Vec<u32> = (0..200).collect();
            keys.sort_by_key(|key| (key + 1000 * epoch).wrapping_mul(0x9e37_79b1).rotate_left(11));
            keys
        })
        .collect();
    let hits = |bounded: bool| {
        let (mut policy, mut hits, mut next) = (S3Fifo::new(), 0, 100_000);
        policy.set_share(NS, share(0, 100));
        for key in epochs.iter().flatten() {
            hits += u32::from(policy.contains(key));
            if !policy.contains(key) {
                match bounded {
                    true => assert_eq!(make_room(&mut policy, 1), 1),
                    false => drop(policy.evict_to(99, 100)),
                }
                policy.insert(*key, 1, NS);
            }
            policy.touch(key, 0, NS);
            policy.touch(key, 8, NS);
            assert!(policy.bytes_of(NS) <= 100);
            if bounded {
                policy.insert(next, 1, OTHER);
                policy.touch(&next, 0, OTHER);
                next += 1;
            }
        }
        hits
    };
    let (alone, bounded) = (hits(false), hits(true));
    assert!(alone > 600, "{alone} of 2,400");
    // More is remembered of what left, as many keys as the whole cache has. First in, first out would find half as many.
    assert!(bounded * 10 >= alone * 8, "{bounded}, {alone} alone");
}

#[test]
fn the_search_among_many_others_is_bounded_and_goes_on() {
    let mut policy = S3Fifo::new();
    policy.set_share(NS, share(0, 10));
    let mut next = 1000;
    let mut turns = 0;
    for key in 0..100 {
        turns += make_room(&mut policy, 1);
        policy.insert(key, 1, NS);
        for _ in 0..2000 {
            policy.insert(next, 1, OTHER);
            next += 1;
        }
    }
    assert_eq!(policy.bytes_of(NS), 10);
    // 200,000 places were looked at at most twice (for the small queue and from its front again); each call looks at 16,384.
    assert!(turns <= 100 + 2 * 200_000 / LOOKS_MAX, "{turns}");
}

#[test]
fn after_a_restart_entries_are_nobodys_until_they_are_read() {
    let mut policy = S3Fifo::new();
    policy.set_share(NS, share(0, 20));
    let mut policy = policy.emptied();
    for key in 0..60 {
        policy.restore(key, 1);
    }
    assert_eq!(policy.bytes_of(NS), 0);
    for key in 0..30 {
        policy.touch(&key, 0, NS);
    }
    assert_eq!(policy.bytes_of(NS), 30, "more than its maximum, which it did not ask for");
    assert_eq!(make_room(&mut policy, 1), 1);
    assert_eq!(policy.bytes_of(NS), 19);
    assert!(policy.keys_in(0..=10).is_empty(), "its oldest");
    assert_eq!(policy.len(), 49, "and nobody else's");
    // What is learned behind the place where the search is, is found in the next round.
    for key in 30..60 {
        policy.touch(&key, 0, NS);
    }
    assert_eq!(make_room(&mut policy, 20), 1);
    assert_eq!(policy.bytes_of(NS), 0);
}

#[test]
fn nothing_leaves_in_vain() {
    let mut policy = S3Fifo::new();
    policy.set_share(NS, share(0, 10));
    for key in 0..10 {
        policy.insert(key, 1, NS);
        policy.set_pinned(&key, key < 8);
    }
    assert_eq!(policy.evict_for(NS, 3), [], "what is pinned leaves no room for it");
    assert_eq!(policy.evict_for(NS, 2).len(), 2);
    policy.reserve(NS, 1);
    assert_eq!(policy.room_of(NS), (1, 1));
    policy.release(NS, 1);
    assert_eq!(policy.room_of(NS), (2, 2));
}
