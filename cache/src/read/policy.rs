//! What leaves the cache when room is needed: S3-FIFO (Yang, Zhang, Qiu, Yue, Rashmi: "FIFO queues are all you need for
//! cache eviction", SOSP '23), counting bytes instead of objects. Decides only; does no I/O.
//!
//! New entries wait in a *small* queue (a tenth of the budget). Those read again before they reach its end go on to the
//! *main* queue, the others leave at once and are remembered for a while in a *ghost* queue of keys: one that comes back
//! while remembered goes to main. So a scan passes through the small queue and main stays.
//!
//! Two things differ from the paper, for those who read a set that is larger than the cache again and again (training): there
//! everything comes back while it is remembered, and a main queue that gives way to all of it keeps nothing until it is
//! wanted. As long as main is not full it takes what leaves the small queue. And what comes back takes a place of main only
//! if main's oldest has not been read for twice as long as the newcomer was away (LIRS compares them in this way: Jiang, Zhang,
//! "LIRS: an efficient low inter-reference recency set replacement policy", SIGMETRICS '02): so a part of the set stays, and goes
//! when another set is read. `traces` has the figures.
//!
//! Our entries are chunks that are read piece by piece, so that a single pass over a chunk looks like hundreds of hits.
//! A hit therefore counts only when it reads a frame for the second time since the last hit that counted, and not
//! when that is the frame that was just read (unless at least [`APART`] reads elsewhere lie between).

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;
use std::ops::RangeInclusive;

/// A frame read twice in a row counts as read again when that many other reads of other entries lie between.
const APART: u64 = 64;
/// The most an entry's count can save it: so many turns in the main queue.
const COUNT_MAX: u8 = 3;
/// What was not read for so many times as long as what came back is given up for it.
const STALE: u64 = 2;
/// The small queue's share of the budget is one in so many.
pub(crate) const SMALL_SHARE: u64 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Queue {
    Small,
    Main,
    /// Not in a queue: it is not to leave.
    Pinned,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    size: u64,
    queue: Queue,
    /// Hits that counted, up to `COUNT_MAX`.
    count: u8,
    /// Which frames (modulo 64) were read since the last hit that counted.
    seen: u64,
    last_frame: u32,
    /// `S3Fifo::reads` at the last read.
    last_read: u64,
    /// Tells this stay of the key from an earlier one that still has a place in a queue.
    stay: u64,
}

/// The queues and what is known of each entry. Bounded by the entries: queues hold at most twice as many places, the
/// ghost queue as many keys.
#[derive(Debug)]
pub(crate) struct S3Fifo<K> {
    entries: BTreeMap<K, Entry>,
    small: VecDeque<(K, u64)>,
    main: VecDeque<(K, u64)>,
    small_bytes: u64,
    main_bytes: u64,
    pinned_bytes: u64,
    /// With the stay that ended, and `S3Fifo::reads` at its last read.
    ghost: BTreeMap<K, (u64, u64)>,
    ghost_order: VecDeque<(K, u64)>,
    next_stay: u64,
    /// Counts reads that went to another entry than the one before.
    reads: u64,
    last_key: Option<K>,
}

impl<K: Ord + Copy + Debug> S3Fifo<K> {
    pub fn new() -> S3Fifo<K> {
        S3Fifo {
            entries: BTreeMap::new(),
            small: VecDeque::new(),
            main: VecDeque::new(),
            small_bytes: 0,
            main_bytes: 0,
            pinned_bytes: 0,
            ghost: BTreeMap::new(),
            ghost_order: VecDeque::new(),
            next_stay: 0,
            reads: 0,
            last_key: None,
        }
    }

    pub fn bytes(&self) -> u64 {
        self.small_bytes + self.main_bytes + self.pinned_bytes
    }

