//! How a namespace's writes reach the store: what it says itself, and what the node's limits say for it.
//!
//! A namespace's own values are kept with it and may change while it is mounted, so whoever acts on a policy asks for the
//! [`WritePolicy`] of this moment each time, and keeps none.

use serde::{Deserialize, Serialize};

use crate::compression::Codec;
use crate::error::Result;
use crate::limits::{Limits, check};

/// Of both kinds of policies the same settings, in the order of their values on disk and on the wire.
macro_rules! settings {
    ($($name:ident,)+) => {
        /// Settings of [`NamespacePolicy`], in the order of its values on disk.
        pub const POLICY_NAMES: [&str; COUNT] = [$(stringify!($name)),+];
        const COUNT: usize = [$(stringify!($name)),+].len();

        impl NamespacePolicy {
            /// In the order of [`POLICY_NAMES`]; 0: as the node's limits say.
            pub fn values(&self) -> [u64; COUNT] {
                [$(self.$name.unwrap_or_default()),+]
            }

            pub fn from_values(values: [u64; COUNT]) -> NamespacePolicy {
                let [$($name),+] = values.map(|value| (value > 0).then_some(value));
                NamespacePolicy { $($name),+ }
            }
        }

        impl PolicyChange {
            /// In the order of [`POLICY_NAMES`].
            pub fn values(&self) -> [Option<u64>; COUNT] {
                [$(self.$name),+]
            }

            pub fn from_values(values: [Option<u64>; COUNT]) -> PolicyChange {
                let [$($name),+] = values;
                PolicyChange { $($name),+ }
            }
        }
    };
}

// New ones come last.
settings! {
    small_period_ms,
    large_period_ms,
    small_file_bytes_max,
    upload_bytes_per_s_max,
    uploads_max,
    dirty_bytes_max,
    dirty_files_max,
    compression,
    inline_bytes_max,
}

/// What a namespace says of its writes, by the names of [`Limits`]; `None`: as the node's limits say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct NamespacePolicy {
    pub small_period_ms: Option<u64>,
    pub large_period_ms: Option<u64>,
    pub small_file_bytes_max: Option<u64>,
    pub upload_bytes_per_s_max: Option<u64>,
    pub uploads_max: Option<u64>,
    pub dirty_bytes_max: Option<u64>,
    pub dirty_files_max: Option<u64>,
    /// [`Codec::number`] of what new objects are compressed with; nodes have no setting of their own for it.
    #[serde(with = "crate::compression::by_name")]
    pub compression: Option<u64>,
    /// Of files up to this many bytes the metadata keeps a copy, so that reading them asks nothing of the store; `None`: of
    /// none. Nodes have no setting of their own for it.
    pub inline_bytes_max: Option<u64>,
}

impl NamespacePolicy {
    /// With what changes.
    pub fn changed(&self, change: &PolicyChange) -> NamespacePolicy {
        let mut values = self.values();
        for (value, new) in values.iter_mut().zip(change.values()) {
            *value = new.unwrap_or(*value);
        }
        NamespacePolicy::from_values(values)
    }
}

/// What `granary ns set` changes of a policy: `None` stays, 0 gives it back to the node's limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyChange {
    pub small_period_ms: Option<u64>,
    pub large_period_ms: Option<u64>,
    pub small_file_bytes_max: Option<u64>,
    pub upload_bytes_per_s_max: Option<u64>,
    pub uploads_max: Option<u64>,
    pub dirty_bytes_max: Option<u64>,
    pub dirty_files_max: Option<u64>,
    /// [`Codec::number`].
    pub compression: Option<u64>,
    pub inline_bytes_max: Option<u64>,
}

impl PolicyChange {
    /// Refuses what cannot work, in the words and ranges of [`Limits::validate`].
    pub fn validate(&self) -> Result<()> {
        let given = POLICY_NAMES.into_iter().zip(self.values());
        given
            .filter_map(|(name, value)| Some((name, value.filter(|&v| v > 0)?)))
            .try_for_each(|(name, v)| check(name, v))
    }
}

