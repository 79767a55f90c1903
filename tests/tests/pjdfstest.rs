//! The `pjdfstest` suite as a scoreboard: what fails is listed in `pjdfstest.failing`, and the list may only shrink.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use granary_tests::{Node, StoreKind, run};

#[test]
fn no_new_failures() {
    let program = std::env::var("GRANARY_PJDFSTEST")
        .expect("GRANARY_PJDFSTEST names the pjdfstest program; tools/test sets it");
    let node = Node::new(StoreKind::Folder);
    let dir = node.mount("user/alice", "dev,suid");
    fs::set_permissions(node.path("."), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
    fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
    let config = node.path("pjdfstest.toml");
    fs::write(&config, include_str!("../pjdfstest.toml")).expect("write");
    let out = run(Command::new(program).arg("-c").arg(&config).arg("-p").arg(&dir));

    let mut failed = BTreeSet::new();
    let mut passed = 0;
    for line in out.stdout.lines() {
        let line = line.trim();
        if let Some((name, result)) = line.rsplit_once(char::is_whitespace) {
            match result {
                "FAILED" => _ = failed.insert(name.trim().to_owned()),
                "success" | "ok" => passed += 1,
                _ => {}
            }
        }
    }
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("pjdfstest.failing");
    let known: BTreeSet<String> = fs::read_to_string(&list)
        .expect("the list of known failures")
        .lines()
        .filter(|l| !l.starts_with('#') && !l.is_empty())
        .map(str::to_owned)
        .collect();
    println!("pjdfstest: {passed} passed, {} failed, {} known", failed.len(), known.len());
    assert!(passed > 100, "pjdfstest ran hardly anything:\n{}\n{}", out.stdout, out.stderr);
    let new: Vec<_> = failed.difference(&known).collect();
    assert!(new.is_empty(), "these pass no more: {new:#?}\n{}", out.stdout);
    let mended: Vec<_> = known.difference(&failed).collect();
    assert!(mended.is_empty(), "these pass now, take them off {}: {mended:#?}", list.display());
}
