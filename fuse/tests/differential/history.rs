//! Random calls, done to both file systems, each answer compared.

use std::fs;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use super::calls::{self, Answer};

/// The same thing on both sides.
#[derive(Clone, Debug)]
pub struct Pair<T> {
    pub mount: T,
    pub local: T,
}

/// uid, gid, further groups.
const USERS: [(u32, u32, &[u32]); 4] =
    [(0, 0, &[]), (1001, 1001, &[]), (1002, 1002, &[1001]), (1001, 1001, &[2000])];
const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const OPEN_MAX: usize = 6;
const SIZE_MAX: u64 = 200_000;
const XATTRS: [&str; 4] = ["user.a", "user.b", "user.c", "security.capability"];
const ACLS: [&str; 2] = ["system.posix_acl_access", "system.posix_acl_default"];

pub struct History {
    roots: Pair<PathBuf>,
    random: u64,
    user: usize,
    open: Vec<Pair<RawFd>>,
    log: Vec<String>,
    compare_times: bool,
}

/// What a call says: its number or errno, and bytes or names.
type Said = Answer<(i64, Vec<u8>)>;

fn plain(answer: Answer) -> Said {
    answer.map(|n| (n, vec![]))
}

fn bytes(answer: Answer<Vec<u8>>) -> Said {
    answer.map(|bytes| (bytes.len() as i64, bytes))
}

/// Descriptors are numbers of the process: only that there is one is compared.
fn opened(answer: Answer) -> Said {
    answer.map(|_| (0, vec![]))
}

/// Attributes that file systems must agree on.
fn shown(stat: &libc::stat) -> String {
    let directory = stat.st_mode & libc::S_IFMT == libc::S_IFDIR;
    let size = if directory { 0 } else { stat.st_size };
    // Setgid without execution by the group is no privilege; the kernel leaves it to a FUSE file system's writers.
    let idle = libc::S_ISGID | libc::S_IXGRP;
    let mode = if !directory && stat.st_mode & idle == libc::S_ISGID {
        stat.st_mode & !libc::S_ISGID
    } else {
        stat.st_mode
    };
    format!(
        "mode {:o}, nlink {}, uid {}, gid {}, rdev {}, size {size}",
        mode, stat.st_nlink, stat.st_uid, stat.st_gid, stat.st_rdev
    )
}

/// The inode, mtime, ctime.
type Times = (u64, (i64, i64), (i64, i64));

fn times(stat: &libc::stat) -> Times {
    (stat.st_ino, (stat.st_mtime, stat.st_mtime_nsec), (stat.st_ctime, stat.st_ctime_nsec))
}

impl History {
    pub fn new(roots: Pair<PathBuf>, seed: u64, compare_times: bool) -> History {
        calls::own_umask();
        calls::become_user(0, 0, &[]);
        for root in [&roots.mount, &roots.local] {
            fs::create_dir(root).unwrap();
            calls::chmod(root, 0o777).unwrap();
        }
        let random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        History { roots, random, user: 0, open: Vec::new(), log: Vec::new(), compare_times }
    }

