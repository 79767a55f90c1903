//! Which chunks of which objects to fetch before they are asked for, from how objects are read. Decides only; does no I/O.
//!
//! A pack has many small files in directory order. How they are read says what comes next:
//!
//! | reads of a pack | recognised by | fetched ahead |
//! |---|---|---|
//! | in order | they go forward | the next chunks, four times as many at each new one; at its end the next pack |
//! | here and there, again and again | a quarter of its chunks was read | all of it |
//! | here and there, in many packs: the beginning of a shuffled epoch | of the last [`LATELY`] reads, [`JUMPS_MIN`] jumped | all of each pack that is touched, on [`Credit`] |
//! | as in an earlier pass | [`History`]: it was read for the greater part then | all of it, and what came next if the order is the same |
//!
//! Of blocks (a large file's ranges) only the second counts: their order is their file's business (`streams`).
//!
//! A read that misses a chunk which was read before begins a new pass: the cache had dropped the object.

use std::ops::Range;

use granary_core::limits::CHUNK_BYTES;
use granary_core::{NamespaceId, ObjectId, ObjectKind};
use granary_meta::ObjectInfo;

use super::credit::Credit;
use super::history::{Foresight, History};
use crate::read::lru::Lru;

/// Objects whose readers are remembered, about 150 bytes each.
const OBJECTS_MAX: usize = 4096;
/// Namespaces that are remembered; each with its history.
const NAMESPACES_MAX: usize = 64;
/// Forward reads before the first fetch ahead, unless the object is read from its beginning. A program that reads at random
/// goes forward by less than a chunk now and then, rarely twice in a row.
const STEPS_MIN: u32 = 2;
/// An object is read here and there when so many reads of it jumped.
const JUMPS_OF_OBJECT_MIN: u32 = 3;
/// Reads of a namespace that are looked at, and how many of them jumped in a shuffled epoch. (An epoch has hardly any others;
/// one that lists directories in order, none.)
const LATELY: u32 = 32;
const JUMPS_MIN: u32 = 8;
/// The window of reads in order grows by this factor with each chunk.
const GROWTH: u32 = 4;
/// Chunks asked for at once, at least, unless the window or the object is shorter: one GET.
const ASK_CHUNKS: u32 = 4;

/// One read of an object.
#[derive(Clone, Debug)]
pub(crate) struct Read<'a> {
    pub ns: NamespaceId,
    pub object: &'a ObjectInfo,
    /// Of the payload; not empty.
    pub range: &'a Range<u64>,
    /// It began a request to the store; what is on its way for others, or was fetched ahead, does not count.
    pub missed: bool,
    /// Bytes that are worth having under way.
    pub window: u64,
    /// Bytes fetched ahead that were read since the cache was opened: how good guesses are.
    pub used_bytes: u64,
}

/// What to fetch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wish {
    /// Chunks of the object that was read.
    pub chunks: Option<Range<u32>>,
    /// An object that comes next, whole.
    pub next: Option<ObjectInfo>,
    /// The reads go on behind the object's end: the pack made after it is wanted, from its beginning, see
    /// [`Objects::adopt`].
    pub beyond: bool,
}

#[derive(Debug)]
struct Seen {
    ns: NamespaceId,
    /// Fetched because another object's reads will go on here; nobody read it yet.
    adopted: bool,
    chunks: u32,
    /// Chunks that were read in this pass: the first 64 of the object, which has 15.
    read: u64,
    jumps: u32,
    /// All of it was asked for; on credit so many bytes.
    whole: bool,
    spent: u64,
    dense: bool,
    beyond: bool,
    /// Where the front of forward reads is, in bytes of the payload.
    front: u64,
    steps: u32,
    /// Chunks to be ahead of the front; 0: nothing yet.
    window: u32,
    /// Chunks before this one were asked for.
    asked: u32,
}

#[derive(Debug)]
struct Space {
    history: History,
    credit: Credit,
    /// The window with which reads in order left the last pack; 0 since one jumped. The next pack begins with it.
    carried: u32,
    /// The last reads, the latest in the lowest bit: whether it jumped.
    jumps: u32,
    used_bytes: u64,
}

