//! What is agreed with the kernel at the start.
//!
//! Left out on purpose: WRITEBACK_CACHE (excludes passthrough), HANDLE_KILLPRIV_V2 (the kernel's passthrough writes would
//! then clear no set-id bits), and what changes messages without use here (SECURITY_CTX, CREATE_SUPP_GROUP,
//! REQUEST_TIMEOUT). ALLOW_IDMAP is asked for where it is wanted only: requests come without ids then. HAS_RESEND says that we
//! know requests that are sent again, which come only when they are asked for.

use crate::proto::{Agreement, Flags, Offer};
use crate::vfs::{KernelAbilities, Mode};

/// Longest WRITE, in bytes (the kernel's own limit, `fs.fuse.max_pages_limit`, is 256 pages by default).
pub const WRITE_BYTES_MAX: u32 = 1 << 20;
/// Requests that nobody waits for (read-ahead, RELEASE) in flight at once.
const BACKGROUND_MAX: u16 = 64;

const ALWAYS: [Flags; 10] = [
    Flags::ASYNC_READ,
    Flags::BIG_WRITES,
    Flags::MAX_PAGES,
    Flags::PARALLEL_DIROPS,
    Flags::DO_READDIRPLUS,
    Flags::READDIRPLUS_AUTO,
    Flags::CACHE_SYMLINKS,
    Flags::NO_OPENDIR_SUPPORT,
    Flags::SETXATTR_EXT,
    Flags::HAS_RESEND,
];

/// What a mount wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub mode: Mode,
    pub acl: bool,
    /// Locks are asked for here; else the kernel keeps them.
    pub locks: bool,
    /// Mountpoints may show other ids.
    pub idmap: bool,
}

/// Asks for what is wanted and the kernel has. A `data` mount must not have ATOMIC_O_TRUNC: without OPEN, the truncation
/// would be lost.
pub fn negotiate(offer: &Offer, wanted: Wanted) -> (Agreement, KernelAbilities) {
    let mut flags = Flags::default();
    let mut ask = |asked: Flags| {
        let has = offer.flags.has(asked);
        if has {
            flags = flags | asked;
        }
        has
    };
    for flag in ALWAYS {
        ask(flag);
    }
    let direct_map = ask(Flags::DIRECT_IO_ALLOW_MMAP);
    let passthrough = match wanted.mode {
        Mode::Work => {
            ask(Flags::ATOMIC_O_TRUNC);
            ask(Flags::PASSTHROUGH)
        }
        Mode::Data => {
            ask(Flags::NO_OPEN_SUPPORT);
            false
        }
    };
    // Both or none: with the lists but the umask applied, a default list would count for nothing.
    let acl = wanted.acl && ask(Flags::POSIX_ACL | Flags::DONT_MASK);
    if wanted.idmap {
        ask(Flags::ALLOW_IDMAP);
    }
    if wanted.locks {
        ask(Flags::POSIX_LOCKS);
        ask(Flags::FLOCK_LOCKS);
    }
    let agreement = Agreement {
        flags,
        max_readahead: offer.max_readahead,
        max_background: BACKGROUND_MAX,
        max_write: WRITE_BYTES_MAX,
        max_stack_depth: u32::from(passthrough),
    };
    (agreement, KernelAbilities { passthrough, direct_map, acl })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(flags: Flags) -> Offer {
        Offer { major: 7, minor: 45, max_readahead: 131_072, flags }
    }

    const ALL: Flags = Flags(u64::MAX);

    #[test]
    fn only_what_the_kernel_has_is_asked_for() {
        let (agreement, abilities) = negotiate(&offer(Flags::default()), Wanted::default());
        assert_eq!((agreement.flags, agreement.max_stack_depth), (Flags::default(), 0));
        assert_eq!(abilities, KernelAbilities::default());
    }

    #[test]
    fn each_mode_gets_its_own() {
        let has = |wanted, flag| negotiate(&offer(ALL), wanted).0.flags.has(flag);
        let work = Wanted::default();
        let data = Wanted { mode: Mode::Data, ..work };
        assert!(has(work, Flags::PASSTHROUGH | Flags::ATOMIC_O_TRUNC) && !has(work, Flags::NO_OPEN_SUPPORT));
        assert!(has(data, Flags::NO_OPEN_SUPPORT));
        assert!(!has(data, Flags::PASSTHROUGH) && !has(data, Flags::ATOMIC_O_TRUNC));
        for never in
            [Flags::WRITEBACK_CACHE, Flags::HANDLE_KILLPRIV_V2, Flags::SECURITY_CTX, Flags::ALLOW_IDMAP]
        {
            assert!(!has(work, never) && !has(data, never));
        }
    }

    #[test]
    fn locks_and_lists_only_when_they_are_served() {
        let flags = |wanted| negotiate(&offer(ALL), wanted).0.flags;
        let work = Wanted::default();
        for flag in [Flags::POSIX_LOCKS, Flags::FLOCK_LOCKS, Flags::POSIX_ACL, Flags::DONT_MASK] {
            assert!(!flags(work).has(flag));
        }
        assert!(flags(Wanted { idmap: true, ..work }).has(Flags::ALLOW_IDMAP));
        assert!(flags(Wanted { locks: true, ..work }).has(Flags::POSIX_LOCKS | Flags::FLOCK_LOCKS));
        assert!(flags(Wanted { acl: true, ..work }).has(Flags::POSIX_ACL | Flags::DONT_MASK));
        let (agreement, abilities) = negotiate(&offer(Flags::DONT_MASK), Wanted { acl: true, ..work });
        assert!(!agreement.flags.has(Flags::DONT_MASK) && !abilities.acl);
    }
}
