//! SIGUSR2: leaves the mounts to the next process. SIGTERM and SIGINT: the first stops the node cleanly, a second one stops waiting for busy mounts.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::exit::{Failure, Outcome};

/// What the signals, and `granary node stop`, ask for.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// Stop cleanly.
    pub begin: CancellationToken,
    /// Do not wait for busy mounts.
    pub hurry: CancellationToken,
    /// End now, and leave the mounts to the next process.
    pub leave: CancellationToken,
}

/// Watches for signals as long as the runtime lives.
pub fn watch(stop: &Stop) -> Outcome<()> {
    let cannot = |e: std::io::Error| Failure::io("cannot watch for signals", &e);
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
    // A closed terminal is no reason to take mounts away.
    let mut hangup = signal(SignalKind::hangup()).map_err(cannot)?;
    let mut leave = signal(SignalKind::user_defined2()).map_err(cannot)?;
    let stop = stop.clone();
    tokio::spawn(async move {
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
                _ = hangup.recv() => continue,
                _ = leave.recv() => {
                    stop.leave.cancel();
                    continue;
                }
            };
            if stop.begin.is_cancelled() {
                tracing::warn!("{name} again: not waiting for busy mounts any more");
                stop.hurry.cancel();
            } else {
                tracing::info!("{name}: stopping");
                stop.begin.cancel();
            }
        }
    });
    Ok(())
}
