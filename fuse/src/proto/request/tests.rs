use proptest::prelude::*;

use super::super::wire::Body;
use super::super::{REQUEST_HEADER_BYTES, opcode};
use super::*;

/// A request as the kernel would send it.
fn message(opcode: u32, body: &[u8]) -> Vec<u8> {
    let fixed = Body::default()
        .u32((REQUEST_HEADER_BYTES + body.len()) as u32)
        .u32(opcode)
        .u64(0x10)
        .u64(2)
        .u32(1000)
        .u32(1001)
        .u32(77)
        .u32(0);
    [fixed.as_slice(), body].concat()
}

fn body(fixed: Body, rest: &[u8]) -> Vec<u8> {
    [fixed.as_slice(), rest].concat()
}

const EXT: Dialect = Dialect { setxattr_ext: true };

/// One of every kind, with what it must be.
fn samples() -> Vec<(u32, Vec<u8>, Operation<'static>)> {
    let b = Body::default;
    let read = Read { fh: 1, offset: 2, size: 3, read_flags: 4, lock_owner: 5, open_flags: 6 };
    let read_body = || b().u64(1).u64(2).u32(3).u32(4).u64(5).u32(6).u32(0);
    let release = Release { fh: 1, open_flags: 2, release_flags: 3, lock_owner: 4 };
    let release_body = || b().u64(1).u32(2).u32(3).u64(4);
    let create = Create { name: b"n", open_flags: 1, mode: 2, umask: 3 };
    let create_body = || b().u32(1).u32(2).u32(3).u32(0);
    let lock = FileLock { start: 3, end: 4, kind: 1, pid: 5 };
    let call = LockCall { fh: 1, owner: 2, lock, flags: LK_FLOCK };
    let lock_body = || b().u64(1).u64(2).u64(3).u64(4).u32(1).u32(5).u32(1).u32(0);
    let ioctl = Ioctl { fh: 1, flags: 2, cmd: 3, argument: 4, data: b"x", out_bytes: 6 };
    let copy =
        CopyFileRange { fh: 1, offset: 2, to: 3, to_fh: 4, to_offset: 5, len: 6, flags: 0, wide: false };
    let copy_body = || b().u64(1).u64(2).u64(3).u64(4).u64(5).u64(6).u64(0);
    let setattr_body = b().u32(0x1).u32(0).u64(2).u64(3).u64(4).i64(-5).i64(6).i64(7);
    let setattr_body = setattr_body.u32(8).u32(9).u32(10).u32(11).u32(0).u32(12).u32(13).u32(0);
    let setattr = Setattr {
        valid: 1,
        fh: 2,
        size: 3,
        lock_owner: 4,
        atime: Time { secs: -5, nanos: 8 },
        mtime: Time { secs: 6, nanos: 9 },
        ctime: Time { secs: 7, nanos: 10 },
        mode: 11,
        uid: 12,
        gid: 13,
    };
    let offer = Offer { major: 7, minor: 45, max_readahead: 9, flags: Flags(1 << 30 | 5 << 32) };
    let set = Setxattr { name: b"user.a", value: b"vv", flags: 1, own_flags: 1 };
    let write = Write { fh: 1, offset: 2, data: b"abc", write_flags: 4, lock_owner: 5, open_flags: 6 };
    vec![
        (
            opcode::INIT,
            body(b().u32(7).u32(45).u32(9).u32(1 << 30).u32(5).zeros(44), b""),
            Operation::Init(offer),
        ),
        (opcode::DESTROY, vec![], Operation::Destroy),
        (opcode::INTERRUPT, body(b().u64(8), b""), Operation::Interrupt { unique: 8 }),
        (opcode::LOOKUP, b"name\0".to_vec(), Operation::Lookup { name: b"name" }),
        (opcode::FORGET, body(b().u64(3), b""), Operation::Forget { lookups: 3 }),
        (opcode::GETATTR, body(b().u32(1).u32(0).u64(9), b""), Operation::Getattr { fh: Some(9) }),
        (opcode::GETATTR, body(b().u32(0).u32(0).u64(9), b""), Operation::Getattr { fh: None }),
        (
            opcode::STATX,
            body(b().u32(0).u32(0).u64(0).u32(7).u32(0xfff), b""),
            Operation::Statx { fh: None, flags: 7, mask: 0xfff },
        ),
        (opcode::SETATTR, body(setattr_body, b""), Operation::Setattr(setattr)),
        (opcode::READLINK, vec![], Operation::Readlink),
        (opcode::SYMLINK, b"n\0to\0".to_vec(), Operation::Symlink { name: b"n", target: b"to" }),
        (
            opcode::MKNOD,
            body(b().u32(1).u32(2).u32(3).u32(0), b"n\0"),
            Operation::Mknod { name: b"n", mode: 1, device: 2, umask: 3 },
        ),
        (opcode::MKDIR, body(b().u32(1).u32(3), b"n\0"), Operation::Mkdir { name: b"n", mode: 1, umask: 3 }),
        (opcode::UNLINK, b"n\0".to_vec(), Operation::Unlink { name: b"n" }),
        (opcode::RMDIR, b"n\0".to_vec(), Operation::Rmdir { name: b"n" }),
        (
            opcode::RENAME,
            body(b().u64(5), b"a\0b\0"),
            Operation::Rename { name: b"a", to_dir: 5, to_name: b"b", flags: 0 },
        ),
        (
            opcode::RENAME2,
            body(b().u64(5).u32(2).u32(0), b"a\0b\0"),
            Operation::Rename { name: b"a", to_dir: 5, to_name: b"b", flags: 2 },
        ),
        (opcode::LINK, body(b().u64(5), b"a\0"), Operation::Link { ino: 5, name: b"a" }),
        (opcode::OPEN, body(b().u32(2).u32(0), b""), Operation::Open { open_flags: 2 }),
        (opcode::OPENDIR, body(b().u32(2).u32(0), b""), Operation::Opendir { open_flags: 2 }),
        (opcode::CREATE, body(create_body(), b"n\0"), Operation::Create(create)),
        (opcode::TMPFILE, body(create_body(), b"n\0"), Operation::Tmpfile(create)),
        (opcode::READ, body(read_body(), b""), Operation::Read(read)),
        (opcode::READDIR, body(read_body(), b""), Operation::Readdir(read)),
        (opcode::READDIRPLUS, body(read_body(), b""), Operation::Readdirplus(read)),
        (opcode::WRITE, body(read_body(), b"abc"), Operation::Write(write)),
        (opcode::FLUSH, body(b().u64(1).u64(0).u64(2), b""), Operation::Flush { fh: 1, lock_owner: 2 }),
        (opcode::RELEASE, body(release_body(), b""), Operation::Release(release)),
        (opcode::RELEASEDIR, body(release_body(), b""), Operation::Releasedir(release)),
        (opcode::FSYNC, body(b().u64(1).u32(1).u32(0), b""), Operation::Fsync { fh: 1, data_only: true }),
        (
            opcode::FSYNCDIR,
            body(b().u64(1).u32(0).u32(0), b""),
            Operation::Fsyncdir { fh: 1, data_only: false },
        ),
        (opcode::STATFS, vec![], Operation::Statfs),
        (opcode::SYNCFS, body(b().u64(0), b""), Operation::Syncfs),
        (opcode::SETXATTR, body(b().u32(2).u32(1).u32(1).u32(0), b"user.a\0vv"), Operation::Setxattr(set)),
        (opcode::GETXATTR, body(b().u32(9).u32(0), b"a\0"), Operation::Getxattr { name: b"a", size: 9 }),
        (opcode::LISTXATTR, body(b().u32(9).u32(0), b""), Operation::Listxattr { size: 9 }),
        (opcode::REMOVEXATTR, b"a\0".to_vec(), Operation::Removexattr { name: b"a" }),
        (opcode::ACCESS, body(b().u32(4).u32(0), b""), Operation::Access { mask: 4 }),
        (opcode::GETLK, body(lock_body(), b""), Operation::Getlk(call)),
        (opcode::SETLK, body(lock_body(), b""), Operation::Setlk { call, wait: false }),
        (opcode::SETLKW, body(lock_body(), b""), Operation::Setlk { call, wait: true }),
        (
            opcode::FALLOCATE,
            body(b().u64(1).u64(2).u64(3).u32(4).u32(0), b""),
            Operation::Fallocate { fh: 1, offset: 2, len: 3, mode: 4 },
        ),
        (
            opcode::LSEEK,
            body(b().u64(1).i64(-2).u32(3).u32(0), b""),
            Operation::Lseek { fh: 1, offset: -2, whence: 3 },
        ),
        (opcode::COPY_FILE_RANGE, body(copy_body(), b""), Operation::CopyFileRange(copy)),
        (
            opcode::COPY_FILE_RANGE_64,
            body(copy_body(), b""),
            Operation::CopyFileRange(CopyFileRange { wide: true, ..copy }),
        ),
        (opcode::POLL, body(b().zeros(24), b""), Operation::Poll),
        (opcode::IOCTL, body(b().u64(1).u32(2).u32(3).u64(4).u32(1).u32(6), b"x"), Operation::Ioctl(ioctl)),
        (opcode::BMAP, body(b().zeros(16), b""), Operation::Other),
        (99, b"whatever".to_vec(), Operation::Other),
    ]
}

