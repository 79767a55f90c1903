//! Directory listings: entries one after the other, each padded with zeros to a multiple of 8 bytes.
//!
//! | offset | size | READDIR | | offset | size | READDIRPLUS |
//! |---|---|---|---|---|---|---|
//! | 0 | 8 | inode | | 0 | 128 | entry (see [`super::answer`]); inode 0: not looked up |
//! | 8 | 8 | offset after it | | 128 | 24 | as READDIR's first 24 |
//! | 16 | 4 | length of the name | | 152 | | name |
//! | 20 | 4 | type (DT_) | | | | |
//! | 24 | | name | | | | |

use super::wire::Body;

const ENTRY_BYTES: usize = 128;
const FIXED_BYTES: usize = 24;

/// How long an entry with this name is, with `plus` attributes.
pub fn entry_bytes(name_len: usize, plus: bool) -> usize {
    let fixed = if plus { ENTRY_BYTES + FIXED_BYTES } else { FIXED_BYTES };
    (fixed + name_len).next_multiple_of(8)
}

/// One line, without attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    pub ino: u64,
    /// Where the listing goes on after it.
    pub next: u64,
    /// The type, as in the high four bits of a mode.
    pub kind: u32,
    pub name: &'a [u8],
}

/// Appends a line; with `plus`, behind what [`super::answer::entry`] made.
pub fn push(out: &mut Vec<u8>, plus: Option<&Body>, line: &Line<'_>) {
    if let Some(plus) = plus {
        debug_assert_eq!(plus.as_slice().len(), ENTRY_BYTES);
        out.extend_from_slice(plus.as_slice());
    }
    let fixed = Body::default().u64(line.ino).u64(line.next).u32(line.name.len() as u32).u32(line.kind);
    out.extend_from_slice(fixed.as_slice());
    out.extend_from_slice(line.name);
    out.resize(out.len().next_multiple_of(8), 0);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::answer;
    use super::*;

    #[test]
    fn lines_are_as_long_as_foreseen() {
        for len in [1, 7, 8, 9, 255] {
            let name = vec![b'n'; len];
            let line = Line { ino: 1, next: 2, kind: 8, name: &name };
            let mut out = Vec::new();
            push(&mut out, None, &line);
            assert_eq!(out.len(), entry_bytes(len, false));
            assert_eq!(&out[24..24 + len], name);
            let mut out = Vec::new();
            push(&mut out, Some(&answer::absent(Duration::ZERO)), &line);
            assert_eq!(out.len(), entry_bytes(len, true));
            assert_eq!(&out[152..152 + len], name);
        }
    }
}
