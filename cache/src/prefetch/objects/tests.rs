use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const MIB: u64 = CHUNK_BYTES;
const NS: NamespaceId = NamespaceId(1);
const LEN: u64 = 15 * MIB - 7;
const FILE: u64 = 100 << 10;
const CREDIT: u64 = 1 << 30;

fn pack(id: u128) -> ObjectInfo {
    ObjectInfo { id: ObjectId(id), kind: ObjectKind::Pack, payload_len: LEN, total_len: LEN + 1000 }
}

fn block(id: u128) -> ObjectInfo {
    ObjectInfo { kind: ObjectKind::Block, ..pack(id) }
}

/// A cache of unlimited size to which all that is wished for comes at once.
struct Sim {
    objects: Objects,
    cached: BTreeSet<(u128, u32)>,
    ahead: BTreeSet<(u128, u32)>,
    read: BTreeSet<(u128, u32)>,
    used: u64,
    misses: u64,
    whole: u64,
    beyond: Vec<u128>,
}

impl Sim {
    fn new(credit: u64) -> Sim {
        Sim {
            objects: Objects::new(credit),
            cached: BTreeSet::new(),
            ahead: BTreeSet::new(),
            read: BTreeSet::new(),
            used: 0,
            misses: 0,
            whole: 0,
            beyond: Vec::new(),
        }
    }

    fn fetch(&mut self, object: &ObjectInfo, chunks: Range<u32>) {
        self.whole += u64::from(chunks == (0..chunks_of(object)));
        for chunk in chunks {
            if self.cached.insert((object.id.0, chunk)) {
                self.ahead.insert((object.id.0, chunk));
            }
        }
    }

    fn read(&mut self, object: &ObjectInfo, range: Range<u64>) -> bool {
        let mut missed = false;
        for chunk in range.start / MIB..range.end.div_ceil(MIB) {
            let key = (object.id.0, chunk as u32);
            missed |= self.cached.insert(key);
            self.read.insert(key);
            self.used += if self.ahead.remove(&key) { MIB } else { 0 };
        }
        self.misses += u64::from(missed);
        let read = Read { ns: NS, object, range: &range, missed, window: 32 * MIB, used_bytes: self.used };
        let wish = self.objects.on_read(&read);
        if let Some(chunks) = wish.chunks {
            assert!(!chunks.is_empty() && chunks.end <= chunks_of(object));
            self.fetch(object, chunks);
        }
        if let Some(next) = wish.next {
            self.fetch(&next, 0..chunks_of(&next));
        }
        if wish.beyond {
            self.beyond.push(object.id.0);
            let next = pack(object.id.0 + 1);
            if let Some(chunks) = self.objects.adopt(object.id, &next) {
                self.fetch(&next, chunks);
            }
        }
        missed
    }

    /// The cache drops everything.
    fn drop_all(&mut self) {
        self.cached.clear();
        self.ahead.clear();
        self.misses = 0;
    }
}

fn random(x: &mut u64) -> u64 {
    *x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    *x >> 20
}

/// The files of `packs` packs, in an order that nobody could foresee.
fn shuffled(packs: u128, seed: u64) -> Vec<(ObjectInfo, Range<u64>)> {
    let (mut x, mut files) = (seed, Vec::new());
    for id in 1..=packs {
        files.extend((0..LEN / FILE).map(|i| (pack(id), i * FILE..(i + 1) * FILE)));
    }
    for i in (1..files.len()).rev() {
        files.swap(i, random(&mut x) as usize % (i + 1));
    }
    files
}

#[test]
fn in_order_one_read_is_waited_for_and_packs_follow_each_other() {
    let mut sim = Sim::new(CREDIT);
    for id in 1..=5 {
        for i in 0..LEN / FILE {
            sim.read(&pack(id), i * FILE..(i + 1) * FILE);
        }
    }
    assert_eq!(sim.misses, 1, "the first");
    assert_eq!(sim.beyond, [1, 2, 3, 4, 5]);
    assert!(sim.ahead.iter().all(|(id, _)| *id == 6), "only what nobody could know was wasted");
}

