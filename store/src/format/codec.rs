//! Compression of frames, each alone. LZ4 is the block format of <https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md>,
//! Zstandard that of RFC 8878.

use std::fmt;
use std::str::FromStr;

use granary_core::{Error, Kind, Result};

/// Zstandard's level: 3, its own default, packs text to about a third at some 300 MB/s a core.
const ZSTD_LEVEL: i32 = 3;

/// How the frames of an object are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Codec {
    #[default]
    None,
    Lz4,
    Zstd,
}

impl Codec {
    pub const ALL: [Codec; 3] = [Codec::None, Codec::Lz4, Codec::Zstd];

    /// As it is written in footers.
    pub fn tag(self) -> u8 {
        match self {
            Codec::None => 0,
            Codec::Lz4 => 1,
            Codec::Zstd => 2,
        }
    }

    pub fn of_tag(tag: u8) -> Option<Codec> {
        Codec::ALL.into_iter().find(|codec| codec.tag() == tag)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Codec::None => "none",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        }
    }

    /// The frame compressed; `None` when that would not make it smaller.
    pub(super) fn compress(self, frame: &[u8]) -> Option<Vec<u8>> {
        let out = match self {
            Codec::None => return None,
            Codec::Lz4 => lz4_flex::block::compress(frame),
            // It fails only when there is no memory; then the frame is stored as it is.
            Codec::Zstd => zstd::bulk::compress(frame, ZSTD_LEVEL).ok()?,
        };
        (out.len() < frame.len()).then_some(out)
    }

    /// Appends the `len` bytes that a frame was before [`Codec::compress`]. Memory stays within `len` whatever the bytes say.
    ///
    /// Errors: why the bytes are not such a frame.
    pub(super) fn decompress(self, stored: &[u8], len: usize, out: &mut Vec<u8>) -> Result<(), String> {
        let begin = out.len();
        out.resize(begin + len, 0);
        let to = &mut out[begin..];
        let n = match self {
            Codec::None => return Err("it is stored in another length than it has".to_owned()),
            Codec::Lz4 => lz4_flex::block::decompress_into(stored, to).map_err(|e| e.to_string())?,
            Codec::Zstd => zstd::bulk::decompress_to_buffer(stored, to).map_err(|e| e.to_string())?,
        };
        if n == len { Ok(()) } else { Err(format!("{n} of its {len} bytes came out")) }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Codec {
    type Err = Error;

    fn from_str(s: &str) -> Result<Codec> {
        Codec::ALL.into_iter().find(|codec| codec.as_str() == s).ok_or_else(|| {
            Error::new(Kind::Invalid, format!("there is no compression {s:?}; write none, lz4 or zstd"))
        })
    }
}
