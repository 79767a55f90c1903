//! Small words used everywhere in this crate.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, also after a panic elsewhere: what the mutexes of this crate guard is changed in steps that are whole by themselves.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs local disk work that takes long (fdatasync, reading a segment) where blocking is allowed.
pub(crate) async fn blocking<T: Send + 'static>(
    runtime: &tokio::runtime::Handle,
    work: impl FnOnce() -> granary_core::Result<T> + Send + 'static,
) -> granary_core::Result<T> {
    match runtime.spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(granary_core::Error::new(
            granary_core::Kind::Interrupted,
            "the work on the stage was ended before it was done; the mount is being stopped",
        )
        .with_source(e)),
    }
}
