//! What the next process has to know of a mount, and how it goes on with it.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use granary_core::{Kind, NamespaceId, SessionId};
use granary_fuse::keeper::Inheritance;
use granary_fuse::{Atime, Mode, MountOptions, MountParts, Vfs, VfsOptions};

use super::{Keeper, MountOrder, watch};
use crate::exit::{Failure, Outcome};
use crate::node::blocking;
use crate::node::keeping::{Entry, Kept, number};
use crate::node::table::{Served, mode_name};

impl Keeper {
    /// What is to be known of it later, but for what the kernel has to say.
    pub(super) fn kept(&self, id: NamespaceId, served: &Served, order: &MountOrder, mode: Mode) -> Kept {
        Kept {
            namespace: id.0,
            path: order.dir.clone(),
            mode: mode_name(mode).to_owned(),
            read_only: order.options.read_only,
            atime: atime_name(order.options.atime).to_owned(),
            acl: order.options.acl,
            packed: served.packed.as_ref().map(super::packed::Shown::source),
            minor: 0,
            max_write: 0,
            flags: 0,
            points: Vec::new(),
            session: served.link.as_ref().and_then(|link| link.kept()),
        }
    }

    pub(super) async fn resume(&self, entries: Vec<Entry>) -> Outcome<()> {
        for entry in entries {
            let device = entry.device;
            match self.resume_one(entry).await {
                Ok(()) => {}
                Err(failure) if failure.is(Kind::Unavailable) => return Err(failure),
                Err(failure) => {
                    tracing::error!(
                        "the mount with device {}:{} cannot go on ({failure}); its programs get errors, mount it again",
                        device.0,
                        device.1
                    );
                    blocking(move || Ok(granary_fuse::mount::abort(device)?)).await?;
                }
            }
        }
        Ok(())
    }

    async fn resume_one(&self, entry: Entry) -> Outcome<()> {
        let mut kept: Kept = serde_json::from_slice(&entry.blob)
            .map_err(|e| Failure::failed(format!("what was kept of it is of another version: {e}")))?;
        let (mode, atime) = match (mode_of(&kept.mode), atime_of(&kept.atime)) {
            (Some(mode), Some(atime)) => (mode, atime),
            _ => return Err(Failure::failed("what was kept of it is of another version")),
        };
        let ours = entry.descriptors.iter().map(OwnedFd::try_clone).collect::<Result<Vec<_>, _>>();
        let ours = ours.map_err(|e| Failure::io("cannot duplicate a mount's descriptors", &e))?;
        let mut inheritance = Inheritance::new(kept.greeting(), entry.device, entry.descriptors)?;
        let mut reached = self.parts.source.by_kept(&kept).await?;
        if kept.packed.is_some() {
            reached.info.packed = kept.packed.clone(); // the version that the kernel knows
        }
        let open = inheritance.table.files();
        let served = self.open_kept(reached, &open, None).await?;
        let options = VfsOptions {
            mode,
            read_only: kept.read_only,
            atime,
            acl: kept.acl,
            name: served.name.to_string(),
            ..VfsOptions::default()
        };
        let parts = MountParts {
            vfs: Vfs::new(served.meta.clone(), served.tree.clone(), options, self.parts.clock.clone()),
            mountpoint: kept.path.clone(),
            options: MountOptions::default(),
            metrics: served.metrics.clone(),
            runtime: tokio::runtime::Handle::current(),
        };
        // Known now: who is told when the session ends from here on is there.
        let now = served.link.as_ref().and_then(|link| link.client.session());
        let before = kept.session.as_ref().map(|session| SessionId(session.id));
        inheritance.lost = served.meta.is_shared() && (now.is_none() || now != before);
        let mounted = Arc::new(granary_fuse::resume(parts, inheritance).await?);
        if let Some(link) = &served.link {
            link.client.settle(Some(kept.id()));
        }
        served.tree.count_kept().await;
        if let Some(served) = self.table.lock().get_mut(&kept.id()) {
            served.mounted = Some(mounted.clone());
            served.points.clone_from(&kept.points);
        }
        if let Some(keeping) = &self.parts.keeping {
            let session = served.link.as_ref().and_then(|link| link.kept());
            let (keeping, mount) = (keeping.clone(), number(entry.device));
            let changed = std::mem::replace(&mut kept.session, session) != kept.session;
            blocking(move || keeping.remember(mount, kept, ours, changed)).await?;
        }
        tokio::spawn(watch(served.name.clone(), mounted, self.parts.keeping.clone()));
        Ok(())
    }
}

fn mode_of(name: &str) -> Option<Mode> {
    [Mode::Work, Mode::Data].into_iter().find(|mode| mode_name(*mode) == name)
}

fn atime_name(atime: Atime) -> &'static str {
    match atime {
        Atime::Never => "never",
        Atime::Relative => "relative",
        Atime::Strict => "strict",
    }
}

fn atime_of(name: &str) -> Option<Atime> {
    [Atime::Never, Atime::Relative, Atime::Strict].into_iter().find(|atime| atime_name(*atime) == name)
}
