//! Attaching a namespace to a directory, and detaching it: mount(2) and umount2(2), which only ever touch mounts of this file
//! system, whatever else lies on the path by then.
//!
//! One namespace has one FUSE mount per node, so that the kernel's caches are right; further mountpoints are bind mounts
//! of it ([`bind`]). The session ends when the last of them is gone and nothing of it is open.

mod check;
mod detached;
pub mod holders;
pub mod idmap;
pub mod options;
pub mod table;
pub mod trial;

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use granary_core::{Error, Kind, Result};
use rustix::fs::{OFlags, ResolveFlags};
use rustix::mount::UnmountFlags;
use tokio::sync::watch;

use crate::adapter::Adapter;
use crate::adapter::config::{self, Wanted};
use crate::adapter::metrics::Metrics;
use crate::keeper::table::HandleTable;
use crate::keeper::{Inheritance, Keepsake};
use crate::notify::Notifier;
use crate::proto::Flags;
use crate::proto::notification::INC_EPOCH_MINOR;
use crate::transport::{Carrier, Session, Transport, Ways, uring};
use crate::vfs::{Mode, Vfs};
use detached::Detached;
use options::MountOptions;

/// How far the kernel reads ahead of a sequential reader, in KiB. Its default of 128 cuts every buffered read to requests of 128
/// KiB; this keeps two of the largest requests (1 MiB) in flight.
const READ_AHEAD_KIB: u32 = 2048;
/// How long a stop waits for the kernel to end the session after the last unmount.
const STOP_WAIT: Duration = Duration::from_secs(10);
/// How often files that nobody uses are looked for in a `data` mount.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);

/// What a mount is made of.
#[derive(Debug)]
pub struct MountParts {
    /// Its options name the namespace, which becomes the mount's source.
    pub vfs: Arc<Vfs>,
    pub mountpoint: PathBuf,
    pub options: MountOptions,
    pub metrics: Arc<Metrics>,
    /// Where requests go that have to wait.
    pub runtime: tokio::runtime::Handle,
}

/// How a mount is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// `Busy`, naming who, when somebody uses it; it goes on then.
    Clean,
    /// It disappears from the tree now, and ends when nobody uses it any more.
    Lazy,
    /// It ends now; who uses it gets errors.
    Abort,
}

/// A namespace that is mounted. Dropping it without a stop detaches it.
#[derive(Debug)]
pub struct Mounted {
    path: PathBuf,
    major: u32,
    minor: u32,
    carrier: Carrier,
    kept: bool,
    vfs: Arc<Vfs>,
    metrics: Arc<Metrics>,
    /// Guards the session's thread, taken by who joins it.
    session: Mutex<Option<JoinHandle<()>>>,
    ended: watch::Receiver<bool>,
}

/// Mounts. Returns when the kernel and we have agreed and requests are being answered. Must not be called on the only thread of
/// `runtime`.
pub fn mount(parts: MountParts) -> Result<Mounted> {
    mount_kept(parts, None)
}

/// Told of a mount that is about to be served; a failure is the mount's.
pub type Keep<'a> = &'a dyn Fn(Keepsake) -> Result<()>;

