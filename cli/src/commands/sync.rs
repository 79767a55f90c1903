//! `granary sync`: returns when what was written before the call is in the store: a file, a tree, a mount, or everything.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::args::SyncArgs;
use crate::client::{Client, block_on};
use crate::exit::{Failure, Outcome, plain};
use crate::output::say;
use crate::progress::Progress;
use crate::wire::{InodeOf, Status, SyncRequest};

pub fn run(args: &SyncArgs) -> Outcome<()> {
    let settings = args.flags.sources().resolve()?;
    let client = Client::new(&settings.socket);
    let Some(path) = &args.path else { return all(&client) };
    flush_kernel(path)?;
    let cannot = |e: std::io::Error| Failure::io(format!("cannot find {}", path.display()), &e);
    let real = path.canonicalize().map_err(cannot)?;
    let about = real.symlink_metadata().map_err(cannot)?;
    let inode = InodeOf { ino: about.ino(), directory: about.is_dir() };
    let request =
        SyncRequest { dir: Some(super::text_of(&real)?), inode: Some(inode), ..SyncRequest::default() };
    block_on(follow(&client, &request, &path.display().to_string()))
}

fn all(client: &Client) -> Outcome<()> {
    let status: Status = block_on(client.get("/v1/status"))?;
    for mount in &status.mounts {
        // Unmounted meanwhile, or shown to another mount namespace only: then there is nothing that we could flush.
        if let Err(failure) = flush_kernel(Path::new(&mount.dir)) {
            say(format_args!("{failure}; what the node has of it is stored all the same"));
        }
    }
    block_on(follow(client, &SyncRequest { all: true, ..SyncRequest::default() }, "all"))
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
