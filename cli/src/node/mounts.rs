//! Every namespace that is open on this node, and where it is mounted.
//!
//! One task, [`Keeper`], opens, mounts, unmounts and closes, one order after another, so that two commands never race
//! for a namespace. Everybody else looks at the [`Table`]. Where a namespace is mounted is asked of the kernel each time,
//! so that what umount(8) or a container did is seen.
//!
//! | state of a namespace | tree | mount |
//! |---|---|---|
//! | not in the table | | |
//! | mounted | open | session alive, one mount and perhaps bind mounts of it |
//! | draining | open, storing what is dirty | session ended |
//! | lingering | open | detached lazily, programs still use it; it may not be mounted until they end |
//!
//! A tree stays open until the node stops: the next mount of it finds everything as it was.

use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use granary_cache::{CacheShare, RecoveryWatch, Tree, TreeParts};
use granary_core::{Error, Failpoint, Ino, Kind, NamespaceId, NamespaceName, SessionId};
use granary_fuse::keeper::{Greeting, Inheritance, Keepsake};
use granary_fuse::mount::idmap::IdMap;
use granary_fuse::{Atime, Mode, MountOptions, MountParts, Mounted, Stop, Vfs, VfsOptions};
use granary_meta::NamespaceInfo;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::keeping::{Entry, Keeping, Kept, number};
use super::mountpoint::check_own;
use super::opener::{Opener, Ready, Wanted, What};
use super::packed::Opened;
use super::shutdown;
use super::source::Reached;
use super::table::{Point, Served, Table, mode_name};
use super::{Parts, blocking, packed, unopened};
use crate::exit::{Failure, Outcome};
use crate::recovery;
use crate::removal::{self, stage_dir};
use crate::token_file::Secret;

/// Orders that wait for the keeper; whoever gives one more waits to give it.
const ORDERS_MAX: usize = 16;
/// How often a busy mount is tried again while the node stops.
const BUSY_INTERVAL: Duration = Duration::from_millis(100);
/// How often it is looked for namespaces that need not stay open.
const IDLE_INTERVAL: Duration = Duration::from_secs(10);
/// How long the kernel has to end a session after its last unmount.
const SESSION_END_WAIT: Duration = Duration::from_secs(10);

/// A mount that is wanted.
#[derive(Clone, Debug)]
pub struct MountOrder {
    pub name: NamespaceName,
    /// Only this tree of it, relative to its top directory.
    pub tree: Option<String>,
    pub dir: PathBuf,
    pub options: MountOptions,
    /// The same as it was asked for.
    pub asked: String,
    /// Who asks, for the metadata service; `None`: the node does.
    pub token: Option<Secret>,
    /// The user who asks, when that is not an administrator.
    pub owner: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountDone {
    pub mode: &'static str,
    pub bound: bool,
}

/// What came of a token that was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handed {
    /// How long the node can go on with the namespace.
    pub left_ms: u64,
    /// What is not in the store yet.
    pub dirty_bytes: u64,
}

/// A stage directory whose namespace cannot be opened, and why.
pub type Unopened = (String, Failure);

/// How far a mount is.
enum MountStep {
    Done(MountDone),
    /// It shows a packed data set, which is opened first, while other orders go on.
    Open(Box<Wanted>),
}

type Reply<T> = oneshot::Sender<Outcome<T>>;

enum Order {
    Resume(Vec<Entry>, Reply<()>),
    Recover(Reply<Vec<Unopened>>),
    Empty(Reply<Vec<Unopened>>),
    Mount(Box<MountOrder>, Option<Ready>, Reply<MountStep>),
    Unmount { dir: PathBuf, lazy: bool, reply: Reply<()> },
    Hand { name: NamespaceName, token: Secret, reply: Reply<Handed> },
    Remove { name: NamespaceName, force: bool, token: Option<Secret>, reply: Reply<NamespaceId> },
    Close { hurry: CancellationToken, reply: Reply<()> },
}

/// Gives orders to the keeper.
pub struct Mounts {
    orders: mpsc::Sender<Order>,
    opener: Arc<Opener>,
    table: Arc<Table>,
    emptying: Arc<AtomicBool>,
    watch: Arc<RecoveryWatch>,
}

