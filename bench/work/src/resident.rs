//! What of a file lies in the page cache, and dropping just that: what a program without rights over the machine can do.

use std::ffi::CString;

use anyhow::Result;
use rustix::fs::{Advice, Mode, OFlags, fadvise, fstat, fsync, open};

use crate::at;
use crate::mapping::Mapping;

/// Writes the files back and asks the kernel to drop their pages. What a file system keeps below its own pages stays.
pub fn drop_pages(paths: &[CString]) -> Result<()> {
    for path in paths {
        let fd = at(open(path, OFlags::RDONLY, Mode::empty()), "open", path)?;
        at(fsync(&fd), "fsync", path)?;
        at(fadvise(&fd, 0, None, Advice::DontNeed), "fadvise", path)?;
    }
    Ok(())
}

/// The part, 0 to 1, of the files' pages that is in the page cache (mincore(2)); 0 for empty files.
pub fn share(paths: &[CString]) -> Result<f64> {
    let (mut there, mut all) = (0, 0);
    for path in paths {
        let (n, of) = resident_pages(path)?;
        (there, all) = (there + n, all + of);
    }
    Ok(there as f64 / all.max(1) as f64)
}

fn resident_pages(path: &CString) -> Result<(usize, usize)> {
    let fd = at(open(path, OFlags::RDONLY, Mode::empty()), "open", path)?;
    let len = at(fstat(&fd), "stat", path)?.st_size as usize;
    if len == 0 {
        return Ok((0, 0));
    }
    Mapping::of(&fd, len)?.resident()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn pages_just_read_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, vec![7; 100_000]).unwrap();
        std::fs::read(&path).unwrap();
        let paths = [CString::new(path.as_os_str().as_bytes()).unwrap()];
        assert!(share(&paths).unwrap() > 0.9);
        drop_pages(&paths).unwrap(); // tmpfs keeps them: how many are left is the file system's
        assert!((0.0..=1.0).contains(&share(&paths).unwrap()));
        assert_eq!(std::fs::read(&path).unwrap(), vec![7; 100_000]);
        std::fs::write(&path, b"").unwrap();
        assert_eq!(share(&paths).unwrap(), 0.0);
    }
}
