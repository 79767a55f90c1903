//! Ogg Vorbis (Vorbis I specification): packets by `ogg`, numbers by the crate `lewton`.
//!
//! Packets are three heads - identification, comments, setup - and then sound. The comments are not read. The setup has codebooks that are unpacked to
//! entries x dimensions numbers, which a few bytes can claim a terabyte of; so their sizes are added up before.
//!
//! A packet gives a quarter of the block before it and a quarter of its own, so the first gives nothing. The granule position of a page says where its
//! last packet ends: by the first one the sound may begin before 0, which is left out, and by the last it ends before its last packet does.

use granary_core::Result;
use lewton::audio::{PreviousWindowRight, read_audio_packet_generic};
use lewton::header::{IdentHeader, read_header_ident, read_header_setup};

use super::ogg::{Packet, Packets, Page};
use super::{Audio, Cut, Size, checked_channels};
use crate::decode::array::Array;
use crate::decode::{damaged, unsupported};

/// Numbers that codebooks may be unpacked to. Those of libvorbis have some 100,000.
const CODEBOOK_NUMBERS_MAX: u64 = 4 << 20;

/// Bits, the lowest of each byte first.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: u32) -> Option<u32> {
        let mut value = 0;
        for bit in 0..count {
            let byte = *self.bytes.get(self.at / 8)?;
            value |= u32::from(byte >> (self.at % 8) & 1) << bit;
            self.at += 1;
        }
        Some(value)
    }

    fn skip(&mut self, count: u64) -> Option<()> {
        let at = (self.at as u64).checked_add(count)?;
        self.at = usize::try_from(at).ok().filter(|&at| at <= self.bytes.len() * 8)?;
        Some(())
    }
}

/// The most whose power of `dimensions` is not over `entries`.
fn lookup_values(entries: u32, dimensions: u32) -> u64 {
    let fits = |root: u64| {
        (0..dimensions)
            .try_fold(1_u64, |power, _| power.checked_mul(root).filter(|&power| power <= u64::from(entries)))
    };
    let mut root = (f64::from(entries).powf(1.0 / f64::from(dimensions))) as u64 + 1;
    while root > 0 && fits(root).is_none() {
        root -= 1;
    }
    root
}

/// Numbers that a setup's codebooks are unpacked to (Vorbis I, 3.2.1); `None` when it is damaged.
fn codebook_numbers(setup: &[u8]) -> Option<u64> {
    let mut bits = Bits { bytes: setup.get(7..)?, at: 0 };
    let mut numbers = 0_u64;
    for _ in 0..=bits.take(8)? {
        if bits.take(24)? != 0x56_4342 {
            return None;
        }
        let (dimensions, entries) = (bits.take(16)?, bits.take(24)?);
        numbers += u64::from(entries) * (1 + u64::from(dimensions));
        // Without dimensions there is no limit to what is looked up.
        if dimensions == 0 || numbers > CODEBOOK_NUMBERS_MAX {
            return Some(u64::MAX);
        }
        if bits.take(1)? == 1 {
            bits.skip(5)?;
            let mut entry = 0;
            while entry < entries {
                entry += bits.take(32 - (entries - entry).leading_zeros())?;
            }
        } else if bits.take(1)? == 1 {
            for _ in 0..entries {
                if bits.take(1)? == 1 {
                    bits.skip(5)?;
                }
            }
        } else {
            bits.skip(5 * u64::from(entries))?;
        }
        let kind = bits.take(4)?;
        if kind == 0 {
            continue;
        }
        bits.skip(64)?;
        let value_bits = u64::from(bits.take(4)? + 1);
        bits.skip(1)?;
        let values = match kind {
            1 => lookup_values(entries, dimensions),
            _ => u64::from(entries) * u64::from(dimensions),
        };
        bits.skip(values * value_bits)?;
    }
    Some(numbers)
}

fn identified(first: &[u8]) -> Result<IdentHeader> {
    let other = [("OpusHead", "Opus"), ("\x7fFLAC", "FLAC in Ogg"), ("Speex   ", "Speex")];
    if let Some((_, name)) = other.iter().find(|(magic, _)| first.starts_with(magic.as_bytes())) {
        return Err(unsupported(format!("{name} is not decoded; of Ogg, Vorbis is")));
    }
    read_header_ident(first).map_err(|e| match first.get(1..7) {
        Some(b"vorbis") => damaged(format!("damaged Vorbis: {e}")),
        _ => unsupported("Ogg that holds something unknown is not decoded; of Ogg, Vorbis is"),
    })
}

/// By the number of packets that sound is in and the longest block, or what the last page says, whichever is less.
pub(super) fn size(bytes: &[u8]) -> Option<Size> {
    let first = Packets::new(bytes).next().ok()??;
    let ident = identified(&first.bytes).ok()?;
    let (mut packets, mut last, mut rest) = (0, 0, bytes);
    let serial = Page::of(bytes)?.serial;
    while let Some(page) = Page::of(rest) {
        rest = &rest[page.len()..];
        if page.serial == serial {
            packets += page.packets();
            last = page.granule.max(last);
        }
    }
    let of_blocks = packets.saturating_mul(1 << ident.blocksize_1 >> 1);
    Some(Size { frames: of_blocks.min(last as u64), channels: usize::from(ident.audio_channels) })
}

