//! `granary umount`.
//!
//! Without a node process the kernel is asked: a mount that somebody keeps for the next one, or that is dead, is to be got rid of
//! all the same. What was written through it is on the node's disk, and goes to the store when the node runs.

use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::args::UmountArgs;
use crate::client::{Client, block_on};
use crate::exit::Outcome;
use crate::output::say;
use crate::units::show_bytes;
use crate::wire::{SyncRequest, UnmountReply, UnmountRequest};

pub fn run(args: &UmountArgs) -> Outcome<()> {
    let settings = args.flags.sources().resolve()?;
    let path = super::real_dir(&args.dir)?;
    if !args.drain && is_away(&settings.socket) && is_ours(&path)? {
        granary_fuse::unmount(&path, args.lazy)?;
        say(format_args!(
            "unmounted {} without the node's process, which is not running; what is not in the store yet is safe on this node's \
             disk, and goes there once `granary node` runs",
            path.display()
        ));
        return Ok(());
    }
    let dir = super::text_of(&path)?;
    let client = Client::new(&settings.socket);
    let reply: UnmountReply = block_on(async {
        if args.drain {
            // The larger part while it is still mounted: an unreachable store is told before anything changed.
            let request = SyncRequest { dir: Some(dir.clone()), ..SyncRequest::default() };
            super::sync::follow(&client, &request, &dir).await?;
        }
        let request = UnmountRequest { dir: dir.clone(), lazy: args.lazy };
        let reply: UnmountReply = client.post("/v1/unmount", &request).await?;
        if args.drain && reply.dirty_bytes > 0 {
            let request = SyncRequest { namespace: Some(reply.namespace.clone()), ..SyncRequest::default() };
            super::sync::follow(&client, &request, &dir).await?;
        }
        Ok(reply)
    })?;
    if !args.drain && reply.dirty_bytes > 0 {
        say(format_args!(
            "{} of {} are not in the store yet; they are safe on this node's disk, and the node goes on storing them",
            show_bytes(reply.dirty_bytes),
            reply.namespace
        ));
    }
    Ok(())
}

/// Nobody listens at the node's socket.
fn is_away(socket: &Path) -> bool {
    use std::io::ErrorKind::{ConnectionRefused, NotFound};
    UnixStream::connect(socket).is_err_and(|e| matches!(e.kind(), ConnectionRefused | NotFound))
}

fn is_ours(path: &Path) -> Outcome<bool> {
    Ok(granary_fuse::mount::table::at(path)?.is_some_and(|mount| mount.is_ours()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_without_a_listener_is_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.sock");
        assert!(is_away(&path));
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(!is_away(&path));
        drop(listener);
        assert!(is_away(&path));
    }
}
