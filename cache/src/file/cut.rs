//! A stage file that gave fewer bytes than are said to be in it: a truncation came between the question and the answer, or the
//! disk lost its end. What is lost is an error to read, and never zeros in the store.

use std::fs;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use granary_core::{Error, Kind, Result};
use granary_meta::Place;

use super::{File, Stage, State};
use crate::stage::files;

impl File {
    /// What a read of `range` is worth that got only `bytes` from its beginning. `None`: the file changed meanwhile; the
    /// caller looks again.
    ///
    /// Errors: `Corrupt` when there should be more.
    pub(super) fn after_short_read(
        &self,
        file: &Arc<fs::File>,
        range: Range<u64>,
        bytes: Vec<u8>,
    ) -> Option<Result<Bytes>> {
        let mut guard = self.state();
        let s = &mut *guard;
        let stage = s.stage.as_ref()?;
        let (is_whole, is_same) =
            (stage.is_complete(), stage.file.as_ref().is_some_and(|f| Arc::ptr_eq(f, file)));
        if !is_same {
            return None;
        }
        let end = self.staged_end(s, &range);
        if end <= range.start + bytes.len() as u64 {
            // Of a file that was truncated, what it still has is the answer; of a sparse one the rest is elsewhere now.
            return is_whole.then(|| Ok(bytes.into()));
        }
        match files::stat(file) {
            Ok(stat) if stat.size >= end => None,
            Ok(stat) => Some(Err(self.cut_short(stat.size))),
            Err(e) => Some(Err(Error::io(format!("cannot examine the stage file of inode {}", self.ino), e))),
        }
    }

    /// Up to where the bytes of `range` are in the stage file, as far as is known.
    fn staged_end(&self, s: &mut State, range: &Range<u64>) -> u64 {
        if s.stage.as_ref().is_some_and(Stage::is_complete) {
            return self.current_size(s).min(range.end);
        }
        let own = Place::StageFile { node: self.shared.node };
        let staged = s.map.within(range.clone()).into_iter().filter(|e| e.place == own);
        staged.map(|e| e.end()).max().unwrap_or(range.start)
    }

    /// The stage file ends at byte `at`, though more was written to it.
    pub(crate) fn cut_short(&self, at: u64) -> Error {
        Error::new(
            Kind::Corrupt,
            format!(
                "the stage file of inode {} in {} ends at byte {at}, before bytes that were written to it; look at that disk, and \
                 restore the file from another copy",
                self.ino,
                self.shared.files.dir().display()
            ),
        )
    }
}
