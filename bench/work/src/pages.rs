//! Pages of one large file (as [`large::write`](crate::large::write) made it): read at random places, and mapped.

use std::path::Path;

use anyhow::{Result, ensure};
use rustix::fs::{Mode, OFlags, fstat, open};

use crate::content::{PAGE, check_stamps};
use crate::large::{FILE_ID, path_of};
use crate::mapping::Mapping;
use crate::{Limits, Outcome, at, repeat, shuffled, stop, threads};

/// Reads pages of 4 KiB at random places, each once and then again, until `seconds_min` is over. `done` is pages.
pub fn random(root: &Path, name: &str, bytes: u64, seed: u64, limits: Limits) -> Result<Outcome> {
    let path = path_of(root, name)?;
    let fd = at(open(&path, OFlags::RDONLY, Mode::empty()), "open", &path)?;
    let order = shuffled(bytes as usize / PAGE, seed);
    // One pass is many pages: the time decides, not the file's size.
    let limits = Limits { seconds_max: limits.seconds_min, ..limits };
    threads(1, |_| {
        let mut page = [0; PAGE];
        repeat(&order, limits, |i| {
            let n = at(rustix::io::pread(&fd, &mut page[..], (i * PAGE) as u64), "read", &path)?;
            ensure!(n == PAGE, "read {}: {n} bytes of page {i}", path.to_string_lossy());
            check_stamps(&page, FILE_ID, i as u64)
        })
    })
}

/// Reads it through `mmap` from begin to end: each byte is summed up, and each page's stamp is checked. `done` is bytes.
pub fn mapped(root: &Path, name: &str, bytes: u64) -> Result<Outcome> {
    const CHUNK: usize = 1 << 20;
    let path = path_of(root, name)?;
    let fd = at(open(&path, OFlags::RDONLY, Mode::empty()), "open", &path)?;
    let size = at(fstat(&fd), "stat", &path)?.st_size;
    ensure!(size as u64 >= bytes, "{}: {size} bytes of {bytes}", path.to_string_lossy());
    threads(1, |_| {
        let mapping = Mapping::of(&fd, bytes as usize)?;
        for (i, chunk) in mapping.bytes().chunks(CHUNK).enumerate() {
            stop::check()?;
            let (words, _) = chunk.as_chunks::<8>();
            let sum = words.iter().fold(0u64, |sum, word| sum.wrapping_add(u64::from_ne_bytes(*word)));
            std::hint::black_box(sum);
            check_stamps(chunk, FILE_ID, (i * CHUNK / PAGE) as u64)?;
        }
        Ok(bytes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Content;
    use crate::large;

    const LIMITS: Limits = Limits { seconds_min: 0.01, seconds_max: 60.0 };

    #[test]
    fn pages_are_read_and_mapped_and_a_wrong_one_is_found() {
        let dir = tempfile::tempdir().unwrap();
        large::write(dir.path(), "a", 2 << 20, &Content::new(2)).unwrap();
        assert!(random(dir.path(), "a", 2 << 20, 1, LIMITS).unwrap().done > 0);
        assert_eq!(mapped(dir.path(), "a", 2 << 20).unwrap().done, 2 << 20);
        assert!(mapped(dir.path(), "a", 3 << 20).is_err());

        let mut bytes = std::fs::read(dir.path().join("a")).unwrap();
        (0..bytes.len()).step_by(PAGE).for_each(|i| bytes[i] ^= 1);
        std::fs::write(dir.path().join("a"), &bytes).unwrap();
        assert!(mapped(dir.path(), "a", 2 << 20).is_err());
        assert!(random(dir.path(), "a", 2 << 20, 1, LIMITS).is_err());
    }
}
