//! What POSIX asks beyond the everyday, on a real mount: times of access, limits of sizes and names, large directories, files
//! copied by reference, privileges.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod rig;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};

use granary_fuse::Op;
use granary_tests::apart;
use rig::{Rig, Setup, data, errno, pattern, work};
use rustix::fs::{FallocateFlags, Timespec, Timestamps};

fn with(options: &str) -> Rig {
    Rig::new(&Setup { options: options.into(), ..Setup::default() })
}

fn set_times(path: &std::path::Path, atime: i64, mtime: i64) {
    let time = |tv_sec| Timespec { tv_sec, tv_nsec: 0 };
    let times = Timestamps { last_access: time(atime), last_modification: time(mtime) };
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::empty()).unwrap();
}

#[test]
fn times_of_access_are_kept_as_the_mount_says() {
    for (options, small, first, second) in [
        ("", 10, false, false),
        ("noatime", 10, false, false),
        ("relatime", 10, true, false),
        ("relatime", 3 << 20, true, false),
        ("strictatime", 10, true, true),
    ] {
        let rig = with(options);
        let path = rig.at("read");
        fs::write(&path, pattern(small, 1)).unwrap();
        set_times(&path, 1000, 2000);
        let read = || {
            let before = fs::metadata(&path).unwrap();
            assert!(fs::read(&path).unwrap() == pattern(small, 1));
            let after = fs::metadata(&path).unwrap();
            assert_eq!((before.ctime(), before.ctime_nsec()), (after.ctime(), after.ctime_nsec()));
            assert_eq!(before.mtime(), after.mtime());
            (before.atime(), before.atime_nsec()) != (after.atime(), after.atime_nsec())
        };
        assert_eq!(read(), first, "{options:?}: the file changed after it was read last");
        assert_eq!(read(), second, "{options:?}: it was read meanwhile");
        File::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mtime(), 2000);
    }
}

#[test]
fn a_stored_file_is_copied_without_reading_or_writing_it() {
    for rig in [work(), data()] {
        let (from, to) = (rig.at("from"), rig.at("to"));
        let bytes = pattern(5 << 20, 3);
        fs::write(&from, &bytes).unwrap();
        rig.runtime.block_on(rig.tree.sync()).unwrap();
        let (copied, made) = rig.requests(|| fs::copy(&from, &to).unwrap());
        assert_eq!(copied, 5 << 20);
        assert!(made.iter().all(|(op, _)| !matches!(op, Op::Read | Op::Write)), "{made:?}");
        assert!(made.iter().any(|(op, n)| *op == Op::CopyFileRange && *n <= 3), "{made:?}");
        assert!(fs::read(&to).unwrap() == bytes);
        fs::remove_file(&from).unwrap();
        assert!(fs::read(&to).unwrap() == bytes);
        // Over the end, onto itself, and of what is not stored.
        let file = OpenOptions::new().read(true).write(true).open(&to).unwrap();
        let copy = |at: u64, to: u64, len: usize| {
            rustix::fs::copy_file_range(&file, Some(&mut at.clone()), &file, Some(&mut to.clone()), len)
        };
        assert_eq!(copy(0, 100, 101).unwrap_err(), rustix::io::Errno::INVAL);
        assert_eq!(copy(5 << 20, 0, 10).unwrap(), 0);
        assert_eq!(copy((5 << 20) - 3, 5 << 20, 3).unwrap(), 3);
        file.write_all_at(b"written", 1000).unwrap();
        assert_eq!(copy(1000, 2000, 7).unwrap(), 7);
        let mut expected = [&bytes[..], &bytes[bytes.len() - 3..]].concat();
        expected[1000..1007].copy_from_slice(b"written");
        expected[2000..2007].copy_from_slice(b"written");
        assert!(fs::read(&to).unwrap() == expected);
    }
}

#[test]
fn sizes_have_limits() {
    for rig in [work(), data()] {
        let file = File::create(rig.at("f")).unwrap();
        let most = granary_core::limits::FILE_BYTES_MAX;
        assert_eq!(errno(file.write_at(b"x", most)), libc::EFBIG);
        assert_eq!(errno(file.set_len(most + 1)), libc::EFBIG);
        file.set_len(most).unwrap();
        assert_eq!(file.metadata().unwrap().len(), most);
        file.set_len(0).unwrap();
        for flags in
            [FallocateFlags::COLLAPSE_RANGE, FallocateFlags::INSERT_RANGE, FallocateFlags::UNSHARE_RANGE]
        {
            let refused = rustix::fs::fallocate(&file, flags, 0, 4096).unwrap_err();
            assert_eq!(refused, rustix::io::Errno::OPNOTSUPP, "{flags:?}");
        }
        // A child, since the limit is a process's.
        let script = "trap '' XFSZ; ulimit -f 8; dd if=/dev/zero of=\"$1\" bs=1024 count=20 2>&1 | grep -q 'File too large' && \
                      test $(stat -c %s \"$1\") -eq 8192";
        let path = rig.at("limited");
        let mut limited = std::process::Command::new("bash");
        limited.args(["-c", script, "sh"]).arg(&path);
        let ended = apart(|| limited.status()).unwrap();
        assert!(ended.success(), "{} bytes", fs::metadata(&path).unwrap().len());
    }
}

