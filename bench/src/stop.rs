//! SIGINT and SIGTERM end the run at the next operation, so that destructors unmount what was mounted.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

static STOPPED: AtomicBool = AtomicBool::new(false);

pub fn catch_signals() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut int, mut term) = {
        let _guard = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            runtime.block_on(async {
                tokio::select! { _ = int.recv() => {}, _ = term.recv() => {} }
            });
            STOPPED.store(true, Ordering::Relaxed);
        })
        .context("cannot start the signal thread")?;
    Ok(())
}

/// An error once a signal came.
pub fn check() -> Result<()> {
    if STOPPED.load(Ordering::Relaxed) {
        bail!("stopped by a signal");
    }
    Ok(())
}
