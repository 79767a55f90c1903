//! Listing a large directory as `ls -l` does: its entries, and what each is.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::fs::{AtFlags, Dir, Mode, OFlags, open, statat};

use crate::{Limits, Outcome, Set, repeat, threads};

/// Lists `dir` and stats each of its entries, which must have `size` bytes; how many there are.
fn list_one(dir: &Path, size: usize) -> Result<u64> {
    let fd = open(dir, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
        .with_context(|| format!("open {}", dir.display()))?;
    let entries = Dir::read_from(&fd).with_context(|| format!("list {}", dir.display()))?;
    let mut seen = 0;
    for entry in entries {
        let entry = entry.with_context(|| format!("list {}", dir.display()))?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let found = statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW)
            .with_context(|| format!("stat {}", dir.join(name.to_string_lossy().as_ref()).display()))?;
        ensure!(found.st_size == size as i64, "{name:?}: size {} of {size}", found.st_size);
        seen += 1;
    }
    Ok(seen)
}

/// `ls -l` of the set's directory by one thread, again and again, after once through. `done` is entries.
///
/// # Errors
/// Also when another number than `count` is listed.
pub fn long(root: &Path, set: Set, count: usize, limits: Limits) -> Result<Outcome> {
    let dir = root.join(set.name);
    let list = || {
        let seen = list_one(&dir, set.size)?;
        ensure!(seen == count as u64, "{}: {seen} entries were listed of {count}", dir.display());
        Ok(())
    };
    list()?;
    let mut outcome = threads(1, |_| repeat(&[0], limits, |_| list()))?;
    outcome.done *= count as u64;
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Content;
    use crate::create;

    const LIMITS: Limits = Limits { seconds_min: 0.0, seconds_max: 60.0 };

    #[test]
    fn entries_are_counted_and_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let set = Set { name: "many", size: 10, id: 1 };
        create::files(dir.path(), set, 50, 2, &Content::new(1), LIMITS, create::Then::Close).unwrap();
        let done = long(dir.path(), set, 50, LIMITS).unwrap().done;
        assert!(done >= 50 && done.is_multiple_of(50), "{done}");
        assert!(long(dir.path(), set, 51, LIMITS).is_err());
        std::fs::write(dir.path().join("many/000007.bin"), b"longer than ten").unwrap();
        assert!(long(dir.path(), set, 50, LIMITS).is_err());
    }
}
