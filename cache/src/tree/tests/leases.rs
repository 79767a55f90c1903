//! A metadata service in one process, for tests: sessions that share one [`LocalNamespace`] under leases, as `granary meta`
//! hands them out. Nothing is kept by the sessions themselves, so every answer is the service's.

#![allow(dead_code)] // the tests of two crates use it, each its part

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use granary_core::error::fail;
use granary_core::{EntryName, Error, Ino, Kind, NamespaceId, NodeId, ObjectId, Result};
use granary_meta::lease::{Holder, LeaseKind, Lock, LockKind, LockOwner, LockRequest, Lost, PeerInfo, Scope};
use granary_meta::local::LocalNamespace;
use granary_meta::types::*;
use granary_meta::{Attr, Commit, DirEntry, Extent, Metadata};
use tokio::sync::Notify;

type Session = usize;

#[derive(Default)]
struct Table {
    held: HashMap<Scope, HashMap<Session, LeaseKind>>,
    /// Being recalled, down to what.
    recalls: HashMap<(Session, Scope), LeaseKind>,
    /// Changes that wait.
    wanted: HashMap<Scope, Vec<Session>>,
    holders: HashMap<Session, Arc<dyn Holder>>,
    ended: HashSet<Session>,
    peers: Vec<PeerInfo>,
    flocks: Vec<(Session, Ino, LockOwner, Lock)>,
    sessions: Session,
}

pub struct Service {
    meta: Arc<LocalNamespace>,
    table: Mutex<Table>,
    /// Told of every release.
    news: Notify,
    runtime: tokio::runtime::Handle,
}

/// One session.
pub struct Client {
    me: Session,
    service: Arc<Service>,
    /// Answers that are given again, once [`Client::keep_extents`] said so.
    kept_extents: Mutex<Option<KeptExtents>>,
}

type KeptExtents = HashMap<Ino, (Attr, Vec<Extent>)>;

impl Client {
    /// From now on extents are kept, as a node does that nobody recalled them from.
    pub fn keep_extents(&self) {
        *self.kept_extents.lock().unwrap() = Some(HashMap::new());
    }
}

/// Takes back what a change wanted.
struct Wanting<'a>(&'a Client, Vec<Scope>);

impl Drop for Wanting<'_> {
    fn drop(&mut self) {
        let mut t = self.0.service.table();
        for scope in &self.1 {
            if let Some(wanting) = t.wanted.get_mut(scope) {
                if let Some(at) = wanting.iter().position(|&s| s == self.0.me) {
                    wanting.remove(at);
                }
                if wanting.is_empty() {
                    t.wanted.remove(scope);
                }
            }
        }
        drop(t);
        self.0.service.news.notify_waiters();
    }
}

impl Service {
    pub fn new(meta: Arc<LocalNamespace>, runtime: tokio::runtime::Handle) -> Arc<Service> {
        Arc::new(Service { meta, table: Mutex::default(), news: Notify::new(), runtime })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn session(self: &Arc<Self>) -> Arc<Client> {
        let mut t = self.table();
        t.sessions += 1;
        Arc::new(Client { me: t.sessions, service: self.clone(), kept_extents: Mutex::default() })
    }

    /// The session is gone with its node, and what it had is free; its node greets anew.
    pub fn replace(self: &Arc<Self>, gone: &Client) -> Arc<Client> {
        let mut t = self.table();
        t.held.values_mut().for_each(|held| held.retain(|&session, _| session != gone.me));
        t.holders.remove(&gone.me);
        t.ended.insert(gone.me);
        drop(t);
        self.news.notify_waiters();
        self.session()
    }

    fn begin_recall(self: &Arc<Self>, t: &mut Table, session: Session, scope: Scope, wanted: LeaseKind) {
        match t.recalls.get(&(session, scope)) {
            Some(LeaseKind::Write) => return,
            Some(LeaseKind::Read) if wanted == LeaseKind::Read => return,
            _ => {}
        }
        t.recalls.insert((session, scope), wanted);
        let holder = t.holders.get(&session).cloned();
        let service = self.clone();
        self.runtime.spawn(async move {
            if let Some(holder) = holder {
                holder.recall(scope, wanted).await;
            }
            let mut t = service.table();
            if t.recalls.get(&(session, scope)) != Some(&wanted) {
                return; // more was asked for meanwhile, and perhaps given, and had again since
            }
            t.recalls.remove(&(session, scope));
            let Some(held) = t.held.get_mut(&scope) else { return };
            match wanted {
                LeaseKind::Write => {
                    held.remove(&session);
                }
                LeaseKind::Read => {
                    held.entry(session).and_modify(|kind| *kind = LeaseKind::Read);
                }
            }
            drop(t);
            service.news.notify_waiters();
        });
    }
}

/// What a read found, and what it was about.
struct Seen<T>(T, Vec<Scope>);

impl Client {
    fn may_go_on(&self, t: &Table) -> Result<()> {
        if t.ended.contains(&self.me) {
            return fail(Kind::Fenced, "this node's session was ended; open the files again");
        }
        Ok(())
    }

