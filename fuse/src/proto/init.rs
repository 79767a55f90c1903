//! INIT: what the kernel can do, and what of that is wanted.
//!
//! | offset | size | offer (request) | | offset | size | agreement (answer, 64 bytes) |
//! |---|---|---|---|---|---|---|
//! | 0 | 4 | major | | 0 | 4 | major |
//! | 4 | 4 | minor | | 4 | 4 | minor |
//! | 8 | 4 | longest read-ahead, bytes | | 8 | 4 | longest read-ahead, bytes |
//! | 12 | 4 | flags 0..32 | | 12 | 4 | flags 0..32 |
//! | 16 | 4 | flags 32..64, with INIT_EXT | | 16 | 2 | requests in the background at most |
//! | 20 | 44 | unused | | 18 | 2 | ... from where the device counts as congested |
//! | | | (before 7.36 it ends at 16) | | 20 | 4 | longest WRITE, bytes |
//! | | | | | 24 | 4 | granularity of times, ns |
//! | | | | | 28 | 2 | pages in a request at most, with MAX_PAGES |
//! | | | | | 30 | 2 | map alignment (DAX), 0 |
//! | | | | | 32 | 4 | flags 32..64, with INIT_EXT |
//! | | | | | 36 | 4 | depth of stacking, with PASSTHROUGH |
//! | | | | | 40 | 2 | timeout of requests in seconds, with REQUEST_TIMEOUT |
//! | | | | | 42 | 22 | unused |

use std::ops::{BitAnd, BitOr};

use super::wire::{Body, Cursor, Malformed};
use super::{MAJOR, MINOR, MINOR_MIN};

/// A set of abilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u64);

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $bit:literal),* $(,)?) => {
        impl Flags {
            $($(#[$doc])* pub const $name: Flags = Flags(1 << $bit);)*
        }
    };
}

flags! {
    ASYNC_READ = 0,
    /// fcntl locks are asked for here, not kept by the kernel.
    POSIX_LOCKS = 1,
    /// O_TRUNC comes with OPEN, instead of a SETATTR before it.
    ATOMIC_O_TRUNC = 3,
    EXPORT_SUPPORT = 4,
    BIG_WRITES = 5,
    /// Modes come without the umask applied.
    DONT_MASK = 6,
    SPLICE_WRITE = 7,
    SPLICE_MOVE = 8,
    SPLICE_READ = 9,
    /// The same for flock.
    FLOCK_LOCKS = 10,
    HAS_IOCTL_DIR = 11,
    AUTO_INVAL_DATA = 12,
    DO_READDIRPLUS = 13,
    READDIRPLUS_AUTO = 14,
    ASYNC_DIO = 15,
    WRITEBACK_CACHE = 16,
    NO_OPEN_SUPPORT = 17,
    PARALLEL_DIROPS = 18,
    HANDLE_KILLPRIV = 19,
    POSIX_ACL = 20,
    ABORT_ERROR = 21,
    MAX_PAGES = 22,
    CACHE_SYMLINKS = 23,
    NO_OPENDIR_SUPPORT = 24,
    EXPLICIT_INVAL_DATA = 25,
    MAP_ALIGNMENT = 26,
    SUBMOUNTS = 27,
    HANDLE_KILLPRIV_V2 = 28,
    /// SETXATTR has flags of its own.
    SETXATTR_EXT = 29,
    /// Flags 32..64 are given.
    INIT_EXT = 30,
    SECURITY_CTX = 32,
    HAS_INODE_DAX = 33,
    CREATE_SUPP_GROUP = 34,
    HAS_EXPIRE_ONLY = 35,
    DIRECT_IO_ALLOW_MMAP = 36,
    PASSTHROUGH = 37,
    NO_EXPORT_SUPPORT = 38,
    HAS_RESEND = 39,
    ALLOW_IDMAP = 40,
    OVER_IO_URING = 41,
    REQUEST_TIMEOUT = 42,
}

impl Flags {
    /// Whether all of `other` are in it.
    pub fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    fn low(self) -> u32 {
        self.0 as u32
    }

    fn high(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

impl BitOr for Flags {
    type Output = Flags;
    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

impl BitAnd for Flags {
    type Output = Flags;
    fn bitand(self, other: Flags) -> Flags {
        Flags(self.0 & other.0)
    }
}

/// What the kernel can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    pub major: u32,
    pub minor: u32,
    pub max_readahead: u32,
    pub flags: Flags,
}

impl Offer {
    pub(super) fn parse(body: &mut Cursor<'_>) -> Result<Offer, Malformed> {
        let (major, minor) = (body.u32()?, body.u32()?);
        if body.is_empty() {
            // A kernel of another major says no more.
            return Ok(Offer { major, minor, max_readahead: 0, flags: Flags::default() });
        }
        let (max_readahead, low) = (body.u32()?, body.u32()?);
        let mut flags = Flags(u64::from(low));
        if !body.is_empty() {
            let high = body.u32()?;
            if flags.has(Flags::INIT_EXT) {
                flags = flags | Flags(u64::from(high) << 32);
            }
            // A newer kernel may say more; it does so in what was unused.
            body.skip(body.len())?;
        }
        Ok(Offer { major, minor, max_readahead, flags })
    }

    /// Whether its messages are understood.
    pub fn is_understood(&self) -> bool {
        self.major == MAJOR && self.minor >= MINOR_MIN
    }

    /// Whether the kernel has notifications of the version `minor`.
    pub fn is_at_least(&self, minor: u32) -> bool {
        self.major == MAJOR && self.minor >= minor
    }
}

/// What is wanted of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    pub flags: Flags,
    pub max_readahead: u32,
    /// Requests that nobody waits for (read-ahead, RELEASE) in flight at once.
    pub max_background: u16,
    /// Longest WRITE, in bytes.
    pub max_write: u32,
    /// How many file systems may be stacked for passthrough.
    pub max_stack_depth: u32,
}

impl Agreement {
    /// Longest request in pages.
    pub fn max_pages(&self) -> u16 {
        self.max_write.div_ceil(4096) as u16
    }

    pub fn encode(&self) -> Body {
        let flags = self.flags | Flags::INIT_EXT;
        Body::default()
            .u32(MAJOR)
            .u32(MINOR)
            .u32(self.max_readahead)
            .u32(flags.low())
            .u16(self.max_background)
            .u16(self.max_background / 4 * 3)
            .u32(self.max_write)
            .u32(1)
            .u16(self.max_pages())
            .u16(0)
            .u32(flags.high())
            .u32(self.max_stack_depth)
            .u16(0)
            .zeros(22)
    }

    /// To a kernel of a later major: which one is spoken here. It asks again then.
    pub fn other_major() -> Body {
        Body::default().u32(MAJOR).u32(MINOR).zeros(56)
    }
}
