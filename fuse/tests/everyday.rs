//! What programs do with files all day, on a real mount, in both modes.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod rig;

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use granary_tests::apart;
use rig::{Rig, Setup, data, errno, pattern, until, work};
use rustix::fs::{AtFlags, CWD, FallocateFlags, Mode, OFlags, RenameFlags, Timespec, Timestamps, XattrFlags};

fn both(test: impl Fn(&Rig)) {
    test(&work());
    test(&data());
}

#[test]
fn files_are_written_read_renamed_and_removed() {
    both(|rig| {
        let (a, b) = (rig.at("a"), rig.at("b"));
        for len in [0, 1, 4096, 100_000, 3 << 20] {
            let bytes = pattern(len, len as u64);
            fs::write(&a, &bytes).unwrap();
            assert_eq!(fs::metadata(&a).unwrap().len(), len as u64);
            assert!(fs::read(&a).unwrap() == bytes, "{len} bytes");
            assert!(fs::read(&a).unwrap() == bytes, "{len} bytes again");
            fs::rename(&a, &b).unwrap();
            assert_eq!(errno(fs::metadata(&a)), libc::ENOENT);
            assert!(fs::read(&b).unwrap() == bytes);
            fs::remove_file(&b).unwrap();
            assert_eq!(errno(File::open(&b)), libc::ENOENT);
        }
    });
}

#[test]
fn a_file_is_rewritten_appended_and_truncated_in_place() {
    both(|rig| {
        let path = rig.at("log.txt");
        let mut expected = Vec::new();
        for i in 0..50 {
            let line = format!("line {i}\n");
            OpenOptions::new()
                .append(true)
                .create(true)
                .open(&path)
                .unwrap()
                .write_all(line.as_bytes())
                .unwrap();
            expected.extend_from_slice(line.as_bytes());
        }
        assert_eq!(fs::read(&path).unwrap(), expected);
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        file.write_all_at(b"LINE", 0).unwrap();
        expected[..4].copy_from_slice(b"LINE");
        let mut seen = vec![0; expected.len()];
        file.read_exact_at(&mut seen, 0).unwrap();
        assert_eq!(seen, expected);
        file.set_len(10).unwrap();
        file.set_len(20).unwrap();
        expected.truncate(10);
        expected.resize(20, 0);
        drop(file);
        assert_eq!(fs::read(&path).unwrap(), expected);
        fs::write(&path, b"anew").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"anew");
        File::create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    });
}

#[test]
fn two_appenders_do_not_overwrite_each_other() {
    both(|rig| {
        let path = rig.at("shared.log");
        std::thread::scope(|scope| {
            for who in [b'a', b'b', b'c'] {
                let path = &path;
                scope.spawn(move || {
                    let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
                    for _ in 0..100 {
                        file.write_all(&[who; 33]).unwrap();
                    }
                });
            }
        });
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 300 * 33);
        assert!(bytes.chunks(33).all(|chunk| chunk.iter().all(|b| b == &chunk[0])));
    });
}

#[test]
fn an_unlinked_file_lives_while_it_is_open() {
    both(|rig| {
        let (path, other) = (rig.at("gone"), rig.at("other"));
        for len in [10, 2 << 20] {
            let bytes = pattern(len, 5);
            fs::write(&path, &bytes).unwrap();
            let mut file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
            fs::remove_file(&path).unwrap();
            assert_eq!(file.metadata().unwrap().nlink(), 0);
            let mut seen = Vec::new();
            file.read_to_end(&mut seen).unwrap();
            assert!(seen == bytes);
            file.write_all_at(b"still", 0).unwrap();
            let mut head = [0; 5];
            file.read_exact_at(&mut head, 0).unwrap();
            assert_eq!(&head, b"still");
        }
        // The same by being replaced.
        fs::write(&path, b"old").unwrap();
        fs::write(&other, b"new").unwrap();
        let mut old = File::open(&path).unwrap();
        fs::rename(&other, &path).unwrap();
        let mut seen = String::new();
        old.read_to_string(&mut seen).unwrap();
        assert_eq!(seen, "old");
        assert_eq!(fs::read(&path).unwrap(), b"new");
        drop(old);
        fs::remove_file(&path).unwrap();
        let usage = || rig.volume.namespaces().unwrap()[0].usage;
        until("nothing is left", || usage().inodes == 1 && usage().bytes == 0);
    });
}

