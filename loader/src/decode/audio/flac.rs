//! FLAC (RFC 9639): what is before its frames is read here, frames by the crate `claxon`.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `fLaC` |
//! | block: 1, 3 | highest bit: the last one; kind, 0 for the first; length, big-endian |
//! | of the first: 2, 2, 3, 3 | least and most frames of a block, bytes of one |
//! | 8 | in 64 bits: 20 frames a second, 3 channels less one, 5 bits less one, 36 frames, 0 when not known |
//! | 16 | MD5 of the numbers, not looked at: each block has a checksum of its own |

use std::io::Cursor;

use claxon::frame::FrameReader;
use granary_core::Result;

use super::{Audio, Cut, Size};
use crate::decode::array::Array;
use crate::decode::{damaged, unsupported};

struct Head {
    sample_rate: u32,
    channels: usize,
    bits: u32,
    /// None: not known.
    frames: Option<u64>,
    /// Where blocks begin.
    blocks: usize,
}

fn head(bytes: &[u8]) -> Option<Head> {
    let packed = u64::from_be_bytes(bytes.get(18..26)?.try_into().ok()?);
    if bytes.get(4)? & 0x7f != 0 {
        return None;
    }
    let mut at = 4;
    loop {
        let (kind, length) = (*bytes.get(at)?, bytes.get(at + 1..at + 4)?);
        at += 4 + u32::from_be_bytes([0, length[0], length[1], length[2]]) as usize;
        if kind & 0x80 != 0 {
            break;
        }
    }
    Some(Head {
        sample_rate: (packed >> 44) as u32,
        channels: (packed >> 41 & 7) as usize + 1,
        bits: (packed >> 36 & 31) as u32 + 1,
        frames: Some(packed & 0xf_ffff_ffff).filter(|&frames| frames > 0),
        blocks: at,
    })
}

pub(super) fn size(bytes: &[u8]) -> Option<Size> {
    let head = head(bytes)?;
    Some(Size { frames: head.frames.unwrap_or(u64::MAX), channels: head.channels })
}

fn error(e: claxon::Error) -> granary_core::Error {
    match e {
        claxon::Error::Unsupported(what) => {
            unsupported(format!("FLAC of a kind that is not decoded: {what}"))
        }
        e => damaged(format!("damaged FLAC: {e}")),
    }
}

