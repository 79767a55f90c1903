//! `granary keeper`: holds the mounts of a node, so that they outlive its process.

use std::sync::Arc;

use granary_core::SystemClock;
use granary_fuse::keeper::client::listen;
use granary_fuse::keeper::server::{ServerParts, serve};

use crate::args::KeeperArgs;
use crate::exit::{Failure, Outcome};
use crate::node::keeping::Revival;

pub fn run(args: &KeeperArgs) -> Outcome<()> {
    crate::node::raise_open_files();
    let cannot =
        |e: &std::io::Error| Failure::io(format!("cannot keep mounts at {}", args.socket.display()), e);
    let listener = match listen(&args.socket) {
        // Another one was faster.
        Err(e) if e.kind() == std::io::ErrorKind::AddrInUse && args.ends_idle => return Ok(()),
        other => other.map_err(|e| cannot(&e))?,
    };
    let revive = Box::new(Revival::start);
    let parts = ServerParts { listener, clock: Arc::new(SystemClock), revive, ends_idle: args.ends_idle };
    let outcome = serve(parts).map_err(|e| cannot(&e));
    let _gone = std::fs::remove_file(&args.socket);
    outcome
}
