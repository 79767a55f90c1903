//! An open data set for reading samples by their numbers, and what a [`Loader`](crate::Loader) reads from.
//!
//! In a folder, shards are mapped and a sample is a view of them: nothing is copied, and no thread is needed for one. In a bucket,
//! samples are fetched; neighbours come in one request. Every file is verified against its checksum before it is given.

mod home;
mod select;

use std::path::PathBuf;
use std::sync::Arc;

use granary_core::{Clock, Error, Kind, Result, SystemClock};
use granary_packer::dataset::DataSet;
use granary_packer::manifest::Manifest;
use granary_packer::place;

use crate::decode::Decode;
use crate::order::shape::{Shape, Spot};
use crate::process::PerProcess;
use crate::sample::Sample;

pub(crate) use home::{Home, Want};

/// How a data set is opened. Plain values.
#[derive(Clone, Debug, Default)]
pub struct SourceOptions {
    /// None: the latest.
    pub version: Option<u64>,
    /// How the store is reached: environment, limits.
    pub place: place::Options,
    /// Where indexes of a bucket are kept on this machine; none: in memory.
    pub index_folder: Option<PathBuf>,
    /// Only these samples, by their numbers in the version, in any order, none twice; none: all. 8 bytes each.
    pub select: Option<Vec<u64>>,
    /// Only samples that have files with all of these extensions. All indexes are read when it is not empty.
    pub having: Vec<String>,
    /// The extension of the file whose length is a sample's, to make batches of like length; none: lengths are not known. All indexes are read with
    /// it, and 2 bytes a sample kept.
    pub lengths: Option<String>,
    /// Only files with these extensions are given, and fetched; empty: all.
    pub members: Vec<String>,
    /// Threads that read at once; 0: one a processor, up to 16.
    pub threads: usize,
    /// Where the node listens, for `granary://`; none: [`node::SOCKET`](crate::node::SOCKET).
    pub socket: Option<PathBuf>,
}

/// A data set, open. Clones share it; all methods may be called by many threads, and in children made by `fork`.
#[derive(Clone, Debug)]
pub struct Source {
    inner: Arc<Inner>,
    decode: Option<Arc<Decode>>,
}

#[derive(Debug)]
struct Inner {
    /// As it was given, for messages and to open it again in another process.
    text: String,
    options: SourceOptions,
    clock: Arc<dyn Clock>,
    manifest: Arc<Manifest>,
    /// Numbers of the samples that take part, in order; none: all.
    selected: Option<Arc<[u64]>>,
    shape: Arc<Shape>,
    opened: Opened,
}

#[derive(Debug)]
enum Opened {
    /// In a folder: nothing in it is of one process.
    Folder(Arc<Home>),
    /// In a bucket, or through the node: sockets and threads, which each process has of its own.
    Bucket(PerProcess<Home>),
    /// Over a store that was handed in.
    Given(Arc<Home>),
}

impl Source {
    /// `text`: a folder, `file:///folder`, `s3://bucket/prefix`, or `granary://NAMESPACE/folder` ([`node`](crate::node)).
    ///
    /// Errors: `NotFound` when there is no data set or no such version; `Invalid` for what cannot be selected; `Corrupt`; what the store says.
    pub fn open(text: &str, options: SourceOptions) -> Result<Source> {
        Source::open_with(text, options, Arc::new(SystemClock))
    }

    /// The same by another clock.
    ///
    /// Errors: as [`Source::open`].
    pub fn open_with(text: &str, options: SourceOptions, clock: Arc<dyn Clock>) -> Result<Source> {
        let home = Home::open(text, &options, clock.clone(), None)?;
        let (manifest, folder) = (home.data().manifest().clone(), home.is_folder());
        let home = Arc::new(home);
        let (selected, shape) = home.block_on(Source::selected(home.data(), &options))?;
        let opened = if folder {
            Opened::Folder(home)
        } else {
            let mut bucket = PerProcess::default();
            bucket.set(home);
            Opened::Bucket(bucket)
        };
        let text = text.to_owned();
        let inner = Arc::new(Inner { text, options, clock, manifest, selected, shape, opened });
        Ok(Source { inner, decode: None })
    }

    /// The same data set, with files decoded that this names; with none, as they are.
    pub fn with_decode(&self, decode: Option<Decode>) -> Source {
        Source { inner: self.inner.clone(), decode: decode.map(Arc::new) }
    }

    /// Which files are decoded.
    pub fn decode(&self) -> Option<&Arc<Decode>> {
        self.decode.as_ref()
    }

    /// Over an open data set: for stores of one's own, and for tests. Not for use in a child made by `fork`.
    ///
    /// Errors: `Invalid`, `Corrupt`; what the store says.
    pub async fn of_data_set(data: DataSet, options: SourceOptions) -> Result<Source> {
        let (selected, shape) = Source::selected(&data, &options).await?;
        let manifest = data.manifest().clone();
        let text = data.place().to_string();
        let opened = Opened::Given(Arc::new(Home::given(data, &options)));
        let clock = Arc::new(SystemClock);
        let inner = Arc::new(Inner { text, options, clock, manifest, selected, shape, opened });
        Ok(Source { inner, decode: None })
    }

    async fn selected(data: &DataSet, options: &SourceOptions) -> Result<(Option<Arc<[u64]>>, Arc<Shape>)> {
        let selected = select::selected(data, options).await?;
        let mut shape = select::shape(data.manifest(), selected.as_deref())?;
        if let Some(extension) = &options.lengths {
            shape = shape.with_lengths(select::lengths(data, extension, selected.as_deref()).await?)?;
        }
        Ok((selected, Arc::new(shape)))
    }

