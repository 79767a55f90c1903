//! Removing a namespace: its metadata first, durably, then what only that named: staged bytes, and objects.
//! Stopped in between, objects are left that nobody names; nothing that is named is ever missing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use granary_core::{Kind, NamespaceId, NamespaceName, SystemClock};
use granary_store::Store;
use prometheus_client::registry::Registry;

use crate::exit::{Failure, Outcome, plain};
use crate::node::lock::CacheLock;
use crate::node::source::Source;
use crate::settings::Settings;
use crate::{packed, volume};

/// As many keys as S3 lists and deletes in one request.
const KEYS_AT_ONCE: usize = 1000;

/// Where the bytes of a namespace lie on this node that are not in the store.
pub fn stage_dir(cache: &Path, id: NamespaceId) -> PathBuf {
    cache.join("stage").join(id.to_string())
}

/// While no node runs.
pub async fn remove_offline(
    settings: &Settings,
    source: &Source,
    name: &NamespaceName,
    force: bool,
) -> Outcome<()> {
    // A node without a socket of ours could still have the stage open.
    let _lock = settings.cache.exists().then(|| CacheLock::acquire(&settings.cache)).transpose()?;
    let store = volume::store(
        &source.volume()?.store_url,
        settings,
        Arc::new(SystemClock),
        &mut Registry::default(),
    )?;
    let id = source.find(None, name).await?.info.id;
    source.remove(None, name, force).await?;
    remove_stage(&settings.cache, id);
    remove_objects(&*store, id, name).await
}

/// What is staged here of a namespace that is removed, and what is known of the data set that it showed.
pub fn remove_stage(cache: &Path, id: NamespaceId) {
    for dir in [stage_dir(cache, id), packed::dir(cache, id)] {
        match std::fs::remove_dir_all(&dir) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!("cannot delete {}, which nobody needs any more: {}", dir.display(), plain(&e));
            }
            _ => {}
        }
    }
}

/// All objects of a namespace that is removed.
pub async fn remove_objects(store: &dyn Store, id: NamespaceId, name: &NamespaceName) -> Outcome<()> {
    delete_objects(store, id).await.map_err(|e| {
        let message = format!(
            "namespace {name} is removed, but not all of its objects are deleted ({e}); delete what is below ns/{id}/ in {}",
            store.describe()
        );
        Failure::of_kind(if e.kind() == Kind::Denied { Kind::Denied } else { Kind::Unavailable }, message)
    })
}

async fn delete_objects(store: &dyn Store, id: NamespaceId) -> granary_core::Result<()> {
    let prefix = format!("ns/{id}/");
    loop {
        let objects = store.list(&prefix, None, KEYS_AT_ONCE).await?;
        if objects.is_empty() {
            return Ok(());
        }
        store.delete(objects.into_iter().map(|object| object.key).collect()).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use granary_store::MemoryStore;

    #[tokio::test]
    async fn all_objects_of_one_namespace_and_no_other() {
        let store = MemoryStore::default();
        for i in 0..2_500 {
            store.put(&format!("ns/00000007/p/00/{i:05}"), vec![Bytes::from_static(b"x")]).await.unwrap();
        }
        store.put("ns/00000008/b/00/kept", vec![Bytes::from_static(b"x")]).await.unwrap();
        delete_objects(&store, NamespaceId(7)).await.unwrap();
        let left = store.list("", None, 10).await.unwrap();
        assert_eq!(left.iter().map(|o| o.key.as_str()).collect::<Vec<_>>(), ["ns/00000008/b/00/kept"]);
    }
}
