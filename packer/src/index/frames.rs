//! Checksums of 64 KiB after 64 KiB, of bytes that come in order, or of stretches that were summed elsewhere.

use std::io::{self, Read};

use granary_core::Result;

use super::body::BLOCK_BYTES;

const FRAME: usize = BLOCK_BYTES as usize;

/// Blocks of an index and frames of a shard are summed by the same code.
const _: () = assert!(BLOCK_BYTES == granary_core::limits::FRAME_BYTES);

/// The frame that is under way; whole ones are told.
#[derive(Debug, Default)]
pub(super) struct Frame {
    crc: u32,
    /// Bytes that `crc` is of.
    filled: usize,
    pub total: u64,
}

impl Frame {
    pub fn add(&mut self, mut bytes: &[u8], whole: &mut dyn FnMut(u32) -> Result<()>) -> Result<()> {
        while !bytes.is_empty() {
            let (part, rest) = bytes.split_at(bytes.len().min(FRAME - self.filled));
            self.crc = granary_core::crc32c_append(self.crc, part);
            self.grow(part.len(), whole)?;
            bytes = rest;
        }
        Ok(())
    }

    /// The same of bytes that were summed: not more than are left of the frame.
    pub fn add_summed(&mut self, sum: Summed, whole: &mut dyn FnMut(u32) -> Result<()>) -> Result<()> {
        let len = sum.len as usize;
        debug_assert!(len <= FRAME - self.filled);
        self.crc =
            if self.filled == 0 { sum.crc } else { granary_core::crc32c_combine(self.crc, sum.crc, len) };
        self.grow(len, whole)
    }

    fn grow(&mut self, len: usize, whole: &mut dyn FnMut(u32) -> Result<()>) -> Result<()> {
        self.total += len as u64;
        self.filled += len;
        if self.filled == FRAME {
            self.filled = 0;
            whole(std::mem::take(&mut self.crc))?;
        }
        Ok(())
    }

    /// Of the last, short one.
    pub fn end(&mut self) -> Option<u32> {
        (std::mem::take(&mut self.filled) > 0).then(|| std::mem::take(&mut self.crc))
    }
}

/// The checksum of a stretch of a shard that lies in one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summed {
    pub crc: u32,
    pub len: u32,
}

/// The checksums of bytes that begin at `at` in the shard, cut where frames begin.
pub fn sums_at(at: u64, mut bytes: &[u8]) -> Vec<Summed> {
    let mut left = FRAME - (at % BLOCK_BYTES) as usize;
    let mut out = Vec::with_capacity(bytes.len() / FRAME + 2);
    while !bytes.is_empty() {
        let (part, rest) = bytes.split_at(bytes.len().min(left));
        out.push(Summed { crc: granary_core::crc32c(part), len: part.len() as u32 });
        (bytes, left) = (rest, FRAME);
    }
    out
}

/// Sums what is read through it, from a shard's beginning on.
#[derive(Debug)]
pub struct Summing<R> {
    from: R,
    frame: Frame,
    sums: Vec<Summed>,
}

impl<R: Read> Summing<R> {
    pub fn new(from: R) -> Summing<R> {
        Summing { from, frame: Frame::default(), sums: Vec::new() }
    }

    /// Reads what is left, and gives the checksums of all of it.
    ///
    /// Errors: what the reader says.
    pub fn finish(mut self) -> io::Result<Vec<Summed>> {
        io::copy(&mut self, &mut io::sink())?;
        let len = (self.frame.total % BLOCK_BYTES) as u32;
        self.sums.extend(self.frame.end().map(|crc| Summed { crc, len }));
        Ok(self.sums)
    }
}

impl<R: Read> Read for Summing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.from.read(buffer)?;
        let sums = &mut self.sums;
        let mut whole = |crc| {
            sums.push(Summed { crc, len: FRAME as u32 });
            Ok(())
        };
        let _never = self.frame.add(&buffer[..n], &mut whole);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn however_bytes_come_the_sums_are_those_of_frames(
            cuts in proptest::collection::vec(1usize..150_000, 0..6), summed: u8,
        ) {
            let bytes: Vec<u8> = (0..cuts.iter().sum::<usize>()).map(|i| (i * 7 + i / 251) as u8).collect();
            let want: Vec<u32> = bytes.chunks(FRAME).map(granary_core::crc32c).collect();
            let (mut frame, mut got, mut at) = (Frame::default(), Vec::new(), 0);
            let mut whole = |crc| { got.push(crc); Ok(()) };
            for (n, cut) in cuts.iter().enumerate() {
                let part = &bytes[at..at + cut];
                if summed >> n & 1 == 1 {
                    for sum in sums_at(at as u64, part) {
                        frame.add_summed(sum, &mut whole).unwrap();
                    }
                } else {
                    frame.add(part, &mut whole).unwrap();
                }
                at += cut;
            }
            prop_assert_eq!(frame.total, bytes.len() as u64);
            got.extend(frame.end());
            prop_assert_eq!(&got, &want);
            let mut read = Summing::new(&bytes[..]);
            read.read_exact(&mut vec![0; bytes.len() / 3]).unwrap();
            let sums = read.finish().unwrap();
            prop_assert_eq!(sums.iter().map(|s| s.crc).collect::<Vec<_>>(), want);
            prop_assert_eq!(sums.iter().map(|s| u64::from(s.len)).sum::<u64>(), bytes.len() as u64);
        }
    }
}
