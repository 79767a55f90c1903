//! The frame of small files of the cache's own that are read whole.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 4 | magic, which says what it is |
//! | 4 | 1 | version of what follows |
//! | 5 | n | what it is about, little-endian |
//! | at the end | 4 | crc32c of everything before |

use granary_core::Result;
use granary_core::codec::{Put, Reader};

/// Bytes before and after the content.
const FRAME_BYTES: usize = 9;

/// A kind of such files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sealed {
    pub magic: u32,
    pub version: u8,
    /// What it is, for messages.
    pub what: &'static str,
}

impl Sealed {
    /// A file whose content, of about `len` bytes, `put` appends.
    pub fn encode(&self, len: usize, put: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::with_capacity(FRAME_BYTES + len);
        out.put_u32(self.magic);
        out.put_u8(self.version);
        put(&mut out);
        let crc = granary_core::crc32c(&out);
        out.put_u32(crc);
        out
    }

    /// A reader of the content of one that is whole. `Corrupt`; `Unsupported` when it is of a later version.
    pub fn open<'a>(&self, bytes: &'a [u8]) -> Result<Reader<'a>> {
        let Some((body, crc)) = bytes.split_last_chunk::<4>() else {
            return Err(Reader::new(bytes, self.what).corrupt("it ends too early"));
        };
        let mut r = Reader::new(body, self.what);
        if granary_core::crc32c(body) != u32::from_le_bytes(*crc) || r.u32()? != self.magic {
            return Err(r.corrupt("checksum or magic differ"));
        }
        r.version(self.version)?;
        Ok(r)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use granary_core::Kind;
    use proptest::prelude::*;

    const KIND: Sealed = Sealed { magic: 0x1234_5678, version: 2, what: "a test's file" };

    proptest! {
        #[test]
        fn what_is_sealed_is_opened_and_damage_is_seen(content: Vec<u8>, at: prop::sample::Index, bit in 0u8..8) {
            let mut bytes = KIND.encode(content.len(), |out| out.extend_from_slice(&content));
            let mut r = KIND.open(&bytes).unwrap();
            prop_assert_eq!(r.take(r.remaining()).unwrap(), &content[..]);
            let at = at.index(bytes.len());
            prop_assert!(KIND.open(&bytes[..at]).is_err());
            bytes[at] ^= 1 << bit;
            prop_assert!(KIND.open(&bytes).is_err());
        }
    }

    #[test]
    fn other_kinds_and_later_versions_are_refused() {
        let kind = |sealed: Sealed| KIND.open(&sealed.encode(0, |_| ())).map(|_| ()).map_err(|e| e.kind());
        assert_eq!(kind(Sealed { magic: 1, ..KIND }), Err(Kind::Corrupt));
        assert_eq!(kind(Sealed { version: 3, ..KIND }), Err(Kind::Unsupported));
        assert_eq!(kind(Sealed { version: 1, ..KIND }), Ok(()), "its reader may know it");
    }
}