    /// Samples that take part.
    pub fn len(&self) -> u64 {
        self.inner.shape.samples()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn version(&self) -> u64 {
        self.inner.manifest.version()
    }

    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.inner.manifest
    }

    /// What of it decides an order.
    pub fn shape(&self) -> &Arc<Shape> {
        &self.inner.shape
    }

    /// Whether its bytes are lent from mapped shards.
    pub fn is_folder(&self) -> bool {
        self.home().is_ok_and(|home| home.is_folder())
    }

    /// As it was given to [`Source::open`].
    pub fn name(&self) -> &str {
        &self.inner.text
    }

    /// The number in the version of the sample that is `nth` of those that take part.
    ///
    /// Errors: `Invalid` when there are fewer.
    pub fn number(&self, nth: u64) -> Result<u64> {
        Ok(self.want_number(nth)?.number)
    }

    /// One sample; `number` is below [`len`](Source::len).
    ///
    /// Errors: `Invalid` for another number; `Corrupt`; what disk or store says; as [`Decode::sample`].
    pub fn sample(&self, number: u64) -> Result<Sample> {
        let want = self.want_number(number)?;
        let home = self.home()?;
        if home.is_folder() {
            return self.decoded(home.mapped(&want)?);
        }
        let mut samples = home.block_on(home.fetch(&[want]));
        let none = || Err(Error::new(Kind::Bug, "a sample was asked for, and none came"));
        self.decoded(samples.pop().unwrap_or_else(none)?)
    }

    fn decoded(&self, sample: Sample) -> Result<Sample> {
        match &self.decode {
            Some(decode) => decode.sample(sample),
            None => Ok(sample),
        }
    }

    /// Many samples, in the order of `numbers`, by all threads at once.
    ///
    /// Errors: as [`Source::sample`], of the first that has one.
    pub fn read_many(&self, numbers: &[u64]) -> Result<Vec<Sample>> {
        let wants = numbers.iter().map(|&number| self.want_number(number)).collect::<Result<Vec<Want>>>()?;
        let home = self.home()?;
        let samples: Vec<Sample> = if home.is_folder() {
            home.mapped_many(&wants)?
        } else {
            home.block_on(home.fetch(&wants)).into_iter().collect::<Result<_>>()?
        };
        match &self.decode {
            Some(decode) => decode.samples(samples, home::threads(&self.inner.options)),
            None => Ok(samples),
        }
    }

    /// The sample that has a file with this path, and the file's place in it.
    ///
    /// Errors: `NotFound`; as [`Source::sample`].
    pub fn file(&self, path: &[u8]) -> Result<(Sample, usize)> {
        let home = self.home()?;
        let absent = || {
            let path = String::from_utf8_lossy(path);
            Error::new(
                Kind::NotFound,
                format!("{} version {} has no file {path:?}", self.inner.text, self.version()),
            )
        };
        let (shard, file) = home.block_on(home.data().find(path))?.ok_or_else(absent)?;
        let index = home.block_on(home.data().index(shard))?;
        let sample = index.file(file)?.sample;
        let number = self.inner.manifest.sample_number(shard, sample).ok_or_else(absent)?;
        let want = Want { shard, sample, number };
        let sample = match home.is_folder() {
            true => home.mapped(&want)?,
            false => {
                let mut samples = home.block_on(home.fetch(&[want]));
                samples.pop().unwrap_or_else(|| Err(absent()))?
            }
        };
        let at = sample.files.iter().position(|number| number == file).ok_or_else(absent)?;
        Ok((self.decoded(sample)?, at))
    }

    /// Requests to the store, retries and hedges in Prometheus' text; empty for a folder.
    pub fn metrics(&self) -> String {
        match &self.inner.opened {
            Opened::Folder(_) => String::new(),
            _ => self.home().map(|home| home.metrics()).unwrap_or_default(),
        }
    }

    /// Where the sample at a place of the order is.
    pub(crate) fn want(&self, spot: Spot) -> Result<Want> {
        self.want_number(self.inner.shape.number(spot))
    }

    /// The place in the order's shape of a sample of a shard; `None` when it does not take part.
    pub(crate) fn spot(&self, shard: u32, sample: u32) -> Option<Spot> {
        let number = self.inner.manifest.sample_number(shard, sample)?;
        let nth = match &self.inner.selected {
            None => number,
            Some(selected) => selected.binary_search(&number).ok()? as u64,
        };
        Some(self.inner.shape.locate(nth))
    }

    fn want_number(&self, nth: u64) -> Result<Want> {
        let number = match &self.inner.selected {
            None => Some(nth),
            Some(selected) => selected.get(nth as usize).copied(),
        };
        let located = number.and_then(|number| Some((number, self.inner.manifest.locate_sample(number)?)));
        let Some((number, (shard, sample))) = located else {
            return Err(Error::new(
                Kind::Invalid,
                format!("{} has {} samples; there is no sample {nth}", self.inner.text, self.len()),
            ));
        };
        Ok(Want { shard, sample, number })
    }

    /// What reads it in this process.
    pub(crate) fn home(&self) -> Result<Arc<Home>> {
        let Inner { text, options, clock, manifest, .. } = &*self.inner;
        match &self.inner.opened {
            Opened::Folder(home) | Opened::Given(home) => Ok(home.clone()),
            Opened::Bucket(bucket) => {
                bucket.get_or_make(|| Home::open(text, options, clock.clone(), Some(manifest.clone())))
            }
        }
    }
}