#[derive(Debug)]
pub(crate) struct Objects {
    seen: Lru<ObjectId, Seen>,
    spaces: Lru<NamespaceId, Space>,
    credit_max: u64,
}

impl Objects {
    /// `credit_max`: bytes of a namespace that may be fetched on a guess before one of them is read.
    pub fn new(credit_max: u64) -> Objects {
        Objects { seen: Lru::new(OBJECTS_MAX), spaces: Lru::new(NAMESPACES_MAX), credit_max }
    }

    pub fn on_read(&mut self, read: &Read<'_>) -> Wish {
        let id = read.object.id;
        if self.spaces.get(&read.ns).is_none() {
            let credit = Credit::new(self.credit_max);
            let used_bytes = read.used_bytes;
            let space = Space { history: History::new(), credit, carried: 0, jumps: 0, used_bytes };
            self.spaces.insert(read.ns, space);
        }
        let Some(space) = self.spaces.get(&read.ns) else { return Wish::default() };
        space.credit.on_used(read.used_bytes.saturating_sub(space.used_bytes));
        space.used_bytes = read.used_bytes;
        let begun = self.seen.get(&id).is_none_or(|seen| read.missed && seen.has_read(read.range));
        if read.missed {
            space.credit.on_missed(read.range.end - read.range.start);
        }
        let is_pack = read.object.kind == ObjectKind::Pack;
        let (mut wish, mut past) = (Wish::default(), Foresight::default());
        if begun {
            self.seen.insert(id, Seen::begin(read, is_pack));
        }
        let Some(seen) = self.seen.get(&id) else { return wish };
        if is_pack && (begun || std::mem::take(&mut seen.adopted)) {
            past = space.history.on_begun(read.object);
        }
        let jumped = seen.note(read, begun);
        if is_pack {
            space.jumps = space.jumps << 1 | u32::from(jumped);
            space.carried = if jumped { 0 } else { space.carried };
            if begun && seen.window > 0 {
                seen.window = seen.window.max(space.carried);
            }
        }
        if seen.is_dense() && !seen.dense {
            seen.dense = true;
            space.history.on_dense(id);
        }
        wish.next = past.next;
        if !seen.whole && seen.is_whole_wanted(past.dense, space, is_pack) {
            seen.whole = true;
            seen.asked = seen.chunks;
            wish.chunks = Some(0..seen.chunks);
            return wish;
        }
        if is_pack && !jumped && !seen.whole {
            wish.chunks = seen.go_on(read.window);
        }
        let at_end = seen.asked >= seen.chunks || seen.front >= read.object.payload_len;
        if is_pack && !jumped && at_end && seen.window > 0 && seen.is_forward() && !seen.beyond {
            seen.beyond = true;
            wish.beyond = true;
            space.carried = seen.window;
        }
        wish
    }

    /// Of what was wished for last, the chunks from here on are not being fetched.
    pub fn on_refused(&mut self, object: ObjectId, from: u32) {
        let Some(seen) = self.seen.get(&object) else { return };
        seen.asked = seen.asked.min(from);
        if std::mem::take(&mut seen.whole) {
            let spent = std::mem::take(&mut seen.spent);
            if let Some(space) = self.spaces.get(&seen.ns) {
                space.credit.give_back(spent);
            }
        }
    }

    /// The reads of `before` will go on in this object: the chunks to fetch of it.
    pub fn adopt(&mut self, before: ObjectId, object: &ObjectInfo) -> Option<Range<u32>> {
        let Seen { window, ns, .. } = *self.seen.get(&before)?;
        if self.seen.get(&object.id).is_some() {
            return None; // it is being read already
        }
        let chunks = chunks_of(object);
        let asked = window.min(chunks);
        let seen = Seen { ns, adopted: true, chunks, steps: STEPS_MIN, window, asked, ..Seen::default() };
        self.seen.insert(object.id, seen);
        Some(0..asked)
    }

    /// The object was deleted.
    pub fn remove(&mut self, object: ObjectId) {
        if let Some(seen) = self.seen.remove(&object)
            && let Some(space) = self.spaces.get(&seen.ns)
        {
            space.history.forget(object);
        }
    }

    /// The object was dropped from the cache: its next read begins a new pass.
    pub fn forget(&mut self, object: ObjectId) {
        self.seen.remove(&object);
    }
}

