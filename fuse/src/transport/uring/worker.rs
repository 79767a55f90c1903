//! A thread with a ring, that serves the requests of its processors.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use io_uring::squeue::Entry128;
use io_uring::{IoUring, cqueue, opcode, squeue, types};

use super::super::dev::Device;
use super::super::dispatch::Dispatcher;
use super::super::interrupts::RINGS_WAITING_MAX;
use super::super::{BackingId, Channel};
use super::anchor::Anchor;
use super::cpus;
use super::entry::{Entry, Served};
use super::home::Home;
use super::memory::KEPT_BYTES;
use crate::proto::ring::{Command, SUBMISSION_BYTES};

/// Bytes of payloads that stay resident in one mount; above, large ones are given back after each use.
pub(super) const RESIDENT_BYTES_MAX: usize = 8 << 20;
/// Entries of a queue at the start. The kernel takes the one that was used last first, so what is not needed costs nothing
/// but its place.
const ENTRIES_MIN: usize = 4;
const ENTRIES_MAX: usize = 16;
/// All queues' entries at the start, where there are many processors.
const ENTRIES_OF_ALL: usize = 256;
/// A queue has this many entries at most: as many as may wait for locks, and some that work; later lock requests are refused
/// (ENOLCK), so that an unlock always comes. What waits for the store or the metadata may use all of them up. Further requests of
/// that processor wait in the kernel then until one is answered.
const ENTRIES_GROWN_MAX: usize = RINGS_WAITING_MAX + ENTRIES_MAX;
/// Submissions that are taken by one call, and completions that have room; there may be more of both.
const SUBMISSIONS: u32 = 64;
const COMPLETIONS: u32 = 256;
/// Completions with this are the bell's, others tell the entry.
const BELL: u64 = u64::MAX;

/// Entries of each queue at the start.
pub(super) fn entries_of(queues: usize) -> usize {
    (ENTRIES_OF_ALL / queues.max(1)).clamp(ENTRIES_MIN, ENTRIES_MAX)
}

pub(super) type Ring = IoUring<Entry128, cqueue::Entry>;

/// A ring that only the calling thread uses; what is completed is told when it waits.
pub(super) fn new_ring() -> io::Result<Ring> {
    IoUring::<Entry128, cqueue::Entry>::builder()
        .setup_cqsize(COMPLETIONS)
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_submit_all()
        .build(SUBMISSIONS)
        .map_err(|e| io::Error::new(e.kind(), format!("this process may have no io_uring: {e}")))
}

/// What a worker is for.
pub(super) struct Seat {
    pub(super) at: usize,
    pub(super) queues: Vec<u16>,
    pub(super) payload_bytes: usize,
    /// Of each queue, at the start.
    pub(super) entries: usize,
    pub(super) resident_bytes_max: usize,
    pub(super) home: Arc<Home>,
}

/// A queue's entries: all, and those whose requests are not answered.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    all: usize,
    busy: usize,
}

pub(super) struct Worker {
    // First, so that it ends before the memory that the kernel knows.
    ring: Ring,
    seat: Seat,
    dispatcher: Arc<Dispatcher>,
    device: Arc<Device>,
    /// Known to [`super::super::interrupts`] by this.
    reader: usize,
    entries: Vec<Arc<Entry>>,
    counts: BTreeMap<u16, Count>,
    /// Entries with much of their payload resident, to be given back.
    heavy: Vec<u32>,
    resident_bytes: usize,
    resident_of: Vec<usize>,
    kicks: u64,
    /// What stays registered until the answers that are to be submitted next are.
    names: Vec<Arc<BackingId>>,
    /// Up to where it has settled with the next submission.
    asked: u64,
    /// Queues that are to be set going, which failed: the connection has just begun, and the kernel does not know the
    /// [`Anchor`] yet.
    owed: BTreeSet<u16>,
    /// The kernel has ended the connection.
    over: bool,
}

