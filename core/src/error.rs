//! One error type for the whole product: named by what the caller should do, with one errno each.

use std::borrow::Cow;
use std::fmt;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, named by the caller's reaction. Each kind has exactly one errno and one log level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The name or object does not exist (also: a namespace that was not granted).
    NotFound,
    Exists,
    NotEmpty,
    NotDirectory,
    IsDirectory,
    /// The mode bits forbid it.
    Access,
    /// Only an owner or administrator may.
    Permission,
    Invalid,
    NameTooLong,
    FileTooLarge,
    Unsupported,
    /// What the caller holds is of an earlier state; look it up again.
    Stale,
    /// Somebody else uses it now; try later.
    Busy,
    /// Store or service does not answer; what was acknowledged is kept, try later.
    Unavailable,
    /// The store refuses our credentials or rights.
    Denied,
    NoSpace,
    QuotaExceeded,
    ReadOnly,
    TooManyLinks,
    CrossNamespace,
    NoAttribute,
    /// The caller's buffer is too small.
    Range,
    /// Bytes do not match their checksum or format; never returned as data.
    Corrupt,
    /// The local disk failed.
    Io,
    Interrupted,
    /// Somebody else has the lock, and the caller does not want to wait.
    WouldBlock,
    /// Waiting for the lock would never end: its holder waits for the caller.
    Deadlock,
    /// A program runs from it.
    Executed,
    /// This session was ended by the metadata service, and what it had belongs to others: nothing it does counts any more.
    Fenced,
    /// A broken invariant of our own.
    Bug,
}

impl Kind {
    /// The Linux errno programs see.
    pub fn errno(self) -> i32 {
        match self {
            Kind::NotFound => 2,        // ENOENT
            Kind::Exists => 17,         // EEXIST
            Kind::NotEmpty => 39,       // ENOTEMPTY
            Kind::NotDirectory => 20,   // ENOTDIR
            Kind::IsDirectory => 21,    // EISDIR
            Kind::Access => 13,         // EACCES
            Kind::Permission => 1,      // EPERM
            Kind::Invalid => 22,        // EINVAL
            Kind::NameTooLong => 36,    // ENAMETOOLONG
            Kind::FileTooLarge => 27,   // EFBIG
            Kind::Unsupported => 95,    // EOPNOTSUPP
            Kind::Stale => 116,         // ESTALE
            Kind::Busy => 16,           // EBUSY
            Kind::Unavailable => 5,     // EIO
            Kind::Denied => 13,         // EACCES
            Kind::NoSpace => 28,        // ENOSPC
            Kind::QuotaExceeded => 122, // EDQUOT
            Kind::ReadOnly => 30,       // EROFS
            Kind::TooManyLinks => 31,   // EMLINK
            Kind::CrossNamespace => 18, // EXDEV
            Kind::NoAttribute => 61,    // ENODATA
            Kind::Range => 34,          // ERANGE
            Kind::Corrupt => 5,         // EIO
            Kind::Io => 5,              // EIO
            Kind::Interrupted => 4,     // EINTR
            Kind::WouldBlock => 11,     // EAGAIN
            Kind::Deadlock => 35,       // EDEADLK
            Kind::Executed => 26,       // ETXTBSY
            Kind::Fenced => 5,          // EIO
            Kind::Bug => 5,             // EIO
        }
    }

    /// Whether a person should find it in the log. What a program caused (a missing name, a full quota) is not news.
    pub fn log_level(self) -> Option<tracing::Level> {
        match self {
            Kind::Unavailable | Kind::Denied | Kind::NoSpace | Kind::Fenced => Some(tracing::Level::WARN),
            Kind::Corrupt | Kind::Io | Kind::Bug => Some(tracing::Level::ERROR),
            _ => None,
        }
    }

    /// Whether the same call may succeed later without anybody's help.
    pub fn is_transient(self) -> bool {
        matches!(self, Kind::Unavailable | Kind::Busy | Kind::Interrupted)
    }
}

/// An error a person can act on: `message` names the thing, the reason and the mend.
pub struct Error {
    kind: Kind,
    slow_down: bool,
    message: Cow<'static, str>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// No allocation for a static message, so that the hot path's ENOENT is free.
    pub fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Error {
        Error { kind, slow_down: false, message: message.into(), source: None }
    }

    /// Whoever refused asks for fewer requests (HTTP's 429 and 503). The kind stays; whoever sends many requests looks.
    pub fn with_slow_down(mut self) -> Error {
        self.slow_down = true;
        self
    }

    /// Whether fewer requests are asked for.
    pub fn asks_to_slow_down(&self) -> bool {
        self.slow_down
    }

    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        self.source = Some(source.into());
        self
    }

    /// A local disk error, with what was being done: ENOSPC, EDQUOT, EROFS, EFBIG keep their kind.
    pub fn io(doing: impl Into<Cow<'static, str>>, e: std::io::Error) -> Error {
        let kind = match e.raw_os_error() {
            Some(28) => Kind::NoSpace,
            Some(122) => Kind::NoSpace,
            Some(30) => Kind::ReadOnly,
            Some(27) => Kind::FileTooLarge,
            _ => Kind::Io,
        };
        Error::new(kind, doing).with_source(e)
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn errno(&self) -> i32 {
        self.kind.errno()
    }

    /// The system's own number, where the error comes right from it.
    pub fn raw_os_error(&self) -> Option<i32> {
        self.source.as_deref()?.downcast_ref::<std::io::Error>()?.raw_os_error()
    }

    /// The same error under a message that says more about the thing concerned.
    pub fn context(self, what: impl fmt::Display) -> Error {
        Error { message: format!("{what}: {}", self.message).into(), ..self }
    }

    /// A copy for a second reader (a failed write is told at fsync and again at close). The source becomes text.
    pub fn duplicate(&self) -> Error {
        Error { kind: self.kind, slow_down: self.slow_down, message: self.to_string().into(), source: None }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let mut source = self.source.as_deref().map(|e| e as &dyn std::error::Error);
        while let Some(e) = source {
            write!(f, ": {e}")?;
            source = e.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.kind)
    }
}

impl std::error::Error for Error {}

/// `Err` of a kind with a static message: `fail(Kind::NotFound, "no such entry")`.
pub fn fail<T>(kind: Kind, message: &'static str) -> Result<T> {
    Err(Error::new(kind, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_disk_keeps_its_errno_and_source() {
        let e = Error::io("cannot append to the stage log", std::io::Error::from_raw_os_error(28));
        assert_eq!((e.kind(), e.errno(), e.raw_os_error()), (Kind::NoSpace, 28, Some(28)));
        assert_eq!(Error::new(Kind::Io, "cannot read").raw_os_error(), None);
        assert!(e.to_string().starts_with("cannot append to the stage log: No space left"));
        assert_eq!(e.duplicate().to_string(), e.to_string());
        assert_eq!(e.context("/mnt/a/x").kind(), Kind::NoSpace);
    }

    #[test]
    fn a_wish_for_fewer_requests_stays_with_the_error() {
        let e = Error::new(Kind::Unavailable, "503").with_slow_down();
        assert!(e.duplicate().asks_to_slow_down() && e.context("object k").asks_to_slow_down());
        assert!(!Error::new(Kind::Unavailable, "no route").asks_to_slow_down());
    }
}
