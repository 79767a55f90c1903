//! A namespace, or a tree of it, appears at a directory.

use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use granary_core::{Error, Kind, NamespaceId};
use granary_fuse::keeper::{Greeting, Keepsake};
use granary_fuse::mount::idmap::IdMap;
use granary_fuse::{Mode, MountOptions, MountParts, Mounted, Vfs, VfsOptions};
use granary_meta::NamespaceInfo;

use super::{Keeper, MountDone, MountOrder, MountStep, watch};
use crate::exit::{Failure, Outcome};
use crate::node::blocking;
use crate::node::keeping::{Kept, number};
use crate::node::mountpoint::check_own;
use crate::node::opener::{Ready, Wanted, What};
use crate::node::packed::Opened;
use crate::node::table::{Point, Served, mode_name};

impl Keeper {
    /// `ready`: what the [`MountStep::Open`] that this was answered before led to.
    pub(super) async fn mount(&self, mut order: MountOrder, ready: Option<Ready>) -> Outcome<MountStep> {
        if self.emptying.load(Ordering::Relaxed) {
            return Err(Failure::of_kind(
                Kind::Busy,
                "this node is being emptied (granary node drain) and takes no new mounts; to use it again, stop it with \
                 `granary node stop` and start it",
            ));
        }
        if let Some(uid) = order.owner {
            if !order.options.ids.is_empty() {
                return Err(Failure::of_kind(
                    Kind::Permission,
                    "only root may have a namespace shown with other ids (map_uid, map_gid, map_group); use sudo",
                ));
            }
            (order.options.suid, order.options.dev) = (false, false);
            let dir = order.dir.clone();
            blocking(move || check_own(&dir, uid)).await?;
        }
        let reached = self.parts.source.find(order.token.as_ref(), &order.name).await?;
        let is_packed = reached.info.packed.is_some();
        order.options.read_only |= reached.read_only || is_packed;
        // Of the mount that trees are shown from; the next who asks for one may have the right to write.
        let read_only = reached.read_only && !reached.may_widen || is_packed;
        let may_widen = reached.may_widen && !is_packed;
        let id = reached.info.id;
        let mut opened = None;
        if reached.info.packed.is_some() {
            match self.renew(&reached.info, ready).await? {
                Renewed::Open(wanted) => return Ok(MountStep::Open(wanted)),
                Renewed::Anew(fresh) => opened = Some(fresh),
                Renewed::AsItIs => {}
            }
        }
        let served = self.open_kept(reached, &[], opened).await?;
        let wanted = order.options.mode_for(order.name.kind());
        // Beside one that writes, a mount that only reads is served as that is.
        let session = served.session();
        let only_read =
            order.options.read_only && session.is_none_or(|session| session.vfs().options().read_only);
        let mode = Vfs::mode_for(served.meta.is_shared(), wanted, only_read);
        let done = match &order.tree {
            // Other ids are what a mountpoint shows, not the mount. Nor is it the mount that is to read only, where others may come to
            // write: but for mode data, which nobody may write in.
            None if !order.options.ids.is_empty()
                || may_widen && order.options.read_only && mode == Mode::Work =>
            {
                self.mount_tree(id, &served, &order, ".", mode, read_only).await?
            }
            None => self.mount_whole(id, &served, &order, mode, false).await?,
            Some(tree) => self.mount_tree(id, &served, &order, tree, mode, read_only).await?,
        };
        tracing::info!(namespace = %order.name, dir = %order.dir.display(), mode = done.mode, bound = done.bound, "mounted");
        Ok(MountStep::Done(done))
    }

    /// What shows a packed data set and is not mounted is opened anew, if there is another version by now.
    async fn renew(&self, info: &NamespaceInfo, ready: Option<Ready>) -> Outcome<Renewed> {
        let (id, served) = (info.id, self.table.get(info.id));
        let (Some(source), false) = (&info.packed, served.as_ref().is_some_and(|s| s.session().is_some()))
        else {
            return Ok(Renewed::AsItIs);
        };
        let shown = served.as_ref().and_then(|served| served.packed.clone());
        match ready.filter(|ready| ready.is_of(id, source)).map(|ready| ready.what) {
            Some(What::Current(current)) if shown.as_ref() == Some(&current) => Ok(Renewed::AsItIs),
            Some(What::Opened(opened)) if shown.as_ref() == Some(&opened.shown) => Ok(Renewed::AsItIs),
            Some(What::Opened(opened)) => {
                if let Some(served) = served {
                    served.tree.shutdown().await?;
                    self.table.lock().remove(&id);
                    self.parts.store.remove(id);
                }
                Ok(Renewed::Anew(opened))
            }
            _ => Ok(Renewed::Open(Box::new(Wanted { info: info.clone(), source: source.clone(), shown }))),
        }
    }

