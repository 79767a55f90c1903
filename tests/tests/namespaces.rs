//! Two namespaces through one node: apart from each other, and shared with the right people.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use granary_tests::{Node, StoreKind, run, run_ok, until};

const ALICE: u32 = 61_001;
const BOB: u32 = 61_002;
const MALLORY: u32 = 61_003;
const ASR: u32 = 61_100;

/// Runs a shell line as a user with one extra group; whether it succeeded.
fn may(uid: u32, groups: &[u32], line: &str, path: &Path) -> bool {
    let groups = groups.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={uid}")).arg(format!("--regid={uid}"));
    command.arg(if groups.is_empty() { "--clear-groups".into() } else { format!("--groups={groups}") });
    command.args(["bash", "-c", line, "test"]).arg(path);
    run(&mut command).code == Some(0)
}

fn open_to_all(node: &Node) {
    // Mountpoints lie in the test's private directory: let others through to them.
    fs::set_permissions(node.path("."), fs::Permissions::from_mode(0o755)).expect("chmod");
}

#[test]
fn a_users_tree_is_closed_to_others_and_a_groups_tree_is_shared() {
    let node = Node::new(StoreKind::Folder);
    open_to_all(&node);
    node.ok(&["ns", "create", "user/alice", "--owner", &ALICE.to_string(), "--group", &ALICE.to_string()]);
    node.ok(&["ns", "create", "group/asr", "--owner", "0", "--group", &ASR.to_string()]);
    let alice = node.mount("user/alice", "");
    let asr = node.mount("group/asr", "");

    assert!(may(ALICE, &[], "echo secret >$1/diary && mkdir $1/sub && cat $1/diary", &alice));
    for line in ["ls $1", "cat $1/diary", "echo x >$1/y", "stat $1/diary"] {
        assert!(!may(MALLORY, &[ASR], line, &alice), "{line}");
    }
    // The two trees are apart: same inode numbers, different files.
    assert!(!asr.join("diary").exists());
    assert_eq!(fs::read_to_string(alice.join("diary")).expect("root reads"), "secret\n");

    // Members write, files get the group through setgid, and directories hand it on.
    assert!(may(ALICE, &[ASR], "umask 002; mkdir $1/runs && echo 1 >$1/runs/a", &asr));
    assert!(may(BOB, &[ASR], "echo 2 >>$1/runs/a && echo 3 >$1/runs/b", &asr));
    assert_eq!(fs::read_to_string(asr.join("runs/a")).expect("read"), "1\n2\n");
    let runs = fs::metadata(asr.join("runs")).expect("stat");
    assert_eq!((runs.gid(), runs.mode() & 0o7777), (ASR, 0o2775));
    assert_eq!(fs::metadata(asr.join("runs/a")).expect("stat").gid(), ASR);
    assert!(!may(MALLORY, &[], "cat $1/runs/a", &asr));
    assert!(!may(MALLORY, &[], "ls $1", &asr));
}

#[test]
fn quotas_are_enforced_and_shown() {
    let node = Node::new(StoreKind::Folder);
    node.ok(&[
        "ns",
        "create",
        "user/alice",
        "--owner",
        "0",
        "--group",
        "0",
        "--bytes-max",
        "8MiB",
        "--inodes-max",
        "20",
    ]);
    let dir = node.mount("user/alice", "");
    let df = run_ok("df -B1 --output=size,avail $1 | tail -1; df --output=itotal $1 | tail -1", &[&dir]);
    let numbers: Vec<u64> = df.split_whitespace().map(|n| n.parse().expect("a number")).collect();
    assert_eq!((numbers[0], numbers[2]), (8 << 20, 20), "{df}");

    let e = fs::write(dir.join("large.bin"), vec![1; 9 << 20]).expect_err("larger than the quota");
    assert_eq!(e.raw_os_error(), Some(libc::EDQUOT), "{e}");
    fs::remove_file(dir.join("large.bin")).expect("unlink");
    // What it had is free with its last close, of which the kernel tells when it likes.
    until("6 of 8 MiB fit", || fs::write(dir.join("fits"), vec![1; 6 << 20]).is_ok());
    let e = fs::write(dir.join("more"), vec![1; 3 << 20]).expect_err("3 more MiB");
    assert_eq!(e.raw_os_error(), Some(libc::EDQUOT), "{e}");
    for i in 0.. {
        match fs::write(dir.join(format!("f{i}")), "") {
            Ok(()) => assert!(i < 20, "more inodes than the quota"),
            Err(e) => {
                assert_eq!(e.raw_os_error(), Some(libc::EDQUOT), "{e}");
                break;
            }
        }
    }
    // Deleting makes room again.
    fs::remove_file(dir.join("fits")).expect("unlink");
    fs::remove_file(dir.join("f0")).expect("unlink");
    until("there is room again", || fs::write(dir.join("again"), vec![2; 3 << 20]).is_ok());
}

#[test]
fn two_mountpoints_of_one_namespace_are_one_tree() {
    let node = Node::new(StoreKind::Folder);
    let first = node.mount("user/alice", "");
    let second = node.path("second");
    fs::create_dir(&second).expect("mkdir");
    node.mount_at("user/alice", &second, "");
    for i in 0..50 {
        fs::write(first.join("f"), format!("{i}")).expect("write");
        assert_eq!(fs::read_to_string(second.join("f")).expect("read"), format!("{i}"));
        fs::rename(second.join("f"), second.join("g")).expect("rename");
        assert!(!first.join("f").exists());
        fs::remove_file(first.join("g")).expect("unlink");
        assert!(!second.join("g").exists());
    }
    node.umount(&second);
    fs::write(first.join("still"), "here").expect("the first mount goes on");
}
