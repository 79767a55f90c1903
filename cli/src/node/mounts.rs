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

mod end;
mod kept;
mod make;
mod open;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use granary_cache::RecoveryWatch;
use granary_core::{Kind, NamespaceId, NamespaceName};
use granary_fuse::{MountOptions, Mounted};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::Parts;
use super::keeping::{Entry, Keeping, number};
use super::opener::{Opener, Ready, Wanted};
use super::packed;
use super::table::Table;
use crate::exit::{Failure, Outcome};
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
