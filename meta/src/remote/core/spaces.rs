//! The namespaces that are used here, and what was heard of their settings.

use std::sync::{Arc, Weak};

use granary_core::NamespaceId;

use super::{Core, lock};
use crate::remote::namespace::RemoteNamespace;
use crate::types::{NamespaceInfo, WriteSettings};

impl Core {
    pub fn space(self: &Arc<Self>, info: NamespaceInfo) -> Arc<RemoteNamespace> {
        let had = lock(&self.takeover).take(info.id);
        let space = self.find_or_make(info);
        if let Some(had) = had {
            space.inherit(had);
        }
        space
    }

    fn find_or_make(self: &Arc<Self>, info: NamespaceInfo) -> Arc<RemoteNamespace> {
        let mut spaces = lock(&self.spaces);
        if let Some(space) = spaces.get(&info.id).and_then(Weak::upgrade) {
            return space;
        }
        spaces.retain(|_, space| space.strong_count() > 0);
        let id = info.id;
        let space = RemoteNamespace::new(self.clone(), info);
        if let Some(heard) = lock(&self.settings).get(&id) {
            space.write_settings.store(heard);
        }
        spaces.insert(id, Arc::downgrade(&space));
        space
    }

    /// The service says how a namespace's writes reach the store from now on. Called in the order of its words.
    pub fn settings(&self, ns: NamespaceId, settings: WriteSettings) {
        let spaces = lock(&self.spaces);
        lock(&self.settings).insert(ns, settings);
        if let Some(space) = spaces.get(&ns).and_then(Weak::upgrade) {
            space.write_settings.store(&settings);
        }
    }

    pub fn find_space(&self, id: NamespaceId) -> Option<Arc<RemoteNamespace>> {
        lock(&self.spaces).get(&id).and_then(Weak::upgrade)
    }

    pub fn live_spaces(&self) -> Vec<Arc<RemoteNamespace>> {
        lock(&self.spaces).values().filter_map(Weak::upgrade).collect()
    }
}
