//! What the kernel asks. Names and data are borrowed from the buffer that was read.
//!
//! After the header come, in this order and without gaps but for those said to be unused (`_4`: four bytes):
//!
//! | operation | fields, with their size | then |
//! |---|---|---|
//! | LOOKUP, UNLINK, RMDIR, REMOVEXATTR | | name |
//! | FORGET | lookups 8 | |
//! | BATCH_FORGET | count 4, `_4` | as often: inode 8, lookups 8 |
//! | GETATTR | flags 4, `_4`, fh 8 | |
//! | STATX | flags 4, `_4`, fh 8, AT_ flags 4, STATX_ mask 4 | |
//! | SETATTR | valid 4, `_4`, fh 8, size 8, lock owner 8, atime 8, mtime 8, ctime 8, their nanoseconds 4 each, mode 4, `_4`, uid 4, gid 4, `_4` | |
//! | READLINK, STATFS, DESTROY | | |
//! | SYMLINK | | name, target |
//! | MKNOD | mode 4, device 4, umask 4, `_4` | name |
//! | MKDIR | mode 4, umask 4 | name |
//! | RENAME; RENAME2 | new directory 8; the same, flags 4, `_4` | name, new name |
//! | LINK | inode 8 | name |
//! | OPEN, OPENDIR | open(2) flags 4, FUSE_OPEN_ flags 4 | |
//! | CREATE, TMPFILE | open(2) flags 4, mode 4, umask 4, FUSE_OPEN_ flags 4 | name |
//! | READ, READDIR, READDIRPLUS | fh 8, offset 8, size 4, read flags 4, lock owner 8, open(2) flags 4, `_4` | |
//! | WRITE | fh 8, offset 8, size 4, write flags 4, lock owner 8, open(2) flags 4, `_4` | size bytes |
//! | RELEASE, RELEASEDIR | fh 8, open(2) flags 4, release flags 4, lock owner 8 | |
//! | FLUSH | fh 8, `_8`, lock owner 8 | |
//! | FSYNC, FSYNCDIR | fh 8, flags 4, `_4` | |
//! | SETXATTR | size 4, flags 4; with SETXATTR_EXT also own flags 4, `_4` | name, size bytes |
//! | GETXATTR; LISTXATTR | size 4, `_4` | name; nothing |
//! | GETLK, SETLK, SETLKW | fh 8, owner 8, start 8, end 8 (included), type 4, pid 4, flags 4, `_4` | |
//! | ACCESS | mask 4, `_4` | |
//! | INTERRUPT | unique 8 | |
//! | FALLOCATE | fh 8, offset 8, length 8, mode 4, `_4` | |
//! | LSEEK | fh 8, offset 8, whence 4, `_4` | |
//! | COPY_FILE_RANGE, .._64 | fh 8, offset 8, inode to 8, fh to 8, offset to 8, length 8, flags 8 | |
//! | SYNCFS | `_8` | |
//! | IOCTL | fh 8, flags 4, number 4, argument 8, bytes in 4, bytes out 4 | bytes in |

mod parse;
#[cfg(test)]
mod tests;

use super::init::Offer;

/// Bits of `Setattr::valid`.
pub mod valid {
    pub const MODE: u32 = 1;
    pub const UID: u32 = 1 << 1;
    pub const GID: u32 = 1 << 2;
    pub const SIZE: u32 = 1 << 3;
    pub const ATIME: u32 = 1 << 4;
    pub const MTIME: u32 = 1 << 5;
    pub const FH: u32 = 1 << 6;
    pub const ATIME_NOW: u32 = 1 << 7;
    pub const MTIME_NOW: u32 = 1 << 8;
    pub const LOCKOWNER: u32 = 1 << 9;
    pub const CTIME: u32 = 1 << 10;
    pub const KILL_SUIDGID: u32 = 1 << 11;
}

/// Bits of `Getattr` and `Statx`: the handle is given.
pub const GETATTR_FH: u32 = 1;
/// Bits of `Write::flags`: out of the page cache, later; the owner is given; set-id bits are to be cleared.
pub const WRITE_CACHE: u32 = 1;
pub const WRITE_LOCKOWNER: u32 = 1 << 1;
pub const WRITE_KILL_SUIDGID: u32 = 1 << 2;
/// Bit of a READ's flags: the owner is given.
pub const READ_LOCKOWNER: u32 = 1 << 1;
/// Bits of `Release::flags`.
pub const RELEASE_FLUSH: u32 = 1;
pub const RELEASE_FLOCK_UNLOCK: u32 = 1 << 1;
/// Bit of `LockCall::flags`: flock(2), not fcntl(2).
pub const LK_FLOCK: u32 = 1;
/// Bit of an FSYNC's flags.
pub const FSYNC_FDATASYNC: u32 = 1;
/// Bit of SETXATTR's own flags: setting the access list clears the set-group-id bit.
pub const SETXATTR_ACL_KILL_SGID: u32 = 1;

/// What was agreed at INIT that changes how requests look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dialect {
    pub setxattr_ext: bool,
}

