//! This machine's clock against the store's: signatures are refused when they differ by a quarter of an hour, tokens count
//! by it, and files' times are seen on other nodes.

use bytes::Bytes;
use granary_core::{Clock, Result};
use granary_store::Store;

use super::Finding;
use crate::units::show_period_ms;

/// A second is what some stores' times are cut to.
const DIFFERENCE_MS_MAX: u64 = 5_000;

/// What one small object told.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub round_trip_ms: u64,
    /// How far the store's time of the object is outside of the time in which it was written here; 0: within it.
    pub difference_ms: u64,
}

/// Writes an object and asks when that was.
pub async fn compare(store: &dyn Store, clock: &dyn Clock) -> Result<Seen> {
    let before = clock.now().unix_ms();
    let key = format!("granary-probe-clock-{before:x}-{:x}", std::process::id());
    let body = Bytes::from_static(b"written to see what time it is in the store; it can be deleted");
    store.put(&key, vec![body]).await?;
    let after = clock.now().unix_ms();
    let told = store.head(&key).await;
    store.delete(vec![key]).await?;
    Ok(seen(before, after, told?.modified.unix_ms()))
}

/// Times in milliseconds since 1970. The store's may be cut to whole seconds.
fn seen(before: u64, after: u64, told: u64) -> Seen {
    let early = before.saturating_sub(1_000).saturating_sub(told);
    Seen { round_trip_ms: after.saturating_sub(before), difference_ms: early.max(told.saturating_sub(after)) }
}

pub fn judge(seen: Seen) -> Finding {
    match seen.difference_ms {
        0..=DIFFERENCE_MS_MAX => Finding::good("clock", "agrees with the store's"),
        ms => Finding::bad(
            "clock",
            format!("differs from the store's by {}", show_period_ms(ms)),
            "let both follow one time server (chrony, systemd-timesyncd)",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn the_difference_is_what_the_write_does_not_explain() {
        for (told, difference) in [(10_000, 0), (10_050, 0), (9_000, 0), (8_000, 1_000), (70_100, 60_000)] {
            assert_eq!(seen(10_000, 10_100, told).difference_ms, difference, "{told}");
        }
        assert_eq!(seen(10_000, 10_100, 0).round_trip_ms, 100);
        assert_eq!(judge(seen(10_000, 10_100, 10_000)).state, State::Good);
        assert_eq!(judge(seen(0, 100, 900_000)).state, State::Bad);
    }
}
