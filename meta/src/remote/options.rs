//! What a client is made with, and what it tells of itself.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use granary_core::{Clock, Error, Kind, NodeId, Result, SessionId};

use super::cache::CacheLimits;

/// Gives the token to greet with, read anew each time, so that a renewed one is taken up.
pub type TokenProvider = Arc<dyn Fn() -> Result<String> + Send + Sync>;

/// Told of the session before, if there was one, and the one that begins.
pub type SessionWatch = Arc<dyn Fn(Option<SessionId>, SessionId) + Send + Sync>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    /// Calls under way; above it callers wait. The service has a limit of its own for each session (4096).
    pub calls_max: usize,
    /// Bytes of calls under way; above it callers wait.
    pub bytes_max: usize,
    /// A call that is not answered fails after this long without a connection.
    pub call_wait_ms_max: u64,
    /// Calls fail once the token, or the certificate, was not accepted for this long: a newer token may be on its way.
    pub refused_ms_max: u64,
    /// [`super::Client::connect`] tries for this long.
    pub connect_wait_ms_max: u64,
    /// Between attempts to connect: from, to. Half of it is jitter.
    pub backoff_ms_min: u64,
    pub backoff_ms_max: u64,
    /// The same while the token is refused.
    pub refused_backoff_ms_max: u64,
    /// Of each namespace.
    pub leases_max: usize,
    pub cache_bytes_max: usize,
    /// So many of the last answers to changes are confirmed late: should this process end, the service tells the next one what
    /// was done (see [`super::takeover`]). 0: none is.
    pub answers_told_late: usize,
}

impl Default for ClientLimits {
    fn default() -> ClientLimits {
        ClientLimits {
            calls_max: 2048,
            bytes_max: 64 << 20,
            call_wait_ms_max: 60_000,
            refused_ms_max: 15_000,
            connect_wait_ms_max: 10_000,
            backoff_ms_min: 50,
            backoff_ms_max: 1_000,
            refused_backoff_ms_max: 10_000,
            leases_max: 400_000,
            cache_bytes_max: 256 << 20,
            answers_told_late: 0,
        }
    }
}

impl ClientLimits {
    pub(super) fn validate(&self) -> Result<()> {
        let rules: [(&str, u64, u64, u64); 10] = [
            ("calls_max", self.calls_max as u64, 1, 4096),
            ("bytes_max", self.bytes_max as u64, 1 << 20, 1 << 40),
            ("call_wait_ms_max", self.call_wait_ms_max, 1, 86_400_000),
            ("refused_ms_max", self.refused_ms_max, 1, 86_400_000),
            ("connect_wait_ms_max", self.connect_wait_ms_max, 1, 86_400_000),
            ("backoff_ms_min", self.backoff_ms_min, 1, 60_000),
            ("backoff_ms_max", self.backoff_ms_max, self.backoff_ms_min, 600_000),
            ("refused_backoff_ms_max", self.refused_backoff_ms_max, self.backoff_ms_min, 600_000),
            ("leases_max", self.leases_max as u64, 1, 1 << 32),
            ("cache_bytes_max", self.cache_bytes_max as u64, 1 << 16, 1 << 40),
        ];
        let late = ("answers_told_late", self.answers_told_late as u64, 0, 4096);
        for (name, value, min, max) in rules.into_iter().chain([late]) {
            if value < min || value > max {
                let why = format!("{name} = {value} cannot work; set it between {min} and {max}");
                return Err(Error::new(Kind::Invalid, why));
            }
        }
        Ok(())
    }

    pub(super) fn cache(&self) -> CacheLimits {
        CacheLimits { leases_max: self.leases_max, bytes_max: self.cache_bytes_max }
    }
}

pub struct ClientOptions {
    /// `http://host:port` or `https://host:port`; more than one are tried by turns.
    pub urls: Vec<String>,
    pub token: TokenProvider,
    /// PEM certificates to trust with `https`; `None`: those of the system are not used, so one is needed.
    pub tls_ca: Option<Vec<u8>>,
    pub node: NodeId,
    /// The host's name, for messages.
    pub name: String,
    /// Where this node serves its staged bytes, `host:port`.
    pub data_address: Option<String>,
    pub clock: Arc<dyn Clock>,
    pub random: Box<dyn FnMut() -> u64 + Send>,
    pub limits: ClientLimits,
    /// The session of a process that ended, to go on with: see [`super::takeover`].
    pub resume: Option<SessionId>,
    /// Called in the client's own thread, and is not to block it.
    pub on_session: Option<SessionWatch>,
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientOptions")
            .field("urls", &self.urls)
            .field("node", &self.node)
            .field("name", &self.name)
            .field("data_address", &self.data_address)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// How a client is, for `granary status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientStatus {
    /// The URL of the connection, or of the last attempt.
    pub url: String,
    pub connected: bool,
    /// How long it has been connected, or not.
    pub since: Duration,
    /// Why the last connection ended, or the last attempt failed.
    pub last_error: Option<String>,
    /// The service does not accept the token; it is shown again and again, and a newer one is taken up.
    pub refused: bool,
    pub session: Option<SessionId>,
    pub incarnation: u64,
    /// What is left of the lease time.
    pub lease_left: Duration,
    /// Of all namespaces.
    pub leases: u64,
    pub cached_bytes: u64,
    pub opens: u64,
    pub waiting_calls: u64,
    /// The last time that the service ended the session, in words, and how long ago.
    pub fenced: Option<(String, Duration)>,
}