#[test]
fn directories_links_and_attributes() {
    both(|rig| {
        let dir = rig.at("dir");
        fs::create_dir(&dir).unwrap();
        assert_eq!(errno(fs::create_dir(&dir)), libc::EEXIST);
        fs::write(dir.join("f"), b"x").unwrap();
        assert_eq!(errno(fs::remove_dir(&dir)), libc::ENOTEMPTY);
        fs::hard_link(dir.join("f"), dir.join("g")).unwrap();
        assert_eq!(fs::metadata(dir.join("f")).unwrap().nlink(), 2);
        fs::remove_file(dir.join("f")).unwrap();
        assert_eq!(fs::metadata(dir.join("g")).unwrap().nlink(), 1);
        assert_eq!(fs::read(dir.join("g")).unwrap(), b"x");
        symlink("g", dir.join("s")).unwrap();
        assert_eq!(fs::read_link(dir.join("s")).unwrap(), Path::new("g"));
        assert_eq!(fs::read(dir.join("s")).unwrap(), b"x");

        let g = dir.join("g");
        fs::set_permissions(&g, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::chown(&g, Some(12), Some(34)).unwrap();
        let time = Timespec { tv_sec: 1_000_000_007, tv_nsec: 123_456_789 };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, &g, &times, AtFlags::empty()).unwrap();
        let meta = fs::metadata(&g).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o640, 12, 34));
        assert_eq!(
            (meta.mtime(), meta.mtime_nsec(), meta.atime()),
            (1_000_000_007, 123_456_789, 1_000_000_007)
        );

        // Times set while the file is being written stay.
        let mut file = File::create(dir.join("t")).unwrap();
        file.write_all(b"bytes").unwrap();
        rustix::fs::futimens(&file, &times).unwrap();
        assert_eq!(file.metadata().unwrap().mtime(), 1_000_000_007);
        drop(file);
        assert_eq!(fs::metadata(dir.join("t")).unwrap().mtime(), 1_000_000_007);

        for special in [libc::S_IFIFO, libc::S_IFSOCK, libc::S_IFREG] {
            let path = CString::new(dir.join("special").as_os_str().as_bytes()).unwrap();
            // SAFETY: a valid path.
            assert_eq!(unsafe { libc::mknod(path.as_ptr(), special | 0o600, 0) }, 0);
            assert_eq!(fs::symlink_metadata(dir.join("special")).unwrap().mode(), special | 0o600);
            fs::remove_file(dir.join("special")).unwrap();
        }
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(fs::read_dir(rig.root()).unwrap().count(), 0);
    });
}

#[test]
fn renames_of_every_kind() {
    both(|rig| {
        let path = |name: &str| rig.at(name);
        fs::write(path("a"), b"a").unwrap();
        fs::write(path("b"), b"b").unwrap();
        let rename =
            |from: &str, to: &str, flags| rustix::fs::renameat_with(CWD, path(from), CWD, path(to), flags);
        assert_eq!(rename("a", "b", RenameFlags::NOREPLACE), Err(rustix::io::Errno::EXIST));
        rename("a", "b", RenameFlags::EXCHANGE).unwrap();
        assert_eq!(
            (fs::read(path("a")).unwrap(), fs::read(path("b")).unwrap()),
            (b"b".to_vec(), b"a".to_vec())
        );
        rename("a", "c", RenameFlags::NOREPLACE).unwrap();
        fs::create_dir_all(path("d/e")).unwrap();
        assert_eq!(errno(fs::rename(path("d"), path("d/e/f"))), libc::EINVAL);
        assert_eq!(errno(fs::rename(path("c"), path("d"))), libc::EISDIR);
        fs::rename(path("d/e"), path("e")).unwrap();
        fs::rename(path("c"), path("e/c")).unwrap();
        assert_eq!(fs::read(path("e/c")).unwrap(), b"b");
    });
}

