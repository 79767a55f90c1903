//! Names of what is on disk.

use granary_core::ObjectId;

/// A chunk of an object, or its table of checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::read) struct ChunkKey {
    pub object: ObjectId,
    pub index: u32,
}

impl ChunkKey {
    /// Stands for the object's table of checksums.
    pub(super) const SUMS: u32 = u32::MAX;

    pub(super) fn sums(object: ObjectId) -> ChunkKey {
        ChunkKey { object, index: ChunkKey::SUMS }
    }

    pub(super) fn file_name(self) -> String {
        match self.index {
            ChunkKey::SUMS => format!("{}.footer", self.object),
            index => format!("{}.{index:08x}", self.object),
        }
    }

    pub(super) fn parse(name: &str) -> Option<ChunkKey> {
        let (id, index) = name.split_once('.')?;
        let object = id.parse().ok()?;
        let index = match index {
            "footer" => ChunkKey::SUMS,
            _ if index.len() == 8 => u32::from_str_radix(index, 16).ok().filter(|i| *i != ChunkKey::SUMS)?,
            _ => return None,
        };
        let key = ChunkKey { object, index };
        (key.file_name() == name).then_some(key)
    }

    /// What decides on which disk it lies: the same for so many chunks side by side, the same in every run.
    pub(super) fn place(self, run_chunks: u32) -> u64 {
        let id = self.object.0;
        mix((id as u64) ^ mix((id >> 64) as u64 ^ mix(u64::from(self.index / run_chunks))))
    }
}

/// The finalizer of splitmix64 (Steele, Lea, Flood, 2014): every bit of the input changes half of the output's.
pub(super) fn mix(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn names_come_back(object: u128, index: u32) {
            let key = ChunkKey { object: ObjectId(object), index };
            prop_assert_eq!(ChunkKey::parse(&key.file_name()), Some(key));
        }

        #[test]
        fn no_other_name_is_taken_for_one_of_ours(name in "[0-9a-fF]{30,33}\\.(footer|[0-9a-fF]{7,9})") {
            if let Some(key) = ChunkKey::parse(&name) {
                prop_assert_eq!(key.file_name(), name);
            }
        }
    }

    #[test]
    fn a_run_has_one_place() {
        let at = |index| ChunkKey { object: ObjectId(7), index }.place(4);
        assert_eq!(at(4), at(7));
        assert_ne!(at(3), at(4));
    }
}