impl Mounts {
    pub fn start(parts: Parts) -> Mounts {
        let watch = parts.watch.clone();
        let (orders, inbox) = mpsc::channel(ORDERS_MAX);
        let table = Arc::new(Table::default());
        let emptying = Arc::new(AtomicBool::new(false));
        let parts = Arc::new(parts);
        let opener = Opener::new(parts.clone(), table.clone());
        let keeper = Keeper { parts, table: table.clone(), emptying: emptying.clone() };
        tokio::spawn(keeper.run(inbox));
        Mounts { orders, opener, table, emptying, watch }
    }

    pub fn table(&self) -> Arc<Table> {
        self.table.clone()
    }

    /// Opens every namespace that has bytes on this node, so that they go on to the store. One that cannot be opened is
    /// told in the log, and does not keep the others from being served.
    pub async fn recover(&self) -> Outcome<()> {
        for (dir, failure) in self.order(Order::Recover).await? {
            tracing::error!(
                "what is staged in {dir} cannot be brought back now ({failure}); it is kept, and tried again at the namespace's \
                 next mount"
            );
        }
        Ok(())
    }

    /// Goes on with mounts that another process made. One that cannot go on is ended, so that its programs get errors instead of
    /// waiting; with metadata that cannot be reached all wait for the next start.
    pub(super) async fn resume(&self, entries: Vec<Entry>) -> Outcome<()> {
        self.order(|reply| Order::Resume(entries, reply)).await
    }

    /// How far that is.
    pub fn watch(&self) -> &RecoveryWatch {
        &self.watch
    }

    /// From now on new mounts are refused. Opens every namespace that has bytes on this node; those that cannot be.
    pub async fn begin_emptying(&self) -> Outcome<Vec<Unopened>> {
        self.order(Order::Empty).await
    }

    pub fn is_emptying(&self) -> bool {
        self.emptying.load(Ordering::Relaxed)
    }

    /// Returns when the mount can be used.
    pub async fn mount(&self, order: MountOrder) -> Outcome<MountDone> {
        let order = Box::new(order);
        let mut ready = None;
        loop {
            match self.order(|reply| Order::Mount(order.clone(), ready.take(), reply)).await? {
                MountStep::Done(done) => return Ok(done),
                MountStep::Open(wanted) => ready = Some(self.opener.open(*wanted).await?),
            }
        }
    }

    /// Unmounts one directory; `Busy` names who uses it.
    pub async fn unmount(&self, dir: PathBuf, lazy: bool) -> Outcome<()> {
        self.order(|reply| Order::Unmount { dir, lazy, reply }).await
    }

    /// Goes on with what is here of a namespace, by this token; opens it when something is staged of it. `NotFound` when nothing is here.
    pub async fn hand(&self, name: NamespaceName, token: Secret) -> Outcome<Handed> {
        self.order(|reply| Order::Hand { name, token, reply }).await
    }

    /// Removes a namespace that is not mounted, but not yet its objects. `token`: who asks; `None`: the node does.
    pub async fn remove(
        &self,
        name: NamespaceName,
        force: bool,
        token: Option<Secret>,
    ) -> Outcome<NamespaceId> {
        self.order(|reply| Order::Remove { name, force, token, reply }).await
    }

    /// Packed data sets that are being opened are not any more, and who waits for one is told.
    pub(super) fn end_openings(&self) {
        self.opener.stop();
    }

    /// Unmounts everything and closes every tree; the last order. `hurry`: do not wait for busy mounts.
    pub async fn close(&self, hurry: &CancellationToken) -> Outcome<()> {
        self.order(|reply| Order::Close { hurry: hurry.clone(), reply }).await
    }

