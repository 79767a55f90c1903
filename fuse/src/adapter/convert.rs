//! Our nouns in the kernel's words, and back.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, INodeNo, RenameFlags, TimeOrNow};
use granary_core::error::fail;
use granary_core::{Kind, Result, Timestamp};
use granary_meta::{Attr, FileType, RenameMode};

use crate::vfs::SetTime;

/// `st_blksize`: what stdio and Python take as buffer size for every open file, so not more than a small file needs.
const BLOCK_BYTES: u32 = 4096;

pub fn file_type(kind: FileType) -> fuser::FileType {
    match kind {
        FileType::File => fuser::FileType::RegularFile,
        FileType::Directory => fuser::FileType::Directory,
        FileType::Symlink => fuser::FileType::Symlink,
        FileType::Fifo => fuser::FileType::NamedPipe,
        FileType::Socket => fuser::FileType::Socket,
        FileType::CharDevice => fuser::FileType::CharDevice,
        FileType::BlockDevice => fuser::FileType::BlockDevice,
    }
}

/// The type in the high bits of a mode that mknod gives; 0 means a regular file.
pub fn type_of_mode(mode: u32) -> Result<FileType> {
    match mode & libc::S_IFMT {
        0 | libc::S_IFREG => Ok(FileType::File),
        libc::S_IFIFO => Ok(FileType::Fifo),
        libc::S_IFSOCK => Ok(FileType::Socket),
        libc::S_IFCHR => Ok(FileType::CharDevice),
        libc::S_IFBLK => Ok(FileType::BlockDevice),
        _ => fail(Kind::Invalid, "mknod makes files, pipes, sockets and devices"),
    }
}

pub fn system_time(t: Timestamp) -> SystemTime {
    let nanos = Duration::from_nanos(u64::from(t.nanos));
    let whole = Duration::from_secs(t.secs.unsigned_abs());
    let base = if t.secs >= 0 { UNIX_EPOCH.checked_add(whole) } else { UNIX_EPOCH.checked_sub(whole) };
    base.and_then(|base| base.checked_add(nanos)).unwrap_or(UNIX_EPOCH)
}

pub fn timestamp(t: SystemTime) -> Timestamp {
    match t.duration_since(UNIX_EPOCH) {
        Ok(d) => Timestamp { secs: d.as_secs() as i64, nanos: d.subsec_nanos() },
        Err(e) => {
            let d = e.duration();
            match d.subsec_nanos() {
                0 => Timestamp { secs: -(d.as_secs() as i64), nanos: 0 },
                nanos => Timestamp { secs: -(d.as_secs() as i64) - 1, nanos: 1_000_000_000 - nanos },
            }
        }
    }
}

pub fn set_time(t: TimeOrNow) -> SetTime {
    match t {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(t) => SetTime::At(timestamp(t)),
    }
}

pub fn attr(a: &Attr) -> FileAttr {
    let atime = system_time(a.atime);
    FileAttr {
        ino: INodeNo(a.ino.0),
        size: a.size,
        blocks: a.stored.div_ceil(512),
        atime,
        mtime: system_time(a.mtime),
        ctime: system_time(a.ctime),
        crtime: system_time(a.btime),
        kind: file_type(a.kind),
        perm: (a.mode & 0o7777) as u16,
        nlink: a.nlink,
        uid: a.uid,
        gid: a.gid,
        rdev: a.rdev,
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

/// The answer to a lookup of a name that is not there: inode 0, which the kernel remembers.
pub fn absent() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: fuser::FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

pub fn rename_mode(flags: RenameFlags) -> Result<RenameMode> {
    if flags.is_empty() {
        Ok(RenameMode::Replace)
    } else if flags == RenameFlags::RENAME_NOREPLACE {
        Ok(RenameMode::NoReplace)
    } else if flags == RenameFlags::RENAME_EXCHANGE {
        Ok(RenameMode::Exchange)
    } else {
        fail(Kind::Invalid, "rename can replace, not replace, or exchange")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn times_round_trip(secs in -(1_i64 << 40)..(1_i64 << 40), nanos in 0..1_000_000_000_u32) {
            let t = Timestamp { secs, nanos };
            prop_assert_eq!(timestamp(system_time(t)), t);
        }
    }

    #[test]
    fn rename_flags() {
        assert_eq!(rename_mode(RenameFlags::empty()).unwrap(), RenameMode::Replace);
        assert_eq!(rename_mode(RenameFlags::RENAME_EXCHANGE).unwrap(), RenameMode::Exchange);
        let both = RenameFlags::RENAME_EXCHANGE | RenameFlags::RENAME_NOREPLACE;
        assert_eq!(rename_mode(both).unwrap_err().errno(), libc::EINVAL);
        assert_eq!(rename_mode(RenameFlags::RENAME_WHITEOUT).unwrap_err().errno(), libc::EINVAL);
    }

    #[test]
    fn types_of_modes() {
        assert_eq!(type_of_mode(0o644).unwrap(), FileType::File);
        assert_eq!(type_of_mode(libc::S_IFIFO | 0o600).unwrap(), FileType::Fifo);
        assert!(type_of_mode(libc::S_IFDIR).is_err());
    }
}
