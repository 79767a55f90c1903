//! A plain reference of a small tree, and random operations that change it and a real mount alike.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{Rng, RngExt};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub bytes: Vec<u8>,
    pub mode: u32,
    /// Names that are links to one file have the same number.
    pub file: u64,
}

/// Directories, and files by path; paths are relative.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    pub dirs: BTreeSet<PathBuf>,
    pub files: BTreeMap<PathBuf, Entry>,
    made: u64,
}

/// What one step touched: looked at again from other nodes right away.
pub type Touched = Vec<PathBuf>;

impl Model {
    /// Names are few, so that steps meet each other.
    fn name(&self, rng: &mut StdRng) -> PathBuf {
        let name = format!("f{}", rng.random_range(0..25));
        match self.dirs.iter().nth(rng.random_range(0..self.dirs.len() + 1)) {
            Some(dir) => dir.join(name),
            None => name.into(),
        }
    }

    fn any(&self, rng: &mut StdRng) -> Option<PathBuf> {
        self.files.keys().nth(rng.random_range(0..self.files.len().max(1))).cloned()
    }

    /// Changes the file that `path` names, under all its names.
    fn change(&mut self, path: &Path, change: impl Fn(&mut Entry)) {
        let file = self.files[path].file;
        self.files.values_mut().filter(|e| e.file == file).for_each(change);
    }

    fn write(&mut self, root: &Path, rng: &mut StdRng) -> Touched {
        let path = self.name(rng);
        // Some outgrow what a pack takes.
        let len = if rng.random_range(0..25) == 0 { 1_500_000 } else { rng.random_range(0..20_000) };
        let mut bytes = vec![0; len];
        rng.fill_bytes(&mut bytes);
        fs::write(root.join(&path), &bytes).expect("write");
        if self.files.contains_key(&path) {
            self.change(&path, |e| e.bytes = bytes.clone());
        } else {
            let mode = fs::metadata(root.join(&path)).expect("stat").mode() & 0o7777;
            self.made += 1;
            self.files.insert(path.clone(), Entry { bytes, mode, file: self.made });
        }
        vec![path]
    }

    /// In place, at the end, or to another size.
    fn edit(&mut self, root: &Path, rng: &mut StdRng) -> Touched {
        let Some(path) = self.any(rng) else { return vec![] };
        let (kind, size) = (rng.random_range(0..3), self.files[&path].bytes.len());
        let mut part = vec![0; rng.random_range(1..5_000)];
        rng.fill_bytes(&mut part);
        let at = rng.random_range(0..=size + 3_000);
        let full = root.join(&path);
        match kind {
            0 => OpenOptions::new().write(true).open(full).and_then(|f| f.write_all_at(&part, at as u64)),
            1 => OpenOptions::new().append(true).open(full).and_then(|mut f| f.write_all(&part)),
            _ => OpenOptions::new().write(true).open(full).and_then(|f| f.set_len(at as u64)),
        }
        .expect("edit");
        self.change(&path, |e| {
            let start = if kind == 0 { at } else { size };
            if kind == 2 {
                e.bytes.resize(at, 0);
            } else {
                e.bytes.resize(size.max(start + part.len()), 0);
                e.bytes[start..start + part.len()].copy_from_slice(&part);
            }
        });
        vec![path]
    }

    fn rename(&mut self, root: &Path, rng: &mut StdRng) -> Touched {
        let (Some(from), to) = (self.any(rng), self.name(rng)) else { return vec![] };
        fs::rename(root.join(&from), root.join(&to)).expect("rename");
        let same_file = self.files.get(&to).is_some_and(|e| e.file == self.files[&from].file);
        // POSIX: two names of one file both stay.
        if !same_file {
            let entry = self.files.remove(&from).expect("it was there");
            self.files.insert(to.clone(), entry);
        }
        vec![from, to]
    }

    fn link(&mut self, root: &Path, rng: &mut StdRng) -> Touched {
        let (Some(from), to) = (self.any(rng), self.name(rng)) else { return vec![] };
        match fs::hard_link(root.join(&from), root.join(&to)) {
            Ok(()) => {
                assert!(!self.files.contains_key(&to), "a link over {}", to.display());
                let entry = self.files[&from].clone();
                self.files.insert(to.clone(), entry);
            }
            Err(e) => assert!(self.files.contains_key(&to), "link to {}: {e}", to.display()),
        }
        vec![from, to]
    }

