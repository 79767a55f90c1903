//! Reading a namespace's records: through a [`View`], whatever lies below it.

use std::sync::Arc;

use granary_core::{Error, Ino, Kind, NamespaceId, ObjectId, Result};

use crate::engine::{Engine, Snapshot, Visit};
use crate::record::{Counters, Entry, Inode, Key, NamespaceRecord, ObjectRecord, Span, Value};

/// A state that an operation reads. Exclusive, because reading may fill a cache.
pub trait View {
    fn get(&mut self, key: &Key) -> Result<Option<Value>>;

    /// Visits the records of `span` in order of their keys, from `from` on (a key of the span's family; none: from the
    /// start), until `visit` gives `false`.
    fn scan(
        &mut self,
        span: Span,
        from: Option<&Key>,
        visit: &mut dyn FnMut(Key, Value) -> Result<bool>,
    ) -> Result<()>;
}

/// Typed reading. A value of another family than its key's cannot come out of an engine; it is a bug of a view.
pub trait Records: View {
    fn find_inode(&mut self, ino: Ino) -> Result<Option<Arc<Inode>>> {
        match self.get(&Key::Inode(ino))? {
            Some(Value::Inode(v)) => Ok(Some(v)),
            // It is there before anything was in it.
            None if ino == Ino::TRASH => {
                let root = self.find_inode(Ino::ROOT)?;
                Ok(root.map(|root| Arc::new(super::trash::fresh(&root))))
            }
            other => absent(other),
        }
    }

    /// `Stale` when it is gone.
    fn inode(&mut self, ino: Ino) -> Result<Arc<Inode>> {
        self.find_inode(ino)?.ok_or(Error::new(Kind::Stale, "the file or directory does not exist any more"))
    }

    /// `Stale` or `NotDirectory`.
    fn directory(&mut self, ino: Ino) -> Result<Arc<Inode>> {
        let inode = self.inode(ino)?;
        if inode.is_directory() {
            Ok(inode)
        } else {
            Err(Error::new(Kind::NotDirectory, "it is no directory"))
        }
    }

    fn entry(&mut self, dir: Ino, name: &[u8]) -> Result<Option<Entry>> {
        match self.get(&Key::Entry(dir, name.into()))? {
            Some(Value::Entry(v)) => Ok(Some(v)),
            other => absent(other),
        }
    }

    fn find_object(&mut self, id: ObjectId) -> Result<Option<ObjectRecord>> {
        match self.get(&Key::Object(id))? {
            Some(Value::Object(v)) => Ok(Some(v)),
            other => absent(other),
        }
    }

    fn counters(&mut self) -> Result<Counters> {
        match self.get(&Key::Counters)? {
            Some(Value::Counters(v)) => Ok(v),
            other => absent::<Counters>(other)?.ok_or_else(incomplete),
        }
    }

    fn settings(&mut self) -> Result<Arc<NamespaceRecord>> {
        match self.get(&Key::Namespace)? {
            Some(Value::Namespace(v)) => Ok(v),
            other => absent::<Arc<NamespaceRecord>>(other)?.ok_or_else(incomplete),
        }
    }
}

impl<V: View + ?Sized> Records for V {}

fn absent<T>(value: Option<Value>) -> Result<Option<T>> {
    match value {
        None => Ok(None),
        Some(_) => Err(Error::new(Kind::Bug, "a metadata record is of another family than its key")),
    }
}

fn incomplete() -> Error {
    Error::new(Kind::Corrupt, "the namespace has no settings or counters; restore the metadata from a copy")
}

/// A namespace as it lies in the engine, nothing pending, nothing cached.
#[derive(Debug)]
pub struct EngineView<'e> {
    pub engine: &'e dyn Engine,
    pub ns: NamespaceId,
}

impl View for EngineView<'_> {
    fn get(&mut self, key: &Key) -> Result<Option<Value>> {
        decoded(key, self.engine.get(&key.encode(self.ns))?)
    }

    fn scan(
        &mut self,
        span: Span,
        from: Option<&Key>,
        visit: &mut dyn FnMut(Key, Value) -> Result<bool>,
    ) -> Result<()> {
        let scan = |prefix: &[u8], from: &[u8], visit: &mut Visit<'_>| self.engine.scan(prefix, from, visit);
        scan_records(self.ns, scan, (span, from), visit)
    }
}

/// A namespace as it was in the engine at one moment.
pub struct SnapshotView<'s> {
    pub snapshot: &'s dyn Snapshot,
    pub ns: NamespaceId,
}

impl View for SnapshotView<'_> {
    fn get(&mut self, key: &Key) -> Result<Option<Value>> {
        decoded(key, self.snapshot.get(&key.encode(self.ns))?)
    }

    fn scan(
        &mut self,
        span: Span,
        from: Option<&Key>,
        visit: &mut dyn FnMut(Key, Value) -> Result<bool>,
    ) -> Result<()> {
        let scan =
            |prefix: &[u8], from: &[u8], visit: &mut Visit<'_>| self.snapshot.scan(prefix, from, visit);
        scan_records(self.ns, scan, (span, from), visit)
    }
}

fn decoded(key: &Key, bytes: Option<Vec<u8>>) -> Result<Option<Value>> {
    bytes.map(|bytes| Value::decode(key, &bytes)).transpose()
}

fn scan_records(
    ns: NamespaceId,
    scan: impl FnOnce(&[u8], &[u8], &mut Visit<'_>) -> Result<()>,
    (span, from): (Span, Option<&Key>),
    visit: &mut dyn FnMut(Key, Value) -> Result<bool>,
) -> Result<()> {
    let prefix = span.prefix(ns);
    let from = from.map_or_else(|| prefix.clone(), |key| key.encode(ns));
    scan(&prefix, &from, &mut |key, value| {
        let key = Key::decode(ns, key)?;
        let value = Value::decode(&key, value)?;
        visit(key, value)
    })
}
