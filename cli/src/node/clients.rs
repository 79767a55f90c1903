//! The node's connections to a metadata service: one, which is a session there, for each bearer of a token. So what one user's
//! mounts may do is decided by that user's token, on a node where others mount too.
//!
//! A connection lives as long as a mount uses it. A user who mounts with a renewed token goes on in the same session, once
//! the service has accepted that token: what it says counts for nothing before that. What the service itself has signed for one
//! namespace ([`granary_meta::token::Delegator`]) is known by the key of its greeting, without asking.
//!
//! Tokens for one namespace alone are one bearer's, whoever had them made and whether to read or to write ([`super::shown`]): so the
//! namespace's files stay open while its tokens are renewed, and while mounts with other rights come and go.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use granary_core::{Clock, Error, Kind, NamespaceId, NamespaceName, NodeId, SessionId};
use granary_meta::remote::{Client, ClientLimits, ClientOptions, SessionWatch, TokenProvider};
use granary_meta::token::{Pattern, Rights, Token, Verifier, inspect};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::keeping::{Keeping, KeptSession};
use super::shown::Shown;
use super::{blocking, kept_tokens};
use crate::exit::{Failure, Outcome};
use crate::settings::Settings;
use crate::token_file::{self, Secret};
use crate::wire::{FencedStatus, LinkStatus, NamespaceToken};

/// Bearers of tokens with mounts on one node.
const BEARERS_MAX: usize = 256;
/// So long after its greeting a restarted service has been told of all that a session has.
const STEADY: Duration = Duration::from_secs(1);

/// Answers that a process may have heard and not handed on, when another has to go on with its mounts: calls of programs that are
/// under way at once, with room to spare.
const ANSWERS_TOLD_LATE: usize = 512;

/// How long a node that stops waits for the service.
const CLOSE_WAIT: Duration = Duration::from_secs(5);
/// How long a service that is away is waited for, by nobody else, to hear that a session has ended: a restarted one would wait for that session.
const LEAVE_WAIT: Duration = Duration::from_mins(2);

/// How the service is reached, and as which node.
pub struct ClientParts {
    pub settings: Settings,
    pub node: NodeId,
    /// Where this node serves its staged bytes, `host:port`.
    pub data_address: Option<String>,
    pub clock: Arc<dyn Clock>,
    pub seeds: StdRng,
    /// Who holds the mounts, if somebody does: then another process can go on with the sessions.
    pub keeping: Option<Arc<Keeping>>,
    /// The node's own session, that a process before this one began.
    pub resume: Option<SessionId>,
}

/// Whose session a connection is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Bearer {
    User {
        user: String,
        groups: Vec<String>,
        rights: Rights,
        namespaces: Option<Vec<Pattern>>,
    },
    /// Of tokens for this namespace alone.
    Namespace(NamespaceName),
}

/// A connection, and what it shows next time.
pub struct Link {
    pub client: Arc<Client>,
    /// Whom its tokens name.
    user: String,
    bearer: Bearer,
    /// Guards the tokens, for a look or a change.
    shown: Arc<Mutex<Shown>>,
    /// Nobody is to use it any more.
    closed: AtomicBool,
    clock: Arc<dyn Clock>,
    /// By the token of the settings.
    is_own: bool,
}

pub struct Clients {
    settings: Settings,
    urls: Vec<String>,
    ca: Option<Vec<u8>>,
    node: NodeId,
    data_address: Option<String>,
    clock: Arc<dyn Clock>,
    keeping: Option<Arc<Keeping>>,
    /// Seeds the clients' generators. Guards its state, for a few instructions.
    seeds: Mutex<StdRng>,
    /// The node's own, by the token of its settings.
    own: std::sync::OnceLock<Arc<Link>>,
    /// Guards the map for a look-up or a change.
    others: Mutex<HashMap<Bearer, Weak<Link>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bearer {
    fn of(token: &Token) -> Bearer {
        match token.only() {
            Some(namespace) => Bearer::Namespace(namespace.clone()),
            None => Bearer::user(token),
        }
    }

    /// The same of the node's own, which is never another's.
    fn user(token: &Token) -> Bearer {
        let Token { user, groups, namespaces, rights, .. } = token.clone();
        Bearer::User { user, groups, rights, namespaces }
    }
}

fn now_secs(clock: &dyn Clock) -> u64 {
    clock.now().unix_ms() / 1000
}

impl Link {
    fn new(
        client: Arc<Client>,
        user: String,
        bearer: Bearer,
        shown: Arc<Mutex<Shown>>,
        clock: Arc<dyn Clock>,
        is_own: bool,
    ) -> Arc<Link> {
        Arc::new(Link { client, user, bearer, shown, closed: AtomicBool::new(false), clock, is_own })
    }

