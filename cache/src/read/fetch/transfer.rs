//! What one fetch asks of the store, and how its answer is verified.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use granary_core::id::object_key;
use granary_core::limits::FRAME_BYTES;
use granary_core::{Error, Kind, NamespaceId, ObjectId, Result};
use granary_meta::ObjectInfo;
use granary_store::format::Trailer;

use super::flight::{Fetched, Landing};
use super::{COMPRESSED_FOOTER_BYTES, Fetcher, Shareable, frame_number, is_compressed};
use crate::read::stats::add;
use crate::read::sums::{FrameSums, chunk_range, verify};

/// An object's checksums on their way.
pub(super) type FooterFuture = BoxFuture<'static, Shareable<Arc<FrameSums>>>;

impl Fetcher {
    /// The run's bytes, verified. What does not match its checksums is fetched once more, checksums too, to tell a bad
    /// transfer or a bad local table from a bad object.
    pub(super) async fn fetch(self: &Arc<Self>, landing: &Landing, parallel: bool) -> Result<Fetched> {
        let object = &landing.object;
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
        if is_compressed(&landing.object) {
            return self.fetch_compressed(landing).await;
        }
        let (ns, object, range) = (landing.ns, &landing.object, landing.range());
        let (bytes, sums) = match self.known_sums(ns, object) {
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
        let bad = landing.chunks(&bytes).map(|(at, chunk)| check(landing, &sums, at, &chunk)).collect();
        Ok(Fetched { bytes, sums, bad })
    }

    /// The same of an object whose frames are compressed: where they are, its footer says.
    async fn fetch_compressed(self: &Arc<Self>, landing: &Landing) -> Result<Fetched> {
        let (ns, object, range) = (landing.ns, &landing.object, landing.range());
        let sums = match self.known_sums(ns, object) {
            Some(sums) => sums,
            None => self.footer(ns, object).await?,
        };
        let Some(compressed) = sums.compressed.clone() else {
            return Err(Error::new(Kind::Corrupt, "it is shorter than its payload, and not compressed"));
        };
        let stored = self.get(ns, object, compressed.stored_range(&range)).await?;
        let chunks: Vec<Range<u64>> = (0..landing.flights.len() as u32)
            .map(|at| chunk_range(landing.first + at, object.payload_len))
            .collect();
        let from = range.start;
        let unpacked = self.runtime.spawn_blocking(move || {
            let mut bytes = BytesMut::with_capacity((range.end - from) as usize);
            let mut bad = Vec::new();
            let begin = compressed.stored_range(&range).start;
            for chunk in chunks {
                let within = compressed.stored_range(&chunk);
                let part = &stored[(within.start - begin) as usize..(within.end - begin) as usize];
                let unpacked = compressed.unpack(&chunk, part);
                // What cannot be had keeps its place; nobody is given it.
                bytes.extend_from_slice(unpacked.as_deref().unwrap_or(&[]));
                bytes.resize((chunk.end - from) as usize, 0);
                bad.push(unpacked.err());
            }
            (bytes.freeze(), bad)
        });
        let (bytes, broken) =
            unpacked.await.map_err(|e| Error::new(Kind::Bug, "unpacking ended early").with_source(e))?;
        let bad = landing
            .chunks(&bytes)
            .zip(broken)
            .map(|((at, chunk), broken)| match broken {
                Some(e) => Some(Arc::new(landing.named(e))),
                None => check(landing, &sums, at, &chunk),
            })
            .collect();
        Ok(Fetched { bytes, sums, bad })
    }

    async fn get(&self, ns: NamespaceId, object: &ObjectInfo, range: Range<u64>) -> Result<Bytes> {
        let key = object_key(ns, object.kind, object.id);
        let (began, want) = (self.clock.monotonic(), range.end - range.start);
        let bytes = self.store.get(&key, range).await;
        let took = self.clock.monotonic().saturating_sub(began);
        add(&self.stats.gets, 1);
        add(&self.stats.get_micros, took.as_micros() as u64);
        let bytes = bytes?;
        add(&self.stats.fetched_bytes, bytes.len() as u64);
        self.note_fetched(bytes.len() as u64, took);
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
        let got = match is_compressed(&object) {
            true => self.get_footer_at_end(ns, &object).await,
            false => self.get(ns, &object, object.payload_len..object.total_len).await,
        };
        let sums = got.and_then(|bytes| FrameSums::of_footer(ns, &object, &bytes)).map(Arc::new);
        if let Ok(sums) = &sums {
            self.sums().insert(object.id, sums.clone());
        }
        self.footers().remove(&object.id);
        sums.map_err(Arc::new)
    }

    /// The footer of an object of which only the end is known to be there: the trailer says how long it is.
    async fn get_footer_at_end(&self, ns: NamespaceId, object: &ObjectInfo) -> Result<Bytes> {
        let mut len = COMPRESSED_FOOTER_BYTES.min(object.total_len);
        let mut end = self.get(ns, object, object.total_len - len..object.total_len).await?;
        let footer_len = Trailer::parse_end(&end)?.footer_and_trailer_len();
        if footer_len > len {
            // The trailer bounds it to 1 MiB.
            len = footer_len.min(object.total_len);
            end = self.get(ns, object, object.total_len - len..object.total_len).await?;
        }
        Ok(end.split_off((len - footer_len.min(len)) as usize))
    }

    /// The object's checksums, from memory or disk.
    pub(super) fn known_sums(&self, ns: NamespaceId, object: &ObjectInfo) -> Option<Arc<FrameSums>> {
        let fits = |sums: &FrameSums| sums.payload_len == object.payload_len;
        if let Some(sums) = self.sums().get(&object.id) {
            return fits(sums).then(|| sums.clone());
        }
        let sums = Arc::new(self.disk.read_sums(ns, object.id).filter(fits)?);
        self.sums().insert(object.id, sums.clone());
        Some(sums)
    }

    fn forget_sums(&self, object: ObjectId) {
        self.sums().remove(&object);
        self.disk.remove_sums(object);
    }
}

/// The first frame of a chunk that does not match its checksum, as an error.
fn check(landing: &Landing, sums: &FrameSums, at: usize, chunk: &Bytes) -> Option<Arc<Error>> {
    let index = landing.first + at as u32;
    let frame = verify(chunk, sums.of_chunk(index)).err()?;
    let from = u64::from(frame_number(index, frame as u32)) * FRAME_BYTES;
    let why =
        format!("the 64 KiB from byte {from} on do not match their checksum; restore the object from a copy");
    Some(Arc::new(landing.named(Error::new(Kind::Corrupt, why))))
}
