//! Bytes of a node's stage log that were acknowledged as durable and are not synced there yet. They are here so that one sync,
//! the engine's, makes them and the metadata durable; after a power loss the node writes them back into its log.
//!
//! | bytes | field |
//! |---|---|
//! | 1 | version, 1 |
//! | n | the bytes, to the end of the record |

use granary_core::Result;
use granary_core::codec::{Put, Reader};

const VERSION: u8 = 1;

pub(super) fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    out.put_u8(VERSION);
    out.extend_from_slice(bytes);
}

pub(super) fn decode(bytes: &[u8]) -> Result<&[u8]> {
    let mut r = Reader::new(bytes, "bytes of a stage log");
    r.version(VERSION)?;
    let n = r.remaining();
    r.take(n)
}