    /// What it may do now.
    pub fn rights(&self) -> Rights {
        lock(&self.shown).rights(now_secs(&*self.clock))
    }

    /// How long what it shows lasts, in milliseconds.
    pub fn left_ms(&self) -> u64 {
        lock(&self.shown).left_secs(now_secs(&*self.clock)) * 1000
    }

    /// Ends the session, within a bound; while the service is away, later.
    pub async fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        match self.client.status().connected {
            true => leave(self.client.clone(), CLOSE_WAIT).await,
            false => leave_behind(self.client.clone()),
        }
    }

    /// Whether the service says something to it now, be it that it refuses its tokens.
    pub fn is_answered(&self) -> bool {
        let status = self.client.status();
        status.connected || status.refused
    }

    /// Whether its rights may become others, as further tokens for its namespace come.
    pub fn is_of_namespace(&self) -> bool {
        matches!(self.bearer, Bearer::Namespace(_))
    }

    /// Goes on with this token of the same bearer, which is known to be good.
    fn take(&self, said: &Token, token: &Secret) {
        let now = now_secs(&*self.clock);
        let (before, other, after) = {
            let mut shown = lock(&self.shown);
            let before = shown.rights(now);
            let other = shown.offer(said, token.clone(), now);
            (before, other, shown.rights(now))
        };
        // Where rights are the same, a connection lasts until its token ends, and then shows the newer.
        if other && (before != after || !self.client.status().connected) {
            self.client.greet_again();
        }
    }

    /// What another process needs to go on with the session.
    pub(super) fn kept(&self) -> Option<KeptSession> {
        let id = self.client.last_session()?.0;
        let token = || lock(&self.shown).secret(now_secs(&*self.clock));
        Some(KeptSession { id, token: (!self.is_own).then(token) })
    }

    /// Whether the service knows the session: another process of this node can go on with it. Of one whose token is refused there is nothing to
    /// lose.
    pub fn is_steady(&self) -> bool {
        let status = self.client.status();
        status.refused || status.connected && status.since >= STEADY
    }

    pub fn status(&self) -> LinkStatus {
        let status = self.client.status();
        let now = now_secs(&*self.clock);
        let (rights, left, left_write) = {
            let shown = lock(&self.shown);
            let left_write = shown.left_with(Rights::ReadWrite, now);
            (shown.rights(now), shown.left_secs(now), left_write)
        };
        LinkStatus {
            url: status.url,
            connected: status.connected,
            since_ms: status.since.as_millis() as u64,
            last_error: status.last_error,
            session: status.session.map(|session| session.to_string()),
            user: self.user.clone(),
            rights: rights.as_str().to_owned(),
            token_left_ms: Some(left * 1000),
            token: self
                .is_of_namespace()
                .then_some(NamespaceToken { left_write_ms: left_write * 1000, refused: status.refused }),
            leases: status.leases,
            waiting_calls: status.waiting_calls,
            fenced: status.fenced.map(|(why, ago)| FencedStatus { why, ago_ms: ago.as_millis() as u64 }),
        }
    }
}

/// Whether others may join it.
fn is_used(link: &Arc<Link>) -> bool {
    !link.closed.load(Ordering::Relaxed)
}

/// Tells the service that a session ends, which else would be thought to use what it was told of until it was silent for long.
async fn leave(client: Arc<Client>, wait: Duration) {
    if tokio::time::timeout(wait, client.close()).await.is_err() {
        tracing::debug!("the metadata service did not hear that a session of this node ended");
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if !*self.closed.get_mut() {
            leave_behind(self.client.clone());
        }
    }
}

/// The same where nobody waits for it.
fn leave_behind(client: Arc<Client>) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(leave(client, LEAVE_WAIT));
    }
}

