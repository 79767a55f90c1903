//! What the metadata said of objects that were read lately. Objects never change, so an answer stays true.

use std::collections::HashMap;
use std::sync::Mutex;

use granary_core::ObjectId;
use granary_meta::ObjectInfo;

use crate::util::lock;

/// Objects remembered in each of two generations: about 64 bytes each.
const GENERATION: usize = 8192;

#[derive(Debug, Default)]
pub(crate) struct Objects {
    /// The young generation and the old one; when the young is full it becomes the old.
    inner: Mutex<(HashMap<ObjectId, ObjectInfo>, HashMap<ObjectId, ObjectInfo>)>,
}

impl Objects {
    pub fn known(&self, id: ObjectId) -> Option<ObjectInfo> {
        let mut inner = lock(&self.inner);
        if let Some(info) = inner.0.get(&id) {
            return Some(*info);
        }
        let info = inner.1.get(&id).copied()?;
        Self::add(&mut inner, info);
        Some(info)
    }

    pub fn learn(&self, info: ObjectInfo) {
        Self::add(&mut lock(&self.inner), info);
    }

    fn add(inner: &mut (HashMap<ObjectId, ObjectInfo>, HashMap<ObjectId, ObjectInfo>), info: ObjectInfo) {
        if inner.0.len() >= GENERATION {
            inner.1 = std::mem::take(&mut inner.0);
        }
        inner.0.insert(info.id, info);
    }

    pub fn forget(&self, id: ObjectId) {
        let mut inner = lock(&self.inner);
        inner.0.remove(&id);
        inner.1.remove(&id);
    }
}
