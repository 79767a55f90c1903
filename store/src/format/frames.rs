//! Checksums of a payload, one for each frame of 64 KiB.

use granary_core::limits::FRAME_BYTES;
use granary_core::{Error, Kind, ObjectId, Result};

/// The checksums of one object's payload: what a reader of ranges keeps of a footer. 4 bytes for each 64 KiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frames {
    id: ObjectId,
    payload_len: u64,
    crcs: Box<[u32]>,
}

impl Frames {
    /// `crcs` has one checksum for each frame of `payload_len`; the caller has checked it.
    pub(super) fn new(id: ObjectId, payload_len: u64, crcs: Vec<u32>) -> Frames {
        assert_eq!(crcs.len() as u64, count(payload_len));
        Frames { id, payload_len, crcs: crcs.into() }
    }

    pub fn payload_len(&self) -> u64 {
        self.payload_len
    }

    pub fn checksums(&self) -> &[u32] {
        &self.crcs
    }

    /// Verifies `bytes` of the payload at `offset`: whole frames, so `offset` is a multiple of 64 KiB, and the end is one too or
    /// the payload's end.
    ///
    /// Errors: `Corrupt` names object and frame; `Bug` when the range is not of whole frames.
    pub fn verify(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let end = offset.saturating_add(bytes.len() as u64);
        if end > self.payload_len {
            return Err(Error::new(
                Kind::Corrupt,
                format!(
                    "object {}: bytes {offset}..{end} are past its {} payload bytes",
                    self.id, self.payload_len
                ),
            ));
        }
        if !offset.is_multiple_of(FRAME_BYTES)
            || !(end.is_multiple_of(FRAME_BYTES) || end == self.payload_len)
        {
            return Err(Error::new(
                Kind::Bug,
                format!("object {}: bytes {offset}..{end} are not whole frames of {FRAME_BYTES}", self.id),
            ));
        }
        let first = (offset / FRAME_BYTES) as usize;
        for (i, frame) in bytes.chunks(FRAME_BYTES as usize).enumerate() {
            if crc32c::crc32c(frame) != self.crcs[first + i] {
                let at = offset + i as u64 * FRAME_BYTES;
                return Err(Error::new(
                    Kind::Corrupt,
                    format!(
                        "object {} is damaged: frame {} (payload bytes {at}..{}) does not match its checksum",
                        self.id,
                        first + i,
                        at + frame.len() as u64
                    ),
                ));
            }
        }
        Ok(())
    }
}

/// Frames of a payload.
pub(super) fn count(payload_len: u64) -> u64 {
    payload_len.div_ceil(FRAME_BYTES)
}

/// Computes frame checksums of a payload that comes in parts.
#[derive(Debug, Default)]
pub(super) struct FrameSums {
    done: Vec<u32>,
    /// Checksum of the frame being filled, and its bytes so far.
    current: u32,
    filled: usize,
    len: u64,
}

impl FrameSums {
    pub fn add(&mut self, mut bytes: &[u8]) {
        self.len += bytes.len() as u64;
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(FRAME_BYTES as usize - self.filled));
            self.current = crc32c::crc32c_append(self.current, now);
            self.filled += now.len();
            if self.filled == FRAME_BYTES as usize {
                self.done.push(std::mem::take(&mut self.current));
                self.filled = 0;
            }
            bytes = later;
        }
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn finish(mut self) -> Vec<u32> {
        if self.filled > 0 {
            self.done.push(self.current);
        }
        self.done
    }
}
