//! The one answer to one request. May be given from any thread; dropped without one, it answers EIO, so that no program
//! waits for ever.

use std::fs::File;
use std::io;
use std::sync::Arc;

use super::interrupts::{TooMany, Waiting};
use super::{BackingId, Channel};
use crate::proto::wire::Body;

#[derive(Debug)]
#[must_use = "dropped without an answer it answers EIO"]
pub struct Reply {
    channel: Arc<dyn Channel>,
    unique: u64,
    answered: bool,
}

impl Reply {
    pub(crate) fn new(channel: Arc<dyn Channel>, unique: u64) -> Reply {
        Reply { channel, unique, answered: false }
    }

    fn answer(mut self, errno: i32, parts: &[&[u8]]) {
        self.answered = true;
        self.channel.answer(self.unique, errno, parts);
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
        Waiting::begin(self.channel.clone(), self.unique, interruptible)
    }

    /// Registers a local file for passthrough.
    pub fn open_backing(&self, file: &File) -> io::Result<BackingId> {
        BackingId::register(&self.channel, file)
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.answered {
            self.channel.answer(self.unique, libc::EIO, &[]);
        }
    }
}