    fn grant(&self, t: &mut Table, scope: Scope, kind: LeaseKind) {
        if t.wanted.get(&scope).is_some_and(|w| w.iter().any(|&s| s != self.me))
            || t.recalls.contains_key(&(self.me, scope))
        {
            return;
        }
        let held = t.held.entry(scope).or_default().entry(self.me).or_insert(kind);
        *held = (*held).max_of(kind);
    }

    /// Reads, after whoever may hold something back of what was read has handed it over.
    async fn read<T>(&self, mut read: impl FnMut(&LocalNamespace) -> Result<Seen<T>> + Send) -> Result<T> {
        loop {
            let mut news = Box::pin(self.service.news.notified());
            news.as_mut().enable();
            {
                let mut t = self.service.table();
                self.may_go_on(&t)?;
                let Seen(answer, scopes) = read(&self.service.meta)?;
                let writers: Vec<(Session, Scope)> = scopes
                    .iter()
                    .flat_map(|&scope| {
                        let held = t.held.get(&scope).into_iter().flatten();
                        held.filter(|&(&s, &kind)| s != self.me && kind == LeaseKind::Write)
                            .map(move |(&s, _)| (s, scope))
                    })
                    .collect();
                if writers.is_empty() {
                    for scope in scopes {
                        self.grant(&mut t, scope, LeaseKind::Read);
                    }
                    return Ok(answer);
                }
                for (session, scope) in writers {
                    self.service.begin_recall(&mut t, session, scope, LeaseKind::Read);
                }
            }
            news.await;
        }
    }

    /// Changes, after everybody else has given up what it concerns. `scopes` is worked out anew each time.
    async fn change<T>(
        &self,
        exclusive: bool,
        mut scopes: impl FnMut(&LocalNamespace) -> Result<Vec<Scope>> + Send,
        change: impl FnOnce(&LocalNamespace) -> Result<(T, Vec<(Scope, LeaseKind)>)> + Send,
    ) -> Result<T> {
        let mut wanting = Wanting(self, Vec::new());
        loop {
            let mut news = Box::pin(self.service.news.notified());
            news.as_mut().enable();
            {
                let mut t = self.service.table();
                self.may_go_on(&t)?;
                let scopes = scopes(&self.service.meta)?;
                let mut others = Vec::new();
                for &scope in &scopes {
                    let held = t.held.get(&scope).into_iter().flatten();
                    others.extend(held.filter(|&(&s, _)| s != self.me).map(|(&s, _)| (s, scope)));
                    if !wanting.1.contains(&scope) {
                        t.wanted.entry(scope).or_default().push(self.me);
                        wanting.1.push(scope);
                    }
                }
                // What is being given up is given up before it is had again.
                let giving_up = scopes.iter().any(|&scope| t.recalls.contains_key(&(self.me, scope)));
                if others.is_empty() && !(exclusive && giving_up) {
                    let (answer, grants) = change(&self.service.meta)?;
                    for (scope, kind) in grants {
                        match kind {
                            LeaseKind::Read => self.grant(&mut t, scope, kind),
                            // Who waited for it gets it, and gives it to the next.
                            LeaseKind::Write => {
                                t.held.entry(scope).or_default().insert(self.me, kind);
                            }
                        }
                    }
                    drop(t);
                    return Ok(answer);
                }
                for (session, scope) in others {
                    self.service.begin_recall(&mut t, session, scope, LeaseKind::Write);
                }
            }
            news.await;
        }
    }

    /// The service has had enough of this session.
    pub async fn end(&self) {
        let holder = {
            let mut t = self.service.table();
            t.ended.insert(self.me);
            t.held.values_mut().for_each(|held| held.retain(|&session, _| session != self.me));
            t.holders.get(&self.me).cloned()
        };
        self.service.news.notify_waiters();
        if let Some(holder) = holder {
            holder.lost(Lost::Fenced).await;
        }
        self.service.table().ended.remove(&self.me);
    }

