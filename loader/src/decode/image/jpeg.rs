//! JPEG, by the crate `zune-jpeg`: baseline and progressive, 8 bits, Huffman.
//!
//! JPEG has no checksum. What is cut is found by its missing end: a decoder fills up with grey, and a training would learn that.

use granary_core::Result;
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::{Image, Mode, Pixels};
use crate::decode::array::Array;
use crate::decode::{damaged, unsupported};

/// JPEG's own bound on a side.
const SIDE_PIXELS_MAX: usize = 65535;

/// What a frame's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub width: usize,
    pub height: usize,
    pub components: usize,
}

/// One after the other: a marker (`FF` and a number), its bytes, and with a scan what is coded behind them.
///
/// | number | what | bytes |
/// |---|---|---|
/// | `01`, `D0` to `D8` | no content | |
/// | `D9` | the end | |
/// | `C0` to `CF` but `C4`, `C8`, `CC` | a frame | length (2), bits (1), height (2), width (2), components (1), ... |
/// | `DA` | a scan | length (2), ...; then coded bytes, in which `FF` is followed by `00` or `D0` to `D7` |
/// | others | | length (2), which counts itself, ... |
struct Markers<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Markers<'a> {
    /// Number and content.
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        loop {
            let found = self.bytes.get(self.at..)?.iter().position(|&byte| byte == 0xff)?;
            self.at += found + 1;
            let number = *self.bytes.get(self.at)?;
            match number {
                // Coded bytes, and fill.
                0x00 | 0xd0..=0xd7 => {}
                0xff => continue,
                0x01 | 0xd8 | 0xd9 => {
                    self.at += 1;
                    return Some((number, &[]));
                }
                _ => {
                    let length = self.bytes.get(self.at + 1..self.at + 3)?;
                    let length = usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
                    let content = self.bytes.get(self.at + 3..self.at + 1 + length)?;
                    self.at += 1 + length;
                    return Some((number, content));
                }
            }
            self.at += 1;
        }
    }
}

pub(super) fn size(bytes: &[u8]) -> Option<Size> {
    let is_frame = |number: &u8| matches!(number, 0xc0..=0xcf) && !matches!(number, 0xc4 | 0xc8 | 0xcc);
    let (_, frame) = Markers { bytes, at: 0 }.find(|(number, _)| is_frame(number))?;
    let two = |at: usize| Some(usize::from(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?])));
    Some(Size { height: two(1)?, width: two(3)?, components: usize::from(*frame.get(5)?) })
}

/// Whether the end is there.
fn is_whole(bytes: &[u8]) -> bool {
    Markers { bytes, at: 0 }.any(|(number, _)| number == 0xd9)
}

fn error(e: DecodeErrors) -> granary_core::Error {
    match e {
        DecodeErrors::Unsupported(what) => {
            unsupported(format!("JPEG of a kind that is not decoded: {what:?}"))
        }
        e => damaged(format!("damaged JPEG: {e:?}")),
    }
}

pub(super) fn decode(image: &Image, bytes: &[u8]) -> Result<Array> {
    if let Some(size) = size(bytes) {
        image.check_size(size.width, size.height)?;
    }
    if !is_whole(bytes) {
        return Err(damaged("damaged JPEG: it has no end, so it was cut"));
    }
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(SIDE_PIXELS_MAX)
        .set_max_height(SIDE_PIXELS_MAX);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(error)?;
    let (Some((width, height)), Some(stored)) = (decoder.dimensions(), decoder.input_colorspace()) else {
        return Err(damaged("damaged JPEG: it has no frame"));
    };
    // Again: of several frames another may be meant.
    image.check_size(width, height)?;
    let is_gray = stored == ColorSpace::Luma || (image.mode == Mode::Gray8 && stored == ColorSpace::YCbCr);
    let (space, channels) = if is_gray { (ColorSpace::Luma, 1) } else { (ColorSpace::RGB, 3) };
    decoder.set_options(options.jpeg_set_out_colorspace(space));
    let numbers = decoder.decode().map_err(error)?;
    if numbers.len() != width * height * channels {
        return Err(damaged(format!(
            "damaged JPEG: {} bytes came of {width} x {height} pixels",
            numbers.len()
        )));
    }
    let exif = decoder.exif().cloned();
    image.finished(Pixels { width, height, channels, numbers }, exif.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_found_and_coded_bytes_are_not() {
        let bytes = [
            &[0xff, 0xd8][..],
            // A segment that holds an end, as a thumbnail does.
            &[0xff, 0xe1, 0, 4, 0xff, 0xd9],
            &[0xff, 0xff, 0xc2, 0, 9, 8, 1, 2, 3, 4, 3, 0],
            &[0xff, 0xda, 0, 2, 7, 0xff, 0, 0xff, 0xd3, 9],
        ]
        .concat();
        assert_eq!(size(&bytes), Some(Size { width: 0x304, height: 0x102, components: 3 }));
        assert!(!is_whole(&bytes));
        assert!(is_whole(&[&bytes[..], &[0xff, 0xd9]].concat()));
        for length in 0..bytes.len() {
            let size = size(&bytes[..length]);
            assert!(size.is_none() || length > 17, "{length}");
        }
    }
}
