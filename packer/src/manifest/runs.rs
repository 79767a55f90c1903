//! A set of numbers as runs, with the rank of every number in it and outside of it.

/// Sorted, with a gap between any two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    /// First number and length.
    runs: Vec<(u32, u32)>,
    /// How many numbers are in the runs before each.
    before: Vec<u32>,
    count: u32,
}

impl Runs {
    /// `None` unless each has a length, they are sorted, do not touch, and end within 32 bits.
    pub fn from_runs(runs: Vec<(u32, u32)>) -> Option<Runs> {
        let mut out = Runs { before: Vec::with_capacity(runs.len()), ..Runs::default() };
        let mut end = None;
        for &(first, length) in &runs {
            if length == 0 || end.is_some_and(|end| first <= end) {
                return None;
            }
            end = Some(first.checked_add(length)?);
            out.before.push(out.count);
            out.count += length;
        }
        out.runs = runs;
        Some(out)
    }

    /// Of numbers in any order, also several times the same; none of them `u32::MAX`.
    pub fn from_numbers(numbers: impl IntoIterator<Item = u32>) -> Runs {
        let mut numbers: Vec<u32> = numbers.into_iter().filter(|&n| n < u32::MAX).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for n in numbers {
            match runs.last_mut() {
                Some((first, length)) if *first + *length == n => *length += 1,
                _ => runs.push((n, 1)),
            }
        }
        Runs::from_runs(runs).unwrap_or_default()
    }

    /// These and more.
    pub fn with(&self, numbers: impl IntoIterator<Item = u32>) -> Runs {
        Runs::from_numbers(self.iter().chain(numbers))
    }

    pub fn runs(&self) -> &[(u32, u32)] {
        &self.runs
    }

    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.runs.iter().flat_map(|&(first, length)| first..first + length)
    }

    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// How many numbers are in it.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Behind the last number; 0 when empty.
    pub fn end(&self) -> u32 {
        self.runs.last().map_or(0, |&(first, length)| first + length)
    }

    pub fn contains(&self, n: u32) -> bool {
        let after = self.runs.partition_point(|&(first, _)| first <= n);
        after > 0 && n - self.runs[after - 1].0 < self.runs[after - 1].1
    }

    /// How many numbers less than `n` are not in it.
    pub fn absent_before(&self, n: u32) -> u32 {
        let after = self.runs.partition_point(|&(first, _)| first < n);
        match after.checked_sub(1) {
            None => n,
            Some(last) => {
                let (first, length) = self.runs[last];
                n - self.before[last] - length.min(n - first)
            }
        }
    }

    /// The number that is not in it and has `rank` such numbers before it. It must be within 32 bits.
    pub fn nth_absent(&self, rank: u32) -> u32 {
        // Runs whose first number has at most `rank` absent ones before it lie before the answer.
        let mut passed = 0;
        let (mut low, mut high) = (0, self.runs.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let (first, length) = self.runs[middle];
            if first - self.before[middle] <= rank {
                passed = self.before[middle] + length;
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        rank + passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_a_set(numbers in proptest::collection::btree_set(0..200u32, 0..150)) {
            let runs = Runs::from_numbers(numbers.iter().rev().copied());
            prop_assert_eq!(runs.iter().collect::<BTreeSet<_>>(), numbers.clone());
            prop_assert_eq!(runs.count() as usize, numbers.len());
            prop_assert_eq!(Runs::from_runs(runs.runs().to_vec()), Some(runs.clone()));
            let absent: Vec<u32> = (0..400).filter(|n| !numbers.contains(n)).collect();
            for (rank, &n) in absent.iter().enumerate() {
                prop_assert_eq!(runs.nth_absent(rank as u32), n);
            }
            for n in 0..400 {
                prop_assert_eq!(runs.contains(n), numbers.contains(&n));
                prop_assert_eq!(runs.absent_before(n) as usize, absent.iter().filter(|&&a| a < n).count());
            }
        }
    }

    #[test]
    fn runs_that_cannot_be_are_refused() {
        for bad in [vec![(3, 0)], vec![(3, 2), (5, 1)], vec![(5, 1), (3, 1)], vec![(u32::MAX, 1)]] {
            assert_eq!(Runs::from_runs(bad.clone()), None, "{bad:?}");
        }
    }
}
