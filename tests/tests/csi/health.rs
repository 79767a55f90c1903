//! Mounts that are dead, or hang.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use granary_tests::{Node, Started, StoreKind, run, start, until};
use rustix::process::{Pid, Signal, kill_process};
use tonic::Code;

use crate::driver::{Driver, Publish, target};

fn plain(volume: &str) -> Publish {
    Publish { volume: volume.to_owned(), ..Publish::default() }
}

fn pid(raw: u32) -> Pid {
    Pid::from_raw(raw as i32).expect("a process")
}

/// A mount namespace of its own that follows this one, as a container with `mountPropagation: HostToContainer` has.
pub struct Container(Started);

impl Container {
    /// With its own copy of what is at `volume`.
    pub fn start(volume: &std::path::Path, inside: &std::path::Path) -> Container {
        let script = r#"mount --rbind "$1" "$2" && mount --make-rslave "$2" && echo ready && exec cat"#;
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "slave", "bash", "-euc", script, "container"])
            .args([volume, inside])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let container = start(command);
        let mut line = String::new();
        let mut out = BufReader::new(container.output.as_ref().expect("its output"));
        out.read_line(&mut line).expect("a line");
        assert_eq!(line, "ready\n");
        Container(container)
    }

    pub fn path(&self, inside: &std::path::Path) -> std::path::PathBuf {
        let inside = inside.strip_prefix("/").expect("absolute");
        std::path::Path::new("/proc").join(self.0.child.id().to_string()).join("root").join(inside)
    }
}

/// A directory on a shared mount of its own, as kubelet's is in a cluster.
pub struct Shared(std::path::PathBuf);

impl Shared {
    pub fn make(dir: std::path::PathBuf) -> Shared {
        let mount = |args: &[&str]| {
            let out = run(Command::new("mount").args(args).arg(&dir));
            assert_eq!(out.code, Some(0), "{args:?}: {out:?}");
        };
        mount(&["--bind", dir.to_str().expect("utf-8")]);
        mount(&["--make-rshared"]);
        Shared(dir)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let done = run(Command::new("umount").arg(&self.0));
        assert!(
            done.code == Some(0) || std::thread::panicking(),
            "{} stays mounted: {done:?}",
            self.0.display()
        );
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.0.child.kill();
        let _ = self.0.child.wait();
    }
}

#[test]
fn a_dead_mount_is_mended_where_containers_follow_and_goes_when_its_pod_does() {
    let mut node = Node::new(StoreKind::Folder);
    node.ok(&["ns", "create", "user/alice", "--mode", "0777"]);
    let driver = Driver::start(&node, &["--access", "none"]);
    let (dir, inside) = (target(&node, "pod"), node.path("inside"));
    fs::create_dir(&inside).expect("a directory");
    let pods = Shared::make(node.path("pods"));
    driver.publish(&dir, &plain("user/alice")).expect("published");
    fs::write(dir.join("file"), "kept").expect("written");
    node.sync(&dir);
    let container = Container::start(&dir, &inside);
    assert_eq!(fs::read_to_string(container.path(&inside).join("file")).expect("read"), "kept");
    node.kill();
    let condition = driver.condition(&dir).expect("its mount is there");
    assert!(condition.abnormal && condition.message.contains("node process"), "{condition:?}");
    assert!(fs::read(container.path(&inside).join("file")).is_err());
    node.start();
    driver.publish(&dir, &plain("user/alice")).expect("kubelet asks again");
    assert!(!driver.condition(&dir).expect("mounted").abnormal);
    assert_eq!(fs::read_to_string(dir.join("file")).expect("read"), "kept");
    assert_eq!(
        fs::read_to_string(container.path(&inside).join("file")).expect("in the container too"),
        "kept"
    );
    drop(container);
    // Dead once more, and nobody to unmount it.
    node.kill();
    driver.unpublish(&dir).expect("it goes without the node process");
    assert!(!dir.exists());
    assert_eq!(driver.condition(&dir).expect_err("gone").code(), Code::NotFound);
    drop(pods);
    node.start();
}

/// kubelet cannot make the directory while a dead mount lies there, and asks nobody.
#[test]
fn a_dead_staged_mount_is_taken_away_by_a_driver_that_never_knew_it() {
    let mut node = Node::new(StoreKind::Folder);
    node.ok(&["ns", "create", "user/alice", "--mode", "0777", "--bytes-max", "1GiB"]);
    let staged = node.path("plugins/kubernetes.io/csi/csi.granary.dev/0123/globalmount");
    let elsewhere = node.path("elsewhere");
    for dir in [&staged, &elsewhere] {
        fs::create_dir_all(dir).expect("a directory");
    }
    let mounted = |dir: &std::path::Path| {
        let table = fs::read_to_string("/proc/self/mounts").expect("the table of mounts");
        table.lines().filter(|line| line.split(' ').nth(1) == dir.to_str()).count()
    };
    let driver = Driver::start(&node, &["--access", "none"]);
    driver.stage(&staged, "user/alice").expect("staged");
    node.ok(&["mount", "user/alice", elsewhere.to_str().expect("utf-8")]);
    drop(driver);
    // What lives stays.
    let driver = Driver::start(&node, &["--access", "none"]);
    assert_eq!(driver.expand(&staged, "user/alice").expect("larger"), 1 << 30);
    driver.stage(&staged, "user/alice").expect("it is there");
    assert_eq!((mounted(&staged), mounted(&elsewhere)), (1, 1));
    drop(driver);
    node.kill();
    let driver = Driver::start(&node, &["--access", "none"]);
    until("the dead mount is gone", || mounted(&staged) == 0);
    assert_eq!(mounted(&elsewhere), 1, "not kubelet's, so not the driver's");
    fs::create_dir(staged.join("below")).expect("a directory as others");
    fs::remove_dir(staged.join("below")).expect("removed");
    node.start();
    assert_eq!(driver.expand(&staged, "user/alice").expect("its mounts show it"), 1 << 30);
    driver.stage(&staged, "user/alice").expect("staged again");
    assert_eq!(mounted(&staged), 1);
}

#[test]
fn a_node_process_that_hangs_keeps_nobody() {
    let node = Node::new(StoreKind::Folder);
    node.ok(&["ns", "create", "user/alice", "--mode", "0777"]);
    let driver = Driver::start(&node, &["--access", "none"]);
    let dir = target(&node, "pod");
    driver.publish(&dir, &plain("user/alice")).expect("published");
    fs::write(dir.join("file"), "kept").expect("written");
    kill_process(pid(node.pid()), Signal::STOP).expect("stopped");
    for says in ["has not answered for 5 s", "has not answered for"] {
        let condition = driver.condition(&dir).expect("mounted");
        assert!(condition.abnormal && condition.message.contains(says), "{condition:?}");
    }
    driver.unpublish(&dir).expect("the pod goes");
    assert!(!dir.exists());
    kill_process(pid(node.pid()), Signal::CONT).expect("it goes on");
    driver.publish(&dir, &plain("user/alice")).expect("and serves");
    until("what was written is there", || {
        fs::read_to_string(dir.join("file")).is_ok_and(|text| text == "kept")
    });
    driver.unpublish(&dir).expect("gone");
}
