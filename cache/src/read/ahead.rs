//! Which chunks of an object to fetch before they are asked for. Decides only; does no I/O.
//!
//! A large file's blocks are read front to back, and a pack's neighbours are the next files of the directory. So while
//! reads of an object go forward, the next chunks are wanted: one at first, then twice as many at each new chunk, up to
//! [`WINDOW_MAX`]. A jump begins anew. Reads a little behind the front (several readers of one directory) change nothing.

use std::ops::Range;

use granary_core::ObjectId;
use granary_core::limits::CHUNK_BYTES;

use super::lru::Lru;

/// Chunks ahead at most: 8 MiB hide 80 ms at 100 MB/s.
const WINDOW_MAX: u64 = 8;
/// Forward reads before the first prefetch, unless the object is read from its beginning. A program that reads at random
/// goes forward by less than a chunk now and then, rarely twice in a row.
const STEPS_MIN: u32 = 2;
/// Objects whose readers are remembered.
const STREAMS_MAX: usize = 1024;

#[derive(Debug)]
struct Stream {
    /// Where the front of the reads is, in bytes of the payload.
    front: u64,
    /// Forward reads so far.
    steps: u32,
    /// Chunks to be ahead; 0: nothing yet.
    window: u64,
    /// Chunks before this one were asked for.
    asked: u64,
}

#[derive(Debug)]
pub(crate) struct Ahead {
    streams: Lru<ObjectId, Stream>,
}

impl Ahead {
    pub fn new() -> Ahead {
        Ahead { streams: Lru::new(STREAMS_MAX) }
    }

    /// Tells of a read; answers the bytes of the payload to fetch in the background, whole chunks (the last one may be
    /// short), each asked for once in a run.
    pub fn on_read(&mut self, object: ObjectId, range: &Range<u64>, payload_len: u64) -> Option<Range<u64>> {
        let end_chunk = range.end.div_ceil(CHUNK_BYTES);
        let near = |s: &Stream| range.start <= s.front + CHUNK_BYTES && s.front <= range.end + CHUNK_BYTES;
        let stream = match self.streams.get(&object) {
            Some(stream) if near(stream) => {
                if range.end <= stream.front {
                    return None;
                }
                let new_chunk = end_chunk > stream.front.div_ceil(CHUNK_BYTES);
                stream.front = range.end;
                stream.steps = stream.steps.saturating_add(1);
                if stream.window == 0 && stream.steps >= STEPS_MIN {
                    stream.window = 1;
                } else if new_chunk {
                    stream.window = (stream.window * 2).min(WINDOW_MAX);
                }
                stream
            }
            _ => {
                let window = u64::from(range.start == 0);
                let stream = Stream { front: range.end, steps: 0, window, asked: 0 };
                self.streams.insert(object, stream);
                self.streams.get(&object)?
            }
        };
        let from = stream.asked.max(end_chunk);
        let to = (end_chunk + stream.window).min(payload_len.div_ceil(CHUNK_BYTES));
        if from >= to {
            return None;
        }
        stream.asked = to;
        Some(from * CHUNK_BYTES..(to * CHUNK_BYTES).min(payload_len))
    }

    pub fn forget(&mut self, object: ObjectId) {
        self.streams.remove(&object);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = CHUNK_BYTES;
    const LEN: u64 = 15 * MIB - 7;

    fn object() -> ObjectId {
        ObjectId(1)
    }

    #[test]
    fn the_window_doubles_while_reads_go_forward() {
        let mut ahead = Ahead::new();
        let mut asked = Vec::new();
        for start in (0..LEN).step_by(128 << 10) {
            let range = start..(start + (128 << 10)).min(LEN);
            if let Some(next) = ahead.on_read(object(), &range, LEN) {
                asked.push((start / MIB, next.start / MIB..next.end.div_ceil(MIB)));
            }
        }
        assert_eq!(asked[..4], [(0, 1..2), (1, 2..4), (2, 4..7), (3, 7..12)]);
        assert_eq!(asked.last().unwrap().1.end, 15);
    }

    #[test]
    fn a_run_in_the_middle_starts_after_two_steps_and_a_jump_ends_it() {
        let mut ahead = Ahead::new();
        let at = |kib: u64| 5 * MIB + (kib << 10)..5 * MIB + ((kib + 4) << 10);
        assert_eq!(ahead.on_read(object(), &at(0), LEN), None);
        assert_eq!(ahead.on_read(object(), &at(4), LEN), None);
        assert_eq!(ahead.on_read(object(), &at(8), LEN), Some(6 * MIB..7 * MIB));
        assert_eq!(ahead.on_read(object(), &at(4), LEN), None, "a little back is another reader");
        assert_eq!(ahead.on_read(object(), &(11 * MIB..11 * MIB + 1), LEN), None, "a jump");
        assert_eq!(ahead.on_read(object(), &at(0), LEN), None, "and back");
    }

    #[test]
    fn random_reads_ask_for_little() {
        let mut ahead = Ahead::new();
        let mut x = 1u64;
        let mut asked = 0;
        for _ in 0..3000 {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let (object, start) = (ObjectId(u128::from((x >> 33) % 50)), (x >> 17) % (14 * MIB));
            asked += u64::from(ahead.on_read(object, &(start..start + 4096), LEN).is_some());
        }
        assert!(asked < 60, "{asked} of 3,000");
    }

    proptest! {
        #[test]
        fn what_it_asks_for_is_whole_chunks_after_the_read(reads in proptest::collection::vec((0..LEN, 1u64..3 * MIB), 1..50)) {
            let mut ahead = Ahead::new();
            for (start, len) in reads {
                let range = start..(start + len).min(LEN);
                if let Some(next) = ahead.on_read(object(), &range, LEN) {
                    prop_assert!(next.start >= range.end && next.start % MIB == 0);
                    prop_assert!(next.end == LEN || next.end % MIB == 0);
                    prop_assert!(next.end - next.start <= WINDOW_MAX * MIB && next.start < next.end);
                }
            }
        }
    }
}
