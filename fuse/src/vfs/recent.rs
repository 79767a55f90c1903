//! Files in use without handles: a `data` mount has no OPEN and no RELEASE, so files are kept loaded while they are being
//! used, at most so many, and released when idle. Second chance (CLOCK): who was used since the last look stays.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use granary_cache::File;
use granary_core::Ino;

/// One loaded file. Who works with it holds a clone; it is closed only when nobody does.
#[derive(Debug)]
pub struct Loaded(pub Arc<File>);

#[derive(Debug)]
pub struct Recent {
    /// Guards the set; held for a few instructions.
    inner: Mutex<Inner>,
    files_max: usize,
}

#[derive(Debug, Default)]
struct Inner {
    files: HashMap<u64, Entry>,
    order: VecDeque<u64>,
}

#[derive(Debug)]
struct Entry {
    loaded: Arc<Loaded>,
    last_used: Duration,
    /// Used since the hand passed.
    touched: bool,
}

impl Recent {
    pub fn new(files_max: usize) -> Recent {
        Recent { inner: Mutex::default(), files_max: files_max.max(1) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get(&self, ino: Ino, now: Duration) -> Option<Arc<Loaded>> {
        let mut inner = self.lock();
        let entry = inner.files.get_mut(&ino.0)?;
        entry.last_used = now;
        entry.touched = true;
        Some(entry.loaded.clone())
    }

    /// Keeps a file. If another thread kept it first, that one is returned and `file` is to be closed: the second value
    /// holds it, and whatever has to go to stay within the limit.
    pub fn insert(&self, ino: Ino, file: Arc<File>, now: Duration) -> (Arc<Loaded>, Vec<Arc<File>>) {
        let mut closed = Vec::new();
        let mut inner = self.lock();
        if let Some(entry) = inner.files.get_mut(&ino.0) {
            entry.last_used = now;
            closed.push(file);
            return (entry.loaded.clone(), closed);
        }
        let mut looks = 2 * inner.order.len();
        while inner.files.len() >= self.files_max && looks > 0 {
            looks -= 1;
            let Some(candidate) = inner.order.pop_front() else { break };
            let Some(entry) = inner.files.get_mut(&candidate) else { continue };
            if entry.touched || Arc::strong_count(&entry.loaded) > 1 {
                entry.touched = false;
                inner.order.push_back(candidate);
            } else if let Some(entry) = inner.files.remove(&candidate) {
                closed.push(entry.loaded.0.clone());
            }
        }
        let loaded = Arc::new(Loaded(file));
        inner.files.insert(ino.0, Entry { loaded: loaded.clone(), last_used: now, touched: false });
        inner.order.push_back(ino.0);
        (loaded, closed)
    }

    /// Takes out what nobody used since `idle_since`; the caller closes them.
    pub fn idle(&self, idle_since: Duration) -> Vec<Arc<File>> {
        self.take(|entry| entry.last_used <= idle_since && Arc::strong_count(&entry.loaded) == 1)
    }

    /// Takes out one file, in use or not: its last name and its last inode reference are gone.
    pub fn remove(&self, ino: Ino) -> Option<Arc<File>> {
        let mut inner = self.lock();
        let entry = inner.files.remove(&ino.0)?;
        inner.order.retain(|&other| other != ino.0);
        Some(entry.loaded.0.clone())
    }

    /// Takes out all of them.
    pub fn drain(&self) -> Vec<Arc<File>> {
        self.take(|_| true)
    }

    fn take(&self, which: impl Fn(&Entry) -> bool) -> Vec<Arc<File>> {
        let mut inner = self.lock();
        let going: Vec<u64> =
            inner.files.iter().filter(|(_, entry)| which(entry)).map(|(&ino, _)| ino).collect();
        let out =
            going.iter().filter_map(|ino| inner.files.remove(ino)).map(|e| e.loaded.0.clone()).collect();
        let Inner { files, order } = &mut *inner;
        order.retain(|ino| files.contains_key(ino));
        out
    }

    pub fn len(&self) -> usize {
        self.lock().files.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
