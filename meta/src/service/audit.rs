//! The log of refusals, and of tokens that are passed on: target `granary::audit`, one line each, at most so many a second, so that nobody can fill a disk
//! by asking for what is not theirs. What was left out is counted in the next line.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use granary_core::{Clock, NodeId, SessionId};

use super::identity::Identity;
use crate::token::{Delegated, Delegation};

/// Lines that may come at once, and lines a second in the long run.
const BURST: u64 = 100;
const PER_SECOND: u64 = 20;

#[derive(Debug)]
pub(super) struct Audit {
    /// Held for a few instructions.
    rate: Mutex<Rate>,
}

#[derive(Debug)]
struct Rate {
    tokens: u64,
    filled: Duration,
    left_out: u64,
}

impl Audit {
    pub fn new(clock: &dyn Clock) -> Audit {
        Audit { rate: Mutex::new(Rate { tokens: BURST, filled: clock.monotonic(), left_out: 0 }) }
    }

    /// Whether a line may be written now, and how many were left out before it.
    fn admit(&self, now: Duration) -> Option<u64> {
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        let gained = (now.saturating_sub(rate.filled).as_millis() as u64).saturating_mul(PER_SECOND) / 1000;
        if gained > 0 {
            rate.tokens = rate.tokens.saturating_add(gained).min(BURST);
            rate.filled = now;
        }
        if rate.tokens == 0 {
            rate.left_out += 1;
            return None;
        }
        rate.tokens -= 1;
        Some(std::mem::take(&mut rate.left_out))
    }

    /// Something was refused to somebody.
    pub fn refused(
        &self,
        clock: &dyn Clock,
        who: &Identity,
        session: Option<SessionId>,
        node: NodeId,
        what: &str,
    ) {
        let Some(left_out) = self.admit(clock.monotonic()) else { return };
        let session = session.map_or_else(|| "none".to_owned(), |id| id.to_string());
        tracing::warn!(
            target: "granary::audit",
            user = %who.user,
            token = %who.token,
            %session,
            node = %node,
            left_out,
            "refused: {what}"
        );
    }

    /// A token was made for somebody else. Each is told: their number is bounded by who may have them made.
    pub fn delegated(
        &self,
        who: &Identity,
        node: NodeId,
        what: &Delegation,
        made: &Delegated,
        purpose: &str,
    ) {
        let purpose: String = purpose.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').collect();
        tracing::info!(
            target: "granary::audit",
            user = %who.user,
            token = %who.token,
            node = %node,
            namespace = %what.namespace,
            read_only = what.read_only,
            expires = made.expires,
            made = %made.id,
            purpose,
            "delegated"
        );
    }
}

#[cfg(test)]
mod tests {
    use granary_core::TestClock;

    use super::*;

    #[test]
    fn a_flood_of_refusals_is_cut_and_counted() {
        let clock = TestClock::default();
        let audit = Audit::new(&clock);
        let written = (0..1000).filter(|_| audit.admit(clock.monotonic()).is_some()).count();
        assert_eq!(written as u64, BURST);
        clock.advance(Duration::from_secs(1));
        assert_eq!(audit.admit(clock.monotonic()), Some(900));
        let more = (0..1000).filter(|_| audit.admit(clock.monotonic()).is_some()).count();
        assert_eq!(more as u64, PER_SECOND - 1);
    }
}
