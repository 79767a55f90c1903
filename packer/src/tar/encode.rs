//! Writing headers.

use granary_core::{Error, Kind, Result};

use super::{BLOCK_BYTES, checksum, number, padded};
use crate::limits::PATH_BYTES_MAX;

/// The two blocks of zeros that end a tar.
pub const END: [u8; 2 * BLOCK_BYTES] = [0; 2 * BLOCK_BYTES];

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    pub path: &'a [u8],
    /// Of links, else empty.
    pub target: &'a [u8],
    /// `0` file, `1` hard link, `2` symbolic link, `5` directory, `6` pipe.
    pub kind: u8,
    /// Bytes of the payload: 0 unless it is a file.
    pub size: u64,
    pub mode: u32,
    pub mtime: i64,
    pub uid: u32,
    pub gid: u32,
}

/// Appends the header, and what must come before it.
///
/// Errors: `Invalid` for a path that no tar can have; `NameTooLong`; `FileTooLarge`.
pub fn encode(entry: &Entry<'_>, out: &mut Vec<u8>) -> Result<()> {
    for (what, text) in [("path", entry.path), ("target", entry.target)] {
        let shown = || String::from_utf8_lossy(&text[..text.len().min(80)]);
        if text.contains(&0) || (what == "path" && text.is_empty()) {
            return Err(Error::new(
                Kind::Invalid,
                format!("{:?} cannot be the {what} of a tar's entry", shown()),
            ));
        }
        if text.len() > PATH_BYTES_MAX {
            return Err(Error::new(
                Kind::NameTooLong,
                format!("the {what} {:?}… has more than 4,096 bytes; shorten it", shown()),
            ));
        }
    }
    let Ok(size) = i64::try_from(entry.size) else {
        return Err(Error::new(
            Kind::FileTooLarge,
            format!("{} bytes are too many for one file", entry.size),
        ));
    };
    if entry.target.len() > 100 {
        long(b'K', entry.target, out);
    }
    let split = split(entry.path);
    if split.is_none() {
        long(b'L', entry.path, out);
    }
    let (prefix, name) = split.unwrap_or_else(|| (&[], &entry.path[..100]));
    let target = &entry.target[..entry.target.len().min(100)];
    block(out, |header| {
        header[..name.len()].copy_from_slice(name);
        header[157..157 + target.len()].copy_from_slice(target);
        header[345..345 + prefix.len()].copy_from_slice(prefix);
        header[156] = entry.kind;
        number::put(&mut header[100..108], i64::from(entry.mode & 0o7777));
        number::put(&mut header[108..116], i64::from(entry.uid));
        number::put(&mut header[116..124], i64::from(entry.gid));
        number::put(&mut header[124..136], size);
        number::put(&mut header[136..148], entry.mtime);
    });
    Ok(())
}

/// Prefix and name, when they can hold the path.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.len() <= 100 {
        return Some((&[], path));
    }
    // The first slash that leaves a name short enough; neither part may be empty.
    let from = path.len().saturating_sub(101);
    let slash = from + path[from..path.len() - 1].iter().position(|&b| b == b'/')?;
    (1..=155).contains(&slash).then(|| (&path[..slash], &path[slash + 1..]))
}

/// GNU's block before a header whose text is too long: the text, ended by a zero, as a payload.
fn long(kind: u8, text: &[u8], out: &mut Vec<u8>) {
    let size = text.len() + 1;
    block(out, |header| {
        header[..13].copy_from_slice(b"././@LongLink");
        header[156] = kind;
        for range in [100..108, 108..116, 116..124, 136..148] {
            number::put(&mut header[range], 0);
        }
        number::put(&mut header[124..136], size as i64);
    });
    out.extend_from_slice(text);
    out.resize(out.len() + (padded(size as u64) as usize - text.len()), 0);
}

fn block(out: &mut Vec<u8>, fill: impl FnOnce(&mut [u8; BLOCK_BYTES])) {
    let mut header = [0; BLOCK_BYTES];
    header[257..265].copy_from_slice(b"ustar\x0000");
    number::put(&mut header[329..337], 0);
    number::put(&mut header[337..345], 0);
    fill(&mut header);
    let sum = format!("{:06o}\0 ", checksum(&header));
    header[148..156].copy_from_slice(sum.as_bytes());
    out.extend_from_slice(&header);
}
