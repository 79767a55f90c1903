mod shares;

use super::*;
use proptest::prelude::*;

const NS: NamespaceId = NamespaceId(7);

/// What a cache does: room is made before an entry comes.
fn add(policy: &mut S3Fifo<u32>, key: u32, size: u64, budget: u64) -> Vec<(u32, u64)> {
    let gone = policy.evict_to(budget - size, budget);
    policy.insert(key, size, NS);
    gone
}

#[derive(Clone, Debug)]
enum Op {
    Add(u32, u64),
    Touch(u32, u32),
    Remove(u32),
    Shrink(u64),
    Pin(u32, bool),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0u32..60, 1u64..100).prop_map(|(key, size)| Op::Add(key, size)),
        4 => (0u32..60, 0u32..16).prop_map(|(key, frame)| Op::Touch(key, frame)),
        1 => (0u32..60).prop_map(Op::Remove),
        1 => (0u64..1000).prop_map(Op::Shrink),
        1 => (0u32..4, any::<bool>()).prop_map(|(key, pinned)| Op::Pin(key, pinned)),
    ]
}

proptest! {
    #[test]
    fn never_over_budget_and_every_entry_is_accounted_for(ops in proptest::collection::vec(op(), 0..400)) {
        const BUDGET: u64 = 1000;
        let mut policy = S3Fifo::new();
        let mut model: BTreeMap<u32, u64> = BTreeMap::new();
        let mut pinned = std::collections::BTreeSet::new();
        for op in ops {
            match op {
                Op::Add(key, size) => {
                    for (gone, size) in add(&mut policy, key, size, BUDGET) {
                        prop_assert!(!pinned.contains(&gone));
                        prop_assert_eq!(model.remove(&gone), Some(size));
                    }
                    model.insert(key, size);
                }
                Op::Touch(key, frame) => prop_assert_eq!(policy.touch(&key, frame, NS), model.contains_key(&key)),
                Op::Remove(key) => {
                    pinned.remove(&key);
                    prop_assert_eq!(policy.remove(&key).is_some(), model.remove(&key).is_some());
                }
                Op::Shrink(keep) => {
                    for (gone, size) in policy.evict_to(keep, BUDGET) {
                        prop_assert!(!pinned.contains(&gone));
                        prop_assert_eq!(model.remove(&gone), Some(size));
                    }
                    prop_assert!(policy.bytes() <= keep.max(policy.pinned_bytes()));
                }
                Op::Pin(key, pin) => {
                    policy.set_pinned(&key, pin);
                    if pin && model.contains_key(&key) { pinned.insert(key); } else { pinned.remove(&key); }
                }
            }
            prop_assert!(policy.bytes() <= BUDGET);
            prop_assert_eq!(policy.bytes(), model.values().sum::<u64>());
            prop_assert_eq!(policy.keys_in(0..=u32::MAX), model.keys().copied().collect::<Vec<_>>());
            prop_assert_eq!(policy.len(), model.len());
            prop_assert_eq!(policy.pinned_bytes(), pinned.iter().map(|key| model[key]).sum::<u64>());
            let most = 2 * model.len().max(16) + 65;
            prop_assert!(policy.small.len() <= most && policy.main.len() <= most && policy.ghost_order.len() <= most);
        }
    }

    /// 50 entries are in use again and again, in any order; then a scan of ten times the cache passes, each of its
    /// chunks read front to back in small reads. Nothing in use may leave.
    #[test]
    fn a_scan_does_not_flush_what_is_in_use(order in proptest::collection::vec(0u32..50, 2000), small in 1u32..8) {
        let mut policy = S3Fifo::new();
        for key in 0..50 {
            add(&mut policy, key, 1, 100);
        }
        for (i, key) in order.into_iter().chain((0..50).flat_map(|k| [k; 2])).enumerate() {
            for frame in [0, 5 + i as u32 % 3] {
                policy.touch(&key, frame, NS);
            }
        }
        for key in 1000..2000 {
            for (gone, _) in add(&mut policy, key, 1, 100) {
                prop_assert!(gone >= 1000, "{} was in use", gone);
            }
            for frame in 0..16 {
                for _ in 0..small {
                    policy.touch(&key, frame, NS);
                }
            }
        }
    }
}

#[test]
fn one_pass_in_small_reads_is_no_second_use() {
    let mut policy = S3Fifo::new();
    add(&mut policy, 1, 1, 10);
    for frame in 0..16 {
        for _ in 0..16 {
            policy.touch(&1, frame, NS);
        }
    }
    assert_eq!(policy.entries[&1].count, 0);
    policy.touch(&1, 0, NS);
    assert_eq!(policy.entries[&1].count, 1, "a second pass is");
}

#[test]
fn one_frame_counts_again_after_a_while() {
    let mut policy = S3Fifo::new();
    add(&mut policy, 1, 1, 10);
    for _ in 0..10 {
        policy.touch(&1, 0, NS);
        policy.touch(&2, 0, NS);
    }
    assert_eq!(policy.entries[&1].count, 0, "reads close together are one use");
    for other in 2..100 {
        policy.touch(&other, 0, NS);
    }
    policy.touch(&1, 0, NS);
    assert_eq!(policy.entries[&1].count, 1);
}

#[test]
fn what_comes_back_soon_takes_the_place_of_what_nobody_reads() {
    let mut policy = S3Fifo::new();
    let read = |policy: &mut S3Fifo<u32>, key| {
        if !policy.contains(&key) {
            add(policy, key, 1, 10);
        }
        policy.touch(&key, 0, NS);
    };
    for key in 0..11 {
        read(&mut policy, key);
    }
    assert!(!policy.contains(&9) && policy.contains(&0), "the first ones fill main");
    read(&mut policy, 9);
    for key in 20..40 {
        read(&mut policy, key);
    }
    assert!(policy.contains(&9), "it came back while remembered, and stays while others pass");
    assert!(!policy.contains(&0), "for it the one left that was read longest ago");
    assert_eq!(policy.keys_in(1..=8).len(), 8);
}

#[test]
fn what_outlived_a_restart_stays_while_a_scan_passes() {
    let mut policy = S3Fifo::new();
    for key in 0..8 {
        policy.restore(key, 1);
    }
    for key in 100..200 {
        add(&mut policy, key, 1, 10);
    }
    assert_eq!(policy.keys_in(0..=7).len(), 8);
}
