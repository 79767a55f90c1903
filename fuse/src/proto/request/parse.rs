//! Bytes to requests. Every length is checked, and nothing may be left over.

use super::super::wire::{Cursor, Malformed};
use super::super::{REQUEST_HEADER_BYTES, opcode};
use super::*;

impl Header {
    pub fn parse(bytes: &[u8]) -> Result<Header, Malformed> {
        let mut c = Cursor::new(bytes);
        let header = Header {
            len: c.u32()?,
            opcode: c.u32()?,
            unique: c.u64()?,
            ino: c.u64()?,
            uid: c.u32()?,
            gid: c.u32()?,
            pid: c.u32()?,
            extensions: usize::from(c.u16()?) * 8,
        };
        c.skip(2)?;
        if header.len as usize != bytes.len() {
            return Err(Malformed("the length in the header is not that of the message"));
        }
        if header.extensions > bytes.len() - REQUEST_HEADER_BYTES {
            return Err(Malformed("the extensions are longer than the message"));
        }
        Ok(header)
    }
}

impl<'a> Request<'a> {
    /// The whole request: `bytes` is what one read(2) gave.
    pub fn parse(bytes: &'a [u8], dialect: Dialect) -> Result<Request<'a>, Malformed> {
        let header = Header::parse(bytes)?;
        Request::parse_body(header, bytes, dialect)
    }

    /// The same when the header is known, so that a bad body can be answered.
    pub fn parse_body(header: Header, bytes: &'a [u8], dialect: Dialect) -> Result<Request<'a>, Malformed> {
        let end = bytes.len().checked_sub(header.extensions).ok_or(Malformed("the message is too short"))?;
        let body = bytes.get(REQUEST_HEADER_BYTES..end).ok_or(Malformed("the message is too short"))?;
        let mut c = Cursor::new(body);
        let operation = match operation(header.opcode, &mut c, dialect)? {
            Some(operation) => {
                c.end()?;
                operation
            }
            None => Operation::Other,
        };
        Ok(Request { header, operation })
    }
}

/// `None`: not known here, whatever its bytes are.
fn operation<'a>(
    number: u32,
    c: &mut Cursor<'a>,
    dialect: Dialect,
) -> Result<Option<Operation<'a>>, Malformed> {
    Ok(Some(match number {
        opcode::INIT => Operation::Init(Offer::parse(c)?),
        opcode::DESTROY => Operation::Destroy,
        opcode::INTERRUPT => Operation::Interrupt { unique: c.u64()? },
        opcode::LOOKUP => Operation::Lookup { name: c.name()? },
        opcode::FORGET => Operation::Forget { lookups: c.u64()? },
        opcode::BATCH_FORGET => Operation::BatchForget(forgets(c)?),
        opcode::UNLINK => Operation::Unlink { name: c.name()? },
        opcode::RMDIR => Operation::Rmdir { name: c.name()? },
        opcode::SYMLINK => Operation::Symlink { name: c.name()?, target: c.name()? },
        opcode::MKNOD | opcode::MKDIR | opcode::RENAME | opcode::RENAME2 | opcode::LINK => names(number, c)?,
        opcode::GETATTR | opcode::STATX | opcode::SETATTR => attributes(number, c)?,
        opcode::READLINK => Operation::Readlink,
        opcode::STATFS => Operation::Statfs,
        opcode::SYNCFS => {
            c.skip(8)?;
            Operation::Syncfs
        }
        opcode::SETXATTR => Operation::Setxattr(setxattr(c, dialect)?),
        opcode::GETXATTR => {
            let size = padded(c)?;
            Operation::Getxattr { name: c.name()?, size }
        }
        opcode::LISTXATTR => Operation::Listxattr { size: padded(c)? },
        opcode::REMOVEXATTR => Operation::Removexattr { name: c.name()? },
        opcode::ACCESS => Operation::Access { mask: padded(c)? },
        opcode::GETLK => Operation::Getlk(lock(c)?),
        opcode::SETLK | opcode::SETLKW => Operation::Setlk { call: lock(c)?, wait: number == opcode::SETLKW },
        _ => return handles(number, c),
    }))
}

/// Operations of open files and directories.
fn handles<'a>(number: u32, c: &mut Cursor<'a>) -> Result<Option<Operation<'a>>, Malformed> {
    Ok(Some(match number {
        opcode::OPEN => Operation::Open { open_flags: padded(c)? },
        opcode::OPENDIR => Operation::Opendir { open_flags: padded(c)? },
        opcode::CREATE => Operation::Create(create(c)?),
        opcode::TMPFILE => Operation::Tmpfile(create(c)?),
        opcode::READ => Operation::Read(read(c)?),
        opcode::READDIR => Operation::Readdir(read(c)?),
        opcode::READDIRPLUS => Operation::Readdirplus(read(c)?),
        opcode::WRITE => Operation::Write(write(c)?),
        opcode::RELEASE => Operation::Release(release(c)?),
        opcode::RELEASEDIR => Operation::Releasedir(release(c)?),
        opcode::FLUSH => {
            let fh = c.u64()?;
            c.skip(8)?;
            Operation::Flush { fh, lock_owner: c.u64()? }
        }
        opcode::FSYNC | opcode::FSYNCDIR => {
            let (fh, flags) = (c.u64()?, padded(c)?);
            let data_only = flags & FSYNC_FDATASYNC != 0;
            match number {
                opcode::FSYNC => Operation::Fsync { fh, data_only },
                _ => Operation::Fsyncdir { fh, data_only },
            }
        }
        opcode::FALLOCATE => {
            Operation::Fallocate { fh: c.u64()?, offset: c.u64()?, len: c.u64()?, mode: padded(c)? }
        }
        opcode::LSEEK => Operation::Lseek { fh: c.u64()?, offset: c.i64()?, whence: padded(c)? },
        opcode::COPY_FILE_RANGE | opcode::COPY_FILE_RANGE_64 => Operation::CopyFileRange(CopyFileRange {
            fh: c.u64()?,
            offset: c.u64()?,
            to: c.u64()?,
            to_fh: c.u64()?,
            to_offset: c.u64()?,
            len: c.u64()?,
            flags: c.u64()?,
            wide: number == opcode::COPY_FILE_RANGE_64,
        }),
        opcode::IOCTL => Operation::Ioctl(ioctl(c)?),
        opcode::POLL => {
            c.skip(24)?;
            Operation::Poll
        }
        _ => return Ok(None),
    }))
}

