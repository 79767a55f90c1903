//! The one answer to one request. May be given from any thread; dropped without one, it answers EIO, so that no program
//! waits for ever.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use super::interrupts::{TooMany, Waiting};
use super::{BackingId, Channel};
use crate::proto::RESEND_BIT;
use crate::proto::wire::Body;

#[derive(Debug)]
#[must_use = "dropped without an answer it answers EIO"]
pub struct Reply {
    channel: Arc<dyn Channel>,
    unique: u64,
    /// The thread that waits for the answer.
    caller: u32,
    names: Option<Arc<BackingId>>,
    answered: bool,
}

impl Reply {
    pub(crate) fn new(channel: Arc<dyn Channel>, unique: u64, caller: u32) -> Reply {
        Reply { channel, unique, caller, names: None, answered: false }
    }

    fn answer(mut self, errno: i32, parts: &[&[u8]]) {
        self.answered = true;
        self.channel.answer(self.unique, errno, parts, self.names.take());
    }

    /// The request's number, without the bit of resending.
    pub fn request(&self) -> u64 {
        self.unique & !RESEND_BIT
    }

    /// Whether the request may have been served before, by a process that ended before it answered.
    pub fn is_again(&self) -> bool {
        self.unique & RESEND_BIT != 0
    }

    /// Done, and nothing to say.
    pub fn ok(self) {
        self.answer(0, &[]);
    }

    pub fn body(self, body: &Body) {
        self.answer(0, &[body.as_slice()]);
    }

    pub fn data(self, data: &[u8]) {
        self.answer(0, &[data]);
    }

    /// An errno, as errno.h has it.
    pub fn error(self, errno: i32) {
        self.answer(errno, &[]);
    }

    /// Says that the request will wait, so that an INTERRUPT finds it. [`TooMany`] wait already.
    pub fn waits(&self, interruptible: bool) -> Result<Waiting, TooMany> {
        Waiting::begin(self.channel.clone(), self.unique, self.caller, interruptible)
    }

    /// Registers a local file for passthrough.
    pub fn open_backing(&self, file: &File) -> io::Result<BackingId> {
        self.channel.open_backing(file.as_fd())
    }

    /// The answer will name this file: it stays registered until the kernel has the answer.
    pub fn names(&mut self, id: Arc<BackingId>) {
        self.names = Some(id);
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.answered {
            self.channel.answer(self.unique, libc::EIO, &[], None);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::BorrowedFd;
    use std::sync::Mutex;

    use super::super::interrupts::Interrupts;
    use super::*;

    #[derive(Debug)]
    struct Recorder(Mutex<Vec<(u64, i32, Vec<u8>)>>, Interrupts);

    impl Channel for Recorder {
        fn answer(&self, unique: u64, errno: i32, parts: &[&[u8]], _names: Option<Arc<BackingId>>) {
            self.0.lock().unwrap().push((unique, errno, parts.concat()));
        }
        fn notify(&self, _code: i32, _body: &[u8]) -> io::Result<()> {
            Ok(())
        }
        fn open_backing(&self, _file: BorrowedFd<'_>) -> io::Result<BackingId> {
            Err(io::ErrorKind::Unsupported.into())
        }
        fn is_ring(&self) -> bool {
            false
        }
        fn settle(&self) {}
        fn interrupts(&self) -> &Interrupts {
            &self.1
        }
    }

    #[test]
    fn every_request_is_answered_once_even_when_it_is_dropped_or_its_thread_panics() {
        let recorder = Arc::new(Recorder(Mutex::default(), Interrupts::new(1)));
        let reply = |unique| Reply::new(recorder.clone(), unique, 1);
        reply(2).ok();
        reply(4).data(b"bytes");
        reply(6).error(libc::ENOENT);
        drop(reply(8));
        let late = reply(10);
        std::thread::spawn(move || {
            let _late = late;
            panic!("on purpose");
        })
        .join()
        .unwrap_err();
        let answers = recorder.0.lock().unwrap();
        let expected = [
            (2, 0, vec![]),
            (4, 0, b"bytes".to_vec()),
            (6, libc::ENOENT, vec![]),
            (8, libc::EIO, vec![]),
            (10, libc::EIO, vec![]),
        ];
        assert_eq!(answers[..], expected);
    }
}
