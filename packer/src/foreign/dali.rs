//! DALI's index of a tar, version 1.2 (`tools/wds2idx.py` of NVIDIA DALI): text, a line a sample.
//!
//! ```text
//! v1.2 <number of samples>
//! <extension> <offset of the payload> <bytes> <path>  <extension> <offset> <bytes> <path>  ...        joined by single spaces
//! ```
//!
//! Files of one path up to the first dot of the base name, side by side, are a sample. Files without an extension, and those whose
//! base name begins with a dot, are in none. DALI splits lines at white space, so a path that has some cannot be said.

use granary_core::{Error, Kind, Result};

use crate::index::Index;
use crate::key::Grouping;

/// The index's text; `None` when no file is of a sample: DALI refuses an empty one.
///
/// Errors: `Unsupported` names a path with white space; `Corrupt`.
pub fn make(index: &Index) -> Result<Option<Vec<u8>>> {
    let (mut lines, mut samples, mut last) = (Vec::new(), 0u64, Vec::new());
    for number in 0..index.file_count() {
        let file = index.file(number)?;
        let (key, extension) = Grouping::Stem.split(file.path);
        if extension.is_empty() {
            continue;
        }
        if file.path.iter().any(u8::is_ascii_whitespace) {
            return Err(Error::new(
                Kind::Unsupported,
                format!(
                    "{:?} has white space in its path, which DALI's index cannot say; rename it, or do without --dali",
                    String::from_utf8_lossy(file.path)
                ),
            ));
        }
        if samples > 0 && key == last {
            lines.push(b' ');
        } else {
            if samples > 0 {
                lines.push(b'\n');
            }
            samples += 1;
            last = key.to_vec();
        }
        lines.extend_from_slice(extension);
        lines.extend_from_slice(format!(" {} {} ", file.offset, file.length).as_bytes());
        lines.extend_from_slice(file.path);
    }
    if samples == 0 {
        return Ok(None);
    }
    let mut out = format!("v1.2 {samples}\n").into_bytes();
    out.append(&mut lines);
    out.push(b'\n');
    Ok(Some(out))
}
