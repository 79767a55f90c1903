//! Fetching ahead of a file's reads: its streams say which bytes, the extent map in which objects they are.

use std::ops::Range;

use granary_core::limits::CHUNK_BYTES;
use granary_core::{ObjectId, ObjectKind};
use granary_meta::Place;

use super::{File, Stage, State};

/// A part of an object that will be read soon.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    object: ObjectId,
    /// Of the object's payload.
    range: Range<u64>,
    /// Where that is in the file.
    offset: u64,
}

impl File {
    /// What to fetch because of this read, across the objects of a large file. (Small files' neighbours in their pack are the
    /// object cache's business.)
    pub(super) fn look_ahead(&self, s: &mut State, offset: u64, len: u64) -> Vec<Wanted> {
        let size = s.size;
        let end = offset.saturating_add(len).min(size);
        if size <= CHUNK_BYTES || offset >= end || s.stage.as_ref().is_some_and(Stage::is_complete) {
            return Vec::new();
        }
        let window = self.shared.reads.window();
        let wishes = s.streams.get_or_insert_default().on_read(&(offset..end), size, window);
        let extents = wishes.into_iter().flat_map(|wish| s.map.within(wish));
        let wanted = extents.filter_map(|extent| match extent.place {
            Place::Object { id, offset, .. } => {
                Some(Wanted { object: id, range: offset..offset + extent.len, offset: extent.offset })
            }
            _ => None,
        });
        wanted.collect()
    }

    /// Without the state's lock.
    pub(super) fn fetch_ahead(&self, wanted: Vec<Wanted>) {
        let beyond = self.shared.reads.take_beyond(self.shared.ns);
        if !beyond.is_empty() {
            self.shared.clone().go_beyond(beyond);
        }
        for Wanted { object, range, offset } in wanted {
            let Some(info) = self.shared.objects.known(object) else {
                let shared = self.shared.clone();
                self.shared.runtime.spawn(async move {
                    // A hint only: the demand read tells what is wrong.
                    if let Ok(info) = shared.object(object).await {
                        shared.reads.prefetch(shared.ns, &info, range);
                    }
                });
                continue;
            };
            let len = range.end - range.start;
            if let Some(refused) = self.shared.reads.prefetch(self.shared.ns, &info, range.clone()) {
                let from = offset + (refused - range.start);
                if let Some(streams) = &mut self.state().streams {
                    streams.on_refused(&(from..offset + len));
                }
                return;
            }
        }
    }
}

impl crate::tree::Shared {
    /// Reads go on behind the end of these packs: packs are in directory order, and the next one made has what comes next.
    fn go_beyond(self: std::sync::Arc<Self>, packs: Vec<ObjectId>) {
        let shared = self.clone();
        self.runtime.spawn(async move {
            for pack in packs {
                // A hint only.
                let Ok(next) = shared.meta.live_objects(pack, 1).await else { return };
                if let Some(next) = next.first().filter(|next| next.object.kind == ObjectKind::Pack) {
                    shared.objects.learn(next.object);
                    shared.reads.go_on(shared.ns, pack, &next.object);
                }
            }
        });
    }
}
