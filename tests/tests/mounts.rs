//! Mountpoints and processes in every bad state: a clear message, an exit code, nothing left behind.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use granary_tests::{Node, StoreKind, run, run_ok, start, until};

#[test]
fn mountpoints_that_cannot_be_used() {
    let node = Node::new(StoreKind::Folder);
    let path = |name: &str| node.path(name).to_string_lossy().into_owned();
    node.fails(&["mount", "user/alice", &path("missing")], "No such file");
    fs::write(node.path("file"), "").expect("write");
    node.fails(&["mount", "user/alice", &path("file")], "no directory");
    fs::create_dir_all(node.path("full/x")).expect("mkdir");
    node.fails(&["mount", "user/alice", &path("full")], "not empty");
    node.ok(&["mount", "user/alice", &path("full"), "-o", "nonempty"]);
    assert!(!node.path("full/x").exists(), "the mount covers it");
    node.fails(&["mount", "user/bob", &path("full")], "is mounted there");
    node.umount(&node.path("full"));
    assert!(node.path("full/x").exists());
    node.fails(&["umount", &path("full")], "not");
    for bad in ["", "alice", "/user/alice", "user/..", "user/a\nb", &format!("user/{}", "a".repeat(80))] {
        node.fails(&["mount", bad, &path("file")], "KIND/NAME");
    }
    fs::create_dir(node.path("dir")).expect("mkdir");
    node.fails(&["mount", "user/alice", &path("dir"), "-o", "mode=fast"], "mode");
    node.fails(&["mount", "user/alice", &path("dir"), "-o", "colour=blue"], "colour");
}

#[test]
fn a_mount_left_dead_by_a_killed_node_is_cleaned_up() {
    let mut node = Node::new(StoreKind::Folder);
    let dir = node.mount("user/alice", "");
    fs::write(dir.join("kept"), "bytes").expect("write");
    run_ok("sync $1/kept", &[&dir]);
    node.kill();
    assert_eq!(fs::metadata(&dir).expect_err("the mount is dead").raw_os_error(), Some(libc::ENOTCONN));
    node.start();
    node.mount("user/alice", "");
    assert_eq!(fs::read_to_string(dir.join("kept")).expect("read"), "bytes");
    // The kernel remembers the directory's attributes: a dead mount then looks alive to stat.
    fs::metadata(&dir).expect("stat");
    node.kill();
    fs::metadata(&dir).expect("answered from what the kernel remembers");
    node.start();
    node.mount("user/alice", "");
    assert_eq!(fs::read_to_string(dir.join("kept")).expect("read"), "bytes");
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
    assert_eq!(mounts.lines().filter(|l| l.contains(&*dir.to_string_lossy())).count(), 1, "{mounts}");
}

#[test]
fn a_busy_mount_is_reported_by_process() {
    let node = Node::new(StoreKind::Folder);
    let dir = node.mount("user/alice", "");
    fs::write(dir.join("held"), "x").expect("write");
    let mut holder = Command::new("tail");
    holder.args(["-f", "held"]).current_dir(&dir).stdout(Stdio::null());
    let mut holder = start(holder).child;
    until("tail is in the directory", || {
        fs::read_link(format!("/proc/{}/cwd", holder.id())).is_ok_and(|cwd| cwd == dir)
            && fs::read_to_string(format!("/proc/{}/comm", holder.id())).is_ok_and(|c| c.trim() == "tail")
    });
    let text = dir.to_string_lossy().into_owned();
    node.fails(&["umount", &text], &holder.id().to_string());
    node.fails(&["umount", &text], "tail");
    holder.kill().expect("kill");
    holder.wait().expect("wait");
    node.umount(&dir);
}

#[test]
fn sigterm_unmounts_and_keeps_everything() {
    let mut node = Node::new(StoreKind::Folder);
    let dir = node.mount("user/alice", "");
    fs::write(dir.join("a"), "1").expect("write");
    node.stop();
    assert!(!dir.join("a").exists(), "it is unmounted");
    assert!(!node.path("node.sock").exists());
    node.start();
    node.mount("user/alice", "");
    assert_eq!(fs::read_to_string(dir.join("a")).expect("read"), "1");
}

