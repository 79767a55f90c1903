//! `/dev/fuse`: one read(2) gives one request, one write(2) takes one answer or notification.
//!
//! Several threads read, each on a descriptor of its own (cloned by ioctl), because the kernel keeps the requests that a
//! descriptor has read in a list of that descriptor's: an answer must be written to the one that its request came from.
//! INTERRUPTs come on any of them. read(2) fails with ENODEV when the file system is unmounted, which ends all threads.

mod device;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use device::{Connection, Device, write};
use rustix::io::Errno;

use super::{Channel, Reply, Service};
use crate::proto::request::{Dialect, Header};
use crate::proto::{
    Agreement, Flags, MAJOR, Malformed, Offer, Operation, REQUEST_OVERHEAD_BYTES, Request, opcode,
};

/// A connection that is agreed on, before requests are served.
#[derive(Debug)]
pub struct Session {
    devices: Vec<Arc<Device>>,
    dialect: Dialect,
    buffer_bytes: usize,
    /// A request's service panicked.
    panicked: AtomicBool,
}

impl Session {
    /// Answers the kernel's INIT on the descriptor of a fresh mount: `agree` says what is wanted of its offer. `threads`
    /// will read requests.
    pub fn greet(
        device: OwnedFd,
        threads: usize,
        agree: impl FnOnce(&Offer) -> Agreement,
    ) -> io::Result<Session> {
        let (header, offer) = read_offer(&device)?;
        if !offer.is_understood() {
            let _best = write(device.as_fd(), header.unique, -libc::EPROTO, &[]);
            let Offer { major, minor, .. } = offer;
            return Err(io::Error::other(format!(
                "the kernel speaks FUSE {major}.{minor}, and 7.31 (Linux 5.4) or later is needed"
            )));
        }
        let agreement = agree(&offer);
        write(device.as_fd(), header.unique, 0, &[agreement.encode().as_slice()])?;

        let connection = Connection::new(device, threads.max(1))?;
        Ok(Session {
            devices: Device::all(&connection),
            dialect: Dialect { setxattr_ext: agreement.flags.has(Flags::SETXATTR_EXT) },
            buffer_bytes: agreement.max_write as usize + REQUEST_OVERHEAD_BYTES,
            panicked: AtomicBool::new(false),
        })
    }

    /// For notifications; ends with the session.
    pub(crate) fn channel(&self) -> Weak<dyn Channel> {
        let device: Arc<dyn Channel> = self.devices[0].clone();
        Arc::downgrade(&device)
    }

    /// Serves requests on as many threads as were asked for, this one among them, until the file system is unmounted.
    pub fn run(self, service: Arc<dyn Service>) -> io::Result<()> {
        std::thread::scope(|scope| {
            let (session, service) = (&self, &*service);
            let mut others = Vec::new();
            for device in &self.devices[1..] {
                let name = format!("granary-fuse-{}", device.at());
                let thread = std::thread::Builder::new().name(name);
                match thread.spawn_scoped(scope, move || session.serve_all(device, service)) {
                    Ok(thread) => others.push(thread),
                    Err(e) => tracing::warn!(error = %e, "one thread fewer reads requests"),
                }
            }
            let mut result = self.serve_all(&self.devices[0], service);
            for other in others {
                let ended =
                    other.join().map_err(|_| io::Error::other("a thread that reads requests panicked"));
                result = result.and(ended.flatten());
            }
            result
        })?;
        match self.panicked.into_inner() {
            true => Err(io::Error::other("the service of a request panicked")),
            false => Ok(()),
        }
    }

    fn serve_all(&self, device: &Arc<Device>, service: &dyn Service) -> io::Result<()> {
        let mut buffer = vec![0; self.buffer_bytes];
        loop {
            match rustix::io::read(device.descriptor(), &mut buffer) {
                Ok(len) => self.serve(device, &buffer[..len], service),
                // ENOENT: the request was interrupted before it could be read.
                Err(Errno::NOENT | Errno::INTR | Errno::AGAIN) => {}
                Err(Errno::NODEV) => return Ok(()),
                Err(e) => return Err(e.into()),
            }
        }
    }

    fn serve(&self, device: &Arc<Device>, bytes: &[u8], service: &dyn Service) {
        let header = match Header::parse(bytes) {
            Ok(header) => header,
            Err(e) => return tracing::error!(error = %e, "the kernel sent what is no request"),
        };
        let request = match Request::parse_body(header, bytes, self.dialect) {
            Ok(request) => request,
            Err(e) => return refuse(device, &header, e),
        };
        let unique = header.unique;
        match &request.operation {
            Operation::Interrupt { unique } => device.interrupt(*unique),
            Operation::Forget { lookups } => service.forget(header.ino, *lookups),
            Operation::BatchForget(forgets) => {
                forgets.iter().for_each(|(ino, lookups)| service.forget(ino, lookups));
            }
            _ if opcode::is_silent(header.opcode) => {}
            Operation::Destroy => device.answer(unique, 0, &[]),
            // It comes once, before the session.
            Operation::Init(_) => device.answer(unique, libc::EIO, &[]),
            _ => {
                let interrupts = device.interrupts();
                interrupts.begin(device.at(), unique);
                let reply = Reply::new(device.clone(), unique);
                // The reply answers EIO on its way out; others are served as before.
                if catch_unwind(AssertUnwindSafe(|| service.serve(&request, reply))).is_err() {
                    self.panicked.store(true, Ordering::Relaxed);
                    tracing::error!(
                        opcode = header.opcode,
                        ino = header.ino,
                        "the service of a request panicked"
                    );
                }
                interrupts.end(device.at(), unique);
            }
        }
    }
}

fn refuse(device: &Device, header: &Header, e: Malformed) {
    tracing::error!(opcode = header.opcode, error = %e, "the kernel sent a malformed request");
    if !opcode::is_silent(header.opcode) {
        device.answer(header.unique, libc::EIO, &[]);
    }
}

/// Waits for INIT. A kernel of a later major is told ours, and asks again.
fn read_offer(device: &OwnedFd) -> io::Result<(Header, Offer)> {
    let mut buffer = vec![0; 2 * REQUEST_OVERHEAD_BYTES];
    loop {
        let len = match rustix::io::read(device, &mut buffer) {
            Ok(len) => len,
            Err(Errno::NOENT | Errno::INTR | Errno::AGAIN) => continue,
            Err(e) => return Err(e.into()),
        };
        let request = Request::parse(&buffer[..len], Dialect::default()).map_err(io::Error::other)?;
        match request.operation {
            Operation::Init(offer) if offer.major > MAJOR => {
                write(device.as_fd(), request.header.unique, 0, &[Agreement::other_major().as_slice()])?;
            }
            Operation::Init(offer) => return Ok((request.header, offer)),
            _ => return Err(io::Error::other("the kernel's first request is not INIT")),
        }
    }
}
