//! What mounting comes to on this machine, tried with a mount of a moment that holds nothing: only the kernel knows what it
//! offers to whom, and which disks it may read past us.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use granary_core::{Error, Result};
use rustix::mount::UnmountFlags;

use super::options::MountOptions;
use super::{attach, check, detach, table};
use crate::adapter::config::{self, Wanted};
use crate::proto::Flags;
use crate::transport::{Session, Transport, Ways};

/// What the kernel offers to this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offered {
    /// Of FUSE's protocol.
    pub version: (u32, u32),
    pub uring: bool,
    /// The kernel may be given files for passthrough.
    pub passthrough: bool,
    /// Why it did not take `backing` as one; `None` when it did, or does not offer it.
    pub backing_refused: Option<String>,
}

/// Mounts on `dir`, an empty directory of the caller's own, agrees with the kernel, offers it `backing` for passthrough, and
/// unmounts. No request is served: nobody may look into `dir` meanwhile.
///
/// Errors: as of a mount.
pub fn try_mount(dir: &Path, backing: &File) -> Result<Offered> {
    let path = check::prepare(dir, "granary-doctor", &MountOptions::default())?;
    let device = check::open_device()?;
    attach(&device, &path, "granary-doctor", &MountOptions::default())?;
    let mount = table::at(&path)?.filter(table::Mount::is_ours);
    let offered = agree(device, backing)
        .map_err(|e| Error::io(format!("the kernel did not greet a mount on {}", path.display()), e));
    if let Some(mount) = mount {
        detach(&mount, UnmountFlags::DETACH)?;
    }
    offered
}

fn agree(device: File, backing: &File) -> std::io::Result<Offered> {
    let mut offered = None;
    let ways = Ways { transport: Transport::Dev, threads: 1 };
    let session = Session::greet(OwnedFd::from(device), ways, |offer| {
        offered = Some(Offered {
            version: (offer.major, offer.minor),
            uring: offer.flags.has(Flags::OVER_IO_URING),
            passthrough: offer.flags.has(Flags::PASSTHROUGH),
            backing_refused: None,
        });
        config::negotiate(offer, Wanted::default()).0
    })?;
    // It was asked for what it offers: greeting fails otherwise.
    let Some(offered) = offered else { return Err(std::io::Error::other("the kernel offered nothing")) };
    let refused = match offered.passthrough {
        true => session.try_backing(backing.as_fd()).err().map(|e| e.to_string()),
        false => None,
    };
    Ok(Offered { backing_refused: refused, ..offered })
}
