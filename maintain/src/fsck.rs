//! Is everything there, and does it agree? A namespace's metadata with itself, with the store, and the store's objects with
//! their own checksums.
//!
//! While nodes write, the store's listing and the metadata are of two moments. In which order things happen tells what may
//! differ: an object is stored before metadata names it, and deleted only after metadata durably stopped naming it, for ever.
//! So the listing comes first, and
//!
//! * an object that is listed and then not known to the metadata was not named when it was listed: it is unnamed;
//! * an object that is known and was not listed may be newer than the listing. It is asked for by name; when it is not there,
//!   and the metadata *then* still says that it is in use, it is lost.
//!
//! What is in an object never changes, so everything else may be compared at any time.

mod known;
mod listed;
mod object;

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::StreamExt;
use granary_core::id::object_key;
use granary_core::{Ino, Kind, NamespaceId, NamespaceName, Result};
use granary_meta::record::ObjectRecord;
use granary_meta::{ObjectInfo, Volume};
use granary_store::Store;
use serde::{Deserialize, Serialize};

use crate::blocking;
use crate::finding::{FILES_MAX, FileRef, Finding, Findings, What};
use crate::progress::Progress;
use known::{Known, Use};
use listed::Listed;
use object::{Seen, Wrong};

/// Objects that are read at once; with their payload each has up to 16 MiB.
const READS_AT_ONCE: usize = 8;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FsckOptions {
    /// Read every object, and verify every checksum.
    pub data: bool,
    /// Do not read objects' footers either: the listing must do.
    pub quick: bool,
    /// Make wrong counts right where that is proven.
    pub repair: bool,
}

/// What was looked at of one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    pub namespace: String,
    pub inodes: u64,
    pub objects: u64,
    /// Bytes of files that are in objects.
    pub bytes: u64,
    /// Bytes that nodes have and the store has not yet.
    pub staged_bytes: u64,
    /// Objects that the metadata does not know.
    pub unnamed_objects: u64,
    pub unnamed_bytes: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FsckReport {
    pub namespaces: Vec<Checked>,
    pub findings: Findings,
}

/// Checks these namespaces, or all when none is named. What is wrong is in the report.
///
/// Errors: `NotFound` for a namespace that is none; what store and metadata say when they cannot be asked.
pub async fn run(
    volume: &Arc<Volume>,
    store: &dyn Store,
    names: &[NamespaceName],
    options: FsckOptions,
    progress: &Arc<Progress>,
) -> Result<FsckReport> {
    let _wanted = progress.while_wanted();
    let mut report = FsckReport::default();
    for (name, ns) in chosen(volume, names).await? {
        let mut check =
            Check { volume, store, name: name.to_string(), ns, options, progress, findings: Vec::new() };
        let Some(checked) = check.run().await? else { continue };
        report.namespaces.push(checked);
        for finding in check.finish().await? {
            report.findings.add(finding);
        }
    }
    Ok(report)
}

/// The namespaces of these names, or all.
pub(crate) async fn chosen(
    volume: &Arc<Volume>,
    names: &[NamespaceName],
) -> Result<Vec<(NamespaceName, NamespaceId)>> {
    let (asked, names) = (volume.clone(), names.to_vec());
    blocking(move || {
        let all = asked.inventory()?.namespaces;
        if names.is_empty() {
            return Ok(all);
        }
        names.into_iter().map(|name| Ok((name.clone(), asked.namespace(&name)?.id()))).collect()
    })
    .await
}

/// A finding before its files' paths are known.
#[derive(Debug)]
struct Draft {
    what: What,
    object: Option<ObjectInfo>,
    inodes: Vec<Ino>,
    message: String,
}

struct Check<'a> {
    volume: &'a Arc<Volume>,
    store: &'a dyn Store,
    name: String,
    ns: NamespaceId,
    options: FsckOptions,
    progress: &'a Arc<Progress>,
    findings: Vec<Draft>,
}

