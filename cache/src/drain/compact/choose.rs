//! Which objects are worth rewriting together. Decides only.

use granary_core::ObjectKind;
use granary_core::limits::OBJECT_PAYLOAD_MAX;
use granary_meta::LiveObject;

/// An object is *sparse* when at most this part of its payload is live: rewriting it frees at least what it writes.
const SPARSE_PERCENT: u64 = 50;
/// Sparse objects are left alone until rewriting them frees this much, or this many of them.
const FREED_MIN: u64 = OBJECT_PAYLOAD_MAX / 2;
const OBJECTS_MIN: usize = 32;
/// A pack of up to this many bytes is *small*: many of them are joined.
const SMALL_BYTES_MAX: u64 = OBJECT_PAYLOAD_MAX / 8;
/// A small pack joins others when it is not larger than they are together, or than this: so a byte is rewritten only a
/// few times, whenever it is in a pack of about double the size.
const SMALL_STEP: u64 = 64 << 10;

/// Groups whose live bytes fit one pack each, the most wasteful objects first. What is in no group is not worth it now.
pub(super) fn choose(objects: &[LiveObject]) -> Vec<Vec<LiveObject>> {
    let (mut sparse, rest): (Vec<LiveObject>, Vec<LiveObject>) =
        objects.iter().partition(|o| o.live.saturating_mul(100) <= o.object.payload_len * SPARSE_PERCENT);
    sparse.sort_by_key(|o| (o.live * 100 / o.object.payload_len.max(1), o.object.id));
    let mut groups = fill(sparse, |_, _| true);
    groups.retain(|group| {
        let freed: u64 = group.iter().map(|o| o.object.payload_len - o.live).sum();
        freed >= FREED_MIN || group.len() >= OBJECTS_MIN
    });
    let is_small = |o: &LiveObject| o.object.kind == ObjectKind::Pack && o.live <= SMALL_BYTES_MAX;
    let mut small: Vec<LiveObject> = rest.into_iter().filter(is_small).collect();
    small.sort_by_key(|o| (o.live, o.object.id));
    let joined = fill(small, |o, sum| o.live <= sum.max(SMALL_STEP));
    groups.extend(joined.into_iter().filter(|group| group.len() >= OBJECTS_MIN));
    groups
}

/// One group after another, each as full as it gets in this order. `joins` says whether an object goes to a group of so many bytes.
fn fill(objects: Vec<LiveObject>, joins: impl Fn(&LiveObject, u64) -> bool) -> Vec<Vec<LiveObject>> {
    let mut groups: Vec<Vec<LiveObject>> = Vec::new();
    let mut sum = 0;
    for object in objects {
        match groups.last_mut() {
            Some(group) if sum + object.live <= OBJECT_PAYLOAD_MAX && joins(&object, sum) => {
                sum += object.live;
                group.push(object);
            }
            _ => {
                sum = object.live;
                groups.push(vec![object]);
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use granary_core::ObjectId;
    use granary_meta::ObjectInfo;
    use proptest::prelude::*;

    use super::*;

    fn object(id: u128, payload_len: u64, live: u64) -> LiveObject {
        let object = ObjectInfo {
            id: ObjectId(id),
            kind: ObjectKind::Pack,
            payload_len,
            total_len: payload_len + 100,
        };
        LiveObject { object, live }
    }

    fn ids(groups: &[Vec<LiveObject>]) -> Vec<Vec<u128>> {
        groups.iter().map(|g| g.iter().map(|o| o.object.id.0).collect()).collect()
    }

    #[test]
    fn mostly_dead_packs_are_rewritten_and_mostly_live_ones_are_not() {
        let full = OBJECT_PAYLOAD_MAX;
        let objects = [object(1, full, full / 2), object(2, full, full / 10), object(3, full, full * 6 / 10)];
        assert_eq!(ids(&choose(&objects)), [[2, 1]]);
    }

    #[test]
    fn little_waste_is_left_alone() {
        assert_eq!(choose(&[object(1, 1 << 20, 1), object(2, 1 << 20, 1)]), Vec::<Vec<LiveObject>>::new());
        let many: Vec<LiveObject> = (1..=40).map(|id| object(id, 1 << 20, 1)).collect();
        assert_eq!(choose(&many).len(), 1);
    }

    #[test]
    fn many_small_packs_are_joined_with_their_like() {
        let mut objects: Vec<LiveObject> = (1..=40).map(|id| object(id, 10_000, 10_000)).collect();
        objects.push(object(41, 1_900_000, 1_900_000));
        let groups = choose(&objects);
        assert_eq!(
            ids(&groups),
            [(1..=40).collect::<Vec<_>>()],
            "the larger one would be rewritten for little"
        );
    }

    proptest! {
        #[test]
        fn each_object_is_in_at_most_one_group_which_fits_a_pack_and_frees_or_joins(
            sizes in proptest::collection::vec((1..=OBJECT_PAYLOAD_MAX, 0..=100u64), 0..200)
        ) {
            let objects: Vec<LiveObject> = sizes
                .iter()
                .enumerate()
                .map(|(i, &(len, percent))| object(i as u128 + 1, len, (len * percent / 100).max(1)))
                .collect();
            let mut seen = std::collections::HashSet::new();
            for group in choose(&objects) {
                let live: u64 = group.iter().map(|o| o.live).sum();
                let freed: u64 = group.iter().map(|o| o.object.payload_len - o.live).sum();
                prop_assert!(live <= OBJECT_PAYLOAD_MAX);
                prop_assert!(freed >= live || group.len() >= OBJECTS_MIN);
                for o in group {
                    prop_assert!(seen.insert(o.object.id));
                }
            }
        }
    }
}
