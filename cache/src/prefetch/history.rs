//! In which order a namespace's objects were read, and which of them were read for the greater part. Decides only; does no I/O.
//!
//! Training reads the same tree epoch after epoch. When the tree is larger than the cache, or was dropped from it, the next pass
//! is cold again; but it is known then which objects will be read whole, and, if the order is the same, which comes next.

use granary_core::ObjectId;
use granary_meta::ObjectInfo;

use crate::read::lru::Lru;

/// Objects remembered of a namespace, about 150 bytes each: 240 GiB of packs.
const OBJECTS_MAX: usize = 16_384;

#[derive(Debug)]
struct Past {
    object: ObjectInfo,
    /// The greater part of it was read.
    dense: bool,
    /// The object that was begun after it, the last time.
    next: Option<ObjectId>,
}

/// What the past says of an object that is begun anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Foresight {
    /// It was read for the greater part the last time.
    pub dense: bool,
    /// The objects come in the order of the last time, and this one, read for the greater part, is next.
    pub next: Option<ObjectInfo>,
}

#[derive(Debug)]
pub(crate) struct History {
    past: Lru<ObjectId, Past>,
    /// The object that was begun last.
    last: Option<ObjectId>,
}

impl History {
    pub fn new() -> History {
        History { past: Lru::new(OBJECTS_MAX), last: None }
    }

    /// The first read of an object in this pass.
    pub fn on_begun(&mut self, object: &ObjectInfo) -> Foresight {
        let mut in_order = false;
        if let Some(last) = self.last.replace(object.id).filter(|last| *last != object.id)
            && let Some(last) = self.past.get(&last)
        {
            in_order = last.next == Some(object.id);
            last.next = Some(object.id);
        }
        let (dense, next) = match self.past.get(&object.id) {
            Some(past) => (past.dense, past.next),
            None => {
                self.past.insert(object.id, Past { object: *object, dense: false, next: None });
                (false, None)
            }
        };
        let next = next.filter(|_| in_order).and_then(|id| self.past.get(&id)).filter(|next| next.dense);
        Foresight { dense, next: next.map(|past| past.object) }
    }

    /// The greater part of it was read.
    pub fn on_dense(&mut self, object: ObjectId) {
        if let Some(past) = self.past.get(&object) {
            past.dense = true;
        }
    }

    pub fn forget(&mut self, object: ObjectId) {
        self.past.remove(&object);
    }
}

#[cfg(test)]
mod tests {
    use granary_core::ObjectKind;

    use super::*;

    fn object(id: u128) -> ObjectInfo {
        ObjectInfo { id: ObjectId(id), kind: ObjectKind::Pack, payload_len: 1000, total_len: 1100 }
    }

    fn pass(history: &mut History, order: &[u128]) -> Vec<Foresight> {
        let begin = |id: &u128| {
            let foresight = history.on_begun(&object(*id));
            history.on_dense(ObjectId(*id));
            foresight
        };
        order.iter().map(begin).collect()
    }

    #[test]
    fn the_second_pass_is_foreseen_and_in_order_also_what_comes_next() {
        let mut history = History::new();
        assert!(pass(&mut history, &[1, 2, 3, 4]).iter().all(|f| *f == Foresight::default()));
        let second = pass(&mut history, &[1, 2, 3, 4]);
        assert!(second.iter().all(|f| f.dense));
        let next: Vec<_> = second.iter().map(|f| f.next.map(|o| o.id.0)).collect();
        assert_eq!(next, [None, Some(3), Some(4), Some(1)], "the fourth is followed by the first");
        let shuffled = pass(&mut history, &[3, 1, 4, 2]);
        assert!(shuffled.iter().all(|f| f.dense && f.next.is_none()), "{shuffled:?}");
    }

    #[test]
    fn what_was_read_a_little_is_not_foreseen() {
        let mut history = History::new();
        for _ in 0..2 {
            for id in 1..5 {
                assert_eq!(history.on_begun(&object(id)), Foresight::default());
            }
        }
        history.on_dense(ObjectId(2));
        history.forget(ObjectId(2));
        assert_eq!(history.on_begun(&object(2)), Foresight::default());
    }
}
