//! What one fetch asks of the store, and how its answer is verified.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use granary_core::id::object_key;
use granary_core::limits::FRAME_BYTES;
use granary_core::{Error, Kind, NamespaceId, ObjectId, Result};
use granary_meta::ObjectInfo;

use super::flight::{Fetched, Landing};
use super::{Fetcher, Shareable, frame_number};
use crate::read::stats::add;
use crate::read::sums::{FrameSums, verify};

/// An object's checksums on their way.
pub(super) type FooterFuture = BoxFuture<'static, Shareable<Arc<FrameSums>>>;

impl Fetcher {
    /// The run's bytes, verified. What does not match its checksums is fetched once more, checksums too, to tell a bad
    /// transfer or a bad local table from a bad object.
    pub(super) async fn fetch(self: &Arc<Self>, landing: &Landing, parallel: bool) -> Result<Fetched> {
        let object = &landing.object;
        if object.total_len < object.payload_len {
            let why = format!("{} bytes cannot have {} of payload", object.total_len, object.payload_len);
            return Err(landing.named(Error::new(Kind::Bug, why)));
        }
        let first = self.fetch_once(landing, parallel).await.map_err(|e| landing.named(e));
        let why = match &first {
            Ok(fetched) => fetched.bad.iter().flatten().next().map(|e| e.to_string()),
            Err(e) => (e.kind() == Kind::Corrupt).then(|| e.to_string()),
        };
        let Some(why) = why else { return first };
        tracing::warn!("{why}; fetching it once more");
        self.forget_sums(object.id);
        let again = self.fetch_once(landing, parallel).await.map_err(|e| landing.named(e));
        let bad = match &again {
            Ok(fetched) => fetched.bad.iter().flatten().count(),
            Err(e) => usize::from(e.kind() == Kind::Corrupt),
        };
        add(&self.stats.object_corrupt, bad as u64);
        again
    }

    async fn fetch_once(self: &Arc<Self>, landing: &Landing, parallel: bool) -> Result<Fetched> {
        let (ns, object, range) = (landing.ns, &landing.object, landing.range());
        let (bytes, sums) = match self.known_sums(object) {
            Some(sums) => (self.get(ns, object, range.clone()).await?, sums),
            // The footer follows: one GET for both.
            None if range.end == object.payload_len => {
                let mut bytes = self.get(ns, object, range.start..object.total_len).await?;
                let footer = bytes.split_off((range.end - range.start) as usize);
                let sums = Arc::new(FrameSums::of_footer(ns, object, &footer)?);
                self.sums().insert(object.id, sums.clone());
                (bytes, sums)
            }
            None if parallel => {
                // Both are waited for: a footer given up half-way would keep others waiting.
                let (bytes, sums) =
                    tokio::join!(self.get(ns, object, range.clone()), self.footer(ns, object));
                (bytes?, sums?)
            }
            None => {
                let sums = self.footer(ns, object).await?;
                (self.get(ns, object, range.clone()).await?, sums)
            }
        };
        let check = |(at, chunk): (usize, Bytes)| {
            let index = landing.first + at as u32;
            let frame = verify(&chunk, sums.of_chunk(index)).err()?;
            let from = u64::from(frame_number(index, frame as u32)) * FRAME_BYTES;
            let why = format!(
                "the 64 KiB from byte {from} on do not match their checksum; restore the object from a copy"
            );
            Some(Arc::new(landing.named(Error::new(Kind::Corrupt, why))))
        };
        let bad = landing.chunks(&bytes).map(check).collect();
        Ok(Fetched { bytes, sums, bad })
    }

    async fn get(&self, ns: NamespaceId, object: &ObjectInfo, range: Range<u64>) -> Result<Bytes> {
        let key = object_key(ns, object.kind, object.id);
        let (began, want) = (self.clock.monotonic(), range.end - range.start);
        let bytes = self.store.get(&key, range).await;
        add(&self.stats.gets, 1);
        add(&self.stats.get_micros, self.clock.monotonic().saturating_sub(began).as_micros() as u64);
        let bytes = bytes?;
        add(&self.stats.fetched_bytes, bytes.len() as u64);
        if bytes.len() as u64 != want {
            return Err(Error::new(Kind::Corrupt, format!("the store gave {} of {want} bytes", bytes.len())));
        }
        Ok(bytes)
    }

    /// The object's checksums, from its footer in the store; one request however many fetches need it.
    async fn footer(self: &Arc<Self>, ns: NamespaceId, object: &ObjectInfo) -> Result<Arc<FrameSums>> {
        let flight = {
            let mut footers = self.footers();
            match footers.get(&object.id).and_then(WeakShared::upgrade) {
                Some(flight) => flight,
                None => {
                    let flight = self.clone().get_footer(ns, *object).boxed().shared();
                    footers.extend(flight.downgrade().map(|weak| (object.id, weak)));
                    flight
                }
            }
        };
        let flight: Shared<FooterFuture> = flight;
        flight.await.map_err(|e| e.duplicate())
    }

    async fn get_footer(self: Arc<Self>, ns: NamespaceId, object: ObjectInfo) -> Shareable<Arc<FrameSums>> {
        let got = self.get(ns, &object, object.payload_len..object.total_len).await;
        let sums = got.and_then(|bytes| FrameSums::of_footer(ns, &object, &bytes)).map(Arc::new);
        if let Ok(sums) = &sums {
            self.sums().insert(object.id, sums.clone());
        }
        self.footers().remove(&object.id);
        sums.map_err(Arc::new)
    }

    /// The object's checksums, from memory or disk.
    pub(super) fn known_sums(&self, object: &ObjectInfo) -> Option<Arc<FrameSums>> {
        let fits = |sums: &FrameSums| sums.payload_len == object.payload_len;
        if let Some(sums) = self.sums().get(&object.id) {
            return fits(sums).then(|| sums.clone());
        }
        let sums = Arc::new(self.disk.read_sums(object.id).filter(fits)?);
        self.sums().insert(object.id, sums.clone());
        Some(sums)
    }

    fn forget_sums(&self, object: ObjectId) {
        self.sums().remove(&object);
        self.disk.remove_sums(object);
    }
}
