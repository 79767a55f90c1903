//! What the store lists of one namespace.

use std::collections::BTreeMap;

use granary_core::id::parse_object_key;
use granary_core::{NamespaceId, ObjectId, ObjectKind, Result};
use granary_store::Store;

use crate::progress::Progress;

/// As many as S3 lists in one request.
const KEYS_AT_ONCE: usize = 1000;

#[derive(Debug, Default)]
pub(super) struct Listed {
    /// Sizes in bytes.
    pub objects: BTreeMap<(ObjectId, ObjectKind), u64>,
    /// Keys below the namespace's prefix that are no objects' keys.
    pub strange: Vec<String>,
}

impl Listed {
    pub async fn read(store: &dyn Store, ns: NamespaceId, progress: &Progress) -> Result<Listed> {
        let prefix = format!("ns/{ns}/");
        let mut listed = Listed::default();
        let mut after: Option<String> = None;
        loop {
            let page = store.list(&prefix, after.as_deref(), KEYS_AT_ONCE).await?;
            let Some(last) = page.last() else { return Ok(listed) };
            after = Some(last.key.clone());
            progress.advance(page.len() as u64)?;
            for object in page {
                match parse_object_key(&object.key) {
                    Some((_, kind, id)) => {
                        listed.objects.insert((id, kind), object.size);
                    }
                    None => listed.strange.push(object.key),
                }
            }
        }
    }
}