    async fn order<T>(&self, order: impl FnOnce(Reply<T>) -> Order) -> Outcome<T> {
        let (reply, answer) = oneshot::channel();
        let ended = || {
            Failure::of_kind(Kind::Unavailable, "the node is stopping; start it again with `granary node`")
        };
        self.orders.send(order(reply)).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}

/// The task that mounts.
struct Keeper {
    parts: Arc<Parts>,
    table: Arc<Table>,
    /// New mounts are refused.
    emptying: Arc<AtomicBool>,
}

impl Keeper {
    async fn run(self, mut inbox: mpsc::Receiver<Order>) {
        let mut idle = tokio::time::interval(IDLE_INTERVAL);
        idle.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let order = tokio::select! {
                order = inbox.recv() => order,
                _ = idle.tick() => {
                    self.let_go().await;
                    continue;
                }
            };
            let Some(order) = order else { return };
            // Whoever asked may have gone; then nobody wants the answer.
            match order {
                Order::Resume(entries, reply) => drop(reply.send(self.resume(entries).await)),
                Order::Recover(reply) => drop(reply.send(self.recover().await)),
                Order::Empty(reply) => {
                    self.emptying.store(true, Ordering::Relaxed);
                    drop(reply.send(self.recover().await));
                }
                Order::Mount(order, ready, reply) => drop(reply.send(self.mount(*order, ready).await)),
                Order::Unmount { dir, lazy, reply } => drop(reply.send(self.unmount(dir, lazy).await)),
                Order::Hand { name, token, reply } => drop(reply.send(self.hand(name, token).await)),
                Order::Remove { name, force, token, reply } => {
                    drop(reply.send(self.remove(name, force, token.as_ref()).await));
                }
                Order::Close { hurry, reply } => {
                    drop(reply.send(self.close(&hurry).await));
                    return;
                }
            }
        }
    }

    /// Opens what has a stage directory; what cannot be opened.
    async fn recover(&self) -> Outcome<Vec<Unopened>> {
        let cache = &self.parts.settings.cache;
        let mut unopened = Vec::new();
        for id in recovery::staged(cache)? {
            if let Err(failure) = self.reopen(id).await {
                let (at, why) = (cache.clone(), failure.clone());
                self.table.note_unopened(id, blocking(move || Ok(unopened::look(&at, id, &why))).await?);
                unopened.push((stage_dir(cache, id).display().to_string(), failure));
            }
        }
        Ok(unopened)
    }

    /// As the node itself reaches it.
    async fn reopen(&self, id: NamespaceId) -> Outcome<Served> {
        if let Some(served) = self.table.get(id) {
            return Ok(served);
        }
        self.open(self.parts.source.by_id(id).await?).await
    }

    /// The namespace, opened if it is not open.
    async fn open(&self, reached: Reached) -> Outcome<Served> {
        self.open_kept(reached, &[], None).await
    }

    /// The same, where programs have files open since before this process, or the packed data set that it shows is open.
    async fn open_kept(
        &self,
        reached: Reached,
        open: &[(Ino, Option<bool>)],
        ready: Option<Opened>,
    ) -> Outcome<Served> {
        let Reached { info, meta, link, .. } = reached;
        let (id, parts) = (info.id, &self.parts);
        if let Some(served) = self.table.get(id) {
            return Ok(served);
        }
        // Before its first read.
        parts.reads.set_share(id, parts.settings.cache_shares.of(&info.name));
        let opened = match (&info.packed, ready) {
            (Some(source), None) => Some(packed::open(parts, &info, source, &self.table.openings).await?),
            (Some(_), ready) => ready,
            (None, _) => None,
        };
        if let Some(opened) = &opened {
            parts.store.add(id, opened.store.clone());
        }
        let meta = opened.as_ref().map_or(meta, |opened| opened.meta.clone());
        let (stage_dir, limits) = match &opened {
            Some(_) => packed::tree_of(&parts.settings, id),
            None => (stage_dir(&parts.settings.cache, id), parts.settings.limits.clone()),
        };
        let tree_parts = TreeParts {
            stage_dir,
            node: parts.id,
            limits,
            meta: meta.clone(),
            store: parts.store.clone(),
            reads: parts.reads.clone(),
            clock: parts.clock.clone(),
            random: parts.random(),
            memory: parts.memory.clone(),
            runtime: tokio::runtime::Handle::current(),
        };
        let tree = Tree::open_kept(tree_parts, &parts.watch, open).await?;
        if let Some(data) = parts.data.as_ref().filter(|_| opened.is_none()) {
            data.connect(id, &tree, &meta);
        }
        let metrics = granary_fuse::Metrics::new(info.name.as_str());
        let packed = opened.map(|opened| opened.shown);
        let (name, mounted, points) = (info.name, None, Vec::new());
        let served = Served { name, meta, link, tree, mounted, packed, metrics, points };
        self.table.lock().insert(id, served.clone());
        self.table.note_unopened(id, None);
        Ok(served)
    }

