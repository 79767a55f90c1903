//! What `ls` and `cat` look at: a data set, or one tar, with an index beside it or without.

use granary_core::Kind;
use granary_packer::blocking::ShardBytes;
use granary_packer::dataset::DataSet;
use granary_packer::index::Index;
use granary_packer::manifest::{Runs, index_path};
use granary_packer::place::Place;
use tokio::runtime::Handle;

use crate::exit::{Failure, Outcome};

pub enum Source {
    DataSet(DataSet),
    /// A tar with its index.
    Indexed(Place, String, Index),
    /// A tar alone: it is read from its beginning.
    Tar(Place, String),
}

impl Source {
    pub fn open(text: &str, version: Option<u64>, runtime: &Handle) -> Outcome<Source> {
        let Some((root, name)) = tar(text) else {
            let place = super::open_place(text, false)?;
            return Ok(Source::DataSet(runtime.block_on(DataSet::open(place, version))?));
        };
        if version.is_some() {
            return Err(Failure::usage(format!("{text} is a tar; versions are of data sets")));
        }
        let place = super::open_place(&root, false)?;
        let bytes = ShardBytes::open(&place, &name, runtime)?.bytes();
        let index = runtime.block_on(async {
            let size = place.head(&index_path(&name)).await?.size;
            match place.local_path(&index_path(&name)) {
                Some(path) => Index::open(&path),
                None => Index::from_bytes(place.get(&index_path(&name), 0..size).await?),
            }
        });
        match index {
            Ok(index) if index.shard_bytes() == bytes => Ok(Source::Indexed(place, name, index)),
            // A damaged index, or another tar's, is no reason not to read the tar.
            Ok(_) => Ok(Source::Tar(place, name)),
            Err(e) if matches!(e.kind(), Kind::NotFound | Kind::Corrupt) => Ok(Source::Tar(place, name)),
            Err(e) => Err(e.into()),
        }
    }

    /// Each shard with its index, and what is dead of it. Not for a tar alone.
    pub fn each_shard(
        &self,
        runtime: &Handle,
        mut with: impl FnMut(&Place, &str, &Index, &Runs) -> Outcome<()>,
    ) -> Outcome<()> {
        match self {
            Source::DataSet(data) => {
                for (number, shard) in (0u32..).zip(data.manifest().shards()) {
                    let index = runtime.block_on(data.index(number))?;
                    with(data.place(), &shard.path, &index, &shard.dead_files)?;
                }
                Ok(())
            }
            Source::Indexed(place, name, index) => with(place, name, index, &Runs::default()),
            Source::Tar(..) => Ok(()),
        }
    }
}

/// Where the tar is and what it is called, when it is one.
fn tar(text: &str) -> Option<(String, String)> {
    let is_tar = match text.starts_with("s3://") {
        true => text.ends_with(".tar"),
        false => std::path::Path::new(text.strip_prefix("file://").unwrap_or(text)).is_file(),
    };
    match text.rsplit_once('/').filter(|_| is_tar) {
        Some(("", name)) => Some(("/".to_owned(), name.to_owned())),
        Some((root, name)) => Some((root.to_owned(), name.to_owned())),
        None if is_tar => Some((".".to_owned(), text.to_owned())),
        None => None,
    }
}
