use proptest::prelude::*;

use super::*;

const A: NamespaceId = NamespaceId(1);
const B: NamespaceId = NamespaceId(2);

fn granted(turns: &mut Turns) -> Vec<u64> {
    std::iter::from_fn(|| turns.grant()).map(|g| g.ticket).collect()
}

#[test]
fn a_flood_of_one_namespace_costs_anothers_read_one_place() {
    let mut turns = Turns::new(1, 1);
    let flood: Vec<u64> = (0..1000).map(|_| turns.enter(A, Class::Demand, 1).unwrap()).collect();
    assert_eq!(granted(&mut turns), [flood[0]]);
    let single = turns.enter(B, Class::Demand, 1).unwrap();
    turns.give_back(Class::Demand, 1);
    assert_eq!(granted(&mut turns), [flood[1]]);
    turns.give_back(Class::Demand, 1);
    assert_eq!(granted(&mut turns), [single]);
}

#[test]
fn demand_gets_the_next_slot_although_fetches_ahead_hold_all_and_wait() {
    let mut turns = Turns::new(4, 4);
    let ahead: Vec<u64> = (0..8).map(|_| turns.enter(A, Class::Ahead, 1).unwrap()).collect();
    assert_eq!(granted(&mut turns), ahead[..4]);
    let demand = turns.enter(A, Class::Demand, 1).unwrap();
    assert_eq!(granted(&mut turns), [0u64; 0]);
    turns.give_back(Class::Ahead, 1);
    assert_eq!(granted(&mut turns), [demand]);
}

#[test]
fn a_raised_fetch_leaves_the_others_behind() {
    let mut turns = Turns::new(1, 1);
    let first = turns.enter(A, Class::Ahead, 1).unwrap();
    assert_eq!(granted(&mut turns), [first]);
    let waiting: Vec<u64> = (0..5).map(|_| turns.enter(A, Class::Ahead, 1).unwrap()).collect();
    let background = turns.enter(A, Class::Background, 1).unwrap();
    assert!(turns.raise(waiting[3]) && turns.raise(background) && !turns.raise(first));
    assert!(!turns.raise(waiting[3]), "once is enough");
    let mut order = Vec::new();
    turns.give_back(Class::Ahead, 1);
    while let Some(g) = turns.grant() {
        order.push((g.ticket, g.class));
        turns.give_back(g.class, g.slots);
    }
    let expected = [background, waiting[3]].map(|t| (t, Class::Demand)).into_iter();
    let rest = [0, 1, 2, 4].map(|i| (waiting[i], Class::Ahead));
    assert_eq!(order, expected.chain(rest).collect::<Vec<_>>());
}

#[test]
fn fetches_ahead_keep_to_their_share_and_their_queue() {
    let mut turns = Turns::new(8, 3);
    let accepted = (0..1000).filter(|_| turns.enter(A, Class::Ahead, 1).is_some()).count();
    assert_eq!(accepted, AHEAD_OF_NAMESPACE_MAX);
    assert_eq!(granted(&mut turns).len(), 3);
    assert!(turns.enter(B, Class::Ahead, 1).is_some(), "another namespace has a queue of its own");
    turns.set_ahead_max(5);
    assert_eq!(granted(&mut turns).len(), 2);
    assert_eq!(Turns::new(1, 0).enter(A, Class::Ahead, 1), None);
}

#[test]
fn a_demand_that_needs_two_slots_is_not_overtaken() {
    let mut turns = Turns::new(2, 1);
    let one = turns.enter(A, Class::Demand, 1).unwrap();
    assert_eq!(granted(&mut turns), [one]);
    let two = turns.enter(A, Class::Demand, 2).unwrap();
    let (small, ahead) =
        (turns.enter(B, Class::Demand, 1).unwrap(), turns.enter(B, Class::Ahead, 1).unwrap());
    assert_eq!(granted(&mut turns), [0u64; 0]);
    turns.give_back(Class::Demand, 1);
    assert_eq!(granted(&mut turns), [two]);
    turns.give_back(Class::Demand, 2);
    assert_eq!(granted(&mut turns), [small, ahead]);
}

proptest! {
    /// Whatever is asked, given back, raised and cancelled: the bounds hold, demand goes first, and all who wait come to
    /// their turn.
    #[test]
    fn bounds_hold_and_nobody_is_forgotten(
        slots in 1u32..6, share in 1u32..6,
        steps in proptest::collection::vec((0u8..7, 0u8..4, 1u32..4, any::<prop::sample::Index>()), 1..200),
    ) {
        let share = share.min(slots);
        let mut turns = Turns::new(slots, share);
        let (mut held, mut waiting): (Vec<Granted>, Vec<u64>) = (Vec::new(), Vec::new());
        let settle = |turns: &mut Turns, held: &mut Vec<Granted>, waiting: &mut Vec<u64>| {
            while let Some(g) = turns.grant() {
                waiting.retain(|t| *t != g.ticket);
                held.push(g);
                assert!(held.iter().map(|g| g.slots).sum::<u32>() <= slots);
                let ahead: u32 = held.iter().filter(|g| g.class != Class::Demand).map(|g| g.slots).sum();
                assert!(ahead <= share);
                assert!(g.class == Class::Demand || turns.demand.len == 0);
            }
        };
        for (step, ns, want, at) in steps {
            match step {
                0..=3 => {
                    let class = [Class::Demand, Class::Ahead, Class::Announced, Class::Background][step as usize];
                    waiting.extend(turns.enter(NamespaceId(u32::from(ns)), class, want));
                }
                4 if !held.is_empty() => {
                    let g = held.swap_remove(at.index(held.len()));
                    turns.give_back(g.class, g.slots);
                }
                5 if !waiting.is_empty() => { turns.raise(waiting[at.index(waiting.len())]); }
                6 if !waiting.is_empty() => turns.cancel(waiting.swap_remove(at.index(waiting.len()))),
                _ => {}
            }
            settle(&mut turns, &mut held, &mut waiting);
        }
        while let Some(g) = held.pop() {
            turns.give_back(g.class, g.slots);
            settle(&mut turns, &mut held, &mut waiting);
        }
        prop_assert!(waiting.is_empty() && turns.waiting.is_empty());
        prop_assert_eq!((turns.free, turns.ahead_held), (slots, 0));
        prop_assert_eq!(turns.demand.len + turns.ahead.len + turns.announced.len + turns.background.len, 0);
    }
}
