//! A connection from its greeting to its end, whichever way its requests come.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};

use rustix::io::Errno;

use super::dev::{Connection, Device, write};
use super::dispatch::Dispatcher;
use super::uring::{self, Rings};
use super::{BackingId, Carrier, Channel, Service, Transport};
use crate::keeper::Greeting;
use crate::proto::notification;
use crate::proto::request::Dialect;
use crate::proto::request::Header;
use crate::proto::{Agreement, Flags, MAJOR, Offer, Operation, REQUEST_OVERHEAD_BYTES, Request};

/// How requests are to come.
#[derive(Clone, Copy, Debug)]
pub struct Ways {
    pub transport: Transport,
    /// Threads that read `/dev/fuse`, where they come through it.
    pub threads: usize,
}

/// Opens that are between the registration of a stage file and the noting of its handle at one time: fewer than threads.
const BACKINGS_UNDER_WAY_MAX: i32 = 1024;

/// A connection that is agreed on, before requests are served.
#[derive(Debug)]
pub struct Session {
    connection: Arc<Connection>,
    devices: Vec<Arc<Device>>,
    dialect: Dialect,
    buffer_bytes: usize,
    rings: Option<Rings>,
    greeting: Greeting,
    /// Another process may go on with it.
    kept: bool,
}

impl Session {
    /// Answers the kernel's INIT on the descriptor of a fresh mount: `agree` says what is wanted of its offer.
    pub fn greet(
        device: OwnedFd,
        ways: Ways,
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
        let mut agreement = agree(&offer);
        let rings = prepare_rings(ways.transport, &offer, &agreement)?;
        let threads = if rings.is_some() { 1 } else { ways.threads.max(1) };
        if rings.is_some() {
            agreement.flags = agreement.flags | Flags::OVER_IO_URING;
        }
        let greeting =
            Greeting { minor: offer.minor, max_write: agreement.max_write, flags: agreement.flags.0 };
        let connection = Connection::new(device, threads, rings.as_ref().map_or(0, Rings::threads))?;
        write(connection.first(), header.unique, 0, &[agreement.encode().as_slice()])?;
        Ok(Session {
            devices: Device::all(&connection),
            connection,
            dialect: dialect_of(greeting),
            buffer_bytes: agreement.max_write as usize + REQUEST_OVERHEAD_BYTES,
            rings,
            greeting,
            kept: false,
        })
    }

    /// One that another process greeted.
    pub fn inherited(descriptors: Vec<OwnedFd>, greeting: Greeting) -> Session {
        let connection = Connection::inherited(descriptors);
        Session {
            devices: Device::all(&connection),
            connection,
            dialect: dialect_of(greeting),
            buffer_bytes: greeting.max_write as usize + REQUEST_OVERHEAD_BYTES,
            rings: None,
            greeting,
            kept: true,
        }
    }

    pub fn greeting(&self) -> Greeting {
        self.greeting
    }

    /// Duplicates of all its descriptors, for the keeper, with which another process may go on.
    pub(crate) fn keep(&mut self) -> io::Result<Vec<OwnedFd>> {
        self.kept = true;
        self.connection.duplicates()
    }

    /// Files that another process registered.
    pub(crate) fn inherited_backing(&self, id: i32) -> Arc<BackingId> {
        Arc::new(BackingId::inherited(&self.connection, id))
    }

    /// Ends registrations that another process made and that no handle tells of: it ended between the two. The kernel numbers
    /// them in a cycle, so they are among the last before the number that `file` is given now.
    pub(crate) fn close_unknown_backings(&self, known: &[i32], file: BorrowedFd<'_>) {
        let next = match self.connection.open_backing(file) {
            Ok(next) => next,
            Err(e) => {
                return tracing::debug!(error = %e, "stage files that the kernel holds for nobody stay with it");
            }
        };
        let first = next.saturating_sub(BACKINGS_UNDER_WAY_MAX).max(1);
        for id in (first..=next).filter(|id| known.binary_search(id).is_err()) {
            self.connection.close_backing(id);
        }
    }

    /// Has the kernel send again what was read and not answered.
    pub(crate) fn ask_again(&self) -> io::Result<()> {
        self.devices[0].notify(notification::RESEND, &[])
    }

    /// The way that was agreed on.
    pub fn carrier(&self) -> Carrier {
        if self.rings.is_some() { Carrier::Uring } else { Carrier::Dev }
    }

    /// Over rings: to be [cast](uring::Anchor::cast) as soon as the session runs.
    pub fn anchor(&self) -> Option<Arc<uring::Anchor>> {
        self.rings.as_ref().map(|rings| rings.anchor().clone())
    }

