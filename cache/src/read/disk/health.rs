//! Whether a disk works. Decides only; does no I/O.

use std::io;
use std::time::Duration;

use rustix::io::Errno;

/// I/O errors one after another, with nothing that worked between, by which a disk is known for dead. One alone may be a bad
/// sector.
const STRIKES_MAX: u32 = 3;
/// A dead disk is tried again after this long.
const AGAIN: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Health {
    strikes: u32,
    dead: Option<Death>,
}

#[derive(Debug)]
struct Death {
    why: String,
    /// When it was tried last.
    tried: Duration,
}

impl Health {
    pub fn works(&mut self) {
        self.strikes = 0;
    }

    /// Something failed. Whether the disk is to be given up for it.
    pub fn failed(&mut self, e: &io::Error) -> bool {
        let Some(errno) = Errno::from_io_error(e) else { return false };
        match errno {
            Errno::ROFS | Errno::NODEV | Errno::NXIO | Errno::STALE | Errno::NOTCONN | Errno::UCLEAN => true,
            Errno::IO => {
                self.strikes += 1;
                self.strikes >= STRIKES_MAX
            }
            // Full, or of this file alone.
            _ => false,
        }
    }

    /// `false`: it was dead already.
    pub fn die(&mut self, why: &str, now: Duration) -> bool {
        let first = self.dead.is_none();
        self.dead = Some(Death { why: why.to_owned(), tried: now });
        first
    }

    pub fn live(&mut self) {
        *self = Health::default();
    }

    pub fn why_dead(&self) -> Option<&str> {
        self.dead.as_ref().map(|death| &death.why[..])
    }

    /// Whether a dead disk is to be tried again now. Then nobody else is told so for a while.
    pub fn try_again(&mut self, now: Duration) -> bool {
        match &mut self.dead {
            Some(death) if now.saturating_sub(death.tried) >= AGAIN => {
                death.tried = now;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(errno: Errno) -> io::Error {
        errno.into()
    }

    #[test]
    fn one_bad_sector_is_no_dead_disk_and_many_are() {
        let mut health = Health::default();
        for _ in 0..10 {
            assert!(!health.failed(&error(Errno::IO)) && !health.failed(&error(Errno::IO)));
            health.works();
        }
        assert!(!health.failed(&error(Errno::NOSPC)) && !health.failed(&error(Errno::NOENT)));
        assert!(!health.failed(&io::ErrorKind::UnexpectedEof.into()));
        assert!(!health.failed(&error(Errno::IO)) && !health.failed(&error(Errno::IO)));
        assert!(health.failed(&error(Errno::IO)));
        assert!(Health::default().failed(&error(Errno::ROFS)));
    }

    #[test]
    fn a_dead_one_is_tried_now_and_then() {
        let mut health = Health::default();
        let at = Duration::from_secs;
        assert!(!health.try_again(at(1000)), "it works");
        assert!(health.die("gone", at(10)) && !health.die("gone", at(10)));
        assert!(!health.try_again(at(69)) && health.try_again(at(70)));
        assert!(!health.try_again(at(71)) && health.try_again(at(130)));
        assert_eq!(health.why_dead(), Some("gone"));
        health.live();
        assert_eq!(health.why_dead(), None);
    }
}
