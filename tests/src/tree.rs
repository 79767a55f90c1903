//! Trees of files, made from a seed and compared whole.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Everything a copy must keep: path -> (mode, kind and content).
pub type Tree = BTreeMap<PathBuf, (u32, Vec<u8>)>;

/// Makes `files` files of up to `bytes_max` bytes in nested directories, some empty, some executable, some links.
pub fn fill(root: &Path, seed: u64, files: usize, bytes_max: usize) {
    let mut rng = StdRng::seed_from_u64(seed);
    for i in 0..files {
        let dir =
            root.join(format!("d{}", rng.random_range(0..10))).join(format!("e{}", rng.random_range(0..5)));
        fs::create_dir_all(&dir).expect("mkdir");
        let path = dir.join(format!("file {i}.dat"));
        if i % 50 == 7 {
            std::os::unix::fs::symlink(format!("file {}.dat", i + 1), &path).expect("symlink");
            continue;
        }
        let len = if i % 20 == 3 { 0 } else { rng.random_range(0..bytes_max) };
        let mut content = vec![0; len];
        rng.fill(&mut content[..]);
        fs::write(&path, content).expect("write");
        if i % 11 == 0 {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).expect("chmod");
        }
    }
}

/// Reads all of it, every byte.
pub fn read_tree(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
            let path = entry.expect("entry").path();
            let meta = fs::symlink_metadata(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let content = if meta.is_dir() {
                todo.push(path.clone());
                Vec::new()
            } else if meta.is_symlink() {
                fs::read_link(&path).expect("readlink").into_os_string().into_encoded_bytes()
            } else {
                let content = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
                assert_eq!(content.len() as u64, meta.size(), "{}", path.display());
                content
            };
            tree.insert(path.strip_prefix(root).expect("below root").to_owned(), (meta.mode(), content));
        }
    }
    tree
}
