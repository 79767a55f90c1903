//! One live connection of a session: what its bytes' carrier calls.

use std::future::poll_fn;
use std::sync::Arc;

use granary_core::{Error, Kind, NamespaceId, SessionId};

use super::outgoing::{Admitted, Outgoing};
use super::session::Session;
use super::space::{Job, Space};
use super::{Service, run};
use crate::call::{Call, Released, Request};
use crate::types::WriteSettings;

/// Calls go in by [`Connection::submit`]; everything that goes out, responses too, comes from [`Connection::next`] in one
/// order. Dropping it ends nothing: the session lives until its time is over, or [`Connection::leave`].
#[derive(Debug)]
pub struct Connection {
    service: Arc<Service>,
    session: Arc<Session>,
    /// Which of the session's connections this is; calls and words of an earlier one are ignored.
    epoch: u64,
}

impl Connection {
    pub(super) fn new(service: Arc<Service>, session: Arc<Session>, epoch: u64) -> Connection {
        Connection { service, session, epoch }
    }

    pub fn session(&self) -> SessionId {
        self.session.id
    }

    /// Takes a call. Its response comes from [`Connection::next`], maybe before this returns. Works for some microseconds
    /// (for this call or others that wait in line), with reads from the engine when records are not cached; it never
    /// waits for other sessions. A number that is under way already is ignored. More calls under way than
    /// `ServiceOptions::calls_max` end the connection.
    pub fn submit(&self, request: Request) {
        self.heard();
        match self.session.queue.admit(self.epoch, request.id) {
            Admitted::Yes => {}
            Admitted::Twice | Admitted::Late => return,
            Admitted::TooMany => {
                let why = format!(
                    "more than {} calls are under way; wait for answers before asking more",
                    self.service.options.calls_max
                );
                self.session.queue.end_connection(self.epoch, Error::new(Kind::Invalid, why));
                return;
            }
        }
        let (session, epoch) = (self.session.clone(), self.epoch);
        self.service.dispatch(Job { session, epoch, request, space: None, number: 0, marks: Vec::new() });
    }

    /// The lock call of this number, if it waits, is to end: it is answered `Interrupted`. If its answer says that the
    /// lock was taken, that came first, and who does not want it any more must unlock.
    pub fn cancel(&self, id: u64) {
        if !self.session.queue.cancel(self.epoch, id) {
            return;
        }
        for space in self.session.spaces() {
            let mut state = space.lock();
            let is_it = |job: &Job| {
                job.session.member == self.session.member
                    && job.epoch == self.epoch
                    && job.request.id == id
                    && matches!(job.request.call, Call::Lock { .. })
            };
            let found = state.lock_waits.iter().find(|(_, job)| is_it(job)).map(|(ticket, _)| *ticket);
            let Some(ticket) = found else { continue };
            let mut granted = Vec::new();
            state.locks.cancel(&[ticket], &mut granted);
            if let Some(job) = state.lock_waits.remove(&ticket) {
                self.service.refuse(&job, run::interrupted());
            }
            self.service.locks_granted(&space, &mut state, granted);
            return;
        }
    }

    /// The next thing to send, in order. Cancel-safe: nothing is lost when the future is dropped. One caller at a time.
    pub async fn next(&self) -> Outgoing {
        poll_fn(|cx| self.session.queue.poll_next(self.epoch, cx)).await
    }

    /// Settings of namespaces that the session has not heard of yet: each is told once, in no order with the rest. Who waits
    /// for [`Connection::next`] is woken for them too.
    pub fn settings(&self) -> Vec<(NamespaceId, WriteSettings)> {
        self.session.queue.take_settings(self.epoch)
    }

    /// The session answers a recall. Answers to what was not asked, or was answered, are ignored.
    pub fn released(&self, released: Released) {
        self.heard();
        if !self.session.queue.is_current(self.epoch) {
            return;
        }
        if let Some(granted) = self.session.granted(Space::of_recall(released.id)) {
            self.service.released(&self.session, &granted.space, released);
        }
    }

    /// Any word of the session renews its time.
    pub fn heard(&self) {
        self.session.heard(self.service.clock.monotonic());
    }

    /// Ends the session, at its own wish: what it has is free at once.
    pub fn leave(&self) {
        if self.session.queue.is_current(self.epoch) {
            self.service
                .end(&self.session, Error::new(Kind::Fenced, "the session was ended by its own node"));
        }
    }
}
