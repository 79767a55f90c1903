//! Attributes and what they are made of.

use granary_core::{Ino, Result, Timestamp};

use super::{malformed, pb, required};
use crate::types::{Attr, DirEntry, FileType, SetAttr, Usage};

pub fn encode_time(t: Timestamp) -> pb::Time {
    pb::Time { secs: t.secs, nanos: t.nanos }
}

pub fn decode_time(t: pb::Time) -> Result<Timestamp> {
    if t.nanos >= 1_000_000_000 {
        return Err(malformed("a time has more than a second of nanoseconds"));
    }
    Ok(Timestamp { secs: t.secs, nanos: t.nanos })
}

pub fn encode_type(kind: FileType) -> i32 {
    (match kind {
        FileType::File => pb::FileType::File,
        FileType::Directory => pb::FileType::Directory,
        FileType::Symlink => pb::FileType::Symlink,
        FileType::Fifo => pb::FileType::Fifo,
        FileType::Socket => pb::FileType::Socket,
        FileType::CharDevice => pb::FileType::CharDevice,
        FileType::BlockDevice => pb::FileType::BlockDevice,
    }) as i32
}

pub fn decode_type(number: i32) -> Result<FileType> {
    Ok(match pb::FileType::try_from(number).map_err(|_| malformed("a file type is unknown"))? {
        pb::FileType::File => FileType::File,
        pb::FileType::Directory => FileType::Directory,
        pb::FileType::Symlink => FileType::Symlink,
        pb::FileType::Fifo => FileType::Fifo,
        pb::FileType::Socket => FileType::Socket,
        pb::FileType::CharDevice => FileType::CharDevice,
        pb::FileType::BlockDevice => FileType::BlockDevice,
    })
}

pub fn encode(a: &Attr) -> pb::Attr {
    // The times of a new inode are one.
    let unless_mtime = |t: Timestamp| (t != a.mtime).then(|| encode_time(t));
    pb::Attr {
        ino: a.ino.0,
        kind: encode_type(a.kind),
        mode: a.mode,
        uid: a.uid,
        gid: a.gid,
        nlink: a.nlink,
        rdev: a.rdev,
        size: a.size,
        stored: a.stored,
        mtime: Some(encode_time(a.mtime)),
        atime: unless_mtime(a.atime),
        ctime: unless_mtime(a.ctime),
        btime: unless_mtime(a.btime),
        version: a.version,
        staged_seq: a.staged_seq,
    }
}

pub fn decode(a: pb::Attr) -> Result<Attr> {
    let mtime = decode_time(required(a.mtime, "mtime")?)?;
    let or_mtime = |t: Option<pb::Time>| t.map_or(Ok(mtime), decode_time);
    Ok(Attr {
        ino: Ino(a.ino),
        kind: decode_type(a.kind)?,
        mode: a.mode,
        uid: a.uid,
        gid: a.gid,
        nlink: a.nlink,
        rdev: a.rdev,
        size: a.size,
        stored: a.stored,
        atime: or_mtime(a.atime)?,
        mtime,
        ctime: or_mtime(a.ctime)?,
        btime: or_mtime(a.btime)?,
        version: a.version,
        staged_seq: a.staged_seq,
    })
}

pub fn encode_entry(e: &DirEntry) -> pb::DirEntry {
    pb::DirEntry {
        name: e.name.clone(),
        ino: e.ino.0,
        kind: encode_type(e.kind),
        cookie: e.cookie,
        attr: e.attr.as_ref().map(encode),
    }
}

pub fn decode_entry(e: pb::DirEntry) -> Result<DirEntry> {
    Ok(DirEntry {
        name: super::bounds::entry_name(e.name)?.into_vec(),
        ino: Ino(e.ino),
        kind: decode_type(e.kind)?,
        cookie: e.cookie,
        attr: e.attr.map(decode).transpose()?,
    })
}

pub fn encode_set(ino: Ino, s: &SetAttr) -> pb::SetAttr {
    pb::SetAttr {
        ino: ino.0,
        mode: s.mode,
        uid: s.uid,
        gid: s.gid,
        size: s.size,
        atime: s.atime.map(encode_time),
        mtime: s.mtime.map(encode_time),
        staged_seq: s.staged_seq,
        kill_priv: s.kill_priv,
        accessed: s.accessed.map(encode_time),
    }
}

pub fn decode_set(s: pb::SetAttr) -> Result<(Ino, SetAttr)> {
    let set = SetAttr {
        mode: s.mode,
        uid: s.uid,
        gid: s.gid,
        size: s.size,
        atime: s.atime.map(decode_time).transpose()?,
        mtime: s.mtime.map(decode_time).transpose()?,
        staged_seq: s.staged_seq,
        kill_priv: s.kill_priv,
        accessed: s.accessed.map(decode_time).transpose()?,
    };
    Ok((Ino(s.ino), set))
}

pub fn encode_usage(u: &Usage) -> pb::Usage {
    pb::Usage {
        bytes: u.bytes,
        inodes: u.inodes,
        bytes_max: u.bytes_max,
        inodes_max: u.inodes_max,
        trash_bytes: u.trash_bytes,
        trash_inodes: u.trash_inodes,
    }
}

pub fn decode_usage(u: pb::Usage) -> Usage {
    Usage {
        bytes: u.bytes,
        inodes: u.inodes,
        bytes_max: u.bytes_max,
        inodes_max: u.inodes_max,
        trash_bytes: u.trash_bytes,
        trash_inodes: u.trash_inodes,
    }
}
