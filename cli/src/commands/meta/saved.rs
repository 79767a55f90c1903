//! `granary meta backup` and `granary meta restore`.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use granary_core::{Clock, Kind, SystemClock};
use granary_maintain::backup::restore::Restore;
use granary_maintain::backup::{Decoder, Header, Totals, bucket, dump};
use granary_maintain::progress::Progress;
use prometheus_client::registry::Registry;

use crate::args::PlaceFlags;
use crate::client::block_on;
use crate::exit::{Failure, Outcome};
use crate::node::blocking;
use crate::settings::Settings;
use crate::units::{show_bytes, show_period_ms};
use crate::{log, maintenance, volume, when};

const PIECE_BYTES: usize = 1 << 20;

/// A backup's file while it is written: read again as it goes by, so that what is kept is known to be whole.
struct Target {
    file: File,
    partial: PathBuf,
    path: PathBuf,
    decoder: Decoder,
    kept: bool,
}

impl Target {
    fn create(path: &Path) -> Outcome<Target> {
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        // Names and tokens' ids are in it.
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial);
        let file = file.map_err(|e| Failure::io(format!("cannot write {}", partial.display()), &e))?;
        Ok(Target { file, partial, path: path.to_owned(), decoder: Decoder::default(), kept: false })
    }

    fn put(&mut self, bytes: &[u8]) -> Outcome<()> {
        self.decoder.push(bytes, &mut |_, _| Ok(()))?;
        self.file
            .write_all(bytes)
            .map_err(|e| Failure::io(format!("cannot write {}", self.partial.display()), &e))
    }

    fn finish(mut self) -> Outcome<(Header, Totals)> {
        let totals = std::mem::take(&mut self.decoder).finish()?;
        let cannot = |e| Failure::io(format!("cannot write {}", self.path.display()), &e);
        self.file.sync_all().map_err(cannot)?;
        std::fs::rename(&self.partial, &self.path).map_err(cannot)?;
        let folder = self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|dir| dir.sync_all()).map_err(cannot)?;
        self.kept = true;
        Ok(totals)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if !self.kept {
            // What should be heard is why it was not written.
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}

pub fn backup(file: &Path, flags: &PlaceFlags) -> Outcome<()> {
    let settings = flags.sources().resolve()?;
    let mut target = Target::create(file)?;
    let (header, totals) = block_on(async {
        if let Some(client) = maintenance::node(&settings).await? {
            client.download("/v1/meta/backup", |bytes| target.put(bytes)).await?;
            return target.finish();
        }
        log::start_quiet();
        maintenance::with_folder(&settings, async |volume| {
            let volume = volume.clone();
            blocking(move || {
                let mut failure = None;
                let saved =
                    dump(&volume, SystemClock.now(), PIECE_BYTES, &Progress::default(), &mut |piece| {
                        target.put(&piece).map_err(|e| {
                            failure = Some(e);
                            granary_core::Error::new(Kind::Io, "the backup cannot be written")
                        })
                    });
                match failure {
                    Some(failure) => Err(failure),
                    None => saved.map(|_| ()).map_err(Failure::from),
                }?;
                target.finish()
            })
            .await
        })
        .await
    })?;
    super::super::print(&format!(
        "saved {} records ({}) of volume {} in {}\n",
        totals.records,
        show_bytes(totals.bytes),
        header.uuid,
        file.display()
    ))
}

pub fn restore(
    file: Option<&Path>,
    from_store: Option<&str>,
    at: Option<&str>,
    flags: &PlaceFlags,
) -> Outcome<()> {
    let settings = flags.sources().resolve()?;
    let folder = settings.meta.folder()?.to_owned();
    let now = SystemClock.now().unix_ms();
    let until = at.map_or(Ok(u64::MAX), |text| {
        when::parse(text, now).map_err(|why| Failure::usage(format!("--at cannot be used: {why}")))
    })?;
    log::start_quiet();
    let (header, totals) = match (file, from_store) {
        (Some(file), _) => from_file(file, &folder)?,
        (None, Some(url)) => block_on(from_bucket(url, until, &folder, &settings))?,
        (None, None) => return Err(Failure::usage("give a file, or --from-store URL")),
    };
    let age = now.saturating_sub(header.created_unix_ms);
    super::super::print(&format!(
        "restored {} records of volume {} into {}, as they were on {} ({} ago)\n\
         not in it: what was changed since, and bytes that were on a node's disk only. Before you use it, end whatever uses the\n\
         volume's other metadata, for good. `granary fsck --meta {}` tells which files' objects were deleted since; objects\n\
         that were stored since are garbage for this metadata, which `granary gc --delete` would delete\n",
        totals.records,
        header.uuid,
        folder.display(),
        when::show(header.created_unix_ms),
        show_period_ms(age),
        folder.display(),
    ))
}

fn from_file(path: &Path, folder: &Path) -> Outcome<(Header, Totals)> {
    let cannot = |e| Failure::io(format!("cannot read {}", path.display()), &e);
    let mut file = File::open(path).map_err(cannot)?;
    let mut restore = Restore::begin(folder)?;
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut buffer).map_err(cannot)? {
            0 => break,
            n => restore.push(&buffer[..n]).map_err(|e| e.context(path.display()))?,
        }
    }
    Ok(restore.finish().map_err(|e| e.context(path.display()))?)
}

async fn from_bucket(url: &str, until: u64, folder: &Path, settings: &Settings) -> Outcome<(Header, Totals)> {
    let store = volume::store(url, settings, Arc::new(SystemClock), &mut Registry::default())?;
    let found = bucket::find(&*store, until, when::show).await?;
    let manifest = bucket::manifest(&*store, found.unix_ms).await?;
    granary_store::marker::check(&*store, &manifest.uuid).await?;
    let mut restore = Restore::begin(folder)?;
    bucket::read(&*store, &found, async |part| restore.push(&part)).await?;
    Ok(restore.finish()?)
}
