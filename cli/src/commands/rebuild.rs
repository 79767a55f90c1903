//! `granary rebuild`: metadata from the store alone.

use std::sync::Arc;

use granary_core::{Clock, SystemClock};
use granary_maintain::progress::Progress;
use granary_maintain::rebuild::{self, RebuildReport};
use prometheus_client::registry::Registry;

use crate::args::RebuildArgs;
use crate::client::block_on;
use crate::commands::init::normal;
use crate::exit::{Failure, Outcome};
use crate::progress::Steps;
use crate::units::show_bytes;
use crate::{log, maintenance, volume};

pub fn run(args: &RebuildArgs) -> Outcome<()> {
    let settings = args.flags.sources().resolve()?;
    let folder = settings.meta.folder()?;
    let Some(url) = &settings.store else {
        return Err(Failure::usage(
            "where are the objects? give --store s3://BUCKET/PREFIX or file:///FOLDER",
        ));
    };
    let url = normal(url)?;
    log::start_quiet();
    let steps = Steps::new();
    let report = block_on(async {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store = volume::store(&url, &settings, clock.clone(), &mut Registry::default())?;
        let info = rebuild::volume_of(&*store, &url, &*clock).await?;
        let progress = Arc::new(Progress::default());
        let work = rebuild::run(&*store, folder, clock, &info, &progress);
        maintenance::shown(&steps, &progress, work).await
    })?;
    if args.json {
        super::print_json(&report)?;
    } else {
        super::print(&show(&report))?;
    }
    match report.damaged_objects {
        0 => Ok(()),
        1 => Err(Failure::failed("1 object could not be read; its bytes are not in the rebuilt metadata")),
        n => Err(Failure::failed(format!(
            "{n} objects could not be read; their bytes are not in the rebuilt metadata"
        ))),
    }
}

fn show(report: &RebuildReport) -> String {
    let mut rows = vec![
        ["NAMESPACE", "FILES", "BYTES", "OBJECTS", "SUPERSEDED", "NAMELESS", "RENAMED", "WITH GAPS"]
            .map(str::to_owned),
    ];
    rows.extend(report.namespaces.iter().map(|r| {
        [
            r.namespace.clone(),
            r.files.to_string(),
            show_bytes(r.bytes),
            r.objects.to_string(),
            r.superseded_objects.to_string(),
            r.nameless_files.to_string(),
            r.renamed_files.to_string(),
            r.files_with_gaps.to_string(),
        ]
    }));
    let mut out = super::columns(&rows);
    for damaged in &report.damaged {
        out += &format!("left out: {damaged}\n");
    }
    out += "files are where their directory's inode says (directory-INODE/NAME); gaps read as EIO; `granary fsck --data` \
            verifies all bytes\n";
    out
}
