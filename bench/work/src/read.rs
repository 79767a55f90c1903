//! Warm reads and stats of small files, in an order that a seed decides.

use std::ffi::CString;
use std::path::Path;

use anyhow::{Result, ensure};
use rustix::fs::{Mode, OFlags, lstat, open};

use super::{Limits, Outcome, Set, at, repeat, shuffled, threads};
use crate::content::{Content, PAGE, check_stamps};

/// open, read, close: the file's bytes, which must be `size`. One read, unless it is short. `buf` must be longer than that.
pub fn read_one<'b>(path: &CString, buf: &'b mut [u8], size: usize) -> Result<&'b [u8]> {
    let fd = at(open(path, OFlags::RDONLY, Mode::empty()), "open", path)?;
    let mut n = 0;
    loop {
        let got = at(rustix::io::read(&fd, &mut buf[n..]), "read", path)?;
        n += got;
        if n >= size || got == 0 {
            break;
        }
    }
    ensure!(n == size, "{}: {n} bytes of {size}", path.to_string_lossy());
    Ok(&buf[..n])
}

/// Reads whole files, each thread all of them in an order of its own. Before time is taken everything is read once and
/// every byte checked; afterwards length and stamps.
pub fn warm(
    root: &Path,
    set: Set,
    count: usize,
    thread_count: usize,
    content: &Content,
    seed: u64,
    limits: Limits,
) -> Result<Outcome> {
    let paths = set.paths(root, count)?;
    let mut buf = vec![0; set.size + PAGE];
    for (i, path) in paths.iter().enumerate() {
        content.check(read_one(path, &mut buf, set.size)?, set.file_id(i), 0)?;
    }
    let orders: Vec<_> = (0..thread_count).map(|t| shuffled(count, seed + t as u64)).collect();
    threads(thread_count, |t| {
        let mut buf = vec![0; set.size + PAGE];
        repeat(&orders[t], limits, |i| {
            check_stamps(read_one(&paths[i], &mut buf, set.size)?, set.file_id(i), 0)
        })
    })
}

/// lstat of every file, one thread, after once through.
pub fn stat(root: &Path, set: Set, count: usize, seed: u64, limits: Limits) -> Result<Outcome> {
    let paths = set.paths(root, count)?;
    let stat = |i: usize| -> Result<()> {
        let size = at(lstat(&paths[i]), "stat", &paths[i])?.st_size;
        ensure!(size == set.size as i64, "stat {}: size {size} of {}", paths[i].to_string_lossy(), set.size);
        Ok(())
    };
    (0..count).try_for_each(stat)?;
    let order = shuffled(count, seed);
    threads(1, |_| repeat(&order, limits, stat))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::create;

    const SET: Set = Set { name: "small", size: 5000, id: 3 };
    const LIMITS: Limits = Limits { seconds_min: 0.0, seconds_max: 60.0 };

    #[test]
    fn what_was_created_reads_back_and_a_changed_byte_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let content = Content::new(1);
        create::warm_up(dir.path(), SET, &content).unwrap();
        let made = create::files(dir.path(), SET, 100, 3, &content, LIMITS, create::Then::Close).unwrap();
        assert_eq!(made.done, 100);
        assert!(warm(dir.path(), SET, 100, 2, &content, 5, LIMITS).unwrap().done >= 200);
        assert!(stat(dir.path(), SET, 100, 5, LIMITS).unwrap().done >= 100);

        let victim = dir.path().join("small/000042.bin");
        let mut bytes = std::fs::read(&victim).unwrap();
        bytes[4999] ^= 1;
        std::fs::write(&victim, &bytes).unwrap();
        assert!(warm(dir.path(), SET, 100, 1, &content, 5, LIMITS).is_err());
        std::fs::write(&victim, &bytes[..4999]).unwrap();
        assert!(stat(dir.path(), SET, 100, 5, LIMITS).is_err());
    }

    #[test]
    fn a_slow_system_makes_fewer_files_without_gaps() {
        let dir = tempfile::tempdir().unwrap();
        let content = Content::new(1);
        let short = Limits { seconds_min: 0.0, seconds_max: 0.002 };
        let made = create::files(dir.path(), SET, 1_000_000, 4, &content, short, create::Then::Close)
            .unwrap()
            .done as usize;
        assert!(made < 1_000_000);
        assert_eq!(std::fs::read_dir(dir.path().join("small")).unwrap().count(), made);
        if made > 0 {
            warm(dir.path(), SET, made, 1, &content, 5, LIMITS).unwrap();
        }
    }
}
