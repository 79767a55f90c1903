//! Fixed parts of answers. An errno has no body; DATA (of READ, READLINK, GETXATTR, LISTXATTR) and listings are bytes as they are.
//!
//! | part | fields, with their size |
//! |---|---|
//! | attributes (88) | inode 8, size 8, blocks 8, atime 8, mtime 8, ctime 8, their nanoseconds 4 each, mode 4, links 4, uid 4, gid 4, device 4, block size 4, flags 4 |
//! | entry (128): LOOKUP, MKNOD, MKDIR, SYMLINK, LINK | inode 8 (0: there is none), generation 8, entry valid 8 s, attributes valid 8 s, both 4 ns, attributes |
//! | open (16): OPEN | fh 8, FOPEN_ flags 4, backing id 4 |
//! | CREATE, TMPFILE | entry, open |
//! | GETATTR, SETATTR (104) | valid 8 s, 4 ns, `_4`, attributes |
//! | STATX (288) | valid 8 s, 4 ns, flags 4, `_16`; mask 4, block size 4, file attributes 8, links 4, uid 4, gid 4, mode 2, `_2`, inode 8, size 8, blocks 8, attributes mask 8, atime, btime, ctime, mtime (each 8 s, 4 ns, `_4`), device 4 + 4, file system's device 4 + 4, `_112` |
//! | STATFS (80) | blocks 8, free 8, available 8, inodes 8, free 8, block size 4, longest name 4, fragment size 4, `_28` |
//! | WRITE, COPY_FILE_RANGE (8) | bytes 4, `_4` |
//! | COPY_FILE_RANGE_64, LSEEK (8) | bytes 8; offset 8 |
//! | GETXATTR, LISTXATTR asked for the size (8) | size 4, `_4` |
//! | GETLK (24) | start 8, end 8, type 4, pid 4 |

use std::time::Duration;

use super::request::{FileLock, Time};
use super::wire::Body;

/// FOPEN_ flags.
pub const FOPEN_DIRECT_IO: u32 = 1;
pub const FOPEN_KEEP_CACHE: u32 = 1 << 1;
pub const FOPEN_NOFLUSH: u32 = 1 << 5;
pub const FOPEN_PASSTHROUGH: u32 = 1 << 7;

/// STATX_ bits of what is told: all basic attributes, and the time of birth.
pub const STATX_BASIC_STATS: u32 = 0x7ff;
pub const STATX_BTIME: u32 = 0x800;

/// An inode's attributes, as the kernel wants them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    pub ino: u64,
    pub size: u64,
    /// Of 512 bytes.
    pub blocks: u64,
    pub atime: Time,
    pub mtime: Time,
    pub ctime: Time,
    /// Only STATX tells it.
    pub btime: Time,
    /// With the file's type.
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    /// As `dev_t` of 32 bits.
    pub device: u32,
    pub block_size: u32,
}

/// An open file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Open {
    pub fh: u64,
    pub flags: u32,
    /// With [`FOPEN_PASSTHROUGH`].
    pub backing_id: i32,
}

/// Totals of a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statfs {
    pub blocks: u64,
    pub blocks_free: u64,
    pub inodes: u64,
    pub inodes_free: u64,
    pub block_size: u32,
    pub name_max: u32,
}

pub fn attributes(a: &Attributes) -> Body {
    Body::default()
        .u64(a.ino)
        .u64(a.size)
        .u64(a.blocks)
        .i64(a.atime.secs)
        .i64(a.mtime.secs)
        .i64(a.ctime.secs)
        .u32(a.atime.nanos)
        .u32(a.mtime.nanos)
        .u32(a.ctime.nanos)
        .u32(a.mode)
        .u32(a.nlink)
        .u32(a.uid)
        .u32(a.gid)
        .u32(a.device)
        .u32(a.block_size)
        .u32(0)
}

/// Inode numbers are never used again, so the generation is 0.
pub fn entry(attr: &Attributes, entry_valid: Duration, attr_valid: Duration) -> Body {
    Body::default()
        .u64(attr.ino)
        .u64(0)
        .u64(entry_valid.as_secs())
        .u64(attr_valid.as_secs())
        .u32(entry_valid.subsec_nanos())
        .u32(attr_valid.subsec_nanos())
        .then(&attributes(attr))
}

/// To a LOOKUP of a name that is not there, when the kernel may remember that.
pub fn absent(valid: Duration) -> Body {
    entry(&Attributes::default(), valid, Duration::ZERO)
}

pub fn open(o: &Open) -> Body {
    Body::default().u64(o.fh).u32(o.flags).u32(o.backing_id as u32)
}

pub fn attr(attr: &Attributes, valid: Duration) -> Body {
    Body::default().u64(valid.as_secs()).u32(valid.subsec_nanos()).u32(0).then(&attributes(attr))
}

