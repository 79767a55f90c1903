//! `granary init`: makes a volume. The order makes every interruption harmless: the store is tried, then the metadata
//! says which store and volume it is, then the store is marked. Run again, it goes on where it stopped.
//!
//! Where it runs before each start of a process (`--if-missing`), a volume that is there is enough: a store that does not answer
//! keeps nobody from starting, and one that another process has open, whose place this start may be about to take, is not looked at. The
//! process itself looks at the mark.

use std::path::Path;
use std::sync::Arc;

use granary_core::{Clock, Kind, SystemClock};
use granary_meta::engine::RocksEngine;
use granary_meta::{Volume, VolumeInfo};
use granary_store::Store;
use granary_store::marker;
use prometheus_client::registry::Registry;

use crate::args::InitArgs;
use crate::client::block_on;
use crate::exit::{Failure, Outcome};
use crate::output::say;
use crate::settings::Settings;
use crate::{log, volume};

/// How long a store that does not answer is tried.
const RETRY_MS: u64 = 5_000;

pub fn run(args: &InitArgs) -> Outcome<()> {
    let settings = args.flags.sources().resolve()?;
    log::start_quiet();
    let Some(url) = settings.store.clone() else {
        return Err(Failure::usage(
            "where are the objects to be? give --store s3://BUCKET/PREFIX or --store file:///FOLDER",
        ));
    };
    let url = normal(&url)?;
    let wanted = args.key.as_deref().map(super::token::volume_of).transpose()?;
    let Some((info, made)) = block_on(init(&settings, &url, wanted.as_deref(), args.if_missing))? else {
        return super::print(&format!("the volume in {} is in use, so it is there already\n", settings.meta));
    };
    if !made && !args.if_missing {
        return Err(Failure::of_kind(
            Kind::Exists,
            format!(
                "{} already has this volume ({}), with its objects in {}; mount it with `granary mount`",
                settings.meta, info.uuid, info.store_url
            ),
        ));
    }
    let what = if made { "is made" } else { "is there already" };
    super::print(&format!(
        "volume {} {what}: metadata in {}, objects in {}\n",
        info.uuid, settings.meta, info.store_url
    ))
}

/// The URL as it is kept: without a slash at its end, a folder's path absolute.
pub fn normal(url: &str) -> Outcome<String> {
    let trimmed = url.trim_end_matches('/');
    if let Some(path) = trimmed.strip_prefix("file://") {
        if !path.starts_with('/') {
            return Err(Failure::usage(format!(
                "store {url:?} cannot be used: a folder is written with its whole path, for example file:///srv/granary"
            )));
        }
        return Ok(trimmed.to_owned());
    }
    if trimmed.starts_with("s3://") {
        return Ok(trimmed.to_owned());
    }
    Err(Failure::usage(format!("store {url:?} cannot be used: write s3://BUCKET/PREFIX or file:///FOLDER")))
}

/// What is in a metadata folder.
enum Before {
    Nothing,
    Volume(VolumeInfo),
    /// Another process has it open.
    InUse(Failure),
}

