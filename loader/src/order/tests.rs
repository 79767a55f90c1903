use std::sync::Arc;

use proptest::prelude::*;

use super::batches::{Batches, Tail};
use super::epoch::Order;
use super::quality::quality;
use super::shape::{Shape, Spot};
use super::shuffle::{Method, Shuffle};
use super::stream::{Pick, Stream, StreamOptions};

const METHODS: [Method; 4] = [Method::None, Method::Shards, Method::Window, Method::Full];

fn shape(shards: &[(u32, u64)]) -> Arc<Shape> {
    Arc::new(Shape::new(shards.iter().copied(), b"a data set").unwrap())
}

fn options(method: Method, batch: u64) -> StreamOptions {
    StreamOptions {
        shuffle: Shuffle { method, run_bytes: 4096, lanes: 0, mix_samples: 4, bucket_batches: 0 },
        seed: 1,
        batch,
        weights: Vec::new(),
        epoch_samples: None,
    }
}

/// Every position has another sample, and the sample leads back to its position.
fn check_epoch(shape: &Arc<Shape>, order: &Order, epoch: u64) {
    let epoch = order.epoch(epoch);
    let mut seen = vec![false; shape.samples() as usize];
    for position in 0..shape.samples() {
        let spot = epoch.at(position);
        let number = shape.number(spot) as usize;
        assert!(!std::mem::replace(&mut seen[number], true), "{order:?}: {spot:?} comes twice");
        assert_eq!(epoch.position(spot), position, "{order:?} {spot:?}");
    }
}

#[test]
fn every_number_of_samples_up_to_ten_thousand_comes_exactly_once() {
    for n in (1_u32..=260).chain((260..=10_000).step_by(211)).chain([9_999, 10_000]) {
        // Three shards, one of them empty or short, and runs of three or four samples.
        let third = n / 3;
        let shape = shape(&[
            (third, u64::from(third) * 1200),
            (n / 7, u64::from(n / 7) * 1200),
            (n - third - n / 7, u64::from(n) * 1200),
        ]);
        for method in METHODS {
            let shuffle = Shuffle { method, run_bytes: 4096, lanes: 0, mix_samples: 5, bucket_batches: 0 };
            for batch in [1, 7, 256] {
                check_epoch(&shape, &Order::new(shape.clone(), shuffle, 5, batch), 3);
            }
        }
    }
}

proptest! {
    #[test]
    fn any_shards_batches_and_lanes_give_each_sample_once(
        shards in proptest::collection::vec((0_u32..60, 1_u64..100_000), 1..30),
        batch in 1_u64..300, lanes in 0_u32..70, mix_samples in 1_u32..70, seed: u64, epoch in 0_u64..1000,
    ) {
        let shape = shape(&shards);
        prop_assume!(shape.samples() > 0);
        for method in METHODS {
            let shuffle = Shuffle { method, run_bytes: 4096, lanes, mix_samples, bucket_batches: 0 };
            check_epoch(&shape, &Order::new(shape.clone(), shuffle, seed, batch), epoch);
        }
    }

    /// The parts of any number of ranks, one after the other, are the global batches of one rank.
    #[test]
    fn ranks_do_not_change_the_order(
        samples in 1_u32..400, batch in 1_u64..70, ranks in 1_u32..9, tail in 0_usize..3, method in 0_usize..4,
    ) {
        let tail = [Tail::Pad, Tail::Drop, Tail::Uneven][tail];
        let shape = shape(&[(samples / 2, 1 << 16), (samples - samples / 2, 1 << 16)]);
        let stream = Stream::new(vec![shape], &options(METHODS[method], batch)).unwrap();
        let batches = Batches { samples: u64::from(samples), batch, tail };
        let give = |ranks: u32| -> Vec<Vec<Pick>> {
            let one = |b| (0..ranks).flat_map(|r| stream.picks(2, batches.part(b, r, ranks))).collect();
            (0..batches.count()).map(one).collect()
        };
        let all = give(ranks);
        prop_assert_eq!(&all, &give(1));
        let mut given: Vec<Pick> = all.into_iter().flatten().collect();
        given.sort_unstable();
        let repeated = given.len() - { given.dedup(); given.len() };
        let left_out = samples as usize - given.len();
        match tail {
            Tail::Uneven => prop_assert_eq!((repeated, left_out), (0, 0)),
            Tail::Drop => prop_assert!(repeated == 0 && (left_out as u64) < batch),
            Tail::Pad => prop_assert!(left_out == 0 && (repeated as u64) < batch),
        }
    }
}

