//! A namespace's state as operations see it: changes not yet handed to the committer, over those it is writing, over the
//! cache, over the engine.
//!
//! What the committer writes stays visible here until it is in the engine, so that a reader finds each record in one of
//! the layers, newest first, at every moment.

use std::collections::btree_map::Range;
use std::iter::Peekable;
use std::sync::Arc;

use granary_core::{NamespaceId, Result};

use super::cache::Cache;
use crate::changes::Changes;
use crate::engine::Engine;
use crate::machine::View;
use crate::record::{Key, Span, Value};

#[derive(Debug)]
pub(super) struct Overlay {
    /// What operations have changed since the committer last took changes.
    pub accumulating: Changes,
    /// What the committer is writing.
    pub committing: Option<Arc<Changes>>,
    pub cache: Cache,
}

impl Overlay {
    pub fn new(cached_records_max: usize) -> Overlay {
        Overlay { accumulating: Changes::default(), committing: None, cache: Cache::new(cached_records_max) }
    }

    pub fn is_dirty(&self) -> bool {
        !self.accumulating.is_empty() || self.committing.is_some()
    }

    /// Hands what has accumulated to the committer, which gives it back by [`Overlay::committed`].
    pub fn take(&mut self) -> Option<Arc<Changes>> {
        debug_assert!(self.committing.is_none(), "changes are taken one group at a time");
        if self.accumulating.is_empty() {
            return None;
        }
        let taken = Arc::new(std::mem::take(&mut self.accumulating));
        self.committing = Some(taken.clone());
        Some(taken)
    }

    /// What was taken and not given back, because it could not be written.
    pub fn unwritten(&self) -> Option<Arc<Changes>> {
        self.committing.clone()
    }

    pub fn committed(&mut self) -> Option<Arc<Changes>> {
        self.committing.take()
    }
}

/// The overlay and the engine below it, as one state.
pub(super) struct Layers<'a> {
    pub overlay: &'a mut Overlay,
    pub engine: &'a dyn Engine,
    pub ns: NamespaceId,
}

impl View for Layers<'_> {
    fn get(&mut self, key: &Key) -> Result<Option<Value>> {
        let overlay = &mut *self.overlay;
        if let Some(value) = overlay.accumulating.get(key) {
            return Ok(value.clone());
        }
        if let Some(value) = overlay.committing.as_ref().and_then(|changes| changes.get(key)) {
            return Ok(value.clone());
        }
        let cached = Cache::holds(key);
        if cached && let Some(value) = overlay.cache.get(key) {
            return Ok(value);
        }
        let value = match self.engine.get(&key.encode(self.ns))? {
            Some(bytes) => Some(Value::decode(key, &bytes)?),
            None => None,
        };
        if cached {
            overlay.cache.insert(key.clone(), value.clone());
        }
        Ok(value)
    }

    fn scan(
        &mut self,
        span: Span,
        from: Option<&Key>,
        visit: &mut dyn FnMut(Key, Value) -> Result<bool>,
    ) -> Result<()> {
        let first = from.cloned().unwrap_or_else(|| span.first());
        let committing = self.overlay.committing.clone().unwrap_or_default();
        // Families that are read by key are in no order here; the list of objects and a check of everything scan them.
        let (sorted, committed);
        let (newer, older) = if first.is_scanned() {
            (&self.overlay.accumulating.ranges, &committing.ranges)
        } else {
            let family = first.family();
            let of_family = |c: &Changes| {
                let mine = c.points.iter().filter(|(key, _)| key.family() == family);
                mine.map(|(key, value)| (key.clone(), value.clone())).collect()
            };
            (sorted, committed) = (of_family(&self.overlay.accumulating), of_family(&committing));
            (&sorted, &committed)
        };
        let mut pending = Pending {
            newer: newer.range(first.clone()..).peekable(),
            older: older.range(first.clone()..).peekable(),
            span,
        };
        let mut going = true;
        let start = first.encode(self.ns);
        self.engine.scan(&span.prefix(self.ns), &start, &mut |key, value| {
            let key = Key::decode(self.ns, key)?;
            while let Some((k, v)) = pending.next_until(Some(&key)) {
                let same = *k == key;
                if let Some(v) = v {
                    going = visit(k.clone(), v.clone())?;
                }
                if same || !going {
                    return Ok(going);
                }
            }
            let value = Value::decode(&key, value)?;
            going = visit(key, value)?;
            Ok(going)
        })?;
        while going && let Some((k, v)) = pending.next_until(None) {
            if let Some(v) = v {
                going = visit(k.clone(), v.clone())?;
            }
        }
        Ok(())
    }
}

/// Both layers of pending changes in one order; of the same key the newer.
struct Pending<'a> {
    newer: Peekable<Range<'a, Key, Option<Value>>>,
    older: Peekable<Range<'a, Key, Option<Value>>>,
    span: Span,
}

impl<'a> Pending<'a> {
    /// The next change within the span, if its key is not above `bound`.
    fn next_until(&mut self, bound: Option<&Key>) -> Option<(&'a Key, &'a Option<Value>)> {
        let (newer, older) = (self.newer.peek().map(|(k, _)| *k), self.older.peek().map(|(k, _)| *k));
        let key = match (newer, older) {
            (Some(a), Some(b)) => a.min(b),
            (a, b) => a.or(b)?,
        };
        if !self.span.contains(key) || bound.is_some_and(|bound| key > bound) {
            return None;
        }
        let (in_newer, in_older) = (newer == Some(key), older == Some(key));
        let old = if in_older { self.older.next() } else { None };
        if in_newer { self.newer.next() } else { old }
    }
}