    /// Of these, what does not leave for others.
    pub fn pinned_bytes(&self) -> u64 {
        self.pinned_bytes
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn contains(&self, key: &K) -> bool {
        self.entries.contains_key(key)
    }

    pub fn size(&self, key: &K) -> Option<u64> {
        self.entries.get(key).map(|entry| entry.size)
    }

    /// The keys within a range, for removing all that belong together.
    pub fn keys_in(&self, range: RangeInclusive<K>) -> Vec<K> {
        self.entries.range(range).map(|(key, _)| *key).collect()
    }

    /// A new entry (or the same with another size). Make room for it first.
    pub fn insert(&mut self, key: K, size: u64) {
        let known = self.remove(&key);
        let queue = match (known, self.ghost.remove(&key)) {
            (Some(queue), _) => queue,
            (None, Some((_, last_read))) => self.queue_of_returned(last_read),
            (None, None) => Queue::Small,
        };
        self.place(key, size, queue);
    }

    /// Where an entry goes that came back while it was remembered: to main if that has room, or if its oldest entry makes way.
    fn queue_of_returned(&mut self, last_read: u64) -> Queue {
        let queued = self.small_bytes + self.main_bytes;
        if self.main_bytes < queued - queued / SMALL_SHARE {
            return Queue::Main;
        }
        let Some((key, mut entry)) = Self::pop(&mut self.main, &self.entries) else { return Queue::Main };
        let (away, idle) = (self.reads - last_read, self.reads - entry.last_read);
        if idle <= STALE * away {
            self.main.push_back((key, entry.stay));
            return Queue::Small;
        }
        self.uncount(&entry);
        (entry.queue, entry.count) = (Queue::Small, 0);
        self.entries.insert(key, entry);
        self.small_bytes += entry.size;
        self.small.push_front((key, entry.stay)); // it leaves next
        Queue::Main
    }

    /// An entry that outlived a restart: it was worth keeping, so it goes to main.
    pub fn restore(&mut self, key: K, size: u64) {
        self.remove(&key);
        self.place(key, size, Queue::Main);
    }

    fn place(&mut self, key: K, size: u64, queue: Queue) {
        self.next_stay += 1;
        let entry = Entry {
            size,
            queue,
            count: 0,
            seen: 0,
            last_frame: u32::MAX,
            last_read: self.reads,
            stay: self.next_stay,
        };
        self.entries.insert(key, entry);
        self.push(key, entry);
        self.tidy();
    }

    fn push(&mut self, key: K, entry: Entry) {
        match entry.queue {
            Queue::Small => {
                self.small_bytes += entry.size;
                self.small.push_back((key, entry.stay));
            }
            Queue::Main => {
                self.main_bytes += entry.size;
                self.main.push_back((key, entry.stay));
            }
            Queue::Pinned => self.pinned_bytes += entry.size,
        }
    }

    /// The entry is not to leave, or may leave again: then it is as one that just came.
    pub fn set_pinned(&mut self, key: &K, pinned: bool) {
        let Some(mut entry) = self.entries.get(key).copied() else { return };
        if pinned == (entry.queue == Queue::Pinned) {
            return;
        }
        self.uncount(&entry);
        self.next_stay += 1;
        entry.stay = self.next_stay;
        entry.queue = if pinned { Queue::Pinned } else { Queue::Small };
        self.entries.insert(*key, entry);
        self.push(*key, entry);
        self.tidy();
    }

    /// Unpins all: there is no other way to make room.
    pub fn unpin_all(&mut self) {
        let pinned = |(key, entry): (&K, &Entry)| (entry.queue == Queue::Pinned).then_some(*key);
        let keys: Vec<K> = self.entries.iter().filter_map(pinned).collect();
        for key in keys {
            self.set_pinned(&key, false);
        }
    }

    /// Tells of a read of this frame of an entry. False when there is no such entry.
    pub fn touch(&mut self, key: &K, frame: u32) -> bool {
        if self.last_key != Some(*key) {
            self.reads += 1;
            self.last_key = Some(*key);
        }
        let Some(entry) = self.entries.get_mut(key) else { return false };
        let bit = 1u64 << (frame % 64);
        let again = entry.seen & bit != 0;
        let apart = frame != entry.last_frame || self.reads - entry.last_read >= APART;
        if again && apart {
            entry.count = (entry.count + 1).min(COUNT_MAX);
            entry.seen = bit;
        } else {
            entry.seen |= bit;
        }
        entry.last_frame = frame;
        entry.last_read = self.reads;
        true
    }

    /// Takes an entry out, wherever it is. Nothing is remembered of it.
    pub fn remove(&mut self, key: &K) -> Option<Queue> {
        let entry = self.entries.remove(key)?;
        self.uncount(&entry);
        Some(entry.queue)
    }

    /// Does not remember that this key was here: it left before anybody had read it, so its next read is the first.
    pub fn forget_ghost(&mut self, key: &K) {
        self.ghost.remove(key);
    }

    fn uncount(&mut self, entry: &Entry) {
        match entry.queue {
            Queue::Small => self.small_bytes -= entry.size,
            Queue::Main => self.main_bytes -= entry.size,
            Queue::Pinned => self.pinned_bytes -= entry.size,
        }
    }

    /// Evicts until at most `keep` bytes, or only pinned ones, are left; returns what has to go, with sizes. `budget` sizes the
    /// small queue.
    pub fn evict_to(&mut self, keep: u64, budget: u64) -> Vec<(K, u64)> {
        let mut gone = Vec::new();
        while self.bytes() > keep.max(self.pinned_bytes) {
            let main_max = (budget - budget / SMALL_SHARE).saturating_sub(self.pinned_bytes);
            let small_first = self.small_bytes > 0 && self.main_bytes <= main_max || self.main_bytes == 0;
            let evicted = if small_first { self.evict_small(main_max) } else { self.evict_main() };
            gone.extend(evicted);
        }
        self.tidy();
        gone
    }

    /// One turn of the small queue: its oldest moves to main, or leaves and is remembered.
    fn evict_small(&mut self, main_max: u64) -> Option<(K, u64)> {
        let (key, mut entry) = Self::pop(&mut self.small, &self.entries)?;
        self.uncount(&entry);
        if entry.count > 0 || self.main_bytes + entry.size <= main_max {
            entry.queue = Queue::Main;
            entry.count = 0;
            self.entries.insert(key, entry);
            self.push(key, entry);
            return None;
        }
        self.entries.remove(&key);
        self.ghost.insert(key, (entry.stay, entry.last_read));
        self.ghost_order.push_back((key, entry.stay));
        Some((key, entry.size))
    }

    /// One turn of the main queue: its oldest goes round again for one of its hits, or leaves.
    fn evict_main(&mut self) -> Option<(K, u64)> {
        let (key, mut entry) = Self::pop(&mut self.main, &self.entries)?;
        self.uncount(&entry);
        if entry.count > 0 {
            entry.count -= 1;
            self.entries.insert(key, entry);
            self.push(key, entry);
            return None;
        }
        self.entries.remove(&key);
        Some((key, entry.size))
    }

    /// The oldest entry of a queue. Places of entries that were removed meanwhile are skipped.
    fn pop(queue: &mut VecDeque<(K, u64)>, entries: &BTreeMap<K, Entry>) -> Option<(K, Entry)> {
        while let Some((key, stay)) = queue.pop_front() {
            if let Some(entry) = entries.get(&key).filter(|entry| entry.stay == stay) {
                return Some((key, *entry));
            }
        }
        None
    }

    /// Forgets ghosts over their number, and places in queues that nobody has any more.
    fn tidy(&mut self) {
        let most = self.entries.len().max(16);
        while self.ghost.len() > most {
            let Some((key, stay)) = self.ghost_order.pop_front() else { break };
            if self.ghost.get(&key).is_some_and(|(of, _)| *of == stay) {
                self.ghost.remove(&key);
            }
        }
        let entries = &self.entries;
        for (queue, which) in [(&mut self.small, Queue::Small), (&mut self.main, Queue::Main)] {
            if queue.len() > 2 * entries.len() + 64 {
                queue.retain(|(key, stay)| {
                    entries.get(key).is_some_and(|e| e.stay == *stay && e.queue == which)
                });
            }
        }
        if self.ghost_order.len() > 2 * most + 64 {
            let ghost = &self.ghost;
            self.ghost_order.retain(|(key, stay)| ghost.get(key).is_some_and(|(of, _)| of == stay));
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod traces;