#[test]
fn a_mix_goes_through_each_data_set_before_it_begins_again() {
    let shapes = vec![shape(&[(30, 1 << 20)]), shape(&[(7, 1 << 20)])];
    let options = StreamOptions { weights: vec![0.8, 0.2], ..options(Method::Full, 10) };
    let stream = Stream::new(shapes, &options).unwrap();
    assert_eq!(stream.epoch_samples(), 37);
    // 20 epochs of the line: of each data set, in the order they came.
    let picks: Vec<Pick> = (0..20).flat_map(|epoch| stream.picks(epoch, 0..37)).collect();
    for (source, samples) in [(0, 30), (1, 7)] {
        let own: Vec<Spot> = picks.iter().filter(|p| p.source == source).map(|p| p.spot).collect();
        for once in own.chunks_exact(samples) {
            let mut once = once.to_vec();
            once.sort_unstable();
            once.dedup();
            assert_eq!(once.len(), samples);
        }
        let expected = if source == 0 { 592 } else { 148 };
        assert_eq!(own.len(), expected);
    }
    let first = picks.iter().filter(|p| p.source == 1).count() as u64;
    assert_eq!(stream.given(1, 20, 0), first);
}

#[test]
fn seeds_and_epochs_give_other_orders_and_the_same_ones_the_same() {
    let shape = shape(&[(5000, 1 << 24), (5000, 1 << 24)]);
    for method in [Method::Window, Method::Full] {
        let order = |seed: u64, epoch: u64| -> Vec<Pick> {
            let options = StreamOptions { seed, ..options(method, 64) };
            Stream::new(vec![shape.clone()], &options).unwrap().picks(epoch, 0..10_000)
        };
        assert_eq!(order(1, 0), order(1, 0));
        for other in [order(2, 0), order(1, 1)] {
            let same = other.iter().zip(order(1, 0)).filter(|(a, b)| **a == *b).count();
            assert!(same < 20, "{same} of 10000 are where they were");
        }
    }
}

/// The order is a promise: a saved state goes on with what would have come. When this fails, [`super::VERSION`] must change.
#[test]
fn the_order_is_what_it_was() {
    let shape = shape(&[(500, 1 << 22), (300, 1 << 21), (200, 1 << 21)]);
    let first = |method| -> [u64; 6] {
        let stream = Stream::new(vec![shape.clone()], &options(method, 16)).unwrap();
        let picks = stream.picks(1, 0..6);
        std::array::from_fn(|at| shape.number(picks[at].spot))
    };
    assert_eq!(super::VERSION, 1);
    assert_eq!([Method::None, Method::Shards, Method::Window, Method::Full].map(first), ORDERS);
}

const ORDERS: [[u64; 6]; 4] = [
    [0, 1, 2, 3, 4, 5],
    [500, 501, 502, 503, 504, 505],
    [266, 407, 923, 56, 638, 171],
    [997, 379, 259, 432, 747, 543],
];

#[test]
fn a_window_is_nearly_as_good_as_a_full_shuffle() {
    // 200 shards of 64 MiB with 600 samples each: 1600 runs of 75.
    let shape = shape(&[(600, 64 << 20); 200]);
    let of = |method| {
        let shuffle = Shuffle { method, ..Shuffle::default() };
        let order = Order::new(shape.clone(), shuffle, 1, 256);
        quality(&order.epoch(0), shape.samples(), 256)
    };
    let (none, shards, window, full) =
        (of(Method::None), of(Method::Shards), of(Method::Window), of(Method::Full));
    assert!(none.tau > 0.999 && none.same_shard > 100.0 && none.distance < 0.001, "{none:?}");
    assert!(shards.tau.abs() < 0.1 && shards.same_shard > 100.0, "{shards:?}");
    assert!(full.tau.abs() < 0.02 && (full.same_shard - 1.0).abs() < 0.05, "{full:?}");
    assert!((full.distance - 1.0).abs() < 0.05, "{full:?}");
    // 64 lanes: four samples of a batch are of one run. 3 / 255 of the pairs beside 1 / 200 in a full shuffle.
    assert!(window.tau.abs() < 0.05 && window.same_shard < 3.6, "{window:?}");
    // A lane for each sample: no two of a batch are of one run.
    let shuffle = Shuffle { lanes: 256, ..Shuffle::default() };
    let order = Order::new(shape.clone(), shuffle, 1, 256);
    let wide = quality(&order.epoch(0), shape.samples(), 256);
    assert!(wide.tau.abs() < 0.05 && wide.same_shard < 1.1, "{wide:?}");
}

#[test]
fn a_hundred_million_samples_cost_nothing_each() {
    // 10,000 shards of 1 GiB: 1.28 million runs.
    let shape = shape(&[(10_000, 1 << 30); 10_000]);
    let stream = Stream::new(
        vec![shape.clone()],
        &StreamOptions { shuffle: Shuffle::default(), ..options(Method::Window, 4096) },
    );
    let stream = stream.unwrap();
    for position in [0, 1, 50_000_000, 99_999_999] {
        let pick = stream.picks(7, position..position + 1)[0];
        assert_eq!(stream.epoch(0, 7).position(pick.spot), position);
    }
}
