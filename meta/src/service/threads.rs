//! The service's own threads: one that looks after time, and some that go on with lines of calls when those who brought
//! the calls have done their share.

use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::Duration;

use granary_core::{Error, Result};

use super::{Service, lock};

#[derive(Debug, Default)]
pub(super) struct Threads {
    signal: Arc<Signal>,
}

#[derive(Debug, Default)]
struct Signal {
    state: Mutex<State>,
    rung: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Runners that were handed over and not taken yet.
    handed: usize,
    stop: bool,
}

impl Threads {
    /// The threads hold the service weakly: they end when it is dropped or stopped.
    pub fn start(&self, service: &Arc<Service>) -> Result<()> {
        for _ in 0..service.options.runners {
            let (signal, service) = (self.signal.clone(), Arc::downgrade(service));
            spawn("granary-calls", move || {
                while signal.next() {
                    let Some(service) = service.upgrade() else { return };
                    service.run_on();
                }
            })?;
        }
        if let Some(interval) = service.options.tick {
            let (signal, service) = (self.signal.clone(), Arc::downgrade(service));
            spawn("granary-time", move || watch(&signal, &service, interval))?;
        }
        Ok(())
    }

    /// Somebody else is to go on as a runner.
    pub fn hand_over(&self) {
        lock(&self.signal.state).handed += 1;
        self.signal.rung.notify_all();
    }

    pub fn stop(&self) {
        lock(&self.signal.state).stop = true;
        self.signal.rung.notify_all();
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop();
    }
}

fn spawn(name: &str, f: impl FnOnce() + Send + 'static) -> Result<()> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(f);
    thread.map(drop).map_err(|e| {
        Error::io("cannot start a thread of the metadata service; raise the limit of threads", e)
    })
}

fn watch(signal: &Signal, service: &Weak<Service>, interval: Duration) {
    loop {
        let state = lock(&signal.state);
        let (state, _) = signal
            .rung
            .wait_timeout_while(state, interval, |state| !state.stop)
            .unwrap_or_else(PoisonError::into_inner);
        if state.stop {
            return;
        }
        drop(state);
        let Some(service) = service.upgrade() else { return };
        service.tick();
    }
}

impl Signal {
    /// Waits for a runner to take; `false` at the end. What was handed over is taken even then.
    fn next(&self) -> bool {
        let mut state = lock(&self.state);
        loop {
            if state.handed > 0 {
                state.handed -= 1;
                return true;
            }
            if state.stop {
                return false;
            }
            state = self.rung.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
