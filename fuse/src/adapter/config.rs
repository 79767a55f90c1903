//! What is agreed with the kernel at the start. Only what fuser 0.18 implements rightly: HANDLE_KILLPRIV_V2, ALLOW_IDMAP,
//! SECURITY_CTX, SETXATTR_EXT, CREATE_SUPP_GROUP, HAS_RESEND and REQUEST_TIMEOUT change messages in ways it does not know,
//! and are never asked for.

use fuser::{InitFlags, KernelConfig};

use crate::vfs::{KernelAbilities, Mode};

/// Longest WRITE, in bytes (the kernel's own limit, `fs.fuse.max_pages_limit`, is 256 pages by default).
pub const WRITE_BYTES_MAX: u32 = 1 << 20;
/// Requests that nobody waits for (read-ahead, RELEASE) in flight at once.
const BACKGROUND_MAX: u16 = 64;

const ALWAYS: [InitFlags; 6] = [
    InitFlags::FUSE_ASYNC_READ,
    InitFlags::FUSE_BIG_WRITES,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_CACHE_SYMLINKS,
];

/// Asks for what this mode needs and the kernel has. A `data` mount must not have ATOMIC_O_TRUNC: without OPEN, the
/// truncation would be lost.
pub fn negotiate(config: &mut KernelConfig, mode: Mode) -> KernelAbilities {
    let has = config.capabilities();
    let mut ask = |flag: InitFlags| has.contains(flag) && config.add_capabilities(flag).is_ok();
    for flag in ALWAYS {
        ask(flag);
    }
    ask(InitFlags::FUSE_NO_OPENDIR_SUPPORT);
    let direct_map = ask(InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP);
    let passthrough = match mode {
        Mode::Work => {
            ask(InitFlags::FUSE_ATOMIC_O_TRUNC);
            ask(InitFlags::FUSE_PASSTHROUGH)
        }
        Mode::Data => {
            ask(InitFlags::FUSE_NO_OPEN_SUPPORT);
            false
        }
    };
    // The values are within fuser's limits; where they are not, its nearest one is in place.
    let _ = config.set_max_write(WRITE_BYTES_MAX);
    let _ = config.set_max_background(BACKGROUND_MAX);
    if passthrough {
        let _ = config.set_max_stack_depth(1);
    }
    KernelAbilities { passthrough, direct_map }
}
