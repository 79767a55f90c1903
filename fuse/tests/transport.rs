//! The transport by itself, on a mount whose service does what no service should.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::thread::JoinHandleExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use granary_fuse::proto::answer::{self, Attributes};
use granary_fuse::proto::{Agreement, Flags, Operation, Request};
use granary_fuse::transport::interrupts::Waiting;
use granary_fuse::transport::{Carrier, Reply, Service, Session, Transport, Ways, uring};

struct Odd {
    held: Sender<(Reply, Waiting)>,
    served: AtomicU64,
}

impl Service for Odd {
    fn serve(&self, request: &Request<'_>, reply: Reply) {
        self.served.fetch_add(1, Ordering::SeqCst);
        match request.operation {
            Operation::Getattr { .. } => {
                let root =
                    Attributes { ino: 1, mode: libc::S_IFDIR | 0o755, nlink: 2, ..Attributes::default() };
                reply.body(&answer::attr(&root, Duration::ZERO));
            }
            Operation::Lookup { name: b"panics" } => panic!("on purpose"),
            Operation::Lookup { name: b"dropped" } => drop(reply),
            Operation::Lookup { name } if name.starts_with(b"held") => {
                let waiting = reply.waits(false).unwrap();
                self.held.send((reply, waiting)).unwrap();
            }
            Operation::Lookup { .. } => reply.error(libc::ENOENT),
            _ => reply.error(libc::ENOSYS),
        }
    }

    fn forget(&self, _ino: u64, _lookups: u64) {}
}

struct Mount {
    path: PathBuf,
    service: Arc<Odd>,
    held: Receiver<(Reply, Waiting)>,
    session: Option<JoinHandle<std::io::Result<()>>>,
    _dir: tempfile::TempDir,
}

impl Mount {
    fn new(transport: Transport, threads: usize) -> Mount {
        if transport == Transport::Uring {
            uring::enable().unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        let device = fs::File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let data = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        let data = std::ffi::CString::new(data).unwrap();
        let flags = rustix::mount::MountFlags::NODEV | rustix::mount::MountFlags::NOSUID;
        rustix::mount::mount("odd", dir.path(), "fuse.odd", flags, data.as_c_str()).unwrap();
        let session = Session::greet(OwnedFd::from(device), Ways { transport, threads }, |offer| {
            assert!(offer.is_understood() && offer.flags.has(Flags::INIT_EXT));
            let flags = Flags::MAX_PAGES | Flags::PARALLEL_DIROPS; // else one lookup waits for another
            Agreement { flags, max_readahead: 0, max_background: 8, max_write: 1 << 16, max_stack_depth: 0 }
        });
        let (held_sender, held) = channel();
        let service = Arc::new(Odd { held: held_sender, served: AtomicU64::new(0) });
        let (session, served) = (session.unwrap(), service.clone());
        assert_eq!(session.carrier() == Carrier::Uring, transport == Transport::Uring);
        let anchor = session.anchor();
        let session = std::thread::spawn(move || session.run(served));
        if let Some(anchor) = anchor {
            anchor.cast(dir.path()).unwrap();
        }
        Mount { path: dir.path().to_path_buf(), service, held, session: Some(session), _dir: dir }
    }

    fn stat(&self, name: &str) -> i32 {
        fs::symlink_metadata(self.path.join(name)).unwrap_err().raw_os_error().unwrap()
    }

    /// What the session says at its end.
    fn end(&mut self) -> std::io::Result<()> {
        match rustix::mount::unmount(&self.path, rustix::mount::UnmountFlags::DETACH) {
            // A forced unmount has been quicker than who used it.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(e) => panic!("{e}"),
        }
        self.session.take().unwrap().join().unwrap()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.session.is_some() {
            // A failed test may have left programs waiting: they get an error.
            let _busy = rustix::mount::unmount(&self.path, rustix::mount::UnmountFlags::FORCE);
            let _panicked = self.end();
        }
    }
}

/// The ways that requests come.
const ALL: [(Transport, usize); 3] = [(Transport::Dev, 1), (Transport::Dev, 3), (Transport::Uring, 1)];

#[test]
fn a_dropped_reply_and_a_panic_are_eio_and_others_are_served() {
    for (transport, threads) in ALL {
        let mut mount = Mount::new(transport, threads);
        for _ in 0..10 {
            assert_eq!(mount.stat("absent"), libc::ENOENT);
            assert_eq!(mount.stat("dropped"), libc::EIO);
        }
        assert_eq!(
            mount.stat(".granary-anchor"),
            libc::ENOENT,
            "what the transport has in the root nobody sees"
        );
        mount.end().unwrap();
        let mut mount = Mount::new(transport, threads);
        for _ in 0..5 {
            assert_eq!(mount.stat("panics"), libc::EIO);
            assert_eq!(mount.stat("absent"), libc::ENOENT);
        }
        assert!(mount.end().unwrap_err().to_string().contains("panicked"));
    }
}

extern "C" fn nothing(_: i32) {}

#[test]
fn interrupts_of_what_cannot_be_interrupted_harm_nobody() {
    for (transport, threads) in ALL.into_iter().filter(|&(transport, threads)| (transport, threads) != ALL[0])
    {
        interrupts_harm_nobody(transport, threads);
    }
}

fn interrupts_harm_nobody(transport: Transport, threads: usize) {
    // SAFETY: the handler does nothing.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(i32) as usize;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()), 0);
    }
    let mut mount = Mount::new(transport, threads);
    for _ in 0..20 {
        let path = mount.path.join("held");
        let stats = std::thread::spawn(move || fs::symlink_metadata(path));
        let (reply, waiting) = mount.held.recv().unwrap();
        // SAFETY: the thread was not joined.
        unsafe { libc::pthread_kill(stats.as_pthread_t(), libc::SIGUSR1) };
        assert_eq!(mount.stat("absent"), libc::ENOENT, "others go on");
        reply.error(libc::EACCES);
        drop(waiting);
        let answered = stats.join().unwrap().unwrap_err();
        assert_eq!(answered.raw_os_error(), Some(libc::EACCES), "a lookup is not interrupted");
    }
    assert!(mount.service.served.load(Ordering::SeqCst) >= 40);
    mount.end().unwrap();
}

