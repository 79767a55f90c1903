//! Lending files of the node's cache to loaders of this machine. What is asked and answered, and why, says [`granary_loader::node`].
//!
//! | module | noun |
//! |---|---|
//! | `ground` | what one connection is for: whose, which namespace, and where names lead in it |
//!
//! Who asks is known by the kernel's word, as for every request of the socket. The namespace must be granted to them, and each file must be
//! one that they may read there, looked up anew for each question: what is taken from them is not lent any more. What was lent before
//! stays readable for who has it open, as an open file does.
//!
//! A connection has at most [`QUESTIONS_MAX`] questions under way, and is not read while it has; an answer that waits for its reader holds at
//! most [`COPY_BYTES_MAX`] of memory, beside chunks that the cache does not keep, and its descriptors, which are closed when they are sent.

mod ground;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use bytes::Bytes;
use granary_cache::tree::lend::{LendLimits, Lent};
use granary_core::{Error, Kind, Result};
use granary_loader::node::pass;
use granary_loader::node::wire::{
    Answer, Ask, LENGTH_BYTES, PARTS_MAX, Part, QUESTION_FRAME_BYTES_MAX, QUESTIONS_MAX, Question,
    RANGE_BYTES_MAX, Said, frame_bytes,
};
use tokio::io::{AsyncReadExt, Interest};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinSet;

use super::server::Connection;

pub use ground::Ground;

/// Of an answer's bytes that cannot be lent.
const COPY_BYTES_MAX: u64 = 1 << 20;
const LIMITS: LendLimits = LendLimits { parts_max: PARTS_MAX, copy_bytes_max: COPY_BYTES_MAX };

/// A connection's end to which answers are written.
struct Out {
    connection: Connection,
    /// An answer is written whole before the next one begins. Held while the socket has no room: who waits for it waits for the same reader.
    turn: Mutex<()>,
}

/// Answers until the other side goes away or says something that cannot be. `begun`: what it said already.
pub async fn serve(ground: Arc<Ground>, connection: Connection, begun: Bytes) {
    let out = Arc::new(Out { connection, turn: Mutex::new(()) });
    let room = Arc::new(Semaphore::new(QUESTIONS_MAX));
    let mut answers = JoinSet::new();
    let mut input = io::Cursor::new(begun).chain(Input(&out.connection));
    loop {
        while answers.try_join_next().is_some() {}
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let question = match next(&mut input).await {
            Ok(Some(question)) => question,
            Ok(None) => return,
            Err(e) => {
                tracing::warn!("a connection for lending is closed: {e}");
                return;
            }
        };
        let (ground, out) = (ground.clone(), out.clone());
        answers.spawn(async move {
            let number = question.number;
            let (said, lent) = match said(&ground, question.ask).await {
                Ok(said) => said,
                Err(e) => (Answer::refused(number, &e).said, Vec::new()),
            };
            if let Err(e) = out.send(&Answer { number, said }, &lent).await {
                tracing::debug!("a loader went away before it was answered: {e}");
            }
            drop(place);
        });
    }
}

async fn said(ground: &Ground, ask: Ask) -> Result<(Said, Vec<Lent>)> {
    match ask {
        Ask::Bytes { name, range, check, next } => {
            if range.start >= range.end || range.end - range.start > RANGE_BYTES_MAX {
                return Err(Error::new(
                    Kind::Invalid,
                    format!("bytes {range:?} are none, or too many at once"),
                ));
            }
            let lent = ground.bytes(&name, range, LIMITS, check, &next).await?;
            Ok((Said::Parts(lent.iter().map(part).collect()), lent))
        }
        Ask::Length { name } => Ok((Said::Files(vec![ground.length(&name).await?]), Vec::new())),
        Ask::Files { folder, after, max } => {
            Ok((Said::Files(ground.files(&folder, &after, max).await?), Vec::new()))
        }
    }
}

fn part(lent: &Lent) -> Part {
    match lent {
        Lent::File { offset, len, .. } => Part::Lent { offset: *offset, len: *len as u32 },
        Lent::Bytes(bytes) => Part::Inline { len: bytes.len() as u32 },
    }
}

/// `None` at the end.
async fn next(input: &mut (impl tokio::io::AsyncRead + Unpin)) -> Result<Option<Question>> {
    let mut length = [0; LENGTH_BYTES];
    match input.read_exact(&mut length).await {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read.map_err(|e| Error::io("cannot read a question", e))?,
    };
    let mut frame = length.to_vec();
    frame.resize(LENGTH_BYTES + frame_bytes(length, QUESTION_FRAME_BYTES_MAX)?, 0);
    let read = input.read_exact(&mut frame[LENGTH_BYTES..]).await;
    read.map_err(|e| Error::io("cannot read a question", e))?;
    Question::decode(&frame).map(Some)
}

impl Out {
    async fn send(&self, answer: &Answer, lent: &[Lent]) -> io::Result<()> {
        let frame = answer.encode();
        let descriptors: Vec<BorrowedFd<'_>> = lent
            .iter()
            .filter_map(|lent| match lent {
                Lent::File { file, .. } => Some(file.as_fd()),
                Lent::Bytes(_) => None,
            })
            .collect();
        let _turn = self.turn.lock().await;
        self.write(&frame, &descriptors).await?;
        for lent in lent {
            if let Lent::Bytes(bytes) = lent {
                self.write(bytes, &[]).await?;
            }
        }
        Ok(())
    }

    async fn write(&self, mut bytes: &[u8], mut descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let stream = self.connection.stream();
        while !bytes.is_empty() {
            let send = || pass::send(stream, bytes, descriptors);
            let sent = stream.async_io(Interest::WRITABLE, send).await?;
            bytes = &bytes[sent..];
            descriptors = &[];
        }
        Ok(())
    }
}

/// Descriptors that somebody sends are closed by the kernel, since there is no room for them.
struct Input<'a>(&'a Connection);

impl tokio::io::AsyncRead for Input<'_> {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        let stream = self.0.stream();
        loop {
            std::task::ready!(stream.poll_read_ready(cx))?;
            match stream.try_read_buf(buf) {
                Ok(_) => return std::task::Poll::Ready(Ok(())),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return std::task::Poll::Ready(Err(e)),
            }
        }
    }
}