#[test]
fn one_node_for_a_cache_directory_and_for_a_metadata_directory() {
    let node = Node::new(StoreKind::Folder);
    let pid = node.pid().to_string();
    let other = node.path("other.sock").to_string_lossy().into_owned();
    let out = run(node.command(&["node"]).env("GRANARY_SOCKET", &other));
    assert!(!out.stderr.contains("panicked"), "{}", out.stderr);
    assert!(out.code.is_some_and(|c| c != 0) && out.stderr.contains(&pid), "{}", out.stderr);
    let out =
        run(node.command(&["node"]).env("GRANARY_SOCKET", &other).env("GRANARY_CACHE", node.path("cache2")));
    assert!(out.code.is_some_and(|c| c != 0) && out.stderr.contains("another process"), "{}", out.stderr);
}

#[test]
fn mount_starts_a_node_by_itself_and_node_stop_ends_it() {
    let mut node = Node::new(StoreKind::Folder);
    node.stop();
    let dir = node.mount("user/alice", "");
    fs::write(dir.join("x"), "y").expect("write");
    node.ok(&["node", "stop"]);
    assert!(!dir.join("x").exists());
    node.start();
    node.mount("user/alice", "");
    assert_eq!(fs::read_to_string(dir.join("x")).expect("read"), "y");
}

/// The segments of the only stage log there is, oldest first.
fn log_segments(node: &Node) -> Vec<PathBuf> {
    let stage =
        fs::read_dir(node.path("cache/stage")).expect("stage").next().expect("one namespace").expect("entry");
    let entries = fs::read_dir(stage.path().join("log")).expect("log");
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.expect("entry").path()).collect();
    found.retain(|path| path.extension().is_some_and(|e| e == "log"));
    found.sort();
    found
}

/// A segment of the log on a disk that does not answer: whoever reads it waits.
struct Stalled<'a> {
    node: &'a Node,
    path: PathBuf,
}

impl Stalled<'_> {
    fn after<'a>(node: &'a Node, segment: &Path) -> Stalled<'a> {
        let number =
            segment.file_stem().and_then(|s| u64::from_str_radix(s.to_str()?, 16).ok()).expect("a number");
        let path = segment.with_file_name(format!("{:016x}.log", number + 1));
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).expect("mkfifo");
        Stalled { node, path }
    }

    /// It answers: there is nothing in it.
    fn answer(&self) {
        let writer = fs::OpenOptions::new().write(true).open(&self.path).expect("somebody reads it");
        let empty = self.path.with_extension("empty");
        fs::write(&empty, "").expect("write");
        fs::rename(&empty, &self.path).expect("rename");
        drop(writer);
    }
}

impl Drop for Stalled<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The node that waits is nobody's child.
            drop(fs::OpenOptions::new().read(true).write(true).open(&self.path));
            self.node.run(&["node", "stop"]);
        }
    }
}

