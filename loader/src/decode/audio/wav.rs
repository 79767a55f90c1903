//! WAV: chunks of a name, a length and so many bytes, little-endian, each at an even place (IBM and Microsoft 1991; EBU Tech 3306 for `RF64`).
//!
//! | bytes | what |
//! |---|---|
//! | 4, 4, 4 | `RIFF` (`RF64`, `BW64`: lengths that are all ones are in a chunk `ds64`), length of the rest, `WAVE` |
//! | chunk `ds64` | 8: length of the rest, 8: length of `data`, ... |
//! | chunk `fmt ` | 2: format, 2: channels, 4: frames a second, 4: bytes a second, 2: bytes a frame, 2: bits; of format `FFFE` 2: length of what follows, 2: bits that count, 4: loudspeakers, 16: GUID, which begins with the format |
//! | chunk `data` | frame after frame |

use granary_core::Result;

use super::{Audio, Cut, Size, checked_channels};
use crate::decode::array::Array;
use crate::decode::{damaged, unsupported};

const EXTENSIBLE: u16 = 0xfffe;
/// Lengths from here on are what programs write that do not know it, since they write to a pipe: then the file ends where the sound does.
const UNKNOWN_BYTES_MIN: u64 = 0x7fff_0000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    /// Of 8 bits unsigned, else signed.
    Pcm,
    Float,
    ALaw,
    MuLaw,
}

