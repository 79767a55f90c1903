//! Images: height x width x channels, rows from the top.
//!
//! | mode | numbers | channels |
//! |---|---|---|
//! | `unchanged` | uint8; uint16 of a PNG of 16 bits | as stored: 1 grey, 2 grey and alpha, 3 red, green, blue, 4 with alpha |
//! | `gray8` | uint8 | 1: of a JPEG its Y; else (19595 R + 38470 G + 7471 B) / 65536, rounded, as ITU-R 601 weighs them |
//! | `rgb8` | uint8 | 3 |
//! | `rgba8` | uint8 | 4; alpha is 255 where there is none |
//!
//! Alpha that is not asked for is left out, not blended. A palette becomes colours, 1, 2 and 4 bits become 8, of 16 bits the upper 8 are taken where
//! 8 are asked for. CMYK and YCCK JPEGs are given as red, green, blue, always: four channels would pass for alpha. Colour profiles are not applied. Of
//! an animated PNG the picture is given that others show. Exif's orientation is applied, unless it is not wanted. Last, an image gets the size that is
//! wanted (`resize`): so a batch of photographs has one shape.

mod jpeg;
mod orient;
mod pixels;
mod png;
mod resize;

use granary_core::{Error, Kind, Result};
use serde::{Deserialize, Serialize};

use super::array::{Array, Numbers};
use pixels::Pixels;
pub use resize::Filter;

/// What an image becomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    #[default]
    Unchanged,
    Gray8,
    Rgb8,
    Rgba8,
}

impl Mode {
    pub const NAMES: [&str; 4] = ["unchanged", "gray8", "rgb8", "rgba8"];

    /// None: as stored.
    fn channels(self) -> Option<usize> {
        match self {
            Mode::Unchanged => None,
            Mode::Gray8 => Some(1),
            Mode::Rgb8 => Some(3),
            Mode::Rgba8 => Some(4),
        }
    }
}

impl std::str::FromStr for Mode {
    type Err = ();

    fn from_str(name: &str) -> Result<Mode, ()> {
        let all = [Mode::Unchanged, Mode::Gray8, Mode::Rgb8, Mode::Rgba8];
        let at = Mode::NAMES.iter().position(|known| *known == name).ok_or(())?;
        Ok(all[at])
    }
}

/// How an image is decoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Image {
    pub mode: Mode,
    /// Turned and mirrored as its Exif data say, so that up is up.
    pub orient: bool,
    /// Height and width of what comes; with `shorter_side` the middle of it.
    pub size: Option<[u32; 2]>,
    /// The shorter side becomes so long, and proportions stay.
    pub shorter_side: Option<u32>,
    pub filter: Filter,
    /// An image that has more, or would have after it was resized, is an error, before memory is taken for it.
    pub pixels_max: u64,
}

impl Default for Image {
    fn default() -> Image {
        // 268 MB of 8-bit RGB: where Pillow begins to warn of bombs.
        Image {
            mode: Mode::Unchanged,
            orient: true,
            size: None,
            shorter_side: None,
            filter: Filter::Bilinear,
            pixels_max: 89_478_485,
        }
    }
}

impl Image {
    /// Errors: `Invalid` names the setting and its bounds.
    pub fn check(&self) -> Result<()> {
        match self.pixels_max {
            1..=0x1_0000_0000 => self.check_sides(),
            other => {
                Err(Error::new(Kind::Invalid, format!("pixels_max is {other}; it must be 1 to 4294967296")))
            }
        }
    }

    /// Errors: `FileTooLarge`.
    fn check_size(&self, width: usize, height: usize) -> Result<()> {
        self.check_pixels("it says it is", width, height)?;
        let Some(to) = self.target(width, height) else { return Ok(()) };
        // One direction is resized after the other, and which one first is not ours to say.
        for (width, height) in [(to.width, to.height), (to.width, height), (width, to.height)] {
            self.check_pixels("on its way to another size it is", width, height)?;
        }
        Ok(())
    }

    fn check_pixels(&self, what: &str, width: usize, height: usize) -> Result<()> {
        let pixels = (width as u64).saturating_mul(height as u64);
        if pixels <= self.pixels_max {
            return Ok(());
        }
        Err(Error::new(
            Kind::FileTooLarge,
            format!(
                "{what} {width} x {height} pixels, and pixels_max is {}; give more if that is right, or leave the file out",
                self.pixels_max
            ),
        ))
    }

    /// What a decoded image has at most; `None` when it is over the limit.
    fn bytes(&self, width: usize, height: usize, stored: usize, number_bytes: usize) -> Option<u64> {
        self.check_size(width, height).ok()?;
        // Turned, it has as many.
        let (width, height) = self.target(width, height).map_or((width, height), |to| (to.width, to.height));
        let pixel = match self.mode.channels() {
            None => stored * number_bytes,
            Some(channels) => channels,
        };
        Some(width as u64 * height as u64 * pixel as u64)
    }

    /// The last step: channels, which way is up, and size.
    fn finished(&self, mut pixels: Pixels<u8>, exif: Option<&[u8]>) -> Result<Array> {
        if let Some(channels) = self.mode.channels() {
            pixels = pixels.with_channels(channels);
        }
        pixels = self.oriented(pixels, exif);
        if let Some(to) = self.target(pixels.width, pixels.height) {
            pixels = pixels.resized(&to, self.filter)?;
        }
        Ok(Array { shape: pixels.shape(), numbers: Numbers::U8(pixels.numbers), sample_rate: None })
    }

    /// The same of 16 bits, whose channels stay.
    fn finished_deep(&self, pixels: Pixels<u16>, exif: Option<&[u8]>) -> Result<Array> {
        let mut pixels = self.oriented(pixels, exif);
        if let Some(to) = self.target(pixels.width, pixels.height) {
            pixels = pixels.resized(&to, self.filter)?;
        }
        Ok(Array { shape: pixels.shape(), numbers: Numbers::U16(pixels.numbers), sample_rate: None })
    }

    fn oriented<T: Copy>(&self, pixels: Pixels<T>, exif: Option<&[u8]>) -> Pixels<T> {
        match exif.filter(|_| self.orient).and_then(orient::orientation) {
            Some(orientation) => pixels.oriented(orientation),
            None => pixels,
        }
    }
}

/// Bytes of the array that it becomes, at most; `None` of one that becomes none.
pub(super) fn jpeg_bytes(image: &Image, bytes: &[u8]) -> Option<u64> {
    let size = jpeg::size(bytes)?;
    image.bytes(size.width, size.height, if size.components == 1 { 1 } else { 3 }, 1)
}

/// As [`jpeg_bytes`].
pub(super) fn png_bytes(image: &Image, bytes: &[u8]) -> Option<u64> {
    let size = png::size(bytes)?;
    image.bytes(size.width, size.height, size.channels_max, size.number_bytes)
}

/// Errors: `Corrupt`, `Unsupported`, `FileTooLarge`.
pub(super) fn jpeg(image: &Image, bytes: &[u8]) -> Result<Array> {
    jpeg::decode(image, bytes)
}

/// Errors: as [`jpeg`].
pub(super) fn png(image: &Image, bytes: &[u8]) -> Result<Array> {
    png::decode(image, bytes)
}
