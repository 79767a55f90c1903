//! Python with other readers and writers of data sets: `tools/shards.py`, by the interpreter that `tools/python-datasets` keeps.

#![allow(dead_code)] // each test uses some of it

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// What a program printed. It must succeed.
pub fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?} cannot be started: {e}"));
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed: {err}");
    String::from_utf8(output.stdout).unwrap()
}

/// A function of `shards.py`, not started.
pub fn command(args: &[&str]) -> Command {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = output(&mut Command::new(here.join("../tools/python-datasets")));
    let mut command = Command::new(python.trim());
    command.arg(here.join("tests/tools/shards.py")).args(args);
    command
}

/// What a function of `shards.py` returns.
pub fn python(args: &[&str]) -> Value {
    serde_json::from_str(&output(&mut command(args))).unwrap()
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
