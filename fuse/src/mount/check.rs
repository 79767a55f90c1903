//! Whether a path can be mounted on; what cannot names the path, the reason and the mend.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use granary_core::{Error, Kind, Result};
use rustix::mount::UnmountFlags;

use super::options::MountOptions;
use super::table;

fn cannot(kind: Kind, path: &Path, why: impl std::fmt::Display) -> Error {
    Error::new(kind, format!("cannot mount on {}: {why}", path.display()))
}

/// Makes sure that `path` is an existing, free directory, and returns it absolute and without symlinks. A mount that a
/// killed process left dead there is removed first.
pub fn prepare(path: &Path, source: &str, options: &MountOptions) -> Result<PathBuf> {
    if options.over_dead && rustix::fs::statvfs(path).is_err_and(|e| is_dead(&e.into())) {
        let whole = absolute(path)?;
        match table::at(&whole)? {
            Some(mount) if mount.is_ours() && mount.source == source => {
                tracing::warn!(path = %whole.display(), "mounting over a mount whose process is gone");
                return Ok(whole);
            }
            _ => {}
        }
    }
    // The kernel answers stat of a dead mount with what it remembers; statfs is always asked anew.
    while rustix::fs::statvfs(path).is_err_and(|e| is_dead(&e.into())) {
        remove_dead(&absolute(path)?)?;
    }
    let meta = std::fs::metadata(path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => cannot(
            Kind::NotFound,
            path,
            format_args!("it does not exist; make it: mkdir -p {}", path.display()),
        ),
        io::ErrorKind::PermissionDenied => cannot(Kind::Access, path, "this user may not reach it"),
        _ => cannot(Kind::Io, path, "it cannot be looked at").with_source(e),
    })?;
    if !meta.is_dir() {
        return Err(cannot(Kind::NotDirectory, path, "it is not a directory; give an empty directory"));
    }
    let path = std::fs::canonicalize(path)
        .map_err(|e| cannot(Kind::Io, path, "it cannot be resolved").with_source(e))?;
    if let Some(mount) = table::at(&path)? {
        return Err(occupied(&path, source, &mount));
    }
    if !options.nonempty {
        let mut entries = std::fs::read_dir(&path)
            .map_err(|e| cannot(Kind::Io, &path, "it cannot be listed").with_source(e))?;
        if entries.next().is_some() {
            return Err(cannot(
                Kind::NotEmpty,
                &path,
                "it is not empty, and its files would be hidden; use an empty directory, or the option nonempty",
            ));
        }
    }
    Ok(path)
}

fn occupied(path: &Path, source: &str, mount: &table::Mount) -> Error {
    if mount.is_ours() && mount.source == source {
        return cannot(Kind::Exists, path, format_args!("{source} is mounted there already"));
    }
    let what = if mount.is_ours() {
        format!("namespace {}", mount.source)
    } else {
        format!("{} ({})", mount.source, mount.fs_type)
    };
    cannot(
        Kind::Busy,
        path,
        format_args!("{what} is mounted there; unmount that first, or take another directory"),
    )
}

/// What a mount answers whose process is gone.
fn is_dead(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::ENOTCONN | libc::ECONNABORTED))
}

/// Absolute and without symlinks, but for the last part, which cannot be asked.
pub(super) fn absolute(path: &Path) -> Result<PathBuf> {
    let unclear = |e: io::Error| cannot(Kind::Invalid, path, "the path cannot be resolved").with_source(e);
    match std::fs::canonicalize(path) {
        Ok(path) => Ok(path),
        Err(_) => {
            let whole = std::path::absolute(path).map_err(unclear)?;
            match (whole.parent(), whole.file_name()) {
                (Some(parent), Some(name)) => Ok(std::fs::canonicalize(parent).map_err(unclear)?.join(name)),
                _ => Ok(whole),
            }
        }
    }
}