    pub fn set_peer(&self, peer: PeerInfo) {
        let mut t = self.service.table();
        t.peers.retain(|known| known.node != peer.node);
        t.peers.push(peer);
    }
}

trait Max {
    fn max_of(self, other: Self) -> Self;
}

impl Max for LeaseKind {
    fn max_of(self, other: LeaseKind) -> LeaseKind {
        if self == LeaseKind::Write { self } else { other }
    }
}

/// In process every future is ready at once.
fn now<T>(work: impl Future<Output = T>) -> T {
    work.now_or_never().expect("the local namespace never waits")
}

fn of_entry(dir: Ino, ino: Option<Ino>) -> Vec<Scope> {
    let mut scopes = vec![Scope::Directory(dir), Scope::Inode(dir)];
    scopes.extend(ino.map(Scope::Inode));
    scopes
}

fn kept(scopes: &[Scope]) -> Vec<(Scope, LeaseKind)> {
    scopes.iter().map(|&scope| (scope, LeaseKind::Read)).collect()
}

#[async_trait]
impl Metadata for Client {
    fn namespace(&self) -> NamespaceId {
        self.service.meta.namespace()
    }

    async fn lookup(&self, dir: Ino, name: EntryName<'_>) -> Result<Attr> {
        self.read(|meta| match now(meta.lookup(dir, name)) {
            Ok(attr) => {
                let scopes = vec![Scope::Directory(dir), Scope::Inode(attr.ino)];
                Ok(Seen(Ok(attr), scopes))
            }
            Err(e) if e.kind() == Kind::NotFound => Ok(Seen(Err(e), vec![Scope::Directory(dir)])),
            Err(e) => Err(e),
        })
        .await?
    }

    async fn getattr(&self, ino: Ino) -> Result<Attr> {
        self.read(|meta| Ok(Seen(now(meta.getattr(ino))?, vec![Scope::Inode(ino)]))).await
    }

    async fn readdir(&self, dir: Ino, cookie: u64, max: usize, with_attr: bool) -> Result<Vec<DirEntry>> {
        self.read(|meta| {
            let entries = now(meta.readdir(dir, cookie, max, with_attr))?;
            let mut scopes = vec![Scope::Directory(dir)];
            if with_attr {
                scopes.extend(entries.iter().map(|e| Scope::Inode(e.ino)));
            }
            Ok(Seen(entries, scopes))
        })
        .await
    }

    async fn parent(&self, dir: Ino) -> Result<Ino> {
        self.read(|meta| Ok(Seen(now(meta.parent(dir))?, vec![Scope::Directory(dir)]))).await
    }

    async fn readlink(&self, ino: Ino) -> Result<Vec<u8>> {
        self.read(|meta| Ok(Seen(now(meta.readlink(ino))?, vec![Scope::Inode(ino)]))).await
    }

    async fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>> {
        self.read(|meta| Ok(Seen(now(meta.getxattr(ino, name))?, vec![Scope::Inode(ino)]))).await
    }

    async fn listxattr(&self, ino: Ino) -> Result<Vec<Vec<u8>>> {
        self.read(|meta| Ok(Seen(now(meta.listxattr(ino))?, vec![Scope::Inode(ino)]))).await
    }

    async fn setxattr(&self, ino: Ino, name: &[u8], value: &[u8], create: bool, replace: bool) -> Result<()> {
        let scopes = [Scope::Inode(ino)];
        self.change(
            false,
            |_| Ok(scopes.to_vec()),
            |meta| Ok((now(meta.setxattr(ino, name, value, create, replace))?, kept(&scopes))),
        )
        .await
    }

    async fn removexattr(&self, ino: Ino, name: &[u8]) -> Result<()> {
        let scopes = [Scope::Inode(ino)];
        self.change(
            false,
            |_| Ok(scopes.to_vec()),
            |meta| Ok((now(meta.removexattr(ino, name))?, kept(&scopes))),
        )
        .await
    }

    async fn create(&self, dir: Ino, name: EntryName<'_>, new: NewInode, open: bool) -> Result<Attr> {
        let scopes = of_entry(dir, None);
        self.change(
            false,
            |_| Ok(scopes.clone()),
            |meta| {
                let attr = now(meta.create(dir, name, new, open))?;
                let mut grants = kept(&scopes);
                let kind = if open { LeaseKind::Write } else { LeaseKind::Read };
                grants.push((Scope::Inode(attr.ino), kind));
                Ok((attr, grants))
            },
        )
        .await
    }

