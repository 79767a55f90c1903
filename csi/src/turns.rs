//! Calls for one volume, one after another: kubelet and provisioner repeat a call whose answer is late while the first is
//! still at work.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

type Turn = Arc<tokio::sync::Mutex<()>>;

/// One turn for each key that somebody waits for.
#[derive(Debug, Default)]
pub struct Turns {
    /// Guards the map for a look-up; a turn that nobody has or waits for is not in it.
    waiting: Arc<Mutex<HashMap<String, Turn>>>,
}

/// Held while a call is at work.
#[derive(Debug)]
pub struct Held {
    key: String,
    waiting: Arc<Mutex<HashMap<String, Turn>>>,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    /// Waits until no other call for `key` is at work.
    pub async fn take(&self, key: &str) -> Held {
        let turn = self
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(key.to_owned())
            .or_default()
            .clone();
        let mut held = Held { key: key.to_owned(), waiting: self.waiting.clone(), guard: None };
        held.guard = Some(turn.lock_owned().await);
        held
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.guard = None;
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // The map's own is the last: nobody has it, and who comes now makes another.
        if waiting.get(&self.key).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            waiting.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn one_call_at_a_time_and_nothing_is_kept() {
        let (turns, inside) = (Arc::new(Turns::default()), Arc::new(AtomicU32::new(0)));
        let calls = (0..20).map(|n| {
            let (turns, inside) = (turns.clone(), inside.clone());
            tokio::spawn(async move {
                let key = if n % 2 == 0 { "a" } else { "b" };
                let _held = turns.take(key).await;
                if key == "a" {
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    tokio::task::yield_now().await;
                    inside.fetch_sub(1, Ordering::SeqCst);
                }
            })
        });
        for call in calls.collect::<Vec<_>>() {
            call.await.unwrap();
        }
        assert!(turns.waiting.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn who_gives_up_waiting_is_forgotten() {
        let turns = Turns::default();
        let held = turns.take("a").await;
        assert!(tokio::time::timeout(std::time::Duration::ZERO, turns.take("a")).await.is_err());
        drop(held);
        assert!(turns.waiting.lock().unwrap().is_empty());
    }
}
