//! Settings of a namespace that every write looks at: read by many threads, without a lock.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use granary_core::policy::{NamespacePolicy, POLICY_NAMES};

use crate::record::NamespaceRecord;
use crate::types::{Durability, WriteSettings};

/// Each value is whole; a reader during a change may see some of the new ones beside old ones, which harms nobody.
#[derive(Debug, Default)]
pub(crate) struct SharedSettings {
    in_store: AtomicBool,
    policy: [AtomicU64; POLICY_NAMES.len()],
}

impl SharedSettings {
    pub fn store(&self, settings: &WriteSettings) {
        self.in_store.store(settings.durability == Durability::Object, Ordering::Relaxed);
        for (cell, value) in self.policy.iter().zip(settings.policy.values()) {
            cell.store(value, Ordering::Relaxed);
        }
    }

    pub fn load(&self) -> WriteSettings {
        let durability =
            if self.in_store.load(Ordering::Relaxed) { Durability::Object } else { Durability::Local };
        let values = std::array::from_fn(|i| self.policy[i].load(Ordering::Relaxed));
        WriteSettings { durability, policy: NamespacePolicy::from_values(values) }
    }
}

impl NamespaceRecord {
    pub(crate) fn write_settings(&self) -> WriteSettings {
        WriteSettings { durability: self.durability, policy: self.policy }
    }
}
