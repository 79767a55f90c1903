//! Mounting a namespace through FUSE. [`vfs`] is what each file system call means, with no FUSE type in it; [`adapter`]
//! turns requests into calls of it; [`proto`] is the kernel's words and [`transport`] their way here and back; [`mount`]
//! attaches and detaches.
//!
//! ```text
//! kernel <--/dev/fuse--> transport --proto--> adapter --> vfs --> granary-cache (bytes)
//!    ^                                                     | \--> granary-meta (names, attributes)
//!    \-------------------------- notify <------------------/
//! ```
//! A call is answered on the thread that read it whenever nothing has to be waited for; only then does it become a task.

pub mod adapter;
pub mod keeper;
pub mod mount;
pub mod notify;
pub mod proto;
pub mod transport;
pub mod vfs;

pub use adapter::histogram::Counts;
pub use adapter::metrics::{Metrics, Op};
pub use mount::options::MountOptions;
pub use mount::{MountParts, Mounted, Stop, bind, bind_tree, mount, mount_kept, remount, resume, unmount};
pub use notify::Notifier;
pub use transport::Transport;
pub use vfs::{Atime, Cx, Mode, Vfs, VfsOptions};
