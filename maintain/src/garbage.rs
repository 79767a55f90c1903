//! What lies in the store and nobody needs: objects without a live byte, objects that nobody ever named, objects of
//! namespaces that were removed.
//!
//! An object that the metadata does not know may be on its way: a node stores it before it names it, and may hang between the
//! two for any time. So the age by the store's own clock only says which objects are worth a question; what is deleted is
//! decided by the metadata. In this order, for each page of the listing:
//!
//! 1. LIST.
//! 2. Each object that is old enough and not known is *condemned* (`meta/src/machine/condemn.rs`): it never will be known. One
//!    that was named since the listing is known, and left.
//! 3. That is made durable.
//! 4. DELETE.
//!
//! Stopped in between, objects are left that the next run finds again. A node that comes to name a condemned object is told
//! to store its bytes again. What a late PUT brings back after the DELETE is condemned already.
//!
//! Objects of a namespace that was removed can never be named, because ids of namespaces are never used twice. A namespace
//! that this metadata has not made *yet* means that the metadata is older than the store (a restored backup): what lies there
//! is told, and left.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use granary_core::id::{object_key, parse_object_key};
use granary_core::{Clock, Error, Kind, NamespaceId, NamespaceName, ObjectId, Result, Timestamp};
use granary_meta::{Inventory, Metadata, Volume};
use granary_store::{ObjectMeta, Store};
use serde::{Deserialize, Serialize};

use crate::blocking;
use crate::fsck::chosen;
use crate::progress::Progress;

/// As many as S3 lists, and deletes, in one request.
const KEYS_AT_ONCE: usize = 1000;
/// Objects that are told one by one; the others are counted.
pub const OBJECTS_TOLD_MAX: usize = 1000;
/// How long an object stays after its last byte died, for reads that looked up its place before: as in the drain of a node.
pub const DEAD_GRACE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GcOptions {
    /// How old an object must be, by the store's clock, before the metadata is asked about it.
    pub grace_ms: u64,
    pub delete: bool,
}

/// Why an object is of no use, or why it is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// No file has bytes in it any more.
    Dead,
    /// Nobody named it, for longer than the grace.
    Unnamed,
    /// Its namespace was removed.
    Removed,
    /// Nobody named it yet: it may be on its way.
    Young,
    /// Its namespace is unknown to this metadata, which is older than the store.
    Later,
    /// It is no object of granary's.
    Strange,
}

impl Why {
    pub fn is_garbage(self) -> bool {
        matches!(self, Why::Dead | Why::Unnamed | Why::Removed)
    }
}