impl Worker {
    pub(super) fn new(ring: Ring, seat: Seat, dispatcher: Arc<Dispatcher>, device: Arc<Device>) -> Worker {
        let reader = 1 + seat.at;
        let counts = seat.queues.iter().map(|&queue| (queue, Count::default())).collect();
        Worker {
            ring,
            seat,
            dispatcher,
            device,
            reader,
            entries: Vec::new(),
            counts,
            heavy: Vec::new(),
            resident_bytes: 0,
            resident_of: Vec::new(),
            kicks: 0,
            names: Vec::new(),
            asked: 0,
            owed: BTreeSet::new(),
            over: false,
        }
    }

    /// Serves until the connection is over.
    pub(super) fn run(mut self) -> io::Result<()> {
        self.poll_bell()?;
        for queue in self.seat.queues.clone() {
            for _ in 0..self.seat.entries {
                self.register(queue)?;
            }
        }
        let (mut completed, mut finished) = (Vec::new(), Vec::new());
        while !self.over && !self.seat.home.is_over() {
            self.wait()?;
            completed.extend(self.ring.completion());
            self.shed(&completed);
            for completion in completed.drain(..) {
                self.complete(&completion)?;
            }
            let asked = self.seat.home.take_finished(&mut finished);
            for at in finished.drain(..) {
                self.commit(at)?;
            }
            self.asked = asked;
            for queue in std::mem::take(&mut self.owed) {
                self.kick(queue);
            }
        }
        Ok(())
    }

    /// Submits what is there and waits for a completion, unless there is something else to do.
    fn wait(&mut self) -> io::Result<()> {
        // What was asked for, and what is registered, waits for the submission alone.
        let want = usize::from(self.names.is_empty() && self.seat.home.lie_down());
        let waited = self.ring.submit_and_wait(want);
        self.seat.home.get_up();
        if self.ring.submission().is_empty() {
            self.names.clear();
            self.seat.home.settled(self.asked);
        }
        match waited {
            Ok(_) => Ok(()),
            // EBUSY: there are completions to be taken first.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)) => Ok(()),
            Err(e) => Err(e),
        }
    }

    fn complete(&mut self, completion: &cqueue::Entry) -> io::Result<()> {
        if completion.user_data() == BELL {
            return if cqueue::more(completion.flags()) { Ok(()) } else { self.poll_bell() };
        }
        match -completion.result() {
            ..=0 => self.serve(completion.user_data() as u32),
            libc::ENOTCONN | libc::ECONNABORTED | libc::ENODEV => {
                self.over = true;
                Ok(())
            }
            errno => Err(io::Error::new(
                io::Error::from_raw_os_error(errno).kind(),
                format!("the kernel refuses an entry of a ring: {}", io::Error::from_raw_os_error(errno)),
            )),
        }
    }

    fn serve(&mut self, at: u32) -> io::Result<()> {
        let entry = self.entries[at as usize].clone();
        let count = self.count(entry.queue());
        count.busy += 1;
        match entry.serve(self.reader, &self.dispatcher) {
            Served::Answered => self.commit(at),
            Served::Waits => self.make_room(entry.queue()),
        }
    }

    fn count(&mut self, queue: u16) -> &mut Count {
        self.counts.entry(queue).or_default()
    }

    /// Prepares the commit of an answered request; it goes with the next wait.
    fn commit(&mut self, at: u32) -> io::Result<()> {
        let entry = &self.entries[at as usize];
        let queue = entry.queue();
        let (commit, resident, names) = entry.hand_over();
        self.names.extend(names);
        self.count(queue).busy -= 1;
        self.resident_bytes += resident - self.resident_of[at as usize];
        self.resident_of[at as usize] = resident;
        if self.resident_bytes > self.seat.resident_bytes_max
            && resident > KEPT_BYTES
            && !self.heavy.contains(&at)
        {
            self.heavy.push(at);
        }
        let submission = Command::Commit { commit }.submission(self.descriptor(), queue, u64::from(at));
        self.push(&from_bytes(submission))
    }