#[test]
fn a_running_program_keeps_its_file() {
    both(|rig| {
        let path = rig.at("sleep");
        fs::copy("/bin/sleep", &path).unwrap();
        let len = fs::metadata(&path).unwrap().len();
        // Not at once: the file counts as being written until its last close is through.
        let mut started = None;
        until("it runs", || {
            started = apart(|| Command::new(&path).arg("60").spawn()).ok();
            started.is_some()
        });
        let mut program = started.unwrap();
        for flags in [
            OFlags::WRONLY,
            OFlags::RDWR,
            OFlags::WRONLY | OFlags::TRUNC,
            // The kernel leaves the truncation to us before it looks whether it may be.
            OFlags::RDONLY | OFlags::TRUNC,
        ] {
            let e = rustix::fs::open(&path, flags, Mode::empty()).unwrap_err();
            assert_eq!(e, rustix::io::Errno::TXTBSY, "{flags:?}");
        }
        assert_eq!(fs::metadata(&path).unwrap().len(), len);
        assert!(program.try_wait().unwrap().is_none(), "it runs");
        program.kill().unwrap();
        program.wait().unwrap();
        // Not at once: whoever looks into its `/proc` just then keeps its memory, and with it the program's file.
        until("its file may be changed again", || {
            match rustix::fs::open(&path, OFlags::RDONLY | OFlags::TRUNC, Mode::empty()) {
                Ok(_) => true,
                Err(e) => {
                    assert_eq!(e, rustix::io::Errno::TXTBSY);
                    false
                }
            }
        });
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    });
}

#[test]
fn ten_thousand_entries_are_listed_while_they_are_deleted() {
    both(|rig| {
        let dir = rig.at("many");
        fs::create_dir(&dir).unwrap();
        let names: BTreeSet<String> = (0..10_000).map(|i| format!("file-{i:05}")).collect();
        for name in &names {
            File::create(dir.join(name)).unwrap();
        }
        let list = || -> BTreeSet<String> {
            let mut seen = Vec::new();
            for entry in fs::read_dir(&dir).unwrap() {
                seen.push(entry.unwrap().file_name().into_string().unwrap());
            }
            let set: BTreeSet<String> = seen.iter().cloned().collect();
            assert_eq!(set.len(), seen.len(), "no entry twice");
            set
        };
        assert_eq!(list(), names);
        assert_eq!(list(), names, "and from the kernel's cache");
        let mut left = names.clone();
        let mut seen = BTreeSet::new();
        for (i, entry) in fs::read_dir(&dir).unwrap().enumerate() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(seen.insert(name.clone()), "{name} is listed twice");
            if i % 2 == 0 {
                fs::remove_file(dir.join(&name)).unwrap();
                left.remove(&name);
            }
        }
        assert_eq!(seen, names, "what was there all the time, or until it was listed, is listed once");
        assert_eq!(list(), left);
        fs::remove_dir_all(&dir).unwrap();
        assert!(!dir.exists());
    });
}

#[test]
fn extended_attributes() {
    both(|rig| {
        let path = rig.at("x");
        fs::write(&path, b"x").unwrap();
        let set = |name: &str, value: &[u8], flags| rustix::fs::setxattr(&path, name, value, flags);
        let get = |name: &str| {
            let mut buffer = vec![0; 70_000];
            rustix::fs::getxattr(&path, name, &mut buffer[..]).map(|len| buffer[..len].to_vec())
        };
        set("user.one", b"1", XattrFlags::CREATE).unwrap();
        assert_eq!(set("user.one", b"2", XattrFlags::CREATE), Err(rustix::io::Errno::EXIST));
        assert_eq!(set("user.none", b"2", XattrFlags::REPLACE), Err(rustix::io::Errno::NODATA));
        set("trusted.two", b"", XattrFlags::empty()).unwrap();
        set("user.large", &pattern(10_000, 1), XattrFlags::empty()).unwrap();
        assert_eq!(get("user.one").unwrap(), b"1");
        assert_eq!(get("user.large").unwrap(), pattern(10_000, 1));
        assert_eq!(get("user.none"), Err(rustix::io::Errno::NODATA));
        assert_eq!(get("security.capability"), Err(rustix::io::Errno::NODATA));
        assert_eq!(
            rustix::fs::getxattr(&path, "user.large", &mut [0_u8; 10][..]),
            Err(rustix::io::Errno::RANGE)
        );
        let mut buffer = [0; 1000];
        let len = rustix::fs::listxattr(&path, &mut buffer[..]).unwrap();
        let names: BTreeSet<&[u8]> = buffer[..len].split(|b| *b == 0).filter(|n| !n.is_empty()).collect();
        assert_eq!(names, BTreeSet::from([&b"user.one"[..], b"trusted.two", b"user.large"]));
        rustix::fs::removexattr(&path, "user.one").unwrap();
        assert_eq!(rustix::fs::removexattr(&path, "user.one"), Err(rustix::io::Errno::NODATA));
        set("security.other", b"x", XattrFlags::empty()).unwrap();
        assert_eq!(get("security.other").unwrap(), b"x");
        assert_eq!(get("security.capability"), Err(rustix::io::Errno::NODATA));
        let refused = set("system.other", b"x", XattrFlags::empty());
        assert_eq!(refused, Err(rustix::io::Errno::OPNOTSUPP));
    });
}

