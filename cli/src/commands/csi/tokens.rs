//! Short-lived tokens, one for each volume that is mounted: made by the metadata service by the driver's own right to delegate, handed
//! to the node process with the mount, renewed at half of their life for as long as the volume is published.
//!
//! So the node process has no right but to what its pods have, and that for an hour more at most. The driver, which decides, reads no
//! files.

use std::path::PathBuf;
use std::sync::Arc;

use granary_core::{Clock, Error, Kind, Result, SystemClock};
use granary_csi::MountWanted;
use granary_csi::pod::Pod;
use rand::Rng;
use tokio::sync::Mutex;

use super::error;
use crate::exit::{Failure, Outcome};
use crate::node::clients::{ClientParts, Clients};
use crate::settings::Settings;
use crate::token_file::Secret;
use crate::wire::LinkStatus;
use crate::{commands, randomness};

pub struct Tokens {
    settings: Settings,
    lifetime_secs: u64,
    /// Made when it is first needed. Held while it is made, so that there is one.
    clients: Mutex<Option<Arc<Clients>>>,
}

impl Tokens {
    /// `file`: the driver's own token; `ttl`: how long those that are made last.
    pub fn new(settings: &Settings, file: PathBuf, ttl: &str) -> Outcome<Tokens> {
        if settings.meta.service().is_none() {
            return Err(Failure::usage(format!(
                "--delegate has the metadata service make tokens, and {} is a folder: give --meta https://HOST:PORT",
                settings.meta
            )));
        }
        let lifetime_secs = commands::token::pass::lifetime_secs("--delegate-ttl", ttl)?;
        let mut settings = settings.clone();
        settings.token_file = Some(file);
        Ok(Tokens { settings, lifetime_secs, clients: Mutex::default() })
    }

    async fn clients(&self) -> Outcome<Arc<Clients>> {
        let mut clients = self.clients.lock().await;
        if let Some(clients) = &*clients {
            return Ok(clients.clone());
        }
        let mut seeds = randomness::generator()?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        // Nobody asks it for staged bytes.
        let node = granary_core::NodeId(seeds.next_u64());
        let settings = self.settings.clone();
        let (data_address, keeping, resume) = (None, None, None);
        let parts = ClientParts { settings, node, data_address, clock, seeds, keeping, resume };
        let made = Clients::connect(parts).await?;
        *clients = Some(made.clone());
        Ok(made)
    }

    /// One for what is to be mounted. `NotFound` when there is no such namespace, `Denied` when the driver's own token is not
    /// accepted, `Permission` when it does not say that it may.
    pub async fn make(&self, wanted: &MountWanted, pod: Option<&Pod>) -> Result<Secret> {
        let clients = self.clients().await.map_err(error)?;
        let (namespace, read_only) = (&wanted.namespace, wanted.read_only);
        let purpose = purpose(pod);
        let client = &clients.own().client;
        let token =
            client.delegate(namespace, read_only, self.lifetime_secs, &purpose).await.map_err(|e| {
                let why = format!("no token can be had for {namespace}: {e}");
                Error::new(e.kind(), why)
            })?;
        Secret::new(&token).map_err(error)
    }

    /// Whether what a mount works by should be renewed now.
    pub fn are_due(&self, link: &LinkStatus, read_only: bool) -> bool {
        link.token.is_some_and(|token| token.refused)
            || left_ms(link, read_only) * 2 <= self.lifetime_secs * 1000
    }
}

/// How long a mount goes on by the tokens that there are.
pub fn left_ms(link: &LinkStatus, read_only: bool) -> u64 {
    match link.token {
        Some(token) if token.refused => 0,
        Some(token) if !read_only => token.left_write_ms,
        _ => link.token_left_ms.unwrap_or(0),
    }
}

/// As the audit log tells it.
fn purpose(pod: Option<&Pod>) -> String {
    match pod {
        Some(pod) => format!("pod {pod} uid {} account {}", pod.uid, pod.account),
        None => "a volume of the node".to_owned(),
    }
}

/// When a namespace can no longer be used, for the volume's condition.
pub fn trouble(link: &LinkStatus) -> Option<String> {
    link.token.filter(|token| token.refused).map(|_| {
        "the token of this volume has ended or was revoked, and no other was given: the right to it was withdrawn, or the metadata \
         service does not accept the driver's own token"
            .to_owned()
    })
}

/// A renewal that failed while the volume works still.
pub fn put_off(wanted: &MountWanted, left_ms: u64, e: Error) -> Result<()> {
    if left_ms == 0 || e.kind() == Kind::NotFound {
        return Err(e);
    }
    tracing::warn!(
        namespace = %wanted.namespace,
        "a token is not renewed now, and lasts for {} s more: {e}",
        left_ms / 1000
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::NamespaceToken;

    fn tokens() -> Tokens {
        Tokens::new(&settings("https://meta:7411"), "/none".into(), "1h").unwrap()
    }

    fn settings(meta: &str) -> Settings {
        let flags = vec![("meta".to_owned(), meta.to_owned())];
        crate::settings::Sources { flags, ..Default::default() }.resolve().unwrap()
    }

    fn link(left: u64, left_write: u64, refused: bool) -> LinkStatus {
        LinkStatus {
            url: "https://meta:7411".into(),
            connected: !refused,
            since_ms: 0,
            last_error: None,
            session: None,
            user: "csi".into(),
            rights: "read-write".into(),
            token_left_ms: Some(left),
            token: Some(NamespaceToken { left_write_ms: left_write, refused }),
            leases: 0,
            waiting_calls: 0,
            fenced: None,
        }
    }

    #[test]
    fn tokens_are_renewed_at_half_of_their_life_or_when_refused() {
        let (all, hour) = (tokens(), 3_600_000);
        assert!(!all.are_due(&link(hour, hour, false), false));
        assert!(all.are_due(&link(hour / 2, hour / 2, false), false));
        assert!(all.are_due(&link(hour, 0, false), false), "it may read by another, and this one writes");
        assert!(!all.are_due(&link(hour, 0, false), true));
        assert!(all.are_due(&link(hour, hour, true), true));
        assert!(trouble(&link(0, 0, true)).is_some() && trouble(&link(0, 0, false)).is_none());
    }

    #[test]
    fn what_works_still_goes_on_without() {
        let namespace = "user/alice".parse().unwrap();
        let wanted =
            MountWanted { namespace, tree: None, dir: "/a".into(), read_only: false, options: String::new() };
        let e = |kind| Error::new(kind, "x");
        assert!(put_off(&wanted, 5000, e(Kind::Unavailable)).is_ok());
        assert!(
            put_off(&wanted, 0, e(Kind::Unavailable)).is_err()
                && put_off(&wanted, 5000, e(Kind::NotFound)).is_err()
        );
    }

    #[test]
    fn a_folder_makes_no_tokens() {
        assert_eq!(Tokens::new(&settings("/m"), "/t".into(), "1h").map(drop).unwrap_err().exit, 2);
        for ttl in ["25h", "0s", "x"] {
            assert!(Tokens::new(&settings("https://m:1"), "/t".into(), ttl).is_err(), "{ttl}");
        }
    }
}
