//! The volume of these settings: its metadata, its store, and that the two belong together.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use granary_core::{Clock, Kind, SystemClock};
use granary_meta::engine::{Engine, RocksEngine};
use granary_meta::{Tuning, Volume, VolumeInfo};
use granary_store::Store;
use prometheus_client::registry::Registry;

use crate::exit::{Failure, Outcome, plain};
use crate::settings::Settings;

/// How long a starting node waits for the store to say whose it is, before it starts without.
const MARKER_WAIT: Duration = Duration::from_secs(5);

/// Whether there is an engine in the folder.
pub fn is_there(meta: &Path) -> Outcome<bool> {
    match std::fs::symlink_metadata(meta.join("CURRENT")) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Failure::failed(format!(
            "cannot look into the metadata folder {}: {}",
            meta.display(),
            plain(&e)
        ))),
    }
}

/// No volume there: says how to make one.
fn missing(meta: &Path) -> Failure {
    Failure::of_kind(
        Kind::NotFound,
        format!(
            "there is no volume in {}; make one with `granary init --meta {0} --store URL`, or name another with --meta",
            meta.display()
        ),
    )
}

/// Opens the volume's metadata for this process alone: a command, or a node that goes on with the open files of another process.
/// Files without a name stay; a keeper may have them open for a node that is not there now.
pub fn open(settings: &Settings) -> Outcome<Arc<Volume>> {
    open_with(settings, |engine| Volume::open_keeping(engine, Arc::new(SystemClock), &settings.limits))
}

/// The same for a node with nothing to go on with: nobody has files open.
pub fn open_anew(settings: &Settings) -> Outcome<Arc<Volume>> {
    open_with(settings, |engine| Volume::open(engine, Arc::new(SystemClock), &settings.limits))
}

fn open_with(
    settings: &Settings,
    open: impl FnOnce(Arc<dyn Engine>) -> granary_core::Result<Arc<Volume>>,
) -> Outcome<Arc<Volume>> {
    let folder = settings.meta.folder()?;
    if !is_there(folder)? {
        return Err(missing(folder));
    }
    let engine = RocksEngine::open(folder)?;
    let volume =
        open(engine).map_err(|e| if e.kind() == Kind::NotFound { missing(folder) } else { e.into() })?;
    check_asked(settings, volume.info())?;
    Ok(volume)
}

/// The same, to serve it to other processes.
pub fn open_for_service(settings: &Settings) -> Outcome<Arc<Volume>> {
    open_with(settings, |engine| {
        Volume::open_served(engine, Arc::new(SystemClock), &settings.limits, Tuning::default())
    })
}

/// A store that was asked for must be the volume's.
fn check_asked(settings: &Settings, info: &VolumeInfo) -> Outcome<()> {
    match &settings.store {
        Some(asked) if asked.trim_end_matches('/') != info.store_url.trim_end_matches('/') => {
            Err(Failure::of_kind(
                Kind::Invalid,
                format!(
                    "the volume in {} has its objects in {}, not in {asked}; leave --store out, or name another volume with --meta",
                    settings.meta, info.store_url
                ),
            ))
        }
        _ => Ok(()),
    }
}

/// The volume's store, with its metrics in `registry`.
pub fn store(
    url: &str,
    settings: &Settings,
    clock: Arc<dyn Clock>,
    registry: &mut Registry,
) -> Outcome<Arc<dyn Store>> {
    let options = store_options(settings);
    Ok(granary_store::production_with(url, &options, &settings.limits, clock, registry)?)
}

/// How these settings and the environment say that the store is reached.
pub fn store_options(settings: &Settings) -> granary_store::Options {
    granary_store::Options {
        endpoints: settings.store_endpoints.clone(),
        ..granary_store::Options::from_env()
    }
}

/// Refuses a store that is another volume's, or no volume's. A store that does not answer now is no reason not to start:
/// what is written meanwhile waits on the node's disk.
pub async fn check_marker(store: &dyn Store, info: &VolumeInfo) -> Outcome<()> {
    match tokio::time::timeout(MARKER_WAIT, granary_store::marker::check(store, &info.uuid)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(e)) if !e.kind().is_transient() => Err(e.into()),
        Ok(Err(e)) => {
            tracing::warn!("starting although the store {} does not answer: {e}", store.describe());
            Ok(())
        }
        Err(_) => {
            tracing::warn!(
                "starting although the store {} did not answer within {MARKER_WAIT:?}",
                store.describe()
            );
            Ok(())
        }
    }
}
