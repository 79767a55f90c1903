//! The tree of small files that is unpacked, and what each of its files holds.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::process::run;

/// One file of the tree.
#[derive(Debug)]
pub struct TreeFile {
    /// Relative to the tree's root.
    pub path: PathBuf,
    pub size: u64,
    pub crc32c: u32,
}

/// A tree, as a tar file and as a list of what must come out of it.
#[derive(Debug)]
pub struct Tree {
    pub what: String,
    pub tar: PathBuf,
    pub files: Vec<TreeFile>,
    /// Files, directories and links, with the root.
    pub entries: u64,
    pub bytes: u64,
}

impl Tree {
    /// Of `source`, or of `generated` files made in `dir`.
    pub fn prepare(source: Option<&Path>, dir: &Path, seed: u64, generated: usize) -> Result<Self> {
        let made = dir.join("tree");
        let root = match source {
            Some(path) => path,
            None => {
                generate(&made, seed, generated)?;
                &made
            }
        };
        let tar = dir.join("tree.tar");
        run(Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(root).arg("."))?;
        let what = source
            .and_then(|s| s.file_name())
            .map_or("generated".into(), |n| n.to_string_lossy().into_owned());
        let mut tree = Tree { what, tar, files: Vec::new(), entries: 1, bytes: 0 };
        tree.scan(root, Path::new(""))?;
        ensure!(!tree.files.is_empty(), "{} has no files", root.display());
        if source.is_none() {
            fs::remove_dir_all(&made)?;
        }
        Ok(tree)
    }

    fn scan(&mut self, root: &Path, below: &Path) -> Result<()> {
        let dir = root.join(below);
        let mut names = fs::read_dir(&dir)
            .and_then(|entries| {
                entries.map(|e| e.map(|e| (e.file_name(), e.file_type()))).collect::<Result<Vec<_>, _>>()
            })
            .with_context(|| format!("cannot list {}", dir.display()))?;
        names.sort_by(|a, b| a.0.cmp(&b.0));
        for (name, kind) in names {
            self.entries += 1;
            let (path, kind) = (below.join(name), kind?);
            if kind.is_dir() {
                self.scan(root, &path)?;
            } else if kind.is_file() {
                let bytes = fs::read(root.join(&path))?;
                self.bytes += bytes.len() as u64;
                self.files.push(TreeFile {
                    path,
                    size: bytes.len() as u64,
                    crc32c: granary_core::crc32c(&bytes),
                });
            }
        }
        Ok(())
    }

    /// Where each file lies below `root`.
    pub fn paths(&self, root: &Path) -> Result<Vec<CString>> {
        self.files.iter().map(|f| Ok(CString::new(root.join(&f.path).as_os_str().as_bytes())?)).collect()
    }
}

/// Files of sizes like those of Debian's tuxpaint-stamps-default (10,401 files, 217 MB: median 5 KB, mean 21 KB), 60 a directory.
fn generate(root: &Path, seed: u64, count: usize) -> Result<()> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut noise = vec![0; 2 << 20];
    rng.fill(&mut noise[..]);
    for i in 0..count {
        let dir = root.join(format!("{:02}/{}", i / 600, i / 60 % 10));
        if i % 60 == 0 {
            fs::create_dir_all(&dir)?;
        }
        // log-normal by Box and Muller: exp(8.52 + 1.69 z) has that median and mean
        let (u, v): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
        let z = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
        let size = (8.52 + 1.69 * z).exp().min((1 << 20) as f64) as usize;
        let at = rng.random_range(0..1 << 20);
        fs::write(dir.join(format!("{i:05}.bin")), &noise[at..at + size])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tar_holds_the_files_listed() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::prepare(None, dir.path(), 3, 700).unwrap();
        assert_eq!(tree.files.len(), 700);
        assert_eq!(tree.entries, 700 + 1 + 2 + 12);
        let out = dir.path().join("out");
        fs::create_dir(&out).unwrap();
        run(Command::new("tar").arg("-xf").arg(&tree.tar).arg("-C").arg(&out)).unwrap();
        for f in &tree.files {
            let bytes = fs::read(out.join(&f.path)).unwrap();
            assert_eq!((bytes.len() as u64, granary_core::crc32c(&bytes)), (f.size, f.crc32c));
        }
        let mean = tree.bytes / 700;
        assert!((10_000..40_000).contains(&mean), "{mean}");
    }
}
