//! The client of the metadata service: one session, however many connections that takes.
//!
//! ```text
//!  Metadata call --kept under a lease?--> answer at once
//!       | no                                              one thread:
//!       v                                                 frames in, in order: answers -> leases and values -> waiters
//!  calls under way --whatever waits, one frame--> service                      recalls -> Holder -> Released
//! ```
//!
//! Calls are sent as they come, many at once; what waits when the connection can take more goes in one frame. When the
//! connection breaks, callers wait while it is made again, and the calls that were not answered are sent again under their
//! numbers, so that none is done twice. Only when the service could not be reached for
//! [`ClientLimits::call_wait_ms_max`] do they fail.
//!
//! Leases count from when the word was *sent* that the service heard. When they end unheard, nothing that is kept is
//! used, from that instant on: every look at it compares the time. When the service says that the session is over, what
//! was held back in it is refused ([`granary_core::Kind::Fenced`]), and what is opened from then on belongs to the next.
//!
//! `cache` says what is kept; `recall`, how leases go back; `opens`, what needs no call; `takeover`, how another process goes on
//! with the session.

use std::sync::Arc;
use std::sync::Mutex;
use std::thread::JoinHandle;

use granary_core::{Error, Kind, NamespaceId, NamespaceName, Result, SessionId};
use tokio::sync::oneshot;

use crate::call::{Answer, Call, SessionInfo};
use crate::types::{NamespaceChange, NamespaceInfo, NewNamespace, VolumeInfo};

mod apply;
mod cache;
mod calls;
mod core;
mod held_locks;
mod link;
mod metadata;
mod namespace;
mod opens;
mod options;
mod recall;
mod takeover;

pub use namespace::RemoteNamespace;
pub use options::{ClientLimits, ClientOptions, ClientStatus, SessionWatch, TokenProvider};

use self::core::{Core, CoreParts, closed};
use namespace::unexpected;

pub struct Client {
    core: Arc<Core>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Client {
    /// Begins a session. To be called within a runtime, where [`crate::Holder`]s will run. `Denied` when the service refuses
    /// the token, `Unavailable` when it cannot be reached for [`ClientLimits::connect_wait_ms_max`].
    pub async fn connect(options: ClientOptions) -> Result<Arc<Client>> {
        let ClientOptions { urls, token, tls_ca, node, name, data_address, clock, random, limits, .. } =
            options;
        let (resume, on_session) = (options.resume, options.on_session);
        limits.validate()?;
        if urls.is_empty() {
            return Err(Error::new(
                Kind::Invalid,
                "no address of a metadata service is given; one is https://host:port",
            ));
        }
        let holders = tokio::runtime::Handle::current();
        let parts = CoreParts { clock, limits, node, name, data_address, holders, resume, on_session };
        let core = Core::new(parts);
        let linker = link::Linker { core: core.clone(), urls, token, tls_ca, random };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Error::io("cannot start the metadata client", e))?;
        let (tell, told) = oneshot::channel();
        // One thread for all of the connection: what goes between its parts crosses no CPU.
        let thread = std::thread::Builder::new()
            .name("granary-meta".into())
            .spawn(move || runtime.block_on(linker.run(tell)))
            .map_err(|e| Error::io("cannot start the metadata client's thread", e))?;
        let client = Arc::new(Client { core, thread: Mutex::new(Some(thread)) });
        told.await.map_err(|_| closed())??;
        Ok(client)
    }

    async fn call(&self, call: Call) -> Result<Answer> {
        self.core.call(None, NamespaceId(0), call).await
    }

    async fn call_namespace(&self, call: Call) -> Result<NamespaceInfo> {
        match self.call(call).await? {
            Answer::Namespace(info) => Ok(info),
            other => Err(unexpected(&other)),
        }
    }

    /// The namespace of this name; the same object for all who ask while somebody uses it. `NotFound` also when it is not
    /// granted.
    pub async fn namespace(&self, name: &NamespaceName) -> Result<Arc<RemoteNamespace>> {
        let info = self.namespace_info(name).await?;
        Ok(self.core.space(info))
    }

    pub async fn by_id(&self, id: NamespaceId) -> Result<Arc<RemoteNamespace>> {
        if let Some(space) = self.core.find_space(id) {
            return Ok(space);
        }
        let info = self.namespaces().await?.into_iter().find(|info| info.id == id);
        let info = info.ok_or_else(|| Error::new(Kind::NotFound, format!("there is no namespace {id}")))?;
        // Asked for by name, because that opens it for the session.
        self.namespace(&info.name).await
    }

    pub async fn namespace_info(&self, name: &NamespaceName) -> Result<NamespaceInfo> {
        self.call_namespace(Call::Namespace { name: name.clone() }).await
    }

