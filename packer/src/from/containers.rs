//! Files that hold many records: tars, TFRecord files, MosaicML shards, LMDB data files. Each is gone through once in the scan, which notes where
//! every record's bytes are; packing then reads those ranges, in whatever order shards want them.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use granary_core::{Clock, Error, Kind, Result};
use tokio::runtime::Handle;

use super::{Scan, Sink, Source, Want, changed, fetch, lmdb, mds, tar, tfrecord};
use crate::pack::entry::{Content, Entry};
use crate::place::{self, Place};

/// Bytes read ahead while a container is gone through.
const AHEAD_BYTES: u64 = 1 << 20;
/// Containers that are open at once.
const OPEN_MAX: usize = 64;
/// Containers of a bucket that are looked at once more at the same time.
const LOOKS_MAX: usize = 16;
/// Containers of one source: each takes some memory.
const CONTAINERS_MAX: usize = 4 << 20;

/// What the containers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Tar,
    /// Each feature of a record that is a `tf.train.Example` is a file.
    TfRecord,
    /// Each record is a file.
    TfRecordRaw,
    Mds,
    /// Keys of LMDB data files.
    Lmdb,
    /// Values of Parquet files' columns, which [`parquet`](super::parquet) reads.
    Parquet,
}

impl Format {
    /// Whether a file of this name is such a container, when all of a folder is to be packed.
    fn has(self, name: &str) -> bool {
        match self {
            Format::Tar => name.ends_with(".tar"),
            // `train.tfrecord-00000-of-00010`, `train-00000-of-00010` and `x.tfrecords` are all usual.
            Format::TfRecord | Format::TfRecordRaw => {
                let base = name.rsplit('/').next().unwrap_or(name);
                base.contains("tfrecord") && !base.contains(".idx") || base.contains("-of-")
            }
            Format::Mds => name.ends_with("index.json"),
            Format::Lmdb => lmdb::has_name(name),
            Format::Parquet => name.ends_with(".parquet"),
        }
    }

    fn wanted(self) -> &'static str {
        match self {
            Format::Tar => "files that end with .tar",
            Format::TfRecord | Format::TfRecordRaw => "files with `tfrecord` or `-of-` in their names",
            Format::Mds => "an index.json",
            Format::Lmdb => "files that end with .mdb",
            Format::Parquet => "files that end with .parquet",
        }
    }
}

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
    /// Guards the open files of a folder; held to look one up or open it.
    open: Mutex<HashMap<u32, Arc<File>>>,
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
        let (place, containers) = match single(text, format, options, &clock, runtime)? {
            Some((place, one)) => (place, vec![one]),
            None => {
                let place = Place::open(text, options, clock)?;
                let containers = list(&place, format, runtime)?;
                (place, containers)
            }
        };
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
        let open = Mutex::default();
        Ok(Containers { place, runtime: runtime.clone(), format, containers, tables, open })
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
        let mut cursor = self.cursor(number);
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

    fn cursor(&self, number: u32) -> Cursor<'_> {
        let end = self.containers[number as usize].bytes;
        Cursor { of: self, number, at: 0, end, ready: Bytes::new() }
    }

    /// Reads a range of a folder's file.
    fn read_local(&self, number: u32, from: u64, into: &mut [u8]) -> Result<()> {
        let container = &self.containers[number as usize];
        let path = self
            .place
            .local_path(&container.name)
            .ok_or_else(|| Error::new(Kind::Bug, format!("{} is no file's name", container.name)))?;
        let file = self.open.lock().unwrap_or_else(PoisonError::into_inner).get(&number).cloned();
        let file = match file {
            Some(file) => file,
            None => {
                let file =
                    File::open(&path).map_err(|e| Error::io(format!("cannot open {}", path.display()), e))?;
                let file = Arc::new(file);
                let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
                if open.len() >= OPEN_MAX {
                    open.clear();
                }
                open.insert(number, file.clone());
                file
            }
        };
        let cannot = |e| Error::io(format!("cannot read {} at byte {from}", path.display()), e);
        match file.read_exact_at(into, from) {
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Err(changed("its container is shorter than it was"));
            }
            other => other.map_err(cannot)?,
        }
        let meta = file.metadata().map_err(cannot)?;
        let now = (meta.len(), meta.mtime(), meta.mtime_nsec() as u32);
        if now != (container.bytes, container.mtime, container.mtime_nanos) {
            return Err(changed("its container was written meanwhile"));
        }
        Ok(())
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

