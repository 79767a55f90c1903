//! Sound: frames x channels, a frame being one number of each channel.
//!
//! | depth | numbers |
//! |---|---|
//! | `f32` | float32; integers are divided by half their range, so that full scale is -1 to 1; floats are as stored and may be beyond |
//! | `i16` | int16; 16 bits are as stored, fewer are shifted up, of more the upper 16 are taken; floats are multiplied by 32768, rounded, and clipped |
//!
//! | format | what of it |
//! |---|---|
//! | WAV, RF64 | PCM of 8, 16, 24 and 32 bits, float of 32 and 64, A-law and mu-law, also as extensible |
//! | FLAC | 8, 12, 16, 20 and 24 bits; each block's checksum is compared, and the number of frames |
//! | Ogg | Vorbis; each page's checksum is compared, and that none is missing |
//!
//! Channels are in the file's order. `start` and `frames` cut a piece out; where the sound ends before, less comes, or nothing. Of WAV only that piece
//! is read. The others are decoded from their beginning, and what is behind the piece is not looked at.

mod cut;
mod flac;
mod ogg;
mod vorbis;
mod wav;

use granary_core::{Error, Kind, Result};
use serde::{Deserialize, Serialize};

use super::array::Array;
use super::{Format, unsupported};
use cut::Cut;

/// Channels of a file, at most: WAV and Vorbis could claim more, for nothing that is sound.
const CHANNELS_MAX: usize = 64;

/// What a sound's numbers become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Depth {
    #[default]
    F32,
    I16,
}

impl Depth {
    pub const NAMES: [&str; 2] = ["f32", "i16"];

    fn bytes(self) -> u64 {
        match self {
            Depth::F32 => 4,
            Depth::I16 => 2,
        }
    }
}

impl std::str::FromStr for Depth {
    type Err = ();

    fn from_str(name: &str) -> Result<Depth, ()> {
        match name {
            "f32" => Ok(Depth::F32),
            "i16" => Ok(Depth::I16),
            _ => Err(()),
        }
    }
}

/// How sound is decoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Audio {
    pub depth: Depth,
    /// One channel, the mean of all.
    pub mono: bool,
    /// Channels x frames.
    pub channels_first: bool,
    /// Frames that are left out, from the beginning.
    pub start: u64,
    /// Frames behind them that are given; none: to the end.
    pub frames: Option<u64>,
    /// Sound of which more would be given is an error, before memory is taken for it.
    pub frames_max: u64,
}

impl Default for Audio {
    fn default() -> Audio {
        // 67 million: 25 minutes at 44.1 kHz, 70 at 16 kHz; 537 MB of float32 in stereo.
        Audio {
            depth: Depth::F32,
            mono: false,
            channels_first: false,
            start: 0,
            frames: None,
            frames_max: 1 << 26,
        }
    }
}

impl Audio {
    /// Errors: `Invalid` names the setting and its bounds.
    pub fn check(&self) -> Result<()> {
        match self.frames_max {
            1..=0x1_0000_0000 => Ok(()),
            other => {
                Err(Error::new(Kind::Invalid, format!("frames_max is {other}; it must be 1 to 4294967296")))
            }
        }
    }

    /// Frames that are given of so many.
    fn given(&self, all: u64) -> u64 {
        all.saturating_sub(self.start).min(self.frames.unwrap_or(u64::MAX))
    }

    fn channels(&self, stored: usize) -> usize {
        if self.mono { 1 } else { stored }
    }

    /// Errors: `FileTooLarge`.
    fn check_frames(&self, frames: u64) -> Result<()> {
        if frames <= self.frames_max {
            return Ok(());
        }
        Err(Error::new(
            Kind::FileTooLarge,
            format!(
                "it has {frames} frames or more, and frames_max is {}; give more if that is right, cut with start and frames, or leave the \
                 file out",
                self.frames_max
            ),
        ))
    }
}

/// Errors: `Unsupported`, `Corrupt`.
fn checked_channels(channels: usize) -> Result<usize> {
    match channels {
        0 => Err(super::damaged("it has no channel")),
        1..=CHANNELS_MAX => Ok(channels),
        more => Err(unsupported(format!("it has {more} channels; {CHANNELS_MAX} are the most"))),
    }
}

/// Frames at most, and channels, as headers say.
struct Size {
    frames: u64,
    channels: usize,
}

/// Bytes of the array that it becomes, at most; `None` of one that becomes none.
pub(super) fn bytes(audio: &Audio, format: Format, bytes: &[u8]) -> Option<u64> {
    let size = match format {
        Format::Wav => wav::size(bytes)?,
        Format::Flac => flac::size(bytes)?,
        Format::Ogg => vorbis::size(bytes)?,
        Format::Jpeg | Format::Png => return None,
    };
    let frames = audio.given(size.frames).min(audio.frames_max);
    Some(frames * audio.channels(size.channels) as u64 * audio.depth.bytes())
}

/// Errors: `Corrupt`, `Unsupported`, `FileTooLarge`.
pub(super) fn decode(audio: &Audio, format: Format, bytes: &[u8]) -> Result<Array> {
    match format {
        Format::Wav => wav::decode(audio, bytes),
        Format::Flac => flac::decode(audio, bytes),
        Format::Ogg => vorbis::decode(audio, bytes),
        Format::Jpeg | Format::Png => Err(unsupported("it is no sound")),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An Ogg file of one packet.
    pub fn ogg_page(packet: &[u8]) -> Vec<u8> {
        ogg::tests::page(6, 0, 0, &[packet.len() as u8], packet)
    }

    #[test]
    fn more_channels_than_sound_has_are_refused() {
        assert_eq!(checked_channels(64).unwrap(), 64);
        assert!(checked_channels(0).is_err() && checked_channels(65).is_err());
    }
}
