//! What may be a key, and what a range must be: checked alike by every backend.

use std::ops::Range;

use granary_core::{Error, Kind, Result};

/// Longest key, in bytes, as S3 has it. The volume's prefix counts too.
pub const KEY_BYTES_MAX: usize = 1024;

/// A key is segments joined by single slashes, none empty, `.` or `..`, each at most 255 bytes, without control characters.
///
/// Errors: `Invalid` names key and reason.
pub fn check_key(key: &str) -> Result<()> {
    let bad = |why: &str| Err(Error::new(Kind::Invalid, format!("{key:?} cannot be an object's key: {why}")));
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return bad("it has 0 or more than 1,024 bytes");
    }
    if key.chars().any(char::is_control) {
        return bad("it has a control character");
    }
    for segment in key.split('/') {
        if segment.is_empty() || segment == "." || segment == ".." {
            return bad("a part between slashes is empty, `.` or `..`");
        }
        if segment.len() > 255 {
            return bad("a part between slashes has more than 255 bytes");
        }
    }
    Ok(())
}

/// Length of a range in bytes. Backends answer an empty range at once, without asking whether the object exists.
///
/// Errors: `Invalid` when it ends before it begins, or is longer than 1 GiB.
pub fn check_range(key: &str, range: &Range<u64>) -> Result<usize> {
    match range.end.checked_sub(range.start) {
        Some(len) if len <= 1 << 30 => Ok(len as usize),
        _ => Err(Error::new(
            Kind::Invalid,
            format!("bytes {}..{} of object {key} cannot be read at once", range.start, range.end),
        )),
    }
}

/// The error for an object that ends before the range does.
pub fn too_short(name: &str, range: &Range<u64>, got: u64) -> Error {
    Error::new(
        Kind::Corrupt,
        format!(
            "{name} is shorter than it should be: of bytes {}..{} the store gave {got}",
            range.start, range.end
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_could_leave_the_prefix_are_refused() {
        for good in ["a", "ns/00000007/p/ab/0001", "granary-volume", ".hidden", "a b"] {
            check_key(good).unwrap();
        }
        let long = "x".repeat(256);
        for bad in
            ["", "/a", "a/", "a//b", ".", "..", "a/../b", "a/.", "a\0b", "a\nb", &long, &"a/".repeat(600)]
        {
            assert_eq!(check_key(bad).unwrap_err().kind(), Kind::Invalid, "{bad:?}");
        }
    }

    #[test]
    #[allow(clippy::reversed_empty_ranges)]
    fn backward_and_huge_ranges_are_refused() {
        assert_eq!(check_range("k", &(5..5)).unwrap(), 0);
        assert_eq!(check_range("k", &(5..4)).unwrap_err().kind(), Kind::Invalid);
        assert_eq!(check_range("k", &(0..u64::MAX)).unwrap_err().kind(), Kind::Invalid);
    }
}
