//! What of a tar's path is a place in a tree.

use granary_core::name::ENTRY_NAME_MAX;

/// The path as it is in the tree: without the `./` that `tar .` puts before each, and without slashes at its end. `None` for
/// what no tree can have: an empty path, an absolute one, one with an empty part, `.`, `..`, or a name over 255 bytes.
pub fn clean(path: &[u8]) -> Option<&[u8]> {
    let mut path = path.strip_prefix(b"./").unwrap_or(path);
    while let Some(shorter) = path.strip_suffix(b"/") {
        path = shorter;
    }
    let fits = |part: &[u8]| {
        !part.is_empty()
            && part != b"."
            && part != b".."
            && part.len() <= ENTRY_NAME_MAX
            && !part.contains(&0)
    };
    path.split(|&b| b == b'/').all(fits).then_some(path)
}

/// The first `depth` parts of a path, with the slash behind each; `None` when there are fewer slashes.
pub fn prefix(path: &[u8], depth: u32) -> Option<&[u8]> {
    if depth == 0 {
        return Some(&[]);
    }
    let slash = path.iter().enumerate().filter(|(_, b)| **b == b'/').nth(depth as usize - 1)?.0;
    Some(&path[..=slash])
}

/// How many slashes it has.
pub fn depth(path: &[u8]) -> u32 {
    path.iter().filter(|&&b| b == b'/').count() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_tree_can_have_is_left_out() {
        let long = "n".repeat(256);
        for (path, want) in [
            ("a/b", Some("a/b")),
            ("./a/b.jpg", Some("a/b.jpg")),
            ("dir/", Some("dir")),
            (".hidden", Some(".hidden")),
            ("./", None),
            (".", None),
            ("", None),
            ("/etc/passwd", None),
            (".//a", None),
            ("a//b", None),
            ("a/./b", None),
            ("a/../b", None),
            ("../b", None),
            (&*long, None),
        ] {
            assert_eq!(clean(path.as_bytes()), want.map(str::as_bytes), "{path}");
        }
    }

    #[test]
    fn prefixes_end_with_a_slash() {
        assert_eq!(prefix(b"a/b/c", 0), Some(&b""[..]));
        assert_eq!(prefix(b"a/b/c", 1), Some(&b"a/"[..]));
        assert_eq!(prefix(b"a/b/c", 2), Some(&b"a/b/"[..]));
        assert_eq!(prefix(b"a/b/c", 3), None);
        assert_eq!((depth(b"a/b/c"), depth(b"a/b/"), depth(b"")), (2, 2, 0));
    }
}
