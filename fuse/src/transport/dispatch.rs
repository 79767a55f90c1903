//! From a request's bytes to its service, whichever way they came.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::dev::Connection;
use super::uring::Anchor;
use super::{Channel, Reply, Service};
use crate::proto::request::{Dialect, Header};
use crate::proto::{Malformed, Operation, Request, opcode};

pub(super) struct Dispatcher {
    pub(super) connection: Arc<Connection>,
    service: Arc<dyn Service>,
    dialect: Dialect,
    anchor: Option<Arc<Anchor>>,
    /// A request's service panicked.
    panicked: AtomicBool,
}

impl Dispatcher {
    pub(super) fn new(
        connection: Arc<Connection>,
        service: Arc<dyn Service>,
        dialect: Dialect,
        anchor: Option<Arc<Anchor>>,
    ) -> Dispatcher {
        Dispatcher { connection, service, dialect, anchor, panicked: AtomicBool::new(false) }
    }

    fn forget(&self, ino: u64, lookups: u64) {
        if self.anchor.is_none() || !Anchor::is(ino) {
            self.service.forget(ino, lookups);
        }
    }

    pub(super) fn has_panicked(&self) -> bool {
        self.panicked.load(Ordering::Relaxed)
    }

    /// Serves the request that `reader`, one of the connection's threads, has read. It is to be answered through `channel`.
    pub(super) fn serve<C: Channel + 'static>(&self, reader: usize, channel: &Arc<C>, bytes: &[u8]) {
        let header = match Header::parse(bytes) {
            Ok(header) => header,
            Err(e) => return tracing::error!(error = %e, "the kernel sent what is no request"),
        };
        let request = match Request::parse_body(header, bytes, self.dialect) {
            Ok(request) => request,
            Err(e) => return refuse(&**channel, &header, e),
        };
        let unique = header.unique;
        match &request.operation {
            Operation::Interrupt { unique } => self.connection.interrupt(*unique),
            Operation::Forget { lookups } => self.forget(header.ino, *lookups),
            Operation::BatchForget(forgets) => {
                forgets.iter().for_each(|(ino, lookups)| self.forget(ino, lookups));
            }
            _ if opcode::is_silent(header.opcode) => {}
            Operation::Destroy => channel.answer(unique, 0, &[], None),
            // It comes once, before the session.
            Operation::Init(_) => channel.answer(unique, libc::EIO, &[], None),
            operation => {
                let anchored = self.anchor.as_ref().and_then(|anchor| anchor.answer(&header, operation));
                if let Some(body) = anchored {
                    return channel.answer(unique, 0, &[body.as_slice()], None);
                }
                let interrupts = channel.interrupts();
                interrupts.begin(reader, unique);
                let reply = Reply::new(channel.clone(), unique, header.pid);
                // The reply answers EIO on its way out; others are served as before.
                if catch_unwind(AssertUnwindSafe(|| self.service.serve(&request, reply))).is_err() {
                    self.panicked.store(true, Ordering::Relaxed);
                    tracing::error!(
                        opcode = header.opcode,
                        ino = header.ino,
                        "the service of a request panicked"
                    );
                }
                interrupts.end(reader, unique);
            }
        }
    }
}

fn refuse(channel: &dyn Channel, header: &Header, e: Malformed) {
    tracing::error!(opcode = header.opcode, error = %e, "the kernel sent a malformed request");
    if !opcode::is_silent(header.opcode) {
        channel.answer(header.unique, libc::EIO, &[], None);
    }
}