use super::super::init::Flags;

#[test]
fn every_operation_is_read_as_it_was_meant() {
    for (opcode, body, expected) in samples() {
        let bytes = message(opcode, &body);
        let request = Request::parse(&bytes, EXT).unwrap_or_else(|e| panic!("{opcode}: {e}"));
        assert_eq!(request.operation, expected, "{opcode}");
        let Header { unique, ino, uid, gid, pid, .. } = request.header;
        assert_eq!((unique, ino, uid, gid, pid), (0x10, 2, 1000, 1001, 77));
    }
}

#[test]
fn many_forgets_in_one() {
    let fixed = Body::default().u32(2).u32(0).u64(5).u64(1).u64(6).u64(9);
    let bytes = message(opcode::BATCH_FORGET, fixed.as_slice());
    let Operation::BatchForget(forgets) = Request::parse(&bytes, EXT).unwrap().operation else { panic!() };
    assert_eq!(forgets.iter().collect::<Vec<_>>(), [(5, 1), (6, 9)]);
    let fixed = Body::default().u32(u32::MAX).u32(0).u64(5).u64(1);
    assert!(Request::parse(&message(opcode::BATCH_FORGET, fixed.as_slice()), EXT).is_err());
}

#[test]
fn a_cut_or_lengthened_request_is_refused() {
    // What may be of any length, or says less in older versions.
    let any = [opcode::BMAP, opcode::INIT, 99];
    for (opcode, body, _) in samples() {
        if any.contains(&opcode) {
            continue;
        }
        for len in 0..body.len() {
            let cut = message(opcode, &body[..len]);
            assert!(Request::parse(&cut, EXT).is_err(), "{opcode} cut to {len}");
        }
        let longer = [&body[..], b"\x01"].concat();
        assert!(Request::parse(&message(opcode, &longer), EXT).is_err(), "{opcode} with more");
        let mut wrong = message(opcode, &body);
        wrong[0] ^= 1;
        assert!(Request::parse(&wrong, EXT).is_err(), "{opcode} with another length");
    }
}

