use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn key(n: u64) -> ScopeKey {
    ScopeKey::new(if n.is_multiple_of(2) { Scope::Inode(Ino(n)) } else { Scope::Directory(Ino(n)) }).unwrap()
}

#[test]
fn a_scope_is_one_number_and_back() {
    for scope in [Scope::Inode(Ino(1)), Scope::Directory(Ino(1)), Scope::Inode(Ino(u64::MAX >> 1))] {
        assert_eq!(ScopeKey::new(scope).unwrap().scope(), scope);
    }
    assert_eq!(ScopeKey::new(Scope::Inode(Ino(1 << 63))), None);
    assert_eq!(size_of::<(ScopeKey, Holder)>(), 16);
}

/// What the table is to do, told by sets.
#[derive(Default)]
struct Naive {
    held: BTreeMap<(Member, ScopeKey), LeaseKind>,
    recalls: BTreeMap<u64, (Member, ScopeKey, LeaseKind)>,
}

impl Naive {
    fn others(&self, member: Member, key: ScopeKey, wanted: LeaseKind) -> BTreeSet<Member> {
        let in_the_way = |(m, k): &(Member, ScopeKey), kind: LeaseKind| {
            *m != member && *k == key && (wanted == LeaseKind::Write || kind == LeaseKind::Write)
        };
        self.held.iter().filter(|(who, kind)| in_the_way(who, **kind)).map(|((m, _), _)| *m).collect()
    }

    fn recalled(&self, member: Member, key: ScopeKey) -> bool {
        self.recalls.values().any(|(m, k, _)| (*m, *k) == (member, key))
    }

    fn remove(&mut self, member: Member, key: ScopeKey) -> bool {
        self.recalls.retain(|_, (m, k, _)| (*m, *k) != (member, key));
        self.held.remove(&(member, key)).is_some()
    }
}

proptest! {
    #[test]
    fn as_a_naive_table(steps in prop::collection::vec((0u8..6, 0u32..4, 0u64..4, any::<bool>()), 1..200)) {
        let (mut table, mut naive) = (Leases::default(), Naive::default());
        for (i, (what, member, k, write)) in steps.into_iter().enumerate() {
            let (id, key) = (i as u64, key(k));
            let kind = if write { LeaseKind::Write } else { LeaseKind::Read };
            let mut found = Vec::new();
            table.in_the_way(member, key, kind, &mut found);
            let others = naive.others(member, key, kind);
            prop_assert_eq!(found.iter().copied().collect::<BTreeSet<_>>(), others.clone());
            prop_assert_eq!(table.is_free(member, key, kind), others.is_empty());
            match what {
                0 | 1 if others.is_empty() => {
                    let has = naive.held.get(&(member, key)).copied();
                    prop_assert_eq!(table.grant(member, key, kind), has.is_none());
                    naive.held.insert((member, key), has.map_or(kind, |has| if has == LeaseKind::Write { has } else { kind }));
                }
                2 => for other in others {
                    let same = |(m, k, w): &(Member, ScopeKey, LeaseKind)| {
                        (*m, *k) == (other, key) && (*w == LeaseKind::Write || kind == LeaseKind::Read)
                    };
                    let number = id * 10 + u64::from(other);
                    let new = !naive.recalls.values().any(same);
                    prop_assert_eq!(table.recall(other, key, kind, number, Duration::ZERO), new);
                    if new { naive.recalls.insert(number, (other, key, kind)); }
                },
                3 => if let Some((number, (m, k, w))) = naive.recalls.pop_first() {
                    prop_assert_eq!(table.released(m + 1, number), None);
                    let gone = w == LeaseKind::Write && naive.remove(m, k);
                    if w == LeaseKind::Read && naive.held.contains_key(&(m, k)) {
                        naive.held.insert((m, k), LeaseKind::Read);
                    }
                    prop_assert_eq!(table.released(m, number), Some((k, gone)));
                    prop_assert_eq!(table.released(m, number), None);
                },
                4 => prop_assert_eq!(table.remove(member, key), naive.remove(member, key)),
                5 => {
                    let gone: BTreeSet<_> = table.remove_member(member).into_iter().collect();
                    let had: BTreeSet<_> = naive.held.keys().filter(|(m, _)| *m == member).map(|(_, k)| *k).collect();
                    prop_assert_eq!(gone, had);
                    naive.held.retain(|(m, _), _| *m != member);
                    naive.recalls.retain(|_, (m, ..)| *m != member);
                }
                _ => {}
            }
            for m in 0..4 {
                for k in 0..4 {
                    let k = super::tests::key(k);
                    prop_assert_eq!(table.holds(m, k), naive.held.get(&(m, k)).copied());
                    prop_assert_eq!(table.is_recalled(m, k), naive.recalled(m, k));
                }
                let unanswered: Vec<_> = naive.recalls.iter().filter(|(_, r)| r.0 == m).map(|(id, r)| (*id, r.1, r.2)).collect();
                prop_assert_eq!(table.unanswered(m), unanswered);
            }
        }
        let scopes: BTreeSet<_> = naive.held.keys().map(|(_, k)| *k).collect();
        prop_assert_eq!(table.len(), scopes.len());
    }
}
