//! Chunks on disk that were fetched ahead and not read since.

use std::collections::HashMap;

use granary_core::NamespaceId;

use super::ChunkKey;

#[derive(Debug, Default)]
pub(super) struct Unread {
    /// With their bytes (a chunk has 1 MiB at most), and whose they are.
    chunks: HashMap<ChunkKey, (u32, NamespaceId)>,
    /// All that a namespace has here.
    bytes: HashMap<NamespaceId, u64>,
}

impl Unread {
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    pub fn len(&self) -> usize {
        self.chunks.len()
    }

    /// Bytes of one namespace.
    pub fn bytes_of(&self, ns: NamespaceId) -> u64 {
        self.bytes.get(&ns).copied().unwrap_or(0)
    }

    pub fn insert(&mut self, key: ChunkKey, bytes: u64, ns: NamespaceId) {
        self.remove(&key);
        self.chunks.insert(key, (bytes as u32, ns));
        *self.bytes.entry(ns).or_default() += bytes;
    }

    /// It was read, or is no more: its bytes.
    pub fn remove(&mut self, key: &ChunkKey) -> Option<u64> {
        let (bytes, ns) = self.chunks.remove(key)?;
        let bytes = u64::from(bytes);
        if let Some(all) = self.bytes.get_mut(&ns) {
            *all -= bytes;
            if *all == 0 {
                self.bytes.remove(&ns);
            }
        }
        Some(bytes)
    }

    pub fn clear(&mut self) {
        *self = Unread::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use granary_core::ObjectId;

    #[test]
    fn each_namespaces_bytes_are_counted() {
        let key = |index| ChunkKey { object: ObjectId(1), index };
        let (a, b) = (NamespaceId(1), NamespaceId(2));
        let mut unread = Unread::default();
        unread.insert(key(0), 10, a);
        unread.insert(key(1), 20, a);
        unread.insert(key(2), 40, b);
        unread.insert(key(1), 5, a);
        assert_eq!((unread.bytes_of(a), unread.bytes_of(b), unread.len()), (15, 40, 3));
        assert_eq!((unread.remove(&key(1)), unread.remove(&key(1))), (Some(5), None));
        unread.remove(&key(0));
        assert_eq!(unread.bytes_of(a), 0);
        unread.clear();
        assert!(unread.is_empty() && unread.bytes.is_empty());
    }
}