    async fn link(&self, ino: Ino, dir: Ino, name: EntryName<'_>) -> Result<Attr> {
        let scopes = of_entry(dir, Some(ino));
        self.change(
            false,
            |_| Ok(scopes.clone()),
            |meta| Ok((now(meta.link(ino, dir, name))?, kept(&scopes))),
        )
        .await
    }

    async fn unlink(&self, dir: Ino, name: EntryName<'_>) -> Result<Attr> {
        self.change(
            false,
            |meta| Ok(of_entry(dir, now(meta.lookup(dir, name)).ok().map(|a| a.ino))),
            |meta| Ok((now(meta.unlink(dir, name))?, kept(&of_entry(dir, None)))),
        )
        .await
    }

    async fn rmdir(&self, dir: Ino, name: EntryName<'_>) -> Result<()> {
        self.change(
            false,
            |meta| {
                let ino = now(meta.lookup(dir, name)).ok().map(|a| a.ino);
                let mut scopes = of_entry(dir, ino);
                scopes.extend(ino.map(Scope::Directory));
                Ok(scopes)
            },
            |meta| Ok((now(meta.rmdir(dir, name))?, kept(&of_entry(dir, None)))),
        )
        .await
    }

    async fn rename(
        &self,
        dir: Ino,
        name: EntryName<'_>,
        to_dir: Ino,
        to_name: EntryName<'_>,
        mode: RenameMode,
    ) -> Result<Option<Attr>> {
        self.change(
            false,
            |meta| {
                let found = |dir, name| now(meta.lookup(dir, name)).ok().map(|a| a.ino);
                let (from, to) = (found(dir, name), found(to_dir, to_name));
                let mut scopes = of_entry(dir, from);
                scopes.extend(of_entry(to_dir, to));
                scopes.extend(from.into_iter().chain(to).map(Scope::Directory));
                Ok(scopes)
            },
            |meta| Ok((now(meta.rename(dir, name, to_dir, to_name, mode))?, kept(&of_entry(dir, None)))),
        )
        .await
    }

    async fn setattr(&self, ino: Ino, set: SetAttr) -> Result<Attr> {
        let scopes = [Scope::Inode(ino)];
        self.change(false, |_| Ok(scopes.to_vec()), |meta| Ok((now(meta.setattr(ino, set))?, kept(&scopes))))
            .await
    }

    async fn open(&self, ino: Ino) -> Result<Attr> {
        self.read(|meta| Ok(Seen(now(meta.getattr(ino))?, vec![Scope::Inode(ino)]))).await?;
        now(self.service.meta.open(ino))?;
        match self.getattr(ino).await {
            Ok(attr) => Ok(attr),
            Err(e) => {
                self.service.meta.close(ino);
                Err(e)
            }
        }
    }

    fn close(&self, ino: Ino) {
        self.service.meta.close(ino);
    }

    async fn extents(&self, ino: Ino) -> Result<(Attr, Vec<Extent>)> {
        if let Some(known) = self.kept_extents.lock().unwrap().as_ref().and_then(|kept| kept.get(&ino)) {
            return Ok(known.clone());
        }
        self.extents_anew(ino).await.inspect(|answer| {
            if let Some(kept) = &mut *self.kept_extents.lock().unwrap() {
                kept.insert(ino, answer.clone());
            }
        })
    }

    async fn extents_anew(&self, ino: Ino) -> Result<(Attr, Vec<Extent>)> {
        self.read(|meta| Ok(Seen(now(meta.extents(ino))?, vec![Scope::Inode(ino)]))).await
    }

    async fn commit(&self, commit: Commit) -> Result<Attr> {
        let scope = Scope::Inode(commit.ino);
        self.change(false, |_| Ok(vec![scope]), |meta| Ok((now(meta.commit(commit))?, kept(&[scope])))).await
    }

    async fn tmpfile(&self, dir: Ino, new: NewInode) -> Result<Attr> {
        self.change(
            false,
            |_| Ok(Vec::new()),
            |meta| {
                let attr = now(meta.tmpfile(dir, new))?;
                let grants = vec![(Scope::Inode(attr.ino), LeaseKind::Write)];
                Ok((attr, grants))
            },
        )
        .await
    }

    async fn copy_range(&self, copy: CopyRange) -> Result<Copied> {
        let scope = Scope::Inode(copy.to);
        self.change(false, |_| Ok(vec![scope]), |meta| Ok((now(meta.copy_range(copy))?, kept(&[scope]))))
            .await
    }