/// Objects of one namespace that lie there for one reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heap {
    pub objects: u64,
    pub bytes: u64,
    pub oldest_ms: u64,
    pub deleted_objects: u64,
    pub deleted_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GarbageObject {
    pub key: String,
    pub bytes: u64,
    pub age_ms: u64,
    pub why: Why,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeapOf {
    /// The name, or `removed <id>`.
    pub namespace: String,
    pub why: Why,
    #[serde(flatten)]
    pub heap: Heap,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcReport {
    pub heaps: Vec<HeapOf>,
    /// At most [`OBJECTS_TOLD_MAX`].
    pub objects: Vec<GarbageObject>,
    pub deleted: bool,
}

impl GcReport {
    fn sum(&self, of: impl Fn(&Heap) -> u64) -> u64 {
        self.heaps.iter().filter(|h| h.why.is_garbage()).map(|h| of(&h.heap)).sum()
    }

    /// Objects and bytes that nobody needs, also those that were deleted.
    pub fn garbage(&self) -> (u64, u64) {
        (self.sum(|h| h.objects), self.sum(|h| h.bytes))
    }

    pub fn gone(&self) -> (u64, u64) {
        (self.sum(|h| h.deleted_objects), self.sum(|h| h.deleted_bytes))
    }
}

/// Looks through these namespaces, or through all and what is left of removed ones. With `delete` garbage is deleted.
///
/// Errors: `NotFound` for a namespace that is none, `Invalid` when the store is another volume's; what store and metadata say.
/// What was deleted before stays so.
pub async fn run(
    volume: &Arc<Volume>,
    store: &dyn Store,
    clock: &dyn Clock,
    names: &[NamespaceName],
    options: GcOptions,
    progress: &Arc<Progress>,
) -> Result<GcReport> {
    let _wanted = progress.while_wanted();
    // Another volume's objects would all look like garbage.
    granary_store::marker::check(store, &volume.info().uuid).await?;
    let namespaces = chosen(volume, names).await?;
    let mut gc = Gc {
        volume,
        store,
        clock,
        options,
        progress,
        names: BTreeMap::new(),
        heaps: BTreeMap::new(),
        told: Vec::new(),
    };
    gc.names = namespaces.iter().map(|(name, id)| (*id, name.clone())).collect();
    progress.step("listing the store", 0);
    if names.is_empty() {
        gc.list("ns/").await?;
    } else {
        for (_, ns) in &namespaces {
            gc.list(&format!("ns/{ns}/")).await?;
        }
    }
    progress.step("looking for dead objects", namespaces.len() as u64);
    for (_, ns) in &namespaces {
        gc.dead(*ns).await?;
        progress.advance(1)?;
    }
    Ok(gc.report())
}

/// One object of a page.
struct Candidate {
    id: ObjectId,
    meta: ObjectMeta,
}

struct Gc<'a> {
    volume: &'a Arc<Volume>,
    store: &'a dyn Store,
    clock: &'a dyn Clock,
    options: GcOptions,
    progress: &'a Progress,
    names: BTreeMap<NamespaceId, NamespaceName>,
    /// By namespace (`None`: the key names none) and reason.
    heaps: BTreeMap<(Option<NamespaceId>, Why), Heap>,
    told: Vec<GarbageObject>,
}

impl Gc<'_> {
    async fn list(&mut self, prefix: &str) -> Result<()> {
        let mut after: Option<String> = None;
        loop {
            let page = self.store.list(prefix, after.as_deref(), KEYS_AT_ONCE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.key.clone());
            self.progress.advance(page.len() as u64)?;
            self.page(page).await?;
        }
    }

    async fn page(&mut self, page: Vec<ObjectMeta>) -> Result<()> {
        let mut by_ns: BTreeMap<NamespaceId, Vec<Candidate>> = BTreeMap::new();
        for meta in page {
            match parse_object_key(&meta.key) {
                Some((ns, _, id)) => by_ns.entry(ns).or_default().push(Candidate { id, meta }),
                None => self.count(None, Why::Strange, &meta),
            }
        }
        // After the listing: a namespace whose object was listed was made before it.
        let volume = self.volume.clone();
        let inventory = blocking(move || volume.inventory()).await?;
        for (ns, objects) in by_ns {
            match place(&inventory, ns) {
                Place::There(name) => {
                    self.names.insert(ns, name);
                    self.known_namespace(ns, objects).await?;
                }
                Place::Removed => self.all_of(ns, Why::Removed, objects).await?,
                Place::Later => objects.iter().for_each(|o| self.count(Some(ns), Why::Later, &o.meta)),
            }
        }
        Ok(())
    }

    async fn known_namespace(&mut self, ns: NamespaceId, objects: Vec<Candidate>) -> Result<()> {
        let volume = self.volume.clone();
        let looked = blocking(move || {
            let space = volume.namespace_by_id(ns)?;
            let mut unknown = Vec::new();
            for object in objects {
                if space.object_record(object.id)?.is_none() {
                    let condemned = space.is_condemned(object.id)?;
                    unknown.push((object, condemned));
                }
            }
            Ok(unknown)
        });
        let unknown = match looked.await {
            // Removed a moment ago: the next run finds it so.
            Err(e) if e.kind() == Kind::NotFound => return Ok(()),
            unknown => unknown?,
        };
        let (old, young): (Vec<_>, Vec<_>) = unknown.into_iter().partition(|(object, condemned)| {
            *condemned || self.age_ms(object.meta.modified) >= self.options.grace_ms
        });
        young.iter().for_each(|(object, _)| self.count(Some(ns), Why::Young, &object.meta));
        let old: Vec<Candidate> = old.into_iter().map(|(object, _)| object).collect();
        if !self.options.delete || old.is_empty() {
            old.iter().for_each(|o| self.count(Some(ns), Why::Unnamed, &o.meta));
            return Ok(());
        }
        let (volume, ids) = (self.volume.clone(), old.iter().map(|o| o.id).collect());
        let condemned = blocking(move || {
            let condemned = volume.namespace_by_id(ns)?.condemn(ids)?;
            volume.flush()?;
            Ok(condemned)
        });
        let condemned = match condemned.await {
            Err(e) if e.kind() == Kind::NotFound => return Ok(()),
            condemned => condemned?,
        };
        // What was named since the look is no garbage.
        let doomed = old.into_iter().zip(condemned).filter_map(|(object, doomed)| doomed.then_some(object));
        self.all_of(ns, Why::Unnamed, doomed.collect()).await
    }

    /// All of these are garbage for certain.
    async fn all_of(&mut self, ns: NamespaceId, why: Why, objects: Vec<Candidate>) -> Result<()> {
        objects.iter().for_each(|o| self.count(Some(ns), why, &o.meta));
        if self.options.delete && !objects.is_empty() {
            self.store.delete(objects.iter().map(|o| o.meta.key.clone()).collect()).await?;
            let heap = self.heaps.entry((Some(ns), why)).or_default();
            heap.deleted_objects += objects.len() as u64;
            heap.deleted_bytes += objects.iter().map(|o| o.meta.size).sum::<u64>();
        }
        Ok(())
    }

    /// Objects whose last byte is gone. A node that has the namespace mounted deletes them by itself.
    async fn dead(&mut self, ns: NamespaceId) -> Result<()> {
        let grace_ms = DEAD_GRACE.as_millis() as u64;
        loop {
            let volume = self.volume.clone();
            let space = match blocking(move || volume.namespace_by_id(ns)).await {
                Err(e) if e.kind() == Kind::NotFound => return Ok(()),
                space => space?,
            };
            let max = if self.options.delete { KEYS_AT_ONCE } else { usize::MAX };
            let mut dead = space.dead_objects(max).await?;
            if self.options.delete {
                let now = self.clock.now();
                dead.retain(|d| age_ms(now, d.since) >= grace_ms);
            }
            for d in &dead {
                let key = object_key(ns, d.object.kind, d.object.id);
                self.count(
                    Some(ns),
                    Why::Dead,
                    &ObjectMeta { key, size: d.object.total_len, modified: d.since },
                );
            }
            if !self.options.delete || dead.is_empty() {
                return Ok(());
            }
            // That nobody refers to them must survive a power loss before they go.
            space.sync().await?;
            self.store
                .delete(dead.iter().map(|d| object_key(ns, d.object.kind, d.object.id)).collect())
                .await?;
            let heap = self.heaps.entry((Some(ns), Why::Dead)).or_default();
            heap.deleted_objects += dead.len() as u64;
            heap.deleted_bytes += dead.iter().map(|d| d.object.total_len).sum::<u64>();
            space.forget_objects(dead.iter().map(|d| d.object.id).collect()).await?;
        }
    }

    fn age_ms(&self, since: Timestamp) -> u64 {
        age_ms(self.clock.now(), since)
    }

    fn count(&mut self, ns: Option<NamespaceId>, why: Why, object: &ObjectMeta) {
        let age_ms = self.age_ms(object.modified);
        let heap = self.heaps.entry((ns, why)).or_default();
        heap.objects += 1;
        heap.bytes += object.size;
        heap.oldest_ms = heap.oldest_ms.max(age_ms);
        if self.told.len() < OBJECTS_TOLD_MAX {
            self.told.push(GarbageObject { key: object.key.clone(), bytes: object.size, age_ms, why });
        }
    }

    fn report(self) -> GcReport {
        let name = |ns: Option<NamespaceId>, why: Why| match (ns, ns.and_then(|ns| self.names.get(&ns))) {
            (_, Some(name)) => name.to_string(),
            (Some(ns), None) if why == Why::Removed => format!("removed {ns}"),
            (Some(ns), None) => ns.to_string(),
            (None, None) => "-".to_owned(),
        };
        let heaps = self.heaps.iter().map(|((ns, why), heap)| HeapOf {
            namespace: name(*ns, *why),
            why: *why,
            heap: heap.clone(),
        });
        GcReport { heaps: heaps.collect(), objects: self.told, deleted: self.options.delete }
    }
}

fn age_ms(now: Timestamp, since: Timestamp) -> u64 {
    now.unix_ms().saturating_sub(since.unix_ms())
}

enum Place {
    There(NamespaceName),
    Removed,
    Later,
}

fn place(inventory: &Inventory, ns: NamespaceId) -> Place {
    match inventory.namespaces.iter().find(|(_, id)| *id == ns) {
        Some((name, _)) => Place::There(name.clone()),
        None if ns < inventory.next => Place::Removed,
        None => Place::Later,
    }
}

/// Refuses what cannot be.
pub fn check_options(options: &GcOptions) -> Result<()> {
    if options.grace_ms > 3650 * 86_400_000 {
        return Err(Error::new(Kind::Invalid, "a grace of more than ten years keeps all garbage for ever"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