/// Four bytes that count and four that do not.
fn padded(c: &mut Cursor<'_>) -> Result<u32, Malformed> {
    let value = c.u32()?;
    c.skip(4)?;
    Ok(value)
}

fn names<'a>(number: u32, c: &mut Cursor<'a>) -> Result<Operation<'a>, Malformed> {
    Ok(match number {
        opcode::MKNOD => {
            let (mode, device, umask) = (c.u32()?, c.u32()?, padded(c)?);
            Operation::Mknod { name: c.name()?, mode, device, umask }
        }
        opcode::MKDIR => {
            let (mode, umask) = (c.u32()?, c.u32()?);
            Operation::Mkdir { name: c.name()?, mode, umask }
        }
        opcode::LINK => Operation::Link { ino: c.u64()?, name: c.name()? },
        _ => {
            let to_dir = c.u64()?;
            let flags = if number == opcode::RENAME2 { padded(c)? } else { 0 };
            Operation::Rename { name: c.name()?, to_name: c.name()?, to_dir, flags }
        }
    })
}

fn attributes<'a>(number: u32, c: &mut Cursor<'_>) -> Result<Operation<'a>, Malformed> {
    if number == opcode::SETATTR {
        return Ok(Operation::Setattr(setattr(c)?));
    }
    let flags = padded(c)?;
    let fh = c.u64()?;
    let fh = (flags & GETATTR_FH != 0).then_some(fh);
    Ok(match number {
        opcode::GETATTR => Operation::Getattr { fh },
        _ => Operation::Statx { fh, flags: c.u32()?, mask: c.u32()? },
    })
}

fn setattr(c: &mut Cursor<'_>) -> Result<Setattr, Malformed> {
    let valid = padded(c)?;
    let (fh, size, lock_owner) = (c.u64()?, c.u64()?, c.u64()?);
    let (atime, mtime, ctime) = (c.i64()?, c.i64()?, c.i64()?);
    let time = |c: &mut Cursor<'_>, secs| Ok(Time { secs, nanos: c.u32()? });
    let (atime, mtime, ctime) = (time(c, atime)?, time(c, mtime)?, time(c, ctime)?);
    let mode = padded(c)?;
    let (uid, gid) = (c.u32()?, padded(c)?);
    Ok(Setattr { valid, fh, size, lock_owner, atime, mtime, ctime, mode, uid, gid })
}

fn create<'a>(c: &mut Cursor<'a>) -> Result<Create<'a>, Malformed> {
    let (open_flags, mode, umask) = (c.u32()?, c.u32()?, padded(c)?);
    Ok(Create { name: c.name()?, open_flags, mode, umask })
}

fn read(c: &mut Cursor<'_>) -> Result<Read, Malformed> {
    Ok(Read {
        fh: c.u64()?,
        offset: c.u64()?,
        size: c.u32()?,
        read_flags: c.u32()?,
        lock_owner: c.u64()?,
        open_flags: padded(c)?,
    })
}

fn write<'a>(c: &mut Cursor<'a>) -> Result<Write<'a>, Malformed> {
    let Read { fh, offset, size, read_flags: write_flags, lock_owner, open_flags } = read(c)?;
    Ok(Write { fh, offset, data: c.bytes(size as usize)?, write_flags, lock_owner, open_flags })
}

fn release(c: &mut Cursor<'_>) -> Result<Release, Malformed> {
    Ok(Release { fh: c.u64()?, open_flags: c.u32()?, release_flags: c.u32()?, lock_owner: c.u64()? })
}

fn setxattr<'a>(c: &mut Cursor<'a>, dialect: Dialect) -> Result<Setxattr<'a>, Malformed> {
    let (size, flags) = (c.u32()?, c.u32()?);
    let own_flags = if dialect.setxattr_ext { padded(c)? } else { 0 };
    let name = c.name()?;
    Ok(Setxattr { name, value: c.bytes(size as usize)?, flags, own_flags })
}

fn lock(c: &mut Cursor<'_>) -> Result<LockCall, Malformed> {
    let (fh, owner) = (c.u64()?, c.u64()?);
    let lock = FileLock { start: c.u64()?, end: c.u64()?, kind: c.u32()?, pid: c.u32()? };
    Ok(LockCall { fh, owner, lock, flags: padded(c)? })
}

fn ioctl<'a>(c: &mut Cursor<'a>) -> Result<Ioctl<'a>, Malformed> {
    let (fh, flags, cmd, argument) = (c.u64()?, c.u32()?, c.u32()?, c.u64()?);
    let (in_bytes, out_bytes) = (c.u32()?, c.u32()?);
    Ok(Ioctl { fh, flags, cmd, argument, data: c.bytes(in_bytes as usize)?, out_bytes })
}

fn forgets<'a>(c: &mut Cursor<'a>) -> Result<Forgets<'a>, Malformed> {
    let count = padded(c)? as usize;
    let bytes = count.checked_mul(16).ok_or(Malformed("the message is too short"))?;
    Ok(Forgets(c.bytes(bytes)?))
}
