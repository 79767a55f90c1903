//! How a command ends: its exit code, and the one message a person reads.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | it failed; the message says why and what to do |
//! | 2 | the command line, a setting or a name cannot be used as given |
//! | 3 | the store does not answer or refuses us; nothing acknowledged was lost, try later |
//!
//! `mount.fuse.granary` answers with mount(8)'s codes instead: 0, 1 (usage), 32 (not mounted).

use std::fmt;

use granary_core::{Error, Kind};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Failed = 1,
    Usage = 2,
    Unavailable = 3,
}

impl Exit {
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The exit code that fits an error of the other crates.
    pub fn of(kind: Kind) -> Exit {
        match kind {
            Kind::Invalid | Kind::NameTooLong => Exit::Usage,
            Kind::Unavailable | Kind::Denied => Exit::Unavailable,
            _ => Exit::Failed,
        }
    }

    pub fn from_code(code: u8) -> Exit {
        match code {
            2 => Exit::Usage,
            3 => Exit::Unavailable,
            _ => Exit::Failed,
        }
    }
}

/// Why a command ends without success. Also what the node answers over its socket, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Exit code for the command that asked.
    pub exit: u8,
    /// The error's kind, as `granary_core::Kind` spells it.
    pub kind: String,
    /// Names the thing, the reason and the mend.
    pub message: String,
}

pub type Outcome<T> = Result<T, Failure>;

impl Failure {
    pub fn new(exit: Exit, message: impl Into<String>) -> Failure {
        let kind = match exit {
            Exit::Failed => Kind::Io,
            Exit::Usage => Kind::Invalid,
            Exit::Unavailable => Kind::Unavailable,
        };
        Failure { exit: exit.code(), kind: format!("{kind:?}"), message: message.into() }
    }

    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, message)
    }

    pub fn failed(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Failed, message)
    }

    /// Whoever read our answers went away: no failure, and nothing is said. Never goes over the socket.
    pub fn reader_gone() -> Failure {
        Failure { exit: 0, kind: String::new(), message: String::new() }
    }

    pub fn is_reader_gone(&self) -> bool {
        self.exit == 0
    }

    pub fn of_kind(kind: Kind, message: impl Into<String>) -> Failure {
        Failure { exit: Exit::of(kind).code(), kind: format!("{kind:?}"), message: message.into() }
    }

    /// A failed system call: what was being done, and to what.
    pub fn io(doing: impl fmt::Display, e: &std::io::Error) -> Failure {
        Failure::failed(format!("{doing}: {}", plain(e)))
    }

    pub fn is(&self, kind: Kind) -> bool {
        self.kind == format!("{kind:?}")
    }

    pub fn context(mut self, what: impl fmt::Display) -> Failure {
        self.message = format!("{what}: {}", self.message);
        self
    }
}

/// The system's words without Rust's "(os error 2)".
pub fn plain(e: &std::io::Error) -> String {
    let text = e.to_string();
    match text.find(" (os error ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<Error> for Failure {
    fn from(e: Error) -> Failure {
        Failure::of_kind(e.kind(), e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_exit_codes() {
        assert_eq!(Failure::from(Error::new(Kind::Invalid, "x")).exit, 2);
        assert_eq!(Failure::from(Error::new(Kind::Denied, "x")).exit, 3);
        let missing = Failure::from(Error::new(Kind::NotFound, "x"));
        assert_eq!(missing.exit, 1);
        assert!(missing.is(Kind::NotFound) && !missing.is(Kind::Busy));
        for exit in [Exit::Failed, Exit::Usage, Exit::Unavailable] {
            assert_eq!(Exit::from_code(exit.code()), exit);
        }
    }

    #[test]
    fn system_errors_read_plainly() {
        let e = std::io::Error::from_raw_os_error(2);
        assert_eq!(Failure::io("cannot open /x", &e).message, "cannot open /x: No such file or directory");
    }
}