#[test]
fn an_answer_after_the_end_harms_nobody() {
    for (transport, threads) in ALL {
        let mut mount = Mount::new(transport, threads);
        let path = mount.path.join("held");
        let stats = std::thread::spawn(move || fs::symlink_metadata(path));
        let (reply, waiting) = mount.held.recv().unwrap();
        // Detached alone it would go on until the stat is over; forced, the connection is aborted.
        let _busy = rustix::mount::unmount(&mount.path, rustix::mount::UnmountFlags::FORCE);
        stats.join().unwrap().unwrap_err();
        mount.end().unwrap();
        drop((reply, waiting));
    }
}

/// More requests of one processor wait than a queue had entries, and one that ends the waiting comes last.
#[test]
fn what_waits_keeps_nobody_from_an_answer() {
    for (transport, threads) in ALL {
        let mut mount = Mount::new(transport, threads);
        let waiters: Vec<_> = (0..WAITERS)
            .map(|i| {
                // Names of their own: the kernel asks once for one that several look up.
                let path = mount.path.join(format!("held-{i}"));
                std::thread::spawn(move || {
                    on_one_processor();
                    fs::symlink_metadata(path)
                })
            })
            .collect();
        let held: Vec<_> = (0..WAITERS).map(|_| mount.held.recv().unwrap()).collect();
        let path = mount.path.clone();
        let last = std::thread::spawn(move || {
            on_one_processor();
            fs::symlink_metadata(path.join("absent"))
        });
        assert_eq!(last.join().unwrap().unwrap_err().raw_os_error(), Some(libc::ENOENT));
        for (i, (reply, waiting)) in held.into_iter().enumerate() {
            reply.error(if i % 2 == 0 { libc::EACCES } else { libc::ENOENT });
            drop(waiting);
        }
        for waiter in waiters {
            waiter.join().unwrap().unwrap_err();
        }
        mount.end().unwrap();
    }
}

/// Above what a queue has at the start, several times.
const WAITERS: usize = 100;

fn on_one_processor() {
    let mut set = rustix::thread::CpuSet::new();
    set.set(0);
    rustix::thread::sched_setaffinity(None, &set).unwrap();
}
