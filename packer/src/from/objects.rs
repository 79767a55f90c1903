//! A bucket's objects below a prefix. The listing says all that the scan needs; many objects are fetched at once when they are packed.

use std::sync::Arc;

use granary_core::{Error, Kind, Result};
use granary_store::{ObjectMeta, Store};
use tokio::runtime::Handle;

use super::fetch::fetch;
use super::{Scan, Source, Want, changed, plain_entry};
use crate::pack::entry::{Content, Entry};

/// Keys asked for at once.
const PAGE: usize = 1_000;

#[derive(Debug)]
pub struct Objects {
    store: Arc<dyn Store>,
    runtime: Handle,
}

impl Objects {
    pub fn new(store: Arc<dyn Store>, runtime: Handle) -> Objects {
        Objects { store, runtime }
    }

    fn entry(object: ObjectMeta) -> Entry {
        let mut entry =
            plain_entry(object.key.into_bytes(), object.size, object.modified.secs, Content::File);
        entry.mtime_nanos = object.modified.nanos;
        entry
    }
}

impl Source for Objects {
    fn scan(&self, scan: &Scan<'_>) -> Result<()> {
        let mut sink = scan.sink();
        let mut after: Option<String> = None;
        loop {
            let page = self.runtime.block_on(self.store.list("", after.as_deref(), PAGE))?;
            let ended = page.len() < PAGE;
            after = page.last().map(|object| object.key.clone());
            for object in page {
                // What some tools put where a folder would be.
                if !(object.size == 0 && object.key.ends_with('/')) {
                    sink.push(&Objects::entry(object))?;
                }
            }
            if ended {
                return Ok(());
            }
        }
    }

    fn read(&self, wants: &mut [Want<'_>]) {
        let mut failed: Vec<&mut Option<Error>> = Vec::new();
        let mut wanted = Vec::new();
        for want in wants.iter_mut() {
            // Paths are checked to be UTF-8 when they are scanned.
            let key = std::str::from_utf8(&want.entry.path).unwrap_or_default();
            wanted.push((key, want.from, &mut *want.into));
            failed.push(&mut want.failed);
        }
        for (failed, outcome) in failed.into_iter().zip(fetch(&self.runtime, &*self.store, wanted)) {
            *failed = outcome.err().map(|e| match e.kind() {
                Kind::NotFound => changed("it is gone"),
                Kind::Corrupt => changed("it is shorter than it was"),
                _ => e,
            });
        }
    }

    fn notices_changes(&self) -> bool {
        false
    }

    fn retries(&self) -> u64 {
        self.store.retries()
    }

    fn remove(&self, entry: &Entry) -> Result<bool> {
        let key = String::from_utf8_lossy(&entry.path).into_owned();
        let now = match self.runtime.block_on(self.store.head(&key)) {
            Ok(now) => now,
            Err(e) if e.kind() == Kind::NotFound => return Ok(false),
            Err(e) => return Err(e),
        };
        // Headers tell times by the second, listings may by the millisecond.
        if (now.size, now.modified.secs) != (entry.length, entry.mtime) {
            return Ok(false);
        }
        self.runtime.block_on(self.store.delete(vec![key]))?;
        Ok(true)
    }

    fn describe(&self) -> String {
        self.store.describe()
    }
}
