//! Readers that say when they come again: what is found then, without a word, and at best (Belady, "A study of replacement algorithms for a
//! virtual-storage computer", 1966: what is wanted last leaves).

use std::collections::{BTreeSet, HashMap};

use super::*;

/// A reader's use of a chunk.
type Uses = Vec<(u64, u32)>;

/// Where each use's chunk is used next; `of`: whose uses count.
fn next_uses(uses: &Uses, of: impl Fn(u64, u32) -> (u64, u32)) -> Vec<Option<usize>> {
    let (mut seen, mut next) = (HashMap::new(), vec![None; uses.len()]);
    for (at, &(reader, key)) in uses.iter().enumerate().rev() {
        next[at] = seen.insert(of(reader, key), at);
    }
    next
}

/// Percent of the second half that was there.
fn percent(hits: &[bool]) -> f64 {
    let half = &hits[hits.len() / 2..];
    100.0 * half.iter().filter(|&&hit| hit).count() as f64 / half.len() as f64
}

fn here(uses: &Uses, told: bool) -> f64 {
    let readers = uses.iter().map(|(reader, _)| reader + 1).max().unwrap_or(1);
    // How many uses each reader had before.
    let mut counts = vec![0; readers as usize];
    let own: Vec<u64> = uses
        .iter()
        .map(|&(reader, _)| {
            counts[reader as usize] += 1;
            counts[reader as usize]
        })
        .collect();
    let next = next_uses(uses, |reader, key| (reader, key));
    let mut cache = Ours(S3Fifo::new());
    let mut access = |(at, &(reader, key)): (usize, &(u64, u32))| {
        if told {
            let after = next[at].map_or(u64::MAX, |next| (own[next] - own[at]) * readers);
            cache.0.want(&key, reader, (at as u64).saturating_add(after), at as u64);
        }
        cache.access(key)
    };
    percent(&uses.iter().enumerate().map(&mut access).collect::<Vec<bool>>())
}

fn best(uses: &Uses) -> f64 {
    let next = next_uses(uses, |_, key| (0, key));
    let (mut kept, mut line) = (HashMap::new(), BTreeSet::new());
    let mut access = |(at, &(_, key)): (usize, &(u64, u32))| {
        let next = next[at].unwrap_or(usize::MAX);
        let before = kept.insert(key, next);
        if let Some(before) = before {
            line.remove(&(before, key));
        }
        line.insert((next, key));
        if line.len() > CACHE
            && let Some((_, gone)) = line.pop_last()
        {
            kept.remove(&gone);
        }
        before.is_some()
    };
    percent(&uses.iter().enumerate().map(&mut access).collect::<Vec<bool>>())
}

/// Taking turns, each reader so many uses behind the one before it.
fn side_by_side(traces: &[Trace], lag: usize) -> Uses {
    let len = traces[0].len() + lag * (traces.len() - 1);
    let turn = |at: usize| {
        let use_of = move |(reader, trace): (usize, &Trace)| {
            Some((reader as u64, *trace.get(at.checked_sub(lag * reader)?)?))
        };
        traces.iter().enumerate().filter_map(use_of).collect::<Uses>()
    };
    (0..len).flat_map(turn).collect()
}

#[test]
fn who_tells_finds_nearly_what_can_be_found() {
    let epochs_of = |seed, percent: usize| -> Trace {
        let mut random = Random(seed);
        (0..8).flat_map(|_| random.shuffled(0..(CACHE * percent / 100) as u32)).collect()
    };
    let two = |percent| [epochs_of(2, percent), epochs_of(2, percent)];
    let traces = [
        ("shuffled epochs over 1.25 caches", side_by_side(&[epochs_of(2, 125)], 0), 0.95),
        ("shuffled epochs over 2 caches", side_by_side(&[epochs_of(2, 200)], 0), 0.9),
        ("shuffled epochs over 4 caches", side_by_side(&[epochs_of(2, 400)], 0), 0.9),
        ("two readers, one order, over 2 caches", side_by_side(&two(200), 40), 0.95),
        ("the same, further apart than the small queue", side_by_side(&two(200), 200), 0.8),
        (
            "two readers, two orders, over 2 caches",
            side_by_side(&[epochs_of(2, 200), epochs_of(5, 200)], 0),
            0.75,
        ),
    ];
    println!("| trace | told | not told | at best |\n|---|---|---|---|");
    for (name, uses, of_best) in traces {
        let (told, untold, best) = (here(&uses, true), here(&uses, false), best(&uses));
        println!("| {name} | {told:.0} % | {untold:.0} % | {best:.0} % |");
        assert!(told >= of_best * best && told >= untold, "{name}: {told:.1} {untold:.1} {best:.1}");
    }
}
