//! Where files come from: a folder, a bucket, or containers of records in either.
//!
//! A source is asked twice. The *scan* tells of every file its name, size and times, in any order and by several threads; it opens
//! none. Later its bytes are *read*, piece by piece, in the order of the shards. What an importer reads is a range of a container, so
//! the same pipeline serves it, and containers are read in place, never unpacked; but for Parquet, whose values are encoded:
//!
//! | kind | a file of the data set is | name |
//! |---|---|---|
//! | [`folder`], [`objects`] | a file or object; a folder's directories and links too | its path below the source |
//! | [`tar`] | a tar's file | its path in the tar |
//! | [`tfrecord`] | one record, or one feature of one `tf.train.Example` | `<file>/<number of the record>.<feature>` |
//! | [`mds`] | one column of one sample of a MosaicML shard | `<number of the sample>.<column>` |
//! | [`lmdb`] | one key of an LMDB data file | the key |
//! | [`parquet`] | one value of a column | `<file>/<number of the row>`, or another column's value |

pub mod containers;
pub mod fetch;
pub mod folder;
pub mod kind;
pub mod lmdb;
pub mod mds;
pub mod objects;
pub mod parquet;
pub mod tar;
pub mod tfrecord;

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use granary_core::{Error, Kind, Result};

use crate::limits::PATH_BYTES_MAX;
use crate::pack::entry::{self, Content, Entry, Order};
use crate::pack::progress::Progress;
use crate::pack::sort::Sorter;

/// Skipped things that are kept to be told; all are counted.
const SKIPPED_KEPT_MAX: usize = 1_000;

/// Bytes that are wanted of an entry, and whether they came.
#[derive(Debug)]
pub struct Want<'a> {
    pub entry: &'a Entry,
    pub from: u64,
    pub into: &'a mut [u8],
    pub failed: Option<Error>,
}

/// Something that files come from.
pub trait Source: Send + Sync + Debug {
    /// Tells of everything that is there.
    ///
    /// Errors: what keeps all of it from being read. What is wrong with one file is [`Sink::skip`]ped.
    fn scan(&self, scan: &Scan) -> Result<()>;
    /// Fills what is wanted. Bytes of a file that is not as it was scanned are never passed for it.
    fn read(&self, wants: &mut [Want<'_>]);
    /// Removes a file that still is as it was scanned; `false` when it is not, or is gone.
    ///
    /// Errors: `Unsupported` where files are parts of containers; what the source says.
    fn remove(&self, entry: &Entry) -> Result<bool>;
    /// Whether `read` notices a file that changed since the scan. Otherwise the source is scanned once more at the end.
    fn notices_changes(&self) -> bool {
        true
    }
    /// Looks for changes that neither `read` nor a second scan would notice. Asked when all was read.
    ///
    /// Errors: `Stale` names what changed; what the source says.
    fn check_steady(&self) -> Result<()> {
        Ok(())
    }
    /// How often its store was asked again, because an attempt had failed.
    fn retries(&self) -> u64 {
        0
    }
    /// Removes what removing its last file left empty.
    fn removed_all(&self) {}
    /// For messages.
    fn describe(&self) -> String;
}

/// What was left out, and why.
#[derive(Debug, Default)]
pub struct Skipped {
    allowed: bool,
    count: AtomicU64,
    /// Guards the first ones; held to add one.
    first: Mutex<Vec<(String, String)>>,
}

impl Skipped {
    /// `allowed`: leave out and go on; otherwise the first error ends it all.
    pub fn new(allowed: bool) -> Skipped {
        Skipped { allowed, ..Skipped::default() }
    }

    /// Leaves a thing out.
    ///
    /// Errors: the one given, unless leaving out is allowed. A full disk and a store that does not answer are no fault of one file.
    pub fn add(&self, thing: &str, why: Error) -> Result<()> {
        let of_all = matches!(why.kind(), Kind::NoSpace | Kind::Unavailable | Kind::Denied | Kind::Bug);
        if !self.allowed || of_all {
            return Err(match self.allowed || of_all {
                true => why,
                false => why.context(format_args!("{thing} (--skip-errors leaves it out)")),
            });
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        if first.len() < SKIPPED_KEPT_MAX {
            first.push((thing.to_owned(), why.to_string()));
        }
        Ok(())
    }

    pub fn allowed(&self) -> bool {
        self.allowed
    }

    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// The first thousand by name: thing and reason.
    pub fn first(&self) -> Vec<(String, String)> {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner).clone();
        first.sort();
        first
    }
}

/// What a scan is done with.
#[derive(Debug)]
pub struct Scan<'a> {
    pub threads: usize,
    pub work_dir: PathBuf,
    /// For all threads together.
    pub memory_bytes: usize,
    pub order: Order,
    pub skipped: &'a Skipped,
    pub progress: &'a Progress,
    /// Guards what threads found; held to add one list at a thread's end.
    done: Mutex<Vec<Sorter>>,
}

impl<'a> Scan<'a> {
    pub fn new(
        threads: usize,
        work_dir: PathBuf,
        memory_bytes: usize,
        order: Order,
        skipped: &'a Skipped,
        progress: &'a Progress,
    ) -> Scan<'a> {
        Scan { threads, work_dir, memory_bytes, order, skipped, progress, done: Mutex::default() }
    }

