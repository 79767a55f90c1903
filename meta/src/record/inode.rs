//! An inode: attributes, what a directory counts, and the extents of a file that has few.
//!
//! | bytes | field |
//! |---|---|
//! | 1 | version, 2 |
//! | 1 | type: 1 file, 2 directory, 3 symlink, 4 fifo, 5 socket, 6 character device, 7 block device |
//! | 2 | mode u16, at most 0o7777 |
//! | 4, 4, 4, 4 | uid, gid, nlink, rdev u32 |
//! | 8, 8 | size, stored u64 |
//! | 4 x 12 | atime, mtime, ctime, btime: seconds i64, nanoseconds u32 below 10^9 |
//! | 8, 8 | version, staged_seq u64 |
//! | 4 | bytes of all extended attributes' names, one more for each, u32 (0: it has none) |
//! | | *directories only:* |
//! | 8 | parent u64 (the root is its own) |
//! | 8, 8 | entries; next cookie, at least [`COOKIE_MIN`], u64 |
//! | 1 + n | its own name: length u8, then the bytes; none: the root's, or not known, as of all in version 1 |
//! | 8, 8 | *made for the trash only:* bytes, inodes below it u64 (see [`Held`]) |
//! | 12 | *made for the trash only:* when the last file came into it: seconds i64, nanoseconds u32 |
//! | | *files only:* |
//! | 8 | the directory of the trash that it was moved to u64 (0: none); absent in version 1 |
//! | 8 | extents in records of their own u64; then none is here |
//! | 1 | extents here, at most 4, u8 |
//! | 29 or 45 each | [`super::extent`], in order, not overlapping |

use granary_core::codec::{Put, Reader};
use granary_core::{Ino, Result, Timestamp};

use crate::record::extent;
use crate::types::{Attr, Extent, FileType};

const VERSION: u8 = 2;
/// A file with more extents has all of them in records of their own.
pub const EXTENTS_INLINE_MAX: usize = 4;
/// The first entry's cookie. 0 is the start of a listing; 1 and 2 are free for `.` and `..`, which are not records.
pub const COOKIE_MIN: u64 = 3;

/// What lies below a directory in the trash. Not true any more of one that was moved out of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Stored bytes of files, and inodes, the directory itself not among them.
    pub bytes: u64,
    pub inodes: u64,
    /// When the last file came.
    pub last: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode {
    pub attr: Attr,
    /// Directories: the parent. Files: the directory in the trash that they were moved to, which may have been moved out of it
    /// since (see `machine/trash.rs`). Else 0.
    pub parent: Ino,
    /// Directories: the name in the parent; empty for the root, and when it is not known.
    pub name: Box<[u8]>,
    /// Directories that were made for the trash.
    pub held: Held,
    /// Directories: how many entries there are.
    pub entries: u64,
    /// Directories: the next new entry's cookie. Only grows, so that a cookie names one place in the listing for ever.
    pub next_cookie: u64,
    /// Bytes of extended attributes' names, one more for each.
    pub xattr_names: u32,
    /// Extents in records of their own.
    pub spilled: u64,
    /// All extents, in order, when `spilled` is 0.
    pub extents: Vec<Extent>,
}

pub(super) fn encode_type(kind: FileType) -> u8 {
    match kind {
        FileType::File => 1,
        FileType::Directory => 2,
        FileType::Symlink => 3,
        FileType::Fifo => 4,
        FileType::Socket => 5,
        FileType::CharDevice => 6,
        FileType::BlockDevice => 7,
    }
}

pub(super) fn decode_type(r: &mut Reader<'_>) -> Result<FileType> {
    Ok(match r.u8()? {
        1 => FileType::File,
        2 => FileType::Directory,
        3 => FileType::Symlink,
        4 => FileType::Fifo,
        5 => FileType::Socket,
        6 => FileType::CharDevice,
        7 => FileType::BlockDevice,
        _ => return Err(r.corrupt("its file type is unknown")),
    })
}

pub(super) fn encode_time(t: Timestamp, out: &mut Vec<u8>) {
    out.put_i64(t.secs);
    out.put_u32(t.nanos);
}

pub(super) fn decode_time(r: &mut Reader<'_>) -> Result<Timestamp> {
    let t = Timestamp { secs: r.i64()?, nanos: r.u32()? };
    if t.nanos >= 1_000_000_000 {
        return Err(r.corrupt("a time has too many nanoseconds"));
    }
    Ok(t)
}

