//! Where versions are kept: which there are, the latest that is whole, the next.

use bytes::Bytes;
use granary_core::{Error, Kind, Result};

use super::Manifest;
use crate::limits::MANIFEST_BYTES_MAX;
use crate::place::Place;

/// Ten digits.
pub const VERSION_MAX: u64 = 9_999_999_999;
/// Where they are, below the data set's root.
pub const FOLDER: &str = "manifests/";
const SUFFIX: &str = ".jsonl";
/// Versions of one data set that are looked through.
const LISTED_MAX: usize = 1 << 20;

/// The name of a version's manifest, below the data set's root.
pub fn key(version: u64) -> String {
    format!("{FOLDER}{version:010}{SUFFIX}")
}

fn version_of(key: &str) -> Option<u64> {
    let digits = key.strip_prefix(FOLDER)?.strip_suffix(SUFFIX)?;
    let ok = digits.len() == 10 && digits.bytes().all(|b| b.is_ascii_digit());
    ok.then(|| digits.parse().ok()).flatten().filter(|&version| version > 0)
}

/// The versions that are there, in order; some of them may be damaged.
///
/// Errors: what the store says.
pub async fn versions(place: &Place) -> Result<Vec<u64>> {
    Ok(listed(place).await?.into_iter().map(|(version, _)| version).collect())
}

/// The same with their manifests' bytes.
async fn listed(place: &Place) -> Result<Vec<(u64, u64)>> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = place.list(FOLDER, after.as_deref(), 1000).await?;
        found.extend(page.iter().filter_map(|object| Some((version_of(&object.key)?, object.size))));
        match page.last() {
            Some(last) if page.len() == 1000 && found.len() < LISTED_MAX => after = Some(last.key.clone()),
            _ => return Ok(found),
        }
    }
}

/// One version.
///
/// Errors: `NotFound`; `Corrupt`; `Unsupported` when a newer program wrote it; what the store says.
pub async fn read(place: &Place, version: u64) -> Result<Manifest> {
    let bytes = place.read_whole(&key(version), MANIFEST_BYTES_MAX).await.map_err(|e| match e.kind() {
        Kind::NotFound => Error::new(
            Kind::NotFound,
            format!("{place} has no version {version}; `granary ls --versions` shows those it has"),
        ),
        _ => e,
    })?;
    decoded(place, version, &bytes)
}

fn decoded(place: &Place, version: u64, bytes: &[u8]) -> Result<Manifest> {
    let manifest =
        Manifest::decode(bytes).map_err(|e| e.context(format_args!("{place}, version {version}")))?;
    if manifest.version() != version {
        return Err(Error::new(
            Kind::Corrupt,
            format!("{place}, version {version}: its manifest says version {}", manifest.version()),
        ));
    }
    Ok(manifest)
}

/// The highest version that is whole; `None` when there is none at all. A damaged one is passed over, and logged.
///
/// Errors: `Corrupt` when all are damaged; `Unsupported`; what the store says.
pub async fn latest(place: &Place) -> Result<Option<Manifest>> {
    let mut why = None;
    for (version, bytes) in listed(place).await?.into_iter().rev() {
        let read = if bytes > MANIFEST_BYTES_MAX {
            read(place, version).await
        } else {
            // Its size is known, and need not be asked for: a manifest is never written over.
            let got = place.get(&key(version), 0..bytes).await;
            got.and_then(|bytes| decoded(place, version, &bytes))
        };
        match read {
            Ok(manifest) => return Ok(Some(manifest)),
            Err(e) if e.kind() == Kind::Corrupt => {
                tracing::error!("{e}; the version before it is used");
                why = Some(e);
            }
            Err(e) => return Err(e),
        }
    }
    why.map_or(Ok(None), Err)
}

/// Makes a version, whole or not at all.
///
/// Errors: `Exists` when the version is there already (somebody else made it); what the store says.
pub async fn write(place: &Place, manifest: &Manifest) -> Result<()> {
    let bytes = manifest.encode()?;
    if bytes.len() as u64 > MANIFEST_BYTES_MAX {
        return Err(Error::new(
            Kind::FileTooLarge,
            format!(
                "version {} of {place} has a manifest over 1 GiB; make shards larger",
                manifest.version()
            ),
        ));
    }
    place.put_new(&key(manifest.version()), Bytes::from(bytes)).await.map_err(|e| match e.kind() {
        Kind::Exists => Error::new(
            Kind::Exists,
            format!(
                "{place} has a version {} already: somebody else changed it meanwhile; do it again",
                manifest.version()
            ),
        ),
        _ => e,
    })
}