#[test]
fn a_run_in_the_middle_starts_after_two_steps_and_a_jump_ends_it() {
    let mut objects = Objects::new(0);
    let at = |kib: u64| 5 * MIB + (kib << 10)..5 * MIB + ((kib + 4) << 10);
    let mut read = |range: Range<u64>| {
        let read =
            Read { ns: NS, object: &pack(1), range: &range, missed: false, window: 8 * MIB, used_bytes: 0 };
        objects.on_read(&read).chunks
    };
    assert_eq!(read(at(0)), None);
    assert_eq!(read(at(4)), None);
    assert_eq!(read(at(8)), Some(6..7));
    assert_eq!(read(at(4)), None, "a little back is another reader");
    assert_eq!(read(11 * MIB..11 * MIB + 1), None, "a jump");
    assert_eq!(read(at(0)), None, "and back");
}

#[test]
fn a_shuffled_epoch_is_recognised_and_whole_packs_are_fetched() {
    for seed in 0..10 {
        let mut sim = Sim::new(CREDIT);
        let files = shuffled(67, seed);
        for (object, range) in &files {
            sim.read(object, range.clone());
        }
        println!("seed {seed}: {} of {} reads waited, {} packs whole", sim.misses, files.len(), sim.whole);
        assert!(sim.misses <= 67 + 2 * u64::from(JUMPS_MIN), "seed {seed}: {}", sim.misses);
        assert!(sim.whole >= 60, "seed {seed}: {}", sim.whole);
    }
}

#[test]
fn without_credit_packs_are_fetched_as_soon_as_a_quarter_was_read() {
    let mut sim = Sim::new(0);
    for (object, range) in shuffled(67, 7) {
        sim.read(&object, range);
    }
    assert!(sim.misses <= 67 * 6, "{}", sim.misses);
}

#[test]
fn sparse_random_reads_waste_no_more_than_the_credit_and_a_part_of_what_they_read() {
    let credit = 150 * MIB;
    for seed in 0..5u64 {
        let (mut sim, mut x) = (Sim::new(credit), seed);
        for _ in 0..20_000 {
            let (object, start) =
                (pack(1 + u128::from(random(&mut x) % 100_000)), random(&mut x) % (LEN - FILE));
            sim.read(&object, start..start + FILE);
        }
        let wasted = sim.ahead.len() as u64 * MIB;
        assert!(wasted <= credit + 20_000 * FILE / 8, "seed {seed}: {} MiB", wasted / MIB);
    }
}

#[test]
fn random_reads_of_a_large_file_fetch_nothing_until_most_of_a_block_was_asked_for() {
    let (mut sim, mut x) = (Sim::new(CREDIT), 5);
    for _ in 0..3000 {
        let (object, start) = (block(1 + u128::from(random(&mut x) % 10_000)), random(&mut x) % (LEN - 4096));
        sim.read(&object, start..start + 4096);
    }
    assert_eq!(sim.ahead.len(), 0);
}

#[test]
fn the_second_cold_pass_fetches_whole_packs_from_their_first_read_on() {
    let mut sim = Sim::new(CREDIT);
    for (object, range) in shuffled(20, 1) {
        sim.read(&object, range);
    }
    sim.drop_all();
    for (object, range) in shuffled(20, 2) {
        sim.read(&object, range);
    }
    assert_eq!(sim.misses, 20, "each pack's first read");
}

#[test]
fn a_refused_whole_pack_is_asked_for_again_and_costs_no_credit() {
    let mut objects = Objects::new(15 * MIB);
    let mut wishes = 0;
    for i in 0..100u64 {
        let (object, range) = (pack(1 + u128::from(i % 10)), (1 + i % 13) * MIB..(1 + i % 13) * MIB + 10);
        let read = Read { ns: NS, object: &object, range: &range, missed: true, window: MIB, used_bytes: 0 };
        if objects.on_read(&read).chunks == Some(0..15) {
            wishes += 1;
            objects.on_refused(object.id, 0);
        }
    }
    assert!(wishes > 50, "{wishes}");
}

proptest! {
    #[test]
    fn wishes_are_within_the_object(reads in proptest::collection::vec((1u128..6, 0..LEN, 1u64..3 * MIB, any::<bool>()), 1..300)) {
        let mut sim = Sim::new(40 * MIB);
        for (id, start, len, is_pack) in reads {
            let object = if is_pack { pack(id) } else { block(100 + id) };
            sim.read(&object, start..(start + len).min(LEN)); // asserts
        }
    }
}
