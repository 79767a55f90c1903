//! The words every part of Granary shares: ids, errors with an errno, limits, the clock and the byte budget.
//! Nothing here does any I/O.

pub mod budget;
pub mod calendar;
pub mod clock;
pub mod codec;
pub mod compression;
pub mod crc32c;
pub mod error;
pub mod failpoint;
pub mod id;
pub mod limits;
pub mod name;
pub mod policy;
pub mod waits;

pub use budget::{ByteBudget, BytePermit};
pub use clock::{Clock, SystemClock, TestClock, Timestamp};
pub use compression::Codec;
pub use crc32c::{crc32c, crc32c_append, crc32c_combine};
pub use error::{Error, Kind, Result};
pub use failpoint::Failpoint;
pub use id::{FileKey, Ino, NamespaceId, NodeId, ObjectId, ObjectKind, SessionId};
pub use name::{EntryName, NamespaceKind, NamespaceName};
