//! Starting a program that the mounts of this process wait for.

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

/// A thread with a table of files of its own, empty from the start.
///
/// A child closes its copies of its parent's files when it becomes the program, and for a file of a mount that is a FLUSH. The
/// metadata service, started anew by a thread that shares the test's files, would wait there for a node that waits for it.
#[derive(Debug)]
pub struct Launcher {
    orders: mpsc::Sender<Order>,
}

#[derive(Debug)]
struct Order {
    command: Command,
    /// Its output is appended here.
    log: PathBuf,
    started: mpsc::Sender<Child>,
}

impl Launcher {
    /// To be made before anything is mounted that waits for what it will start.
    pub fn new() -> Launcher {
        let (orders, received) = mpsc::channel();
        std::thread::spawn(move || serve(&received));
        Launcher { orders }
    }

    pub fn start(&self, command: Command, log: PathBuf) -> Child {
        let (started, child) = mpsc::channel();
        self.orders.send(Order { command, log, started }).expect("the launcher");
        child.recv().expect("the launcher starts it")
    }
}

fn serve(orders: &mpsc::Receiver<Order>) {
    // SAFETY: what is closed are the copies in this thread's own table; the thread has opened nothing yet.
    let rc = unsafe { libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_UNSHARE as libc::c_int) };
    assert_eq!(rc, 0, "close_range: {}", std::io::Error::last_os_error());
    for Order { mut command, log, started } in orders {
        let log = OpenOptions::new().create(true).append(true).open(&log).expect("log file");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("dup")).stderr(log);
        let child = command.spawn().unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
        // Who ordered it waits.
        let _ = started.send(child);
    }
}
