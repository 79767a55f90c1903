//! A connection to the node. Many questions are under way; a thread takes the answers as they come.
//!
//! A thread of its own, and no task: a connection outlives the runtime of the loader that asked first.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use granary_core::{Error, Kind, Result};
use tokio::sync::{Semaphore, oneshot};

use super::hello::Opened;
use super::pass;
use super::wire::{
    ANSWER_FRAME_BYTES_MAX, Answer, Ask, LENGTH_BYTES, QUESTIONS_MAX, Question, RANGE_BYTES_MAX, Said,
    frame_bytes,
};

/// A node that does not answer for so long is away. It may wait for its store, which has its own bounds.
const ANSWER_WAIT: Duration = Duration::from_secs(60);
const READ_BYTES: usize = 64 << 10;

/// An answer and what came with it.
#[derive(Debug)]
pub(super) struct Heard {
    pub said: Said,
    pub descriptors: Vec<OwnedFd>,
    pub inline: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Silence {
    /// The node is away; asking another connection may help.
    Gone(Error),
    /// The question cannot be asked.
    Wrong(Error),
}

#[derive(Debug)]
pub(super) struct Link {
    inner: Arc<Inner>,
    /// Questions under way. Those whose asker gave up count until they are answered or this is dropped: no longer than the node has them.
    room: Semaphore,
    /// Of questions that the node knows.
    version: u8,
}

#[derive(Debug)]
struct Inner {
    socket: UnixStream,
    /// Guards the writing of a question, which is one short write to a socket that has room for all that may be under way.
    writing: Mutex<()>,
    /// Guards who waits for which answer, for a look-up.
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u32,
    /// None: the connection has ended.
    askers: Option<HashMap<u32, oneshot::Sender<Heard>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn gone(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Silence {
    Silence::Gone(Error::new(Kind::Unavailable, "the granary node went away").with_source(why))
}

impl Link {
    /// Errors: a thread that cannot be started.
    pub fn new(opened: Opened) -> Result<Link> {
        let waiting = Mutex::new(Waiting { next: 0, askers: Some(HashMap::new()) });
        let version = opened.version;
        let inner = Arc::new(Inner { socket: opened.socket, writing: Mutex::default(), waiting });
        let reading = inner.clone();
        std::thread::Builder::new()
            .name("granary-node".to_owned())
            .spawn(move || {
                if let Err(e) = reading.read() {
                    tracing::debug!("the connection to the node ended: {e}");
                }
                // Whoever waits is told by the end of its channel.
                lock(&reading.waiting).askers = None;
                // Fails when it is closed already.
                let _ = reading.socket.shutdown(Shutdown::Both);
            })
            .map_err(|e| Error::io("cannot start the thread that listens to the node", e))?;
        Ok(Link { inner, room: Semaphore::new(QUESTIONS_MAX), version })
    }

    pub fn has_ended(&self) -> bool {
        lock(&self.inner.waiting).askers.is_none()
    }

    pub async fn ask(&self, ask: Ask) -> Result<Heard, Silence> {
        let Ok(_place) = self.room.acquire().await else {
            return Err(gone("it is closed"));
        };
        let (tell, answer) = oneshot::channel();
        let number = {
            let mut waiting = lock(&self.inner.waiting);
            let number = waiting.next;
            waiting.next = number.wrapping_add(1);
            let Some(askers) = &mut waiting.askers else { return Err(gone("it has ended")) };
            askers.insert(number, tell);
            number
        };
        let frame = Question { number, ask }.encode(self.version).map_err(Silence::Wrong)?;
        {
            let _one = lock(&self.inner.writing);
            if let Err(e) = (&self.inner.socket).write_all(&frame) {
                // Half a question would make the rest unreadable.
                let _ = self.inner.socket.shutdown(Shutdown::Both);
                return Err(gone(e));
            }
        }
        match tokio::time::timeout(ANSWER_WAIT, answer).await {
            Ok(Ok(heard)) => Ok(heard),
            Ok(Err(_)) => Err(gone("the connection ended")),
            Err(_) => {
                let _ = self.inner.socket.shutdown(Shutdown::Both);
                Err(gone(format!("it did not answer for {} s", ANSWER_WAIT.as_secs())))
            }
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Its thread ends by itself.
        let _ = self.inner.socket.shutdown(Shutdown::Both);
    }
}

impl Inner {
    /// Until the connection ends.
    fn read(&self) -> Result<()> {
        let mut from = Reading { socket: &self.socket, bytes: Vec::new(), descriptors: VecDeque::new() };
        loop {
            let mut frame = from.take(LENGTH_BYTES)?;
            let length = frame[..].try_into().map_err(|_| broken("a length has four bytes"))?;
            let rest = frame_bytes(length, ANSWER_FRAME_BYTES_MAX)?;
            frame.extend_from_slice(&from.take(rest)?);
            let Answer { number, said } = Answer::decode(&frame)?;
            let (lent, inline) = Answer { number, said: said.clone() }.brings();
            if from.descriptors.len() < lent || inline as u64 > RANGE_BYTES_MAX {
                return Err(broken("it is not what it says"));
            }
            let descriptors = from.descriptors.drain(..lent).collect();
            let heard = Heard { said, descriptors, inline: from.take(inline)? };
            let asker = lock(&self.waiting).askers.as_mut().and_then(|askers| askers.remove(&number));
            // One who gave up does not listen; what was lent is closed.
            if let Some(asker) = asker {
                let _ = asker.send(heard);
            }
        }
    }
}

fn broken(why: &'static str) -> Error {
    Error::new(Kind::Corrupt, format!("an answer of the node is damaged: {why}"))
}

struct Reading<'a> {
    socket: &'a UnixStream,
    bytes: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
}

impl Reading<'_> {
    fn take(&mut self, len: usize) -> Result<Vec<u8>> {
        let failed = |e| Error::io("cannot read from the node", e);
        while self.bytes.len() < len {
            let have = self.bytes.len();
            self.bytes.resize(have + READ_BYTES, 0);
            let got = pass::receive(self.socket, &mut self.bytes[have..], &mut self.descriptors);
            self.bytes.truncate(have + got.as_ref().map_or(0, |n| *n));
            match got {
                Ok(0) => return Err(failed(io::ErrorKind::UnexpectedEof.into())),
                Err(e) if e.kind() != io::ErrorKind::Interrupted => return Err(failed(e)),
                _ => {}
            }
        }
        let rest = self.bytes.split_off(len);
        Ok(std::mem::replace(&mut self.bytes, rest))
    }
}