#[test]
fn mount_shows_how_far_the_recovery_of_a_killed_node_is() {
    let hour = "3600000";
    let mut node = Node::with_settings(
        StoreKind::Folder,
        &[
            ("GRANARY_SMALL_PERIOD_MS", hour),
            ("GRANARY_LARGE_PERIOD_MS", hour),
            ("GRANARY_LOG_SEGMENT_BYTES_MAX", "1048576"),
        ],
    );
    let dir = node.mount("user/alice", "");
    let content = |n: u8| vec![n; 700_000];
    for n in 0..4 {
        fs::write(dir.join(format!("f{n}")), content(n)).expect("write");
    }
    fs::File::open(&dir).and_then(|d| d.sync_all()).expect("fsync");
    for n in 0..4 {
        fs::File::open(dir.join(format!("f{n}"))).and_then(|f| f.sync_all()).expect("fsync");
    }
    node.kill();
    let segments = log_segments(&node);
    assert!(segments.len() >= 4, "{segments:?}");
    let stalled = Stalled::after(&node, &segments[1]);

    let mut mount = node.command(&["mount", "user/alice", dir.to_str().expect("utf-8")]);
    mount.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mount = start(mount);
    let mut lines = BufReader::new(mount.errors.expect("piped")).lines();
    let mut told = lines.by_ref().map(|line| line.expect("a line"));
    let line = told
        .find(|line| line.contains("bringing back what was not in the store") && !line.contains(": 0 B of "))
        .expect("it tells how far it is");
    assert!(line.contains("1.3 MiB of 2.7 MiB read, 2 changes"), "{line}");
    stalled.answer();
    let mut rest = String::new();
    mount.output.expect("piped").read_to_string(&mut rest).expect("read");
    let mut mount = mount.child;
    assert!(mount.wait().expect("wait").success());
    assert!(rest.contains("is mounted at"), "{rest}");
    for n in 0..4 {
        assert!(fs::read(dir.join(format!("f{n}"))).expect("read") == content(n), "f{n}");
    }
    node.sync(&dir);
    until("all of it went to the store", || log_segments(&node).is_empty());
    node.ok(&["node", "stop"]);
}

#[test]
fn fstab_and_mount_work() {
    let node = Node::new(StoreKind::Folder);
    let dir = node.path("by-mount");
    fs::create_dir(&dir).expect("mkdir");
    // mount(8) looks for helpers in /sbin only; the helper is called the way it would be.
    let helper = node.path("mount.fuse.granary");
    let binary = node.command(&[]).get_program().to_owned();
    symlink(fs::canonicalize(binary).expect("binary"), &helper).expect("symlink");
    let options = format!(
        "rw,mode=work,meta={},cache={},socket={}",
        node.path("meta").display(),
        node.path("cache").display(),
        node.path("node.sock").display()
    );
    run_ok(
        "$1 user/alice $2 -o $3",
        &[helper.clone().into_os_string(), dir.clone().into_os_string(), options.clone().into()],
    );
    fs::write(dir.join("x"), "y").expect("write");
    let line = run_ok("grep \" $1 \" /proc/self/mounts", &[&dir]);
    assert!(line.contains("fuse.granary") && line.starts_with("user/alice"), "{line}");

    let remount = |namespace: &str, more: &str| {
        let mut command = Command::new(&helper);
        command.arg(namespace).arg(&dir).arg("-o").arg(format!("{options},remount,{more}"));
        run(&mut command)
    };
    assert_eq!(remount("user/alice", "ro").code, Some(0));
    let e = fs::write(dir.join("x"), "z").expect_err("read-only");
    assert_eq!(e.raw_os_error(), Some(libc::EROFS));
    assert_eq!(remount("user/alice", "rw,noexec").code, Some(0));
    fs::write(dir.join("x"), "z").expect("writable again");
    let line = run_ok("grep \" $1 \" /proc/self/mounts", &[&dir]);
    assert!(line.contains("noexec"), "{line}");
    let open = fs::File::create(dir.join("x")).expect("open");
    let refused = remount("user/alice", "ro");
    assert!(refused.code == Some(32) && refused.stderr.contains("close them"), "{refused:?}");
    drop(open);
    let refused = remount("user/bob", "ro");
    assert!(refused.stderr.contains("user/alice is mounted there"), "{refused:?}");
    node.umount(&dir);
}

#[test]
fn read_only_mounts_refuse_writes_in_both_modes() {
    let node = Node::new(StoreKind::Folder);
    let dir = node.mount("user/alice", "");
    fs::write(dir.join("x"), "y").expect("write");
    node.umount(&dir);
    for options in ["ro", "ro,mode=work"] {
        let dir = node.mount("user/alice", options);
        assert_eq!(fs::read_to_string(dir.join("x")).expect("read"), "y");
        let e = fs::write(dir.join("z"), "").expect_err("read-only");
        assert_eq!(e.raw_os_error(), Some(libc::EROFS));
        node.umount(&dir);
    }
}