struct Wav<'a> {
    coding: Coding,
    sample_rate: u32,
    channels: usize,
    number_bytes: usize,
    data: &'a [u8],
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn longer(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

impl<'a> Wav<'a> {
    fn of(bytes: &'a [u8]) -> Result<Wav<'a>> {
        let cut = || damaged("damaged WAV: it was cut");
        let (mut at, mut format, mut data_bytes) = (12, None, None);
        loop {
            let name = bytes.get(at..at + 4).ok_or_else(cut)?;
            let length = u64::from(long(bytes, at + 4).ok_or_else(cut)?);
            at += 8;
            let rest = &bytes[at..];
            if name == b"data" {
                let (coding, channels, sample_rate, number_bytes) =
                    format.ok_or_else(|| damaged("damaged WAV: its sound comes before its format"))?;
                let length = match data_bytes {
                    Some(known) if length == u64::from(u32::MAX) => known,
                    None if length >= UNKNOWN_BYTES_MIN => rest.len() as u64,
                    _ => length,
                };
                if length > rest.len() as u64 {
                    return Err(damaged(format!(
                        "damaged WAV: it says that it has {length} bytes of sound, and has {}",
                        rest.len()
                    )));
                }
                let data = &rest[..length as usize];
                return Ok(Wav { coding, sample_rate, channels, number_bytes, data });
            }
            let content = rest.get(..length as usize).ok_or_else(cut)?;
            match name {
                b"fmt " => format = Some(format_of(content)?),
                b"ds64" => data_bytes = longer(content, 8),
                _ => {}
            }
            at += length as usize + (length % 2) as usize;
        }
    }

    fn frames(&self) -> usize {
        self.data.len() / (self.number_bytes * self.channels)
    }
}

fn format_of(fmt: &[u8]) -> Result<(Coding, usize, u32, usize)> {
    let cut = || damaged("damaged WAV: its format was cut");
    let (stored, channels) = (short(fmt, 0).ok_or_else(cut)?, short(fmt, 2).ok_or_else(cut)?);
    let (sample_rate, bits) = (long(fmt, 4).ok_or_else(cut)?, short(fmt, 14).ok_or_else(cut)?);
    let format = if stored == EXTENSIBLE { short(fmt, 24).ok_or_else(cut)? } else { stored };
    let (coding, number_bytes) = match (format, bits) {
        (1, 8 | 16 | 24 | 32) => (Coding::Pcm, bits / 8),
        (3, 32 | 64) => (Coding::Float, bits / 8),
        (6, 8) => (Coding::ALaw, 1),
        (7, 8) => (Coding::MuLaw, 1),
        _ => {
            return Err(unsupported(format!(
                "WAV of format {format} with {bits} bits is not decoded; PCM, float, A-law and mu-law are"
            )));
        }
    };
    Ok((coding, checked_channels(usize::from(channels))?, sample_rate, usize::from(number_bytes)))
}

/// ITU-T G.711, to 16 bits.
fn of_a_law(byte: u8) -> i32 {
    let byte = byte ^ 0x55;
    let (steps, segment) = (i32::from(byte & 0x0f) << 4, (byte >> 4) & 7);
    let level = match segment {
        0 => steps + 8,
        _ => (steps + 0x108) << (segment - 1),
    };
    if byte & 0x80 != 0 { level } else { -level }
}

/// As [`of_a_law`].
fn of_mu_law(byte: u8) -> i32 {
    let byte = !byte;
    let level = ((i32::from(byte & 0x0f) << 3) + 0x84) << ((byte >> 4) & 7);
    if byte & 0x80 != 0 { 0x84 - level } else { level - 0x84 }
}

pub(super) fn size(bytes: &[u8]) -> Option<Size> {
    let wav = Wav::of(bytes).ok()?;
    Some(Size { frames: wav.frames() as u64, channels: wav.channels })
}

pub(super) fn decode(audio: &Audio, bytes: &[u8]) -> Result<Array> {
    let wav = Wav::of(bytes)?;
    let (frames, channels, width) = (wav.frames(), wav.channels, wav.number_bytes);
    audio.check_frames(audio.given(frames as u64))?;
    // Only the piece that is wanted: what is before and behind it is not even touched.
    let start = audio.start.min(frames as u64) as usize;
    let frames = audio.given(frames as u64) as usize;
    let piece = Audio { start: 0, frames: None, ..audio.clone() };
    let data = &wav.data[start * channels * width..][..frames * channels * width];
    let mut cut = Cut::new(&piece, wav.sample_rate, channels, frames as u64);
    let number = |frame: usize, channel: usize| &data[(frame * channels + channel) * width..][..width];
    match (wav.coding, width) {
        (Coding::Pcm, 1) => cut.integers(frames, 8, |f, c| i32::from(number(f, c)[0]) - 128)?,
        (Coding::Pcm, 2) => cut.integers(frames, 16, |f, c| {
            let at = number(f, c);
            i32::from(i16::from_le_bytes([at[0], at[1]]))
        })?,
        (Coding::Pcm, 3) => cut.integers(frames, 24, |f, c| {
            let at = number(f, c);
            i32::from_le_bytes([0, at[0], at[1], at[2]]) >> 8
        })?,
        (Coding::Pcm, _) => cut.integers(frames, 32, |f, c| {
            let at = number(f, c);
            i32::from_le_bytes([at[0], at[1], at[2], at[3]])
        })?,
        (Coding::Float, 4) => cut.floats(frames, |f, c| {
            let at = number(f, c);
            f32::from_le_bytes([at[0], at[1], at[2], at[3]])
        })?,
        (Coding::Float, _) => cut.floats(frames, |f, c| {
            let at = number(f, c);
            f64::from_le_bytes([at[0], at[1], at[2], at[3], at[4], at[5], at[6], at[7]]) as f32
        })?,
        (Coding::ALaw, _) => cut.integers(frames, 16, |f, c| of_a_law(number(f, c)[0]))?,
        (Coding::MuLaw, _) => cut.integers(frames, 16, |f, c| of_mu_law(number(f, c)[0]))?,
    }
    Ok(cut.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::array::Numbers;
    use crate::decode::audio::Depth;

    /// A WAV of this format.
    fn made(format: u16, channels: u16, bits: u16, data: &[u8]) -> Vec<u8> {
        let mut out = b"RIFF\0\0\0\0WAVE".to_vec();
        // One that is to be passed by, of odd length.
        out.extend(b"LIST\x03\0\0\0abc\0");
        out.extend(b"fmt \x10\0\0\0");
        for number in [format, channels] {
            out.extend(number.to_le_bytes());
        }
        out.extend(16000_u32.to_le_bytes());
        out.extend([0; 6]);
        out.extend(bits.to_le_bytes());
        out.extend(b"data");
        out.extend((data.len() as u32).to_le_bytes());
        out.extend(data);
        out
    }

    fn as_i16(bytes: &[u8]) -> Vec<i16> {
        match decode(&Audio { depth: Depth::I16, ..Audio::default() }, bytes).unwrap().numbers {
            Numbers::I16(all) => all,
            other => panic!("{other:?}"),
        }
    }

    fn as_f32(bytes: &[u8]) -> Vec<f32> {
        match decode(&Audio::default(), bytes).unwrap().numbers {
            Numbers::F32(all) => all,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn integers_and_floats_of_all_widths() {
        assert_eq!(as_i16(&made(1, 1, 8, &[0, 128, 255])), [-32768, 0, 32512]);
        assert_eq!(as_f32(&made(1, 1, 8, &[0, 128, 192])), [-1.0, 0.0, 0.5]);
        let shorts: Vec<u8> = [-32768_i16, -1, 0, 32767].into_iter().flat_map(i16::to_le_bytes).collect();
        assert_eq!(as_i16(&made(1, 2, 16, &shorts)), [-32768, -1, 0, 32767]);
        assert_eq!(as_f32(&made(1, 2, 16, &shorts)), [-1.0, -1.0 / 32768.0, 0.0, 32767.0 / 32768.0]);
        assert_eq!(as_f32(&made(1, 1, 24, &[0, 0, 0x80, 1, 0, 0])), [-1.0, 1.0 / 8_388_608.0]);
        assert_eq!(as_i16(&made(1, 1, 24, &[0xff, 0x12, 0x34])), [0x3412]);
        assert_eq!(as_f32(&made(1, 1, 32, &[0, 0, 0, 0x40])), [0.5]);
        assert_eq!(as_f32(&made(3, 1, 32, &1.5_f32.to_le_bytes())), [1.5]);
        assert_eq!(as_f32(&made(3, 1, 64, &(-0.25_f64).to_le_bytes())), [-0.25]);
        assert_eq!(as_i16(&made(3, 1, 32, &1.5_f32.to_le_bytes())), [32767]);
    }

    #[test]
    fn telephone_laws_are_as_g_711_says() {
        // The outermost levels and the smallest of each sign (G.711, tables 1 and 2, times 8 and 4).
        assert_eq!(as_i16(&made(7, 1, 8, &[0x80, 0x00, 0xff, 0x7f, 0xfe])), [32124, -32124, 0, 0, 8]);
        assert_eq!(as_i16(&made(6, 1, 8, &[0xaa, 0x2a, 0xd5, 0x55])), [32256, -32256, 8, -8]);
        // Each byte is its own level, and more of a level is more.
        let mut levels: Vec<i32> = (0..=255).map(of_a_law).collect();
        levels.sort_unstable();
        levels.dedup();
        assert_eq!(levels.len(), 256);
    }

    #[test]
    fn lengths_that_are_not_known_or_long() {
        let mut piped = made(1, 1, 8, &[1, 2, 3]);
        let at = piped.len() - 7;
        for length in [u32::MAX, 0x7fff_0000] {
            piped[at..at + 4].copy_from_slice(&length.to_le_bytes());
            assert_eq!(as_i16(&piped).len(), 3);
        }
        let mut long = piped;
        long[at..at + 4].fill(0xff);
        let mut ds64 = b"ds64".to_vec();
        ds64.extend(28_u32.to_le_bytes());
        for number in [0_u64, 2, 2] {
            ds64.extend(number.to_le_bytes());
        }
        ds64.extend([0; 4]);
        long.splice(12..12, ds64);
        long[..4].copy_from_slice(b"RF64");
        assert_eq!(as_i16(&long).len(), 2);
    }

    #[test]
    fn extensible_says_the_format_in_its_guid() {
        let mut out = made(1, 1, 16, &[0, 0x40]);
        let fmt = out.windows(4).position(|name| name == b"fmt ").unwrap();
        out[fmt + 4] = 40;
        out[fmt + 8..fmt + 10].copy_from_slice(&EXTENSIBLE.to_le_bytes());
        let mut more = vec![22, 0, 16, 0, 0, 0, 0, 0, 1, 0];
        more.extend([0; 14]);
        out.splice(fmt + 24..fmt + 24, more);
        assert_eq!(as_i16(&out), [16384]);
    }

    #[test]
    fn what_is_cut_or_strange_is_told() {
        let whole = made(1, 2, 16, &[0; 40]);
        for length in 12..whole.len() {
            let e = decode(&Audio::default(), &whole[..length]).unwrap_err();
            assert_eq!(e.kind(), granary_core::Kind::Corrupt, "{length}: {e}");
            assert!(size(&whole[..length]).is_none());
        }
        for (format, channels, bits, said) in
            [(2, 1, 4, "format 2 with 4 bits"), (1, 0, 16, "no channel"), (1, 65, 16, "65 channels")]
        {
            let e = decode(&Audio::default(), &made(format, channels, bits, &[0; 8])).unwrap_err();
            assert!(e.to_string().contains(said), "{e}");
        }
        // A part of a frame at the end is none.
        assert_eq!(as_i16(&made(1, 2, 16, &[0; 11])).len(), 4);
    }
}
