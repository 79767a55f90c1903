//! The node's connections to a metadata service: one, which is a session there, for each bearer of a token. So what one user's
//! mounts may do is decided by that user's token, on a node where others mount too.
//!
//! A connection lives as long as a mount uses it. A user who mounts with a renewed token goes on in the same session, once
//! the service has accepted that token: what it says counts for nothing before that.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use granary_core::{Clock, Error, Kind, NodeId};
use granary_meta::remote::{Client, ClientLimits, ClientOptions};
use granary_meta::token::{Rights, Token, inspect};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::exit::{Failure, Outcome};
use crate::settings::Settings;
use crate::token_file::{self, Secret};
use crate::wire::{FencedStatus, LinkStatus};

/// Bearers of tokens with mounts on one node.
const BEARERS_MAX: usize = 256;

/// How long a node that stops waits for the service.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// How the service is reached, and as which node.
pub struct ClientParts {
    pub settings: Settings,
    pub node: NodeId,
    /// Where this node serves its staged bytes, `host:port`.
    pub data_address: Option<String>,
    pub clock: Arc<dyn Clock>,
    pub seeds: StdRng,
}

/// Whose session a connection is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Bearer {
    user: String,
    groups: Vec<String>,
    rights: Rights,
}

/// A connection, and the token that it shows next time.
pub struct Link {
    pub client: Arc<Client>,
    bearer: Bearer,
    token: Arc<Mutex<Secret>>,
}

pub struct Clients {
    settings: Settings,
    urls: Vec<String>,
    ca: Option<Vec<u8>>,
    node: NodeId,
    data_address: Option<String>,
    clock: Arc<dyn Clock>,
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
        Bearer { user: token.user.clone(), groups: token.groups.clone(), rights: token.rights }
    }
}

impl Link {
    /// Whether its token only lets it read.
    pub fn is_read_only(&self) -> bool {
        self.bearer.rights == Rights::ReadOnly
    }

    pub fn status(&self) -> LinkStatus {
        let status = self.client.status();
        LinkStatus {
            url: status.url,
            connected: status.connected,
            since_ms: status.since.as_millis() as u64,
            last_error: status.last_error,
            session: status.session.map(|session| session.to_string()),
            user: self.bearer.user.clone(),
            rights: self.bearer.rights.as_str().to_owned(),
            leases: status.leases,
            waiting_calls: status.waiting_calls,
            fenced: status.fenced.map(|(why, ago)| FencedStatus { why, ago_ms: ago.as_millis() as u64 }),
        }
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
            seeds: Mutex::new(parts.seeds),
            own: std::sync::OnceLock::new(),
            others: Mutex::default(),
            settings: parts.settings,
        });
        let token = token_file::read(&path)?;
        let reread = Arc::new(Mutex::new(token.clone()));
        let provider = {
            let reread = reread.clone();
            Arc::new(move || {
                // A file that is being replaced is read again at the next greeting.
                if let Ok(token) = token_file::read(&path) {
                    *lock(&reread) = token;
                }
                Ok(lock(&reread).as_str().to_owned())
            })
        };
        let bearer = Bearer::of(&inspect(token.as_str())?);
        let client = clients.client(provider).await?;
        let _ = clients.own.set(Arc::new(Link { client, bearer, token: reread })); // the first and only time
        Ok(clients)
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
        if *lock(&self.own().token) == *token {
            return Ok(self.own().clone());
        }
        let said = inspect(token.as_str())?;
        let bearer = Bearer::of(&said);
        let known = lock(&self.others).get(&bearer).and_then(Weak::upgrade);
        if let Some(link) = &known
            && *lock(&link.token) == *token
        {
            return Ok(link.clone());
        }
        // Proven by a greeting of its own: until then anybody could have written these words.
        let kept = Arc::new(Mutex::new(token.clone()));
        let shown = kept.clone();
        let client = self.client(Arc::new(move || Ok(lock(&shown).as_str().to_owned()))).await?;
        if let Some(link) = known {
            let older = inspect(lock(&link.token).as_str()).map_or(0, |token| token.expires);
            if said.expires >= older {
                *lock(&link.token) = token.clone();
            }
            return Ok(link);
        }
        let link = Arc::new(Link { client, bearer: bearer.clone(), token: kept });
        let mut others = lock(&self.others);
        others.retain(|_, link| link.strong_count() > 0);
        if let Some(link) = others.get(&bearer).and_then(Weak::upgrade) {
            return Ok(link); // another mount of the same user was faster
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

    /// Tells the service that this node goes, within a bound.
    pub async fn close(&self) {
        let mut links: Vec<Arc<Link>> = lock(&self.others).values().filter_map(Weak::upgrade).collect();
        links.extend(self.own.get().cloned());
        let all = async {
            for link in links {
                link.client.close().await;
            }
        };
        if tokio::time::timeout(CLOSE_WAIT, all).await.is_err() {
            tracing::warn!(
                "the metadata service at {} did not hear that this node goes; it finds out when the leases end",
                self.settings.meta
            );
        }
    }

    async fn client(&self, token: granary_meta::remote::TokenProvider) -> Outcome<Arc<Client>> {
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
            limits: ClientLimits::default(),
        })
        .await;
        client.map_err(|e| named(e, &self.settings))
    }
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
