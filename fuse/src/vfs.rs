//! What each file system call means. No FUSE type in here: calls come as plain values, answers are plain values, so that
//! another transport, or a test, can do what the adapter does.
//!
//! Two modes, chosen per mount:
//!
//! | mode | open files | page cache | for |
//! |---|---|---|---|
//! | `work` | handles ([`handles`]) and inodes in use ([`nodes`]) | kept per version ([`pages`]), past it by passthrough ([`iomode`]) | home directories, checkpoints |
//! | `data` | none: the kernel never tells of OPEN, FLUSH, RELEASE; files in use are remembered ([`recent`]) | always kept | data sets |
//!
//! A namespace has one kernel mount per node. Where that is the only node, the kernel's caches are right by construction,
//! entries and attributes are valid for ever, and the offset of an appending write is the kernel's. Where there are others,
//! [`shared`] says what holds, and [`validity`] what the kernel may keep.

pub mod handles;
pub mod iomode;
pub mod nodes;
pub mod pages;
pub mod predict;
pub mod recent;
pub mod rights;

mod announce;
mod atime;
mod attributes;
mod copy;
mod files;
pub mod inherit;
mod locks;
mod names;
mod paths;
mod privileges;
mod shared;
mod stateless;
mod tmpfile;
mod validity;
mod xattrs;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use granary_cache::Tree;
use granary_core::error::fail;
use granary_core::{Clock, Ino, Kind, Result, Timestamp};
use granary_meta::{Attr, FileType, Metadata};

pub use announce::Reading;
pub use atime::Atime;
pub use copy::CopyRange;
pub use files::{Access, WriteFlags};
use handles::Handles;
use locks::Locks;
use nodes::{Grant, Nodes};
use pages::Pages;
use predict::{Circumstances, Predictor};
use recent::Recent;
use stateless::References;
pub use validity::{At, Gate, Validity};
pub use xattrs::XattrFlags;

use crate::keeper::table::HandleTable;
use crate::notify::Notifier;

/// How long the kernel may keep entries and attributes, absent ones too: for ever, since it makes every change itself.
pub const VALID: Duration = Duration::from_secs(30 * 86_400);
/// Directory entries asked of the metadata at once.
pub const ENTRIES_AT_ONCE: usize = 64;

/// Who calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cx {
    pub uid: u32,
    pub gid: u32,
    pub pid: u32,
    /// Still to be taken off the modes of what is made; 0 where the kernel did that.
    pub umask: u32,
}

/// How a mount serves open files; see the module's table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    #[default]
    Work,
    Data,
}

/// Settings of one mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VfsOptions {
    pub mode: Mode,
    pub read_only: bool,
    /// When reading a file sets its atime (`work`).
    pub atime: Atime,
    /// Keep access control lists, where the kernel knows them.
    pub acl: bool,
    /// The namespace's name, for messages.
    pub name: String,
    /// Open files at once (`work`).
    pub handles_max: usize,
    /// Files kept loaded without being open (`data`).
    pub recent_files_max: usize,
    /// Such a file is released this long after its last use (`data`).
    pub recent_idle_ms: u64,
}

impl Default for VfsOptions {
    fn default() -> VfsOptions {
        VfsOptions {
            mode: Mode::Work,
            read_only: false,
            atime: Atime::Never,
            acl: true,
            name: String::new(),
            handles_max: 1 << 20,
            recent_files_max: 1024,
            recent_idle_ms: 2_000,
        }
    }
}

/// What the kernel can do, found out when the mount is made. Nothing is assumed before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelAbilities {
    /// Files may be read and written by the kernel itself (Linux 6.9).
    pub passthrough: bool,
    /// Handles past the page cache may be mapped shared (Linux 6.6).
    pub direct_map: bool,
    /// It checks access control lists, and leaves the umask to us.
    pub acl: bool,
}

/// How the kernel is to do the I/O of a handle.
#[derive(Clone, Debug)]
pub enum Io {
    /// Through the page cache. `keep`: the pages that it has are right.
    Cached { keep: bool },
    /// Every call is a request.
    Direct,
    /// By the kernel itself; if it refuses, see [`Vfs::passthrough_refused`].
    Passthrough(Grant),
}

/// An open file, for the kernel.
#[derive(Clone, Debug)]
pub struct Opened {
    pub fh: u64,
    pub io: Io,
    /// Whether close is to ask for errors of earlier writes. Where none can be pending that costs a round trip for nothing.
    pub flush: bool,
}

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    Now,
    At(Timestamp),
}

/// What `setattr` is to change; `None` stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    /// The handle that the size is changed through.
    pub fh: Option<u64>,
    pub atime: Option<SetTime>,
    pub mtime: Option<SetTime>,
}

/// One line of a directory listing, `.` and `..` included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: Vec<u8>,
    pub ino: Ino,
    pub kind: FileType,
    /// Where the listing goes on after this entry.
    pub next: u64,
    pub attr: Option<Attr>,
}

impl Entry {
    /// `.` and `..` are no lookups of what they name.
    pub fn is_dots(&self) -> bool {
        self.name == b"." || self.name == b".."
    }
}

/// What `statfs` says, in bytes and inodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    pub bytes: u64,
    pub bytes_free: u64,
    pub inodes: u64,
    pub inodes_free: u64,
}

