//! What the store gives to a program that does nothing else: PUTs and GETs of whole objects, so many at a time.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStore, ObjectStoreExt, path::Path as Key};

use super::Target;
use crate::clock::Stopwatch;
use crate::content::{Content, PAGE};
use crate::work::{Outcome, shuffled};

/// Which objects are got, and how.
#[derive(Clone, Copy, Debug)]
pub struct RawGets<'a> {
    /// `BELOW/000000.bin` and on, as [`Target::put_files`] and [`Target::put_raw`] name them.
    pub below: &'a str,
    pub object_bytes: usize,
    pub count: usize,
    pub concurrency: usize,
    /// The order in which they are got.
    pub seed: u64,
    /// Instead of the store's own.
    pub endpoint: Option<&'a str>,
}

impl Target {
    pub(super) fn keys(&self, below: &str, count: usize) -> Vec<Key> {
        (0..count).map(|i| Key::from(self.key(&format!("{below}/{i:06}.bin")))).collect()
    }

    /// PUTs of noise, `concurrency` at a time, nothing else. `done` is bytes. The objects are deleted, outside the time.
    pub fn raw_puts(
        &self,
        below: &str,
        object_bytes: usize,
        count: usize,
        concurrency: usize,
    ) -> Result<Outcome> {
        let mut body = vec![0; object_bytes];
        Content::new(count as u64).fill(&mut body, 0, 0);
        let body = Bytes::from(body);
        let keys = self.keys(below, count);
        let puts = |keys: Vec<Key>| {
            futures::stream::iter(keys.into_iter().map(|key| {
                let body = body.clone();
                async move { self.store.put(&key, body.into()).await.map(|_| ()) }
            }))
            .buffer_unordered(concurrency)
            .try_collect::<()>()
        };
        self.runtime.block_on(async {
            puts(keys[..concurrency.min(count)].to_vec()).await?; // connections are open
            let watch = Stopwatch::start();
            puts(keys.clone()).await?;
            let seconds = watch.seconds();
            let keys = futures::stream::iter(keys.clone()).map(Ok).boxed();
            self.store.delete_stream(keys).try_collect::<Vec<_>>().await?;
            Ok(Outcome { done: (object_bytes * count) as u64, seconds })
        })
    }

    /// GETs of whole objects, so many at a time, each once; bytes are thrown away as they come. `done` is bytes.
    ///
    /// # Errors
    /// Also when an object has another length than it should.
    pub fn raw_gets(&self, gets: RawGets<'_>) -> Result<Outcome> {
        let store = match (gets.endpoint, self.bucket()) {
            (Some(endpoint), Some(bucket)) => bucket.client(endpoint)?,
            _ => self.store.clone(),
        };
        let keys = self.keys(gets.below, gets.count);
        let order = shuffled(gets.count, gets.seed).into_iter().map(|i| keys[i].clone());
        self.runtime.block_on(async {
            let watch = Stopwatch::start();
            futures::stream::iter(order)
                .map(|key| get(store.clone(), key, gets.object_bytes))
                .buffer_unordered(gets.concurrency)
                .try_collect::<()>()
                .await?;
            Ok(Outcome { done: (gets.object_bytes * gets.count) as u64, seconds: watch.seconds() })
        })
    }

    /// Whether each byte of an object is what `content` says of the file `id`.
    pub fn verify_object(&self, key: &str, bytes: usize, id: u64, content: &Content) -> Result<()> {
        let key = Key::from(self.key(key));
        let body = self.runtime.block_on(async { self.store.get(&key).await?.bytes().await })?;
        ensure!(body.len() == bytes, "{key}: {} bytes of {bytes}", body.len());
        content.check(&body, id, 0).with_context(|| key.to_string())
    }
}

async fn get(store: Arc<dyn ObjectStore>, key: Key, bytes: usize) -> Result<()> {
    let mut body = store.get(&key).await?.into_stream();
    let mut seen = 0;
    while let Some(part) = body.try_next().await? {
        seen += part.len();
    }
    ensure!(seen == bytes, "{key}: {seen} bytes of {bytes}");
    Ok(())
}

const _: () = assert!(super::data::PART_BYTES.is_multiple_of(PAGE), "a part begins with a page");

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::target::{Listing, StoreKind};

    #[test]
    fn raw_puts_leave_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let target = Target::open(&StoreKind::File, dir.path(), Path::new("")).unwrap();
        assert_eq!(target.raw_puts("raw", 5000, 6, 4).unwrap().done, 30_000);
        assert_eq!(target.list("raw").unwrap(), Listing::default());
    }
}
