//! A node that stops at every failpoint in turn, and at random moments: nothing that was acknowledged is lost.
//!
//! Several threads work in directories of their own, each noting what it does before it does it and what fsync promised
//! after it returned ([`granary_tests::Model`], [`granary_tests::Worker`]). The node stops, is started again (and stops again, within its recovery), and every
//! byte of every file is read and compared; now and then also after everything was drained and the node's own disk emptied.
//!
//! `GRANARY_KILL_ROUNDS` sets how many rounds [50], `GRANARY_TEST_SEED` repeats a seed as far as threads and time allow,
//! `GRANARY_KILL_AT` takes one failpoint alone.

mod lane;

use std::sync::Mutex;

use granary_core::Failpoint;
use granary_tests::seed;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use lane::{Lane, Stop};

/// Nodes at once: each waits for its disk most of the time.
const LANES: u64 = 4;

/// Every failpoint once, in random order; then kills at random moments, some of them with a second one in the recovery.
fn plan(rounds: usize, rng: &mut StdRng) -> Vec<Stop> {
    let only = std::env::var("GRANARY_KILL_AT").ok();
    let mut points = Failpoint::ALL.to_vec();
    // Those of `granary pack` are taken in turn by `cli/tests/pack.rs`: no node ever comes to them.
    points.retain(|point| point.is_of_node());
    points.retain(|point| only.as_ref().is_none_or(|name| point.name() == name));
    assert!(!points.is_empty(), "there is no failpoint {only:?}");
    let mut stops = Vec::new();
    while stops.len() < rounds {
        if only.is_some() || stops.is_empty() || rng.random_range(0..3) == 0 {
            points.shuffle(rng);
            stops.extend(points.iter().map(|&point| Stop::At(point, rng.random_range(1..4))));
        } else {
            stops.extend((0..10).map(|_| Stop::After(rng.random_range(1..80))));
        }
    }
    stops.truncate(rounds);
    stops.reverse();
    stops
}

#[test]
fn nothing_acknowledged_is_lost_wherever_the_node_stops() {
    let rounds = std::env::var("GRANARY_KILL_ROUNDS").map_or(50, |r| r.parse().expect("a number of rounds"));
    let seed = seed();
    let stops = Mutex::new(plan(rounds, &mut StdRng::seed_from_u64(seed)));
    let next = || stops.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop();
    let done: u64 = std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES.min(rounds as u64))
            .map(|n| {
                let next = &next;
                scope.spawn(move || {
                    let mut lane = Lane::new(n, seed);
                    while let Some(stop) = next() {
                        lane.round(stop);
                    }
                    lane.end()
                })
            })
            .collect();
        // All are waited for, so that each takes its mounts down; then the first failure is told.
        let ended: Vec<_> = lanes.into_iter().map(|lane| lane.join()).collect();
        ended.into_iter().map(|lane| lane.unwrap_or_else(|e| std::panic::resume_unwind(e))).sum()
    });
    println!("{rounds} stops, {done} acknowledged operations, none lost");
    assert!(done > 0);
}