    fn next(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random >> 16
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    /// A path of one to three names; seldom something odd.
    fn path(&mut self) -> String {
        let depth = self.pick(&[1, 1, 1, 1, 2, 2, 2, 3]);
        let mut path = (0..depth).map(|_| self.pick(&NAMES)).collect::<Vec<_>>().join("/");
        match self.below(60) {
            0 => path.push('/'),
            1 => path.push_str("/."),
            2 => path.push_str("/.."),
            3 => path = format!("{path}/{}", "n".repeat(255)),
            4 => path = format!("{path}/{}", "n".repeat(256)),
            5 => path = "x/".repeat(2100),
            _ => {}
        }
        path
    }

    fn mode(&mut self) -> u32 {
        self.pick(&[
            0o644, 0o755, 0o600, 0o777, 0o666, 0o1777, 0o2775, 0o4755, 0o6775, 0o000, 0o664, 0o070, 0o007,
        ])
    }

    fn fd(&mut self) -> Option<Pair<RawFd>> {
        if self.open.is_empty() {
            return None;
        }
        let i = self.below(self.open.len() as u64) as usize;
        Some(self.open[i].clone())
    }

    fn offset(&mut self) -> i64 {
        let near = self.below(5000);
        let far = self.below(SIZE_MAX);
        self.pick(&[0, near, near, far]) as i64
    }

    pub fn run(mut self, count: usize) -> Result<(), String> {
        let result = (0..count).try_for_each(|_| self.step()).and_then(|()| self.compare_trees());
        for fd in &self.open {
            let _ = (calls::close(fd.mount), calls::close(fd.local));
        }
        calls::become_user(0, 0, &[]);
        result.map_err(|e| {
            let from = self.log.len().saturating_sub(40);
            format!("{e}\nthe last calls were:\n{}", self.log[from..].join("\n"))
        })
    }

    /// Times of what may be concerned, as root sees it.
    fn times_of(&self, root: &Path, paths: &[String], fds: &[RawFd]) -> Vec<Option<Times>> {
        let mut out = Vec::new();
        for path in paths {
            let path = root.join(path);
            out.push(calls::lstat(&path).ok().map(|s| times(&s)));
            out.push(path.parent().and_then(|dir| calls::lstat(dir).ok()).map(|s| times(&s)));
        }
        out.extend(fds.iter().map(|&fd| calls::fstat(fd).ok().map(|s| times(&s))));
        out
    }

    fn stats_of(&self, root: &Path, paths: &[String], fds: &[RawFd]) -> Vec<Result<String, i32>> {
        let mut out: Vec<_> = paths.iter().map(|p| calls::lstat(&root.join(p)).map(|s| shown(&s))).collect();
        out.extend(fds.iter().map(|&fd| calls::fstat(fd).map(|s| shown(&s))));
        out
    }

    /// Does one call on both sides and compares what it says and what it did to `paths` and `fd`.
    fn both(
        &mut self,
        text: String,
        paths: &[String],
        fds: &[Pair<RawFd>],
        call: impl Fn(&Path, bool) -> Said,
    ) -> Result<Said, String> {
        let (uid, gid, groups) = USERS[self.user];
        let mut says = Vec::new();
        for on_mount in [true, false] {
            let root = if on_mount { &self.roots.mount } else { &self.roots.local };
            let fds: Vec<RawFd> = fds.iter().map(|fd| if on_mount { fd.mount } else { fd.local }).collect();
            let before = self.times_of(root, paths, &fds);
            calls::become_user(uid, gid, groups);
            let said = call(root, on_mount);
            calls::become_user(0, 0, &[]);
            let after = self.times_of(root, paths, &fds);
            let moved: Vec<Option<(bool, bool)>> = before
                .iter()
                .zip(&after)
                .map(|(a, b)| Some((a.as_ref()?, b.as_ref()?)))
                .map(|pair| pair.filter(|(a, b)| a.0 == b.0).map(|(a, b)| (a.1 != b.1, a.2 != b.2)))
                .collect();
            says.push((said, self.stats_of(root, paths, &fds), moved));
        }
        let local = says.pop().unwrap();
        let mount = says.pop().unwrap();
        let short = |said: &Said| match said {
            Ok((n, bytes)) if bytes.len() <= 64 => format!("{n} {:?}", String::from_utf8_lossy(bytes)),
            Ok((n, _)) => format!("{n}"),
            Err(e) => std::io::Error::from_raw_os_error(*e).to_string(),
        };
        self.log.push(format!("  uid {uid}: {text} = {}", short(&local.0)));
        if mount.0 != local.0 {
            return Err(format!(
                "the mount says {}, the local file system {}",
                short(&mount.0),
                short(&local.0)
            ));
        }
        if mount.1 != local.1 {
            return Err(format!(
                "attributes: the mount has {:#?},\nthe local file system {:#?}",
                mount.1, local.1
            ));
        }
        if self.compare_times && mount.2 != local.2 {
            return Err(format!(
                "(mtime, ctime) that moved, of {paths:?} (each and its directory) and descriptors: on the mount {:?}, locally {:?}",
                mount.2, local.2
            ));
        }
        Ok(mount.0)
    }

    fn step(&mut self) -> Result<(), String> {
        self.user = self.pick(&[0, 0, 1, 1, 2, 3]);
        match self.below(100) {
            0..58 => self.step_on_names(),
            58..94 => self.step_on_files(),
            94..97 => {
                let mask = self.pick(&[0o022, 0o027, 0o000, 0o002]);
                self.log.push(format!("  umask {mask:o}"));
                calls::umask(mask);
                Ok(())
            }
            _ => self.list_directory(),
        }
    }

    fn step_on_names(&mut self) -> Result<(), String> {
        let (p, q, mode) = (self.path(), self.path(), self.mode());
        let (one, two) = ([p.clone()], [p.clone(), q.clone()]);
        let at = |root: &Path| root.join(&p);
        let done = match self.below(34) {
            0..4 => {
                self.both(format!("mkdir {p} {mode:o}"), &one, &[], |r, _| plain(calls::mkdir(&at(r), mode)))
            }
            4..6 => self.both(format!("rmdir {p}"), &one, &[], |r, _| plain(calls::rmdir(&at(r)))),
            6..8 => self.both(format!("unlink {p}"), &one, &[], |r, _| plain(calls::unlink(&at(r)))),
            8..11 => {
                self.both(format!("link {p} {q}"), &two, &[], |r, _| plain(calls::link(&at(r), &r.join(&q))))
            }
            11..13 => {
                let target = self.pick(&["a", "b", "../a", "a/b", "nowhere", "d"]);
                self.both(format!("symlink {target} {p}"), &one, &[], |r, _| {
                    plain(calls::symlink(target, &at(r)))
                })
            }
            13 => self.both(format!("readlink {p}"), &one, &[], |r, _| bytes(calls::readlink(&at(r)))),
            14..18 => {
                let flags = self.pick(&[
                    0,
                    0,
                    0,
                    libc::RENAME_NOREPLACE,
                    libc::RENAME_EXCHANGE,
                    libc::RENAME_EXCHANGE | 1,
                ]);
                self.both(format!("rename {p} {q} {flags}"), &two, &[], |r, _| {
                    plain(calls::rename(&at(r), &r.join(&q), flags))
                })
            }
            18 => {
                let kind = self.pick(&[libc::S_IFIFO, libc::S_IFSOCK, libc::S_IFREG, libc::S_IFCHR]);
                self.both(format!("mknod {p} {:o}", kind | mode), &one, &[], |r, _| {
                    plain(calls::mknod(&at(r), kind | mode, libc::makedev(1, 3)))
                })
            }
            19..22 => {
                self.both(format!("chmod {p} {mode:o}"), &one, &[], |r, _| plain(calls::chmod(&at(r), mode)))
            }
            22..24 => {
                let ids = [u32::MAX, 0, 1001, 1002, 2000];
                // Without either the kernel asks a FUSE file system nothing, and ext4's owner.
                let (uid, gid) = (self.pick(&ids), self.pick(&ids[1..]));
                self.both(format!("lchown {p} {} {}", uid as i32, gid as i32), &one, &[], |r, _| {
                    plain(calls::lchown(&at(r), uid, gid))
                })
            }
            24 => {
                let size = self.offset() - 1;
                self.both(format!("truncate {p} {size}"), &one, &[], |r, _| {
                    plain(calls::truncate(&at(r), size))
                })
            }
            25 => self.utimens(&p),
            26 => {
                let how =
                    self.pick(&[libc::F_OK, libc::R_OK, libc::W_OK, libc::X_OK, libc::R_OK | libc::W_OK]);
                self.both(format!("access {p} {how}"), &one, &[], |r, _| plain(calls::access(&at(r), how)))
            }
            27..30 => self.xattr(&p),
            30..33 => self.acl(&p),
            _ => self.both(format!("listxattr {p}"), &one, &[], |r, _| {
                bytes(calls::listxattr(&at(r)).map(|names| names.concat()))
            }),
        };
        done.map(drop)
    }

    fn utimens(&mut self, p: &str) -> Result<Said, String> {
        let mut time = || {
            let (secs, nanos) = (self.below(1 << 31) as i64, self.below(1_000_000_000) as i64);
            let nanos = self.pick(&[nanos, nanos, libc::UTIME_NOW, libc::UTIME_OMIT, 1_000_000_000]);
            libc::timespec { tv_sec: secs, tv_nsec: nanos }
        };
        let (times, follow) = ([time(), time()], self.below(2) == 0);
        let told = times.map(|t| (t.tv_sec, t.tv_nsec));
        self.both(format!("utimensat {p} {told:?} follow {follow}"), &[p.to_owned()], &[], |r, _| {
            calls::utimens(&r.join(p), times, follow)?;
            // What was set is there to the nanosecond.
            let stat = calls::lstat(&r.join(p))?;
            let set = |t: libc::timespec, is: (i64, i64)| {
                if follow || t.tv_nsec == libc::UTIME_NOW || t.tv_nsec == libc::UTIME_OMIT {
                    (0, 0)
                } else {
                    is
                }
            };
            let atime = set(times[0], (stat.st_atime, stat.st_atime_nsec));
            Ok((
                0,
                format!("{atime:?} {:?}", set(times[1], (stat.st_mtime, stat.st_mtime_nsec))).into_bytes(),
            ))
        })
    }

    fn xattr(&mut self, p: &str) -> Result<Said, String> {
        let (name, one) = (self.pick(&XATTRS), [p.to_owned()]);
        match self.below(6) {
            0..3 => {
                let value = if name == "security.capability" {
                    // One capability, permitted and effective, version 2. Another each time: ext4 sets no ctime otherwise.
                    let words = [0x0200_0001_u32, 1 << self.below(31), self.next() as u32 & 0xff, 0, 0];
                    words.iter().flat_map(|w| w.to_le_bytes()).collect()
                } else {
                    vec![b'v'; self.below(300) as usize]
                };
                let flags = self.pick(&[0, 0, libc::XATTR_CREATE, libc::XATTR_REPLACE]);
                self.both(format!("setxattr {p} {name} {} bytes {flags}", value.len()), &one, &[], |r, _| {
                    plain(calls::setxattr(&r.join(p), name, &value, flags))
                })
            }
            3 => self.both(format!("removexattr {p} {name}"), &one, &[], |r, _| {
                plain(calls::removexattr(&r.join(p), name))
            }),
            _ => {
                let len = self.pick(&[0, 10, 1000]);
                self.both(format!("getxattr {p} {name} {len}"), &one, &[], |r, _| {
                    bytes(calls::getxattr(&r.join(p), name, len))
                })
            }
        }
    }

    fn acl(&mut self, p: &str) -> Result<Said, String> {
        let (name, one) = (self.pick(&ACLS), [p.to_owned()]);
        match self.below(6) {
            0..4 => {
                let value = self.acl_value();
                self.both(format!("setxattr {p} {name} {value:02x?}"), &one, &[], |r, _| {
                    plain(calls::setxattr(&r.join(p), name, &value, 0))
                })
            }
            4 => self.both(format!("removexattr {p} {name}"), &one, &[], |r, _| {
                plain(calls::removexattr(&r.join(p), name))
            }),
            _ => self.both(format!("getxattr {p} {name}"), &one, &[], |r, _| {
                bytes(calls::getxattr(&r.join(p), name, 1000))
            }),
        }
    }

    /// An access control list; seldom an empty or a wrong one.
    fn acl_value(&mut self) -> Vec<u8> {
        let mut entries = vec![(1_u16, self.below(8) as u16, u32::MAX)];
        let how = self.below(12);
        let (user, group) = (self.pick(&[1001, 1002]), self.pick(&[1001, 2000]));
        if (2..8).contains(&how) {
            entries.push((2, self.below(8) as u16, user));
        }
        // The group class executes: see `shown`.
        entries.push((4, self.below(8) as u16 | 1, u32::MAX));
        if (5..10).contains(&how) {
            entries.push((8, self.below(8) as u16 | 1, group));
        }
        if (1..10).contains(&how) {
            entries.push((16, self.below(8) as u16 | 1, u32::MAX));
        }
        entries.push((32, self.below(8) as u16, u32::MAX));
        match how {
            10 => entries.clear(),
            11 => drop(entries.pop()),
            _ => {}
        }
        let mut value = 2_u32.to_le_bytes().to_vec();
        for (tag, perm, id) in entries {
            value.extend_from_slice(&tag.to_le_bytes());
            value.extend_from_slice(&perm.to_le_bytes());
            value.extend_from_slice(&id.to_le_bytes());
        }
        value
    }

    fn step_on_files(&mut self) -> Result<(), String> {
        let what = self.below(40);
        if what < 9 || self.open.is_empty() {
            return self.open_file();
        }
        let Some(fd) = self.fd() else { return Ok(()) };
        let fds = [fd.clone()];
        let on = |mount: bool| if mount { fd.mount } else { fd.local };
        let (offset, len) = (self.offset(), self.pick(&[0, 1, 100, 4096, 5000, 70_000]));
        let done = match what {
            9..12 => {
                let i = self.open.iter().position(|f| f.mount == fd.mount).unwrap();
                self.open.remove(i);
                self.both(format!("close fd {i}"), &[], &[], |_, m| plain(calls::close(on(m))))
            }
            12..17 => {
                let data = rig_pattern(len, self.next());
                self.both(format!("pwrite {offset} {len} bytes"), &[], &fds, |_, m| {
                    plain(calls::pwrite(on(m), &data, offset))
                })
            }
            17..20 => {
                let data = rig_pattern(len.min(5000), self.next());
                self.both(format!("write {} bytes", data.len()), &[], &fds, |_, m| {
                    plain(calls::write(on(m), &data))
                })
            }
            20..25 => self.both(format!("pread {offset} {len}"), &[], &fds, |_, m| {
                bytes(calls::pread(on(m), len, offset))
            }),
            25..27 => self.both(format!("ftruncate {offset}"), &[], &fds, |_, m| {
                plain(calls::ftruncate(on(m), offset))
            }),
            27..30 => {
                let keep = libc::FALLOC_FL_KEEP_SIZE;
                let mode = self.pick(&[
                    0,
                    keep,
                    keep | libc::FALLOC_FL_PUNCH_HOLE,
                    libc::FALLOC_FL_ZERO_RANGE,
                    keep | libc::FALLOC_FL_ZERO_RANGE,
                    libc::FALLOC_FL_PUNCH_HOLE,
                ]);
                self.both(format!("fallocate {mode} {offset} {len}"), &[], &fds, |_, m| {
                    plain(calls::fallocate(on(m), mode, offset, len as i64))
                })
            }
            30 => {
                let mode = self.mode();
                self.both(format!("fchmod {mode:o}"), &[], &fds, |_, m| plain(calls::fchmod(on(m), mode)))
            }
            31 => {
                let gid = self.pick(&[0, 1001, 2000]);
                self.both(format!("fchown {}", gid as i32), &[], &fds, |_, m| {
                    plain(calls::fchown(on(m), u32::MAX, gid))
                })
            }
            32 => self.both("fsync".into(), &[], &fds, |_, m| plain(calls::fsync(on(m)))),
            33..35 => {
                let whence = self.pick(&[libc::SEEK_SET, libc::SEEK_CUR, libc::SEEK_END]);
                self.both(format!("lseek {offset} {whence}"), &[], &fds, |_, m| {
                    plain(calls::lseek(on(m), offset, whence))
                })
            }
            35..38 => {
                let Some(to) = self.fd() else { return Ok(()) };
                let to_offset = self.offset();
                let both = [fd.clone(), to.clone()];
                self.both(
                    format!("copy_file_range {offset} to {to_offset}, {len} bytes"),
                    &[],
                    &both,
                    |_, m| {
                        let to = if m { to.mount } else { to.local };
                        // It may do less than was asked for, as often as it likes.
                        let mut done = 0;
                        while done < len as i64 {
                            let left = (len as i64 - done) as usize;
                            match calls::copy_file_range(on(m), offset + done, to, to_offset + done, left) {
                                Ok(0) => break,
                                Ok(n) => done += n,
                                Err(e) => return Err(e),
                            }
                        }
                        Ok((done, vec![]))
                    },
                )
            }
            _ => {
                let q = self.path();
                self.both(format!("link of a descriptor to {q}"), std::slice::from_ref(&q), &fds, |r, m| {
                    plain(calls::link_fd(on(m), &r.join(&q)))
                })
            }
        };
        done.map(drop)
    }

    fn open_file(&mut self) -> Result<(), String> {
        let (p, mode) = (self.path(), self.mode());
        let way = self.pick(&[libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR, libc::O_RDWR]);
        let more = self.pick(&[
            libc::O_CREAT,
            libc::O_CREAT,
            libc::O_CREAT | libc::O_EXCL,
            libc::O_CREAT | libc::O_TRUNC,
            libc::O_TRUNC,
            libc::O_APPEND,
            libc::O_APPEND | libc::O_CREAT,
            libc::O_NOFOLLOW,
            libc::O_DIRECTORY,
            libc::O_SYNC | libc::O_CREAT,
            libc::O_TMPFILE,
            libc::O_TMPFILE | libc::O_EXCL,
            0,
        ]);
        // A fifo would wait for its other end.
        let flags = way | more | libc::O_NONBLOCK;
        let opened_pair = std::cell::Cell::new((-1, -1));
        let answer =
            self.both(format!("open {p} {flags:o} {mode:o}"), std::slice::from_ref(&p), &[], |r, m| {
                opened(calls::open(&r.join(&p), flags, mode).inspect(|&fd| {
                    let (mount, local) = opened_pair.get();
                    opened_pair.set(if m { (fd as RawFd, local) } else { (mount, fd as RawFd) });
                }))
            });
        let (mount, local) = opened_pair.get();
        match answer {
            // The mount does not hear of opens of directories, fifos and devices: one that is removed meanwhile is gone, and what
            // is written to it sets no times.
            Ok(Ok(_)) if calls::fstat(local).is_ok_and(|s| s.st_mode & libc::S_IFMT != libc::S_IFREG) => {
                let _ = (calls::close(mount), calls::close(local));
                Ok(())
            }
            Ok(Ok(_)) => {
                self.open.push(Pair { mount, local });
                if self.open.len() > OPEN_MAX {
                    let old = self.open.remove(0);
                    let _ = (calls::close(old.mount), calls::close(old.local));
                }
                Ok(())
            }
            other => {
                for fd in [mount, local].into_iter().filter(|&fd| fd >= 0) {
                    let _ = calls::close(fd);
                }
                other.map(drop)
            }
        }
    }

    fn list_directory(&mut self) -> Result<(), String> {
        let p = self.path();
        let done = self.both(format!("readdir {p}"), std::slice::from_ref(&p), &[], |r, _| {
            let entries = fs::read_dir(r.join(&p)).map_err(|e| e.raw_os_error().unwrap())?;
            let mut names: Vec<String> = entries
                .map(|e| e.unwrap())
                .map(|e| format!("{:?} {:?}\n", e.file_name(), e.file_type().unwrap()))
                .collect();
            names.sort();
            Ok((names.len() as i64, names.concat().into_bytes()))
        });
        done.map(drop)
    }

    /// In the end all names, attributes and contents are the same.
    fn compare_trees(&mut self) -> Result<(), String> {
        self.user = 0;
        let mut left = vec![String::new()];
        while let Some(dir) = left.pop() {
            let mut names: Vec<String> = fs::read_dir(self.roots.local.join(&dir))
                .unwrap()
                .map(|e| e.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            let expected = names.clone();
            let there = self.both(format!("readdir {dir:?}"), &[], &[], |r, _| {
                let mut names: Vec<String> = fs::read_dir(r.join(&dir))
                    .unwrap()
                    .map(|e| e.unwrap().file_name().into_string().unwrap())
                    .collect();
                names.sort();
                Ok((names.len() as i64, names.join("\n").into_bytes()))
            })?;
            assert_eq!(there.unwrap().0, expected.len() as i64);
            for name in names {
                let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
                let kind = fs::symlink_metadata(self.roots.local.join(&path)).unwrap().file_type();
                let all = self.both(format!("all of {path}"), std::slice::from_ref(&path), &[], |r, _| {
                    let full = r.join(&path);
                    let mut all = vec![];
                    for name in calls::listxattr(&full)? {
                        let name = String::from_utf8(name).unwrap();
                        let name = name.trim_end_matches('\0');
                        all.extend_from_slice(name.as_bytes());
                        all.extend(calls::getxattr(&full, name, 4000)?);
                    }
                    if kind.is_file() {
                        all.extend(fs::read(&full).map_err(|e| e.raw_os_error().unwrap())?);
                    }
                    Ok((all.len() as i64, all))
                })?;
                assert!(all.is_ok(), "{path}: {all:?}");
                if kind.is_dir() {
                    left.push(path);
                }
            }
        }
        Ok(())
    }
}

/// Bytes that differ from write to write.
fn rig_pattern(len: usize, seed: u64) -> Vec<u8> {
    super::rig::pattern(len, seed)
}
