//! Which kinds of containers there are, and how their files are called.

use crate::from::lmdb;

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
    /// Values of Parquet files' columns, which [`parquet`](crate::from::parquet) reads.
    Parquet,
}

impl Format {
    /// Whether a file of this name is such a container, when all of a folder is to be packed.
    pub(super) fn has(self, name: &str) -> bool {
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

    pub(super) fn wanted(self) -> &'static str {
        match self {
            Format::Tar => "files that end with .tar",
            Format::TfRecord | Format::TfRecordRaw => "files with `tfrecord` or `-of-` in their names",
            Format::Mds => "an index.json",
            Format::Lmdb => "files that end with .mdb",
            Format::Parquet => "files that end with .parquet",
        }
    }
}
