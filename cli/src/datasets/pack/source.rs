//! What SRC is.

use std::path::Path;
use std::sync::Arc;

use granary_core::SystemClock;
use granary_packer::from::Source;
use granary_packer::from::containers::{Containers, Format};
use granary_packer::from::folder::Folder;
use granary_packer::from::objects::Objects;
use granary_packer::place::{Options, Place};
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
    });
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

/// Shards must not become a part of what is packed, nor be deleted with it.
pub fn check_apart(args: &PackArgs, place: &Place) -> Outcome<()> {
    let within = match place.folder() {
        None => {
            let with_slash = |text: &str| format!("{}/", text.trim_end_matches('/'));
            args.source.starts_with("s3://") && with_slash(&args.to).starts_with(&with_slash(&args.source))
        }
        Some(folder) => {
            let source = Path::new(args.source.strip_prefix("file://").unwrap_or(&args.source));
            match (source.canonicalize(), folder.canonicalize()) {
                (Ok(source), Ok(folder)) => source.is_dir() && folder.starts_with(source),
                _ => false,
            }
        }
    };
    if within {
        return Err(Failure::usage(format!(
            "{} lies within {}, so that shards would be packed into shards; pack to another place",
            args.to, args.source
        )));
    }
    Ok(())
}