fn chunks_of(object: &ObjectInfo) -> u32 {
    object.payload_len.div_ceil(CHUNK_BYTES) as u32
}

/// The chunks of a range, as bits.
fn bits(range: &Range<u64>) -> u64 {
    let (from, to) = (range.start / CHUNK_BYTES, range.end.div_ceil(CHUNK_BYTES));
    (from.min(64)..to.min(64)).fold(0, |bits, chunk| bits | 1 << chunk)
}

impl Default for Seen {
    fn default() -> Seen {
        Seen {
            ns: NamespaceId(0),
            adopted: false,
            chunks: 0,
            read: 0,
            jumps: 0,
            whole: false,
            spent: 0,
            dense: false,
            beyond: false,
            front: 0,
            steps: 0,
            window: 0,
            asked: 0,
        }
    }
}

impl Seen {
    fn begin(read: &Read<'_>, is_pack: bool) -> Seen {
        let window = u32::from(is_pack && read.range.start == 0);
        Seen { ns: read.ns, chunks: chunks_of(read.object), window, ..Seen::default() }
    }

    /// Whether all of the range's chunks were read in this pass.
    fn has_read(&self, range: &Range<u64>) -> bool {
        let bits = bits(range);
        bits != 0 && self.read & bits == bits
    }

    /// Whether the greater part was read in this pass.
    fn is_dense(&self) -> bool {
        2 * self.read.count_ones() >= self.chunks
    }

    /// Reads went forward more often than they jumped.
    fn is_forward(&self) -> bool {
        self.steps >= STEPS_MIN && self.steps > self.jumps
    }

    /// Takes a read in; whether it was neither near the front nor the object's beginning.
    fn note(&mut self, read: &Read<'_>, begun: bool) -> bool {
        let range = read.range;
        self.read |= bits(range);
        if begun {
            self.front = range.end;
            self.jumps = u32::from(range.start > 0);
            return range.start > 0;
        }
        let near = range.start <= self.front + CHUNK_BYTES && self.front <= range.end + CHUNK_BYTES;
        if !near {
            self.jumps = self.jumps.saturating_add(1);
            (self.front, self.steps, self.window, self.asked) = (range.end, 0, 0, 0);
            return true;
        }
        if range.end > self.front {
            let end_chunk = range.end.div_ceil(CHUNK_BYTES);
            let new_chunk = end_chunk > self.front.div_ceil(CHUNK_BYTES);
            self.front = range.end;
            self.steps = self.steps.saturating_add(1);
            if self.window == 0 && self.steps >= STEPS_MIN {
                self.window = 1;
            } else if new_chunk {
                self.window = self.window.saturating_mul(GROWTH).min(self.chunks);
            }
        }
        false
    }

    fn is_whole_wanted(&mut self, was_dense: bool, space: &mut Space, is_pack: bool) -> bool {
        let many_jumps = self.jumps >= JUMPS_OF_OBJECT_MIN;
        if was_dense || many_jumps && 4 * self.read.count_ones() >= self.chunks {
            return true;
        }
        let epoch = is_pack && self.jumps > 0 && space.jumps.count_ones() >= JUMPS_MIN;
        let left = u64::from(self.chunks - self.read.count_ones().min(self.chunks)) * CHUNK_BYTES;
        if epoch && space.credit.spend(left) {
            self.spent = left;
            return true;
        }
        false
    }

    /// The next chunks of a stream that goes forward.
    fn go_on(&mut self, window_bytes: u64) -> Option<Range<u32>> {
        self.window = self.window.min((window_bytes / CHUNK_BYTES).max(1) as u32);
        let end_chunk = self.front.div_ceil(CHUNK_BYTES) as u32;
        let from = self.asked.max(end_chunk);
        let to = (end_chunk + self.window).min(self.chunks);
        let enough = to == self.chunks || to.saturating_sub(from) >= (self.window / 2).min(ASK_CHUNKS);
        if from >= to || !enough {
            return None;
        }
        self.asked = to;
        Some(from..to)
    }
}

const _: () = assert!(LATELY <= u32::BITS);

#[cfg(test)]
mod tests;