#[test]
fn holes_are_made_found_and_read_as_zeros() {
    both(|rig| {
        let path = rig.at("holes");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        file.write_all_at(&pattern(100_000, 3), 0).unwrap();
        rustix::fs::fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 20_000, 30_000)
            .unwrap();
        rustix::fs::fallocate(&file, FallocateFlags::ZERO_RANGE, 90_000, 20_000).unwrap();
        let mut expected = pattern(100_000, 3);
        expected.resize(110_000, 0);
        expected[20_000..50_000].fill(0);
        expected[90_000..].fill(0);
        assert!(fs::read(&path).unwrap() == expected);
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 200_000).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 200_000);
        expected.resize(200_000, 0);
        assert!(fs::read(&path).unwrap() == expected);
        let hole = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)).unwrap();
        assert!((20_000..=110_000).contains(&hole), "{hole}");
        assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(0)), Ok(0));
        assert_eq!(
            rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(200_000)),
            Err(rustix::io::Errno::NXIO)
        );
        assert_eq!(
            rustix::fs::fallocate(&file, FallocateFlags::COLLAPSE_RANGE, 0, 4096),
            Err(rustix::io::Errno::OPNOTSUPP)
        );
    });
}

#[test]
fn files_are_copied_and_made_without_a_name() {
    both(|rig| {
        let bytes = pattern(2_500_000, 9);
        fs::write(rig.at("from"), &bytes).unwrap();
        assert_eq!(fs::copy(rig.at("from"), rig.at("to")).unwrap(), bytes.len() as u64);
        assert!(fs::read(rig.at("to")).unwrap() == bytes);
        for len in [10, 3 << 20] {
            let unnamed = || {
                let mut options = OpenOptions::new();
                let mut file =
                    options.read(true).write(true).custom_flags(libc::O_TMPFILE).open(rig.root()).unwrap();
                file.write_all(&pattern(len, 8)).unwrap();
                assert_eq!(
                    (file.metadata().unwrap().nlink(), file.metadata().unwrap().len()),
                    (0, len as u64)
                );
                file
            };
            drop(unnamed());
            let file = unnamed();
            let proc = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
            let path = rig.at(&format!("named-{len}"));
            let link = || rustix::fs::linkat(CWD, &proc, CWD, &path, AtFlags::SYMLINK_FOLLOW);
            link().unwrap();
            assert_eq!(link(), Err(rustix::io::Errno::EXIST));
            assert_eq!(file.metadata().unwrap().nlink(), 1);
            drop(file);
            assert!(fs::read(&path).unwrap() == pattern(len, 8));
        }
    });
}

/// A shared mapping of `len` bytes.
struct Map(*mut u8, usize);