/// One mount's file system.
pub struct Vfs {
    meta: Arc<dyn Metadata>,
    tree: Arc<Tree>,
    clock: Arc<dyn Clock>,
    options: VfsOptions,
    handles: Handles,
    nodes: Nodes,
    pages: Pages,
    /// Guards the predictor's tables, for a few instructions.
    predictor: Mutex<Predictor>,
    recent: Recent,
    references: References,
    passthrough: AtomicBool,
    direct_map: AtomicBool,
    acl: AtomicBool,
    locks: Locks,
    /// Other nodes change the namespace too.
    many: bool,
    /// Guards nothing but the order of answers and recalls: see [`Gate`].
    gate: RwLock<()>,
    /// Guards the way to the kernel's caches, while it is copied.
    notifier: Mutex<Option<Notifier>>,
    /// Where open handles are remembered for the next process, if they are.
    kept: OnceLock<Arc<HandleTable>>,
}

impl fmt::Debug for Vfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vfs")
            .field("options", &self.options)
            .field("open", &self.handles.len())
            .finish_non_exhaustive()
    }
}

impl Vfs {
    pub fn new(
        meta: Arc<dyn Metadata>,
        tree: Arc<Tree>,
        mut options: VfsOptions,
        clock: Arc<dyn Clock>,
    ) -> Arc<Vfs> {
        let many = meta.is_shared();
        options.mode = Vfs::mode_for(many, options.mode, options.read_only);
        let vfs = Arc::new(Vfs {
            handles: Handles::new(options.handles_max),
            nodes: Nodes::default(),
            pages: Pages::default(),
            predictor: Mutex::default(),
            recent: Recent::new(options.recent_files_max),
            references: References::default(),
            passthrough: AtomicBool::new(false),
            direct_map: AtomicBool::new(false),
            acl: AtomicBool::new(false),
            locks: Locks::default(),
            many,
            gate: RwLock::default(),
            notifier: Mutex::default(),
            kept: OnceLock::new(),
            meta,
            tree,
            clock,
            options,
        });
        vfs.watch_leases();
        vfs
    }

    pub fn options(&self) -> &VfsOptions {
        &self.options
    }

    /// How a mount is served that asks for a mode. Where others write too the kernel must tell of opens: without, a write holds
    /// its pages while it waits for the lease, and two nodes could wait for each other; an append goes to where the kernel
    /// takes the end to be.
    pub fn mode_for(shared: bool, wanted: Mode, read_only: bool) -> Mode {
        if shared && !read_only { Mode::Work } else { wanted }
    }

    pub fn mode(&self) -> Mode {
        self.options.mode
    }

    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    pub fn tree(&self) -> &Arc<Tree> {
        &self.tree
    }

    pub fn set_abilities(&self, kernel: KernelAbilities) {
        let passthrough = kernel.passthrough && self.options.mode == Mode::Work && !self.many;
        self.passthrough.store(passthrough, Ordering::Relaxed);
        self.direct_map.store(kernel.direct_map, Ordering::Relaxed);
        self.acl.store(kernel.acl, Ordering::Relaxed);
    }

    /// Whether modes come without the umask applied.
    pub fn applies_umask(&self) -> bool {
        self.acl.load(Ordering::Relaxed)
    }

    /// Whether access control lists are kept.
    pub fn keeps_acls(&self) -> bool {
        self.acl.load(Ordering::Relaxed)
    }

    /// Where to tell the kernel what it must not keep; set when the mount is made, before the first request.
    pub fn set_notifier(&self, notifier: Notifier) {
        *self.notifier.lock().unwrap_or_else(PoisonError::into_inner) = Some(notifier);
    }

    pub fn notifier(&self) -> Option<Notifier> {
        self.notifier.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether files are given to the kernel itself.
    pub fn passes_through(&self) -> bool {
        self.passthrough.load(Ordering::Relaxed)
    }

    /// Files in use: open handles, and files kept loaded without one.
    pub fn files_in_use(&self) -> usize {
        self.handles.len() + self.recent.len()
    }

    /// Gives back every open and every loaded file: after the last request of the mount.
    pub async fn release_all(&self) {
        for fh in self.handles.all() {
            self.release(fh, None).await;
        }
        self.release_recent().await;
    }

    fn writable(&self) -> Result<()> {
        if self.options.read_only {
            return fail(Kind::ReadOnly, "the mount is read-only");
        }
        Ok(())
    }

    /// The attributes as they are now, held state included.
    fn current(&self, mut attr: Attr) -> Attr {
        if attr.kind == FileType::File {
            self.tree.overlay(&mut attr);
        }
        attr
    }

    fn foresee(&self, dir: Ino, pid: u32, name: &[u8]) -> (Circumstances, bool) {
        let what = Predictor::circumstances(dir, pid, name);
        let large = self.predictor.lock().unwrap_or_else(PoisonError::into_inner).large(&what);
        (what, large)
    }

    fn learn(&self, what: &Circumstances, size: u64) {
        let large = size > self.tree.small_file_bytes_max();
        self.predictor.lock().unwrap_or_else(PoisonError::into_inner).learn(what, large);
    }
}
