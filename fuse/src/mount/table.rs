//! The kernel's table of mounts, `/proc/self/mountinfo`: what is mounted where. Reading it asks no file system anything, so it
//! works where a mount hangs or is dead.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use granary_core::{Error, Result};

/// What our mounts are called there.
pub const FS_TYPE: &str = "fuse.granary";

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Unique while the mount exists.
    pub id: u64,
    /// Device number of the file system: the same for all its (bind) mounts.
    pub major: u32,
    pub minor: u32,
    /// What of the file system is seen there: `/` is all of it.
    pub root: PathBuf,
    pub path: PathBuf,
    pub fs_type: String,
    /// For ours: the namespace's name.
    pub source: String,
}

impl Mount {
    pub fn is_ours(&self) -> bool {
        self.fs_type == FS_TYPE
    }

    /// Whether it shows all of the file system, and not one tree of it.
    pub fn is_whole(&self) -> bool {
        self.root == Path::new("/")
    }
}

/// All mounts that this process sees, in the order they were made (a later one at the same path hides an earlier one).
pub fn read() -> Result<Vec<Mount>> {
    let text = std::fs::read("/proc/self/mountinfo")
        .map_err(|e| Error::io("cannot read /proc/self/mountinfo", e))?;
    Ok(text.split(|&b| b == b'\n').filter_map(parse_line).collect())
}

/// The mount that one sees at exactly this path (absolute, without symlinks).
pub fn at(path: &Path) -> Result<Option<Mount>> {
    Ok(read()?.into_iter().rev().find(|mount| mount.path == path))
}

/// All mounts of one file system, the last made first.
pub fn of_device(major: u32, minor: u32) -> Result<Vec<Mount>> {
    let mut all: Vec<Mount> = read()?.into_iter().filter(|m| (m.major, m.minor) == (major, minor)).collect();
    all.reverse();
    Ok(all)
}

/// `36 35 98:0 /root /path options tags... - type source super-options`; `None` for what is not like that.
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut words = line.split(|&b| b == b' ');
    let id = text(words.next()?)?.parse().ok()?;
    let (major, minor) = text(words.nth(1)?)?.split_once(':')?;
    let (root, path) = (unescape(words.next()?), unescape(words.next()?));
    let mut after = words.skip_while(|word| *word != b"-").skip(1);
    let fs_type = text(after.next()?)?.to_owned();
    let source = String::from_utf8_lossy(&unescape(after.next()?)).into_owned();
    Some(Mount {
        id,
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        root: PathBuf::from(OsString::from_vec(root)),
        path: PathBuf::from(OsString::from_vec(path)),
        fs_type,
        source,
    })
}

fn text(word: &[u8]) -> Option<&str> {
    std::str::from_utf8(word).ok()
}

/// Blank, tab, newline and backslash are written as three octal digits.
fn unescape(word: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(word.len());
    let mut at = 0;
    while at < word.len() {
        let digits = word
            .get(at + 1..at + 4)
            .filter(|d| word[at] == b'\\' && d.iter().all(|b| (b'0'..=b'7').contains(b)));
        if let Some(digits) = digits {
            out.push(
                digits.iter().fold(0_u8, |value, digit| value.wrapping_mul(8).wrapping_add(digit - b'0')),
            );
            at += 4;
        } else {
            out.push(word[at]);
            at += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_understood() {
        let line = br"36 35 0:47 / /mnt/my\040data rw,nosuid shared:2 master:1 - fuse.granary user/alice rw,user_id=0";
        let mount = parse_line(line).unwrap();
        assert_eq!((mount.id, mount.major, mount.minor), (36, 0, 47));
        assert_eq!(mount.path, Path::new("/mnt/my data"));
        assert_eq!((mount.is_ours(), mount.is_whole(), mount.source.as_str()), (true, true, "user/alice"));
        let tree = parse_line(b"37 35 0:47 /a/b /mnt/b rw - fuse.granary user/alice rw").unwrap();
        assert_eq!((tree.root.as_path(), tree.is_whole()), (Path::new("/a/b"), false));
        let without_tags = parse_line(b"1 0 8:1 / / rw - ext4 /dev/sda1 rw").unwrap();
        assert_eq!((without_tags.path.as_path(), without_tags.is_ours()), (Path::new("/"), false));
        for bad in [&b""[..], b"x", b"36 35 0:47 / /mnt rw shared:2", b"36 35 047 / /mnt rw - a b"] {
            assert!(parse_line(bad).is_none());
        }
    }

    #[test]
    fn this_machine_has_proc() {
        let proc = at(Path::new("/proc")).unwrap().unwrap();
        assert_eq!(proc.fs_type, "proc");
        assert!(of_device(proc.major, proc.minor).unwrap().contains(&proc));
        assert!(at(Path::new("/nowhere/at/all")).unwrap().is_none());
    }
}
