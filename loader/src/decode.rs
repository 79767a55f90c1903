//! Files as numbers: images and sound, decoded by the loader's threads.
//!
//! ```text
//! sample (bytes, verified) -> way of each file, by its extension -> format, by its first bytes -> decoder -> array (shape, numbers)
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | `way` | which files are decoded, and to what |
//! | `array` | what comes of a file |
//! | `image` | JPEG and PNG to height x width x channels |
//! | `audio` | WAV, FLAC and Ogg Vorbis to frames x channels |
//!
//! An extension says *whether* a file is decoded; what it *is* its first bytes say, so a PNG that is called `.jpg` is no error.
//!
//! **What holds**
//!
//! * A file that is damaged, cut or of another kind is an error that names it, and its sample is treated as `on_error` says. What a decoder
//!   panics about is such an error too: training data comes from anywhere, and decoders have bugs.
//! * Nothing is allocated for what a header merely claims: its size is compared with `pixels_max` and `frames_max` before.
//! * [`Decode::bytes`] is known from headers, before anything is decoded, and is never less than what comes: the loader counts it in
//!   `decoded_bytes_max`. What a decoder needs while it works is not in it: of a progressive JPEG 6 bytes a pixel, for each thread; nor is an image
//!   before it is resized.
//! * Lossless formats give what was stored, bit by bit.
//!
//! Decoders are written in Rust: zune-jpeg, png, claxon (FLAC) and lewton (Vorbis); WAV and Ogg are read here. Images are resized by
//! fast_image_resize. Opus has no decoder in Rust yet that is old enough to be relied on, so it is refused by name.

mod array;
mod audio;
mod image;
mod way;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use granary_core::{Error, Kind, Result};

use crate::sample::Sample;

pub use array::{Array, Numbers};
pub use audio::{Audio, Depth};
pub use image::{Filter, Image, Mode};
pub use way::{Decode, Way};

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Jpeg,
    Png,
    Wav,
    Flac,
    Ogg,
}

impl Format {
    fn of(bytes: &[u8]) -> Option<Format> {
        let wave = matches!(bytes.get(..4), Some(b"RIFF" | b"RF64" | b"BW64"));
        match bytes {
            [0xff, 0xd8, 0xff, ..] => Some(Format::Jpeg),
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some(Format::Png),
            [b'f', b'L', b'a', b'C', ..] => Some(Format::Flac),
            [b'O', b'g', b'g', b'S', ..] => Some(Format::Ogg),
            _ if wave && bytes.get(8..12) == Some(b"WAVE") => Some(Format::Wav),
            _ => None,
        }
    }

    fn is_image(self) -> bool {
        matches!(self, Format::Jpeg | Format::Png)
    }
}

/// An error of a file's content.
fn damaged(why: impl std::fmt::Display) -> Error {
    Error::new(Kind::Corrupt, format!("{why}"))
}

fn unsupported(why: impl std::fmt::Display) -> Error {
    Error::new(Kind::Unsupported, format!("{why}"))
}

impl Way {
    /// Bytes of the array that a file becomes, at most, as its head tells; 0 of one that becomes none.
    pub fn bytes(&self, bytes: &[u8]) -> u64 {
        let known = |format| match format {
            Format::Jpeg => image::jpeg_bytes(self.image.as_ref()?, bytes),
            Format::Png => image::png_bytes(self.image.as_ref()?, bytes),
            Format::Wav | Format::Flac | Format::Ogg => audio::bytes(self.audio.as_ref()?, format, bytes),
        };
        Format::of(bytes).and_then(known).unwrap_or(0)
    }

    /// A file as an array.
    ///
    /// Errors: `Corrupt`, `Unsupported`; `FileTooLarge` for what is over a limit; `Invalid` for an image where sound is asked for, and the other
    /// way round.
    pub fn array(&self, bytes: &[u8]) -> Result<Array> {
        let Some(format) = Format::of(bytes) else {
            let start = bytes[..bytes.len().min(8)].escape_ascii();
            return Err(unsupported(format!(
                "it is no JPEG, PNG, WAV, FLAC or Ogg file; it begins with \"{start}\""
            )));
        };
        let other = |is: &str| {
            Err(Error::new(
                Kind::Invalid,
                format!("it is {is} in {format:?}, and its extension is decoded as another thing"),
            ))
        };
        guarded(format, || match (format, &self.image, &self.audio) {
            (Format::Jpeg, Some(image), _) => image::jpeg(image, bytes),
            (Format::Png, Some(image), _) => image::png(image, bytes),
            (format, _, Some(audio)) if !format.is_image() => audio::decode(audio, format, bytes),
            (format, ..) => other(if format.is_image() { "an image" } else { "sound" }),
        })
    }
}

/// What a decoder panics about is an error of the file.
fn guarded<T>(format: Format, decode: impl FnOnce() -> Result<T>) -> Result<T> {
    // Nothing of it is looked at afterwards.
    let decoded = catch_unwind(AssertUnwindSafe(decode));
    decoded.unwrap_or_else(|_| Err(damaged(format!("the decoder of {format:?} panicked about it"))))
}

impl Decode {
    /// Bytes of the arrays of a sample's files, at most, as their headers tell. Nothing is decoded.
    pub fn bytes(&self, sample: &Sample) -> u64 {
        let of = |at: usize| {
            let member = sample.member(at).ok()?;
            Some(self.way(member.extension)?.bytes(member.bytes))
        };
        (0..sample.len()).filter_map(of).fold(0, u64::saturating_add)
    }

    /// The sample with its files decoded that are to be.
    ///
    /// Errors: `Corrupt`, `Unsupported`, `FileTooLarge` and `Invalid` name the shard, the file and what is wrong.
    pub fn sample(&self, mut sample: Sample) -> Result<Sample> {
        let mut arrays = Vec::with_capacity(sample.len());
        for at in 0..sample.len() {
            let member = sample.member(at)?;
            let array = match self.way(member.extension) {
                None => None,
                Some(way) => Some(way.array(member.bytes).map_err(|e| {
                    let path = String::from_utf8_lossy(member.path);
                    e.context(format!("{}: {path:?} cannot be decoded", sample.shard.name))
                })?),
            };
            arrays.push(array);
        }
        sample.arrays = Some(arrays.into());
        Ok(sample)
    }

    /// Many samples, in their order, by so many threads.
    ///
    /// Errors: as [`Decode::sample`], of the first that has one.
    pub fn samples(&self, samples: Vec<Sample>, threads: usize) -> Result<Vec<Sample>> {
        let threads = threads.min(samples.len());
        if threads <= 1 {
            return samples.into_iter().map(|sample| self.sample(sample)).collect();
        }
        // Each is locked once, by whoever takes its number.
        let slots: Vec<Mutex<Option<Result<Sample>>>> =
            samples.into_iter().map(|sample| Mutex::new(Some(Ok(sample)))).collect();
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(slot) = slots.get(next.fetch_add(1, Ordering::Relaxed)) {
                let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
                *slot = slot.take().map(|sample| sample.and_then(|sample| self.sample(sample)));
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(work);
            }
            work();
        });
        let gone = || Err(Error::new(Kind::Bug, "a sample was lost while it was decoded"));
        let done = slots.into_iter().map(|slot| slot.into_inner().unwrap_or_else(PoisonError::into_inner));
        done.map(|sample| sample.unwrap_or_else(gone)).collect()
    }
}

#[cfg(test)]
mod tests;