    async fn relocate(&self, object: ObjectInfo, moves: Vec<Move>) -> Result<Vec<Vec<(u64, u64)>>> {
        let scopes: HashSet<Scope> = moves.iter().map(|m| Scope::Inode(m.ino)).collect();
        let scopes: Vec<Scope> = scopes.into_iter().collect();
        self.change(
            false,
            |_| Ok(scopes.clone()),
            |meta| Ok((now(meta.relocate(object, moves))?, Vec::new())),
        )
        .await
    }

    async fn inline(&self, ino: Ino) -> Result<Option<Inline>> {
        self.read(|meta| Ok(Seen(now(meta.inline(ino))?, vec![Scope::Inode(ino)]))).await
    }

    async fn keep_inline(&self, object: ObjectInfo, copies: Vec<NewInline>) -> Result<()> {
        self.service.meta.keep_inline(object, copies).await
    }

    async fn live(&self, staged: &[(Ino, Extent)]) -> Result<Vec<Vec<(u64, u64)>>> {
        self.service.meta.live(staged).await
    }

    async fn object(&self, id: ObjectId) -> Result<ObjectInfo> {
        self.service.meta.object(id).await
    }

    async fn dead_objects(&self, max: usize) -> Result<Vec<DeadObject>> {
        self.service.meta.dead_objects(max).await
    }

    async fn live_objects(&self, after: ObjectId, max: usize) -> Result<Vec<LiveObject>> {
        self.service.meta.live_objects(after, max).await
    }

    async fn forget_objects(&self, ids: Vec<ObjectId>) -> Result<()> {
        self.service.meta.forget_objects(ids).await
    }

    async fn sync(&self) -> Result<()> {
        self.service.meta.sync().await
    }

    fn usage(&self) -> Usage {
        self.service.meta.usage()
    }

    fn headroom(&self) -> u64 {
        self.service.meta.headroom()
    }

    fn write_settings(&self) -> WriteSettings {
        self.service.meta.write_settings()
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn holds(&self, scope: Scope, kind: LeaseKind) -> bool {
        let t = self.service.table();
        if t.recalls
            .get(&(self.me, scope))
            .is_some_and(|&to| to == LeaseKind::Write || kind == LeaseKind::Write)
        {
            return false;
        }
        let held = t.held.get(&scope).and_then(|held| held.get(&self.me));
        held.is_some_and(|&held| held == LeaseKind::Write || kind == LeaseKind::Read)
    }

    fn lease_left(&self) -> Duration {
        Duration::from_secs(10)
    }

    async fn lease(&self, ino: Ino) -> Result<Attr> {
        let scope = Scope::Inode(ino);
        self.change(
            true,
            |_| Ok(vec![scope]),
            |meta| Ok((now(meta.getattr(ino))?, vec![(scope, LeaseKind::Write)])),
        )
        .await
    }

    fn set_holder(&self, holder: Arc<dyn Holder>) {
        self.service.table().holders.insert(self.me, holder);
    }

    async fn test_lock(&self, _ino: Ino, _owner: LockOwner, _lock: Lock) -> Result<Option<Lock>> {
        fail(Kind::Unsupported, "only flock is here")
    }

    async fn lock(&self, ino: Ino, request: LockRequest) -> Result<()> {
        loop {
            let mut news = Box::pin(self.service.news.notified());
            news.as_mut().enable();
            {
                let mut t = self.service.table();
                t.flocks.retain(|(s, i, o, _)| (*s, *i, *o) != (self.me, ino, request.owner));
                let taken = t.flocks.iter().any(|(_, i, _, lock)| {
                    *i == ino
                        && (lock.kind == LockKind::Exclusive || request.lock.kind == LockKind::Exclusive)
                });
                if request.unlock || !taken {
                    if !request.unlock {
                        t.flocks.push((self.me, ino, request.owner, request.lock));
                    }
                    drop(t);
                    self.service.news.notify_waiters();
                    return Ok(());
                }
                if !request.wait {
                    return fail(Kind::WouldBlock, "somebody else has the lock");
                }
            }
            news.await;
        }
    }

    async fn peer(&self, node: NodeId) -> Result<PeerInfo> {
        if let Some(peer) = self.service.table().peers.iter().find(|peer| peer.node == node) {
            return Ok(peer.clone());
        }
        Err(Error::new(Kind::NotFound, format!("node {node} is not known")))
    }
}
