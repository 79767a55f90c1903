//! The cache directory: its disk, its room, and what that disk can do.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::fs::FallocateFlags;

use super::Finding;
use crate::exit::plain;
use crate::node::lock::{check_room, disk_room};
use crate::settings::Settings;
use crate::units::show_bytes;

/// Numbers of `statfs` for file systems that are no local disk.
const TMPFS: i64 = 0x0102_1994;
const OVERLAY: i64 = 0x794c_7630;
const NFS: i64 = 0x6969;
const FUSE: i64 = 0x6573_5546;

pub fn cache(settings: &Settings) -> Vec<Finding> {
    let dir = &settings.cache;
    if let Err(e) = DirBuilder::new().recursive(true).mode(0o700).create(dir) {
        let found = format!("{} cannot be made: {}", dir.display(), plain(&e));
        return vec![Finding::bad("cache", found, "give a directory on a local disk with --cache")];
    }
    vec![kind(dir), room(settings), sparse(dir)]
}

fn kind(dir: &Path) -> Finding {
    // The kernel's type differs by machine.
    #[allow(clippy::unnecessary_cast)]
    match rustix::fs::statfs(dir) {
        Ok(stat) => judge_kind(dir, stat.f_type as i64),
        Err(e) => Finding::bad("cache", format!("{}: {e}", dir.display()), "give another --cache"),
    }
}

fn judge_kind(dir: &Path, magic: i64) -> Finding {
    let bad = |what: &str, why: &str| {
        let found = format!("{} is on {what}: {why}", dir.display());
        Finding::bad("cache", found, "give a directory on a local disk with --cache")
    };
    match magic {
        TMPFS => bad("a tmpfs", "what fsync acknowledged would be gone with the power"),
        NFS => bad("NFS", "it is to be this machine's own, and as fast as a disk"),
        FUSE => bad("another FUSE file system", "it is to be this machine's own, and as fast as a disk"),
        OVERLAY => Finding::lacking(
            "cache",
            format!("{} is on overlayfs", dir.display()),
            "in a container, mount a directory of the node's disk there (hostPath, or a volume)",
        ),
        _ => Finding::good("cache", dir.display().to_string()),
    }
}

fn room(settings: &Settings) -> Finding {
    let free = disk_room(&settings.cache).and_then(|(free, total)| {
        check_room(&settings.cache, settings.limits.cache_free_min())?;
        Ok((free, total))
    });
    match free {
        Ok((free, total)) => {
            Finding::good("cache room", format!("{} free of {}", show_bytes(free), show_bytes(total)))
        }
        Err(failure) => Finding::failed("cache room", &failure),
    }
}

/// Large files are sparse, and holes are punched into them.
fn sparse(dir: &Path) -> Finding {
    let punched = tempfile::tempfile_in(dir).and_then(|file| punch(&file));
    match punched {
        Ok(()) => Finding::good("cache disk", "writes, syncs and punches holes"),
        Err(e) => Finding::bad(
            "cache disk",
            format!("a file in {} cannot be written, synced and punched: {}", dir.display(), plain(&e)),
            "give a directory on ext4, XFS or btrfs with --cache",
        ),
    }
}

fn punch(file: &File) -> std::io::Result<()> {
    rustix::io::pwrite(file, &[1; 8192], 0)?;
    file.sync_data()?;
    rustix::fs::fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, 4096)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn file_systems() {
        let ext4 = 0xef53;
        for (magic, state) in [
            (TMPFS, State::Bad),
            (NFS, State::Bad),
            (FUSE, State::Bad),
            (OVERLAY, State::Lacking),
            (ext4, State::Good),
        ] {
            assert_eq!(judge_kind(Path::new("/c"), magic).state, state, "{magic:x}");
        }
    }
}
