//! What SRC is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use granary_core::SystemClock;
use granary_packer::from::Source;
use granary_packer::from::containers::{Containers, Format};
use granary_packer::from::folder::Folder;
use granary_packer::from::objects::Objects;
use granary_packer::from::parquet::{Parquet, Wanted};
use granary_packer::place::Options;
use tokio::runtime::Handle;

use super::{From, PackArgs};
use crate::datasets::open_place;
use crate::exit::{Failure, Outcome};

/// Opens it, without reading any of it.
pub fn open(args: &PackArgs, runtime: &Handle) -> Outcome<Box<dyn Source>> {
    let _within = runtime.enter();
    let text = &args.source;
    let format = args.from.map(|from| match from {
        From::Tar => Format::Tar,
        From::Tfrecord => Format::TfRecord,
        From::TfrecordRaw => Format::TfRecordRaw,
        From::Mds => Format::Mds,
        From::Lmdb => Format::Lmdb,
        From::Parquet => Format::Parquet,
    });
    let columns = !args.column.is_empty() || args.name_column.is_some();
    if columns && format != Some(Format::Parquet) {
        return Err(Failure::usage("--column and --name-column are of --from parquet; leave them out"));
    }
    if format == Some(Format::Parquet) {
        let wanted = Wanted { columns: args.column.clone(), name_column: args.name_column.clone() };
        return Ok(Box::new(Parquet::open(
            text,
            wanted,
            &Options::from_env(),
            Arc::new(SystemClock),
            runtime,
        )?));
    }
    if let Some(format) = format {
        return Ok(Box::new(Containers::open(
            text,
            format,
            &Options::from_env(),
            Arc::new(SystemClock),
            runtime,
        )?));
    }
    if text.starts_with("s3://") {
        let place = open_place(text, false)?;
        return Ok(Box::new(Objects::new(place.store().clone(), runtime.clone())));
    }
    let path = Path::new(text.strip_prefix("file://").unwrap_or(text));
    if path.is_file() {
        return Err(Failure::usage(format!(
            "{text} is a file; give a folder, or say with --from what records it has"
        )));
    }
    Ok(Box::new(Folder::open(path, args.dereference)?))
}

/// Shards must not become a part of what is packed, nor be deleted with it. Before DST is made.
pub fn check_apart(args: &PackArgs) -> Outcome<()> {
    let local = |text: &str| {
        let path = Path::new(text.strip_prefix("file://").unwrap_or(text));
        std::path::absolute(path).map(|path| real(&path))
    };
    let is_bucket = |text: &str| text.starts_with("s3://");
    let within = match (is_bucket(&args.source), is_bucket(&args.to)) {
        (true, true) => {
            let with_slash = |text: &str| format!("{}/", text.trim_end_matches('/'));
            with_slash(&args.to).starts_with(&with_slash(&args.source))
        }
        (false, false) => match (local(&args.source), local(&args.to)) {
            (Ok(source), Ok(to)) => source.is_dir() && to.starts_with(source),
            _ => false,
        },
        _ => false,
    };
    if within {
        return Err(Failure::usage(format!(
            "{} lies within {}, so that shards would be packed into shards; pack to another place",
            args.to, args.source
        )));
    }
    Ok(())
}

/// Where a path leads, as far as it is there.
fn real(path: &Path) -> PathBuf {
    match (path.canonicalize(), path.parent(), path.file_name()) {
        (Ok(real), ..) => real,
        (Err(_), Some(parent), Some(name)) => real(parent).join(name),
        _ => path.to_owned(),
    }
}