    async fn hand(&self, name: NamespaceName, token: Secret) -> Outcome<Handed> {
        let reached = self.parts.source.find(Some(&token), &name).await?;
        let (id, left_ms) = (reached.info.id, reached.link.as_ref().map_or(0, |link| link.left_ms()));
        let staged = recovery::staged(&self.parts.settings.cache)?.contains(&id);
        if self.table.get(id).is_none() && !staged {
            return Err(Failure::of_kind(
                Kind::NotFound,
                format!(
                    "nothing of {name} is on this node; a mount takes a token of its own (granary mount --token-file)"
                ),
            ));
        }
        let served = self.open(reached).await?;
        Ok(Handed { left_ms, dirty_bytes: served.tree.status().dirty_bytes })
    }

    /// Closes what is not mounted, and in the store, where a session is for one namespace alone: its tokens end, and who has none to show
    /// would only be refused again and again.
    async fn let_go(&self) {
        for served in self.table.all() {
            let Some(link) = served.link.as_ref().filter(|link| link.is_of_namespace()) else { continue };
            // Without the service, closing would keep everybody else waiting.
            if served.session().is_some() || served.tree.status().dirty_files > 0 || !link.is_answered() {
                continue;
            }
            let id = served.meta.namespace();
            if let Err(e) = served.tree.shutdown().await {
                tracing::warn!("cannot close {} cleanly: {e}", served.name);
            }
            self.table.lock().remove(&id);
            self.parts.store.remove(id);
            link.close().await;
            tracing::info!(namespace = %served.name, "let go");
        }
    }