    /// Those that are granted, in order of names.
    pub async fn namespaces(&self) -> Result<Vec<NamespaceInfo>> {
        match self.call(Call::Namespaces).await? {
            Answer::Namespaces(all) => Ok(all),
            other => Err(unexpected(&other)),
        }
    }

    pub async fn create_namespace(&self, new: NewNamespace) -> Result<NamespaceInfo> {
        self.call_namespace(Call::CreateNamespace { new }).await
    }

    pub async fn set_namespace(
        &self,
        name: &NamespaceName,
        change: NamespaceChange,
    ) -> Result<NamespaceInfo> {
        self.call_namespace(Call::SetNamespace { name: name.clone(), change }).await
    }

    pub async fn remove_namespace(&self, name: &NamespaceName, force: bool) -> Result<()> {
        self.call_done(Call::RemoveNamespace { name: name.clone(), force }).await
    }

    pub async fn revoke_token(&self, token: &str) -> Result<()> {
        self.call_done(Call::RevokeToken { token: token.to_owned() }).await
    }

    /// A token for this namespace alone, for at most so many seconds; it ends with this client's own. `purpose`: for whom, as the
    /// service's audit log tells it. `NotFound` when there is no such namespace, `Permission` for who may not delegate it.
    pub async fn delegate(
        &self,
        namespace: &NamespaceName,
        read_only: bool,
        lifetime_secs: u64,
        purpose: &str,
    ) -> Result<String> {
        let (namespace, purpose) = (namespace.clone(), purpose.to_owned());
        match self.call(Call::Delegate { namespace, read_only, lifetime_secs, purpose }).await? {
            Answer::Token(token) => Ok(token.0),
            other => Err(unexpected(&other)),
        }
    }

    async fn call_done(&self, call: Call) -> Result<()> {
        match self.call(call).await? {
            Answer::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// The sessions of the service; for administrators.
    pub async fn sessions(&self) -> Result<Vec<SessionInfo>> {
        match self.call(Call::Sessions).await? {
            Answer::Sessions(all) => Ok(all),
            other => Err(unexpected(&other)),
        }
    }

    /// The session that there is now; `None` from its end to the next.
    pub fn session(&self) -> Option<SessionId> {
        self.core.session().0
    }

    /// The same, or the one that ended last.
    pub fn last_session(&self) -> Option<SessionId> {
        self.core.last_session()
    }

    /// Of a session that another process began: who keeps something under its leases in this namespace (`None`: in any other)
    /// is there by now, and recalls are answered from here on. What it had and nobody uses is given back.
    pub fn settle(&self, ns: Option<NamespaceId>) {
        self.core.settle(ns);
    }

    /// As the service told it with its last greeting.
    pub fn volume(&self) -> Result<VolumeInfo> {
        self.core.volume().ok_or_else(closed)
    }

    /// What verifies the tickets of other nodes, as of the last greeting; empty when the service makes none.
    pub fn ticket_key(&self) -> Vec<u8> {
        self.core.ticket_key()
    }

    pub fn status(&self) -> ClientStatus {
        let link = self.core.link();
        let (session, incarnation) = self.core.session();
        let (mut leases, mut cached_bytes, mut opens) = (0, 0, 0);
        for space in self.core.live_spaces() {
            let (l, b, o) = space.leases();
            (leases, cached_bytes, opens) = (leases + l, cached_bytes + b, opens + o);
        }
        ClientStatus {
            url: link.url,
            connected: link.connected,
            since: self.core.clock.monotonic().saturating_sub(link.since),
            refused: !link.connected && matches!(link.last_error, Some((Kind::Denied, _))),
            last_error: link.last_error.map(|(_, why)| why),
            session,
            incarnation,
            lease_left: self.core.lease_left(),
            leases,
            cached_bytes,
            opens,
            waiting_calls: self.core.waiting_calls(),
            fenced: self.core.fence(),
        }
    }

    /// Greets anew with the token that there is now; what the session has stays.
    pub fn greet_again(&self) {
        self.core.new_token();
    }

    /// Does at once what time brings; otherwise done some thirty times in a lease time.
    pub fn tick(&self) {
        self.core.tick();
    }

    /// Waits until all that was told to the service is answered, or given up, and it heard that the session ends: what it still has is
    /// free at once. A service that is away is told when it is back, or not at all where that is not waited for.
    pub async fn close(&self) {
        self.core.drained().await;
        let mut stopped = self.core.stop.subscribe();
        self.core.leave();
        // The service answers with the end of the session.
        let _ = stopped.wait_for(|stop| *stop).await;
        self.end();
    }

    fn end(&self) {
        self.core.close();
        let thread = self.thread.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        // The thread waits for nothing but the network and sees the end at once.
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the metadata client's thread panicked");
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.end();
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("status", &self.status()).finish()
    }
}

#[cfg(test)]
mod tests;
