//! Paths that stay inside the destination.

use granary_core::{Error, Kind, Result};

/// Errors: `Invalid` unless the path is names joined by single slashes, none `.` or `..`.
pub fn check(path: &[u8]) -> Result<()> {
    let good = path.split(|&b| b == b'/').all(|part| !matches!(part, b"" | b"." | b".."));
    if good && !path.contains(&0) && path.split(|&b| b == b'/').next() != Some(super::tree::TEMPORARY) {
        return Ok(());
    }
    Err(Error::new(
        Kind::Invalid,
        format!(
            "the path {:?} cannot be unpacked: it leads out of the destination, or to what granary keeps there",
            String::from_utf8_lossy(path)
        ),
    ))
}

/// Whether a symbolic link at `path` with this target leads to something inside. `..` counts only at the target's beginning, where it
/// goes up real directories: behind another name that name might be a link.
pub fn stays_inside(path: &[u8], target: &[u8]) -> bool {
    let mut up = 0;
    let mut down = false;
    for part in target.split(|&b| b == b'/').filter(|&part| !matches!(part, b"" | b".")) {
        match part {
            b".." if down => return false,
            b".." => up += 1,
            _ => down = true,
        }
    }
    let depth = path.iter().filter(|&&b| b == b'/').count();
    !target.is_empty() && target[0] != b'/' && !target.contains(&0) && up <= depth
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_paths_are_taken() {
        for good in ["a", "a/b.c", "..a/b..", " "] {
            check(good.as_bytes()).unwrap();
        }
        for bad in ["", "/a", "a//b", "a/", "../a", "a/../b", "./a", "a\0b", ".granary-tmp/x"] {
            assert!(check(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn links_that_lead_out_are_known() {
        for (path, target) in [("a", "b"), ("a/b", "../c"), ("a/b", "./x/y"), ("a/b/c", "../../d")] {
            assert!(stays_inside(path.as_bytes(), target.as_bytes()), "{path} -> {target}");
        }
        for (path, target) in
            [("a", "/etc"), ("a", ".."), ("a/b", "../.."), ("a/b", "x/../../.."), ("a", "x/.."), ("a", "")]
        {
            assert!(!stays_inside(path.as_bytes(), target.as_bytes()), "{path} -> {target}");
        }
    }
}
