//! Writers that wait for the store, which does not come: they wait, and can be killed.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod rig;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::os::unix::thread::JoinHandleExt;
use std::process::{Child, Command};
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

/// Calls of this kind that wait now.
fn waiting(rig: &Rig, op: Op) -> u64 {
    let all = rig.metrics.snapshot(SystemClock.monotonic());
    all.iter().find(|snapshot| snapshot.op == op).map_or(0, |snapshot| snapshot.in_flight)
}

fn is_full(rig: &Rig) -> bool {
    rig.tree.status().dirty_bytes >= 1 << 20
}

/// Kills a program whose call `nth` of this kind waits; it must end while the store is away.
fn kill(rig: &Rig, op: Op, nth: u64, mut program: Child) {
    until("it waits", || rig.metrics.count(op) == nth && waiting(rig, op) == 1 && is_full(rig));
    program.kill().unwrap();
    let mut ended = None;
    until("it ends", || {
        ended = program.try_wait().unwrap();
        ended.is_some()
    });
    assert_eq!(ended.unwrap().signal(), Some(libc::SIGKILL));
    until("its request is answered", || waiting(rig, op) == 0);
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
        kill(&rig, Op::Write, 17, start(dd).child);
    }
}

#[test]
fn a_program_that_copies_can_be_killed_too() {
    let rig = full(Mode::Work);
    let script = "import os, sys
source = os.open(sys.argv[1] + '/source', os.O_RDWR | os.O_CREAT)
os.write(source, bytes(range(256)) * 1024)
for n in range(9):
    os.copy_file_range(source, os.open(sys.argv[1] + f'/{n}', os.O_WRONLY | os.O_CREAT), 1 << 18, 0)
";
    let mut python = Command::new("python3");
    python.args(["-c", script]).arg(rig.root());
    kill(&rig, Op::CopyFileRange, 4, start(python).child);
}

/// What the store has is shared, which takes no room.
#[test]
fn what_is_in_the_store_is_copied_at_the_limit() {
    let rig = full(Mode::Work);
    rig.store.heal();
    std::fs::write(rig.at("stored"), [5; 100_000]).unwrap();
    rig.runtime.block_on(rig.tree.sync()).unwrap();
    rig.store.chance(Operation::Put, Fault::Before(Kind::Unavailable), 1);
    let mut dd = Command::new("dd");
    dd.args(["if=/dev/zero", "bs=64k", "count=32"]).arg(format!("of={}", rig.at("f").display()));
    let program = start(dd).child;
    until("it waits", || rig.metrics.count(Op::Write) > 16 && waiting(&rig, Op::Write) == 1 && is_full(&rig));
    let (from, to) = (File::open(rig.at("stored")).unwrap(), create(&rig, "copy"));
    assert_eq!(rustix::fs::copy_file_range(&from, None, &to, None, 100_000), Ok(100_000));
    assert_eq!(std::fs::read(rig.at("copy")).unwrap(), [5; 100_000]);
    let waits = rig.metrics.count(Op::Write);
    kill(&rig, Op::Write, waits, program);
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
    until("it waits", || waiting(&rig, Op::Write) == 1 && is_full(&rig));
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
