//! The fixed-size end of every object. Its byte table is in [`format`](super).

use granary_core::codec::{Put, Reader};
use granary_core::limits::OBJECT_PAYLOAD_MAX;
use granary_core::{Error, Kind, ObjectKind, Result};

use super::{FOOTER_BYTES_MAX, VERSION};

/// Size of the trailer in bytes, in every version.
pub const TRAILER_BYTES: usize = 32;

const MAGIC: [u8; 8] = *b"granaryO";
const CHECKSUM_AT: usize = 28;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    pub kind: ObjectKind,
    /// Bytes between payload and trailer.
    pub footer_len: u32,
    pub payload_len: u64,
    pub footer_crc: u32,
}

impl Trailer {
    pub fn encode(&self) -> [u8; TRAILER_BYTES] {
        let mut out = Vec::with_capacity(TRAILER_BYTES);
        out.extend_from_slice(&MAGIC);
        out.put_u8(VERSION);
        out.put_u8(match self.kind {
            ObjectKind::Block => 1,
            ObjectKind::Pack => 2,
        });
        out.put_u16(0);
        out.put_u32(self.footer_len);
        out.put_u64(self.payload_len);
        out.put_u32(self.footer_crc);
        out.put_u32(granary_core::crc32c(&out));
        let mut array = [0; TRAILER_BYTES];
        array.copy_from_slice(&out);
        array
    }

    /// Reads the trailer at the end of `bytes` (a whole object, or any tail of it of at least 32 bytes).
    ///
    /// Errors: `Corrupt`; `Unsupported` for a newer version.
    pub fn parse_end(bytes: &[u8]) -> Result<Trailer> {
        let Some(at) = bytes.len().checked_sub(TRAILER_BYTES) else {
            return Err(Error::new(
                Kind::Corrupt,
                format!(
                    "object is damaged: {} bytes are left where its trailer has {TRAILER_BYTES}",
                    bytes.len()
                ),
            ));
        };
        let bytes = &bytes[at..];
        let mut r = Reader::new(bytes, "object trailer");
        if r.take(MAGIC.len())? != MAGIC {
            return Err(r.corrupt(
                "it does not begin with `granaryO`, so this is no granary object, or its end is lost",
            ));
        }
        if Reader::new(&bytes[CHECKSUM_AT..], "object trailer").u32()?
            != granary_core::crc32c(&bytes[..CHECKSUM_AT])
        {
            return Err(r.corrupt("its checksum does not match"));
        }
        r.version(VERSION)?;
        let kind = match r.u8()? {
            1 => ObjectKind::Block,
            2 => ObjectKind::Pack,
            _ => return Err(r.corrupt("its kind is neither block nor pack")),
        };
        if r.u16()? != 0 {
            return Err(r.corrupt("its reserved bytes are not 0"));
        }
        let trailer = Trailer { kind, footer_len: r.u32()?, payload_len: r.u64()?, footer_crc: r.u32()? };
        if trailer.payload_len == 0 || trailer.payload_len > OBJECT_PAYLOAD_MAX {
            return Err(r.corrupt("its payload length is impossible"));
        }
        if trailer.footer_and_trailer_len() > FOOTER_BYTES_MAX {
            return Err(r.corrupt("its footer length is impossible"));
        }
        Ok(trailer)
    }

    /// Bytes from the end of the payload to the end of the object.
    pub fn footer_and_trailer_len(&self) -> u64 {
        u64::from(self.footer_len) + TRAILER_BYTES as u64
    }

    pub fn total_len(&self) -> u64 {
        self.payload_len + self.footer_and_trailer_len()
    }
}
