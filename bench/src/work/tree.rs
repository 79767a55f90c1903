//! A real tree of small files: unpacked, walked, read.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use super::read::read_one;
use super::{Limits, Outcome, shuffled, threads};
use crate::clock::Stopwatch;
use crate::process::run;
use crate::stop;
use crate::tree::Tree;

const NAME: &str = "tree";

pub fn root_of(root: &Path) -> PathBuf {
    root.join(NAME)
}

/// `tar -xf` into a new directory. `done` is files.
pub fn unpack(root: &Path, tree: &Tree) -> Result<Outcome> {
    let into = root_of(root);
    std::fs::create_dir(&into)?;
    std::io::copy(&mut std::fs::File::open(&tree.tar)?, &mut std::io::sink())?; // the tar itself is in the page cache
    threads(1, |_| {
        run(Command::new("tar").arg("-xf").arg(&tree.tar).arg("-C").arg(&into))?;
        Ok(tree.files.len() as u64)
    })
}

/// The real `find`, which prints each entry's size, after once through. `done` is entries.
pub fn find(root: &Path, tree: &Tree, limits: Limits) -> Result<Outcome> {
    let walk = || -> Result<u64> {
        let printed = run(Command::new("find").arg(root_of(root)).args(["-printf", "%s\\n"]))?;
        let entries = printed.lines().count() as u64;
        ensure!(entries == tree.entries, "find saw {entries} entries of {}", tree.entries);
        Ok(entries)
    };
    walk()?;
    threads(1, |_| {
        let watch = Stopwatch::start();
        let mut entries = walk()?;
        while watch.seconds() < limits.seconds_min {
            stop::check()?;
            entries += walk()?;
        }
        Ok(entries)
    })
}

/// Reads every file once, in an order that the seed decides, and checks length and crc32c. `done` is files.
pub fn read_once(
    root: &Path,
    tree: &Tree,
    thread_count: usize,
    seed: u64,
    limits: Limits,
) -> Result<Outcome> {
    let paths = tree.paths(&root_of(root))?;
    let order = shuffled(paths.len(), seed);
    let longest = tree.files.iter().map(|f| f.size).max().unwrap_or(0) as usize;
    let share = order.len().div_ceil(thread_count);
    threads(thread_count, |t| {
        let mut buf = vec![0; longest + 1];
        let mine = order.chunks(share).nth(t).unwrap_or(&[]);
        let watch = Stopwatch::start();
        let mut done = 0;
        for &i in mine {
            stop::check()?;
            if watch.seconds() > limits.seconds_max {
                break;
            }
            let want = &tree.files[i];
            let bytes = read_one(&paths[i], &mut buf, want.size as usize)?;
            ensure!(
                granary_core::crc32c(bytes) == want.crc32c,
                "{}: not what was unpacked",
                want.path.display()
            );
            done += 1;
        }
        Ok(done)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_unpacked_walked_and_read_and_changes_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::prepare(None, dir.path(), 1, 130).unwrap();
        let limits = Limits { seconds_min: 0.0, seconds_max: 60.0 };
        assert_eq!(unpack(dir.path(), &tree).unwrap().done, 130);
        assert_eq!(find(dir.path(), &tree, limits).unwrap().done, tree.entries);
        assert_eq!(read_once(dir.path(), &tree, 8, 1, limits).unwrap().done, 130);

        let victim = root_of(dir.path()).join(&tree.files[50].path);
        std::fs::write(&victim, b"other").unwrap();
        assert!(read_once(dir.path(), &tree, 8, 1, limits).is_err());
        std::fs::remove_file(victim).unwrap();
        assert!(find(dir.path(), &tree, limits).is_err());
    }
}
