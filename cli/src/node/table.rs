//! The open namespaces and their mountpoints, for those who look: status, metrics, and every request that names a path.
//! [`super::mounts`] alone changes it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use granary_cache::{ServedFrom, Tree, TreeStatus};
use granary_core::{NamespaceId, NamespaceName};
use granary_fuse::mount::holders;
use granary_fuse::mount::table::Mount;
use granary_fuse::{Mode, Mounted};
use granary_meta::{Durability, Metadata, PackedSource, Usage};
use serde::{Deserialize, Serialize};

use super::clients::Link;
use super::openings::Openings;
use super::packed::Shown;
use crate::wire::{LinkStatus, UnopenedStatus};

/// One namespace that is open.
#[derive(Clone)]
pub(super) struct Served {
    pub(super) name: NamespaceName,
    pub(super) meta: Arc<dyn Metadata>,
    /// The connection that it works through.
    pub(super) link: Option<Arc<Link>>,
    pub(super) tree: Arc<Tree>,
    pub(super) mounted: Option<Arc<Mounted>>,
    /// What it shows, if that is a packed data set.
    pub(super) packed: Option<Shown>,
    /// Kept from mount to mount, so that counters only go up.
    pub(super) metrics: Arc<granary_fuse::Metrics>,
    /// How its mountpoints were asked for.
    pub(super) points: Vec<Point>,
}

/// One mountpoint, as it was asked for. The kernel says whether it is still there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Point {
    pub(super) dir: PathBuf,
    /// Only this tree, relative to the namespace's top directory.
    pub(super) tree: Option<String>,
    /// The options, in the words of who asked; `None`: not known any more.
    pub(super) asked: Option<String>,
    pub(super) read_only: bool,
    /// The user who asked, when that was not an administrator.
    pub(super) owner: Option<u32>,
    /// The node's own, from which trees are shown elsewhere: it is told to nobody.
    pub(super) own: bool,
}

impl Served {
    /// The session, while it lives.
    pub(super) fn session(&self) -> Option<&Arc<Mounted>> {
        self.mounted.as_ref().filter(|mounted| !mounted.has_ended())
    }

    /// Where the kernel shows it, the first made first.
    pub(super) fn dirs(&self) -> Vec<PathBuf> {
        let mut dirs: Vec<_> = self.mountpoints().into_iter().map(|mount| mount.path).collect();
        dirs.dedup();
        dirs
    }

    /// A mountpoint that shows all of it: the first made.
    pub(super) fn whole_dir(&self) -> Option<PathBuf> {
        self.mountpoints().into_iter().find(Mount::is_whole).map(|mount| mount.path)
    }

    /// The first made first.
    fn mountpoints(&self) -> Vec<Mount> {
        let mut mounts =
            self.session().map_or(Vec::new(), |session| session.mountpoints().unwrap_or_default());
        mounts.reverse();
        mounts
    }

    pub(super) fn is_own(&self, dir: &Path) -> bool {
        self.points.iter().any(|point| point.own && point.dir == dir)
    }
}

/// What others may know of one mountpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub dir: PathBuf,
    pub tree: Option<String>,
    pub asked: Option<String>,
    pub read_only: bool,
}

/// What others may know of one open namespace.
#[derive(Clone, Debug)]
pub struct Space {
    pub id: NamespaceId,
    pub name: NamespaceName,
    pub usage: Usage,
    pub durability: Durability,
    pub status: TreeStatus,
    pub service: Option<LinkStatus>,
    /// The packed data set that it shows, and the version.
    pub packed: Option<PackedSource>,
    pub dirs: Vec<Told>,
    /// Of its mounts; empty while there is none.
    pub mode: &'static str,
    /// How its requests come: `dev` or `uring`; empty while there is no mount.
    pub transport: &'static str,
    /// It can outlive this process.
    pub kept: bool,
    pub metrics: Arc<granary_fuse::Metrics>,
    /// Where what was read came from.
    pub served: Vec<ServedFrom>,
}

/// The open namespaces, for those who look.
#[derive(Default)]
pub struct Table {
    /// Guards the map for a look-up or a change, never across I/O.
    served: Mutex<BTreeMap<NamespaceId, Served>>,
    /// Packed data sets that are not open yet.
    pub openings: Openings,
    /// What is staged of namespaces that could not be opened. Guards the map for a look or a change.
    unopened: Mutex<BTreeMap<NamespaceId, UnopenedStatus>>,
}

impl Table {
    pub(super) fn lock(&self) -> MutexGuard<'_, BTreeMap<NamespaceId, Served>> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It could not be opened, and this is staged of it; or it was, and nothing is.
    pub(super) fn note_unopened(&self, id: NamespaceId, left: Option<UnopenedStatus>) {
        let mut all = self.unopened.lock().unwrap_or_else(PoisonError::into_inner);
        match left {
            Some(left) => all.insert(id, left),
            None => all.remove(&id),
        };
    }

