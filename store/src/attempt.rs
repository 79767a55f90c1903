//! What wrappers tell each other of one request beside the trait: which endpoint the first attempt went to, so that a second one
//! goes elsewhere. It stays with the future, not with the thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const NONE: usize = usize::MAX;

tokio::task_local! {
    static ATTEMPT: Attempt;
}

#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    /// Set by the first, read by the second.
    endpoint: Arc<AtomicUsize>,
    second: bool,
}

impl Attempt {
    pub fn first() -> Attempt {
        Attempt { endpoint: Arc::new(AtomicUsize::new(NONE)), second: false }
    }

    pub fn second(&self) -> Attempt {
        Attempt { second: true, ..self.clone() }
    }

    /// Runs a request as this attempt.
    pub async fn run<T>(self, request: impl Future<Output = T>) -> T {
        ATTEMPT.scope(self, request).await
    }
}

/// The endpoint that the request under way should avoid.
pub(crate) fn avoided() -> Option<usize> {
    let endpoint = ATTEMPT.try_with(|attempt| {
        attempt.second.then(|| attempt.endpoint.load(Ordering::Relaxed)).filter(|&endpoint| endpoint != NONE)
    });
    endpoint.ok().flatten()
}

/// The request under way goes to this endpoint.
pub(crate) fn took(endpoint: usize) {
    // Outside of an attempt nobody wants to know.
    let _ = ATTEMPT.try_with(|attempt| {
        if !attempt.second {
            attempt.endpoint.store(endpoint, Ordering::Relaxed);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_second_learns_where_the_first_went() {
        let first = Attempt::first();
        let second = first.second();
        assert_eq!(second.clone().run(async { avoided() }).await, None, "the first has not gone yet");
        first
            .run(async {
                took(3);
                assert_eq!(avoided(), None, "the first itself avoids nothing");
            })
            .await;
        let learned = second.run(async {
            took(4);
            avoided()
        });
        assert_eq!((learned.await, avoided()), (Some(3), None));
    }
}
