//! Packed data sets as namespaces: where they are, and whether they can be read.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use granary_core::{NamespaceId, SystemClock};
use granary_meta::PackedSource;
use granary_packer::place::{Options, Place};
use granary_store::Environment;

use crate::exit::{Failure, Outcome};
use crate::settings::Settings;

/// Where a node keeps what it knows of the data set that a namespace shows: the order of its files, indexes of a bucket.
pub fn dir(cache: &Path, id: NamespaceId) -> PathBuf {
    cache.join("packed").join(id.to_string())
}

/// What a command line names. A folder becomes an absolute URL, since who mounts it works elsewhere.
pub fn source(place: &str, version: Option<u64>) -> Outcome<PackedSource> {
    let url = match place {
        _ if place.contains("://") => place.trim_end_matches('/').to_owned(),
        _ => {
            let path =
                std::path::absolute(place).map_err(|e| Failure::io(format!("cannot find {place}"), &e))?;
            let path = path.to_str().ok_or_else(|| {
                Failure::usage(format!("{place:?} is not UTF-8; give the folder another name to show it"))
            })?;
            format!("file://{}", path.trim_end_matches('/'))
        }
    };
    let source = PackedSource { url, version };
    source.validate()?;
    Ok(source)
}

/// Opens the place with this process's credentials, as the volume's store.
pub fn place(source: &PackedSource, settings: &Settings) -> Outcome<Place> {
    // Servers that are named are those of the volume's store: a bucket is there, too.
    let endpoints = match source.url.starts_with("s3://") {
        true => settings.store_endpoints.clone(),
        false => Vec::new(),
    };
    let (environment, limits) = (Environment::of_process(), settings.limits.clone());
    let options = Options { create: false, environment, endpoints, limits };
    Ok(Place::open(&source.url, &options, Arc::new(SystemClock))?)
}

/// Refuses a data set that cannot be read from here, before a namespace shows it.
pub async fn check(source: Option<&PackedSource>, settings: &Settings) -> Outcome<()> {
    if let Some(source) = source {
        granary_packed::manifest_of(&place(source, settings)?, source).await?;
    }
    Ok(())
}

/// For people.
pub fn show(source: &PackedSource) -> String {
    match source.version {
        Some(version) => format!("{}, version {version}", source.url),
        None => format!("{}, the newest version at each mount", source.url),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_become_absolute() {
        assert_eq!(source("/data/images/", None).unwrap().url, "file:///data/images");
        let here = std::env::current_dir().unwrap();
        assert_eq!(source("images", Some(2)).unwrap().url, format!("file://{}/images", here.display()));
        assert_eq!(source("s3://b/images/", None).unwrap().url, "s3://b/images");
        assert!(source("s3://b/images", Some(0)).unwrap_err().to_string().contains("numbered from 1"));
    }
}
