//! What of a sound is kept, as it comes: a piece of it, in the numbers and channels that are asked for.

use granary_core::Result;

use super::super::array::{Array, Numbers, transposed};
use super::{Audio, Depth};

#[derive(Debug)]
pub(super) struct Cut<'a> {
    audio: &'a Audio,
    sample_rate: u32,
    /// As they come.
    channels: usize,
    /// Frames that came.
    seen: u64,
    kept: Kept,
}

/// Frame after frame.
#[derive(Debug)]
enum Kept {
    F32(Vec<f32>),
    I16(Vec<i16>),
}

/// A float at full scale 1 as one of 16 bits.
fn short(value: f32) -> i16 {
    // `as` clips, and makes 0 of what is no number.
    (value * 32768.0).round_ties_even() as i16
}

impl<'a> Cut<'a> {
    /// `frames`: that are expected, all together, and no more than memory is there for.
    pub fn new(audio: &'a Audio, sample_rate: u32, channels: usize, frames: u64) -> Cut<'a> {
        let room = audio.given(frames).min(audio.frames_max) as usize * audio.channels(channels);
        let kept = match audio.depth {
            Depth::F32 => Kept::F32(Vec::with_capacity(room)),
            Depth::I16 => Kept::I16(Vec::with_capacity(room)),
        };
        Cut { audio, sample_rate, channels, seen: 0, kept }
    }

    /// Whether no frame behind those that came is wanted.
    pub fn is_done(&self) -> bool {
        self.audio.frames.is_some_and(|frames| self.seen >= self.audio.start.saturating_add(frames))
    }

    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Of the next `frames`, those that are kept.
    ///
    /// Errors: `FileTooLarge`.
    fn next(&mut self, frames: usize) -> Result<std::ops::Range<usize>> {
        let within = |at: u64| at.saturating_sub(self.seen).min(frames as u64) as usize;
        let end = self.audio.start.saturating_add(self.audio.frames.unwrap_or(u64::MAX));
        let range = within(self.audio.start)..within(end);
        self.seen += frames as u64;
        let kept = match &self.kept {
            Kept::F32(all) => all.len(),
            Kept::I16(all) => all.len(),
        } / self.audio.channels(self.channels);
        self.audio.check_frames((kept + range.len()) as u64)?;
        Ok(range)
    }

    /// Integers of so many bits: `value` of frame and channel.
    ///
    /// Errors: `FileTooLarge`.
    pub fn integers(&mut self, frames: usize, bits: u32, value: impl Fn(usize, usize) -> i32) -> Result<()> {
        let (range, channels, mono) = (self.next(frames)?, self.channels, self.audio.mono);
        match &mut self.kept {
            Kept::F32(all) => {
                let scale = 1.0 / (1_u64 << (bits - 1)) as f32;
                floats(all, range, channels, mono, |frame, channel| value(frame, channel) as f32 * scale);
            }
            Kept::I16(all) => {
                let bounds = (i32::from(i16::MIN), i32::from(i16::MAX));
                let fit = |wide: i32| wide.clamp(bounds.0, bounds.1) as i16;
                shorts(all, range, channels, mono, |frame, channel| match bits {
                    16.. => fit(value(frame, channel) >> (bits - 16)),
                    _ => fit(value(frame, channel) << (16 - bits)),
                });
            }
        }
        Ok(())
    }

    /// Floats at full scale 1.
    ///
    /// Errors: `FileTooLarge`.
    pub fn floats(&mut self, frames: usize, value: impl Fn(usize, usize) -> f32) -> Result<()> {
        let (range, channels, mono) = (self.next(frames)?, self.channels, self.audio.mono);
        match &mut self.kept {
            Kept::F32(all) => floats(all, range, channels, mono, value),
            Kept::I16(all) => {
                // The mean before it is rounded.
                let mut wide = Vec::new();
                floats(&mut wide, range, channels, mono, value);
                all.extend(wide.into_iter().map(short));
            }
        }
        Ok(())
    }

    pub fn finish(self) -> Array {
        let channels = self.audio.channels(self.channels);
        let (frames, numbers) = match self.kept {
            Kept::F32(all) => (all.len() / channels, Numbers::F32(all)),
            Kept::I16(all) => (all.len() / channels, Numbers::I16(all)),
        };
        let sample_rate = Some(self.sample_rate);
        if !self.audio.channels_first {
            return Array { numbers, shape: vec![frames, channels], sample_rate };
        }
        let numbers = match numbers {
            // One row is one column.
            numbers if channels == 1 => numbers,
            Numbers::F32(all) => Numbers::F32(transposed(&all, frames, channels)),
            Numbers::I16(all) => Numbers::I16(transposed(&all, frames, channels)),
            other => other,
        };
        Array { numbers, shape: vec![channels, frames], sample_rate }
    }
}

fn floats(
    all: &mut Vec<f32>,
    range: std::ops::Range<usize>,
    channels: usize,
    mono: bool,
    value: impl Fn(usize, usize) -> f32,
) {
    for frame in range {
        let of = (0..channels).map(|channel| value(frame, channel));
        if mono && channels > 1 {
            all.push(of.sum::<f32>() / channels as f32);
        } else {
            all.extend(of);
        }
    }
}

fn shorts(
    all: &mut Vec<i16>,
    range: std::ops::Range<usize>,
    channels: usize,
    mono: bool,
    value: impl Fn(usize, usize) -> i16,
) {
    for frame in range {
        let of = (0..channels).map(|channel| value(frame, channel));
        if mono && channels > 1 {
            let sum: i32 = of.map(i32::from).sum();
            all.push((sum as f32 / channels as f32).round_ties_even() as i16);
        } else {
            all.extend(of);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(audio: &Audio) -> Array {
        let mut cut = Cut::new(audio, 8000, 2, 10);
        // Frames 0 to 9, in three parts; a frame's channels are its number and that and 100.
        for (from, frames) in [(0, 4), (4, 1), (5, 5)] {
            let value = |frame: usize, channel: usize| (from + frame + 100 * channel) as i32;
            cut.integers(frames, 16, value).unwrap();
        }
        assert_eq!(cut.seen(), 10);
        cut.finish()
    }

    fn i16s(audio: Audio) -> (Vec<usize>, Vec<i16>) {
        match cut(&Audio { depth: Depth::I16, ..audio }) {
            Array { shape, numbers: Numbers::I16(numbers), sample_rate: Some(8000) } => (shape, numbers),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_piece_is_cut_out_across_parts() {
        let piece = Audio { start: 3, frames: Some(3), ..Audio::default() };
        assert_eq!(i16s(piece.clone()), (vec![3, 2], vec![3, 103, 4, 104, 5, 105]));
        let turned = Audio { channels_first: true, ..piece.clone() };
        assert_eq!(i16s(turned), (vec![2, 3], vec![3, 4, 5, 103, 104, 105]));
        let mono = Audio { mono: true, ..piece };
        assert_eq!(i16s(mono.clone()), (vec![3, 1], vec![53, 54, 55]));
        assert_eq!(i16s(Audio { channels_first: true, ..mono }), (vec![1, 3], vec![53, 54, 55]));
        assert_eq!(i16s(Audio { start: 8, ..Audio::default() }), (vec![2, 2], vec![8, 108, 9, 109]));
        assert_eq!(i16s(Audio { start: 10, ..Audio::default() }), (vec![0, 2], vec![]));
        assert_eq!(i16s(Audio { start: u64::MAX, frames: Some(5), ..Audio::default() }).0, [0, 2]);
        assert_eq!(i16s(Audio::default()).0, [10, 2]);
    }

    #[test]
    fn more_than_is_allowed_is_an_error_while_it_comes() {
        let audio = Audio { frames_max: 5, ..Audio::default() };
        let mut cut = Cut::new(&audio, 8000, 1, 1 << 40);
        cut.floats(5, |_, _| 0.0).unwrap();
        let e = cut.floats(1, |_, _| 0.0).unwrap_err();
        assert!(e.to_string().contains("6 frames or more, and frames_max is 5"), "{e}");
    }

    #[test]
    fn numbers_become_others_by_their_full_scale() {
        let of = |depth, bits, value: i32| {
            let audio = Audio { depth, ..Audio::default() };
            let mut cut = Cut::new(&audio, 1, 1, 1);
            cut.integers(1, bits, |_, _| value).unwrap();
            cut.finish().numbers
        };
        for bits in [8, 12, 16, 20, 24, 32] {
            let low = (-1_i64 << (bits - 1)) as i32;
            assert_eq!(of(Depth::F32, bits, low), Numbers::F32(vec![-1.0]));
            assert_eq!(of(Depth::I16, bits, low), Numbers::I16(vec![i16::MIN]));
            assert_eq!(of(Depth::F32, bits, low / 2), Numbers::F32(vec![-0.5]));
            assert_eq!(of(Depth::I16, bits, low / 2), Numbers::I16(vec![-16384]));
        }
        let audio = Audio { depth: Depth::I16, ..Audio::default() };
        let mut cut = Cut::new(&audio, 1, 1, 6);
        let values = [0.5, -1.0, 1.0, 7.0, -7.0, f32::NAN];
        cut.floats(6, |frame, _| values[frame]).unwrap();
        assert_eq!(cut.finish().numbers, Numbers::I16(vec![16384, -32768, 32767, 32767, -32768, 0]));
    }
}