fn remove_dead(path: &Path) -> Result<()> {
    match table::at(path)? {
        Some(mount) if mount.is_ours() => {
            tracing::warn!(path = %path.display(), "removing a mount whose process is gone");
            rustix::mount::unmount(path, UnmountFlags::DETACH).map_err(|e| {
                cannot(Kind::Busy, path, "a dead mount there cannot be removed")
                    .with_source(io::Error::from(e))
            })
        }
        Some(mount) => Err(cannot(
            Kind::Busy,
            path,
            format_args!(
                "a dead mount of another kind ({}) is there; umount -l {}",
                mount.fs_type,
                path.display()
            ),
        )),
        None => Err(cannot(
            Kind::Unavailable,
            path,
            "it lies in a mount whose process is gone; unmount that first",
        )),
    }
}

/// Opens the kernel's door.
pub fn open_device() -> Result<File> {
    File::options().read(true).write(true).open("/dev/fuse").map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Error::new(
            Kind::Unsupported,
            "cannot mount: /dev/fuse does not exist; load the kernel module (modprobe fuse), or give the container the device",
        ),
        io::ErrorKind::PermissionDenied => Error::new(
            Kind::Permission,
            "cannot mount: /dev/fuse may not be opened; run as root, or give the container the device",
        ),
        _ => Error::io("cannot mount: /dev/fuse cannot be opened", e),
    })
}

/// What mount(2) said.
pub fn mount_failed(path: &Path, e: io::Error) -> Error {
    match e.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => cannot(
            Kind::Permission,
            path,
            "mounting needs CAP_SYS_ADMIN; run as root, or in a privileged container",
        ),
        Some(libc::ENODEV) => {
            cannot(Kind::Unsupported, path, "this kernel has no FUSE; load it: modprobe fuse")
        }
        _ => cannot(Kind::Io, path, "mount(2) failed").with_source(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_mounted_on_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        let file = dir.path().join("file");
        std::fs::write(&file, b"x").unwrap();
        for (path, kind, says) in [
            (missing.as_path(), Kind::NotFound, "mkdir -p"),
            (file.as_path(), Kind::NotDirectory, "not a directory"),
            (dir.path(), Kind::NotEmpty, "nonempty"),
            (Path::new("/proc"), Kind::Busy, "is mounted there"),
        ] {
            let e = prepare(path, "user/alice", &MountOptions::default()).unwrap_err();
            assert_eq!(e.kind(), kind, "{e}");
            assert!(e.to_string().starts_with(&format!("cannot mount on {}", path.display())), "{e}");
            assert!(e.to_string().contains(says), "{e}");
        }
        let nonempty = MountOptions { nonempty: true, ..MountOptions::default() };
        assert_eq!(prepare(dir.path(), "user/alice", &nonempty).unwrap(), dir.path().canonicalize().unwrap());
    }

    #[test]
    fn symlinks_to_the_mountpoint_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert_eq!(
            prepare(&link, "user/alice", &MountOptions::default()).unwrap(),
            real.canonicalize().unwrap()
        );
        assert_eq!(
            absolute(&dir.path().join("none")).unwrap(),
            dir.path().canonicalize().unwrap().join("none")
        );
    }

    #[test]
    fn who_is_there_is_named() {
        let mount = |fs_type: &str, source: &str| table::Mount {
            id: 1,
            major: 0,
            minor: 1,
            root: "/".into(),
            path: "/m".into(),
            fs_type: fs_type.into(),
            source: source.into(),
        };
        let ours = occupied(Path::new("/m"), "user/a", &mount(table::FS_TYPE, "user/a"));
        assert_eq!((ours.kind(), ours.to_string().contains("already")), (Kind::Exists, true));
        let other = occupied(Path::new("/m"), "user/a", &mount(table::FS_TYPE, "group/b"));
        assert_eq!((other.kind(), other.to_string().contains("namespace group/b")), (Kind::Busy, true));
        let foreign = occupied(Path::new("/m"), "user/a", &mount("ext4", "/dev/sdb"));
        assert!(foreign.to_string().contains("/dev/sdb (ext4)"), "{foreign}");
    }

    #[test]
    fn lacking_privilege_says_what_is_needed() {
        let e = mount_failed(Path::new("/m"), io::Error::from_raw_os_error(libc::EPERM));
        assert_eq!((e.kind(), e.errno()), (Kind::Permission, libc::EPERM));
        assert!(e.to_string().contains("CAP_SYS_ADMIN"));
    }
}
