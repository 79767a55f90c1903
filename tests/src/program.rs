//! Running programs, and waiting for what they bring about.

use std::ffi::OsStr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::launcher::apart;

/// What a program left behind.
#[derive(Debug)]
pub struct Output {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs to the end, input closed, without any file of this process.
pub fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null());
    let out = apart(|| command.output()).unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
    Output {
        code: out.status.code(),
        stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
    }
}

/// Runs a shell script with `args` as `$1`..., which must succeed; returns what it printed.
pub fn run_ok<S: AsRef<OsStr>>(script: &str, args: &[S]) -> String {
    let out = run(Command::new("bash").args(["-euc", script, "test"]).args(args));
    assert_eq!(out.code, Some(0), "{script}\n{}\n{}", out.stdout, out.stderr);
    out.stdout
}

/// Waits until `ready` says so: asks again as fast as the thing can answer, and gives up after a minute, which no
/// working system reaches.
pub fn until(what: &str, ready: impl FnMut() -> bool) {
    until_within(what, Duration::from_secs(60), ready);
}

/// The same for what may take longer than a minute.
#[allow(clippy::disallowed_methods)] // a bound on a hang, not a measurement
pub fn until_within(what: &str, patience: Duration, mut ready: impl FnMut() -> bool) {
    let start = Instant::now();
    while !ready() {
        assert!(start.elapsed() < patience, "{what}: not within {patience:?}");
        std::thread::yield_now();
    }
}