#[test]
fn extensions_are_no_part_of_the_body() {
    let mut bytes = message(opcode::LOOKUP, b"name\0........");
    bytes[36] = 1;
    let request = Request::parse(&bytes, EXT).unwrap();
    assert_eq!(request.operation, Operation::Lookup { name: b"name" });
    bytes[36] = 2;
    assert!(Request::parse(&bytes, EXT).is_err(), "longer than the message");
}

#[test]
fn setxattr_without_flags_of_its_own() {
    let bytes = message(opcode::SETXATTR, &body(Body::default().u32(1).u32(2), b"user.a\0v"));
    let expected = Setxattr { name: b"user.a", value: b"v", flags: 2, own_flags: 0 };
    let request = Request::parse(&bytes, Dialect::default()).unwrap();
    assert_eq!(request.operation, Operation::Setxattr(expected));
}

proptest! {
    #[test]
    fn any_bytes_are_a_request_or_an_error(opcode in 0_u32..60, body in proptest::collection::vec(any::<u8>(), 0..200), ext in any::<bool>()) {
        let bytes = message(opcode, &body);
        if let Ok(request) = Request::parse(&bytes, Dialect { setxattr_ext: ext }) {
            if let Operation::Write(write) = request.operation {
                prop_assert!(write.data.len() <= body.len());
            }
            if let Operation::BatchForget(forgets) = request.operation {
                prop_assert_eq!(forgets.iter().count() * 16 + 8, body.len());
            }
        }
    }

    #[test]
    fn any_header_is_a_header_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let _either = Request::parse(&bytes, EXT);
        let mut bytes = bytes;
        if bytes.len() >= 4 {
            let len = bytes.len() as u32;
            bytes[..4].copy_from_slice(&len.to_ne_bytes());
            let _either = Request::parse(&bytes, EXT);
        }
    }

    #[test]
    fn a_sample_with_flipped_bytes_never_panics(which in 0..samples().len(), at in any::<prop::sample::Index>(), with in any::<u8>()) {
        let (opcode, body, _) = samples().swap_remove(which);
        let mut bytes = message(opcode, &body);
        let i = at.index(bytes.len());
        bytes[i] = with;
        let _either = Request::parse(&bytes, EXT);
    }
}
