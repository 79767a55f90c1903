//! Another size, by the crate `fast_image_resize`: what [`Image::size`] and [`Image::shorter_side`] say.
//!
//! | size | shorter side | what comes |
//! |---|---|---|
//! | | | the image as it is |
//! | h, w | | all of it in h x w, whatever its proportions |
//! | | s | its shorter side is s long, and its proportions stay: the longer is long * s / short, rounded down |
//! | h, w | s | as with s alone, and of that the middle h x w: as torchvision's `Resize(s)` and `CenterCrop((h, w))` |
//!
//! Filters are widened when an image becomes smaller, as Pillow does it (torchvision calls that `antialias`), and colours are weighed by
//! their alpha. Only what is left of the middle is computed. Sides are those of the image with its up side up.

use fast_image_resize::images::{Image as Plane, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use granary_core::{Error, Kind, Result};
use serde::{Deserialize, Serialize};

use super::Image;
use super::pixels::Pixels;

/// A side of what comes: as long as a JPEG's.
pub(super) const SIDE_PIXELS_MAX: u32 = 65535;

/// How pixels between pixels are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    /// The nearest one as it is: for numbers that stand for something, such as the classes of a mask.
    Nearest,
    #[default]
    Bilinear,
    Bicubic,
    Lanczos,
}

/// What an image of a size becomes: `width` x `height`, of this box in it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Target {
    pub width: usize,
    pub height: usize,
    across: Stretch,
    down: Stretch,
}

/// A part of a side.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Stretch {
    start: f64,
    length: f64,
}

impl Filter {
    fn algorithm(self) -> ResizeAlg {
        match self {
            Filter::Nearest => ResizeAlg::Nearest,
            Filter::Bilinear => ResizeAlg::Convolution(FilterType::Bilinear),
            Filter::Bicubic => ResizeAlg::Convolution(FilterType::CatmullRom),
            Filter::Lanczos => ResizeAlg::Convolution(FilterType::Lanczos3),
        }
    }
}

/// The middle `wanted` pixels of a side that is `full` long and would become `scaled`.
fn middle(full: usize, scaled: usize, wanted: usize) -> Stretch {
    let one = full as f64 / scaled as f64;
    let start = ((scaled - wanted) as f64 / 2.0).round_ties_even() * one;
    let mut length = wanted as f64 * one;
    if start + length > full as f64 {
        // By what was rounded.
        length = (full as f64 - start).next_down();
    }
    Stretch { start, length }
}

impl Image {
    /// Errors: `Invalid` names the setting and its bounds.
    pub(super) fn check_sides(&self) -> Result<()> {
        let invalid = |why| Err(Error::new(Kind::Invalid, why));
        let sides = self.size.into_iter().flatten().chain(self.shorter_side);
        if let Some(side) = sides.into_iter().find(|side| !(1..=SIDE_PIXELS_MAX).contains(side)) {
            return invalid(format!(
                "a side of {side} pixels cannot be; size and shorter_side are 1 to {SIDE_PIXELS_MAX}"
            ));
        }
        if let (Some([height, width]), Some(shorter)) = (self.size, self.shorter_side)
            && height.max(width) > shorter
        {
            return invalid(format!(
                "size is {height} x {width} and shorter_side {shorter}: the middle of an image is no larger than it; make shorter_side {} \
                 or more, or leave it out",
                height.max(width)
            ));
        }
        if self.size.is_some_and(|[height, width]| u64::from(height) * u64::from(width) > self.pixels_max) {
            return invalid(format!("size has more pixels than pixels_max, which is {}", self.pixels_max));
        }
        Ok(())
    }

    /// What an image of this size becomes; of one that has its up side elsewhere, with the sides changed. `None`: it stays, as one without pixels
    /// does, which only a damaged head tells of.
    pub(super) fn target(&self, width: usize, height: usize) -> Option<Target> {
        if width == 0 || height == 0 {
            return None;
        }
        let (scaled_width, scaled_height) = match (self.shorter_side, self.size) {
            (None, None) => return None,
            (None, Some([height, width])) => (width as usize, height as usize),
            (Some(side), _) => {
                let (side, short) = (side as usize, width.min(height));
                // The shorter one exactly.
                let scaled = |length: usize| length.saturating_mul(side) / short;
                (scaled(width), scaled(height))
            }
        };
        let (wanted_width, wanted_height) = match self.size {
            Some([height, width]) => (width as usize, height as usize),
            None => (scaled_width, scaled_height),
        };
        if (scaled_width, scaled_height) == (width, height)
            && (wanted_width, wanted_height) == (width, height)
        {
            return None;
        }
        Some(Target {
            width: wanted_width,
            height: wanted_height,
            across: middle(width, scaled_width, wanted_width),
            down: middle(height, scaled_height, wanted_height),
        })
    }
}