impl Map {
    fn of(file: &File, len: usize) -> Map {
        use std::os::fd::AsRawFd;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping of an open file, checked below.
        let at =
            unsafe { libc::mmap(std::ptr::null_mut(), len, access, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        assert_ne!(at, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        Map(at.cast(), len)
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is there until drop and only used here.
        unsafe { std::slice::from_raw_parts_mut(self.0, self.1) }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: mapped in `of`, and unmapped once.
        unsafe {
            assert_eq!(libc::msync(self.0.cast(), self.1, libc::MS_SYNC), 0);
            assert_eq!(libc::munmap(self.0.cast(), self.1), 0);
        }
    }
}

#[test]
fn files_are_written_through_mappings() {
    both(|rig| {
        for len in [8192, 4 << 20] {
            let path = rig.at("mapped");
            let mut expected = pattern(len, 1);
            fs::write(&path, &expected).unwrap();
            let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
            let mut map = Map::of(&file, len);
            assert!(map.bytes() == &expected[..]);
            map.bytes()[100..200].fill(7);
            expected[100..200].fill(7);
            drop(map);
            drop(file);
            assert!(fs::read(&path).unwrap() == expected);
            fs::remove_file(&path).unwrap();

            // The handle that create made.
            let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
            file.set_len(len as u64).unwrap();
            let mut map = Map::of(&file, len);
            map.bytes()[5000..5010].fill(9);
            drop(map);
            drop(file);
            let bytes = fs::read(&path).unwrap();
            assert!(
                bytes.len() == len && bytes[5000..5010] == [9; 10] && bytes[..5000].iter().all(|b| *b == 0)
            );
        }
    });
}

#[test]
fn what_is_read_is_what_was_written_however_files_are_opened() {
    // Kept pages, direct writes, passthrough and truncation must never show old bytes.
    both(|rig| {
        let path = rig.at("turns.pt");
        for (turn, len) in [100_usize, 3 << 20, 200_000, 1 << 20, 5 << 20, 10].into_iter().enumerate() {
            let mut bytes = pattern(len, turn as u64);
            fs::write(&path, &bytes).unwrap();
            assert!(fs::read(&path).unwrap() == bytes, "turn {turn}");
            let mut file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
            file.seek(SeekFrom::Start(len as u64 / 2)).unwrap();
            file.write_all(b"changed").unwrap();
            bytes.resize(bytes.len().max(len / 2 + 7), 0);
            bytes[len / 2..len / 2 + 7].copy_from_slice(b"changed");
            assert!(fs::read(&path).unwrap() == bytes, "turn {turn}, while it is open");
            drop(file);
            assert!(fs::read(&path).unwrap() == bytes, "turn {turn}, changed");
            let mut file = OpenOptions::new().append(true).open(&path).unwrap();
            file.write_all(b"more").unwrap();
            bytes.extend_from_slice(b"more");
            file.sync_all().unwrap();
            drop(file);
            assert!(fs::read(&path).unwrap() == bytes, "turn {turn}, appended");
        }
    });
}

#[test]
fn a_read_only_mount_refuses_changes() {
    let rig = Rig::new(&Setup { mode: granary_fuse::Mode::Data, options: "ro".into(), ..Setup::default() });
    assert_eq!(errno(File::create(rig.at("x"))), libc::EROFS);
    assert_eq!(errno(fs::create_dir(rig.at("x"))), libc::EROFS);
    assert_eq!(fs::read_dir(rig.root()).unwrap().count(), 0);
}

#[test]
fn a_full_quota_is_told() {
    for mode in ["mode=work", "mode=data"] {
        let kind = if mode == "mode=work" { granary_fuse::Mode::Work } else { granary_fuse::Mode::Data };
        let rig =
            Rig::new(&Setup { mode: kind, options: mode.into(), bytes_max: 8 << 20, ..Setup::default() });
        let space = rustix::fs::statvfs(rig.root()).unwrap();
        assert_eq!(space.f_blocks * space.f_frsize, 8 << 20);
        fs::write(rig.at("fits"), pattern(1 << 20, 1)).unwrap();
        let full = (0..100).find_map(|i| fs::write(rig.at(&format!("f{i}")), pattern(1 << 20, 2)).err());
        assert_eq!(full.expect("the quota is full").raw_os_error(), Some(libc::EDQUOT), "{mode}");
        assert!(fs::read(rig.at("fits")).unwrap() == pattern(1 << 20, 1));
    }
}

#[test]
fn nothing_is_lost_or_mixed_up_by_many_threads() {
    both(|rig| {
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let root = rig.root();
                scope.spawn(move || {
                    let dir = root.join(format!("t{thread}"));
                    fs::create_dir(&dir).unwrap();
                    for i in 0..200_u64 {
                        let (path, moved) = (dir.join(format!("{i}.bin")), dir.join(format!("{i}.done")));
                        let bytes = pattern(1000 + (i as usize * 997) % 20_000, thread * 1000 + i);
                        fs::write(&path, &bytes).unwrap();
                        fs::rename(&path, &moved).unwrap();
                        if i >= 10 {
                            let old = i - 10;
                            let expected = pattern(1000 + (old as usize * 997) % 20_000, thread * 1000 + old);
                            assert!(fs::read(dir.join(format!("{old}.done"))).unwrap() == expected);
                            fs::remove_file(dir.join(format!("{old}.done"))).unwrap();
                        }
                    }
                    assert_eq!(fs::read_dir(&dir).unwrap().count(), 10);
                });
            }
        });
    });
}

#[test]
fn long_writes_of_many_threads_keep_their_bytes() {
    const LEN: usize = 512 << 10;
    both(|rig| {
        std::thread::scope(|scope| {
            for thread in 0..16_u64 {
                let path = rig.at(&format!("t{thread}"));
                scope.spawn(move || {
                    let file = File::create(&path).unwrap();
                    for round in 0..12_u64 {
                        let bytes = pattern(LEN, thread * 100 + round);
                        // One request each, of a writer that does not read.
                        file.write_all_at(&bytes, 0).unwrap();
                        assert!(fs::read(&path).unwrap() == bytes, "thread {thread}, round {round}");
                    }
                });
            }
        });
    });
}
