//! Room for namespaces with minimums and maximums, by random operations against a plain list.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::state::Place;
use super::*;
use crate::read::stats::ReadStats;

const BUDGET: u64 = 1000;

/// Minimum and maximum of each namespace, and what is left of both when all have them.
const SHARES: [CacheShare; 4] = [
    CacheShare { bytes_min: 300, bytes_max: u64::MAX },
    CacheShare { bytes_min: 0, bytes_max: 250 },
    CacheShare { bytes_min: 200, bytes_max: 450 },
    CacheShare { bytes_min: 0, bytes_max: u64::MAX },
];

#[derive(Clone, Debug)]
enum Op {
    /// A chunk of a namespace is kept.
    Keep {
        ns: usize,
        chunk: u32,
        size: u64,
    },
    Read {
        ns: usize,
        chunk: u32,
        frame: u32,
    },
    Remove {
        ns: usize,
        chunk: u32,
    },
    Pin {
        ns: usize,
        chunk: u32,
        pinned: bool,
    },
    /// What is written needs the disk.
    Shrink(u64),
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (0usize..4, 0u32..30, 1u64..100).prop_map(|(ns, chunk, size)| Op::Keep { ns, chunk, size }),
        12 => (0usize..4, 0u32..30, 0u32..16).prop_map(|(ns, chunk, frame)| Op::Read { ns, chunk, frame }),
        2 => (0usize..4, 0u32..30).prop_map(|(ns, chunk)| Op::Remove { ns, chunk }),
        2 => (0usize..4, 0u32..4, any::<bool>()).prop_map(|(ns, chunk, pinned)| Op::Pin { ns, chunk, pinned }),
        1 => (0u64..1000).prop_map(Op::Shrink),
        1 => Just(Op::Restart),
    ]
}

#[derive(Clone, Copy, Debug)]
struct Known {
    size: u64,
    /// `None`: not known since a restart.
    owner: Option<usize>,
    pinned: bool,
}

struct World {
    state: State,
    stats: ReadStats,
    model: BTreeMap<ChunkKey, Known>,
}

fn key(ns: usize, chunk: u32) -> ChunkKey {
    ChunkKey { object: ObjectId(ns as u128), index: chunk }
}

fn id(ns: usize) -> NamespaceId {
    NamespaceId(ns as u32 + 100)
}

impl World {
    fn new() -> World {
        let mut policy = S3Fifo::new();
        for (ns, share) in SHARES.into_iter().enumerate() {
            policy.set_share(id(ns), share);
        }
        let state = State { policy, open: Lru::new(1), unread: Unread::default(), reserved: 0 };
        World { state, stats: ReadStats::default(), model: BTreeMap::new() }
    }

    fn bytes_of(&self, ns: usize) -> u64 {
        self.model.values().filter(|k| k.owner == Some(ns)).map(|k| k.size).sum()
    }

    fn pinned(&self, of: impl Fn(&Known) -> bool) -> u64 {
        self.model.values().filter(|k| k.pinned && of(k)).map(|k| k.size).sum()
    }

    fn bytes(&self) -> u64 {
        self.model.values().map(|k| k.size).sum()
    }

    /// `guarded`: of whom nothing leaves that has no more than its minimum.
    fn leave(
        &mut self,
        gone: Vec<(ChunkKey, u64)>,
        guarded: impl Fn(usize) -> bool,
    ) -> Result<(), TestCaseError> {
        for (key, size) in gone {
            if let Some(owner) = self.model[&key].owner.filter(|owner| guarded(*owner)) {
                let (has, min) = (self.bytes_of(owner), SHARES[owner].bytes_min);
                prop_assert!(has > min, "of {} with {} one left", owner, has);
            }
            let known = self.model.remove(&key).unwrap();
            prop_assert!(known.size == size && !known.pinned);
        }
        Ok(())
    }