fn resize(from: &ImageRef<'_>, kind: PixelType, to: &Target, filter: Filter) -> Result<Plane<'static>> {
    let mut out = Plane::new(to.width as u32, to.height as u32, kind);
    let Target { across, down, .. } = to;
    let options = ResizeOptions::new().resize_alg(filter.algorithm()).crop(
        across.start,
        down.start,
        across.length,
        down.length,
    );
    Resizer::new().resize(from, &mut out, &options).map_err(bug)?;
    Ok(out)
}

fn bug(e: impl std::fmt::Display) -> Error {
    Error::new(Kind::Bug, format!("an image cannot be resized: {e}"))
}

/// Of 1 to 4 channels.
fn kind(channels: usize, of: [PixelType; 4]) -> Result<PixelType> {
    of.get(channels.wrapping_sub(1)).copied().ok_or_else(|| bug(format!("it has {channels} channels")))
}

impl Pixels<u8> {
    pub fn resized(self, to: &Target, filter: Filter) -> Result<Pixels<u8>> {
        let kind = kind(self.channels, [PixelType::U8, PixelType::U8x2, PixelType::U8x3, PixelType::U8x4])?;
        let from = ImageRef::new(self.width as u32, self.height as u32, &self.numbers, kind).map_err(bug)?;
        let numbers = resize(&from, kind, to, filter)?.into_vec();
        Ok(Pixels { width: to.width, height: to.height, channels: self.channels, numbers })
    }
}

impl Pixels<u16> {
    pub fn resized(self, to: &Target, filter: Filter) -> Result<Pixels<u16>> {
        let kind =
            kind(self.channels, [PixelType::U16, PixelType::U16x2, PixelType::U16x3, PixelType::U16x4])?;
        // The crate's own memory, for its alignment.
        let mut from = Plane::new(self.width as u32, self.height as u32, kind);
        for (bytes, number) in from.buffer_mut().chunks_exact_mut(2).zip(&self.numbers) {
            bytes.copy_from_slice(&number.to_ne_bytes());
        }
        let (width, height) = (from.width(), from.height());
        let from = ImageRef::new(width, height, from.buffer(), kind).map_err(bug)?;
        let out = resize(&from, kind, to, filter)?;
        let numbers = out.buffer().chunks_exact(2).map(|two| u16::from_ne_bytes([two[0], two[1]])).collect();
        Ok(Pixels { width: to.width, height: to.height, channels: self.channels, numbers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::permutation::key;

    fn sides(
        size: Option<[u32; 2]>,
        shorter_side: Option<u32>,
        width: usize,
        height: usize,
    ) -> (usize, usize) {
        let image = Image { size, shorter_side, ..Image::default() };
        image.check().unwrap();
        image.target(width, height).map_or((width, height), |to| (to.width, to.height))
    }

    #[test]
    fn sides_are_those_that_torchvision_gives() {
        assert_eq!(sides(None, None, 500, 375), (500, 375));
        assert_eq!(sides(Some([224, 160]), None, 500, 375), (160, 224));
        // int(256 * 500 / 375) and int(256 * 500 / 333).
        assert_eq!(sides(None, Some(256), 500, 375), (341, 256));
        assert_eq!(sides(None, Some(256), 333, 500), (256, 384));
        assert_eq!(sides(Some([224, 200]), Some(256), 333, 500), (200, 224));
        assert_eq!(sides(None, Some(8), 1, 1), (8, 8));
        let of = |size, shorter_side| Image { size, shorter_side, ..Image::default() };
        assert_eq!(of(None, Some(375)).target(500, 375), None);
        // Found by chance: a head without a size.
        assert_eq!(of(Some([8, 8]), Some(8)).target(0, 0), None);
        assert_eq!(of(Some([8, 8]), Some(8)).target(0, 9), None);
        assert_eq!(of(Some([375, 500]), None).target(500, 375), None);
        // CenterCrop takes the rest away on both sides: round((341 - 224) / 2) is 58, a half goes to the even one.
        let to = of(Some([224, 224]), Some(256)).target(500, 375).unwrap();
        assert_eq!((to.across.start, to.down.start), (58.0 * 500.0 / 341.0, 16.0 * 375.0 / 256.0));
    }

    #[test]
    fn a_box_is_never_beyond_its_image() {
        let seed = 20_261_127;
        println!("seed {seed}");
        for round in 0..20_000 {
            let draw = |what, most: u64| 1 + (key(&[seed, round, what]) % most) as usize;
            let (full, scaled) = (draw(0, 70_000), draw(1, 70_000));
            let wanted = draw(2, scaled as u64);
            let part = middle(full, scaled, wanted);
            assert!(part.start >= 0.0 && part.length > 0.0, "{round}: {full} {scaled} {wanted}");
            assert!(part.start + part.length <= full as f64, "{round}: {full} {scaled} {wanted}");
        }
    }

    #[test]
    fn settings_that_cannot_be_are_named() {
        for (size, shorter_side, said) in [
            (Some([0, 5]), None, "a side of 0 pixels"),
            (None, Some(65536), "a side of 65536 pixels"),
            (Some([224, 224]), Some(223), "make shorter_side 224 or more"),
            (Some([60_000, 60_000]), None, "more pixels than pixels_max"),
        ] {
            let e = Image { size, shorter_side, ..Image::default() }.check().unwrap_err();
            assert!(e.kind() == Kind::Invalid && e.to_string().contains(said), "{e}");
        }
    }

    #[test]
    fn numbers_are_the_means_of_what_they_stand_for() {
        let to = |image: Image, pixels: Pixels<u8>| {
            let target = image.target(pixels.width, pixels.height).unwrap();
            pixels.resized(&target, image.filter).unwrap()
        };
        let gray = |width: usize, numbers: &[u8]| Pixels {
            width,
            height: numbers.len() / width,
            channels: 1,
            numbers: numbers.to_vec(),
        };
        let flat = |image: Image| to(image, gray(6, &[77; 24])).numbers;
        for filter in [Filter::Nearest, Filter::Bilinear, Filter::Bicubic, Filter::Lanczos] {
            let image = Image { size: Some([3, 9]), filter, ..Image::default() };
            assert_eq!(flat(image), [77; 27], "{filter:?}");
        }
        // A triangle two pixels wide to each side, from the middle of two: weights 1, 3, 3, 1 of 8; at an edge 3, 3, 1 of 7.
        let half = Image { size: Some([1, 2]), ..Image::default() };
        let found = to(half.clone(), gray(4, &[0, 0, 0, 240]));
        assert_eq!((found.width, &found.numbers[..]), (2, &[0, 103][..]));
        // The nearest ones are whole: of four the second and the fourth.
        let nearest = Image { filter: Filter::Nearest, ..half };
        assert_eq!(to(nearest, gray(4, &[1, 2, 3, 4])).numbers, [2, 4]);
        // What cannot be seen has no colour.
        let pixels = Pixels { width: 2, height: 1, channels: 4, numbers: vec![200, 0, 0, 255, 0, 90, 0, 0] };
        let one = Image { size: Some([1, 1]), ..Image::default() };
        let found = to(one, pixels).numbers;
        assert!(
            found[0].abs_diff(200) <= 1 && found[1..3] == [0, 0] && found[3].abs_diff(128) <= 1,
            "{found:?}"
        );
    }

    #[test]
    fn the_middle_is_that_of_the_whole() {
        let numbers: Vec<u8> = (0..40 * 30).map(|n| (n * 7 % 251) as u8).collect();
        let pixels = Pixels { width: 40, height: 30, channels: 1, numbers };
        let whole = Image { shorter_side: Some(20), ..Image::default() };
        let whole = pixels.clone().resized(&whole.target(40, 30).unwrap(), Filter::Bilinear).unwrap();
        assert_eq!((whole.width, whole.height), (26, 20));
        let part = Image { shorter_side: Some(20), size: Some([12, 10]), ..Image::default() };
        let part = pixels.resized(&part.target(40, 30).unwrap(), Filter::Bilinear).unwrap();
        for row in 0..12 {
            let of_whole = &whole.numbers[(row + 4) * 26 + 8..][..10];
            let off = part.numbers[row * 10..][..10].iter().zip(of_whole).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(off <= Some(1), "row {row}: {off:?}");
        }
    }

    #[test]
    fn sixteen_bits_stay_sixteen() {
        let pixels = Pixels {
            width: 2,
            height: 2,
            channels: 2,
            numbers: vec![1000_u16, 65535, 3000, 65535, 1000, 65535, 3000, 65535],
        };
        let image = Image { size: Some([1, 1]), ..Image::default() };
        let found = pixels.resized(&image.target(2, 2).unwrap(), Filter::Bilinear).unwrap();
        assert!(found.numbers[0].abs_diff(2000) <= 1 && found.numbers[1] == 65535, "{found:?}");
    }
}