    /// Where one thread tells what it finds.
    pub fn sink(&self) -> Sink<'_> {
        let share = (self.memory_bytes / self.threads.max(1)).max(64 << 10);
        Sink { scan: self, sorter: Some(Sorter::new(&self.work_dir, entry::compare_all, share)) }
    }

    /// All that was found, not yet in order.
    pub fn into_sorters(self) -> Vec<Sorter> {
        self.done.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes what one thread of a scan finds; what it holds is the scan's when it is dropped.
#[derive(Debug)]
pub struct Sink<'a> {
    scan: &'a Scan<'a>,
    sorter: Option<Sorter>,
}

impl Sink<'_> {
    /// Errors: a name that no data set can have, unless errors are skipped; what the work directory's disk says.
    pub fn push(&mut self, entry: &Entry) -> Result<()> {
        if let Err(e) = check_path(&entry.path) {
            return self.skip(&String::from_utf8_lossy(&entry.path), e);
        }
        self.scan.progress.found.add(1, entry.length);
        let order = self.scan.order;
        match &mut self.sorter {
            Some(sorter) => sorter.push(|out| order.encode(entry, out)),
            None => Err(Error::new(Kind::Bug, "a scan went on after its end")),
        }
    }

    /// Leaves a thing out. Errors: as [`Skipped::add`].
    pub fn skip(&self, thing: &str, why: Error) -> Result<()> {
        self.scan.skipped.add(thing, why)
    }
}

impl Drop for Sink<'_> {
    fn drop(&mut self) {
        if let Some(sorter) = self.sorter.take() {
            self.scan.done.lock().unwrap_or_else(PoisonError::into_inner).push(sorter);
        }
    }
}

/// A path that every reader of the data set can take: UTF-8 without control characters, at most 4,096 bytes, relative, without
/// parts that are empty, `.` or `..`.
///
/// Errors: `Invalid`, `NameTooLong`; they say what is wrong, not with what.
pub fn check_path(path: &[u8]) -> Result<()> {
    let bad = |why: &'static str| Err(Error::new(Kind::Invalid, why));
    if path.len() > PATH_BYTES_MAX {
        return Err(Error::new(Kind::NameTooLong, "its path has more than 4,096 bytes; shorten it"));
    }
    let Ok(text) = std::str::from_utf8(path) else {
        return bad("its name is not UTF-8, which readers of data sets need; rename it");
    };
    if text.chars().any(char::is_control) {
        return bad("its name has a control character, as a line's end is; rename it");
    }
    if text.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return bad("its path is absolute, or has an empty part, `.` or `..`");
    }
    Ok(())
}

/// The error for a file that is not as the scan found it.
pub fn changed(how: &str) -> Error {
    Error::new(
        Kind::Stale,
        format!("it changed while it was packed ({how}); pack again when nothing writes to it"),
    )
}

/// What an importer's file gets where its container says nothing: readable by all, of nobody in particular.
pub fn plain_entry(path: Vec<u8>, length: u64, mtime: i64, content: Content) -> Entry {
    Entry { path, length, mtime, mtime_nanos: 0, mode: 0o644, uid: 0, gid: 0, content }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_readers_stumble_over_are_refused() {
        for good in ["a", "a/b.jpg", "\u{e9}/ü.txt", "a b", "..a", "x/".repeat(2_000).trim_end_matches('/')]
        {
            check_path(good.as_bytes()).unwrap();
        }
        for bad in
            [&b""[..], b"/a", b"a//b", b"a/", b"a/../b", b"./a", b"a\nb", b"a\x7f", b"\xff", &[b'x'; 4097]]
        {
            assert!(check_path(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn errors_of_one_file_are_skipped_only_when_allowed_and_a_full_disk_never() {
        let strict = Skipped::new(false);
        let e = strict.add("a/b", Error::new(Kind::Io, "unreadable")).unwrap_err();
        assert_eq!(e.to_string(), "a/b (--skip-errors leaves it out): unreadable");
        let lenient = Skipped::new(true);
        lenient.add("b", Error::new(Kind::Io, "unreadable")).unwrap();
        lenient.add("a", Error::new(Kind::Invalid, "odd")).unwrap();
        assert_eq!(lenient.add("c", Error::new(Kind::NoSpace, "full")).unwrap_err().kind(), Kind::NoSpace);
        assert_eq!(lenient.count(), 2);
        assert_eq!(lenient.first()[0], ("a".to_owned(), "odd".to_owned()));
    }
}