pub(super) fn decode(audio: &Audio, bytes: &[u8]) -> Result<Array> {
    let head = head(bytes).ok_or_else(|| damaged("damaged FLAC: its head was cut"))?;
    let blocks = bytes.get(head.blocks..).ok_or_else(|| damaged("damaged FLAC: its head was cut"))?;
    if let Some(frames) = head.frames {
        audio.check_frames(audio.given(frames))?;
    }
    if !matches!(head.bits, 8 | 12 | 16 | 20 | 24) {
        return Err(unsupported(format!(
            "FLAC of {} bits is not decoded; 8, 12, 16, 20 and 24 are",
            head.bits
        )));
    }
    // Not more than the bytes could have: a block of 65,535 frames has 10 or more.
    let expected = head.frames.unwrap_or(0).min(blocks.len() as u64 / 10 * 65_535);
    let mut cut = Cut::new(audio, head.sample_rate, head.channels, expected);
    let mut reader = FrameReader::new(Cursor::new(blocks));
    let mut buffer = Vec::new();
    while let Some(block) = reader.read_next_or_eof(buffer).map_err(error)? {
        if block.channels() as usize != head.channels {
            return Err(damaged("damaged FLAC: a block has another number of channels"));
        }
        let frames = block.duration() as usize;
        if head.frames.is_some_and(|all| cut.seen() + frames as u64 > all) {
            return Err(damaged("damaged FLAC: it has more frames than it says"));
        }
        let channels: Vec<&[i32]> = (0..block.channels()).map(|channel| block.channel(channel)).collect();
        cut.integers(frames, head.bits, |frame, channel| channels[channel][frame])?;
        if cut.is_done() {
            return Ok(cut.finish());
        }
        buffer = block.into_buffer();
    }
    match head.frames {
        Some(all) if cut.seen() != all => Err(damaged(format!(
            "damaged FLAC: it says that it has {all} frames, and has {}; it was cut",
            cut.seen()
        ))),
        _ => Ok(cut.finish()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::array::Numbers;
    use crate::decode::audio::Depth;

    /// A check of `width` bits with this polynomial, as FLAC has two.
    fn check(bytes: &[u8], width: u32, polynomial: u32) -> u32 {
        let mut crc = 0;
        for &byte in bytes {
            crc ^= u32::from(byte) << (width - 8);
            for _ in 0..8 {
                crc = if crc >> (width - 1) & 1 == 1 { crc << 1 ^ polynomial } else { crc << 1 };
            }
        }
        crc & ((1 << width) - 1)
    }

    /// FLAC of 16 bits: a block of up to 256 frames has each channel's numbers as they are. `claimed`: frames that its head says.
    fn made(channels: &[Vec<i16>], claimed: u64) -> Vec<u8> {
        let mut out = b"fLaC\0\0\0\x22\x10\0\x10\0\0\0\0\0\0\0".to_vec();
        out.extend((16_000_u64 << 44 | (channels.len() as u64 - 1) << 41 | 15 << 36 | claimed).to_be_bytes());
        out.extend([0; 16]);
        // Padding, last.
        out.extend(b"\x81\0\0\x03abc");
        let frames = channels[0].len();
        for (number, start) in (0..frames).step_by(256).enumerate() {
            let end = (start + 256).min(frames);
            let mut block = vec![0xff, 0xf8, 0x65, (channels.len() as u8 - 1) << 4 | 8, number as u8];
            block.push((end - start - 1) as u8);
            block.push(check(&block, 8, 0x07) as u8);
            for channel in channels {
                block.push(0b10);
                block.extend(channel[start..end].iter().flat_map(|number| number.to_be_bytes()));
            }
            block.extend((check(&block, 16, 0x8005) as u16).to_be_bytes());
            out.extend(block);
        }
        out
    }

    fn sound() -> Vec<Vec<i16>> {
        let channel = |of: i32| (0..700).map(|at| (at * 97 * of - 20_000) as i16).collect();
        vec![channel(1), channel(-2)]
    }

    #[test]
    fn numbers_come_as_they_were() {
        let sound = sound();
        for claimed in [700, 0] {
            let audio = Audio { depth: Depth::I16, channels_first: true, ..Audio::default() };
            let array = decode(&audio, &made(&sound, claimed)).unwrap();
            assert_eq!((array.shape, array.sample_rate), (vec![2, 700], Some(16_000)));
            assert_eq!(array.numbers, Numbers::I16(sound.concat()));
        }
        let piece = Audio { depth: Depth::I16, start: 250, frames: Some(20), ..Audio::default() };
        let expected: Vec<i16> = (250..270).flat_map(|at| [sound[0][at], sound[1][at]]).collect();
        assert_eq!(decode(&piece, &made(&sound, 700)).unwrap().numbers, Numbers::I16(expected));
    }

    #[test]
    fn what_is_cut_or_changed_is_told() {
        let whole = made(&sound(), 700);
        let first_block = whole.len() - 3 * 11 - 4 * 700;
        for length in (4..whole.len()).step_by(7).chain([whole.len() - 1]) {
            assert!(decode(&Audio::default(), &whole[..length]).is_err(), "{length}");
        }
        for at in (first_block..whole.len()).step_by(41) {
            let mut changed = whole.clone();
            changed[at] ^= 0x10;
            assert!(decode(&Audio::default(), &changed).is_err(), "{at}");
        }
        let more = decode(&Audio::default(), &made(&sound(), 699)).unwrap_err();
        assert!(more.to_string().contains("more frames than it says"), "{more}");
        let bomb = decode(&Audio::default(), &made(&sound(), 1 << 35)).unwrap_err();
        assert!(bomb.to_string().contains("frames_max is 67108864"), "{bomb}");
    }
}
