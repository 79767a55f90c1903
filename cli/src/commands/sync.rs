//! `granary sync`: returns when everything written below a mount before the call is in the store.

use std::path::Path;

use crate::args::SyncArgs;
use crate::client::{Client, block_on};
use crate::exit::{Failure, Outcome, plain};
use crate::progress::Progress;
use crate::wire::SyncRequest;

pub fn run(args: &SyncArgs) -> Outcome<()> {
    let settings = args.flags.sources().resolve()?;
    flush_kernel(&args.path)?;
    let path = args
        .path
        .canonicalize()
        .map_err(|e| Failure::io(format!("cannot find {}", args.path.display()), &e))?;
    let request = SyncRequest { dir: Some(super::text_of(&path)?), namespace: None };
    block_on(follow(&Client::new(&settings.socket), &request, &args.path.display().to_string()))
}

/// Lets the node store everything, showing progress.
pub async fn follow(client: &Client, request: &SyncRequest, what: &str) -> Outcome<()> {
    let mut progress = Progress::new(what);
    client.follow("/v1/sync", request, |line| progress.on_line(line)).await
}

/// Pages that programs wrote through mappings are still the kernel's alone: it hands them to the node.
pub fn flush_kernel(path: &Path) -> Outcome<()> {
    let file = std::fs::File::open(path)
        .map_err(|e| Failure::failed(format!("cannot open {}: {}", path.display(), plain(&e))))?;
    rustix::fs::syncfs(&file).map_err(|e| Failure::io(format!("cannot flush {}", path.display()), &e.into()))
}