/// What counts for a namespace on this node now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WritePolicy {
    /// See [`Limits`] for each.
    pub small_period_ms: u64,
    pub large_period_ms: u64,
    pub small_file_bytes_max: u64,
    /// 0: no limit.
    pub upload_bytes_per_s_max: u64,
    pub uploads_max: u32,
    pub dirty_bytes_max: u64,
    pub dirty_files_max: u64,
    /// Of new objects.
    pub compression: Codec,
    /// 0: the metadata keeps no file's bytes.
    pub inline_bytes_max: u64,
}

impl WritePolicy {
    pub fn resolve(limits: &Limits, own: &NamespacePolicy) -> WritePolicy {
        let uploads = own.uploads_max.and_then(|n| u32::try_from(n).ok());
        WritePolicy {
            small_period_ms: own.small_period_ms.unwrap_or(limits.small_period_ms),
            large_period_ms: own.large_period_ms.unwrap_or(limits.large_period_ms),
            small_file_bytes_max: own.small_file_bytes_max.unwrap_or(limits.small_file_bytes_max),
            upload_bytes_per_s_max: own.upload_bytes_per_s_max.unwrap_or(limits.upload_bytes_per_s_max),
            uploads_max: uploads.unwrap_or(limits.uploads_max).max(1),
            dirty_bytes_max: own.dirty_bytes_max.unwrap_or(limits.dirty_bytes_max),
            dirty_files_max: own.dirty_files_max.unwrap_or(limits.dirty_files_max),
            compression: own.compression.and_then(Codec::of_number).unwrap_or_default(),
            inline_bytes_max: own.inline_bytes_max.unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_a_namespace_says_wins_and_the_rest_is_the_nodes() {
        let limits = Limits { uploads_max: 7, ..Limits::default() };
        let all = WritePolicy::resolve(&limits, &NamespacePolicy::default());
        assert_eq!((all.uploads_max, all.small_period_ms, all.upload_bytes_per_s_max), (7, 2_000, 0));
        let own =
            NamespacePolicy { uploads_max: Some(2), small_period_ms: Some(9), ..NamespacePolicy::default() };
        let mixed = WritePolicy::resolve(&limits, &own);
        assert_eq!(mixed, WritePolicy { uploads_max: 2, small_period_ms: 9, ..all });
    }

    #[test]
    fn impossible_values_are_named_with_what_would_do() {
        let change = PolicyChange { dirty_bytes_max: Some(1), ..PolicyChange::default() };
        let e = change.validate().unwrap_err();
        assert_eq!(
            e.to_string(),
            "setting dirty_bytes_max = 1 cannot work; give a value from 67108864 to 1125899906842624"
        );
        PolicyChange::from_values([Some(0); 9]).validate().unwrap();
        let unknown = PolicyChange { compression: Some(4), ..PolicyChange::default() };
        assert!(unknown.validate().unwrap_err().to_string().contains("compression = 4"));
        let long = PolicyChange { inline_bytes_max: Some(2049), ..PolicyChange::default() };
        assert!(long.validate().unwrap_err().to_string().contains("a value from 1 to 2048"));
        for name in POLICY_NAMES {
            check(name, 0).unwrap_err();
        }
    }

    fn change() -> impl Strategy<Value = [Option<u64>; 9]> {
        prop::array::uniform9(prop::option::of(prop_oneof![Just(0), 1..5u64]))
    }

    proptest! {
        /// What is said last of a setting is what holds, whatever was said of others.
        #[test]
        fn the_last_word_counts(changes in prop::collection::vec(change(), 0..8)) {
            let mut policy = NamespacePolicy::default();
            for change in &changes {
                policy = policy.changed(&PolicyChange::from_values(*change));
            }
            for (i, value) in policy.values().into_iter().enumerate() {
                let last = changes.iter().rev().find_map(|c| c[i]).unwrap_or(0);
                prop_assert_eq!(value, last);
            }
            prop_assert_eq!(NamespacePolicy::from_values(policy.values()), policy);
        }
    }
}
