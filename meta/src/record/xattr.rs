//! Extended attributes, symlink targets, and bytes of a node's stage log: nothing but bytes.
//!
//! | bytes | field |
//! |---|---|
//! | 1 | version, 1 |
//! | n | the value, to the end of the record |

use granary_core::Result;
use granary_core::codec::{Put, Reader};

const VERSION: u8 = 1;

pub(super) fn encode(value: &[u8], out: &mut Vec<u8>) {
    out.put_u8(VERSION);
    out.extend_from_slice(value);
}

pub(super) fn decode(bytes: &[u8]) -> Result<&[u8]> {
    let mut r = Reader::new(bytes, "an extended attribute, a symlink target, or bytes of a stage log");
    r.version(VERSION)?;
    let n = r.remaining();
    r.take(n)
}
