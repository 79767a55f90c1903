//! Limits and times of the service.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use granary_core::{Error, Kind, NamespaceId, Result, SessionId};

use crate::token::Delegator;

/// Makes what a session shows to a peer node to read a namespace's staged bytes.
pub type Tickets = Arc<dyn Fn(NamespaceId, SessionId) -> Result<String> + Send + Sync>;

#[derive(Clone)]
pub struct ServiceOptions {
    /// A session that was not heard of for so long is ended as soon as somebody needs what it has.
    pub lease_time: Duration,
    /// And after so long in any case.
    pub silence_max: Duration,
    /// After a start, how long sessions from before may take to come back before others go on. Not shorter than what their
    /// leases may still last, which is the lease time.
    pub grace: Duration,
    /// How often sessions are looked at; `None`: only when somebody waits for them, or by [`super::Service::tick`].
    pub tick: Option<Duration>,
    pub sessions_max: usize,
    /// Calls of one session under way, whose responses did not go out yet.
    pub calls_max: usize,
    /// Answers remembered for one session that it has not confirmed.
    pub replies_max: usize,
    /// Above it a session is given none to read.
    pub leases_max: u64,
    /// Of one session, in all namespaces.
    pub opens_max: u64,
    pub locks_max: u64,
    /// A file that lost its last name while there are several sessions is kept for so long: a node may be between looking its
    /// name up and opening it. Zero: not at all.
    pub linger: Duration,
    /// Namespaces whose calls are done at the same time.
    pub runners: usize,
    /// Without it no node can read what is staged at another.
    pub tickets: Option<Tickets>,
    /// What verifies them, for the greeting.
    pub ticket_key: Vec<u8>,
    /// Makes tokens for who may delegate; without it nobody can. Its key verifies them, as it does tickets.
    pub delegator: Option<Arc<Delegator>>,
}

impl Default for ServiceOptions {
    fn default() -> ServiceOptions {
        ServiceOptions {
            lease_time: Duration::from_secs(10),
            silence_max: Duration::from_secs(600),
            grace: Duration::from_secs(10),
            tick: Some(Duration::from_millis(250)),
            sessions_max: 10_000,
            calls_max: 4096,
            replies_max: 8192,
            leases_max: 1_000_000,
            opens_max: 1_000_000,
            locks_max: 100_000,
            linger: Duration::from_millis(200),
            runners: 4,
            tickets: None,
            ticket_key: Vec::new(),
            delegator: None,
        }
    }
}

impl ServiceOptions {
    pub(super) fn validate(&self) -> Result<()> {
        let wrong = |what: &str| {
            Err(Error::new(Kind::Invalid, format!("the metadata service cannot work so: {what}")))
        };
        if self.lease_time < Duration::from_millis(100) || self.lease_time > Duration::from_secs(3600) {
            return wrong("lease_time must be from 0.1 s to an hour");
        }
        if self.grace < self.lease_time {
            return wrong("grace must not be shorter than lease_time");
        }
        if self.calls_max == 0 || self.sessions_max == 0 || self.runners == 0 {
            return wrong("calls_max, sessions_max and runners must not be 0");
        }
        if self.replies_max < self.calls_max {
            return wrong("replies_max must not be smaller than calls_max");
        }
        Ok(())
    }
}

impl fmt::Debug for ServiceOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceOptions")
            .field("lease_time", &self.lease_time)
            .field("grace", &self.grace)
            .field("sessions_max", &self.sessions_max)
            .field("calls_max", &self.calls_max)
            .finish_non_exhaustive()
    }
}