pub(super) fn decode(audio: &Audio, bytes: &[u8]) -> Result<Array> {
    let mut packets = Packets::new(bytes);
    let mut head = || -> Result<Packet> {
        packets.next()?.ok_or_else(|| damaged("damaged Vorbis: it ends within its heads"))
    };
    let ident = identified(&head()?.bytes)?;
    let channels = checked_channels(usize::from(ident.audio_channels))?;
    head()?;
    let setup = head()?.bytes;
    match codebook_numbers(&setup) {
        None => return Err(damaged("damaged Vorbis: its setup was cut")),
        Some(0..=CODEBOOK_NUMBERS_MAX) => {}
        Some(_) => {
            return Err(unsupported(format!(
                "its codebooks have more than {CODEBOOK_NUMBERS_MAX} numbers, which no encoder makes"
            )));
        }
    }
    let setup = read_header_setup(&setup, ident.audio_channels, (ident.blocksize_0, ident.blocksize_1))
        .map_err(|e| damaged(format!("damaged Vorbis: {e}")))?;
    let expected = size(bytes).map_or(0, |size| size.frames);
    let mut cut = Cut::new(audio, ident.audio_sample_rate, channels, expected);
    let mut before = PreviousWindowRight::new();
    // Packets up to the first granule position: only then it is known where they begin.
    let mut waiting: Vec<Vec<Vec<f32>>> = Vec::new();
    // Where the next frame is; none: not known yet.
    let mut position: Option<i64> = None;
    loop {
        let Some(packet) = packets.next()? else {
            // The last page is an empty one.
            return match position {
                Some(_) => Ok(cut.finish()),
                None => Err(damaged("damaged Vorbis: no page says where it is")),
            };
        };
        if !packet.bytes.is_empty() {
            let block: Vec<Vec<f32>> = read_audio_packet_generic(&ident, &setup, &packet.bytes, &mut before)
                .map_err(|e| damaged(format!("damaged Vorbis: {e}")))?;
            waiting.push(block);
        }
        let granule = packet.granule;
        if granule.is_some_and(|granule| granule < 0) {
            return Err(damaged("damaged Vorbis: a page does not say where it is"));
        }
        let frames: i64 = waiting.iter().map(|block| block[0].len() as i64).sum();
        let start = match (position, granule) {
            (Some(start), _) => start,
            // Also the last page: then the sound begins at 0, and ends there.
            (None, Some(_)) if packet.is_last => 0,
            (None, Some(granule)) => granule - frames,
            (None, None) => {
                audio.check_frames(frames as u64)?;
                continue;
            }
        };
        let end = if packet.is_last { granule.unwrap_or(i64::MAX) } else { i64::MAX };
        let mut at = start;
        for block in waiting.drain(..) {
            let length = block[0].len() as i64;
            let from = at.min(0).saturating_neg().min(length) as usize;
            let to = end.saturating_sub(at).clamp(0, length) as usize;
            if from < to {
                cut.floats(to - from, |frame, channel| block[channel][from + frame])?;
            }
            at += length;
        }
        position = Some(at);
        if cut.seen() > expected {
            return Err(damaged("damaged Vorbis: it has more frames than its pages say"));
        }
        if packet.is_last || cut.is_done() {
            return Ok(cut.finish());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_are_as_the_specification_defines_them() {
        for (entries, dimensions, root) in
            [(81, 4, 3), (80, 4, 2), (6561, 4, 9), (256, 1, 256), (1, 7, 1), (0, 2, 0), (16_777_215, 2, 4095)]
        {
            assert_eq!(lookup_values(entries, dimensions), root, "{entries} {dimensions}");
        }
    }

    /// A setup whose only codebook claims this.
    fn setup(entries: u32, dimensions: u32) -> Vec<u8> {
        let mut bits = Vec::new();
        let mut put = |value: u32, count: u32| bits.extend((0..count).map(|bit| value >> bit & 1));
        put(0, 8);
        put(0x56_4342, 24);
        put(dimensions, 16);
        put(entries, 24);
        // All of one length, in a few bits.
        put(1, 1);
        put(23, 5);
        put(entries, 32 - entries.leading_zeros());
        put(1, 4);
        put(0, 32);
        put(0, 32);
        put(15, 4);
        put(0, 1);
        let packed = bits.chunks(8).map(|byte| byte.iter().rev().fold(0, |all, bit| all << 1 | *bit as u8));
        b"\x05vorbis".iter().copied().chain(packed).chain([0; 64]).collect()
    }

    #[test]
    fn codebooks_that_would_fill_memory_are_seen_before() {
        assert_eq!(codebook_numbers(&setup(100, 4)), Some(500));
        assert_eq!(codebook_numbers(&setup(0xff_ffff, 65_535)), Some(u64::MAX));
        assert_eq!(codebook_numbers(&setup(100, 0)), Some(u64::MAX));
        assert_eq!(codebook_numbers(&setup(100, 4)[..20]), None);
        assert_eq!(codebook_numbers(b"\x05vor"), None);
    }
}
