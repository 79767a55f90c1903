//! The `pjdfstest` suite as a scoreboard: what fails is listed in `pjdfstest.failing`, and the list may only shrink.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use granary_tests::{Cluster, Node, StoreKind, run};

/// One node that has the namespace for itself.
#[test]
fn on_a_node_of_its_own() {
    let node = Node::new(StoreKind::Folder);
    no_new_failures(&node, &node.mount("user/alice", "dev,suid"));
}

/// Another node has it mounted too: nothing is kept without a lease.
#[test]
fn where_other_nodes_write() {
    let cluster = Cluster::new(2);
    let mounts = cluster.mount("dev,suid");
    no_new_failures(&cluster.nodes[0], &mounts[0]);
}

fn no_new_failures(node: &Node, dir: &Path) {
    fs::set_permissions(node.path("."), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
    fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
    fs::create_dir(node.path("other-file-system")).expect("mkdir");
    let settings = include_str!("../pjdfstest.toml");
    let all = checks(node, dir, settings, "");
    // In the midst of the others they find the mount busy for as long as the kernel is about to release a removed file.
    let read_only = checks(node, dir, &settings.replace("remount = false", "remount = true"), "erofs");
    println!("{} and {} checks passed", all.passed, read_only.passed);
    assert!(all.passed > 380 && read_only.passed > 10, "{}\n{}", all.output, read_only.output);
    // Nobody can look for the end of links where there is none.
    let left_out = |name: &&String| !name.contains("erofs") && !name.contains("link_count_max");
    let left_out: Vec<_> = all.skipped.iter().filter(left_out).chain(&read_only.skipped).collect();
    assert!(left_out.is_empty(), "these were left out: {left_out:#?}\n{}", all.output);

    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("pjdfstest.failing");
    let known: BTreeSet<String> = fs::read_to_string(&list)
        .expect("the list of known failures")
        .lines()
        .filter(|l| !l.starts_with('#') && !l.is_empty())
        .map(str::to_owned)
        .collect();
    let failed: BTreeSet<String> = all.failed.union(&read_only.failed).cloned().collect();
    let new: Vec<_> = failed.difference(&known).collect();
    assert!(new.is_empty(), "these pass no more: {new:#?}\n{}\n{}", all.output, read_only.output);
    let mended: Vec<_> = known.difference(&failed).collect();
    assert!(mended.is_empty(), "these pass now, take them off {}: {mended:#?}", list.display());
}

#[derive(Default)]
struct Checks {
    passed: usize,
    failed: BTreeSet<String>,
    skipped: BTreeSet<String>,
    output: String,
}

/// Runs the checks whose name has `pattern` in it.
fn checks(node: &Node, dir: &Path, settings: &str, pattern: &str) -> Checks {
    let program = std::env::var("GRANARY_PJDFSTEST")
        .expect("GRANARY_PJDFSTEST names the pjdfstest program; tools/test sets it");
    let config = node.path("pjdfstest.toml");
    fs::write(&config, settings).expect("write");
    let mut command = Command::new(program);
    command.arg("-c").arg(&config).arg("-s").arg(node.path("other-file-system")).arg("-p").arg(dir);
    // It remounts by mount(8), which would ask /sbin/mount.fuse where a machine has that: that knows no remount.
    let programs = node.path("programs");
    let _there = fs::create_dir(&programs);
    let (mount, path) = (programs.join("mount"), std::env::var("PATH").expect("PATH"));
    fs::write(&mount, format!("#!/bin/sh\nPATH={path:?} exec mount -i \"$@\"\n")).expect("write");
    fs::set_permissions(&mount, fs::Permissions::from_mode(0o755)).expect("chmod");
    command.env("PATH", format!("{}:{path}", programs.display()));
    let out = run(command.args((!pattern.is_empty()).then_some(pattern)));
    let mut checks = Checks::default();
    for line in out.stdout.lines() {
        let Some((name, result)) = line.trim().rsplit_once(char::is_whitespace) else { continue };
        let name = name.trim().to_owned();
        match result {
            "FAILED" => _ = checks.failed.insert(name),
            "skipped" => _ = checks.skipped.insert(name),
            "success" | "ok" => checks.passed += 1,
            _ => {}
        }
    }
    checks.output = format!("{}\n{}", out.stdout, out.stderr);
    checks
}
