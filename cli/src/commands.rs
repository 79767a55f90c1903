//! One file a command. Each resolves its settings, does its work, and prints what a person or program wants to know.

pub mod bench;
pub mod csi;
pub mod doctor;
pub mod explain;
pub mod fsck;
pub mod gc;
pub mod init;
pub mod keeper;
pub mod meta;
pub mod mount;
pub mod mount_helper;
pub mod node;
pub mod ns;
pub mod rebuild;
pub mod recover;
pub mod status;
pub mod sync;
pub mod token;
pub mod top;
pub mod trace;
pub mod umount;
pub mod version;
pub mod warmup;

use std::path::{Path, PathBuf};

use crate::exit::{Failure, Outcome, plain};
pub use crate::output::{print, print_json};

/// A table whose columns are as wide as their widest cell.
pub fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.len().max(*width);
        }
    }
    let mut out = String::new();
    for row in rows {
        let cells = widths.iter().zip(row).map(|(width, cell)| format!("{cell:width$}  "));
        out += cells.collect::<String>().trim_end();
        out.push('\n');
    }
    out
}

/// A directory's real path, as the kernel lists mounts. Only what leads to it is followed on disk, so that a mount that
/// is dead or hangs can still be named.
pub fn real_dir(dir: &Path) -> Outcome<PathBuf> {
    let cannot = |e: &std::io::Error| {
        Failure::of_kind(
            granary_core::Kind::NotFound,
            format!("cannot find the directory {}: {}", dir.display(), plain(e)),
        )
    };
    let absolute = std::path::absolute(dir).map_err(|e| cannot(&e))?;
    let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else {
        return absolute.canonicalize().map_err(|e| cannot(&e)); // the root, or it ends with `..`
    };
    let path = parent.canonicalize().map_err(|e| cannot(&e))?.join(name);
    if granary_fuse::mount::table::at(&path)?.is_some() {
        return Ok(path); // not asked: it may hang
    }
    match std::fs::symlink_metadata(&path) {
        Ok(meta) if meta.is_symlink() => path.canonicalize().map_err(|e| cannot(&e)),
        _ => Ok(path),
    }
}

/// A path as the socket's JSON wants it.
pub fn text_of(path: &Path) -> Outcome<String> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        Failure::usage(format!("the path {} is not UTF-8; mount at one that is", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_directories() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        std::fs::create_dir(top.join("a")).unwrap();
        std::os::unix::fs::symlink(top.join("a"), top.join("link")).unwrap();
        assert_eq!(real_dir(&top.join("link")).unwrap(), top.join("a"));
        assert_eq!(real_dir(&top.join("./a/")).unwrap(), top.join("a"));
        assert_eq!(real_dir(&top.join("a/..")).unwrap(), top);
        assert_eq!(real_dir(&top.join("missing")).unwrap(), top.join("missing"));
        assert_eq!(real_dir(Path::new("/")).unwrap(), Path::new("/"));
        assert!(real_dir(&top.join("no/such")).unwrap_err().message.contains("no/such"));
    }
}
