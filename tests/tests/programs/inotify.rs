//! What inotify tells of a program's work on the same node.

use std::ffi::CString;
use std::fs;
use std::io::Write;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use granary_tests::until;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};

use crate::rig::{Mode, Rig};

/// What came since last asked: (watch, events, name); the same event twice in a row once.
fn events(fd: &OwnedFd) -> Vec<(i32, ReadFlags, String)> {
    let mut buf = [MaybeUninit::uninit(); 1 << 16];
    let mut reader = Reader::new(fd, &mut buf);
    let mut found = Vec::new();
    loop {
        match reader.next() {
            Ok(event) => {
                let name = event.file_name().map(|n| CString::from(n).into_string().expect("utf-8"));
                found.push((event.wd(), event.events(), name.unwrap_or_default()));
            }
            Err(rustix::io::Errno::AGAIN) => break,
            Err(e) => panic!("inotify: {e}"),
        }
    }
    found.dedup();
    found
}

fn watch(fd: &OwnedFd, path: &Path) -> i32 {
    inotify::add_watch(fd, path, WatchFlags::ALL_EVENTS).expect("a watch")
}

#[test]
fn watchers_see_what_programs_of_this_node_do() {
    use ReadFlags as R;
    let rig = Rig::get();
    for mode in [Mode::Work, Mode::Data] {
        let dir = rig.directory(mode, "inotify");
        fs::create_dir(dir.join("sub")).expect("mkdir");
        let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).expect("inotify");
        let (top, sub) = (watch(&fd, &dir), watch(&fd, &dir.join("sub")));
        let expect = |what: &str, expected: &[(i32, ReadFlags, &str)]| {
            // A close is the last one's: a process that another test starts may have the file open for a moment.
            let mut got = Vec::new();
            until(what, || {
                got.extend(events(&fd));
                got.dedup();
                got.len() >= expected.len()
            });
            let got: Vec<_> = got.iter().map(|(w, e, n)| (*w, *e, n.as_str())).collect();
            assert_eq!(got, expected, "{what}, {mode:?}");
        };
        let mut file = fs::File::create(dir.join("a")).expect("create");
        expect("create", &[(top, R::CREATE, "a"), (top, R::OPEN, "a")]);
        file.write_all(b"hello").expect("write");
        drop(file);
        expect("write and close", &[(top, R::MODIFY, "a"), (top, R::CLOSE_WRITE, "a")]);
        assert_eq!(fs::read(dir.join("a")).expect("read"), b"hello");
        expect("read", &[(top, R::OPEN, "a"), (top, R::ACCESS, "a"), (top, R::CLOSE_NOWRITE, "a")]);
        fs::set_permissions(dir.join("a"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .expect("chmod");
        expect("chmod", &[(top, R::ATTRIB, "a")]);
        fs::rename(dir.join("a"), dir.join("sub/b")).expect("rename");
        expect("rename", &[(top, R::MOVED_FROM, "a"), (sub, R::MOVED_TO, "b")]);
        fs::OpenOptions::new()
            .write(true)
            .open(dir.join("sub/b"))
            .and_then(|f| f.set_len(2))
            .expect("truncate");
        expect("truncate", &[(sub, R::OPEN, "b"), (sub, R::MODIFY, "b"), (sub, R::CLOSE_WRITE, "b")]);
        fs::hard_link(dir.join("sub/b"), dir.join("c")).expect("link");
        expect("link", &[(top, R::CREATE, "c")]);
        fs::remove_file(dir.join("sub/b")).expect("unlink");
        let file = watch(&fd, &dir.join("c"));
        events(&fd);
        // In whatever order: the inode itself goes with its last user.
        let come = |what: &str, expected: &[(i32, ReadFlags, &str)]| {
            let mut got = Vec::new();
            until(&format!("{what}, {mode:?}"), || {
                got.extend(events(&fd));
                expected.iter().all(|(w, e, n)| got.iter().any(|g| *g == (*w, *e, (*n).to_owned())))
            });
        };
        fs::remove_file(dir.join("c")).expect("unlink");
        come("unlink", &[(top, R::DELETE, "c"), (file, R::DELETE_SELF, ""), (file, R::IGNORED, "")]);
        fs::remove_dir(dir.join("sub")).expect("rmdir");
        come("rmdir", &[(sub, R::DELETE_SELF, ""), (top, R::DELETE | R::ISDIR, "sub")]);
    }
}