    /// Gives back memory, after a wait: of entries that were committed before it and got no request in it. `completed` are
    /// those that did, all of them.
    fn shed(&mut self, completed: &[cqueue::Entry]) {
        if self.heavy.is_empty() {
            return;
        }
        let submission = self.ring.submission();
        // Answers may lie in memory still, or requests that no completion has told of yet.
        if !submission.is_empty() || submission.cq_overflow() {
            return;
        }
        drop(submission);
        for at in std::mem::take(&mut self.heavy) {
            if completed.iter().any(|completion| completion.user_data() == u64::from(at)) {
                continue; // it is heavy again when that is answered, if there is still too much
            }
            let given = self.entries[at as usize].shed();
            self.resident_bytes -= given;
            self.resident_of[at as usize] -= given;
        }
    }

    /// A request of this queue waits. Where few entries are free others are made, and what waits in the kernel since there
    /// was none is set going: it waits for a commit, whatever entries there are by now.
    fn make_room(&mut self, queue: u16) -> io::Result<()> {
        let spare = (self.seat.entries / 2).max(1);
        let Count { all, busy } = *self.count(queue);
        if all - busy >= spare || all >= ENTRIES_GROWN_MAX {
            return Ok(());
        }
        self.register(queue)?;
        self.kick(queue);
        Ok(())
    }

    /// Makes the kernel send a request to this queue: it goes to the one of the processor that asks for it.
    fn kick(&mut self, queue: u16) {
        let several = self.seat.queues.len() > 1;
        if several && !cpus::pin(&[queue]) {
            // It was taken away, and nothing is sent from it. What was before waits for the next commit.
            return;
        }
        self.kicks += 1;
        let (code, body) = Anchor::ask(self.kicks);
        if let Err(e) = self.device.notify(code, body.as_slice()) {
            tracing::debug!(queue, error = %e, "a queue cannot be set going yet");
            self.owed.insert(queue);
        }
        if several {
            cpus::pin(&self.seat.queues);
        }
    }

    /// One entry more.
    fn register(&mut self, queue: u16) -> io::Result<()> {
        let at = self.entries.len() as u32;
        let (home, device) = (self.seat.home.clone(), self.device.clone());
        let entry = Entry::new(at, queue, self.seat.payload_bytes, home, device)?;
        let pieces = entry.memory().pieces();
        self.entries.push(Arc::new(entry));
        self.resident_of.push(0);
        self.count(queue).all += 1;
        let pieces_at = pieces.as_ptr() as u64;
        let submission =
            Command::Register { pieces: pieces_at }.submission(self.descriptor(), queue, u64::from(at));
        self.push(&from_bytes(submission))?;
        // The addresses are read while it is submitted.
        self.ring.submit()?;
        Ok(())
    }

    fn poll_bell(&mut self) -> io::Result<()> {
        let bell = types::Fd(self.seat.home.bell().as_raw_fd());
        let poll = opcode::PollAdd::new(bell, libc::POLLIN as u32).multi(true).build().user_data(BELL);
        self.push(&poll.into())
    }

    fn descriptor(&self) -> i32 {
        self.device.descriptor().as_raw_fd()
    }

    fn push(&mut self, submission: &Entry128) -> io::Result<()> {
        loop {
            // SAFETY: what it points to (the entries' memory, the bell) lives as long as the ring, and `pieces` until it
            // has been submitted.
            if unsafe { self.ring.submission().push(submission) }.is_ok() {
                return Ok(());
            }
            self.ring.submit()?;
        }
    }
}

fn from_bytes(bytes: [u8; SUBMISSION_BYTES]) -> Entry128 {
    const { assert!(size_of::<squeue::Entry128>() == SUBMISSION_BYTES) }
    // SAFETY: it is a submission as the kernel lays it out, of plain integers, any bits of which are valid.
    unsafe { std::mem::transmute(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_processors_have_fewer_entries_each() {
        assert_eq!([1, 2, 16, 32, 64, 128, 512].map(entries_of), [16, 16, 16, 8, 4, 4, 4]);
    }

    #[test]
    fn a_submission_keeps_what_it_is_known_by() {
        let bytes = Command::Commit { commit: 8 }.submission(3, 1, 77);
        assert_eq!(from_bytes(bytes).get_user_data(), 77);
    }
}