pub fn statx(a: &Attributes, valid: Duration) -> Body {
    let time = |body: Body, t: Time| body.i64(t.secs).u32(t.nanos).u32(0);
    let body = Body::default()
        .u64(valid.as_secs())
        .u32(valid.subsec_nanos())
        .u32(0)
        .zeros(16)
        .u32(STATX_BASIC_STATS | STATX_BTIME)
        .u32(a.block_size)
        .u64(0)
        .u32(a.nlink)
        .u32(a.uid)
        .u32(a.gid)
        .u16(a.mode as u16)
        .u16(0)
        .u64(a.ino)
        .u64(a.size)
        .u64(a.blocks)
        .u64(0);
    let body = [a.atime, a.btime, a.ctime, a.mtime].into_iter().fold(body, time);
    body.u32(major(a.device)).u32(minor(a.device)).zeros(8 + 112)
}

/// Linux's 32-bit `dev_t`: minor 0..8, major 8..20, minor 20..32.
fn major(device: u32) -> u32 {
    device >> 8 & 0xfff
}

fn minor(device: u32) -> u32 {
    device & 0xff | device >> 12 & 0xf_ff00
}

pub fn statfs(s: &Statfs) -> Body {
    Body::default()
        .u64(s.blocks)
        .u64(s.blocks_free)
        .u64(s.blocks_free)
        .u64(s.inodes)
        .u64(s.inodes_free)
        .u32(s.block_size)
        .u32(s.name_max)
        .u32(s.block_size)
        .zeros(28)
}

/// Bytes written or copied, or the size of an extended attribute.
pub fn count(n: u32) -> Body {
    Body::default().u32(n).u32(0)
}

/// Bytes copied, or an offset.
pub fn count_64(n: u64) -> Body {
    Body::default().u64(n)
}

/// What an ioctl returns, when nothing is to be written to the caller's memory.
pub fn ioctl(result: i32) -> Body {
    Body::default().u32(result as u32).u32(0).u32(0).u32(0)
}

pub fn lock(l: &FileLock) -> Body {
    Body::default().u64(l.start).u64(l.end).u32(l.kind).u32(l.pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_the_kernels() {
        let (attr_, valid) = (Attributes::default(), Duration::from_millis(1500));
        let lengths = [
            attributes(&attr_),
            entry(&attr_, valid, valid),
            open(&Open::default()),
            entry(&attr_, valid, valid).then(&open(&Open::default())),
            attr(&attr_, valid),
            statx(&attr_, valid),
            statfs(&Statfs::default()),
            count(1),
            count_64(1),
            lock(&FileLock::default()),
            ioctl(1),
        ]
        .map(|body| body.as_slice().len());
        assert_eq!(lengths, [88, 128, 16, 144, 104, 288, 80, 8, 8, 24, 16]);
    }

    #[test]
    fn fields_are_where_the_kernel_looks() {
        let a = Attributes {
            ino: 7,
            size: 8,
            blocks: 9,
            atime: Time { secs: -1, nanos: 1 },
            mtime: Time { secs: 2, nanos: 2 },
            ctime: Time { secs: 3, nanos: 3 },
            btime: Time { secs: 4, nanos: 4 },
            mode: 0o100_644,
            nlink: 1,
            uid: 10,
            gid: 11,
            device: 0x1234_5678,
            block_size: 4096,
        };
        let u64_at = |b: &[u8], at: usize| u64::from_ne_bytes(b[at..at + 8].try_into().unwrap());
        let u32_at = |b: &[u8], at: usize| u32::from_ne_bytes(b[at..at + 4].try_into().unwrap());
        let body = entry(&a, Duration::from_nanos(1_000_000_002), Duration::from_nanos(3_000_000_004));
        let b = body.as_slice();
        assert_eq!((u64_at(b, 0), u64_at(b, 16), u64_at(b, 24)), (7, 1, 3));
        assert_eq!((u32_at(b, 32), u32_at(b, 36), u64_at(b, 40), u64_at(b, 64)), (2, 4, 7, u64::MAX));
        assert_eq!((u32_at(b, 40 + 60), u32_at(b, 40 + 80)), (0o100_644, 4096));
        let body = statx(&a, Duration::from_secs(5));
        let b = body.as_slice();
        assert_eq!((u64_at(b, 0), u32_at(b, 32), u64_at(b, 64)), (5, 0xfff, 7));
        assert_eq!((u64_at(b, 112), u32_at(b, 120)), (4, 4), "btime is the second of the times");
        assert_eq!((u32_at(b, 160), u32_at(b, 164)), (0x456, 0x12378));
        assert_eq!(u64_at(absent(Duration::from_secs(1)).as_slice(), 0), 0);
    }
}