    /// `ready`: what the [`MountStep::Open`] that this was answered before led to.
    async fn mount(&self, mut order: MountOrder, ready: Option<Ready>) -> Outcome<MountStep> {
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
                Renewed::Open(wanted) => return Ok(MountStep::Open(Box::new(wanted))),
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
            _ => Ok(Renewed::Open(Wanted { info: info.clone(), source: source.clone(), shown })),
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
    async fn release_base(&self, id: NamespaceId) {
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

    /// What is to be known of it later, but for what the kernel has to say.
    fn kept(&self, id: NamespaceId, served: &Served, order: &MountOrder, mode: Mode) -> Kept {
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

    async fn resume(&self, entries: Vec<Entry>) -> Outcome<()> {
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

    async fn unmount(&self, dir: PathBuf, lazy: bool) -> Outcome<()> {
        let served = self.table.all().into_iter().find(|served| served.dirs().contains(&dir));
        let Some(served) = served else {
            return Err(Failure::of_kind(
                Kind::NotFound,
                format!(
                    "nothing of this node is mounted at {}; `granary status` shows what is mounted where",
                    dir.display()
                ),
            ));
        };
        let target = dir.clone();
        blocking(move || Ok(granary_fuse::unmount(&target, lazy)?)).await?;
        tracing::info!(namespace = %served.name, dir = %dir.display(), lazy, "unmounted");
        self.release_base(served.meta.namespace()).await;
        let Some(session) = served.mounted.filter(|_| !lazy) else { return Ok(()) };
        if !session.mountpoints()?.is_empty() {
            return Ok(());
        }
        // The last one: what programs did is handed over before we answer.
        match tokio::time::timeout(SESSION_END_WAIT, session.wait()).await {
            Ok(outcome) => Ok(outcome?),
            Err(_) => Err(Failure::of_kind(
                Kind::Busy,
                format!(
                    "{} is unmounted here, and still used in another mount namespace (a container?); end that, to be able to \
                     mount it again",
                    dir.display()
                ),
            )),
        }
    }

    async fn remove(&self, name: NamespaceName, force: bool, token: Option<&Secret>) -> Outcome<NamespaceId> {
        // Kept to the end: the session that found it is the one that removes it.
        let Reached { info, link: _session, .. } = self.parts.source.find(token, &name).await?;
        let id = info.id;
        let open = self.table.get(id);
        if let Some(session) = open.as_ref().and_then(|served| served.session()) {
            let dir = session.path().display();
            return Err(Failure::of_kind(
                Kind::Busy,
                format!("namespace {name} is mounted at {dir}; unmount it first"),
            ));
        }
        // What shows a packed data set has nothing for the store.
        let was_staging = open.as_ref().is_some_and(|served| served.packed.is_none());
        if let Some(served) = open {
            served.tree.shutdown().await?;
            self.table.lock().remove(&id);
            self.parts.store.remove(id);
            if let Some(link) = served.link.as_ref().filter(|link| link.is_of_namespace()) {
                link.close().await; // else the service takes it for one that uses the namespace
            }
        }
        if let Err(failure) = self.parts.source.remove(token, &name, force).await {
            if was_staging {
                self.reopen(id).await?; // its bytes go on to the store
            }
            return Err(failure);
        }
        let cache = self.parts.settings.cache.clone();
        blocking(move || {
            removal::remove_stage(&cache, id);
            Ok(())
        })
        .await?;
        self.parts.reads.set_share(id, CacheShare::default()); // what is cached of it has no minimum any more
        Ok(id)
    }

    async fn close(&self, hurry: &CancellationToken) -> Outcome<()> {
        let wait = Duration::from_millis(self.parts.settings.stop_wait_ms);
        let deadline = self.parts.clock.monotonic() + wait; // one for all: each is tried at least once
        let all = self.table.all();
        for served in &all {
            let Some(session) = served.session() else { continue };
            let mut told = false;
            while let Err(e) = session.stop(Stop::Clean).await {
                if !told {
                    tracing::warn!("{e}");
                    told = true;
                }
                if hurry.is_cancelled() || self.parts.clock.monotonic() >= deadline {
                    tracing::warn!(
                        "detaching {} although it is in use; its programs get errors from now on",
                        served.name
                    );
                    if let Err(e) = session.stop(Stop::Abort).await {
                        tracing::warn!("{e}");
                    }
                    break;
                }
                tokio::select! {
                    () = tokio::time::sleep(BUSY_INTERVAL) => {}
                    () = hurry.cancelled() => {}
                }
            }
        }
        let drain = Duration::from_millis(self.parts.settings.stop_drain_ms);
        shutdown::store_rest(&all, drain, hurry).await;
        if let Some(keeping) = self.parts.keeping.clone() {
            blocking(move || {
                keeping.bye();
                Ok(())
            })
            .await?;
        }
        Failpoint::StopBeforeFlush.reach();
        let mut outcome = Ok(());
        for served in all {
            if let Err(e) = served.tree.shutdown().await {
                let failure = Failure::from(e).context(format_args!("cannot close {} cleanly", served.name));
                tracing::error!("{failure}");
                outcome = outcome.and(Err(failure));
            }
        }
        self.table.lock().clear();
        Failpoint::StopAfterFlush.reach();
        outcome
    }
}

/// What becomes of a packed data set at a mount.
enum Renewed {
    /// It is open, and is shown as it is.
    AsItIs,
    /// This is shown.
    Anew(Opened),
    /// It is to be opened first, or another version may be there.
    Open(Wanted),
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

/// Sees a session's end, whoever caused it, so that its files are given back.
async fn watch(name: NamespaceName, mounted: Arc<Mounted>, keeping: Option<Arc<Keeping>>) {
    let ended = mounted.wait().await;
    if let Some(keeping) = keeping.filter(|_| mounted.is_kept()) {
        let device = mounted.device();
        let _never_fails = tokio::task::spawn_blocking(move || keeping.remove(number(device))).await;
    }
    match ended {
        Ok(()) => tracing::info!(namespace = %name, "the mount has ended"),
        Err(e) => tracing::error!(namespace = %name, "the mount ended badly: {e}"),
    }
}
