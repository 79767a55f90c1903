//! The volume's own records, under namespace id 0.
//!
//! | key after the four zero bytes | value |
//! |---|---|
//! | `I` | next namespace id: version u8 = 1, id u32; ids are never used twice |
//! | `N`, name | a namespace's id: version u8 = 1, id u32, not 0 |
//! | `V` | the volume, below; written once |
//!
//! | bytes | field |
//! |---|---|
//! | 1 | record version, 1 |
//! | 4 | format of everything in this engine u32: [`FORMAT`] |
//! | 8 | created: milliseconds since 1970 u64 |
//! | 2 + n | uuid: length u16, 32 hexadecimal digits |
//! | 2 + n | store URL: length u16, UTF-8 |

use granary_core::codec::{Put, Reader};
use granary_core::{Error, Kind, NamespaceId, NamespaceName, Result};

use crate::types::VolumeInfo;

const VERSION: u8 = 1;
/// The format of all records that this program writes. A larger one is refused at open.
pub const FORMAT: u32 = 1;

pub const VOLUME_KEY: &[u8] = b"\0\0\0\0V";
pub const NEXT_ID_KEY: &[u8] = b"\0\0\0\0I";
/// What all name keys begin with.
pub const NAME_PREFIX: &[u8] = b"\0\0\0\0N";

pub fn name_key(name: &NamespaceName) -> Vec<u8> {
    [NAME_PREFIX, name.as_str().as_bytes()].concat()
}

/// The name in a key made by [`name_key`].
pub fn decode_name_key(key: &[u8]) -> Result<NamespaceName> {
    key.strip_prefix(NAME_PREFIX)
        .and_then(|name| std::str::from_utf8(name).ok())
        .and_then(|name| name.parse().ok())
        .ok_or_else(|| Error::new(Kind::Corrupt, format!("a namespace's name is damaged: {key:02x?}")))
}

pub fn encode_id(id: NamespaceId) -> Vec<u8> {
    let mut out = Vec::with_capacity(5);
    out.put_u8(VERSION);
    out.put_u32(id.0);
    out
}

pub fn decode_id(bytes: &[u8]) -> Result<NamespaceId> {
    let mut r = Reader::new(bytes, "a namespace's id");
    r.version(VERSION)?;
    let id = NamespaceId(r.u32()?);
    if id.0 == 0 {
        return Err(r.corrupt("it is 0"));
    }
    r.finish()?;
    Ok(id)
}

pub fn encode_volume(info: &VolumeInfo) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_u8(VERSION);
    out.put_u32(FORMAT);
    out.put_u64(info.created_unix_ms);
    out.put_bytes16(info.uuid.as_bytes());
    out.put_bytes16(info.store_url.as_bytes());
    out
}

/// `Unsupported` when it was written in a newer format; the message names both and the mend.
pub fn decode_volume(bytes: &[u8]) -> Result<VolumeInfo> {
    let mut r = Reader::new(bytes, "the volume's record");
    r.version(VERSION)?;
    let format = r.u32()?;
    if format > FORMAT {
        return Err(Error::new(
            Kind::Unsupported,
            format!(
                "the metadata has format {format}, this granary knows formats up to {FORMAT}: use the newer granary \
                 that wrote it"
            ),
        ));
    }
    let created_unix_ms = r.u64()?;
    let mut text = |what: &str| -> Result<String> {
        let bytes = r.bytes16()?;
        String::from_utf8(bytes.to_vec()).map_err(|_| r.corrupt(what))
    };
    let (uuid, store_url) = (text("its uuid is no text")?, text("its store URL is no text")?);
    if format == 0 || !is_uuid(&uuid) {
        return Err(r.corrupt("its format or uuid is impossible"));
    }
    r.finish()?;
    Ok(VolumeInfo { uuid, store_url, created_unix_ms })
}

/// 32 lowercase or uppercase hexadecimal digits.
pub fn is_uuid(s: &str) -> bool {
    s.len() == 32 && s.bytes().all(|b| b.is_ascii_hexdigit())
}