/// The same, and another process can go on with it, where the kernel and the transport allow that: `keep` is given what it
/// needs before the first request is served.
pub fn mount_kept(parts: MountParts, keep: Option<Keep<'_>>) -> Result<Mounted> {
    let MountParts { vfs, mountpoint, options, metrics, runtime } = parts;
    let source = vfs.options().name.clone();
    let path = check::prepare(&mountpoint, &source, &options)?;
    let transport = choose(options.transport.unwrap_or_default())?;
    let device = check::open_device()?;
    attach(&device, &path, &source, &options)?;
    let found = table::at(&path)?.filter(table::Mount::is_ours);
    let Some(mount) = found else {
        return Err(Error::new(
            Kind::Bug,
            format!("{} is mounted and not in the mount table", path.display()),
        ));
    };

    let (ended_sender, ended) = watch::channel(false);
    let ways = Ways { transport, threads: options.threads };
    let mut kept = false;
    let started = greet(device, ways, &vfs, options.idmap).and_then(|mut session| {
        if let Some(keep) = keep.filter(|_| can_be_kept(&session)) {
            let table = HandleTable::create(vfs.options().handles_max as u64).map_err(io::Error::other)?;
            let mut descriptors = session.keep()?;
            descriptors.push(table.descriptor().map_err(io::Error::other)?);
            let (greeting, device) = (session.greeting(), (mount.major, mount.minor));
            keep(Keepsake { greeting, device, descriptors }).map_err(io::Error::other)?;
            vfs.remember_handles_in(table);
            kept = true;
        }
        let (carrier, anchor) = (session.carrier(), session.anchor());
        let adapter = Arc::new(Adapter::new(vfs.clone(), metrics.clone(), runtime.clone()));
        let thread = std::thread::Builder::new().name("granary-mount".to_owned()).spawn(move || {
            if let Err(e) = session.run(adapter) {
                tracing::error!(error = %e, "a mount's session ended with an error");
            }
            let _nobody_waits = ended_sender.send(true);
        })?;
        anchor.map_or(Ok(()), |anchor| anchor.cast(&path))?;
        Ok((thread, carrier))
    });
    let (thread, carrier) = started.map_err(|e| {
        let _best = detach(&mount, UnmountFlags::DETACH);
        Error::new(Kind::Io, format!("cannot mount on {}: the kernel's greeting failed", path.display()))
            .with_source(e)
    })?;
    raise_read_ahead(&mount);
    if vfs.mode() == Mode::Data {
        runtime.spawn(release_idle(vfs.clone(), ended.clone()));
    }
    let (major, minor) = (mount.major, mount.minor);
    Ok(Mounted { path, major, minor, carrier, kept, vfs, metrics, session: Mutex::new(Some(thread)), ended })
}

/// Requests come through `/dev/fuse`, and the kernel can send them again.
fn can_be_kept(session: &Session) -> bool {
    session.carrier() == Carrier::Dev && Flags(session.greeting().flags).has(Flags::HAS_RESEND)
}

/// Goes on with a mount that another process made. `parts` as of [`mount`]; nothing of it is mounted now.
///
/// Errors: those of opening again what programs have open; `Fenced` when the kernel's pages cannot be told from what others wrote
/// since.
pub async fn resume(parts: MountParts, inheritance: Inheritance) -> Result<Mounted> {
    let MountParts { vfs, mountpoint: path, metrics, runtime, .. } = parts;
    let Inheritance { greeting, device: (major, minor), descriptors, table, lost } = inheritance;
    let session = Session::inherited(descriptors, greeting);
    vfs.set_abilities(greeting.abilities());
    let notifier = Notifier::new(session.channel(), greeting.has_epochs());
    vfs.set_notifier(notifier.clone());
    vfs.inherit_session(lost)?;
    let records = vfs.inherit_handles(table.clone(), &|id| session.inherited_backing(id)).await?;
    vfs.inherit_locks().await;
    if greeting.abilities().passthrough {
        // The table itself is a file as good as any for this.
        session.close_unknown_backings(&table.backings(), table.descriptor()?.as_fd());
    }
    if lost {
        vfs.drop_all();
    }
    tracing::info!(
        namespace = vfs.options().name,
        handles = records,
        "going on with a mount and its open files"
    );
    if notifier.supported() {
        notifier.invalidate_entries()?;
    }
    session.ask_again().map_err(|e| Error::io("the kernel does not send its requests again", e))?;
    let (ended_sender, ended) = watch::channel(false);
    let carrier = session.carrier();
    let adapter = Arc::new(Adapter::new(vfs.clone(), metrics.clone(), runtime.clone()));
    let thread = std::thread::Builder::new()
        .name("granary-mount".to_owned())
        .spawn(move || {
            if let Err(e) = session.run(adapter) {
                tracing::error!(error = %e, "a mount's session ended with an error");
            }
            let _nobody_waits = ended_sender.send(true);
        })
        .map_err(|e| Error::io("cannot start the thread of a mount", e))?;
    if vfs.mode() == Mode::Data {
        runtime.spawn(release_idle(vfs.clone(), ended.clone()));
    }
    let session = Mutex::new(Some(thread));
    Ok(Mounted { path, major, minor, carrier, kept: true, vfs, metrics, session, ended })
}

