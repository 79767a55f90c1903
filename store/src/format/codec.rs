//! Compression of frames, each alone. LZ4 is the block format of <https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md>,
//! Zstandard that of RFC 8878.

pub use granary_core::Codec;

/// Zstandard's level: 3, its own default, packs text to about a third at some 300 MB/s a core.
const ZSTD_LEVEL: i32 = 3;

/// The frame compressed; `None` when that would not make it smaller.
pub(super) fn compress(codec: Codec, frame: &[u8]) -> Option<Vec<u8>> {
    let out = match codec {
        Codec::None => return None,
        Codec::Lz4 => lz4_flex::block::compress(frame),
        // It fails only when there is no memory; then the frame is stored as it is.
        Codec::Zstd => zstd::bulk::compress(frame, ZSTD_LEVEL).ok()?,
    };
    (out.len() < frame.len()).then_some(out)
}

/// Appends the `len` bytes that a frame was before [`compress`]. Memory stays within `len` whatever the bytes say.
///
/// Errors: why the bytes are not such a frame.
pub(super) fn decompress(codec: Codec, stored: &[u8], len: usize, out: &mut Vec<u8>) -> Result<(), String> {
    let begin = out.len();
    out.resize(begin + len, 0);
    let to = &mut out[begin..];
    let n = match codec {
        Codec::None => return Err("it is stored in another length than it has".to_owned()),
        Codec::Lz4 => lz4_flex::block::decompress_into(stored, to).map_err(|e| e.to_string())?,
        Codec::Zstd => zstd::bulk::decompress_to_buffer(stored, to).map_err(|e| e.to_string())?,
    };
    if n == len { Ok(()) } else { Err(format!("{n} of its {len} bytes came out")) }
}