/// Attributes but for the inode's number: from the file type to `staged_seq`.
pub(super) fn encode_attr(a: &Attr, out: &mut Vec<u8>) {
    out.put_u8(encode_type(a.kind));
    out.put_u16((a.mode & 0o7777) as u16);
    for v in [a.uid, a.gid, a.nlink, a.rdev] {
        out.put_u32(v);
    }
    out.put_u64(a.size);
    out.put_u64(a.stored);
    for t in [a.atime, a.mtime, a.ctime, a.btime] {
        encode_time(t, out);
    }
    out.put_u64(a.version);
    out.put_u64(a.staged_seq);
}

pub(super) fn decode_attr(ino: Ino, r: &mut Reader<'_>) -> Result<Attr> {
    let kind = decode_type(r)?;
    let mode = u32::from(r.u16()?);
    if mode > 0o7777 {
        return Err(r.corrupt("its mode is impossible"));
    }
    let (uid, gid, nlink, rdev) = (r.u32()?, r.u32()?, r.u32()?, r.u32()?);
    let (size, stored) = (r.u64()?, r.u64()?);
    let (atime, mtime, ctime, btime) = (decode_time(r)?, decode_time(r)?, decode_time(r)?, decode_time(r)?);
    let (version, staged_seq) = (r.u64()?, r.u64()?);
    Ok(Attr {
        ino,
        kind,
        mode,
        uid,
        gid,
        nlink,
        rdev,
        size,
        stored,
        atime,
        mtime,
        ctime,
        btime,
        version,
        staged_seq,
    })
}

impl Inode {
    pub fn is_directory(&self) -> bool {
        self.attr.kind == FileType::Directory
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let a = &self.attr;
        out.reserve(128 + self.extents.len() * 45);
        out.put_u8(VERSION);
        encode_attr(a, out);
        out.put_u32(self.xattr_names);
        match a.kind {
            FileType::Directory => {
                out.put_u64(self.parent.0);
                out.put_u64(self.entries);
                out.put_u64(self.next_cookie);
                out.put_u8(self.name.len() as u8);
                out.extend_from_slice(&self.name);
                if a.ino.is_of_trash() {
                    out.put_u64(self.held.bytes);
                    out.put_u64(self.held.inodes);
                    encode_time(self.held.last, out);
                }
            }
            FileType::File => {
                out.put_u64(self.parent.0);
                out.put_u64(self.spilled);
                out.put_u8(self.extents.len() as u8);
                for e in &self.extents {
                    extent::encode(e, out);
                }
            }
            _ => {}
        }
    }

    pub(super) fn decode(ino: Ino, bytes: &[u8]) -> Result<Inode> {
        let mut r = Reader::new(bytes, "an inode");
        let version = r.version(VERSION)?;
        let attr = decode_attr(ino, &mut r)?;
        let kind = attr.kind;
        let mut inode = Inode::new(attr);
        inode.xattr_names = r.u32()?;
        match kind {
            FileType::Directory => {
                inode.parent = Ino(r.u64()?);
                inode.entries = r.u64()?;
                inode.next_cookie = r.u64()?;
                if inode.next_cookie < COOKIE_MIN {
                    return Err(r.corrupt("its next cookie is impossible"));
                }
                if version >= 2 {
                    let n = usize::from(r.u8()?);
                    inode.name = Box::from(r.take(n)?);
                }
                if version >= 2 && ino.is_of_trash() {
                    inode.held = Held { bytes: r.u64()?, inodes: r.u64()?, last: decode_time(&mut r)? };
                }
            }
            FileType::File => {
                if version >= 2 {
                    inode.parent = Ino(r.u64()?);
                }
                inode.spilled = r.u64()?;
                let n = usize::from(r.u8()?);
                if n > EXTENTS_INLINE_MAX || (n > 0 && inode.spilled > 0) {
                    return Err(r.corrupt("it has too many extents"));
                }
                let mut end = 0;
                for _ in 0..n {
                    let e = extent::decode(&mut r)?;
                    if e.offset < end {
                        return Err(r.corrupt("its extents overlap"));
                    }
                    end = e.end();
                    inode.extents.push(e);
                }
            }
            _ => {}
        }
        r.finish()?;
        Ok(inode)
    }

    /// An inode without entries, extents, extended attributes.
    pub fn new(attr: Attr) -> Inode {
        let next_cookie = if attr.kind == FileType::Directory { COOKIE_MIN } else { 0 };
        Inode {
            attr,
            parent: Ino(0),
            name: Box::default(),
            held: Held::default(),
            entries: 0,
            next_cookie,
            xattr_names: 0,
            spilled: 0,
            extents: Vec::new(),
        }
    }
}
