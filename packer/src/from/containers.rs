//! Files that hold many records: tars, TFRecord files, MosaicML shards, LMDB data files. Each is gone through once in the scan, which
//! notes where every record's bytes are; packing then reads those ranges, in whatever order shards want them.

mod cursor;
mod files;
mod find;
mod format;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::{StreamExt, TryStreamExt};
use granary_core::{Clock, Error, Kind, Result};
use tokio::runtime::Handle;

use super::{Scan, Sink, Source, Want, changed, fetch, lmdb, mds, tar, tfrecord};
use crate::pack::entry::{Content, Entry};
use crate::place::{self, Place};
use files::Files;

pub use cursor::Cursor;
pub use format::Format;

/// Containers of a bucket that are looked at once more at the same time.
const LOOKS_MAX: usize = 16;

/// One container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Below the source's place.
    pub name: String,
    pub bytes: u64,
    pub mtime: i64,
    mtime_nanos: u32,
}

/// All containers of a source.
#[derive(Debug)]
pub struct Containers {
    place: Place,
    runtime: Handle,
    format: Format,
    containers: Vec<Container>,
    /// Of MosaicML shards, by container.
    tables: Vec<mds::Shard>,
    files: Files,
}

impl Containers {
    /// `text`: a container, or a folder or `s3://` prefix with containers anywhere below.
    ///
    /// Errors: `NotFound` when there are none; what the place says.
    pub fn open(
        text: &str,
        format: Format,
        options: &place::Options,
        clock: Arc<dyn Clock>,
        runtime: &Handle,
    ) -> Result<Containers> {
        let (place, containers) = find::find(text, format, options, &clock, runtime)?;
        if containers.is_empty() {
            return Err(Error::new(
                Kind::NotFound,
                format!("{place} has no containers of this kind: {} are looked for", format.wanted()),
            ));
        }
        let (containers, tables) = match format {
            Format::Mds => mds::shards(&place, &containers, runtime)?,
            _ => (containers, Vec::new()),
        };
        Ok(Containers {
            place,
            runtime: runtime.clone(),
            format,
            containers,
            tables,
            files: Files::default(),
        })
    }

    /// A container's name for messages.
    fn name(&self, number: u32) -> String {
        let name = &self.containers[number as usize].name;
        match self.place.folder() {
            Some(folder) => folder.join(name).display().to_string(),
            None => format!("{name} of {}", self.place),
        }
    }

    fn scan_one(&self, number: u32, sink: &mut Sink<'_>) -> Result<()> {
        let mut cursor = Cursor::new(self, number);
        let container = &self.containers[number as usize];
        let bad = |why| {
            Err(Error::new(Kind::Unsupported, format!("it is compressed with {why}; decompress it first")))
        };
        let scanned = match cursor.peek(4) {
            Ok(head) if head.starts_with(b"\x1f\x8b") => bad("gzip"),
            Ok(head) if head.starts_with(b"\x28\xb5\x2f\xfd") => bad("zstd"),
            Err(e) if e.kind() != Kind::Corrupt => Err(e),
            _ => match self.format {
                Format::Tar => tar::scan(&mut cursor, number, sink),
                Format::TfRecord => tfrecord::scan(&mut cursor, container, number, false, sink),
                Format::TfRecordRaw => tfrecord::scan(&mut cursor, container, number, true, sink),
                Format::Mds => mds::scan(&mut cursor, &self.tables[number as usize], number, sink),
                Format::Lmdb => lmdb::scan(self, number, sink),
                Format::Parquet => {
                    Err(Error::new(Kind::Bug, "Parquet's values are in no place of their file"))
                }
            },
        };
        self.ended(number, scanned, sink)
    }

    /// What is wrong with a container is skipped, if that is allowed; what was found before stays, what follows cannot be found.
    pub(super) fn ended(&self, number: u32, scanned: Result<()>, sink: &Sink<'_>) -> Result<()> {
        match scanned {
            Ok(()) => Ok(()),
            Err(e) if matches!(e.kind(), Kind::Corrupt | Kind::Unsupported | Kind::NotFound) => {
                sink.skip(&self.name(number), e)
            }
            Err(e) => Err(e.context(self.name(number))),
        }
    }