impl Check<'_> {
    async fn run(&mut self) -> Result<Option<Checked>> {
        if self.options.repair {
            self.repair().await?;
        }
        self.progress.step(format!("{}: listing the store", self.name), 0);
        let listed = Listed::read(self.store, self.ns, self.progress).await?;
        self.progress.step(format!("{}: reading the metadata", self.name), 0);
        let (volume, ns, progress) = (self.volume.clone(), self.ns, self.progress.clone());
        let known = match blocking(move || Known::read(&volume, ns, &progress)).await {
            Ok(Some(known)) => known,
            Ok(None) => return Ok(None),
            Err(e) if known::is_damage(&e) => {
                self.add(What::Metadata, None, &[], format!("the metadata cannot be read: {e}"));
                return Ok(Some(Checked { namespace: self.name.clone(), ..Checked::default() }));
            }
            Err(e) => return Err(e),
        };
        self.contradictions(&known);
        self.compare(&known, &listed).await?;
        Ok(Some(self.summary(&known, &listed)))
    }

    async fn repair(&mut self) -> Result<()> {
        let (volume, ns) = (self.volume.clone(), self.ns);
        let mended = match blocking(move || volume.namespace_by_id(ns)?.repair()).await {
            Err(e) if known::is_damage(&e) || e.kind() == Kind::NotFound => return Ok(()),
            mended => mended?,
        };
        for problem in mended {
            let inodes: Vec<Ino> = problem.ino.into_iter().collect();
            self.findings.push(Draft { what: What::Repaired, object: None, inodes, message: problem.text });
        }
        Ok(())
    }

    fn add(&mut self, what: What, object: Option<ObjectInfo>, uses: &[Use], message: String) {
        let inodes: BTreeSet<Ino> = uses.iter().map(|u| u.ino).collect();
        let inodes = inodes.into_iter().collect();
        self.findings.push(Draft { what, object, inodes, message });
    }

    /// What the metadata says against itself.
    fn contradictions(&mut self, known: &Known) {
        for problem in &known.problems {
            let record = problem.object.and_then(|id| known.objects.get(&id));
            let uses = problem.object.map_or(&[][..], |id| known.uses_of(id));
            let mut inodes: BTreeSet<Ino> = uses.iter().map(|u| u.ino).collect();
            inodes.extend(problem.ino);
            self.findings.push(Draft {
                what: What::Metadata,
                object: record.map(|r| r.info),
                inodes: inodes.into_iter().collect(),
                message: problem.text.clone(),
            });
        }
        for u in &known.uses {
            let Some(record) = known.objects.get(&u.object) else { continue };
            let end = u.object_offset.checked_add(u.len);
            let message = if u.kind != record.info.kind {
                format!("an extent at file offset {} calls its object a {:?}", u.at, u.kind)
            } else if end.is_none_or(|end| end > record.info.payload_len) {
                format!(
                    "an extent at file offset {} names bytes {} and {} following of an object that has {}",
                    u.at, u.object_offset, u.len, record.info.payload_len
                )
            } else {
                continue;
            };
            self.add(What::Outside, Some(record.info), &[*u], message);
        }
    }

    /// The metadata against the store.
    async fn compare(&mut self, known: &Known, listed: &Listed) -> Result<()> {
        let live: Vec<&ObjectRecord> = known.objects.values().filter(|r| r.dead_since.is_none()).collect();
        let mut there = Vec::new();
        for record in live {
            let info = record.info;
            match listed.objects.get(&(info.id, info.kind)) {
                None => self.if_lost(info, known.uses_of(info.id)).await?,
                Some(&size) if size != info.total_len => {
                    let message =
                        format!("an object has {size} bytes, and had {} when it was stored", info.total_len);
                    self.add(What::Length, Some(info), known.uses_of(info.id), message);
                }
                Some(_) => there.push(info),
            }
        }
        if !self.options.quick {
            self.read(known, there).await?;
        }
        for key in &listed.strange {
            self.add(What::Strange, None, &[], format!("{key} in the store is no object of granary's"));
        }
        Ok(())
    }

    /// An object that was not in the listing, or gone afterwards.
    async fn if_lost(&mut self, info: ObjectInfo, uses: &[Use]) -> Result<()> {
        let key = object_key(self.ns, info.kind, info.id);
        match self.store.head(&key).await {
            // Stored since the listing.
            Ok(_) => return Ok(()),
            Err(e) if e.kind() == Kind::NotFound => {}
            Err(e) => return Err(e),
        }
        // Only now, because what was dead then may have been deleted rightly.
        let (volume, ns) = (self.volume.clone(), self.ns);
        let record = blocking(move || volume.namespace_by_id(ns)?.object_record(info.id)).await;
        let in_use = match record {
            Ok(record) => record.is_some_and(|r| r.dead_since.is_none()),
            Err(e) if e.kind() == Kind::NotFound => false,
            Err(e) => return Err(e),
        };
        if in_use {
            let bytes: u64 = uses.iter().map(|u| u.len).sum();
            let message = format!("an object with {bytes} bytes of files is not in the store");
            self.add(What::Lost, Some(info), uses, message);
        }
        Ok(())
    }

    async fn read(&mut self, known: &Known, objects: Vec<ObjectInfo>) -> Result<()> {
        let data = self.options.data;
        let doing = if data { "reading all objects" } else { "reading objects' footers" };
        self.progress.step(format!("{}: {doing}", self.name), objects.len() as u64);
        let (store, ns, progress) = (self.store, self.ns, self.progress.clone());
        let mut looks = futures::stream::iter(objects)
            .map(|info| {
                let progress = &progress;
                async move {
                    let seen = object::look(store, (ns, info), known.uses_of(info.id), data, progress).await;
                    (info, seen)
                }
            })
            .buffer_unordered(READS_AT_ONCE);
        let mut gone = Vec::new();
        while let Some((info, seen)) = looks.next().await {
            match seen? {
                Seen::Gone => gone.push(info),
                Seen::Wrong(wrong) => {
                    for Wrong { what, message, uses } in wrong {
                        self.add(what, Some(info), &uses, message);
                    }
                }
            }
        }
        drop(looks);
        for info in gone {
            self.if_lost(info, known.uses_of(info.id)).await?;
        }
        Ok(())
    }

    fn summary(&mut self, known: &Known, listed: &Listed) -> Checked {
        let unnamed = || listed.objects.iter().filter(|((id, _), _)| !known.objects.contains_key(id));
        let checked = Checked {
            namespace: self.name.clone(),
            inodes: known.inodes,
            objects: known.objects.len() as u64,
            bytes: known.uses.iter().map(|u| u.len).sum(),
            staged_bytes: known.staged.values().sum(),
            unnamed_objects: unnamed().count() as u64,
            unnamed_bytes: unnamed().map(|(_, size)| size).sum(),
        };
        if checked.unnamed_objects > 0 {
            let message = format!(
                "{} objects in the store, of {} bytes, are not known to the metadata",
                checked.unnamed_objects, checked.unnamed_bytes
            );
            self.add(What::Unnamed, None, &[], message);
        }
        checked
    }

    /// The findings, with the paths of the files that they concern.
    async fn finish(self) -> Result<Vec<Finding>> {
        let wanted: BTreeSet<Ino> =
            self.findings.iter().flat_map(|f| f.inodes.iter().take(FILES_MAX)).copied().collect();
        let paths = if wanted.is_empty() {
            Ok(Default::default())
        } else {
            self.progress.step(format!("{}: looking for paths", self.name), 0);
            let (volume, ns, progress) = (self.volume.clone(), self.ns, self.progress.clone());
            blocking(move || known::paths(&volume, ns, &wanted, &progress)).await
        };
        let paths = match paths {
            Err(e) if known::is_damage(&e) => Default::default(),
            paths => paths?,
        };
        let file = |ino: &Ino| FileRef { inode: ino.0, path: paths.get(ino).cloned() };
        let finding = |draft: Draft| Finding {
            namespace: self.name.clone(),
            what: draft.what,
            object: draft.object.map(|info| object_key(self.ns, info.kind, info.id)),
            files: draft.inodes.iter().take(FILES_MAX).map(file).collect(),
            files_total: draft.inodes.len() as u64,
            message: draft.message,
            mend: mend(draft.what).to_owned(),
        };
        Ok(self.findings.into_iter().map(finding).collect())
    }
}

fn mend(what: What) -> &'static str {
    match what {
        What::Metadata => {
            "granary fsck --repair makes wrong counts right; for the rest restore a backup, and report it"
        }
        What::Repaired => "repaired",
        What::Lost => "bring it back from a copy of the bucket, or delete the files: reading them gives EIO",
        What::Length | What::Damaged => {
            "bring it back from a copy of the bucket, or write the files anew: reading what is damaged gives EIO"
        }
        What::Outside | What::Directory => "write the files anew, from a copy, and report it",
        What::Unnamed => "they are being stored, or a crash left them: granary gc tells which",
        What::Strange => "nothing is done to it",
    }
}

#[cfg(test)]
mod tests;
