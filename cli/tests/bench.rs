//! `granary bench` on an ordinary directory: what it prints, and that it leaves nothing, however it ends.

use std::path::Path;
use std::process::{Command, Stdio};

fn bench(dir: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_granary"));
    command.arg("bench").arg(dir).args(more).stdin(Stdio::null());
    command
}

fn entries(dir: &Path) -> usize {
    std::fs::read_dir(dir).expect("the directory is there").count()
}

#[test]
fn it_prints_json_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let output = bench(dir.path(), &["--json", "--bytes", "2MiB", "--files", "50", "--threads", "2"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let results = answer["results"].as_array().unwrap();
    assert!(results.len() >= 7, "{answer}");
    assert!(results.iter().all(|result| result["value"].as_f64().unwrap() > 0.0), "{answer}");
    assert_eq!(answer["files"], 50);
    assert_eq!(entries(dir.path()), 0);
}

#[test]
fn a_person_gets_a_table() {
    let dir = tempfile::tempdir().unwrap();
    let output = bench(dir.path(), &["--bytes", "1MiB", "--files", "20"]).output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.starts_with("WORK") && table.contains("stat, warm"), "{table}");
    let missing = bench(&dir.path().join("missing"), &[]).output().unwrap();
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("missing"));
}

#[test]
fn a_signal_ends_it_and_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let much = ["--bytes", "1GiB", "--files", "1000000", "--time", "1h"];
    let mut child = bench(dir.path(), &much).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    while entries(dir.path()) == 0 {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it began");
        std::thread::yield_now();
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!(entries(dir.path()), 0);
}