/// Ends the connection of a mount that nobody goes on with: its programs get errors instead of waiting. By its number, which
/// must not be another mount's.
pub fn abort(device: (u32, u32)) -> Result<()> {
    for mount in table::of_device(device.0, device.1)?.iter().filter(|mount| mount.is_ours()) {
        // FORCE aborts the connection; who still has it open makes it busy.
        let _busy = rustix::mount::unmount(&mount.path, UnmountFlags::FORCE | UnmountFlags::NOFOLLOW);
        let _gone = rustix::mount::unmount(&mount.path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
    }
    Ok(())
}

/// Switches the kernel's rings on where they are wanted: it offers them to mounts that are made after that.
fn choose(wanted: Transport) -> Result<Transport> {
    match wanted {
        Transport::Dev => Ok(Transport::Dev),
        Transport::Uring => uring::enable().map(|()| Transport::Uring),
        Transport::Auto => Ok(uring::enable().map_or_else(
            |e| {
                tracing::info!(reason = %e, "requests come through /dev/fuse");
                Transport::Dev
            },
            |()| Transport::Auto,
        )),
    }
}

/// Agrees with the kernel on what each can do, and tells the [`Vfs`].
fn greet(device: std::fs::File, ways: Ways, vfs: &Vfs, idmap: bool) -> io::Result<Session> {
    let mut epochs = false;
    let session = Session::greet(OwnedFd::from(device), ways, |offer| {
        epochs = offer.is_at_least(INC_EPOCH_MINOR);
        let wanted = Wanted { mode: vfs.mode(), acl: vfs.options().acl, locks: vfs.serves_locks(), idmap };
        let (agreement, abilities) = config::negotiate(offer, wanted);
        vfs.set_abilities(abilities);
        agreement
    })?;
    vfs.set_notifier(Notifier::new(session.channel(), epochs));
    Ok(session)
}

fn attach(device: &std::fs::File, path: &Path, source: &str, options: &MountOptions) -> Result<()> {
    let data = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions",
        device.as_raw_fd()
    );
    let data = CString::new(data).map_err(|_| Error::new(Kind::Bug, "mount data with a NUL"))?;
    rustix::mount::mount(source, path, table::FS_TYPE, options.flags(), data.as_c_str())
        .map_err(|e| check::mount_failed(path, e.into()))
}

/// Not fatal: reading is slower without.
fn raise_read_ahead(mount: &table::Mount) {
    let path = format!("/sys/class/bdi/{}:{}/read_ahead_kb", mount.major, mount.minor);
    if let Err(e) = std::fs::write(&path, READ_AHEAD_KIB.to_string()) {
        tracing::warn!(path, error = %e, "cannot raise the read-ahead; large sequential reads are slower");
    }
}

async fn release_idle(vfs: Arc<Vfs>, ended: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(IDLE_INTERVAL);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = over(ended.clone()) => return,
        }
        vfs.release_idle().await;
    }
}

/// Returns when the session is over. A closed channel means that its thread is gone as well.
async fn over(mut ended: watch::Receiver<bool>) {
    let _closed = ended.wait_for(|ended| *ended).await;
}

impl Mounted {
    /// The mountpoint, absolute and without symlinks.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Device number of the file system, as `st_dev` shows it.
    pub fn device(&self) -> (u32, u32) {
        (self.major, self.minor)
    }

    /// Which way its requests come.
    pub fn carrier(&self) -> Carrier {
        self.carrier
    }

    /// Whether another process can go on with it.
    pub fn is_kept(&self) -> bool {
        self.kept
    }

    pub fn vfs(&self) -> &Arc<Vfs> {
        &self.vfs
    }

    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// All its mountpoints, bind mounts included, the last made first.
    pub fn mountpoints(&self) -> Result<Vec<table::Mount>> {
        if self.has_ended() {
            // The device's number may be another mount's by now.
            return Ok(Vec::new());
        }
        Ok(table::of_device(self.major, self.minor)?.into_iter().filter(table::Mount::is_ours).collect())
    }

    /// The way to the kernel's caches of this mount.
    pub fn notifier(&self) -> Option<Notifier> {
        self.vfs.notifier()
    }

