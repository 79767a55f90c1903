//! FUSE over io_uring: a queue for each processor, whose requests a thread on that processor serves. An answer and the wait for
//! the next request are one system call, and no other processor has to be woken.
//!
//! ```text
//! program --request--> queue of its processor --completion--> worker ([`worker`]) --> service
//!    ^                                                          | answered at once: committed by the next submit-and-wait
//!    \--------------- the kernel copies the answer <------------/
//!                                                               | later, by a task: left with the worker ([`home`]), whose bell rings
//! ```
//! Each queue has *entries* ([`entry`]): memory that holds one request and then its answer. Facts of the kernel (6.14 to 6.18,
//! `fs/fuse/dev_uring.c`) that all this rests on:
//!
//! * From an INIT that agrees on it until every queue has an entry, all requests wait. So rings and threads are made before.
//! * A queue belongs to each *possible* processor, and a program's request goes to the one that it runs on.
//! * Requests are copied to entries, and entries cancelled, in the thread that submitted them. So only the worker submits,
//!   and a task of another thread leaves its answer with it.
//! * A request that finds no free entry of its queue waits for the next *commit* in that queue; a new entry does not take it. A
//!   worker whose entries all wait (for locks, or the store) registers more, and asks the kernel for a request of its
//!   own ([`anchor`]), whose commit takes what waits. Otherwise an unlock could wait for the lock that it ends.
//! * An answer is the kernel's when it is committed, after it was given. So who drops what the kernel keeps lets all answers
//!   that were given before be committed first ([`home`], `settle`).
//! * FORGET and INTERRUPT still come through `/dev/fuse`, and notifications and ioctls go there. An INTERRUPT that is answered
//!   EAGAIN is not sent again; see [`super::interrupts`]. A signal that comes between the queueing of a request and its copying is
//!   told nobody; see [`super::caller`].
//! * At the end of a connection entries that are the kernel's complete with ENOTCONN, and commits fail.
//!
//! Memory: each entry has room for the longest request, of which only what was used is resident. Above
//! [`worker::RESIDENT_BYTES_MAX`] large parts are given back after each use.

mod anchor;
mod cpus;
mod entry;
mod home;
mod memory;
mod parameter;
mod worker;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

pub use anchor::Anchor;
pub(super) use home::Stop;
pub use parameter::{NOT_OFFERED, enable};

use super::dev::Device;
use super::dispatch::Dispatcher;
use crate::proto::{Agreement, Flags};
use home::Home;
use worker::{Ring, Seat, Worker};

/// Threads of a mount; on machines with more processors each serves several.
const THREADS_MAX: usize = 64;
/// The kernel's least payload, whatever is agreed on (FUSE_MIN_READ_BUFFER).
const PAYLOAD_BYTES_MIN: usize = 8192;
/// Pages of a request where nothing is agreed on (FUSE_DEFAULT_MAX_PAGES_PER_REQ).
const PAGES_DEFAULT: usize = 32;

/// What a worker needs to begin.
struct Start {
    dispatcher: Arc<Dispatcher>,
    device: Arc<Device>,
    stop: Arc<Stop>,
}

/// A thread with a ring, before the connection is agreed on.
struct Waiting {
    home: Arc<Home>,
    start: Sender<Start>,
    thread: JoinHandle<io::Result<()>>,
}

/// Rings and threads that wait for their connection. Dropped, they end.
pub(super) struct Rings {
    waiting: Vec<Waiting>,
    anchor: Arc<Anchor>,
}

impl fmt::Debug for Rings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rings").field("threads", &self.waiting.len()).finish()
    }
}

/// Bytes of the payload that the kernel wants of each entry.
fn payload_bytes(agreement: &Agreement) -> usize {
    let page = rustix::param::page_size();
    let pages = match agreement.flags.has(Flags::MAX_PAGES) {
        true => usize::from(agreement.max_pages()),
        false => PAGES_DEFAULT,
    };
    (pages * page).max(agreement.max_write as usize).max(PAYLOAD_BYTES_MIN)
}

