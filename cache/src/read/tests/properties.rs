//! Whatever is done in whatever order: a read gives the object's bytes, and the disk stays within its budget.

use super::*;
use proptest::prelude::*;
use proptest::sample::Index;

#[derive(Clone, Debug)]
enum Op {
    Read(usize, Index, u64),
    ReadReady(usize, Index, u64),
    Prefetch(usize, Index, u64),
    Insert(usize, Vec<usize>),
    Remove(usize),
    /// A bit of one file changes.
    Damage(Index, Index),
    Dead(bool),
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    let read = || (0usize..3, any::<Index>(), prop_oneof![1u64..9000, 100_000u64..3_000_000]);
    prop_oneof![
        8 => read().prop_map(|(o, at, len)| Op::Read(o, at, len)),
        4 => read().prop_map(|(o, at, len)| Op::ReadReady(o, at, len)),
        2 => read().prop_map(|(o, at, len)| Op::Prefetch(o, at, len)),
        1 => (0usize..3, prop::collection::vec(0usize..900_000, 1..6)).prop_map(|(o, cuts)| Op::Insert(o, cuts)),
        1 => (0usize..3).prop_map(Op::Remove),
        2 => (any::<Index>(), any::<Index>()).prop_map(|(file, at)| Op::Damage(file, at)),
        1 => any::<bool>().prop_map(Op::Dead),
        1 => Just(Op::Reopen),
    ]
}

const LENS: [u64; 3] = [1, 777_777, 4 * MIB + 4097];

async fn run(ops: Vec<Op>) {
    const BUDGET: u64 = 3 << 20;
    let limits = Limits {
        cache_bytes_max: BUDGET,
        cache_free_bytes_min: 0,
        cache_free_percent_min: 0,
        ..Limits::default()
    };
    let mut b = Bench::with(limits, ByteBudget::new(16 << 20));
    let mut objects = Vec::new();
    for (i, len) in LENS.into_iter().enumerate() {
        objects.push((b.object(i as u128 + 1, len).await, payload(i as u128 + 1, len)));
    }
    let range = |o: usize, at: Index, len: u64| {
        let start = at.index(LENS[o] as usize) as u64;
        start..(start + len).min(LENS[o])
    };
    let mut dead = false;
    for op in ops {
        match op {
            Op::Read(o, at, len) => {
                let range = range(o, at, len);
                match b.cache.read(NS, &objects[o].0, range.clone()).await {
                    Ok(bytes) => assert!(bytes == objects[o].1[range.start as usize..range.end as usize]),
                    Err(e) => assert!(dead && e.kind() == Kind::Unavailable, "{e}"),
                }
            }
            Op::ReadReady(o, at, len) => {
                let range = range(o, at, len);
                if let Some(bytes) = b.cache.read_ready(NS, &objects[o].0, range.clone()) {
                    assert!(bytes == objects[o].1[range.start as usize..range.end as usize]);
                }
            }
            Op::Prefetch(o, at, len) => {
                b.cache.prefetch(NS, &objects[o].0, range(o, at, len));
            }
            Op::Insert(o, cuts) => {
                let (whole, mut parts) = (&objects[o].1, Vec::new());
                let mut at = 0;
                for cut in cuts.into_iter().chain([whole.len()]) {
                    let end = whole.len().min(at + cut);
                    parts.push(whole.slice(at..end));
                    at = end;
                }
                b.cache.insert(NS, &objects[o].0, &parts, &sealed(o as u128 + 1, LENS[o]).0.footer);
            }
            Op::Remove(o) => b.cache.remove(objects[o].0.id),
            Op::Damage(file, at) => {
                b.cache.idle().await;
                let files = b.files();
                if !files.is_empty() {
                    let path = &files[file.index(files.len())];
                    let mut bytes = std::fs::read(path).unwrap();
                    let at = at.index(bytes.len());
                    bytes[at] ^= 1;
                    std::fs::write(path, bytes).unwrap();
                }
            }
            Op::Dead(now) => {
                // A fetch ahead that is on its way would make the next read's outcome depend on chance.
                b.cache.idle().await;
                dead = now;
                b.store.set_dead(now);
            }
            Op::Reopen => b.reopen().await,
        }
        assert!(b.cache.usage().0 <= BUDGET);
    }
    b.cache.idle().await;
    assert!(b.bytes_on_disk() <= BUDGET);
    assert_eq!(b.memory.used(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn a_read_gives_the_objects_bytes(ops in prop::collection::vec(op(), 1..40)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run(ops));
    }
}
