//! The same system calls on a mount and on a local file system (ext4 or whatever the temporary directory is on): the same
//! results, errors and attributes, call by call. Needs root and /dev/fuse.
//!
//! Each seed is a history of calls by several users; a difference names the seed and prints the history. Times are compared by
//! what changed: which of mtime and ctime of the files concerned moved with a call. Not compared: sizes of directories, blocks,
//! and where holes are, which file systems may choose.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod rig;

#[path = "differential/calls.rs"]
mod calls;
#[path = "differential/history.rs"]
mod history;

use std::time::Duration;

use granary_core::{Clock, SystemClock};
use history::{History, Pair};
use rig::{Rig, Setup};

/// Calls of one history.
const CALLS: usize = 400;
/// How long histories are tried; `GRANARY_DIFFERENTIAL_SECONDS` says otherwise.
const SECONDS: u64 = 8;
/// Where the seeds begin; `GRANARY_DIFFERENTIAL_SEED` says otherwise, to do one again.
const FIRST_SEED: u64 = 1;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

fn compare(setup: &Setup, first: u64, times: bool) {
    let rig = Rig::new(setup);
    let local = tempfile::tempdir().unwrap();
    let clock = SystemClock;
    let end = clock.monotonic() + Duration::from_secs(setting("GRANARY_DIFFERENTIAL_SECONDS", SECONDS));
    let mut seed = setting("GRANARY_DIFFERENTIAL_SEED", first);
    let mut done = 0;
    let mut differences = Vec::new();
    while done < 3 || clock.monotonic() < end {
        let name = format!("seed-{seed}");
        let roots = Pair { mount: rig.at(&name), local: local.path().join(&name) };
        // In a thread of its own: who calls is a thread's business.
        let history = std::thread::spawn(move || History::new(roots, seed, times).run(CALLS));
        if let Err(difference) = history.join().unwrap() {
            differences.push(format!("seed {seed} ({:?}): {difference}", setup.mode));
        }
        seed += 1;
        done += 1;
    }
    println!("{done} histories of {CALLS} calls from seed {first}");
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
    let name = "user/alice".parse().unwrap();
    assert_eq!(rig.volume.check(&name).unwrap(), []);
}

#[test]
fn a_work_mount_does_what_a_local_file_system_does() {
    compare(&Setup { options: "suid,dev".into(), ..Setup::default() }, FIRST_SEED, true);
}

/// Files of more than 64 KiB have stage files, which the kernel writes itself: what a write sets is the kernel's coarse clock
/// there, so times are not compared.
#[test]
fn a_work_mount_with_large_files_does_what_a_local_file_system_does() {
    let options = "suid,dev".into();
    compare(&Setup { options, small_file_bytes_max: 64 << 10, ..Setup::default() }, 1000, false);
}

#[test]
fn a_data_mount_does_what_a_local_file_system_does() {
    let (mode, options) = (granary_fuse::Mode::Data, "mode=data,suid,dev".into());
    compare(&Setup { mode, options, ..Setup::default() }, 2000, true);
}
