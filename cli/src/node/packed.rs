//! Namespaces that show a packed data set: opened with the node's own credentials, in one version until they are not mounted any
//! more.

use std::path::PathBuf;
use std::sync::Arc;

use granary_core::NamespaceId;
use granary_core::limits::Limits;
use granary_meta::{Metadata, NamespaceInfo, PackedSource};
use granary_packed::{Opening, Owner, manifest_of};
use granary_store::Store;

use super::Parts;
use super::openings::Openings;
use crate::exit::Outcome;
use crate::packed::{dir, place};
use crate::settings::Settings;

/// Which version of which data set is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    url: String,
    data_set: [u8; 16],
    version: u64,
}

impl Shown {
    pub(super) fn source(&self) -> PackedSource {
        PackedSource { url: self.url.clone(), version: Some(self.version) }
    }
}

/// What [`open`] gives: not yet served.
#[derive(Clone)]
pub(super) struct Opened {
    pub(super) meta: Arc<dyn Metadata>,
    /// Where the read cache is to have the namespace's objects from.
    pub(super) store: Arc<dyn Store>,
    pub(super) shown: Shown,
}

/// Opens the version that a mount now would show.
pub(super) async fn open(
    parts: &Parts,
    info: &NamespaceInfo,
    source: &PackedSource,
    openings: &Openings,
) -> Outcome<Opened> {
    let place = place(source, &parts.settings)?;
    let manifest = manifest_of(&place, source).await?;
    let owner = Owner { uid: info.uid, gid: info.gid, mode: info.mode, time: parts.clock.now() };
    let dir = dir(&parts.settings.cache, info.id);
    tracing::info!(
        namespace = %info.name, version = manifest.version(), shards = manifest.shards().len(),
        "opening the packed data set {}", source.url
    );
    let opening = Arc::new(Opening::default());
    let _told = openings.begin(info.id, info.name.clone(), source.url.clone(), opening.clone());
    let opened = granary_packed::open(info.id, place, manifest, owner, &dir, &opening).await?;
    tracing::info!(
        namespace = %info.name, version = opened.version, entries = opened.meta.usage().inodes,
        "opened the packed data set {}", source.url
    );
    let shown = Shown { url: source.url.clone(), data_set: opened.data_set, version: opened.version };
    Ok(Opened { meta: opened.meta, store: opened.store, shown })
}

/// Whether a mount now would show the same.
pub(super) async fn is_current(shown: &Shown, source: &PackedSource, parts: &Parts) -> Outcome<bool> {
    let manifest = manifest_of(&place(source, &parts.settings)?, source).await?;
    Ok((manifest.data_set(), manifest.version()) == (shown.data_set, shown.version))
}

/// Where its tree's stage is, in which nothing ever lies: not among those that a start brings back. And limits by which its
/// objects, which are not ours, are never rewritten.
pub(super) fn tree_of(settings: &Settings, id: NamespaceId) -> (PathBuf, Limits) {
    let limits = Limits { compaction_bytes_per_s: 0, ..settings.limits.clone() };
    (dir(&settings.cache, id).join("stage"), limits)
}
