//! What makes files one sample.
//!
//! The rule of WebDataset (its `base_plus_ext`): a path's key ends at the first dot of its base name, what follows the dot is the
//! extension, and neighbours with one key are one sample. Two kinds of files have no extension by that rule, and WebDataset leaves
//! them out: base names without a dot, and those that begin with one. Here each is a sample of its own, whose key is its whole path.

/// How paths become keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Grouping {
    /// WebDataset's rule.
    #[default]
    Stem,
    /// Files of one directory are one sample; the extension is the base name.
    Directory,
}

impl Grouping {
    /// The byte that stands for it on disk.
    pub fn code(self) -> u8 {
        match self {
            Grouping::Stem => 0,
            Grouping::Directory => 1,
        }
    }

    pub fn from_code(code: u8) -> Option<Grouping> {
        match code {
            0 => Some(Grouping::Stem),
            1 => Some(Grouping::Directory),
            _ => None,
        }
    }

    /// Key and extension of a path.
    pub fn split(self, path: &[u8]) -> (&[u8], &[u8]) {
        let base = path.iter().rposition(|&b| b == b'/').map_or(0, |slash| slash + 1);
        match self {
            Grouping::Directory => (&path[..base.saturating_sub(1)], &path[base..]),
            Grouping::Stem => match path[base..].iter().position(|&b| b == b'.') {
                None | Some(0) => (path, &[]),
                Some(dot) => (&path[..base + dot], &path[base + dot + 1..]),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_end_at_the_first_dot_of_the_base_name() {
        for (path, key, extension) in [
            ("a/b.jpg", "a/b", "jpg"),
            ("a.b/c.seg.png", "a.b/c", "seg.png"),
            ("a/README", "a/README", ""),
            ("a.b/.hidden", "a.b/.hidden", ""),
            ("x.", "x", ""),
            ("", "", ""),
        ] {
            let got = Grouping::Stem.split(path.as_bytes());
            assert_eq!(got, (key.as_bytes(), extension.as_bytes()), "{path}");
        }
        assert_eq!(Grouping::Directory.split(b"a/b/c.jpg"), (&b"a/b"[..], &b"c.jpg"[..]));
        assert_eq!(Grouping::Directory.split(b"c.jpg"), (&b""[..], &b"c.jpg"[..]));
    }
}
