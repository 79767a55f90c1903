//! Our nouns in the kernel's words, and back.

use granary_core::error::fail;
use granary_core::{Kind, Result, Timestamp};
use granary_meta::lease::{Lock, LockKind};
use granary_meta::{Attr, FileType, RenameMode};

use crate::proto::answer::Attributes;
use crate::proto::request::{FileLock, LK_FLOCK, LockCall, Setattr, Time, valid};
use crate::vfs::{Changes, SetTime};

/// `st_blksize`: what stdio and Python take as buffer size for every open file, so not more than a small file needs.
const BLOCK_BYTES: u32 = 4096;
/// The end of a lock that goes on to the end of the file, as the kernel has it.
const TO_THE_END: u64 = i64::MAX as u64;

/// A type as the high four bits of a mode.
pub fn type_bits(kind: FileType) -> u32 {
    match kind {
        FileType::File => libc::S_IFREG,
        FileType::Directory => libc::S_IFDIR,
        FileType::Symlink => libc::S_IFLNK,
        FileType::Fifo => libc::S_IFIFO,
        FileType::Socket => libc::S_IFSOCK,
        FileType::CharDevice => libc::S_IFCHR,
        FileType::BlockDevice => libc::S_IFBLK,
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

fn time(t: Timestamp) -> Time {
    Time { secs: t.secs, nanos: t.nanos }
}

pub fn attr(a: &Attr) -> Attributes {
    Attributes {
        ino: a.ino.0,
        size: a.size,
        blocks: a.stored.div_ceil(512),
        atime: time(a.atime),
        mtime: time(a.mtime),
        ctime: time(a.ctime),
        btime: time(a.btime),
        mode: type_bits(a.kind) | a.mode & 0o7777,
        nlink: a.nlink,
        uid: a.uid,
        gid: a.gid,
        device: a.rdev,
        block_size: BLOCK_BYTES,
    }
}

pub fn changes(set: &Setattr) -> Changes {
    let given = |bit: u32| set.valid & bit != 0;
    let at = |bit, now, t: Time| {
        given(bit).then(|| {
            // More nanoseconds than a second has are no time that anybody can have meant.
            let nanos = t.nanos.min(999_999_999);
            if given(now) { SetTime::Now } else { SetTime::At(Timestamp { secs: t.secs, nanos }) }
        })
    };
    Changes {
        mode: given(valid::MODE).then_some(set.mode & 0o7777),
        uid: given(valid::UID).then_some(set.uid),
        gid: given(valid::GID).then_some(set.gid),
        size: given(valid::SIZE).then_some(set.size),
        fh: given(valid::FH).then_some(set.fh),
        atime: at(valid::ATIME, valid::ATIME_NOW, set.atime),
        mtime: at(valid::MTIME, valid::MTIME_NOW, set.mtime),
    }
}

pub fn rename_mode(flags: u32) -> Result<RenameMode> {
    match flags {
        0 => Ok(RenameMode::Replace),
        libc::RENAME_NOREPLACE => Ok(RenameMode::NoReplace),
        libc::RENAME_EXCHANGE => Ok(RenameMode::Exchange),
        _ => fail(Kind::Invalid, "rename can replace, not replace, or exchange"),
    }
}

/// The lock that a call is about, and whether it is to be given up.
pub fn lock(call: &LockCall) -> Result<(Lock, bool)> {
    let FileLock { start, end, kind, pid } = call.lock;
    let (kind, unlock) = match kind as i32 {
        libc::F_RDLCK => (LockKind::Shared, false),
        libc::F_WRLCK => (LockKind::Exclusive, false),
        libc::F_UNLCK => (LockKind::Shared, true),
        _ => return fail(Kind::Invalid, "a lock is for reading, for writing, or given up"),
    };
    if start > end {
        return fail(Kind::Invalid, "a lock ends before it begins");
    }
    let end = if end >= TO_THE_END { u64::MAX } else { end };
    Ok((Lock { flock: call.flags & LK_FLOCK != 0, kind, start, end, pid }, unlock))
}

/// What is in the way of a lock, for F_GETLK.
pub fn file_lock(found: Option<&Lock>) -> FileLock {
    match found {
        None => FileLock { kind: libc::F_UNLCK as u32, ..FileLock::default() },
        Some(lock) => FileLock {
            start: lock.start.min(TO_THE_END),
            end: lock.end.min(TO_THE_END),
            kind: match lock.kind {
                LockKind::Shared => libc::F_RDLCK as u32,
                LockKind::Exclusive => libc::F_WRLCK as u32,
            },
            pid: lock.pid,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rename_flags() {
        assert_eq!(rename_mode(0).unwrap(), RenameMode::Replace);
        assert_eq!(rename_mode(libc::RENAME_EXCHANGE).unwrap(), RenameMode::Exchange);
        let both = libc::RENAME_EXCHANGE | libc::RENAME_NOREPLACE;
        assert_eq!(rename_mode(both).unwrap_err().errno(), libc::EINVAL);
        assert_eq!(rename_mode(libc::RENAME_WHITEOUT).unwrap_err().errno(), libc::EINVAL);
    }

    #[test]
    fn types_of_modes() {
        assert_eq!(type_of_mode(0o644).unwrap(), FileType::File);
        assert_eq!(type_of_mode(libc::S_IFIFO | 0o600).unwrap(), FileType::Fifo);
        assert!(type_of_mode(libc::S_IFDIR).is_err());
        for kind in
            [FileType::File, FileType::Fifo, FileType::Socket, FileType::CharDevice, FileType::BlockDevice]
        {
            assert_eq!(type_of_mode(type_bits(kind)).unwrap(), kind);
        }
    }

    #[test]
    fn only_what_is_given_is_changed() {
        let set = Setattr {
            valid: valid::MODE | valid::ATIME | valid::ATIME_NOW | valid::MTIME,
            mode: 0o104_755,
            uid: 5,
            mtime: Time { secs: -7, nanos: u32::MAX },
            ..Setattr::default()
        };
        let expected = Changes {
            mode: Some(0o4755),
            atime: Some(SetTime::Now),
            mtime: Some(SetTime::At(Timestamp { secs: -7, nanos: 999_999_999 })),
            ..Changes::default()
        };
        assert_eq!(changes(&set), expected);
    }

    #[test]
    fn locks_and_back() {
        let call = |start, end, kind, flags| LockCall {
            lock: FileLock { start, end, kind, pid: 9 },
            flags,
            ..LockCall::default()
        };
        let (whole, unlock) = lock(&call(0, i64::MAX as u64, libc::F_WRLCK as u32, LK_FLOCK)).unwrap();
        assert!(whole.flock && !unlock);
        assert_eq!((whole.kind, whole.start, whole.end, whole.pid), (LockKind::Exclusive, 0, u64::MAX, 9));
        let back = file_lock(Some(&whole));
        assert_eq!(back, call(0, i64::MAX as u64, libc::F_WRLCK as u32, 0).lock);
        let (part, unlock) = lock(&call(3, 7, libc::F_UNLCK as u32, 0)).unwrap();
        assert!(unlock && !part.flock && (part.start, part.end) == (3, 7));
        assert_eq!(file_lock(None).kind, libc::F_UNLCK as u32);
        assert!(lock(&call(7, 3, 0, 0)).is_err() && lock(&call(0, 1, 9, 0)).is_err());
    }
}
