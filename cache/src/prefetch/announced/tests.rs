use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;
const NOW: Duration = Duration::from_secs(1);

fn id(uid: u32, number: u64) -> OrderId {
    OrderId { uid, number }
}

fn files(inos: Range<u64>, size: u64) -> Vec<(Ino, u64)> {
    inos.map(|ino| (Ino(ino), size)).collect()
}

/// With one order.
fn one(list: &[(Ino, u64)]) -> Announced {
    let mut all = Announced::default();
    all.append(id(1, 1), false, list, NOW).unwrap();
    all
}

/// Fetches all that may be: the files, in order.
fn fetch(all: &mut Announced, window: u64) -> Vec<u64> {
    let mut fetched = Vec::new();
    while let Some(batch) = all.next(window, NOW) {
        let bytes = batch.pieces.iter().map(|(_, piece)| piece.end - piece.start).sum();
        fetched.extend(batch.pieces.iter().map(|(ino, _)| ino.0));
        all.on_fetched(&batch, bytes);
    }
    fetched
}

#[test]
fn it_goes_on_in_order_as_far_as_the_window_and_follows_the_reader() {
    let mut all = one(&files(10..1000, MIB));
    assert_eq!(fetch(&mut all, 20 * MIB), (10..30).collect::<Vec<_>>());
    assert!(!all.on_read(Ino(5), NOW), "of no order");
    assert!(all.on_read(Ino(14), NOW));
    assert_eq!(fetch(&mut all, 20 * MIB), (30..35).collect::<Vec<_>>());
    assert!(!all.on_read(Ino(12), NOW), "one that was passed");
    assert_eq!(fetch(&mut all, 20 * MIB), [0_u64; 0]);
    assert_eq!(all.files(), 985);
}

#[test]
fn a_reader_who_is_faster_is_overtaken() {
    let mut all = one(&files(10..1000, MIB));
    fetch(&mut all, 2 * MIB);
    assert!(all.on_read(Ino(100), NOW));
    assert_eq!(fetch(&mut all, 2 * MIB), [101, 102]);
}

#[test]
fn a_read_far_away_is_somebody_elses() {
    let mut all = one(&files(10..20_000, MIB));
    assert!(!all.on_read(Ino(10 + BAND_FILES), NOW));
    assert!(all.on_read(Ino(9 + BAND_FILES), NOW));
}

#[test]
fn what_costs_nothing_is_looked_at_and_no_further_than_so_many_files() {
    let mut all = one(&files(10..50_000, MIB));
    let mut seen = 0;
    while let Some(batch) = all.next(200 * MIB, NOW) {
        seen += batch.pieces.len() as u64;
        all.on_fetched(&batch, 0);
    }
    assert_eq!(seen, AHEAD_FILES);
    let mut all = one(&files(10..50, 100));
    let batch = all.next(100 * MIB, NOW).unwrap();
    assert_eq!(batch.pieces.len(), 40);
    // Neighbours: all of them lay in one chunk.
    all.on_fetched(&batch, MIB);
    assert!(all.orders[0].cost <= MIB);
}

#[test]
fn a_large_file_is_fetched_piece_by_piece() {
    let mut all = one(&[(Ino(7), 100 * MIB), (Ino(8), 0), (Ino(9), MIB)]);
    let mut pieces = Vec::new();
    while let Some(batch) = all.next(50 * MIB, NOW) {
        pieces.extend(batch.pieces.clone());
        let bytes = batch.pieces.iter().map(|(_, piece)| piece.end - piece.start).sum();
        all.on_fetched(&batch, bytes);
    }
    assert_eq!(pieces, [(Ino(7), 0..32 * MIB), (Ino(7), 32 * MIB..64 * MIB)]);
    // Its reader has come to it: its own streams fetch the rest.
    assert!(all.on_read(Ino(7), NOW));
    assert_eq!(fetch(&mut all, 50 * MIB), [8, 9]);
}

#[test]
fn the_second_pass_over_the_same_files_comes_behind_the_first() {
    let mut all = one(&[files(10..13, MIB), files(10..13, MIB)].concat());
    assert!(all.on_read(Ino(11), NOW));
    assert!(all.on_read(Ino(12), NOW));
    assert_eq!(all.files(), 3);
    assert!(all.on_read(Ino(10), NOW));
    assert_eq!(all.files(), 2);
}

