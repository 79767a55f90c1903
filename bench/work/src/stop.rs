//! SIGINT and SIGTERM end the work at its next operation, so that destructors clean up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

static STOPPED: AtomicBool = AtomicBool::new(false);

/// For who has nothing else to do.
#[derive(Debug)]
pub struct Stopped(Receiver<()>);

impl Stopped {
    /// Returns when a signal came.
    pub fn wait(&self) {
        let _ = self.0.recv();
    }
}

/// From now on signals do not end the process, but its work.
pub fn catch_signals() -> Result<Stopped> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut int, mut term) = {
        let _guard = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    let (told, stopped) = channel();
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            runtime.block_on(async {
                tokio::select! { _ = int.recv() => {}, _ = term.recv() => {} }
            });
            STOPPED.store(true, Ordering::Relaxed);
            let _ = told.send(());
        })
        .context("cannot start the signal thread")?;
    Ok(Stopped(stopped))
}

/// An error once a signal came.
pub fn check() -> Result<()> {
    if STOPPED.load(Ordering::Relaxed) {
        bail!("stopped by a signal");
    }
    Ok(())
}