/// The volume, and whether it was made now; `None`: it is there, and in use. `wanted`: its number.
async fn init(
    settings: &Settings,
    url: &str,
    wanted: Option<&str>,
    if_missing: bool,
) -> Outcome<Option<(VolumeInfo, bool)>> {
    let before = match existing(settings, url)? {
        Before::Nothing => None,
        Before::Volume(info) => Some(info),
        Before::InUse(_) if if_missing => return Ok(None),
        Before::InUse(failure) => return Err(failure),
    };
    if let (Some(info), Some(wanted)) = (&before, wanted)
        && info.uuid != wanted
    {
        return Err(Failure::of_kind(
            Kind::Exists,
            format!(
                "{} has volume {}, and the key is for {wanted}; make one for it with `granary token key --volume {1}`",
                settings.meta, info.uuid
            ),
        ));
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let options = granary_store::Options { create: true, mode: 0o700, ..volume::store_options(settings) };
    let registry = &mut Registry::default();
    let mut limits = settings.limits.clone();
    if !settings.is_given("retry_ms_max") {
        limits.retry_ms_max = RETRY_MS; // a person waits
    }
    let store = granary_store::production_with(url, &options, &limits, clock.clone(), registry)?;
    let probed = granary_store::probe(&*store, &*clock).await;
    if let (Some(info), Err(e)) = (&before, &probed)
        && if_missing
        && e.kind().is_transient()
    {
        say(format_args!("the store {} does not answer now: {e}", store.describe()));
        return Ok(Some((info.clone(), false)));
    }
    probed?;
    let marked = marker::read(&*store).await?;
    let info = match (before, marked) {
        (Some(info), Some(marker)) if marker.uuid == info.uuid => return Ok(Some((info, false))),
        (_, Some(marker)) => return Err(foreign(&*store, &marker.uuid)),
        // Interrupted before the store was marked: goes on.
        (Some(info), None) => info,
        (None, None) => {
            let engine = RocksEngine::open(settings.meta.folder()?)?;
            let info = VolumeInfo {
                uuid: wanted.map_or_else(super::token::new_uuid, |wanted| Ok(wanted.to_owned()))?,
                store_url: url.to_owned(),
                created_unix_ms: clock.now().unix_ms(),
            };
            Volume::init(&*engine, &info)?;
            engine.close()?;
            info
        }
    };
    marker::write(&*store, &info.uuid).await?;
    Ok(Some((info, true)))
}

/// The volume that is in the metadata folder, if any. One in another store is refused.
fn existing(settings: &Settings, url: &str) -> Outcome<Before> {
    let folder = settings.meta.folder()?;
    if !volume::is_there(folder)? {
        check_empty(folder)?;
        return Ok(Before::Nothing);
    }
    let engine = match RocksEngine::open(folder) {
        Err(e) if e.kind() == Kind::Busy => return Ok(Before::InUse(e.into())),
        opened => opened?,
    };
    // A node whose programs wait for it may have files without a name open.
    let info = match Volume::open_keeping(engine.clone(), Arc::new(SystemClock), &settings.limits) {
        Ok(volume) => {
            let info = volume.info().clone();
            volume.shutdown()?;
            info
        }
        // An engine without a volume: interrupted just before it was written.
        Err(e) if e.kind() == Kind::NotFound => {
            engine.close()?;
            return Ok(Before::Nothing);
        }
        Err(e) => return Err(e.into()),
    };
    if info.store_url != url {
        return Err(Failure::of_kind(
            Kind::Exists,
            format!(
                "{} already has another volume ({}, with its objects in {}); give this one another --meta",
                settings.meta, info.uuid, info.store_url
            ),
        ));
    }
    Ok(Before::Volume(info))
}

/// A folder with something else in it is not ours to fill.
fn check_empty(meta: &Path) -> Outcome<()> {
    match std::fs::read_dir(meta) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(Failure::of_kind(
                Kind::NotEmpty,
                format!(
                    "{} has files that are no volume's; give an empty or a new folder with --meta",
                    meta.display()
                ),
            )),
        },
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Failure::io(format!("cannot use the metadata folder {}", meta.display()), &e)),
    }
}

fn foreign(store: &dyn Store, uuid: &str) -> Failure {
    Failure::of_kind(
        Kind::Exists,
        format!(
            "the store {} already holds another volume ({uuid}); give another bucket or prefix with --store, or mount that \
             volume with its own --meta",
            store.describe()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn store_urls() {
        assert_eq!(normal("file:///srv/x/").unwrap(), "file:///srv/x");
        assert_eq!(normal("s3://bucket/prefix/").unwrap(), "s3://bucket/prefix");
        for (bad, part) in
            [("file://srv/x", "whole path"), ("/srv/x", "file:///FOLDER"), ("http://x", "s3://BUCKET")]
        {
            let e = normal(bad).unwrap_err();
            assert!(e.exit == 2 && e.message.contains(part), "{e}");
        }
    }
}