#[test]
fn orders_take_turns_and_end() {
    let mut all = one(&files(100..300, MIB));
    all.append(id(2, 1), false, &files(500..700, MIB), NOW).unwrap();
    let (a, b) = (all.next(1 << 40, NOW).unwrap(), all.next(1 << 40, NOW).unwrap());
    assert_ne!(a.pieces[0].0.0 < 400, b.pieces[0].0.0 < 400);
    all.end(id(1, 1));
    all.on_fetched(&a, 0);
    all.on_fetched(&b, 0);
    assert!(fetch(&mut all, 1 << 40).iter().all(|ino| *ino >= 500));
    all.append(id(2, 1), true, &files(800..801, MIB), NOW).unwrap();
    all.on_fetched(&b, 77); // of the order that was there before
    assert_eq!((fetch(&mut all, 1 << 40), all.files()), (vec![800], 1));
    let batch = {
        all.append(id(2, 1), false, &files(900..901, MIB), NOW).unwrap();
        all.next(1 << 40, NOW).unwrap()
    };
    all.on_refused(&batch);
    assert!(all.is_empty());
}

#[test]
fn an_order_whose_program_is_gone_keeps_its_part_until_it_is_forgotten() {
    let mut all = one(&files(100..300, MIB));
    assert_eq!(fetch(&mut all, 20 * MIB).len(), 20);
    all.append(id(2, 1), false, &files(500..700, MIB), NOW + IDLE / 2).unwrap();
    assert_eq!(fetch(&mut all, 20 * MIB), (500..510).collect::<Vec<_>>());
    let batch = all.next(20 * MIB, NOW + IDLE).unwrap();
    assert_eq!((batch.pieces.len(), all.orders.len()), (10, 1), "all is the other's now");
}

#[test]
fn both_limits_hold_and_idle_orders_give_way() {
    let mut all = Announced::default();
    for number in 0..ANNOUNCED_ORDERS_OF_USER_MAX as u64 {
        all.append(id(1, number), false, &files(1..2, 1), NOW).unwrap();
    }
    let e = all.append(id(1, 999), false, &[], NOW).unwrap_err();
    assert_eq!(e.kind(), Kind::NoSpace);
    all.append(id(2, 999), false, &[], NOW).unwrap();
    let room = ANNOUNCED_FILES_MAX - ANNOUNCED_ORDERS_OF_USER_MAX;
    all.append(id(2, 999), false, &vec![(Ino(5), 1); room], NOW).unwrap();
    let e = all.append(id(2, 999), false, &[(Ino(5), 1)], NOW).unwrap_err();
    assert_eq!((e.kind(), e.errno()), (Kind::WouldBlock, 11));
    all.orders[ANNOUNCED_ORDERS_OF_USER_MAX].touched = NOW + IDLE / 2;
    let e = all.append(id(2, 999), false, &vec![(Ino(5), 1); 17], NOW + IDLE).unwrap_err();
    assert_eq!(e.kind(), Kind::WouldBlock);
    all.append(id(2, 999), false, &[(Ino(5), 1)], NOW + IDLE).unwrap();
    assert_eq!(all.orders.len(), 1, "the others were idle");
}

proptest! {
    /// Whatever happens, what is known of costs fits what is listed, and nothing is fetched that was read.
    #[test]
    fn sums_hold(steps in proptest::collection::vec((0_u8..5, 0_u64..200, 0_u64..3), 1..80)) {
        let mut all = Announced::default();
        let mut under_way = Vec::new();
        for (what, ino, order) in steps {
            match what {
                0 => all.append(id(1, order), ino == 0, &files(ino..ino + 50, ino * 50_000), NOW).unwrap(),
                1 => drop(all.on_read(Ino(ino), NOW)),
                2 => under_way.extend(all.next(64 * MIB, NOW)),
                3 => if let Some(batch) = under_way.pop() { all.on_fetched(&batch, ino << 18) },
                _ => all.end(id(1, order)),
            }
            for order in &all.orders {
                prop_assert_eq!(order.cost, order.files.iter().map(|file| file.cost).sum::<u64>());
                prop_assert_eq!(order.places.len(), order.files.len());
                prop_assert!(order.next >= order.first && order.next <= order.end());
            }
        }
    }
}
