//! `GRANARY_FAILPOINTS`: where tests let a process of ours stop (see `core/src/failpoint.rs`).

use granary_core::Failpoint;

use crate::exit::Outcome;

/// Arms what the variable names. Called once, by commands that serve, when the log has been started.
pub fn arm() -> Outcome<()> {
    match std::env::var("GRANARY_FAILPOINTS") {
        Ok(text) => Ok(Failpoint::arm(&text)?),
        Err(_) => Ok(()),
    }
}
