//! What leaves the cache, and what is not kept at all: a policy without I/O.

/// When a chunk is wanted next: the place in the line of samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wanted {
    At(u64),
    /// Not by this loader; of those, the ones that were kept earlier leave first: so many seconds ago.
    Never {
        age_s: u64,
    },
}

/// The sum of what is kept, as far as this process knows, and what was learned when room was made.
#[derive(Debug)]
pub struct Evict {
    bytes_max: u64,
    /// None before the folder was looked through.
    kept_bytes: Option<u64>,
    /// What is wanted no sooner than this left the last time.
    horizon: Option<Wanted>,
}

/// What to do with a new chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Keep,
    /// What is kept is wanted sooner.
    Pass,
    /// Look through the folder, and [`make room`](Evict::make_room) first.
    MakeRoom,
}

impl Evict {
    pub fn new(bytes_max: u64) -> Evict {
        Evict { bytes_max, kept_bytes: None, horizon: None }
    }

    /// Room is made down to this.
    fn low(&self) -> u64 {
        self.bytes_max - self.bytes_max / 16
    }

    pub fn decide(&self, bytes: u64, wanted: Wanted) -> Decision {
        let Some(kept) = self.kept_bytes else { return Decision::MakeRoom };
        let full = kept + bytes > self.low();
        if full && self.horizon.is_some_and(|horizon| wanted >= horizon) {
            return Decision::Pass;
        }
        if kept + bytes > self.bytes_max { Decision::MakeRoom } else { Decision::Keep }
    }

    /// The folder was looked through: so much is kept.
    pub fn seen(&mut self, bytes: u64) {
        self.kept_bytes = Some(bytes);
    }

    /// One more was.
    pub fn kept(&mut self, bytes: u64) {
        if let Some(kept) = &mut self.kept_bytes {
            *kept += bytes;
        }
    }

    /// Of all that is kept (bytes, next use), the places of those that leave: what is wanted last, until there is room again.
    pub fn make_room(&mut self, all: &[(u64, Wanted)]) -> Vec<usize> {
        let mut kept: u64 = all.iter().map(|(bytes, _)| bytes).sum();
        let mut leave = Vec::new();
        if kept > self.low() {
            let mut order: Vec<usize> = (0..all.len()).collect();
            order.sort_unstable_by_key(|&at| std::cmp::Reverse(all[at].1));
            for at in order {
                if kept <= self.low() {
                    break;
                }
                kept -= all[at].0;
                self.horizon = Some(all[at].1);
                leave.push(at);
            }
        }
        self.kept_bytes = Some(kept);
        leave
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_last_leaves_and_what_is_wanted_later_still_is_not_kept() {
        let mut evict = Evict::new(160);
        assert_eq!(evict.decide(10, Wanted::At(5)), Decision::MakeRoom);
        let all = [
            (40, Wanted::At(7)),
            (40, Wanted::At(900)),
            (40, Wanted::Never { age_s: 1 }),
            (10, Wanted::Never { age_s: 9 }),
            (40, Wanted::At(50)),
        ];
        // 170 of at most 150: the oldest stranger is not enough, so the other leaves too.
        assert_eq!(evict.make_room(&all), [3, 2]);
        assert_eq!(evict.decide(10, Wanted::At(5)), Decision::Keep);
        assert_eq!(evict.make_room(&all[..2]), [0; 0]);
        // Somebody else makes room: what fits is kept, the rest passes by.
        let mut evict = Evict::new(160);
        evict.seen(140);
        assert_eq!(
            (evict.decide(20, Wanted::At(5)), evict.decide(21, Wanted::At(5))),
            (Decision::Keep, Decision::MakeRoom)
        );
        // Almost full: what is wanted after all that left is passed by.
        let mut evict = Evict::new(160);
        evict.make_room(&[(80, Wanted::At(1)), (80, Wanted::At(100))]);
        evict.kept(60);
        assert_eq!(evict.decide(20, Wanted::At(101)), Decision::Pass);
        assert_eq!(evict.decide(20, Wanted::At(99)), Decision::Keep);
        assert_eq!(evict.decide(21, Wanted::At(99)), Decision::MakeRoom);
    }

    /// Epochs over twice the cache: about half is found in each, and what the policy says is within the bound.
    #[test]
    fn of_a_set_twice_as_large_half_is_found() {
        use crate::order::permutation::{Permutation, key};
        let (chunks, cache, epochs) = (2000_u64, 1000_u64, 6);
        let order = |epoch| Permutation::new(chunks, key(&[epoch]));
        let next = |chunk: u64, epoch: u64, at: u64| {
            let place = order(epoch).place(chunk);
            Wanted::At(if place > at {
                epoch * chunks + place
            } else {
                (epoch + 1) * chunks + order(epoch + 1).place(chunk)
            })
        };
        let mut evict = Evict::new(cache);
        evict.make_room(&[]);
        let mut kept = std::collections::BTreeSet::new();
        let mut hits = Vec::new();
        for epoch in 0..epochs {
            let mut found = 0;
            for at in 0..chunks {
                let chunk = order(epoch).get(at);
                if kept.contains(&chunk) {
                    found += 1;
                    continue;
                }
                if evict.decide(1, next(chunk, epoch, at)) == Decision::MakeRoom {
                    let all: Vec<u64> = kept.iter().copied().collect();
                    let uses: Vec<(u64, Wanted)> = all.iter().map(|&c| (1, next(c, epoch, at))).collect();
                    for place in evict.make_room(&uses) {
                        kept.remove(&all[place]);
                    }
                }
                if evict.decide(1, next(chunk, epoch, at)) == Decision::Keep {
                    kept.insert(chunk);
                    evict.kept(1);
                }
                assert!(kept.len() as u64 <= cache);
            }
            hits.push(found as f64 / chunks as f64);
        }
        // The best that can be done is a little over one half; an LRU finds about 15 % (ARCHITECTURE.md, "What stays in the cache").
        assert_eq!(hits[0], 0.0);
        assert!(hits[1..].iter().all(|hit| (0.45..0.75).contains(hit)), "{hits:?}");
    }
}
