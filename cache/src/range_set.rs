//! A set of byte ranges, kept joined and in order.

use std::collections::BTreeMap;
use std::ops::Range;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RangeSet {
    /// Start to end; ranges neither touch nor overlap, none is empty.
    by_start: BTreeMap<u64, u64>,
}

impl RangeSet {
    pub fn is_empty(&self) -> bool {
        self.by_start.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.by_start.iter().map(|(&start, &end)| start..end)
    }

    /// The lowest byte of the set.
    pub fn first(&self) -> Option<u64> {
        self.by_start.first_key_value().map(|(&start, _)| start)
    }

    pub fn insert(&mut self, range: Range<u64>) {
        if range.start >= range.end {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        // The one before may touch; those inside are swallowed.
        if let Some((&s, &e)) = self.by_start.range(..=start).next_back()
            && e >= start
        {
            if e >= end {
                return;
            }
            self.by_start.remove(&s);
            start = s;
        }
        while let Some((&s, &e)) = self.by_start.range(start..=end).next() {
            self.by_start.remove(&s);
            end = end.max(e);
        }
        self.by_start.insert(start, end);
    }

    pub fn remove(&mut self, range: Range<u64>) {
        if range.start >= range.end {
            return;
        }
        let mut hits: Vec<(u64, u64)> = self.by_start.range(range.clone()).map(|(&s, &e)| (s, e)).collect();
        if let Some((&s, &e)) = self.by_start.range(..range.start).next_back()
            && e > range.start
        {
            hits.push((s, e));
        }
        for (s, e) in hits {
            self.by_start.remove(&s);
            if s < range.start {
                self.by_start.insert(s, range.start);
            }
            if e > range.end {
                self.by_start.insert(range.end, e);
            }
        }
    }

    pub fn union(&mut self, other: &RangeSet) {
        for range in other.iter() {
            self.insert(range);
        }
    }

    /// The parts of `range` that are not in the set.
    pub fn gaps(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut at = range.start;
        if let Some((_, &e)) = self.by_start.range(..=at).next_back() {
            at = at.max(e);
        }
        for (&s, &e) in self.by_start.range(at..range.end.max(at)) {
            if s > at {
                gaps.push(at..s);
            }
            at = at.max(e);
        }
        if at < range.end {
            gaps.push(at..range.end);
        }
        gaps
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_a_set_of_bytes(ops in proptest::collection::vec((any::<bool>(), 0u64..60, 0u64..20), 0..60), q in (0u64..60, 0u64..30)) {
            let mut set = RangeSet::default();
            let mut plain = [false; 100];
            for (add, start, len) in ops {
                let range = start..start + len;
                if add { set.insert(range.clone()) } else { set.remove(range.clone()) }
                plain[range.start as usize..range.end as usize].fill(add);
            }
            let mut seen = [false; 100];
            let mut last_end = None;
            for r in set.iter() {
                prop_assert!(r.start < r.end);
                prop_assert!(last_end.is_none_or(|e| e < r.start), "ranges are joined");
                last_end = Some(r.end);
                seen[r.start as usize..r.end as usize].fill(true);
            }
            prop_assert_eq!(seen, plain);
            prop_assert_eq!(set.first(), plain.iter().position(|&b| b).map(|p| p as u64));
            let range = q.0..q.0 + q.1;
            let mut gap = [false; 100];
            for g in set.gaps(range.clone()) {
                prop_assert!(g.start < g.end);
                gap[g.start as usize..g.end as usize].fill(true);
            }
            for b in 0..100u64 {
                prop_assert_eq!(gap[b as usize], range.contains(&b) && !plain[b as usize]);
            }
        }
    }
}