    /// For notifications; ends with the session.
    pub(crate) fn channel(&self) -> Weak<dyn Channel> {
        let device: Arc<dyn Channel> = self.devices[0].clone();
        Arc::downgrade(&device)
    }

    /// Whether the kernel takes a file for passthrough.
    pub(crate) fn try_backing(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        BackingId::register(&self.connection, file).map(drop)
    }

    /// Serves requests, on this thread and others, until the file system is unmounted.
    pub fn run(self, service: Arc<dyn Service>) -> io::Result<()> {
        let Session { connection, devices, dialect, buffer_bytes, rings, kept, .. } = self;
        let buffer = move || if kept { present(buffer_bytes) } else { vec![0; buffer_bytes] };
        let anchor = rings.as_ref().map(|rings| rings.anchor().clone());
        let dispatcher = Arc::new(Dispatcher::new(connection, service, dialect, anchor));
        let rings = rings.map(|rings| rings.start(&dispatcher, &devices[0])).transpose();
        let stop = match &rings {
            Ok(rings) => rings.as_ref().map(|rings| rings.stop().clone()),
            Err(_) => None,
        };
        let served = match &rings {
            Ok(_) => serve_devices(&devices, &dispatcher, buffer, stop.as_deref()),
            Err(_) => Ok(()),
        };
        let result = match rings {
            Ok(Some(rings)) => served.and(rings.join()),
            Ok(None) => served,
            Err(e) => Err(e),
        };
        result?;
        match dispatcher.has_panicked() {
            true => Err(io::Error::other("the service of a request panicked")),
            false => Ok(()),
        }
    }
}

fn dialect_of(greeting: Greeting) -> Dialect {
    Dialect { setxattr_ext: Flags(greeting.flags).has(Flags::SETXATTR_EXT) }
}

/// Memory of which every page is there from the start. The kernel copies a request into it within read(2); where it has to find a
/// page first and the process is killed meanwhile, it does not keep the request for the next process but fails it with EIO
/// (`fuse_dev_do_read` in its `fs/fuse/dev.c`).
fn present(bytes: usize) -> Vec<u8> {
    vec![u8::MAX; bytes] // written, where zeros would be pages that are made when they are touched
}

/// One thread reads each descriptor, this one the first.
fn serve_devices(
    devices: &[Arc<Device>],
    dispatcher: &Dispatcher,
    buffer: impl Fn() -> Vec<u8> + Copy + Send,
    stop: Option<&uring::Stop>,
) -> io::Result<()> {
    std::thread::scope(|scope| {
        let mut others = Vec::new();
        for device in &devices[1..] {
            let name = format!("granary-fuse-{}", device.at());
            let thread = std::thread::Builder::new().name(name);
            match thread.spawn_scoped(scope, move || device.serve_all(dispatcher, buffer(), stop)) {
                Ok(thread) => others.push(thread),
                Err(e) => tracing::warn!(error = %e, "one thread fewer reads requests"),
            }
        }
        let mut result = devices[0].serve_all(dispatcher, buffer(), stop);
        for other in others {
            let ended = other.join().map_err(|_| io::Error::other("a thread that reads requests panicked"));
            result = result.and(ended.flatten());
        }
        result
    })
}

/// Rings, if they are wanted and the kernel has them. They are made before they are agreed on: from then on all requests wait
/// for them.
fn prepare_rings(transport: Transport, offer: &Offer, agreement: &Agreement) -> io::Result<Option<Rings>> {
    let prepared = match transport {
        Transport::Dev => return Ok(None),
        _ if !offer.flags.has(Flags::OVER_IO_URING) => Err(io::Error::other(uring::NOT_OFFERED)),
        _ => Rings::prepare(agreement),
    };
    match (prepared, transport) {
        (Ok(rings), _) => Ok(Some(rings)),
        (Err(e), Transport::Uring) => Err(e),
        (Err(e), _) => {
            tracing::info!(reason = %e, "requests come through /dev/fuse");
            Ok(None)
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_of_a_kept_mounts_buffers_are_there_before_the_kernel_writes_to_them() {
        let page = rustix::param::page_size();
        let buffer = present((1 << 20) + REQUEST_OVERHEAD_BYTES);
        let first = buffer.as_ptr().addr().next_multiple_of(page) - buffer.as_ptr().addr();
        let pages = (buffer.len() - first) / page;
        let mut there = vec![0; pages];
        // SAFETY: the range lies in `buffer`, and `there` has a byte for each page of it.
        let told = unsafe {
            libc::mincore(buffer.as_ptr().add(first).cast_mut().cast(), pages * page, there.as_mut_ptr())
        };
        assert_eq!(told, 0, "{}", io::Error::last_os_error());
        assert!(there.iter().all(|page| page & 1 == 1), "{there:?}");
    }
}