/// The fixed part in front of every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub len: u32,
    pub opcode: u32,
    pub unique: u64,
    pub ino: u64,
    pub uid: u32,
    pub gid: u32,
    pub pid: u32,
    /// Bytes of extensions at the end.
    pub extensions: usize,
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Request<'a> {
    pub header: Header,
    pub operation: Operation<'a>,
}

/// Seconds since 1970 and nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    pub secs: i64,
    pub nanos: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setattr {
    /// Which of the rest count; [`valid`].
    pub valid: u32,
    pub fh: u64,
    pub size: u64,
    pub lock_owner: u64,
    pub atime: Time,
    pub mtime: Time,
    pub ctime: Time,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Read {
    pub fh: u64,
    pub offset: u64,
    pub size: u32,
    pub read_flags: u32,
    pub lock_owner: u64,
    pub open_flags: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Write<'a> {
    pub fh: u64,
    pub offset: u64,
    pub data: &'a [u8],
    pub write_flags: u32,
    pub lock_owner: u64,
    /// Of the open file description, O_APPEND among them.
    pub open_flags: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Release {
    pub fh: u64,
    pub open_flags: u32,
    pub release_flags: u32,
    pub lock_owner: u64,
}

/// A new regular file, with a name or without.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Create<'a> {
    pub name: &'a [u8],
    pub open_flags: u32,
    pub mode: u32,
    pub umask: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setxattr<'a> {
    pub name: &'a [u8],
    pub value: &'a [u8],
    /// XATTR_CREATE, XATTR_REPLACE.
    pub flags: u32,
    pub own_flags: u32,
}

/// A lock as fcntl(2) describes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileLock {
    pub start: u64,
    /// The last byte, included; `i64::MAX`: to the end, wherever it is.
    pub end: u64,
    /// F_RDLCK, F_WRLCK, F_UNLCK.
    pub kind: u32,
    pub pid: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LockCall {
    pub fh: u64,
    pub owner: u64,
    pub lock: FileLock,
    pub flags: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyFileRange {
    pub fh: u64,
    pub offset: u64,
    pub to: u64,
    pub to_fh: u64,
    pub to_offset: u64,
    pub len: u64,
    pub flags: u64,
    /// The answer has 64 bits.
    pub wide: bool,
}

/// With the bytes that its number says are to be copied from the caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ioctl<'a> {
    pub fh: u64,
    pub flags: u32,
    pub cmd: u32,
    pub argument: u64,
    pub data: &'a [u8],
    /// Bytes that may be written to the caller.
    pub out_bytes: u32,
}

/// The inodes of a BATCH_FORGET: their count was checked against the length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forgets<'a>(&'a [u8]);

impl Forgets<'_> {
    /// Inode, lookups.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let number = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_ne_bytes);
        self.0.chunks_exact(16).map(move |one| (number(&one[..8]), number(&one[8..])))
    }
}

/// What is asked of the header's inode.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operation<'a> {
    Init(Offer),
    Destroy,
    Interrupt {
        unique: u64,
    },
    Lookup {
        name: &'a [u8],
    },
    Forget {
        lookups: u64,
    },
    BatchForget(Forgets<'a>),
    Getattr {
        fh: Option<u64>,
    },
    Statx {
        fh: Option<u64>,
        flags: u32,
        mask: u32,
    },
    Setattr(Setattr),
    Readlink,
    Symlink {
        name: &'a [u8],
        target: &'a [u8],
    },
    Mknod {
        name: &'a [u8],
        mode: u32,
        device: u32,
        umask: u32,
    },
    Mkdir {
        name: &'a [u8],
        mode: u32,
        umask: u32,
    },
    Unlink {
        name: &'a [u8],
    },
    Rmdir {
        name: &'a [u8],
    },
    Rename {
        name: &'a [u8],
        to_dir: u64,
        to_name: &'a [u8],
        flags: u32,
    },
    /// The header's inode is the directory.
    Link {
        ino: u64,
        name: &'a [u8],
    },
    Open {
        open_flags: u32,
    },
    Create(Create<'a>),
    Tmpfile(Create<'a>),
    Read(Read),
    Write(Write<'a>),
    Flush {
        fh: u64,
        lock_owner: u64,
    },
    Release(Release),
    Fsync {
        fh: u64,
        data_only: bool,
    },
    Opendir {
        open_flags: u32,
    },
    Readdir(Read),
    Readdirplus(Read),
    Releasedir(Release),
    Fsyncdir {
        fh: u64,
        data_only: bool,
    },
    Statfs,
    Syncfs,
    Setxattr(Setxattr<'a>),
    Getxattr {
        name: &'a [u8],
        size: u32,
    },
    Listxattr {
        size: u32,
    },
    Removexattr {
        name: &'a [u8],
    },
    Access {
        mask: u32,
    },
    Getlk(LockCall),
    Setlk {
        call: LockCall,
        wait: bool,
    },
    Fallocate {
        fh: u64,
        offset: u64,
        len: u64,
        mode: u32,
    },
    Lseek {
        fh: u64,
        offset: i64,
        whence: u32,
    },
    CopyFileRange(CopyFileRange),
    Ioctl(Ioctl<'a>),
    Poll,
    /// Not served here: BMAP, DAX mappings, what later kernels know.
    Other,
}