    pub fn unopened(&self) -> Vec<UnopenedStatus> {
        self.unopened.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub(super) fn all(&self) -> Vec<Served> {
        self.lock().values().cloned().collect()
    }

    pub(super) fn get(&self, id: NamespaceId) -> Option<Served> {
        self.lock().get(&id).cloned()
    }

    /// Reads the kernel's table of mounts.
    pub fn spaces(&self) -> Vec<Space> {
        let all: Vec<_> = self.lock().iter().map(|(id, served)| (*id, served.clone())).collect();
        let spaces = all.into_iter().map(|(id, served)| Space {
            id,
            usage: served.meta.usage(),
            durability: served.meta.durability(),
            status: served.tree.status(),
            service: served.link.as_ref().map(|link| link.status()),
            packed: served.packed.as_ref().map(Shown::source),
            dirs: served.told_dirs(),
            mode: served.session().map_or("", |session| mode_name(session.vfs().mode())),
            transport: served.session().map_or("", |session| session.carrier().name()),
            kept: served.session().is_some_and(|session| session.is_kept()),
            metrics: served.metrics.clone(),
            served: served.tree.served(),
            name: served.name,
        });
        spaces.collect()
    }

    /// The namespace mounted at or above `path`, with that directory.
    pub fn at(&self, path: &Path) -> Option<(NamespaceName, Arc<Tree>, PathBuf)> {
        let served = self.all();
        let found = served.iter().flat_map(|s| s.dirs().into_iter().map(move |dir| (s, dir)));
        let (served, dir) =
            found.filter(|(_, dir)| path.starts_with(dir)).max_by_key(|(_, dir)| dir.components().count())?;
        Some((served.name.clone(), served.tree.clone(), dir))
    }

    /// The tree of the namespace that is shown here, when that is not all of it.
    pub fn tree_at(&self, dir: &Path) -> Option<PathBuf> {
        let all = self.all();
        let mut mounts = all.iter().flat_map(Served::mountpoints);
        mounts.find(|mount| mount.path == dir && !mount.is_whole()).map(|mount| mount.root)
    }

    /// Mountpoints that would end with this process.
    pub fn unkept(&self) -> Vec<String> {
        let all = self.all().into_iter();
        let unkept = all.filter(|served| served.session().is_some_and(|session| !session.is_kept()));
        unkept.flat_map(|served| served.dirs()).map(|dir| dir.display().to_string()).collect()
    }

    /// The user who mounted here, when that was not an administrator.
    pub fn mounted_by(&self, dir: &Path) -> Option<u32> {
        let all = self.lock();
        all.values().flat_map(|served| &served.points).find(|point| point.dir == dir)?.owner
    }

    /// Mountpoints that are in use, and by whom. Reads all of `/proc`.
    pub fn busy(&self) -> Vec<String> {
        let mounts = self.all().into_iter().filter_map(|served| served.session().map(|s| s.mountpoints()));
        let users = mounts.flatten().flatten().map(|mount| (holders::of(&mount), mount.path));
        users
            .filter(|(users, _)| !users.is_empty())
            .map(|(users, dir)| format!("{} is used by {}", dir.display(), holders::list(&users)))
            .collect()
    }

    pub fn trees(&self) -> Vec<(NamespaceName, Arc<Tree>)> {
        self.lock().values().map(|served| (served.name.clone(), served.tree.clone())).collect()
    }

    pub fn meta(&self, name: &NamespaceName) -> Option<Arc<dyn Metadata>> {
        self.lock().values().find(|served| served.name == *name).map(|served| served.meta.clone())
    }

    /// Whether access control lists count where a namespace is mounted.
    pub fn keeps_acls(&self, name: &NamespaceName) -> bool {
        let all = self.lock();
        let served = all.values().find(|served| served.name == *name);
        served.and_then(Served::session).is_some_and(|session| session.vfs().keeps_acls())
    }

    /// The packed data set that an open namespace shows, in the version that it shows.
    pub fn packed(&self, name: &NamespaceName) -> Option<PackedSource> {
        let all = self.lock();
        all.values().find(|served| served.name == *name)?.packed.as_ref().map(Shown::source)
    }

    pub fn tree(&self, name: &NamespaceName) -> Option<Arc<Tree>> {
        self.lock().values().find(|served| served.name == *name).map(|served| served.tree.clone())
    }
}

impl Served {
    fn told_dirs(&self) -> Vec<Told> {
        let told = self.dirs().into_iter().filter(|dir| !self.is_own(dir));
        told.map(|dir| {
            let point = self.points.iter().find(|point| point.dir == dir);
            Told {
                tree: point.and_then(|point| point.tree.clone()),
                asked: point.and_then(|point| point.asked.clone()),
                read_only: self.is_read_only(&dir),
                dir,
            }
        })
        .collect()
    }

    fn is_read_only(&self, dir: &Path) -> bool {
        self.session().is_some_and(|session| session.vfs().options().read_only)
            || self.points.iter().any(|point| point.read_only && point.dir == dir)
    }
}

pub(super) fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Work => "work",
        Mode::Data => "data",
    }
}
