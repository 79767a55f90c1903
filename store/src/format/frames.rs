//! The frames of a payload, 64 KiB each: their checksums, and where they are when they are compressed.

use std::ops::Range;

use bytes::Bytes;
use granary_core::limits::FRAME_BYTES;
use granary_core::{Error, Kind, ObjectId, Result};

use super::codec::{self, Codec};

/// What a reader of ranges keeps of a footer: 4 bytes for each 64 KiB, and as much again when they are compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frames {
    id: ObjectId,
    payload_len: u64,
    crcs: Box<[u32]>,
    compressed: Option<Compressed>,
}

/// Frames that are stored one after another, in these lengths. One whose stored length is its own is stored as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compressed {
    pub codec: Codec,
    /// One for each frame, none longer than the frame.
    pub lens: Box<[u32]>,
}

impl Frames {
    /// `crcs` has one checksum for each frame of `payload_len`; the caller has checked it.
    pub(super) fn new(id: ObjectId, payload_len: u64, crcs: Vec<u32>) -> Frames {
        assert_eq!(crcs.len() as u64, count(payload_len));
        Frames { id, payload_len, crcs: crcs.into(), compressed: None }
    }

    /// `compressed` has one length for each frame, which the caller has checked.
    pub(super) fn with(self, compressed: Option<Compressed>) -> Frames {
        Frames { compressed, ..self }
    }

    pub fn compressed(&self) -> Option<&Compressed> {
        self.compressed.as_ref()
    }

    /// Bytes of the payload as it is stored.
    pub fn stored_len(&self) -> u64 {
        match &self.compressed {
            None => self.payload_len,
            Some(compressed) => compressed.lens.iter().map(|&len| u64::from(len)).sum(),
        }
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
            if granary_core::crc32c(frame) != self.crcs[first + i] {
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

impl Compressed {
    /// Where the stored bytes of these whole frames are: of the payload's range that begins at a frame's begin, and ends at one's end.
    pub fn stored_range(&self, range: &Range<u64>) -> Range<u64> {
        let sum = |lens: &[u32]| lens.iter().map(|&len| u64::from(len)).sum::<u64>();
        let frames = frames_of(range);
        let start = sum(&self.lens[..frames.start]);
        start..start + sum(&self.lens[frames])
    }

    /// The payload's bytes `range` (see [`Compressed::stored_range`]) of their stored bytes. They are not verified yet.
    ///
    /// Errors: `Corrupt` says which frame cannot be had.
    pub fn unpack(&self, range: &Range<u64>, mut stored: &[u8]) -> Result<Bytes> {
        let mut out = Vec::with_capacity((range.end - range.start) as usize);
        for frame in frames_of(range) {
            let at = frame as u64 * FRAME_BYTES;
            let len = (range.end - at).min(FRAME_BYTES) as usize;
            let damaged = |why: &str| {
                Error::new(
                    Kind::Corrupt,
                    format!("frame {frame} (payload bytes {at}..{}): {why}", at + len as u64),
                )
            };
            let Some((now, later)) = stored.split_at_checked(self.lens[frame] as usize) else {
                return Err(damaged("its end is lost"));
            };
            if now.len() == len {
                out.extend_from_slice(now);
            } else {
                codec::decompress(self.codec, now, len, &mut out).map_err(|why| damaged(&why))?;
            }
            stored = later;
        }
        Ok(out.into())
    }
}

fn frames_of(range: &Range<u64>) -> Range<usize> {
    debug_assert!(range.start.is_multiple_of(FRAME_BYTES));
    (range.start / FRAME_BYTES) as usize..range.end.div_ceil(FRAME_BYTES) as usize
}

/// Compresses a payload that comes in parts: the stored bytes, and the length of each frame's.
pub(super) fn compress(codec: Codec, payload: &[Bytes]) -> (Vec<Bytes>, Vec<u32>) {
    let (mut stored, mut lens) = (Vec::new(), Vec::new());
    let mut gathered: Vec<u8> = Vec::with_capacity(FRAME_BYTES as usize);
    let mut take = |frame: &[u8]| {
        let bytes = match codec::compress(codec, frame) {
            Some(smaller) => Bytes::from(smaller),
            None => Bytes::copy_from_slice(frame),
        };
        lens.push(bytes.len() as u32);
        stored.push(bytes);
    };
    for part in payload {
        let mut part = &part[..];
        while !part.is_empty() {
            // A frame within one part is compressed where it lies.
            if gathered.is_empty() && part.len() >= FRAME_BYTES as usize {
                let (frame, later) = part.split_at(FRAME_BYTES as usize);
                take(frame);
                part = later;
                continue;
            }
            let (now, later) = part.split_at(part.len().min(FRAME_BYTES as usize - gathered.len()));
            gathered.extend_from_slice(now);
            if gathered.len() == FRAME_BYTES as usize {
                take(&gathered);
                gathered.clear();
            }
            part = later;
        }
    }
    if !gathered.is_empty() {
        take(&gathered);
    }
    (stored, lens)
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
            self.current = granary_core::crc32c_append(self.current, now);
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
