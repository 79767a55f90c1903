//! Megatron Energon's index of a tar (`megatron/energon/flavors/webdataset/itar.py` and `prepare.py`): where samples begin.
//!
//! | offset | size | what |
//! |---|---|---|
//! | 8 i | 8 | where in the tar the first header of sample i begins, little-endian |
//! | 8 n | 8 | the end: behind the last file and its padding |
//!
//! Nothing else, no version and no checksum. Energon reads a sample from its number to the next, passes over what is no regular file,
//! and wants all others there to be of one sample; so what counts as one is decided by its two regular expressions:
//!
//! * a file's sample is its path up to the first dot of its base name. A base name that begins with a dot has one only when its
//!   directory's name has no dot: then the sample is the path up to that dot (`a/.b` is of the sample `a/`);
//! * a path whose first part begins and ends with two underscores is no sample's (`__meta__/x.json`).

use granary_core::Result;

use super::gap;
use crate::blocking::ShardBytes;
use crate::index::Index;

/// The index's bytes; `None` when no file is of a sample.
///
/// Errors: `Corrupt`; what the place says.
pub fn make(index: &Index, bytes: &ShardBytes) -> Result<Option<Vec<u8>>> {
    let (mut out, mut last, mut end) = (Vec::new(), Vec::new(), 0);
    for number in 0..index.file_count() {
        let file = index.file(number)?;
        if let Some(sample) = sample_of(file.path)
            && (out.is_empty() || sample != last)
        {
            out.extend_from_slice(&gap::header_of(bytes, end, file.offset)?.to_le_bytes());
            last = sample.to_vec();
        }
        end = file.offset + crate::tar::padded(file.length);
    }
    if out.is_empty() {
        return Ok(None);
    }
    out.extend_from_slice(&end.to_le_bytes());
    Ok(Some(out))
}

/// The sample that Energon takes a file for.
fn sample_of(path: &[u8]) -> Option<&[u8]> {
    let first = path.split(|&b| b == b'/').next().unwrap_or_default();
    if first.len() >= 4 && first.starts_with(b"__") && first.ends_with(b"__") {
        return None;
    }
    let base = path.iter().rposition(|&b| b == b'/').map_or(0, |slash| slash + 1);
    match path[base..].iter().position(|&b| b == b'.')? {
        0 => {
            let parent = path[..base].strip_suffix(b"/")?.rsplit(|&b| b == b'/').next()?;
            (!parent.contains(&b'.')).then(|| &path[..base])
        }
        dot => Some(&path[..base + dot]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Energon's expressions give, tried in Python.
    #[test]
    fn samples_are_those_of_its_expressions() {
        for (path, sample) in [
            ("a/b.jpg", Some("a/b")),
            ("a.b/c.seg.png", Some("a.b/c")),
            ("a/README", None),
            ("a.b/README", None),
            (".hidden", None),
            ("a/.hidden", Some("a/")),
            ("a.b/.hidden", None),
            ("a.b/c/.hidden", Some("a.b/c/")),
            ("__meta__/a.json", None),
            ("__meta__", None),
            ("__meta__.json", Some("__meta__")),
            ("x/__meta__/a.json", Some("x/__meta__/a")),
            ("___/a.json", Some("___/a")),
        ] {
            let got = sample_of(path.as_bytes()).map(|s| String::from_utf8_lossy(s).into_owned());
            assert_eq!(got.as_deref(), sample, "{path}");
        }
    }
}
