//! Taking a file's extents from the metadata, while the drain may be moving them.

use std::sync::Arc;

use granary_core::{Kind, Result};
use granary_meta::{Attr, Extent, Place};

use super::{File, Stage};
use crate::extent_map::{advance, clip};
use crate::stage::Shape;

impl File {
    /// Makes the state that of the metadata (`attr` is what it said a moment ago), unless it is known already.
    pub(crate) async fn load(&self, attr: &Attr) -> Result<()> {
        if self.shared.many {
            // Without a lease it is loaded for one use, and again for the next.
            return self.make_current().await.map(drop);
        }
        {
            let s = self.state();
            if s.loaded && (s.is_held() || s.writers > 0 || attr.version <= s.committed.version) {
                return Ok(());
            }
        }
        self.refresh().await
    }

    /// Reads attributes and extents again; held state stays on top.
    pub(crate) async fn refresh(&self) -> Result<()> {
        self.ask(false).await
    }

    /// The same for who did not find the bytes where the metadata said that they are.
    pub(super) async fn refresh_anew(&self) -> Result<()> {
        self.ask(true).await
    }

    async fn ask(&self, anew: bool) -> Result<()> {
        let mut lost_before: Option<Extent> = None;
        loop {
            let turn = self.turn().await;
            let moves = self.state().moves;
            let (attr, extents) = if anew || lost_before.is_some() {
                self.shared.meta.extents_anew(self.ino).await?
            } else {
                self.shared.meta.extents(self.ino).await?
            };
            let lost = extents.iter().find(|e| self.is_lost(e)).copied();
            if lost.is_some() && lost != lost_before {
                // Perhaps it was moved to an object and deleted since we asked: then asking again says so.
                lost_before = lost;
                drop(turn);
                continue;
            }
            {
                let mut s = self.state();
                if s.moves != moves {
                    continue;
                }
                self.shared.log.stay_above(attr.staged_seq);
                s.install(&attr, extents);
                s.flushes = self.shared.flushes();
                self.find_clean_copy(&mut s, &attr);
                self.settle(&mut s);
            }
            if let Some(lost) = lost {
                self.cut_lost(lost.offset, &format!("the stage does not have {lost:?}"));
                self.commit_in(&turn).await?;
            }
            return Ok(());
        }
    }

    fn find_clean_copy(&self, s: &mut super::State, attr: &Attr) {
        if s.stage.is_none()
            && let Some(version) = self.shared.clean.version(self.ino)
        {
            if version == attr.version && !s.is_held() {
                let mut stage = Stage::new(Shape::Clean(version), None);
                stage.unsynced = false;
                s.stage = Some(stage);
            } else {
                self.shared.clean.drop_copy(&self.shared.files, self.ino);
            }
        } else {
            self.shared.clean.hurry(self.ino);
        }
    }

    /// Whether an extent names bytes of this node's stage that are not there.
    fn is_lost(&self, extent: &Extent) -> bool {
        let s = self.state();
        let stage = s.stage.as_ref();
        if stage.is_some_and(Stage::is_complete) {
            return false;
        }
        match extent.place {
            Place::Object { .. } => false,
            Place::Log { node, segment, offset } => {
                node == self.shared.node && !self.shared.log.has(segment, offset..offset + extent.len)
            }
            Place::StageFile { node } => node == self.shared.node && stage.is_none(),
        }
    }

    /// A file that was made this moment.
    pub(crate) fn begin_new(&self, attr: &Attr, hint: crate::tree::PathHint, large: bool) {
        let mut guard = self.state();
        let s = &mut *guard;
        s.install(attr, Vec::new());
        self.begin_leased(s);
        s.flushes = self.shared.flushes();
        s.hint = Some(Arc::new(hint));
        s.large = large;
        if large && let Err(e) = self.begin_empty_stage(s) {
            // Without a stage file it is written through the log at first.
            tracing::warn!(error = %e, "a file that was to be large has no stage file");
        }
        self.settle(s);
    }

    /// A stage file of an earlier run, found by recovery before the file is loaded.
    pub(crate) fn adopt_stage(&self, shape: Shape) {
        let mut s = self.state();
        s.stage = Some(Stage::new(shape, None));
        if let (Shape::Whole, Some(stage)) = (shape, &mut s.stage) {
            stage.loose = true;
        }
    }

    /// Moves what is still at each part's place to an object, after the metadata did. Bytes of a stage file have the same
    /// place after they were overwritten: what was touched since they were read stays there, and will be committed so.
    pub(crate) fn moved(&self, parts: &[(Extent, Place)]) {
        let mut guard = self.state();
        let s = &mut *guard;
        s.moves += 1;
        if !s.loaded {
            return;
        }
        for (part, to) in parts {
            match (&part.place, &s.touched) {
                (Place::StageFile { .. }, _) if s.touched_all => {}
                (Place::StageFile { .. }, Some(touched)) => {
                    for gap in touched.gaps(part.offset..part.end()) {
                        s.map
                            .relocate(&clip(part, gap.start, gap.end), advance(*to, gap.start - part.offset));
                    }
                }
                _ => s.map.relocate(part, *to),
            }
        }
        self.settle(s);
    }

    /// For who looks for bytes that are not where the state says.
    pub(super) fn gone(&self, what: &str) -> granary_core::Error {
        granary_core::Error::new(
            Kind::Corrupt,
            format!("bytes of inode {} are not to be found: {what}; run `granary fsck`", self.ino),
        )
    }
}
