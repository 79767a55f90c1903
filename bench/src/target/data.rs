//! The data set of cold reads, as objects: what raw GETs get, and what peers that keep a file as an object read.
//!
//! It is put there once a run, by many PUTs at a time: writing it through such a peer would take most of the run.

use std::collections::HashSet;

use anyhow::Result;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStoreExt, WriteMultipart, path::Path as Key};

use super::Target;
use crate::content::{Content, PAGE};
use crate::stop;
use crate::work::Set;
use crate::work::large::FILE_ID;

/// The folder that it lies in.
pub const DATA: &str = "data";
/// What the large object is uploaded in.
pub const PART_BYTES: usize = 16 << 20;
const PUTS: usize = 16;

impl Target {
    /// The set's files, each an object.
    pub fn put_files(&self, set: Set, count: usize, content: &Content) -> Result<()> {
        let keys = self.keys(&format!("{DATA}/{}", set.name), count);
        self.put_all(keys, set.size, |i| set.file_id(i), content)
    }

    /// Objects of one size that only raw GETs read.
    pub fn put_raw(&self, below: &str, object_bytes: usize, count: usize, content: &Content) -> Result<()> {
        self.put_all(self.keys(below, count), object_bytes, |i| i as u64, content)
    }

    fn put_all(
        &self,
        keys: Vec<Key>,
        bytes: usize,
        id: impl Fn(usize) -> u64,
        content: &Content,
    ) -> Result<()> {
        let there: HashSet<Key> = self.there(&keys)?;
        let missing = keys.into_iter().enumerate().filter(|(_, key)| !there.contains(key));
        let puts = futures::stream::iter(missing.map(|(i, key)| {
            let id = id(i);
            async move {
                stop::check()?;
                let mut body = vec![0; bytes];
                content.fill(&mut body, id, 0);
                self.store.put(&key, Bytes::from(body).into()).await?;
                anyhow::Ok(())
            }
        }));
        self.runtime.block_on(puts.buffer_unordered(PUTS).try_collect::<()>())
    }

    /// Those of the keys' folder that an earlier round has put.
    fn there(&self, keys: &[Key]) -> Result<HashSet<Key>> {
        let Some(folder) = keys.first().and_then(|key| key.as_ref().rsplit_once('/')) else {
            return Ok(HashSet::new());
        };
        let folder = Key::from(folder.0);
        let listed = self.store.list(Some(&folder)).map_ok(|meta| meta.location);
        Ok(self.runtime.block_on(listed.try_collect())?)
    }

    /// One large file as one object, as `large::write` would write it.
    pub fn put_large(&self, name: &str, bytes: u64, content: &Content) -> Result<()> {
        let key = Key::from(self.key(&format!("{DATA}/{name}")));
        self.runtime.block_on(async {
            let upload = self.store.put_multipart(&key).await?;
            let mut write = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
            for at in (0..bytes).step_by(PART_BYTES) {
                stop::check()?;
                let mut part = vec![0; (bytes - at).min(PART_BYTES as u64) as usize];
                content.fill(&mut part, FILE_ID, at / PAGE as u64);
                write.wait_for_capacity(PUTS / 4).await?;
                write.put(Bytes::from(part));
            }
            write.finish().await?;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::target::{RawGets, StoreKind};
    use crate::work::{Limits, large, once};

    #[test]
    fn objects_are_the_files_that_the_work_reads_and_are_got_raw() {
        let dir = tempfile::tempdir().unwrap();
        let target = Target::open(&StoreKind::File, dir.path(), Path::new("")).unwrap();
        let (content, set) = (Content::new(4), Set { name: "epoch", size: 10_000, id: 9 });
        target.put_files(set, 30, &content).unwrap();
        let before = target.list(DATA).unwrap();
        target.put_files(set, 30, &content).unwrap();
        assert_eq!(target.list(DATA).unwrap().since(&before).objects, 0, "what is there is not put again");
        target.put_large("l.ckpt", 33 << 20, &content).unwrap();

        let root = dir.path().join("store").join(DATA);
        let limits = Limits { seconds_min: 0.0, seconds_max: 60.0 };
        let pass = once::shuffled_pass(&root, set, 30, 2, 1, limits, Some(&content)).unwrap();
        assert_eq!(pass.files, 30);
        large::verify(&root, "l.ckpt", 33 << 20, &content).unwrap();

        let gets = RawGets {
            below: "data/epoch",
            object_bytes: 10_000,
            count: 30,
            concurrency: 4,
            seed: 1,
            endpoint: None,
        };
        assert_eq!(target.raw_gets(gets).unwrap().done, 300_000);
        assert!(target.raw_gets(RawGets { object_bytes: 9_999, ..gets }).is_err());
        target.verify_object("data/epoch/000007.bin", 10_000, set.file_id(7), &content).unwrap();
        assert!(target.verify_object("data/epoch/000007.bin", 10_000, set.file_id(8), &content).is_err());
    }
}
