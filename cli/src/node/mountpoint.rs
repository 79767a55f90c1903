//! Where a user who is not root may have a mount.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use granary_core::Kind;

use crate::exit::{Failure, Outcome, plain};

/// A user may mount at a directory of their own that nobody but root can move or replace: otherwise a symbolic link put in
/// its way would have us mount over somebody else's.
pub fn check_own(dir: &Path, uid: u32) -> Outcome<()> {
    let refuse = |why: String| {
        Err(Failure::of_kind(
            Kind::Permission,
            format!(
                "user {uid} may not mount at {}: {why}; have root make a directory of yours in one that only root can \
                 change, for example /mnt/NAME, or mount with sudo",
                dir.display()
            ),
        ))
    };
    for (above, part) in dir.ancestors().enumerate() {
        let meta = match std::fs::symlink_metadata(part) {
            Ok(meta) if meta.is_dir() => meta,
            Ok(_) => return refuse(format!("{} is no directory", part.display())),
            Err(e) => {
                return refuse(format!("{} cannot be looked at ({})", part.display(), plain(&e)));
            }
        };
        if above == 0 && meta.uid() != uid {
            return refuse("it belongs to somebody else".to_owned());
        }
        if above > 0 && (meta.uid() != 0 || meta.mode() & 0o022 != 0) {
            return refuse(format!("others than root can change {}", part.display()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_mount_only_where_nobody_can_move_the_directory() {
        // The temporary directory is writable by everybody, so nothing below it will do.
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        let me = rustix::process::geteuid().as_raw();
        assert!(check_own(&top, me).unwrap_err().message.contains("others than root can change"));
        assert!(check_own(&top, me + 1).unwrap_err().message.contains("somebody else"));
        std::os::unix::fs::symlink("/etc", top.join("link")).unwrap();
        assert!(check_own(&top.join("link"), me).unwrap_err().message.contains("no directory"));
        assert!(check_own(&top.join("none"), me).unwrap_err().message.contains("cannot be looked at"));
        // Root's own directories are all right for root.
        assert!(check_own(Path::new("/etc"), 0).is_ok());
    }
}