impl Rings {
    /// Makes them. Fails where the kernel has no such rings, or this process may not have them.
    pub(super) fn prepare(agreement: &Agreement) -> io::Result<Rings> {
        let anchor = Arc::new(Anchor::new()?);
        let queues = cpus::possible()?;
        let threads = queues.min(THREADS_MAX);
        let mut waiting = Vec::with_capacity(threads);
        let (ready_sender, ready) = channel();
        for at in 0..threads {
            let seat = Seat {
                at,
                queues: (at..queues).step_by(threads).map(|queue| queue as u16).collect(),
                payload_bytes: payload_bytes(agreement),
                entries: worker::entries_of(queues),
                resident_bytes_max: worker::RESIDENT_BYTES_MAX / threads,
                home: Arc::new(Home::new()?),
            };
            let (home, ready) = (seat.home.clone(), ready_sender.clone());
            let (start_sender, start) = channel();
            let thread = std::thread::Builder::new()
                .name(format!("granary-ring-{at}"))
                .spawn(move || work(seat, &ready, &start))?;
            waiting.push(Waiting { home, start: start_sender, thread });
        }
        for _ in 0..threads {
            ready.recv().map_err(io::Error::other)??;
        }
        Ok(Rings { waiting, anchor })
    }

    pub(super) fn anchor(&self) -> &Arc<Anchor> {
        &self.anchor
    }

    pub(super) fn threads(&self) -> usize {
        self.waiting.len()
    }

    /// Begins to serve the connection of `device`.
    pub(super) fn start(self, dispatcher: &Arc<Dispatcher>, device: &Arc<Device>) -> io::Result<Running> {
        let homes = self.waiting.iter().map(|waiting| waiting.home.clone()).collect();
        let stop = Arc::new(Stop::new(homes)?);
        self.anchor.tell(stop.clone());
        dispatcher.connection.served_by(stop.clone());
        let mut threads = Vec::with_capacity(self.waiting.len());
        for Waiting { start, thread, .. } in self.waiting {
            let (dispatcher, device, stop) = (dispatcher.clone(), device.clone(), stop.clone());
            // A thread that is gone says why when it is joined.
            let _gone = start.send(Start { dispatcher, device, stop });
            threads.push(thread);
        }
        Ok(Running { stop, threads })
    }
}

/// Workers that serve.
pub(super) struct Running {
    stop: Arc<Stop>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Running {
    pub(super) fn stop(&self) -> &Arc<Stop> {
        &self.stop
    }

    /// After the end of the connection.
    pub(super) fn join(self) -> io::Result<()> {
        self.stop.all();
        let mut result = Ok(());
        for thread in self.threads {
            let ended = thread.join().map_err(|_| io::Error::other("a worker of a ring panicked"));
            result = result.and(ended.flatten());
        }
        result
    }
}

/// A worker's life.
fn work(seat: Seat, ready: &Sender<io::Result<()>>, start: &Receiver<Start>) -> io::Result<()> {
    let made = cpus::settle(&seat.queues).and_then(|()| worker::new_ring());
    let (ring, said): (Option<Ring>, _) = match made {
        Ok(ring) => (Some(ring), Ok(())),
        Err(e) => (None, Err(e)),
    };
    // Who made the thread may have given up meanwhile; the next line sees that.
    let _gone = ready.send(said);
    let (Some(ring), Ok(start)) = (ring, start.recv()) else {
        seat.home.leave();
        return Ok(());
    };
    // When one ends, for whatever reason, its processor's requests would wait for ever: all end, and with them the connection.
    let _all = home::StopAtEnd { stop: start.stop.clone(), home: seat.home.clone() };
    Worker::new(ring, seat, start.dispatcher, start.device).run()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agreement() -> Agreement {
        Agreement {
            flags: Flags::MAX_PAGES,
            max_readahead: 0,
            max_background: 8,
            max_write: 1 << 16,
            max_stack_depth: 0,
        }
    }

    #[test]
    fn the_payload_holds_the_longest_of_what_is_agreed_on() {
        let agreement = agreement();
        let page = rustix::param::page_size();
        assert_eq!(payload_bytes(&agreement), (1 << 16) / 4096 * page);
        let without = Agreement { flags: Flags::default(), ..agreement };
        assert_eq!(payload_bytes(&without), PAGES_DEFAULT * page);
        assert_eq!(payload_bytes(&Agreement { max_write: 4096, ..agreement }), page.max(8192));
    }

    #[test]
    fn rings_that_are_not_used_end() {
        let rings = Rings::prepare(&agreement()).unwrap();
        assert_eq!(rings.threads(), cpus::possible().unwrap().min(THREADS_MAX));
        for waiting in rings.waiting {
            drop(waiting.start);
            waiting.thread.join().unwrap().unwrap();
        }
    }
}