#[test]
fn names_and_paths_have_limits() {
    for rig in [work(), data()] {
        let longest = "é".repeat(127) + "x";
        fs::write(rig.at(&longest), b"here").unwrap();
        assert_eq!(fs::read(rig.at(&longest)).unwrap(), b"here");
        assert_eq!(errno(File::create(rig.at(&"n".repeat(256)))), libc::ENAMETOOLONG);
        assert_eq!(errno(fs::metadata(rig.at(&"n".repeat(256)))), libc::ENAMETOOLONG);
        // As deep as one likes, by steps: a path has at most 4,095 bytes.
        let mut dir =
            rustix::fs::open(rig.root(), rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap();
        for _ in 0..100 {
            rustix::fs::mkdirat(&dir, "d".repeat(100), rustix::fs::Mode::RWXU).unwrap();
            dir = rustix::fs::openat(
                &dir,
                "d".repeat(100),
                rustix::fs::OFlags::DIRECTORY,
                rustix::fs::Mode::empty(),
            )
            .unwrap();
        }
        let deep = rig.at(&vec!["d".repeat(100); 100].join("/"));
        assert_eq!(errno(fs::metadata(deep)), libc::ENAMETOOLONG);
        let below = format!("/proc/self/fd/{}/file", dir.as_raw_fd());
        fs::write(&below, b"deep").unwrap();
        assert_eq!(fs::read(&below).unwrap(), b"deep");
    }
}

#[test]
fn a_listing_is_stable_while_the_directory_changes() {
    const STAY: usize = 3000;
    let rig = work();
    let dir = rig.at("many");
    fs::create_dir(&dir).unwrap();
    for i in 0..STAY {
        File::create(dir.join(format!("stay-{i}"))).unwrap();
    }
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (dir, stop) = (&dir, &stop);
        scope.spawn(move || {
            let mut i = 0_u64;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let (a, b) = (dir.join(format!("go-{i}")), dir.join(format!("gone-{i}")));
                File::create(&a).unwrap();
                fs::rename(&a, &b).unwrap();
                fs::remove_file(&b).unwrap();
                i += 1;
            }
        });
        for _ in 0..10 {
            let mut names: Vec<String> = fs::read_dir(dir)
                .unwrap()
                .map(|e| e.unwrap().file_name().into_string().unwrap())
                .filter(|name| name.starts_with("stay-"))
                .collect();
            names.sort();
            let all = names.len();
            names.dedup();
            assert_eq!((all, names.len()), (STAY, STAY), "each name that stays is listed exactly once");
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn files_are_read_and_written_past_the_page_cache() {
    for rig in [work(), data()] {
        for len in [8192, 3 << 20] {
            let path = rig.at(&format!("direct-{len}"));
            let bytes = pattern(len, 4);
            let options = || {
                let mut options = OpenOptions::new();
                options.custom_flags(libc::O_DIRECT | libc::O_SYNC);
                options
            };
            let mut file = options().write(true).create_new(true).open(&path).unwrap();
            file.write_all(&bytes).unwrap();
            assert_eq!(errno(options().write(true).create_new(true).open(&path)), libc::EEXIST);
            let mut seen = Vec::new();
            options().read(true).open(&path).unwrap().read_to_end(&mut seen).unwrap();
            assert!(seen == bytes, "{len}");
            assert!(fs::read(&path).unwrap() == bytes, "{len}");
        }
    }
}

#[test]
fn capabilities_go_with_the_content() {
    let value: Vec<u8> = [0x0200_0001_u32, 1 << 13, 0, 0, 0].iter().flat_map(|w| w.to_le_bytes()).collect();
    for rig in [work(), data()] {
        for len in [100, 3 << 20] {
            let path = rig.at(&format!("tool-{len}"));
            fs::write(&path, pattern(len, 1)).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            let none = rustix::fs::XattrFlags::empty();
            let has = || rustix::fs::getxattr(&path, "security.capability", &mut [0_u8; 64][..]).is_ok();
            let set = || rustix::fs::setxattr(&path, "security.capability", &value, none).unwrap();
            assert!(!has());
            set();
            assert!(has());
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            assert!(has(), "to open is not to change");
            file.write_all_at(b"other", 0).unwrap();
            assert!(!has(), "written, {len}");
            set();
            file.set_len(50).unwrap();
            assert!(!has(), "truncated, {len}");
            set();
            std::os::unix::fs::chown(&path, Some(7), None).unwrap();
            assert!(!has(), "given to another, {len}");
            set();
            File::create(&path).unwrap();
            assert!(!has(), "emptied by open, {len}");
        }
    }
}
