//! Whether a store can do what a volume needs of it: tried, not assumed.

use bytes::Bytes;
use granary_core::{Clock, Error, Kind, Result};

use crate::api::Store;

/// Puts, reads, lists and deletes a small object of its own (`granary-probe-...`). For `granary init` and a node's start.
///
/// Errors: `Denied` names every right that is missing, in one message; `Corrupt` when the store gives back other bytes;
/// otherwise what the store says.
pub async fn probe(store: &dyn Store, clock: &dyn Clock) -> Result<()> {
    let now = clock.now();
    // Two nodes that start at once must not delete each other's object.
    let key = format!("granary-probe-{:x}-{:x}-{:x}", now.secs, now.nanos, std::process::id());
    let bytes = Bytes::from(format!("{key}: written to see whether granary may; it can be deleted"));
    let mut denied = Vec::new();

    let written =
        allowed(store.put(&key, vec![bytes.clone()]).await, "write (s3:PutObject)", &mut denied)?.is_some();
    let listed = allowed(store.list(&key, None, 2).await, "list (s3:ListBucket)", &mut denied)?;
    if written {
        let read = store.get(&key, 0..bytes.len() as u64).await;
        let read = allowed(read, "read (s3:GetObject)", &mut denied)?;
        let deleted = store.delete(vec![key.clone()]).await;
        allowed(deleted, "delete (s3:DeleteObject)", &mut denied)?;
        if read.is_some_and(|read| read != bytes) {
            return Err(wrong(store, &key, "gives other bytes than were written"));
        }
        if listed.is_some_and(|listed| !listed.iter().any(|m| m.key == key && m.size == bytes.len() as u64)) {
            return Err(wrong(store, &key, "does not list what was written"));
        }
    }
    let Some((_, reason)) = denied.first() else { return Ok(()) };
    let rights: Vec<_> = denied.iter().map(|(right, _)| *right).collect();
    Err(Error::new(
        Kind::Denied,
        format!(
            "granary may not {} in {}; give the keys these rights ({reason})",
            rights.join(", "),
            store.describe()
        ),
    ))
}

/// `None` when it is denied, which is noted.
fn allowed<T>(
    result: Result<T>,
    right: &'static str,
    denied: &mut Vec<(&'static str, String)>,
) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        // Keys that are wrong altogether are one message of their own.
        Err(e) if e.kind() == Kind::Denied && !is_about_keys(&e) => {
            denied.push((right, e.to_string()));
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

/// No right is missing where the store does not accept who we are.
fn is_about_keys(e: &Error) -> bool {
    let text = e.to_string();
    ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "clock"]
        .iter()
        .any(|word| text.contains(word))
}

fn wrong(store: &dyn Store, key: &str, what: &str) -> Error {
    Error::new(Kind::Corrupt, format!("{} {what} (object {key}); it cannot hold a volume", store.describe()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use granary_core::TestClock;

    use super::*;
    use crate::fault::{Fault, FaultStore};
    use crate::{MemoryStore, Operation};

    async fn probe_with(faults: &[(Operation, Fault)]) -> (Result<()>, usize) {
        let memory = Arc::new(MemoryStore::default());
        let store = FaultStore::new(memory.clone(), 1);
        for (operation, fault) in faults {
            store.script(*operation, *fault, usize::MAX);
        }
        (probe(&store, &TestClock::default()).await, memory.count())
    }

    #[tokio::test]
    async fn a_good_store_passes_and_is_left_as_it_was() {
        let (result, left) = probe_with(&[]).await;
        result.unwrap();
        assert_eq!(left, 0);
    }

    #[tokio::test]
    async fn every_missing_right_is_named_at_once() {
        let denied = Fault::Before(Kind::Denied);
        let (result, left) = probe_with(&[(Operation::Get, denied), (Operation::Delete, denied)]).await;
        let e = result.unwrap_err();
        assert_eq!((e.kind(), left), (Kind::Denied, 1));
        assert!(e.to_string().contains("read (s3:GetObject), delete (s3:DeleteObject)"), "{e}");
        let (result, _) = probe_with(&[(Operation::Put, denied), (Operation::List, denied)]).await;
        let e = result.unwrap_err().to_string();
        assert!(
            e.contains("write (s3:PutObject), list (s3:ListBucket)") && !e.contains("s3:GetObject"),
            "{e}"
        );
    }

    #[tokio::test]
    async fn a_store_that_changes_bytes_is_refused_and_a_dead_one_reported() {
        let (result, _) = probe_with(&[(Operation::Get, Fault::Flip)]).await;
        assert_eq!(result.unwrap_err().kind(), Kind::Corrupt);
        let (result, _) = probe_with(&[(Operation::Put, Fault::Before(Kind::Unavailable))]).await;
        assert_eq!(result.unwrap_err().kind(), Kind::Unavailable);
    }
}
