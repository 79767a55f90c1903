//! In which order calls are done: each namespace has a line of its own, and the lines take turns.
//!
//! At most one runner works for a namespace, so calls of one namespace are done in the order in which they came. A turn
//! is at most [`QUANTUM`] calls. So a call waits for those before it in its own namespace, and, with N other namespaces
//! that have calls waiting and R runners, for at most (N / R + 1) turns of theirs for each of its own, however many calls
//! wait there.

use std::collections::{HashMap, VecDeque};

use granary_core::NamespaceId;

/// Calls of one namespace that are done in one turn: some hundred microseconds.
pub(super) const QUANTUM: usize = 32;

#[derive(Debug)]
struct Line<J> {
    jobs: VecDeque<J>,
    /// A runner works for it.
    active: bool,
}

/// Plain data; the caller guards it.
#[derive(Debug)]
pub(super) struct Fair<J> {
    lines: HashMap<NamespaceId, Line<J>>,
    /// Those with jobs and no runner.
    ready: VecDeque<NamespaceId>,
    runners: usize,
    runners_max: usize,
}

impl<J> Fair<J> {
    pub fn new(runners_max: usize) -> Fair<J> {
        Fair { lines: HashMap::new(), ready: VecDeque::new(), runners: 0, runners_max: runners_max.max(1) }
    }

    /// Whether the caller is to become a runner: to call [`Fair::take`] until there is nothing.
    #[must_use]
    pub fn push(&mut self, ns: NamespaceId, job: J) -> bool {
        let line = self.lines.entry(ns).or_insert_with(|| Line { jobs: VecDeque::new(), active: false });
        line.jobs.push_back(job);
        if line.active || line.jobs.len() > 1 {
            return false;
        }
        self.ready.push_back(ns);
        let starts = self.runners < self.runners_max;
        self.runners += usize::from(starts);
        starts
    }

    fn end_turn(&mut self, done: Option<NamespaceId>) {
        if let Some(ns) = done
            && let Some(line) = self.lines.get_mut(&ns)
        {
            line.active = false;
            if line.jobs.is_empty() {
                self.lines.remove(&ns);
            } else {
                self.ready.push_back(ns);
            }
        }
    }

    /// Ends a runner's turn for `done` and begins its next; `None`: it is no runner any more.
    pub fn take(&mut self, done: Option<NamespaceId>) -> Option<(NamespaceId, Vec<J>)> {
        self.end_turn(done);
        let next = self.ready.pop_front();
        let Some((ns, line)) = next.and_then(|ns| Some((ns, self.lines.get_mut(&ns)?))) else {
            self.runners -= 1;
            return None;
        };
        line.active = true;
        let count = line.jobs.len().min(QUANTUM);
        Some((ns, line.jobs.drain(..count).collect()))
    }

    /// Ends a runner's turn for `done` and leaves it to somebody else to go on: whether there is anything to go on with.
    #[must_use]
    pub fn pause(&mut self, done: Option<NamespaceId>) -> bool {
        self.end_turn(done);
        let goes_on = !self.ready.is_empty();
        self.runners -= usize::from(!goes_on);
        goes_on
    }

    /// Jobs that wait.
    pub fn waiting(&self) -> usize {
        self.lines.values().map(|line| line.jobs.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NamespaceId = NamespaceId(1);
    const B: NamespaceId = NamespaceId(2);

    #[test]
    fn a_flood_delays_another_namespace_by_one_turn_at_most() {
        let mut fair = Fair::new(1);
        assert!(fair.push(A, 0), "nobody runs yet");
        for i in 1..10_000 {
            assert!(!fair.push(A, i));
        }
        let (ns, first) = fair.take(None).unwrap();
        assert_eq!((ns, first.len()), (A, QUANTUM));
        assert!(!fair.push(B, 0), "the runner that there is will see to it");
        let (ns, jobs) = fair.take(Some(A)).unwrap();
        assert_eq!((ns, jobs), (B, vec![0]));
        // The flood goes on, in its order.
        assert_eq!(fair.take(Some(B)).unwrap(), (A, (32..64).collect()));
        assert_eq!(fair.waiting(), 10_000 - 2 * QUANTUM);
    }

    #[test]
    fn one_runner_for_each_namespace_and_a_bound_on_all() {
        let mut fair = Fair::new(2);
        assert!(fair.push(A, 1));
        let (_, jobs) = fair.take(None).unwrap();
        assert_eq!(jobs, [1]);
        assert!(!fair.push(A, 2), "its runner goes on");
        assert!(fair.push(B, 1), "a second runner for the other");
        assert!(!fair.push(NamespaceId(3), 1), "no third");
        assert_eq!(fair.take(None).unwrap(), (B, vec![1]));
        assert_eq!(fair.take(Some(A)).unwrap().0, NamespaceId(3));
        assert_eq!(fair.take(Some(B)).unwrap(), (A, vec![2]));
        assert_eq!(fair.take(Some(A)), None);
        assert_eq!(fair.take(Some(NamespaceId(3))), None);
        assert!(fair.push(A, 3), "after all have gone somebody must come again");
        assert_eq!(fair.take(None).unwrap(), (A, vec![3]));
        assert!(!fair.push(A, 4));
        assert!(fair.pause(Some(A)), "somebody else has to go on");
        assert_eq!(fair.take(None).unwrap(), (A, vec![4]));
        assert!(!fair.pause(Some(A)));
        assert!(fair.push(A, 3), "after all have gone somebody must come again");
    }
}
