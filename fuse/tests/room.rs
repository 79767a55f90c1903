//! Writers that wait for the store, which does not come: they wait, and can be killed.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod rig;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::os::unix::thread::JoinHandleExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use granary_core::limits::Limits;
use granary_core::{Clock, Kind, SystemClock};
use granary_fuse::{Mode, Op};
use granary_store::{Fault, Operation};
use granary_tests::start;
use rig::{Rig, Setup, until};

/// At most a MiB may be missing in the store, and the store takes nothing.
fn full(mode: Mode) -> Rig {
    let own = Limits { dirty_bytes_max: 1 << 20, small_period_ms: 1, ..Setup::default().limits };
    let options = if mode == Mode::Data { "mode=data" } else { "" };
    let rig = Rig::new(&Setup { mode, options: options.into(), limits: own, ..Setup::default() });
    rig.store.chance(Operation::Put, Fault::Before(Kind::Unavailable), 1);
    rig
}

/// Writes that wait now.
fn waiting(rig: &Rig) -> u64 {
    let all = rig.metrics.snapshot(SystemClock.monotonic());
    let write = all.iter().find(|snapshot| snapshot.op == Op::Write);
    write.map_or(0, |write| write.in_flight)
}

fn create(rig: &Rig, name: &str) -> File {
    OpenOptions::new().write(true).create(true).truncate(false).open(rig.at(name)).unwrap()
}

/// Writes until it waits, and says how many bytes it has.
fn write_all(file: &File, written: &AtomicU32) -> std::io::Result<()> {
    for at in 0..32 {
        file.write_all_at(&[7; 64 << 10], at * (64 << 10))?;
        written.fetch_add(64 << 10, Ordering::SeqCst);
    }
    Ok(())
}

#[test]
fn a_program_that_waits_for_the_store_can_be_killed() {
    for mode in [Mode::Work, Mode::Data] {
        let rig = full(mode);
        let mut dd = Command::new("dd");
        dd.args(["if=/dev/zero", "bs=64k", "count=32"]).arg(format!("of={}", rig.at("f").display()));
        let mut child = start(dd).child;
        until("it waits", || waiting(&rig) == 1 && rig.tree.status().dirty_bytes >= 1 << 20);
        child.kill().unwrap();
        let mut ended = None;
        until("it ends", || {
            ended = child.try_wait().unwrap();
            ended.is_some()
        });
        assert_eq!(ended.unwrap().signal(), Some(libc::SIGKILL));
        until("its request is answered", || waiting(&rig) == 0);
    }
}

extern "C" fn nothing(_: i32) {}

/// Programs do not expect that of a write to a file: no local file system does it.
#[test]
fn a_signal_that_kills_nobody_interrupts_no_write() {
    // SAFETY: the handler does nothing; without SA_RESTART a call that may be interrupted returns.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(i32) as usize;
        assert_eq!(libc::sigaction(libc::SIGUSR2, &raw const action, std::ptr::null_mut()), 0);
    }
    let rig = full(Mode::Work);
    let (file, written) = (create(&rig, "f"), Arc::new(AtomicU32::new(0)));
    let done = Arc::new(AtomicBool::new(false));
    let writer = std::thread::spawn({
        let (written, done) = (written.clone(), done.clone());
        move || {
            let result = write_all(&file, &written);
            done.store(true, Ordering::SeqCst);
            result
        }
    });
    until("it waits", || waiting(&rig) == 1 && rig.tree.status().dirty_bytes >= 1 << 20);
    // Longer than anybody takes to look whether it is being killed.
    let end = SystemClock.monotonic() + Duration::from_millis(700);
    until("it had signals", || {
        // SAFETY: the thread was not joined.
        unsafe { libc::pthread_kill(writer.as_pthread_t(), libc::SIGUSR2) };
        SystemClock.monotonic() > end
    });
    assert!(!done.load(Ordering::SeqCst), "it waits on");
    rig.store.heal();
    writer.join().unwrap().unwrap();
    assert_eq!(written.load(Ordering::SeqCst), 2 << 20);
}