    /// All of the namespace. `own`: for the node alone.
    async fn mount_whole(
        &self,
        id: NamespaceId,
        served: &Served,
        order: &MountOrder,
        mode: Mode,
        own: bool,
    ) -> Outcome<MountDone> {
        let done = match served.session().cloned() {
            // Where the mount does not say how, it is as the first one.
            Some(session) => self.bind(served, &session, order, order.options.mode.map(|_| mode)).await?,
            None => self.mount_first(id, served, order, mode).await?,
        };
        self.note(id, order, own);
        self.tell_points(id).await;
        Ok(done)
    }

    fn note(&self, id: NamespaceId, order: &MountOrder, own: bool) {
        if let Some(served) = self.table.lock().get_mut(&id) {
            served.points.retain(|point| point.dir != order.dir);
            let (dir, read_only, owner) = (order.dir.clone(), order.options.read_only, order.owner);
            let (tree, asked) = (order.tree.clone(), Some(order.asked.clone()));
            served.points.push(Point { dir, tree, asked, read_only, owner, own });
        }
    }

    /// Tells the keeper how the mountpoints were asked for; not fatal, they are there all the same.
    async fn tell_points(&self, id: NamespaceId) {
        let (Some(keeping), Some(served)) = (self.parts.keeping.clone(), self.table.get(id)) else { return };
        let Some(device) = served.session().map(|session| session.device()) else { return };
        if let Err(failure) = blocking(move || keeping.note(number(device), &served.points)).await {
            tracing::warn!("{failure}");
        }
    }

    /// One tree of it: shown from a mountpoint of the node's own, which is there as long as one that is not.
    async fn mount_tree(
        &self,
        id: NamespaceId,
        served: &Served,
        order: &MountOrder,
        tree: &str,
        mode: Mode,
        read_only: bool,
    ) -> Outcome<MountDone> {
        let base = self.base(id);
        let mut served = served.clone();
        if !served.dirs().contains(&base) {
            let dir = base.clone();
            blocking(move || {
                std::fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(&dir)
                    .map_err(|e| Failure::io(format!("cannot make {}", dir.display()), &e))
            })
            .await?;
            let options = MountOptions { read_only, ids: IdMap::default(), ..order.options.clone() };
            let whole = MountOrder { dir: base.clone(), tree: None, options, owner: None, ..order.clone() };
            self.mount_whole(id, &served, &whole, mode, true).await?;
            served = self.table.get(id).unwrap_or(served);
        }
        let (tree, to, options) = (tree.to_owned(), order.dir.clone(), order.options.clone());
        let bound = blocking(move || Ok(granary_fuse::bind_tree(&base, &tree, &to, &options)?)).await;
        match bound {
            Ok(_) => {
                self.note(id, order, false);
                self.tell_points(id).await;
                let mode = served.session().map_or(mode, |session| session.vfs().mode());
                Ok(MountDone { mode: mode_name(mode), bound: true })
            }
            Err(failure) => {
                self.release_base(id).await;
                Err(failure)
            }
        }
    }

    /// Where the node itself mounts a namespace to show trees of it.
    fn base(&self, id: NamespaceId) -> PathBuf {
        // As the kernel lists it. The node's cache directory is there while the node runs.
        let cache = &self.parts.settings.cache;
        cache.canonicalize().unwrap_or_else(|_| cache.clone()).join("mounts").join(id.to_string())
    }

    /// Unmounts the node's own mountpoint when nothing else shows the namespace.
    pub(super) async fn release_base(&self, id: NamespaceId) {
        let base = self.base(id);
        let Some(served) = self.table.get(id) else { return };
        if served.dirs() != [base.clone()] {
            return;
        }
        let detached = blocking(move || Ok(granary_fuse::unmount(&base, false)?)).await;
        if let Err(failure) = detached {
            tracing::warn!("{failure}");
        }
    }

