//! `/dev/fuse`: one read(2) gives one request, one write(2) takes one answer or notification.
//!
//! Several threads read, each on a descriptor of its own (cloned by ioctl), because the kernel keeps the requests that a
//! descriptor has read in a list of that descriptor's: an answer must be written to the one that its request came from.
//! INTERRUPTs come on any of them. read(2) fails with ENODEV when the file system is unmounted, which ends all threads.
//!
//! Where requests come over [`super::uring`], one thread still reads what does not: FORGET and INTERRUPT.

mod device;

use std::io;
use std::sync::Arc;

pub(super) use device::{Connection, Device, write};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::dispatch::Dispatcher;
use super::uring::Stop;

impl Device {
    /// Reads requests into `buffer` and serves them, until the file system is unmounted, or `stop` says so.
    pub(super) fn serve_all(
        self: &Arc<Device>,
        dispatcher: &Dispatcher,
        mut buffer: Vec<u8>,
        stop: Option<&Stop>,
    ) -> io::Result<()> {
        loop {
            if let Some(stop) = stop
                && !self.is_readable(stop)?
            {
                return Ok(());
            }
            match rustix::io::read(self.descriptor(), &mut buffer) {
                Ok(len) => dispatcher.serve(self.at(), self, &buffer[..len]),
                // ENOENT: the request was interrupted before it could be read.
                Err(Errno::NOENT | Errno::INTR | Errno::AGAIN) => {}
                Err(Errno::NODEV) => return Ok(()),
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Waits until a read returns at once; false when `stop` says so before.
    fn is_readable(&self, stop: &Stop) -> io::Result<bool> {
        let mut either = [
            PollFd::from_borrowed_fd(self.descriptor(), PollFlags::IN),
            PollFd::new(stop.descriptor(), PollFlags::IN),
        ];
        loop {
            match poll(&mut either, None) {
                Ok(_) => return Ok(!either[1].revents().contains(PollFlags::IN)),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}