impl Clients {
    /// Connects with the token of the settings. `Unavailable` names the addresses that do not answer, within a bound.
    pub async fn connect(parts: ClientParts) -> Outcome<Arc<Clients>> {
        let Some(urls) = parts.settings.meta.service() else {
            return Err(Failure::usage("the metadata is in a folder: there is no service to connect to"));
        };
        let Some(path) = parts.settings.token_file.clone() else {
            return Err(Failure::usage(format!(
                "the metadata service at {} wants to know who asks: give --token-file FILE; its administrator makes tokens \
                 with `granary token issue`",
                parts.settings.meta
            )));
        };
        let ca = if urls.iter().any(|url| url.starts_with("https:")) {
            Some(super::tls::trusted(parts.settings.meta_ca.as_deref())?)
        } else {
            if !urls.iter().all(|url| is_loopback(url)) {
                tracing::warn!(
                    "{} is reached without TLS: tokens go over that network in the clear",
                    parts.settings.meta
                );
            }
            None
        };
        let clients = Arc::new(Clients {
            urls: urls.to_vec(),
            ca,
            node: parts.node,
            data_address: parts.data_address,
            clock: parts.clock,
            keeping: parts.keeping,
            seeds: Mutex::new(parts.seeds),
            own: std::sync::OnceLock::new(),
            others: Mutex::default(),
            settings: parts.settings,
        });
        let token = token_file::read(&path)?;
        let said = inspect(token.as_str())?;
        let shown = Arc::new(Mutex::new(Shown::new(&said, token)));
        let provider = {
            let (reread, clock) = (shown.clone(), clients.clock.clone());
            Arc::new(move || {
                // A file that is being replaced is read again at the next greeting.
                if let Ok(token) = token_file::read(&path)
                    && let Ok(said) = inspect(token.as_str())
                {
                    *lock(&reread) = Shown::new(&said, token);
                }
                Ok(lock(&reread).secret(now_secs(&*clock)).as_str().to_owned())
            })
        };
        let client = clients.client(provider, parts.resume).await?;
        let (user, bearer) = (said.user.clone(), Bearer::user(&said));
        let own = Link::new(client, user, bearer, shown, clients.clock.clone(), true);
        let _ = clients.own.set(own); // the first and only time
        Ok(clients)
    }

    /// A token that was kept of this namespace, which the node's own may not open.
    pub async fn kept_token(&self, id: NamespaceId) -> Outcome<Option<Secret>> {
        let (cache, now) = (self.settings.cache.clone(), now_secs(&*self.clock));
        blocking(move || Ok(kept_tokens::find(&cache, id, now))).await
    }

    /// Keeps a token that was delegated; others are their users' to keep.
    pub async fn keep_token(&self, id: NamespaceId, token: &Secret) -> Outcome<()> {
        if inspect(token.as_str())?.parent.is_none() {
            return Ok(());
        }
        let (cache, token, now) = (self.settings.cache.clone(), token.clone(), now_secs(&*self.clock));
        blocking(move || kept_tokens::keep(&cache, id, &token, now)).await
    }

    /// The node's own.
    pub fn own(&self) -> &Arc<Link> {
        match self.own.get() {
            Some(own) => own,
            None => unreachable!("connect returns after it was set"),
        }
    }

    /// The session of who bears this token; the service has accepted it when this returns.
    pub async fn bearing(&self, token: &Secret) -> Outcome<Arc<Link>> {
        if lock(&self.own().shown).has(token) {
            return Ok(self.own().clone());
        }
        let said = inspect(token.as_str())?;
        let bearer = Bearer::of(&said);
        let known = lock(&self.others).get(&bearer).and_then(Weak::upgrade).filter(is_used);
        if let Some(link) = &known {
            if lock(&link.shown).has(token) {
                return Ok(link.clone());
            }
            if self.is_of_service(token)? {
                self.renew(link, &said, token).await;
                return Ok(link.clone());
            }
        }
        // Proven by a greeting of its own: until then anybody could have written these words.
        let link = self.begin(&said, token, bearer, None).await?;
        if let Some(known) = known {
            self.renew(&known, &said, token).await; // its own session ends, as nobody has it
            return Ok(known);
        }
        self.join(link, &said, token)
    }

    /// Goes on with the session of a process before this one; or, if that is over, begins one.
    pub(super) async fn resuming(&self, kept: &KeptSession) -> Outcome<Arc<Link>> {
        let Some(token) = &kept.token else { return Ok(self.own().clone()) };
        let said = inspect(token.as_str())?;
        let bearer = Bearer::of(&said);
        let known = lock(&self.others).get(&bearer).and_then(Weak::upgrade).filter(is_used);
        match known {
            Some(link) => Ok(link),
            None => {
                let link = self.begin(&said, token, bearer, Some(SessionId(kept.id))).await?;
                self.join(link, &said, token)
            }
        }
    }

    async fn begin(
        &self,
        said: &Token,
        token: &Secret,
        bearer: Bearer,
        resume: Option<SessionId>,
    ) -> Outcome<Arc<Link>> {
        let kept = Arc::new(Mutex::new(Shown::new(said, token.clone())));
        let (shown, clock) = (kept.clone(), self.clock.clone());
        let provider = move || Ok(lock(&shown).secret(now_secs(&*clock)).as_str().to_owned());
        let client = self.client(Arc::new(provider), resume).await?;
        Ok(Link::new(client, said.user.clone(), bearer, kept, self.clock.clone(), false))
    }

