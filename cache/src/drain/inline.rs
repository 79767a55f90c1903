//! Copies of tiny files' bytes, for the metadata to keep beside the inodes (`granary_meta::Metadata::keep_inline`): who reads such a
//! file then asks nothing of the store.
//!
//! They are offered after the bytes came into an object, which stays the truth. Whether a file still is what the copy is of, the
//! metadata decides; an offer that fails costs nothing but later requests to the store.

use bytes::Bytes;
use granary_core::Ino;
use granary_meta::NewInline;
use granary_meta::api::INLINE_CALL_BYTES_MAX;

use super::Uploaded;
use crate::tree::Shared;

/// The bytes of a file from its beginning on, one after the other in the payload.
#[derive(Debug)]
struct Beginning {
    ino: Ino,
    at: u64,
    len: u64,
    /// Shared with the payload.
    parts: Vec<Bytes>,
}

/// The files of a pack that are short enough to be kept.
#[derive(Debug, Default)]
pub(super) struct Copies {
    bytes_max: u64,
    all: Vec<Beginning>,
    /// The file of the last part, and whether the last of them is of it.
    last: Option<(Ino, bool)>,
}

impl Copies {
    /// Of files up to this many bytes; 0: of none.
    pub fn new(bytes_max: u64) -> Copies {
        Copies { bytes_max, ..Copies::default() }
    }

    /// The next part of the pack's payload, which lies at `to_offset`.
    pub fn add(&mut self, ino: Ino, file_offset: u64, to_offset: u64, bytes: Bytes) {
        if self.bytes_max == 0 {
            return;
        }
        let len = bytes.len() as u64;
        if let Some((last, is_kept)) = self.last
            && last == ino
        {
            if is_kept && !self.extend(file_offset, to_offset, bytes) {
                self.all.pop();
                self.last = Some((ino, false));
            }
            return;
        }
        let is_kept = file_offset == 0 && len <= self.bytes_max;
        self.last = Some((ino, is_kept));
        if is_kept {
            self.all.push(Beginning { ino, at: to_offset, len, parts: vec![bytes] });
        }
    }

    /// Whether the last beginning goes on with these bytes, and is short enough still.
    fn extend(&mut self, file_offset: u64, to_offset: u64, bytes: Bytes) -> bool {
        let Some(copy) = self.all.last_mut() else { return false };
        let follows = (file_offset, to_offset) == (copy.len, copy.at + copy.len);
        copy.len += bytes.len() as u64;
        copy.parts.push(bytes);
        follows && copy.len <= self.bytes_max
    }

    /// In groups of what fits in a call; none larger but for a single one.
    fn calls(&self) -> impl Iterator<Item = Vec<NewInline>> + '_ {
        let mut rest = self.all.iter().peekable();
        std::iter::from_fn(move || {
            let (mut call, mut bytes) = (Vec::new(), 0);
            while let Some(copy) = rest.next_if(|copy| call.is_empty() || bytes + copy.len <= CALL_BYTES_MAX)
            {
                bytes += copy.len;
                let whole = copy.parts.concat();
                let crc = granary_core::crc32c(&whole);
                call.push(NewInline { ino: copy.ino, at: copy.at, crc, bytes: whole.into() });
            }
            (!call.is_empty()).then_some(call)
        })
    }
}

const CALL_BYTES_MAX: u64 = INLINE_CALL_BYTES_MAX as u64;

impl Shared {
    /// Offers the metadata copies of the tiny files that were moved into this object.
    pub(super) async fn keep_copies(&self, uploaded: &Uploaded) {
        for copies in uploaded.copies.calls() {
            if let Err(e) = self.meta.keep_inline(uploaded.info(), copies).await {
                tracing::debug!(ns = %self.ns, error = %e, "the metadata keeps no copies of tiny files of an object");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(copies: &Copies) -> Vec<(u64, u64, Vec<u8>)> {
        copies.calls().flatten().map(|c| (c.ino.0, c.at, c.bytes.to_vec())).collect()
    }

    #[test]
    fn only_short_beginnings_that_lie_in_one_piece_are_copied() {
        let mut copies = Copies::new(10);
        let mut at = 0;
        let mut add = |ino, offset, bytes: &'static [u8]| {
            copies.add(Ino(ino), offset, at, Bytes::from_static(bytes));
            at += bytes.len() as u64;
        };
        add(1, 0, b"one");
        add(2, 0, b"in ");
        add(2, 3, b"parts");
        add(3, 0, b"more than ten");
        add(4, 0, b"with");
        add(4, 7, b"a hole");
        add(5, 2, b"no start");
        add(6, 0, b"12345678");
        add(6, 8, b"9012");
        add(6, 12, b"3");
        add(7, 0, b"0123456789");
        assert_eq!(
            kept(&copies),
            [(1, 0, b"one".to_vec()), (2, 3, b"in parts".to_vec()), (7, 55, b"0123456789".to_vec())]
        );
        let mut none = Copies::new(0);
        none.add(Ino(1), 0, 0, Bytes::from_static(b"x"));
        assert_eq!(kept(&none), []);
    }

    #[test]
    fn calls_are_bounded_and_hold_every_copy_once() {
        let mut copies = Copies::new(2048);
        let bytes = Bytes::from(vec![7; 2048]);
        for i in 0..300 {
            copies.add(Ino(i), 0, i * 2048, bytes.clone());
        }
        let calls: Vec<_> = copies.calls().collect();
        assert_eq!(calls.iter().map(Vec::len).collect::<Vec<_>>(), [128, 128, 44]);
        assert!(calls.iter().flatten().map(|c| c.ino.0).eq(0..300));
    }
}