    pub fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// Returns when the session is over: by [`Mounted::stop`], or because somebody unmounted it. Then calls
    /// [`Mounted::finish`].
    pub async fn wait(&self) -> Result<()> {
        over(self.ended.clone()).await;
        self.finish().await
    }

    /// Unmounts all its mountpoints and waits until the session is over and every file is given back. With
    /// [`Stop::Lazy`] it does not wait for programs; use [`Mounted::wait`].
    pub async fn stop(&self, how: Stop) -> Result<()> {
        let mounts = self.mountpoints()?;
        for mount in &mounts {
            match how {
                Stop::Clean => detach(mount, UnmountFlags::empty())?,
                Stop::Lazy => detach(mount, UnmountFlags::DETACH)?,
                Stop::Abort => {
                    // FORCE aborts the connection, so that nobody hangs; who still has it open makes it busy.
                    let _busy = detach(mount, UnmountFlags::FORCE);
                    detach(mount, UnmountFlags::DETACH)?;
                }
            }
        }
        if how == Stop::Abort && mounts.is_empty() {
            self.abort_connection();
        }
        if how == Stop::Lazy && !self.has_ended() {
            return Ok(());
        }
        if tokio::time::timeout(STOP_WAIT, over(self.ended.clone())).await.is_err() {
            return Err(Error::new(
                Kind::Busy,
                format!(
                    "{} is unmounted here and still used from another mount namespace (a container?); end that first",
                    self.path.display()
                ),
            ));
        }
        self.finish().await
    }

    /// For a mount that was detached before, is still used, and has no mountpoint left to force. Never after a forced
    /// unmount: that ends the connection, and its number may be another mount's by now.
    fn abort_connection(&self) {
        if !self.has_ended() {
            // Absent when fusectl is not mounted, or the connection ended meanwhile.
            let _absent = std::fs::write(format!("/sys/fs/fuse/connections/{}/abort", self.minor), b"1");
        }
    }

    /// Joins the session's threads and gives back what was left open.
    async fn finish(&self) -> Result<()> {
        let thread = self.session.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            return Err(Error::new(Kind::Bug, format!("the session of {} panicked", self.path.display())));
        }
        self.vfs.release_all().await;
        Ok(())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if !self.has_ended() {
            for mount in self.mountpoints().unwrap_or_default() {
                let _best = detach(&mount, UnmountFlags::DETACH);
            }
        }
    }
}

/// Unmounts exactly this mount, if it is still the one that is seen at its path.
fn detach(mount: &table::Mount, flags: UnmountFlags) -> Result<()> {
    let path = &mount.path;
    match table::at(path)? {
        None => return Ok(()),
        Some(seen) if seen.id != mount.id => {
            return Err(Error::new(
                Kind::Busy,
                format!(
                    "cannot unmount {}: {} ({}) is mounted over it; unmount that first",
                    path.display(),
                    seen.source,
                    seen.fs_type
                ),
            ));
        }
        Some(_) => {}
    }
    match rustix::mount::unmount(path, flags | UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::BUSY) => Err(Error::new(
            Kind::Busy,
            format!(
                "cannot unmount {}: it is used by {}; end them, or unmount lazily",
                path.display(),
                holders::list(&holders::of(mount))
            ),
        )),
        Err(rustix::io::Errno::PERM) => Err(Error::new(
            Kind::Permission,
            format!("cannot unmount {}: it needs CAP_SYS_ADMIN; run as root", path.display()),
        )),
        Err(e) => Err(Error::io(format!("cannot unmount {}", path.display()), io::Error::from(e))),
    }
}

/// Unmounts what is seen at `path`, if it is a mount of ours. `lazy`: it disappears now and ends when nobody uses it.
pub fn unmount(path: &Path, lazy: bool) -> Result<()> {
    let path = check::absolute(path)?;
    match table::at(&path)? {
        Some(mount) if mount.is_ours() => {
            detach(&mount, if lazy { UnmountFlags::DETACH } else { UnmountFlags::empty() })
        }
        Some(mount) => Err(Error::new(
            Kind::Invalid,
            format!(
                "cannot unmount {}: {} ({}) is mounted there, not a namespace; use umount",
                path.display(),
                mount.source,
                mount.fs_type
            ),
        )),
        None => Err(Error::new(
            Kind::Invalid,
            format!(
                "cannot unmount {}: no namespace is mounted there; `granary status` lists mounts",
                path.display()
            ),
        )),
    }
}