/// `granary mount`, which starts a node, in surroundings that `wrapper` makes; it must fail and say `part`.
fn mount_fails_within(wrapper: &str, part: &str) {
    let mut node = Node::new(StoreKind::Folder);
    node.stop();
    let dir = node.path("mnt");
    fs::create_dir(&dir).expect("mkdir");
    let command = node.command(&["mount", "user/alice"]);
    let mut wrapped = Command::new("bash");
    wrapped.args(["-euc", wrapper, "test"]).arg(command.get_program()).args(command.get_args()).arg(&dir);
    wrapped.envs(command.get_envs().filter_map(|(k, v)| Some((k, v?))));
    let out = run(&mut wrapped);
    assert!(out.code.is_some_and(|c| c != 0), "{out:?}");
    assert!(out.stderr.contains(part) && !out.stderr.contains("panicked"), "{}", out.stderr);
    // Its node runs all the same, for what needs no mount.
    node.ok(&["node", "stop"]);
}

#[test]
fn a_machine_without_dev_fuse() {
    let without_fuse = r#"exec unshare --mount bash -euc '
        mount -t tmpfs none /dev && mknod /dev/null c 1 3 && mknod /dev/urandom c 1 9 && mknod /dev/zero c 1 5
        exec "$@"' test "$@""#;
    mount_fails_within(without_fuse, "/dev/fuse does not exist; load the kernel module");
}

#[test]
fn a_process_that_may_not_mount() {
    mount_fails_within(r#"exec setpriv --bounding-set=-sys_admin "$@""#, "CAP_SYS_ADMIN");
}

#[test]
fn a_mode_that_is_not_said_is_the_kinds_or_that_of_the_first_mountpoint() {
    let node = Node::new(StoreKind::Folder);
    let dir = |name: &str| {
        let dir = node.path(name);
        fs::create_dir(&dir).expect("mkdir");
        dir
    };
    let mode = |dir: &Path| {
        let status = node.status();
        let mounts = status["mounts"].as_array().expect("a list");
        let found =
            mounts.iter().find(|mount| mount["dir"] == *dir.to_string_lossy()).expect("it is mounted");
        found["mode"].as_str().expect("a mode").to_owned()
    };
    let (first, second, third) = (dir("first"), dir("second"), dir("third"));
    for (namespace, expected) in [("dataset/asr", "data"), ("user/alice", "work")] {
        node.mount_at(namespace, &first, "mode=auto");
        assert_eq!(mode(&first), expected, "{namespace}");
        node.umount(&first);
    }
    // The first mountpoint is in the mode that is not its kind's: `auto` and nothing follow it, another is refused.
    node.mount_at("dataset/asr", &first, "mode=work");
    node.mount_at("dataset/asr", &second, "mode=auto");
    assert_eq!((mode(&first), mode(&second)), ("work".to_owned(), "work".to_owned()));
    let third_text = third.to_string_lossy().into_owned();
    node.fails(&["mount", "dataset/asr", &third_text, "-o", "mode=data"], "is mounted at");
    node.mount_at("dataset/asr", &third, "");
    fs::write(first.join("file"), "seen at all").expect("write");
    assert_eq!(fs::read_to_string(second.join("file")).expect("read"), "seen at all");
    // The first one made may go; the mode stays that of the mount.
    node.umount(&first);
    assert_eq!(fs::read_to_string(third.join("file")).expect("read"), "seen at all");
    node.mount_at("dataset/asr", &first, "mode=auto");
    assert_eq!(mode(&first), "work");
    [first, second, third].iter().for_each(|dir| node.umount(dir));
    node.mount_at("dataset/asr", &node.path("first"), "mode=auto");
    assert_eq!(mode(&node.path("first")), "data");
}
