//! How long a request is waited for: apart for connecting, for the first byte of the answer, and for any next byte.
//!
//! ```text
//! GET:  | connect | sent at once | ..first byte.. | byte ..stall.. byte ..stall.. end |
//! PUT:  | connect | piece ..stall.. piece ..stall.. last piece | ..first byte.. | answer |
//! ```
//! Time for the first byte of a PUT's answer begins when the last piece of its body was handed to the connection, because
//! before that no answer is due. What the socket still buffers then (a few hundred KiB) is sent within that time.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};
use object_store::client::{HttpError, HttpErrorKind, HttpRequestBody, HttpResponse, HttpResponseBody};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

/// A body is sent in pieces of at most so many bytes, each a sign that it moves.
const PIECE_BYTES: usize = 256 << 10;

#[derive(Clone, Copy, Debug)]
pub(in crate::backend::s3) struct Timeouts {
    pub connect: Duration,
    pub first_byte: Duration,
    pub stall: Duration,
    /// In all: no request may be under way for longer, whatever moves.
    pub request: Duration,
}

/// What did not come in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::backend::s3) enum Late {
    FirstByte(Duration),
    /// The rest of an answer.
    Answer(Duration),
    /// The server took no more of a body.
    Upload(Duration),
}

impl fmt::Display for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Late::FirstByte(limit) => write!(f, "no first byte in {limit:?}"),
            Late::Answer(limit) => write!(f, "no further byte in {limit:?}"),
            Late::Upload(limit) => write!(f, "no byte more was taken in {limit:?}"),
        }
    }
}

impl std::error::Error for Late {}

fn late(what: Late) -> HttpError {
    HttpError::new(HttpErrorKind::Timeout, what)
}

/// Waits for the head of an answer to a request without a body.
pub(super) async fn head(
    limit: Duration,
    answer: impl Future<Output = Result<HttpResponse, HttpError>>,
) -> Result<HttpResponse, HttpError> {
    tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| Err(late(Late::FirstByte(limit))))
}

/// Signs that a body moves: how many pieces went, and whether that was all.
#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    pieces: u64,
    all: bool,
}

pub(super) struct Upload(watch::Receiver<Sent>);

/// The body in pieces, and what tells of their going.
pub(super) fn upload(
    body: HttpRequestBody,
) -> (impl Stream<Item = Result<Bytes, HttpError>> + Send + 'static, Upload) {
    let mut left = body.content_length();
    let (sent, moved) = watch::channel(Sent { pieces: 0, all: left == 0 });
    let pieces = body.into_data_stream().flat_map(|part| {
        stream::iter(match part {
            Ok(part) => slices(part).map(Ok).collect(),
            Err(e) => vec![Err(e)],
        })
    });
    let pieces = pieces.inspect(move |piece| {
        left = left.saturating_sub(piece.as_ref().map_or(0, Bytes::len));
        sent.send_modify(|sent| *sent = Sent { pieces: sent.pieces + 1, all: left == 0 });
    });
    (pieces, Upload(moved))
}

fn slices(part: Bytes) -> impl Iterator<Item = Bytes> {
    let len = part.len();
    (0..len).step_by(PIECE_BYTES).map(move |at| part.slice(at..len.min(at + PIECE_BYTES)))
}

impl Upload {
    /// Waits for the head of the answer, as long as the body moves, and then for the first byte.
    pub async fn head(
        mut self,
        timeouts: &Timeouts,
        answer: impl Future<Output = Result<HttpResponse, HttpError>>,
    ) -> Result<HttpResponse, HttpError> {
        let mut answer = std::pin::pin!(answer);
        loop {
            let all = self.0.borrow_and_update().all;
            let limit = if all { timeouts.first_byte } else { timeouts.stall };
            tokio::select! {
                answer = &mut answer => return answer,
                () = tokio::time::sleep(limit) => {
                    return Err(late(if all { Late::FirstByte(limit) } else { Late::Upload(limit) }));
                }
                moved = self.0.changed(), if !all => {
                    // The connection dropped the body before its end: its answer says why.
                    if moved.is_err() {
                        return head(timeouts.first_byte, answer).await;
                    }
                }
            }
        }
    }
}

/// An answer whose body must go on within `stall`.
pub(super) fn watched(answer: HttpResponse, stall: Duration) -> HttpResponse {
    let (head, body) = answer.into_parts();
    let timer = Box::pin(tokio::time::sleep(stall));
    HttpResponse::from_parts(head, HttpResponseBody::new(Watched { body, stall, timer, waits: false }))
}

struct Watched {
    body: HttpResponseBody,
    stall: Duration,
    timer: Pin<Box<Sleep>>,
    /// Whether the timer runs: it is set only when there is something to wait for.
    waits: bool,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            this.waits = false;
            return Poll::Ready(frame);
        }
        if !this.waits {
            this.timer.as_mut().reset(Instant::now() + this.stall);
            this.waits = true;
        }
        match this.timer.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Some(Err(late(Late::Answer(this.stall))))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