    async fn mount_first(
        &self,
        id: NamespaceId,
        served: &Served,
        order: &MountOrder,
        mode: Mode,
    ) -> Outcome<MountDone> {
        let options = VfsOptions {
            mode,
            read_only: order.options.read_only,
            atime: order.options.atime,
            acl: order.options.acl,
            name: served.name.to_string(),
            ..VfsOptions::default()
        };
        let vfs = Vfs::new(served.meta.clone(), served.tree.clone(), options, self.parts.clock.clone());
        let mut options = order.options.clone();
        options.transport.get_or_insert(self.parts.settings.transport);
        let parts = MountParts {
            vfs,
            mountpoint: order.dir.clone(),
            options,
            metrics: served.metrics.clone(),
            runtime: tokio::runtime::Handle::current(),
        };
        let keep = self.parts.keeping.clone();
        let kept = self.kept(id, served, order, mode);
        let mounted = blocking(move || {
            let Some(keeping) = keep else { return Ok(granary_fuse::mount(parts)?) };
            let give = |keepsake: Keepsake| {
                let Greeting { minor, max_write, flags } = keepsake.greeting;
                let kept = Kept { minor, max_write, flags, ..kept.clone() };
                keeping.put(kept, keepsake).map_err(|failure| Error::new(Kind::Unavailable, failure.message))
            };
            Ok(granary_fuse::mount_kept(parts, Some(&give))?)
        });
        let mounted = Arc::new(mounted.await?);
        if self.parts.keeping.is_some() && !mounted.is_kept() {
            tracing::warn!(namespace = %served.name, "this mount ends with the node: it is not over dev");
        }
        if let Some(served) = self.table.lock().get_mut(&id) {
            served.mounted = Some(mounted.clone());
            served.points.clear();
        }
        tokio::spawn(watch(served.name.clone(), mounted, self.parts.keeping.clone()));
        Ok(MountDone { mode: mode_name(mode), bound: false })
    }

    /// A second mountpoint: the same mount, seen at another place.
    async fn bind(
        &self,
        served: &Served,
        session: &Arc<Mounted>,
        order: &MountOrder,
        mode: Option<Mode>,
    ) -> Outcome<MountDone> {
        let name = &served.name;
        let Some(from) = served.whole_dir() else {
            return Err(Failure::of_kind(
                Kind::Busy,
                format!(
                    "{name} was unmounted while programs used it, and they still do; end them, or stop the node, and mount \
                     it again then"
                ),
            ));
        };
        let vfs = session.vfs();
        if let Some(mode) = mode.filter(|mode| *mode != vfs.mode()) {
            return Err(Failure::of_kind(
                Kind::Invalid,
                format!(
                    "{name} is mounted at {} in mode {}, and cannot be mounted in mode {} at the same time; give \
                     mode={1}, or unmount that first",
                    from.display(),
                    mode_name(vfs.mode()),
                    mode_name(mode),
                ),
            ));
        }
        let carrier = session.carrier();
        if order.options.transport.is_some_and(|wanted| !wanted.takes(carrier)) {
            return Err(Failure::of_kind(
                Kind::Invalid,
                format!(
                    "{name} is mounted at {} over {}, and its other mountpoints are too; leave transport out, or unmount that \
                     first",
                    from.display(),
                    carrier.name()
                ),
            ));
        }
        if vfs.options().read_only && !order.options.read_only {
            return Err(Failure::of_kind(
                Kind::Invalid,
                format!(
                    "{name} is mounted read-only at {}, and cannot be mounted writable at the same time; give ro, or \
                     unmount that first",
                    from.display()
                ),
            ));
        }
        let (to, options) = (order.dir.clone(), order.options.clone());
        blocking(move || Ok(granary_fuse::bind(&from, &to, &options)?)).await?;
        Ok(MountDone { mode: mode_name(vfs.mode()), bound: true })
    }
}

/// What becomes of a packed data set at a mount.
enum Renewed {
    /// It is open, and is shown as it is.
    AsItIs,
    /// This is shown.
    Anew(Opened),
    /// It is to be opened first, or another version may be there.
    Open(Box<Wanted>),
}
