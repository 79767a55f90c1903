//! One session's stream: polled by the task of its connection, it reads what came, hands it to the service, and gathers
//! what the service says.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::Stream;
use granary_core::{Clock, Error, Result};
use prost::Message;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use tonic::{Code, Status, Streaming};

use super::gate::{Bucket, Gate};
use crate::service::{Connection, Outgoing};
use crate::wire::bounds::{FRAME_BYTES_SOFT, FRAME_ITEMS_MAX};
use crate::wire::pb::client_item::Item as Asked;
use crate::wire::pb::server_item::Item as Said;
use crate::wire::{kind, malformed, namespace, pb, request, required, response};

/// Frames that are read before what is to be sent is looked at again.
const FRAMES_AT_ONCE: usize = 8;
/// How long a stream above its rate is not read from.
const PAUSE: Duration = Duration::from_millis(20);

pub(super) struct SessionStream {
    connection: Connection,
    inbound: Streaming<pb::ClientFrame>,
    greeting: Option<pb::Greeting>,
    /// The last frame that was read.
    heard: u64,
    /// A heartbeat waits for its answer.
    owes_word: bool,
    /// The client's side ended, or the session: what is gathered goes out, then nothing.
    over: bool,
    /// Said last.
    last: Option<Status>,
    gate: Arc<Gate>,
    clock: Arc<dyn Clock>,
    rate: Bucket,
    frames_per_second: u64,
    pause: Option<Pin<Box<Sleep>>>,
    from: SocketAddr,
    user: String,
    _room: OwnedSemaphorePermit,
}

impl SessionStream {
    #[allow(clippy::too_many_arguments)] // made in one place
    pub fn new(
        connection: Connection,
        inbound: Streaming<pb::ClientFrame>,
        greeting: pb::Greeting,
        gate: Arc<Gate>,
        clock: Arc<dyn Clock>,
        frames_per_second: u32,
        from: SocketAddr,
        user: String,
        room: OwnedSemaphorePermit,
    ) -> SessionStream {
        let frames_per_second = u64::from(frames_per_second.max(1));
        SessionStream {
            connection,
            inbound,
            greeting: Some(greeting),
            heard: 1,
            owes_word: false,
            over: false,
            last: None,
            rate: Bucket::full(frames_per_second, clock.monotonic()),
            gate,
            clock,
            frames_per_second,
            pause: None,
            from,
            user,
            _room: room,
        }
    }

    /// Reads what came. Ready when it is to be called again after what is to be sent was looked at.
    fn read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..FRAMES_AT_ONCE {
            if self.over {
                return Poll::Pending;
            }
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match ready!(Pin::new(&mut self.inbound).poll_next(cx)) {
                Some(Ok(frame)) => {
                    if let Err(e) = self.frame(frame) {
                        self.end(Status::invalid_argument(e.to_string()));
                        return Poll::Pending;
                    }
                }
                Some(Err(status)) => {
                    self.end(status);
                    return Poll::Pending;
                }
                None => {
                    self.over = true;
                    return Poll::Pending;
                }
            }
            let now = self.clock.monotonic();
            if !self.rate.take(self.frames_per_second, self.frames_per_second, now) {
                self.pause = Some(Box::pin(tokio::time::sleep(PAUSE)));
            }
        }
        Poll::Ready(())
    }

    fn end(&mut self, status: Status) {
        log_malformed(&self.gate, self.from, &self.user, &status);
        self.over = true;
        self.last = Some(status);
    }

    fn frame(&mut self, frame: pb::ClientFrame) -> Result<()> {
        if frame.number != self.heard + 1 || frame.hello.is_some() {
            return Err(malformed("a frame that does not follow the one before it"));
        }
        self.heard = frame.number;
        self.connection.heard();
        self.owes_word |= frame.items.is_empty();
        for item in frame.items {
            match required(item.item, "the item")? {
                Asked::Request(wire) => self.connection.submit(request::decode(wire)?),
                Asked::Released(wire) => self.connection.released(response::decode_released(wire)),
                Asked::Cancel(id) => self.connection.cancel(id),
            }
        }
        if frame.leave {
            self.connection.leave();
        }
        Ok(())
    }

    /// What the service says, as much as goes into one frame.
    fn gather(&mut self, cx: &mut Context<'_>) -> Vec<pb::ServerItem> {
        let (mut items, mut bytes) = (Vec::new(), 0);
        while items.len() < FRAME_ITEMS_MAX && bytes < FRAME_BYTES_SOFT && !self.over {
            let Poll::Ready(outgoing) = pin!(self.connection.next()).poll(cx) else { break };
            let said = match outgoing {
                Outgoing::Response(r) => Said::Response(response::encode(&r)),
                Outgoing::Recall(r) => Said::Recall(response::encode_recall(&r)),
                Outgoing::Ended(e) => {
                    self.over = true;
                    Said::Ended(kind::encode(&e))
                }
            };
            let item = pb::ServerItem { item: Some(said) };
            bytes += item.encoded_len();
            items.push(item);
        }
        items
    }
}

impl Stream for SessionStream {
    type Item = Result<pb::ServerFrame, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.greeting.is_none() {
            let more = this.read(cx).is_ready();
            let items = this.gather(cx);
            // After what was answered: of two words about settings the later one counts.
            let settings = this.connection.settings();
            if !items.is_empty() || !settings.is_empty() || this.owes_word {
                this.owes_word = false;
                let settings = settings.iter().map(|(ns, s)| namespace::encode_settings(*ns, s)).collect();
                return Poll::Ready(Some(Ok(pb::ServerFrame {
                    heard: this.heard,
                    greeting: None,
                    items,
                    settings,
                })));
            }
            if this.over {
                return Poll::Ready(this.last.take().map(Err));
            }
            if more {
                cx.waker().wake_by_ref();
            }
            return Poll::Pending;
        }
        let greeting = this.greeting.take();
        Poll::Ready(Some(Ok(pb::ServerFrame { heard: this.heard, greeting, ..Default::default() })))
    }
}

/// Logs what is malformed, once a minute.
pub(super) fn log_malformed(gate: &Gate, from: SocketAddr, user: &str, status: &Status) {
    let theirs = matches!(status.code(), Code::InvalidArgument | Code::OutOfRange | Code::ResourceExhausted);
    if theirs && let Some(others) = gate.log_malformed() {
        let e = Error::new(granary_core::Kind::Invalid, status.message().to_owned());
        tracing::warn!(
            "a stream of {user} at {from} was ended, and {others} others in the last minutes: {e}"
        );
    }
}
