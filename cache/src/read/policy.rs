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
//!
//! Each entry has an *owner*, a namespace, with a minimum and a maximum of bytes ([`CacheShare`]). When others need room, an entry
//! of an owner who has no more than its minimum goes round again, in main. An owner at its maximum makes room among its own
//! entries, by the same two queues and rules as if its maximum were the budget; there its oldest is not in front but somewhere in
//! the queue, and is looked for from where the last one was found.
//!
//! Where readers told when they want entries again ([`wanted`]), one of the same owner that is wanted later leaves in the place of the one whose
//! turn it is.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;
use std::ops::RangeInclusive;

use granary_core::NamespaceId;

use super::share::CacheShare;
use line::Line;
use owners::{NOBODY, Owner, Owners};
use wanted::Wanted;

mod line;
mod owners;
mod wanted;

pub(crate) use wanted::ReaderId;

/// A frame read twice in a row counts as read again when that many other reads of other entries lie between.
const APART: u64 = 64;
/// The most an entry's count can save it: so many turns in the main queue.
const COUNT_MAX: u8 = 3;
/// What was not read for so many times as long as what came back is given up for it.
const STALE: u64 = 2;
/// The small queue's share of the budget is one in so many.
pub(crate) const SMALL_SHARE: u64 = 10;
/// Places at most that are looked at, at once, to find an owner's oldest entries: 48 bytes each, side by side.
const LOOKS_MAX: usize = 16 << 10;
/// An owner that has all of its maximum but one part in so many is bound by it, rather than by the budget.
const NEAR_MAX: u64 = 16;

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
    owner: u16,
}