/// Changes the flags of the mount of the namespace `source` at `path`: `ro` and `rw`, `suid`, `dev`, `exec`, and when the last
/// access is noted. As with remounts of any file system, its other mountpoints become read-only or writable with it.
///
/// Errors: `Invalid` where that namespace is not mounted; `Busy` while a file is open for writing, or the kernel is still
/// releasing a removed one; `Permission`.
pub fn remount(path: &Path, source: &str, options: &MountOptions) -> Result<()> {
    let path = check::absolute(path)?;
    let mounted = source_of(&path)?;
    if mounted != source {
        return Err(Error::new(
            Kind::Invalid,
            format!("cannot remount {} as {source}: {mounted} is mounted there", path.display()),
        ));
    }
    rustix::mount::mount_remount(&path, options.flags(), "").map_err(|e| match e {
        rustix::io::Errno::BUSY => Error::new(
            Kind::Busy,
            format!(
                "cannot remount {}: files are open for writing; close them, and try again",
                path.display()
            ),
        ),
        rustix::io::Errno::PERM => Error::new(
            Kind::Permission,
            format!("cannot remount {}: it needs CAP_SYS_ADMIN; run as root", path.display()),
        ),
        e => Error::io(format!("cannot remount {}", path.display()), io::Error::from(e)),
    })
}

/// Shows the mount at `from` at `to` as well: how a namespace is mounted a second time on a node. Of `options` the mode is
/// the first mount's, and the rest may be stricter.
pub fn bind(from: &Path, to: &Path, options: &MountOptions) -> Result<PathBuf> {
    let from = check::absolute(from)?;
    let source = source_of(&from)?;
    bind_as(&from, &from, &source, to, options)
}

/// Shows one tree of the mount at `from`, a path relative to it, at `to`. No symbolic link on the way is followed: whoever writes
/// in the namespace cannot make it lead elsewhere.
///
/// Errors: `NotFound`, `NotDirectory`; as of [`bind`].
pub fn bind_tree(from: &Path, tree: &str, to: &Path, options: &MountOptions) -> Result<PathBuf> {
    let from = check::absolute(from)?;
    let source = source_of(&from)?;
    let cannot = |e: rustix::io::Errno| {
        let kind = match e {
            rustix::io::Errno::NOENT => Kind::NotFound,
            rustix::io::Errno::NOTDIR => Kind::NotDirectory,
            // What ResolveFlags forbid.
            rustix::io::Errno::LOOP | rustix::io::Errno::XDEV => Kind::Invalid,
            _ => Kind::Io,
        };
        Error::new(
            kind,
            format!(
                "cannot mount the tree {tree:?} of {source}: {e}; give a directory of it, without links on the way"
            ),
        )
    };
    let top = rustix::fs::open(
        &from,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .map_err(cannot)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let tree = rustix::fs::openat2(&top, tree, flags, rustix::fs::Mode::empty(), resolve).map_err(cannot)?;
    bind_as(&from, Path::new(&format!("/proc/self/fd/{}", tree.as_raw_fd())), &source, to, options)
}

/// The namespace that is mounted there.
fn source_of(from: &Path) -> Result<String> {
    match table::at(from)? {
        Some(mount) if mount.is_ours() => Ok(mount.source),
        _ => Err(Error::new(
            Kind::Invalid,
            format!("cannot mount {}: it is no mounted namespace", from.display()),
        )),
    }
}

/// `top`: where all of the namespace is mounted.
fn bind_as(top: &Path, from: &Path, source: &str, to: &Path, options: &MountOptions) -> Result<PathBuf> {
    let to = check::prepare(to, source, options)?;
    if !options.ids.is_empty() {
        idmap::bind(top, from, source, &to, options)?;
        return Ok(to);
    }
    let cannot = |e| check::mount_failed(&to, e);
    let tree = Detached::of(from).map_err(cannot)?;
    tree.set(options, None).map_err(cannot)?;
    tree.attach(&to).map_err(cannot)?;
    Ok(to)
}
