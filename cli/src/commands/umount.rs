//! `granary umount`.

use crate::args::UmountArgs;
use crate::client::{Client, block_on};
use crate::exit::Outcome;
use crate::units::show_bytes;
use crate::wire::{SyncRequest, UnmountReply, UnmountRequest};

pub fn run(args: &UmountArgs) -> Outcome<()> {
    let settings = args.flags.sources().resolve()?;
    let dir = super::text_of(&super::real_dir(&args.dir)?)?;
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
        eprintln!(
            "granary: {} of {} are not in the store yet; they are safe on this node's disk, and the node goes on storing them",
            show_bytes(reply.dirty_bytes),
            reply.namespace
        );
    }
    Ok(())
}