    /// Goes on with this token of the same bearer, which is known to be good; and so does the next process. That this one could not
    /// be told is not fatal: it begins with the older token, while that is accepted.
    async fn renew(&self, link: &Link, said: &Token, token: &Secret) {
        link.take(said, token);
        let (Some(keeping), Some(KeptSession { id, token: Some(token) })) =
            (self.keeping.clone(), link.kept())
        else {
            return;
        };
        if let Err(failure) = blocking(move || keeping.note_token(SessionId(id), &token)).await {
            tracing::warn!("{failure}");
        }
    }

    fn join(&self, link: Arc<Link>, said: &Token, token: &Secret) -> Outcome<Arc<Link>> {
        let bearer = link.bearer.clone();
        let mut others = lock(&self.others);
        others.retain(|_, link| link.strong_count() > 0);
        if let Some(faster) = others.get(&bearer).and_then(Weak::upgrade).filter(is_used) {
            faster.take(said, token); // another mount of the same bearer was faster
            return Ok(faster);
        }
        if others.len() >= BEARERS_MAX {
            return Err(Failure::of_kind(
                Kind::Busy,
                format!("mounts of {BEARERS_MAX} bearers of tokens are on this node already; unmount some"),
            ));
        }
        others.insert(bearer, Arc::downgrade(&link));
        Ok(link)
    }

    /// Whether the service itself made this token, by its key. That it has not ended and was not revoked is found out as it is shown.
    fn is_of_service(&self, token: &Secret) -> Outcome<bool> {
        let own = &self.own().client;
        let key = own.ticket_key();
        if key.is_empty() {
            return Ok(false);
        }
        let verifier = Verifier::of_delegated(&own.volume()?.uuid, &key, self.clock.clone())?;
        Ok(verifier.is_good(token.as_str()))
    }

    fn all(&self) -> Vec<Arc<Link>> {
        let mut links: Vec<Arc<Link>> = lock(&self.others).values().filter_map(Weak::upgrade).collect();
        links.extend(self.own.get().cloned());
        links
    }

    /// All that a process before this one had is served again, or will not be: what is left of its sessions is given back.
    pub fn settle(&self) {
        self.all().iter().for_each(|link| link.client.settle(None));
    }

    /// Tells the service that this node goes, within a bound.
    pub async fn close(&self) {
        let (links, away): (Vec<_>, Vec<_>) =
            self.all().into_iter().partition(|link| link.client.status().connected);
        let all = async {
            for link in links {
                link.client.close().await;
            }
        };
        if tokio::time::timeout(CLOSE_WAIT, all).await.is_err() || !away.is_empty() {
            tracing::warn!(
                "the metadata service at {} did not hear that this node goes; it finds out when the leases end",
                self.settings.meta
            );
        }
    }

    async fn client(&self, token: TokenProvider, resume: Option<SessionId>) -> Outcome<Arc<Client>> {
        let answers_told_late = if self.keeping.is_some() { ANSWERS_TOLD_LATE } else { 0 };
        let mut random = StdRng::from_rng(&mut *lock(&self.seeds));
        let client = Client::connect(ClientOptions {
            urls: self.urls.clone(),
            token,
            tls_ca: self.ca.clone(),
            node: self.node,
            name: host_name(),
            data_address: self.data_address.clone(),
            clock: self.clock.clone(),
            random: Box::new(move || random.next_u64()),
            limits: ClientLimits { answers_told_late, ..ClientLimits::default() },
            resume,
            on_session: self.keeping.clone().map(watch),
        })
        .await;
        client.map_err(|e| named(e, &self.settings))
    }
}

/// Tells the keeper of each session that takes another's place.
fn watch(keeping: Arc<Keeping>) -> SessionWatch {
    let runtime = tokio::runtime::Handle::current();
    Arc::new(move |before, now| {
        let (Some(before), keeping) = (before, keeping.clone()) else { return };
        runtime.spawn_blocking(move || {
            if let Err(failure) = keeping.note_session(before, now) {
                tracing::warn!("{failure}"); // the next process finds the session over
            }
        });
    })
}

/// Whether what is said there stays on this machine.
pub fn is_loopback(url: &str) -> bool {
    let host = url::Url::parse(url).ok();
    match host.as_ref().and_then(url::Url::host) {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// Says which service it was.
fn named(e: Error, settings: &Settings) -> Failure {
    Failure::from(e.context(format_args!("metadata service {}", settings.meta)))
}

/// This machine's name, for others' messages.
pub fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    name.chars().filter(|c| c.is_ascii_graphic()).take(255).collect()
}
