//! Whether the kernel has FUSE over io_uring, and switching it on.

use std::fs;
use std::io;

use granary_core::{Error, Kind, Result};

/// The module's parameter; there since Linux 6.14. `Y`: connections made from now on are offered it.
const ENABLE: &str = "/sys/module/fuse/parameters/enable_uring";

/// What to say, and to do, when INIT does not offer it.
pub const NOT_OFFERED: &str = "the kernel does not offer FUSE over io_uring: it needs Linux 6.14, and `echo Y \
     >/sys/module/fuse/parameters/enable_uring` as root; or mount with -o transport=dev";

/// Switches it on where it is not, before a mount that wants it.
pub fn enable() -> Result<()> {
    let failed = |what: &str, e: io::Error| {
        Err(Error::new(Kind::Unsupported, format!("{what} ({ENABLE}: {e}): {NOT_OFFERED}")))
    };
    match fs::read_to_string(ENABLE) {
        Ok(text) if is_on(&text) => Ok(()),
        Ok(_) => fs::write(ENABLE, "Y")
            .or_else(|e| failed("FUSE over io_uring is off and cannot be switched on", e)),
        Err(e) => failed("FUSE over io_uring cannot be used", e),
    }
}

fn is_on(text: &str) -> bool {
    matches!(text.trim(), "Y" | "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameter_is_read() {
        assert!(is_on("Y\n") && is_on("1"));
        assert!(!is_on("N\n") && !is_on(""));
    }
}