    fn directory(&mut self, root: &Path, rng: &mut StdRng) -> Touched {
        let dir = PathBuf::from(format!("d{}", rng.random_range(0..4)));
        if self.dirs.contains(&dir) {
            let removed = fs::remove_dir(root.join(&dir));
            let empty = !self.files.keys().any(|f| f.starts_with(&dir));
            assert_eq!(removed.is_ok(), empty, "rmdir {}: {removed:?}", dir.display());
            if empty {
                self.dirs.remove(&dir);
            }
        } else {
            fs::create_dir(root.join(&dir)).expect("mkdir");
            self.dirs.insert(dir.clone());
        }
        vec![dir]
    }

    /// One random change through the mount at `root`.
    pub fn step(&mut self, root: &Path, rng: &mut StdRng) -> Touched {
        match rng.random_range(0..100) {
            0..30 => self.write(root, rng),
            30..55 => self.edit(root, rng),
            55..68 => self.rename(root, rng),
            68..75 => self.link(root, rng),
            75..82 => self.directory(root, rng),
            82..92 => {
                let Some(path) = self.any(rng) else { return vec![] };
                fs::remove_file(root.join(&path)).expect("unlink");
                self.files.remove(&path);
                vec![path]
            }
            _ => {
                let Some(path) = self.any(rng) else { return vec![] };
                let mode = 0o600 | rng.random_range(0..0o100);
                fs::set_permissions(root.join(&path), Permissions::from_mode(mode)).expect("chmod");
                self.change(&path, |e| e.mode = mode);
                vec![path]
            }
        }
    }

    /// What a node shows for one path: by name, by stat and by its bytes.
    pub fn check_path(&self, root: &Path, path: &Path, who: &str) {
        let (full, shown) = (root.join(path), path.display());
        let parent = full.parent().expect("below the mount");
        match self.files.get(path) {
            Some(entry) => {
                let meta = fs::symlink_metadata(&full).unwrap_or_else(|e| panic!("{who}: {shown}: {e}"));
                assert_eq!(meta.size(), entry.bytes.len() as u64, "{who}: size of {shown}");
                assert_eq!(meta.mode() & 0o7777, entry.mode, "{who}: mode of {shown}");
                let links = self.files.values().filter(|e| e.file == entry.file).count();
                assert_eq!(meta.nlink(), links as u64, "{who}: links of {shown}");
                let file = File::open(&full).unwrap_or_else(|e| panic!("{who}: {shown}: {e}"));
                let mut bytes = vec![0; entry.bytes.len() + 1];
                let n = read_all(&file, &mut bytes);
                let differs = bytes[..n].iter().zip(&entry.bytes).position(|(a, b)| a != b);
                assert!(
                    bytes[..n] == entry.bytes,
                    "{who}: {shown}: {n} bytes, stale or wrong at {differs:?}"
                );
            }
            None if self.dirs.contains(path) => assert!(full.is_dir(), "{who}: {shown} is no directory"),
            None => {
                let found = fs::symlink_metadata(&full);
                assert!(found.is_err(), "{who}: {shown} is still there");
                let listed = fs::read_dir(parent).into_iter().flatten();
                let listed = listed.flatten().any(|e| Some(&*e.file_name()) == full.file_name());
                assert!(!listed, "{who}: {shown} is still listed");
            }
        }
    }

    /// All of it, listings too.
    pub fn check(&self, root: &Path, who: &str) {
        let (mut dirs, mut files) = (BTreeSet::new(), BTreeSet::new());
        let mut todo = vec![root.to_owned()];
        while let Some(dir) = todo.pop() {
            for entry in fs::read_dir(&dir).unwrap_or_else(|e| panic!("{who}: {}: {e}", dir.display())) {
                let entry = entry.expect("entry");
                let path = entry.path().strip_prefix(root).expect("below").to_owned();
                if entry.file_type().expect("type").is_dir() {
                    todo.push(entry.path());
                    dirs.insert(path);
                } else {
                    files.insert(path);
                }
            }
        }
        assert_eq!(dirs, self.dirs, "{who}: directories");
        assert!(files.iter().eq(self.files.keys()), "{who}: {files:?} but {:?}", self.files.keys());
        self.files.keys().for_each(|path| self.check_path(root, path, who));
    }
}

fn read_all(file: &File, buf: &mut [u8]) -> usize {
    let mut n = 0;
    loop {
        match file.read_at(&mut buf[n..], n as u64).expect("read") {
            0 => return n,
            got => n += got,
        }
    }
}
