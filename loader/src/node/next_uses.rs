//! When what is asked for is wanted again, until it is asked for.
//!
//! Who plans a request knows its samples' next places; who asks the node knows the bytes only. What is said here is advice: what is lost of it, since
//! there is too much, costs the store a request more at most.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::wire::PIECE_BYTES;

/// Pieces that are remembered: of 64 GiB that were planned and not asked for.
const PIECES_MAX: usize = 64 << 10;

#[derive(Debug, Default)]
pub(super) struct NextUses {
    /// Guards what was said, for a look: of a file's piece, after how many mebibytes it is wanted again.
    said: Mutex<Said>,
}

#[derive(Debug, Default)]
struct Said {
    files: HashMap<String, HashMap<u64, u32>>,
    pieces: usize,
}

/// Of a file that a range touches.
pub(crate) fn pieces(range: &Range<u64>) -> Range<u64> {
    range.start / PIECE_BYTES..range.end.div_ceil(PIECE_BYTES)
}

impl NextUses {
    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `next`: of each piece that the range touches.
    pub fn tell(&self, name: &str, range: &Range<u64>, next: &[u32]) {
        let mut said = self.said();
        if said.pieces + next.len() > PIECES_MAX {
            *said = Said::default();
        }
        let mut new = 0;
        let file = said.files.entry(name.to_owned()).or_default();
        for (piece, after) in pieces(range).zip(next) {
            new += usize::from(file.insert(piece, *after).is_none());
        }
        said.pieces += new;
    }

    /// What was said of each piece; empty when that is not known of all. It is known until something else is said.
    pub fn of(&self, name: &str, range: &Range<u64>) -> Vec<u32> {
        let said = self.said();
        let Some(file) = said.files.get(name) else { return Vec::new() };
        pieces(range).map(|piece| file.get(&piece).copied()).collect::<Option<_>>().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_known_within_bounds() {
        const MIB: u64 = PIECE_BYTES;
        let uses = NextUses::default();
        assert!(uses.of("a", &(0..MIB)).is_empty());
        uses.tell("a", &(5..2 * MIB + 1), &[1, 2, 3]);
        assert_eq!(uses.of("a", &(MIB - 1..2 * MIB)), [1, 2]);
        assert_eq!(uses.of("a", &(2 * MIB + 5..3 * MIB)), [3]);
        assert!(uses.of("a", &(2 * MIB..3 * MIB + 1)).is_empty() && uses.of("b", &(0..1)).is_empty());
        uses.tell("a", &(0..MIB), &[7]);
        assert_eq!((uses.of("a", &(0..2 * MIB)), uses.said().pieces), (vec![7, 2], 3));
        for n in 0..PIECES_MAX as u64 {
            uses.tell("b", &(n * MIB..n * MIB + 1), &[n as u32]);
            assert!(uses.said().pieces <= PIECES_MAX);
        }
        assert!(uses.of("a", &(0..MIB)).is_empty());
        let last = PIECES_MAX as u64 - 1;
        assert_eq!(uses.of("b", &(last * MIB..last * MIB + 1)), [last as u32]);
    }
}
