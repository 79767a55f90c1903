//! Packed data sets that are being opened, for those who look: a first mount may take a while.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use granary_core::{NamespaceId, NamespaceName};
use granary_packed::Opening;

use crate::wire::OpeningStatus;

#[derive(Default)]
pub struct Openings {
    /// Guards the map for a look or a change.
    all: Mutex<BTreeMap<NamespaceId, One>>,
}

struct One {
    name: NamespaceName,
    url: String,
    opening: Arc<Opening>,
}

impl Openings {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<NamespaceId, One>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is listed until what this returns is dropped.
    pub(super) fn begin(
        &self,
        id: NamespaceId,
        name: NamespaceName,
        url: String,
        opening: Arc<Opening>,
    ) -> Listed<'_> {
        self.lock().insert(id, One { name, url, opening });
        Listed { of: self, id }
    }

    /// Those that the caller may see.
    pub(super) fn list(&self, may: impl Fn(&NamespaceName) -> bool) -> Vec<OpeningStatus> {
        let all = self.lock();
        let seen = all.values().filter(|one| may(&one.name));
        seen.map(|One { name, url, opening }| {
            let how_far = opening.how_far();
            OpeningStatus {
                namespace: name.to_string(),
                url: url.clone(),
                indexes: how_far.indexes,
                indexes_total: how_far.indexes_total,
                entries: how_far.entries,
                entries_total: how_far.entries_total,
            }
        })
        .collect()
    }
}

pub(super) struct Listed<'a> {
    of: &'a Openings,
    id: NamespaceId,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.of.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_opened_is_listed_for_those_who_may_see_it() {
        let openings = Openings::default();
        let name: NamespaceName = "dataset/images".parse().unwrap();
        let listed = openings.begin(NamespaceId(7), name, "s3://b/images".into(), Arc::default());
        let all = openings.list(|_| true);
        assert_eq!((all[0].namespace.as_str(), all[0].url.as_str()), ("dataset/images", "s3://b/images"));
        assert_eq!(openings.list(|name| name.to_string() != "dataset/images"), []);
        drop(listed);
        assert_eq!(openings.list(|_| true), []);
    }
}
