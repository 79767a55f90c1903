//! PNG, by the crate `png`. What it checks: chunks' CRC-32, zlib's Adler-32, that all rows are there.

use std::io::Cursor;

use granary_core::Result;
use png::{BitDepth, ColorType, Decoder, DecodingError, Limits, Transformations};

use super::{Image, Mode, Pixels};
use crate::decode::array::Array;
use crate::decode::{damaged, unsupported};

/// Memory besides the image's own: rows, and chunks such as Exif data.
const SIDE_BYTES_MAX: usize = 64 << 20;

/// What the first chunk, IHDR, says.
pub(super) struct Size {
    pub width: usize,
    pub height: usize,
    /// With the alpha that another chunk may add.
    pub channels_max: usize,
    pub number_bytes: usize,
}

/// | bytes | what |
/// |---|---|
/// | 8 | signature |
/// | 4, 4 | 13, `IHDR` |
/// | 4, 4 | width, height, big-endian |
/// | 1, 1 | bits of a number; type: 1 palette, 2 colour, 4 alpha, added up |
pub(super) fn size(bytes: &[u8]) -> Option<Size> {
    let number = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize);
    let (bits, kind) = (*bytes.get(24)?, *bytes.get(25)?);
    (bytes.get(12..16)? == b"IHDR").then_some(())?;
    Some(Size {
        width: number(16)?,
        height: number(20)?,
        channels_max: if kind & 2 != 0 { 4 } else { 2 },
        number_bytes: if bits == 16 { 2 } else { 1 },
    })
}

fn error(e: DecodingError) -> granary_core::Error {
    match e {
        DecodingError::LimitsExceeded => {
            unsupported(format!("its chunks beside the image need more than {SIDE_BYTES_MAX} bytes"))
        }
        e => damaged(format!("damaged PNG: {e}")),
    }
}

pub(super) fn decode(image: &Image, bytes: &[u8]) -> Result<Array> {
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), Limits { bytes: SIDE_BYTES_MAX });
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let strip =
        if image.mode == Mode::Unchanged { Transformations::IDENTITY } else { Transformations::STRIP_16 };
    decoder.set_transformations(Transformations::EXPAND | strip);
    // Before anything else is read: what follows is allocated by these numbers.
    let (width, height) = decoder.read_header_info().map_err(error)?.size();
    let (width, height) = (width as usize, height as usize);
    image.check_size(width, height)?;
    let mut reader = decoder.read_info().map_err(error)?;
    let bytes = reader.output_buffer_size().ok_or_else(|| damaged("its rows are longer than memory"))?;
    let mut numbers = vec![0_u8; bytes];
    let frame = reader.next_frame(&mut numbers).map_err(error)?;
    // The first picture of an animation may be smaller than it, but then it is not the one that others show.
    if (frame.width as usize, frame.height as usize) != (width, height) {
        return Err(damaged("damaged PNG: its picture is smaller than it says"));
    }
    let exif = reader.info().exif_metadata.clone();
    let channels = match frame.color_type {
        ColorType::Grayscale | ColorType::Indexed => 1,
        ColorType::GrayscaleAlpha => 2,
        ColorType::Rgb => 3,
        ColorType::Rgba => 4,
    };
    if frame.bit_depth != BitDepth::Sixteen {
        return image.finished(Pixels { width, height, channels, numbers }, exif.as_deref());
    }
    let pairs = numbers.chunks_exact(2);
    let numbers: Vec<u16> = pairs.map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
    image.finished_deep(Pixels { width, height, channels, numbers }, exif.as_deref())
}