/// The container that `text` names, and where it lies; `None` when it names a folder or prefix.
fn single(
    text: &str,
    format: Format,
    options: &place::Options,
    clock: &Arc<dyn Clock>,
    runtime: &Handle,
) -> Result<Option<(Place, Container)>> {
    let in_bucket = text.strip_prefix("s3://").map(|rest| rest.rsplit_once('/'));
    let (root, name) = match in_bucket {
        // What is called like a container may be a prefix all the same, as Spark has `x.parquet/part-0.parquet`.
        Some(Some((root, name))) if format.has(name) => (format!("s3://{root}"), name.to_owned()),
        Some(_) => return Ok(None),
        None => {
            let path = Path::new(text.strip_prefix("file://").unwrap_or(text));
            let parts = (path.parent(), path.file_name().and_then(|name| name.to_str()));
            let (true, (Some(parent), Some(name))) = (path.is_file(), parts) else { return Ok(None) };
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            (parent.to_string_lossy().into_owned(), name.to_owned())
        }
    };
    let place = Place::open(&root, options, clock.clone())?;
    match runtime.block_on(place.head(&name)) {
        Ok(object) => Ok(Some((place, container(object)))),
        Err(e) if e.kind() == Kind::NotFound && in_bucket.is_some() => Ok(None),
        Err(e) => Err(e),
    }
}

fn list(place: &Place, format: Format, runtime: &Handle) -> Result<Vec<Container>> {
    let mut found = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = runtime.block_on(place.list("", after.as_deref(), 1_000))?;
        let ended = page.len() < 1_000;
        after = page.last().map(|object| object.key.clone());
        found.extend(page.into_iter().filter(|object| format.has(&object.key)).map(container));
        if found.len() > CONTAINERS_MAX {
            return Err(Error::new(
                Kind::Invalid,
                format!("{place} has more than 4,194,304 containers; pack it in parts"),
            ));
        }
        if ended {
            return Ok(found);
        }
    }
}

/// Goes through one container.
#[derive(Debug)]
pub struct Cursor<'a> {
    of: &'a Containers,
    number: u32,
    at: u64,
    end: u64,
    /// Bytes from `at` on that are here already.
    ready: Bytes,
}

impl Cursor<'_> {
    /// Where the next byte is.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// How long the container is.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The next bytes, which stay the next.
    ///
    /// Errors: `Corrupt` when the container ends before them; what the place says.
    pub fn peek(&mut self, len: u64) -> Result<Bytes> {
        if (self.ready.len() as u64) < len {
            if self.end - self.at < len {
                return Err(Error::new(
                    Kind::Corrupt,
                    format!(
                        "it is cut: {len} bytes should follow byte {}, and it ends at byte {}",
                        self.at, self.end
                    ),
                ));
            }
            let until = self.end.min(self.at + len.max(AHEAD_BYTES));
            self.ready = match self.of.place.folder() {
                Some(_) => {
                    let mut buffer = vec![0; (until - self.at) as usize];
                    self.of.read_local(self.number, self.at, &mut buffer)?;
                    buffer.into()
                }
                None => {
                    let name = &self.of.containers[self.number as usize].name;
                    self.of.runtime.block_on(self.of.place.get(name, self.at..until))?
                }
            };
        }
        Ok(self.ready.slice(..len as usize))
    }

    /// The next bytes. Errors: as [`Cursor::peek`].
    pub fn take(&mut self, len: u64) -> Result<Bytes> {
        let bytes = self.peek(len)?;
        self.skip(len)?;
        Ok(bytes)
    }

    /// Goes on behind the next bytes, without reading them.
    ///
    /// Errors: `Corrupt` when the container ends before.
    pub fn skip(&mut self, len: u64) -> Result<()> {
        if self.end - self.at < len {
            return Err(Error::new(
                Kind::Corrupt,
                format!(
                    "it is cut: {len} bytes should follow byte {}, and it ends at byte {}",
                    self.at, self.end
                ),
            ));
        }
        self.at += len;
        let held = (self.ready.len() as u64).min(len);
        self.ready = self.ready.slice(held as usize..);
        Ok(())
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