    /// Goes through all containers, several at once, each by one thread.
    ///
    /// Errors: the first of `one`.
    pub(super) fn each(
        &self,
        scan: &Scan<'_>,
        one: impl Fn(u32, &mut Sink<'_>) -> Result<()> + Sync,
    ) -> Result<()> {
        let next = AtomicUsize::new(0);
        let failed: Mutex<Option<Error>> = Mutex::default();
        std::thread::scope(|scope| {
            for _ in 0..scan.threads.clamp(1, self.containers.len()) {
                scope.spawn(|| {
                    let mut sink = scan.sink();
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= self.containers.len() {
                            return;
                        }
                        if let Err(e) = one(number as u32, &mut sink) {
                            failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(e);
                            next.store(self.containers.len(), Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    pub(super) fn container(&self, number: u32) -> &Container {
        &self.containers[number as usize]
    }

    /// Reads a range of a container.
    ///
    /// Errors: `Stale` when it changed; what the place says.
    pub(super) fn read_at(&self, number: u32, from: u64, into: &mut [u8]) -> Result<()> {
        self.read_many(number, vec![(from, into)])
    }

    /// Reads several ranges of a container, in a bucket many at once.
    ///
    /// Errors: as [`Containers::read_at`].
    pub(super) fn read_many(&self, number: u32, wanted: Vec<(u64, &mut [u8])>) -> Result<()> {
        if self.place.folder().is_some() {
            return wanted.into_iter().try_for_each(|(from, into)| self.read_local(number, from, into));
        }
        let name = &*self.containers[number as usize].name;
        let wanted = wanted.into_iter().map(|(from, into)| (name, from, into)).collect();
        fetch::fetch(&self.runtime, &**self.place.store(), wanted).into_iter().collect()
    }

    fn read_local(&self, number: u32, from: u64, into: &mut [u8]) -> Result<()> {
        self.files.read(&self.place, self.container(number), number, from, into)
    }
}

#[cfg(test)]
impl Container {
    pub fn named(name: &str) -> Container {
        Container { name: name.to_owned(), bytes: 0, mtime: 0, mtime_nanos: 0 }
    }
}

pub(super) fn container(object: granary_store::ObjectMeta) -> Container {
    Container {
        name: object.key,
        bytes: object.size,
        mtime: object.modified.secs,
        mtime_nanos: object.modified.nanos,
    }
}

impl Source for Containers {
    fn scan(&self, scan: &Scan<'_>) -> Result<()> {
        self.each(scan, |number, sink| self.scan_one(number, sink))
    }

    fn read(&self, wants: &mut [Want<'_>]) {
        let place_of = |want: &Want<'_>| match want.entry.content {
            Content::Range { container, offset } => (container, offset + want.from),
            _ => (0, 0),
        };
        if self.place.folder().is_some() {
            for want in wants {
                let (container, from) = place_of(want);
                want.failed = self.read_local(container, from, want.into).err();
            }
            return;
        }
        let mut failed: Vec<&mut Option<Error>> = Vec::new();
        let mut wanted = Vec::new();
        for want in wants.iter_mut() {
            let (container, from) = place_of(want);
            wanted.push((&*self.containers[container as usize].name, from, &mut *want.into));
            failed.push(&mut want.failed);
        }
        for (failed, outcome) in
            failed.into_iter().zip(fetch::fetch(&self.runtime, &**self.place.store(), wanted))
        {
            *failed = outcome.err();
        }
    }

    /// Of a bucket's containers by their size and time: ranges of one that is put anew are read without a word.
    fn check_steady(&self) -> Result<()> {
        if self.place.folder().is_some() {
            return Ok(()); // each read looks
        }
        let looks = (0..self.containers.len()).map(|number| async move {
            let container = &self.containers[number];
            let why = match self.place.head(&container.name).await {
                Ok(now) if (now.size, now.modified.secs) == (container.bytes, container.mtime) => {
                    return Ok(());
                }
                Ok(_) => "it was put anew",
                Err(e) if e.kind() == Kind::NotFound => "it is gone",
                Err(e) => return Err(e.context(self.name(number as u32))),
            };
            Err(changed(why).context(self.name(number as u32)))
        });
        let looks = futures::stream::iter(looks).buffer_unordered(LOOKS_MAX);
        self.runtime.block_on(looks.try_collect())
    }

    fn retries(&self) -> u64 {
        self.place.retries()
    }

    fn remove(&self, _: &Entry) -> Result<bool> {
        Err(Error::new(
            Kind::Unsupported,
            "what is packed from containers cannot be deleted one by one; delete the containers yourself",
        ))
    }

    fn describe(&self) -> String {
        self.place.to_string()
    }
}
