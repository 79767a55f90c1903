//! What is told the kernel without being asked: an answer's header with the code in place of the errno and 0 as unique.
//!
//! | code | what | fields, with their size |
//! |---|---|---|
//! | 2 | INVAL_INODE: attributes, and pages of the range | inode 8, offset 8 (negative: no pages), length 8 (0: to the end) |
//! | 5 | RETRIEVE: asks for cached bytes, which come as a NOTIFY_REPLY of that unique | unique 8, inode 8, offset 8, size 4, `_4` |
//! | 7 | RESEND: what was read and not answered comes again (ABI 7.40) | none |
//! | 8 | INC_EPOCH: every cached entry is asked again (ABI 7.44) | none |

use super::wire::Body;

pub const INVAL_INODE: i32 = 2;
pub const RETRIEVE: i32 = 5;
pub const RESEND: i32 = 7;
pub const INC_EPOCH: i32 = 8;
/// The version of the protocol that has [`INC_EPOCH`].
pub const INC_EPOCH_MINOR: u32 = 44;

pub fn inval_inode(ino: u64, offset: i64, len: i64) -> Body {
    Body::default().u64(ino).i64(offset).i64(len)
}

pub fn retrieve(unique: u64, ino: u64, offset: u64, size: u32) -> Body {
    Body::default().u64(unique).u64(ino).u64(offset).u32(size).u32(0)
}
