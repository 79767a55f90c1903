//! `granary index DATASET --delete PATH...`.

use granary_packer::edit::{self, Deleted};
use granary_packer::place::Place;
use serde::Serialize;
use tokio::runtime::Handle;

use crate::commands::{print, print_json};
use crate::exit::Outcome;
use crate::units::show_bytes;

#[derive(Serialize)]
struct Json {
    version: u64,
    files: u64,
    samples: u64,
    bytes: u64,
}

/// Makes the next version, without these paths.
pub fn run(place: &Place, paths: &[String], runtime: &Handle, json: bool) -> Outcome<()> {
    let paths: Vec<Vec<u8>> = paths.iter().map(|path| path.clone().into_bytes()).collect();
    let Deleted { version, files, samples, bytes } = edit::delete(place, &paths, runtime)?;
    if json {
        return print_json(&Json { version, files, samples, bytes });
    }
    print(&format!(
        "made version {version} of {place} without {files} files, {samples} samples, {}; older versions have them still\n",
        show_bytes(bytes)
    ))
}
