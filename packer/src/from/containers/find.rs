//! Finding containers: one that is named, or all that lie below a folder or prefix.

use std::path::Path;
use std::sync::Arc;

use granary_core::{Clock, Error, Kind, Result};
use tokio::runtime::Handle;

use super::format::Format;
use super::{Container, container};
use crate::place::{self, Place};

/// Containers of one source: each takes some memory.
const CONTAINERS_MAX: usize = 4 << 20;

/// The containers that `text` means, and the place they are in; none is no error.
pub(super) fn find(
    text: &str,
    format: Format,
    options: &place::Options,
    clock: &Arc<dyn Clock>,
    runtime: &Handle,
) -> Result<(Place, Vec<Container>)> {
    if let Some((place, one)) = single(text, format, options, clock, runtime)? {
        return Ok((place, vec![one]));
    }
    let place = Place::open(text, options, clock.clone())?;
    let containers = list(&place, format, runtime)?;
    Ok((place, containers))
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