/// The queues and what is known of each entry. Bounded by the entries: queues hold at most twice as many places, the
/// ghost queue as many keys.
#[derive(Debug)]
pub(crate) struct S3Fifo<K> {
    entries: BTreeMap<K, Entry>,
    small: Line<K>,
    main: Line<K>,
    owners: Owners,
    /// Of entries, and of some that are not here.
    wanted: Wanted<K>,
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
        S3Fifo::with(Owners::new())
    }

    fn with(owners: Owners) -> S3Fifo<K> {
        S3Fifo {
            entries: BTreeMap::new(),
            small: Line::new(),
            main: Line::new(),
            owners,
            wanted: Wanted::new(),
            ghost: BTreeMap::new(),
            ghost_order: VecDeque::new(),
            next_stay: 0,
            reads: 0,
            last_key: None,
        }
    }

    /// One without entries, and with the same owners.
    pub fn emptied(&self) -> S3Fifo<K> {
        S3Fifo::with(self.owners.emptied())
    }

    pub fn bytes(&self) -> u64 {
        self.owners.all().bytes()
    }

    /// Of these, what is pinned.
    pub fn pinned_bytes(&self) -> u64 {
        self.owners.all().pinned_bytes
    }

    /// Of these, what does not leave for others: what is pinned, and what owners have of their minimum.
    pub fn held_bytes(&self) -> u64 {
        self.owners.held_bytes()
    }

    /// What is held against this owner: its own minimum is not.
    pub fn held_against(&self, ns: NamespaceId) -> u64 {
        let own = self.owners.find(ns).map_or(0, |owner| owner.held_bytes() - owner.pinned_bytes);
        self.held_bytes() - own
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

    /// What the owner may have from now on. Nothing leaves before room is needed.
    pub fn set_share(&mut self, ns: NamespaceId, share: CacheShare) {
        let owner = self.owners.number(ns);
        if owner != NOBODY {
            self.owners.change(owner, |owner| owner.share = share);
        }
    }

    /// All owners' minimums.
    pub fn minimums(&self) -> u64 {
        self.owners.minimums()
    }

    /// Bytes of entries that are known to be the owner's.
    pub fn bytes_of(&self, ns: NamespaceId) -> u64 {
        self.owners.find(ns).map_or(0, Owner::bytes)
    }

    /// Bytes that an owner may have, as its share says.
    pub fn bytes_max_of(&self, ns: NamespaceId) -> u64 {
        self.owners.find(ns).map_or(u64::MAX, |owner| owner.share.bytes_max)
    }

    /// Bytes that the owner can keep beside what it has, without one of its own leaving; and beside what is pinned of its own.
    pub fn room_of(&self, ns: NamespaceId) -> (u64, u64) {
        let Some(owner) = self.owners.find(ns) else { return (u64::MAX, u64::MAX) };
        let room = |taken: u64| owner.share.bytes_max.saturating_sub(taken.saturating_add(owner.reserved));
        (room(owner.bytes()), room(owner.pinned_bytes))
    }

    /// Counts room for an entry that will come against the owner's maximum.
    pub fn reserve(&mut self, ns: NamespaceId, size: u64) {
        let owner = self.owners.number(ns);
        self.owners.change(owner, |owner| owner.reserved += size);
    }

    /// Takes that back.
    pub fn release(&mut self, ns: NamespaceId, size: u64) {
        let owner = self.owners.number(ns);
        self.owners.change(owner, |owner| owner.reserved = owner.reserved.saturating_sub(size));
    }

    /// A new entry (or the same with another size). Make room for it first.
    pub fn insert(&mut self, key: K, size: u64, ns: NamespaceId) {
        let owner = self.owners.number(ns);
        let known = self.remove(&key);
        let queue = match (known, self.ghost.remove(&key)) {
            (Some(queue), _) => queue,
            (None, Some((_, last_read))) => self.queue_of_returned(last_read, size, owner),
            (None, None) => Queue::Small,
        };
        self.place(key, size, queue, owner);
    }

    /// Where an entry goes that came back while it was remembered: to main if that has room, or if its oldest entry makes way. Of
    /// an owner near its maximum only its own entries count.
    fn queue_of_returned(&mut self, last_read: u64, size: u64, owner: u16) -> Queue {
        let own = *self.owners.get(owner);
        let max = own.share.bytes_max;
        let bound = own.bytes().saturating_add(size) > max - max / NEAR_MAX;
        let counts = if bound { own } else { *self.owners.all() };
        let queued = counts.small_bytes + counts.main_bytes;
        if counts.main_bytes < queued - queued / SMALL_SHARE {
            return Queue::Main;
        }
        let oldest = match bound {
            true => self.pop_of(Queue::Main, owner, &mut LOOKS_MAX.clone()),
            false => self.main.pop(&self.entries),
        };
        let Some((key, mut entry)) = oldest else { return Queue::Main };
        let (away, idle) = (self.reads - last_read, self.reads - entry.last_read);
        if idle <= STALE * away {
            self.main.push_back(key, &entry);
            return Queue::Small;
        }
        self.uncount(&entry);
        (entry.queue, entry.count) = (Queue::Small, 0);
        self.entries.insert(key, entry);
        self.owners.add(entry.owner, Queue::Small, entry.size);
        self.small.push_front(key, &entry); // it leaves next
        let front = self.small.front();
        self.owners.change(entry.owner, |owner| owner.small_next = front);
        Queue::Main
    }

    /// An entry that outlived a restart: it was worth keeping, so it goes to main. Whose it is is not known.
    pub fn restore(&mut self, key: K, size: u64) {
        self.remove(&key);
        self.place(key, size, Queue::Main, NOBODY);
    }

    /// The entry is worth keeping, as if it had outlived a restart.
    pub fn settle(&mut self, key: &K) {
        if let Some(Entry { size, owner, .. }) = self.entries.get(key).copied() {
            self.remove(key);
            self.place(*key, size, Queue::Main, owner);
        }
    }

    fn place(&mut self, key: K, size: u64, queue: Queue, owner: u16) {
        self.next_stay += 1;
        let entry = Entry {
            size,
            queue,
            count: 0,
            seen: 0,
            last_frame: u32::MAX,
            last_read: self.reads,
            stay: self.next_stay,
            owner,
        };
        self.push(key, entry);
        self.wanted.arrive(key, owner);
        self.tidy();
    }

    /// Puts an entry at the end of its queue.
    fn push(&mut self, key: K, entry: Entry) {
        self.entries.insert(key, entry);
        self.owners.add(entry.owner, entry.queue, entry.size);
        match entry.queue {
            Queue::Small => self.small.push_back(key, &entry),
            Queue::Main => self.main.push_back(key, &entry),
            Queue::Pinned => {}
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

    /// Tells of a read of this frame of an entry, for whom it is from then on if nobody had it. False when there is no such entry.
    pub fn touch(&mut self, key: &K, frame: u32, ns: NamespaceId) -> bool {
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
        if entry.owner == NOBODY {
            entry.owner = self.owners.number(ns);
            self.owners.subtract(NOBODY, entry.queue, entry.size);
            self.owners.add(entry.owner, entry.queue, entry.size);
            self.wanted.arrive(*key, entry.owner);
        }
        true
    }

    /// A reader reads an entry, which may have to come first, and comes to it again at `at`, by a clock of which it is `now`.
    pub fn want(&mut self, key: &K, reader: ReaderId, at: u64, now: u64) {
        let owner = self.entries.get(key).map(|entry| entry.owner);
        self.wanted.tell(*key, owner, reader, at, now);
    }

    /// Somebody else reads the entry: it leaves as others do.
    pub fn unwant(&mut self, key: &K) {
        self.wanted.forget(key);
    }

    /// A reader is gone; see [`Wanted::forget_reader`].
    pub fn forget_reader(&mut self, reader: ReaderId, after: Option<K>, many: usize) -> Option<K> {
        self.wanted.forget_reader(reader, after, many)
    }

    /// Takes an entry out, wherever it is. Nothing is remembered of it.
    pub fn remove(&mut self, key: &K) -> Option<Queue> {
        let queue = self.remove_entry(key)?;
        self.wanted.forget(key);
        Some(queue)
    }

    fn remove_entry(&mut self, key: &K) -> Option<Queue> {
        let entry = self.entries.remove(key)?;
        self.uncount(&entry);
        Some(entry.queue)
    }

    /// Does not remember that this key was here: it left before anybody had read it, so its next read is the first.
    pub fn forget_ghost(&mut self, key: &K) {
        self.ghost.remove(key);
    }

    fn uncount(&mut self, entry: &Entry) {
        self.owners.subtract(entry.owner, entry.queue, entry.size);
    }

    /// Evicts until at most `keep` bytes, or only what is held, are left; returns what has to go, with sizes. `budget` sizes the
    /// small queue.
    pub fn evict_to(&mut self, keep: u64, budget: u64) -> Vec<(K, u64)> {
        let mut gone = Vec::new();
        // As long as a queue has something free, a turn that finds nothing free brings that nearer to its front.
        while self.bytes() > keep && self.owners.free() != (0, 0) {
            let main_max = (budget - budget / SMALL_SHARE).saturating_sub(self.pinned_bytes());
            let (free_small, free_main) = self.owners.free();
            let small_first = free_small > 0 && self.owners.all().main_bytes <= main_max || free_main == 0;
            let oldest =
                if small_first { self.small.pop(&self.entries) } else { self.main.pop(&self.entries) };
            let Some((key, entry)) = oldest else { break };
            let fits = self.owners.all().main_bytes + entry.size <= main_max;
            let stays = self.owners.is_guarded(entry.owner);
            gone.extend(self.turn(key, entry, stays, fits, budget));
        }
        self.tidy();
        gone
    }

    /// The same, and minimums do not count.
    pub fn evict_all_to(&mut self, keep: u64, budget: u64) -> Vec<(K, u64)> {
        self.owners.set_lifted(true);
        let gone = self.evict_to(keep, budget);
        self.owners.set_lifted(false);
        gone
    }

    /// Makes room for a new entry of this size below the owner's maximum, of its own. What has to go, with sizes; whether there
    /// is room, [`room_of`](Self::room_of) says.
    pub fn evict_for(&mut self, ns: NamespaceId, size: u64) -> Vec<(K, u64)> {
        let (room, most) = self.room_of(ns);
        if size <= room || size > most {
            return Vec::new();
        }
        let Some(owner) = self.owners.find(ns) else { return Vec::new() };
        let keep = owner.share.bytes_max.saturating_sub(size.saturating_add(owner.reserved));
        self.evict_own_to(ns, keep)
    }

    /// Makes `bytes` of what is held the owner's own no more: the rest is others' minimums and pins. What has to go, with sizes.
    pub fn evict_held_of(&mut self, ns: NamespaceId, bytes: u64) -> Vec<(K, u64)> {
        let Some(owner) = self.owners.find(ns).copied() else { return Vec::new() };
        let held = owner.held_bytes();
        if held - owner.pinned_bytes < bytes {
            return Vec::new();
        }
        self.evict_own_to(ns, held - bytes)
    }

    /// Evicts of one owner's entries until it has at most `keep` bytes, or only pinned ones, or [`LOOKS_MAX`] places were looked
    /// at: the next call goes on from there.
    fn evict_own_to(&mut self, ns: NamespaceId, keep: u64) -> Vec<(K, u64)> {
        let (owner, mut looks, mut gone) = (self.owners.number(ns), LOOKS_MAX, Vec::new());
        while owner != NOBODY && looks > 0 {
            let own = *self.owners.get(owner);
            if own.bytes() <= keep || own.small_bytes + own.main_bytes == 0 {
                break;
            }
            let main_max = (keep - keep / SMALL_SHARE).saturating_sub(own.pinned_bytes);
            let small_first = own.small_bytes > 0 && own.main_bytes <= main_max || own.main_bytes == 0;
            let queue = if small_first { Queue::Small } else { Queue::Main };
            let Some((key, entry)) = self.pop_of(queue, owner, &mut looks) else { break };
            let fits = own.main_bytes + entry.size <= main_max;
            gone.extend(self.turn(key, entry, false, fits, keep));
        }
        self.tidy();
        gone
    }

    /// An owner's oldest entry of a queue.
    fn pop_of(&mut self, queue: Queue, owner: u16, looks: &mut usize) -> Option<(K, Entry)> {
        let Owner { mut small_next, mut main_next, .. } = *self.owners.get(owner);
        let popped = match queue {
            Queue::Small => self.small.pop_of(&self.entries, owner, &mut small_next, looks),
            Queue::Main => self.main.pop_of(&self.entries, owner, &mut main_next, looks),
            Queue::Pinned => None,
        };
        self.owners.change(owner, |owner| (owner.small_next, owner.main_next) = (small_next, main_next));
        popped
    }

    /// One turn of an entry that was taken out of its queue. Of the small one it moves to main, when it was used, `stays`, or fits
    /// there; or leaves and is remembered. Of the main one it goes round again, for one of its hits or because it `stays`; or
    /// leaves, if no other does that is wanted later.
    fn turn(&mut self, key: K, mut entry: Entry, stays: bool, fits: bool, budget: u64) -> Option<(K, u64)> {
        self.uncount(&entry);
        let is_small = entry.queue == Queue::Small;
        if stays || entry.count > 0 || is_small && fits {
            entry.count = match is_small {
                true => 0,
                false => entry.count - u8::from(!stays),
            };
            entry.queue = Queue::Main;
            self.push(key, entry);
            return None;
        }
        let is_main = |other: &K| self.entries.get(other).is_some_and(|entry| entry.queue == Queue::Main);
        if let Some(other) = self.wanted.instead_of(&key, budget, is_main) {
            let size = self.size(&other).unwrap_or(0);
            self.wanted.leave(other);
            self.remove_entry(&other);
            (entry.queue, entry.count) = (Queue::Main, 0);
            self.push(key, entry);
            return Some((other, size));
        }
        self.entries.remove(&key);
        self.wanted.leave(key);
        if is_small {
            self.ghost.insert(key, (entry.stay, entry.last_read));
            self.ghost_order.push_back((key, entry.stay));
        }
        Some((key, entry.size))
    }

    /// Whether the sums are those of the entries.
    #[cfg(test)]
    pub fn is_counted_right(&self) -> bool {
        let mut counted = self.owners.emptied();
        self.entries.values().for_each(|entry| counted.add(entry.owner, entry.queue, entry.size));
        let sums = |owners: &Owners| (owners.all().bytes(), owners.free(), owners.held_bytes());
        sums(&counted) == sums(&self.owners)
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
        let has = |key: &K, stay, queue| entries.get(key).is_some_and(|e| e.stay == stay && e.queue == queue);
        let (small, main) = (self.small.front(), self.main.front());
        if self.small.len() > 2 * entries.len() + 64 {
            self.small.retain(|key, stay| has(key, stay, Queue::Small));
            self.owners.look_from_front(Some(small), None);
        }
        if self.main.len() > 2 * entries.len() + 64 {
            self.main.retain(|key, stay| has(key, stay, Queue::Main));
            self.owners.look_from_front(None, Some(main));
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
