//! Deleting the source: only what was read back from the data set, and only while it still is what was packed.

use std::collections::HashSet;

use granary_core::{Error, Failpoint, Kind, Result};

use super::entry::{Content, Entry};
use super::progress::Phase;
use super::work::Made;
use super::{Packer, Report, readback};
use crate::dataset::{self, DataSet};
use crate::manifest::{self, Manifest};

impl Packer<'_> {
    /// What became of each planned shard, when an earlier run made the version: by their names, with what it left out.
    pub(super) fn made_before(&self, latest: &Manifest) -> Result<Vec<Made>> {
        let data = DataSet::of_manifest(self.place.clone(), latest.clone(), dataset::Options::default());
        let mut made = Vec::new();
        for (n, planned) in self.plan.shards.iter().enumerate() {
            let name = format!("shards/v1-{n:06}.tar");
            let found = latest.shards().iter().position(|shard| shard.path == name);
            let mut excluded = HashSet::new();
            let index = match found {
                Some(number) => Some(self.runtime.block_on(data.index(number as u32))?),
                None => None,
            };
            let mut entries = self.plan.entries_of(planned);
            let mut ordinal = 0;
            while let Some(entry) = entries.next_entry()? {
                let has = match &index {
                    Some(index) => !entry.is_file() || index.find(&entry.path)?.is_some(),
                    None => false,
                };
                if !has {
                    excluded.insert(ordinal);
                }
                ordinal += 1;
            }
            let shard = found.map(|number| latest.shards()[number].clone());
            made.push(Made { shard, excluded: excluded.into(), found: true });
        }
        Ok(made)
    }

    /// Deletes what was packed and what the data set had already, each only if it still is that.
    pub(super) fn delete(&self, version: &Manifest, made: &[Made], report: &mut Report) -> Result<()> {
        let Packer { place, runtime, plan, progress, .. } = *self;
        let data = DataSet::of_manifest(place.clone(), version.clone(), dataset::Options::default());
        // It is there, and says what was said.
        let written = runtime.block_on(manifest::read(place, version.version()))?;
        if written != *version {
            return Err(Error::new(
                Kind::Corrupt,
                format!(
                    "version {} of {place} is not as it was written; nothing was deleted",
                    version.version()
                ),
            ));
        }
        if plan.unchanged > 0 {
            self.check(version, false)?;
        }
        progress.begin(Phase::Deleting, plan.entries + plan.unchanged, plan.payload_bytes);
        for (planned, made) in plan.shards.iter().zip(made) {
            let mut entries = plan.entries_of(planned);
            let mut ordinal = 0;
            while let Some(entry) = entries.next_entry()? {
                if !made.excluded.contains(&ordinal) {
                    self.delete_one(&entry, report)?;
                }
                ordinal += 1;
            }
        }
        let mut unchanged = plan.unchanged_entries();
        while let (Some(has), Some(entry)) = (unchanged.next_entry()?, unchanged.next_entry()?) {
            let same = match &has.content {
                Content::Range { container, offset } => {
                    let index = runtime.block_on(data.index(*container))?;
                    let crc = index.file(*offset as u32)?.crc32c;
                    readback::source_crc(self.source, &entry).is_ok_and(|now| now == crc)
                }
                content => *content == entry.content,
            };
            if same {
                self.delete_one(&entry, report)?;
            } else {
                report.kept += 1;
            }
        }
        self.source.removed_all();
        Ok(())
    }

    fn delete_one(&self, entry: &Entry, report: &mut Report) -> Result<()> {
        match self.source.remove(entry)? {
            // It goes when all that is in it has gone.
            _ if entry.is_directory() => {}
            true => report.deleted += 1,
            false => report.kept += 1,
        }
        Failpoint::PackAfterDelete.reach();
        self.progress.add(1, entry.length);
        Ok(())
    }
}