    fn keep(&mut self, ns: usize, key: ChunkKey, size: u64) -> Result<(), TestCaseError> {
        let held_by_others: u64 = (0..4)
            .map(|other| match other == ns {
                true => self.pinned(|k| k.owner == Some(ns)),
                false => {
                    let pinned = self.pinned(|k| k.owner == Some(other));
                    pinned.max(self.bytes_of(other).min(SHARES[other].bytes_min))
                }
            })
            .sum::<u64>()
            + self.pinned(|k| k.owner.is_none());
        let own_pinned = self.pinned(|k| k.owner == Some(ns));
        let mut gone = Vec::new();
        let place = self.state.place_for(size, Some(id(ns)), BUDGET, &mut gone);
        self.leave(gone, |owner| owner != ns)?;
        let gone = self.state.policy.evict_to(BUDGET - self.state.reserved, BUDGET);
        self.leave(gone, |_| true)?;
        let fits_own = own_pinned + size <= SHARES[ns].bytes_max;
        prop_assert_eq!(place == Place::Made, fits_own && held_by_others + size <= BUDGET);
        if place == Place::Made {
            self.state.reserved -= size;
            self.state.policy.release(id(ns), size);
            self.state.policy.insert(key, size, id(ns));
            self.model.insert(key, Known { size, owner: Some(ns), pinned: false });
            prop_assert!(self.bytes_of(ns) <= SHARES[ns].bytes_max);
        }
        Ok(())
    }

    fn restart(&mut self) {
        self.state.policy = self.state.policy.emptied();
        for (key, known) in &mut self.model {
            self.state.policy.restore(*key, known.size);
            *known = Known { owner: None, pinned: false, ..*known };
        }
    }

    fn step(&mut self, op: Op) -> Result<(), TestCaseError> {
        match op {
            Op::Keep { ns, chunk, size } => {
                let key = key(ns, chunk);
                // As it is fetched: not when it is there.
                if !self.model.contains_key(&key) {
                    self.keep(ns, key, size)?;
                }
            }
            Op::Read { ns, chunk, frame } => {
                let known = self.model.get_mut(&key(ns, chunk));
                let there = known.map(|known| known.owner = known.owner.or(Some(ns))).is_some();
                prop_assert_eq!(self.state.touch(id(ns), key(ns, chunk), frame, &self.stats), there);
            }
            Op::Remove { ns, chunk } => {
                self.state.policy.remove(&key(ns, chunk));
                self.model.remove(&key(ns, chunk));
            }
            Op::Pin { ns, chunk, pinned } => {
                self.state.policy.set_pinned(&key(ns, chunk), pinned);
                if let Some(known) = self.model.get_mut(&key(ns, chunk)) {
                    known.pinned = pinned;
                }
            }
            Op::Shrink(keep) => {
                let gone = self.state.policy.evict_to(keep, BUDGET);
                self.leave(gone, |_| true)?;
                let gone = self.state.policy.evict_all_to(keep, BUDGET);
                self.leave(gone, |_| false)?;
                prop_assert!(self.bytes() <= keep.max(self.pinned(|_| true)));
            }
            Op::Restart => self.restart(),
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn minimums_and_maximums_hold(ops in proptest::collection::vec(op(), 0..400)) {
        let mut world = World::new();
        for op in ops {
            let before: Vec<u64> = (0..4).map(|ns| world.bytes_of(ns)).collect();
            // Reading makes what outlived a restart a namespace's own, over its maximum too.
            let learns = matches!(op, Op::Read { .. });
            world.step(op)?;
            for (ns, before) in before.into_iter().enumerate() {
                let now = world.bytes_of(ns);
                prop_assert_eq!(world.state.policy.bytes_of(id(ns)), now);
                prop_assert!(learns || now <= SHARES[ns].bytes_max.max(before));
            }
            prop_assert!(world.state.policy.is_counted_right());
            prop_assert!(world.state.policy.bytes() == world.bytes() && world.bytes() <= BUDGET);
            prop_assert_eq!(world.state.reserved, 0);
        }
    }
}
