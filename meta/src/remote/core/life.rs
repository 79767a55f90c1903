//! The session's life: how long its leases count, and what is told when they, or it, are over.

use std::sync::atomic::Ordering;
use std::time::Duration;

use granary_core::{Error, Kind};
use tokio::task::JoinHandle;

use super::calling::fail;
use super::{Core, lock};
use crate::call::Call;
use crate::lease::Lost;
use crate::remote::calls;

/// Clocks of two machines do not run quite alike: our lease time ends a hundredth earlier.
const LEASE_MARGIN: u32 = 100;
/// How long a service that was started anew is not called because something kept from before is not dropped.
const DROP_WAIT: Duration = Duration::from_secs(1);

fn ns(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

impl Core {
    pub fn is_alive(&self) -> bool {
        ns(self.clock.monotonic()) < self.lease_until.load(Ordering::Acquire)
    }

    pub fn lease_left(&self) -> Duration {
        let until = Duration::from_nanos(self.lease_until.load(Ordering::Acquire));
        until.saturating_sub(self.clock.monotonic())
    }

    pub(super) fn renew(&self, sent: Duration) {
        self.expire();
        let now = self.clock.monotonic();
        let mut life = lock(&self.life);
        let until = sent + life.lease_time - life.lease_time / LEASE_MARGIN;
        if until > now {
            life.alive = true;
            self.lease_until.fetch_max(ns(until), Ordering::AcqRel);
        }
    }

    /// Notices that the lease time ended: leases that came back to life would be others.
    pub fn expire(&self) {
        if !self.is_alive() && std::mem::take(&mut lock(&self.life).alive) {
            self.tell_lost(Lost::Unheard);
        }
    }

    /// Returns when nothing is kept any more, or after [`DROP_WAIT`]: what is dropped may wait for who waits for the service.
    pub(super) async fn lose_all(&self) {
        lock(&self.life).alive = false;
        self.lease_until.store(0, Ordering::Release);
        let dropping = futures::future::join_all(self.tell_lost(Lost::Unheard));
        if tokio::time::timeout(DROP_WAIT, dropping).await.is_err() {
            tracing::warn!(
                "what was kept from before the metadata service's start is not dropped yet; it goes on"
            );
        }
    }

    fn tell_lost(&self, why: Lost) -> Vec<JoinHandle<()>> {
        self.live_spaces().iter().filter_map(|space| space.lose(why)).collect()
    }

    /// The service ended the session: nothing of it counts any more.
    pub fn fenced(&self, why: String) {
        let Some(session) = lock(&self.life).session.take() else { return };
        if self.is_leaving() {
            return;
        }
        lock(&self.life).alive = false;
        self.lease_until.store(0, Ordering::Release);
        tracing::warn!(
            "node {} ({}): the metadata service ended session {session}: {why}; locks and open files of it are gone, \
             what was not committed is refused",
            self.name,
            self.node
        );
        *lock(&self.fence) = Some((why, self.clock.monotonic()));
        lock(&self.takeover).lose();
        self.tell_lost(Lost::Fenced);
        let lost = {
            let mut calls = lock(&self.calls);
            calls.forget_releases();
            // What only asks is asked again in the next session. Of what alters, nobody knows whether it was done.
            calls.give_up(|p| match &p.call {
                Call::Commit(_) | Call::Close { .. } | Call::Forget { .. } | Call::Lock { .. } => true,
                call => p.was_sent() && calls::alters(call),
            })
        };
        for pending in lost {
            fail(pending, self.fenced_error("a call"));
        }
    }

    pub fn fenced_error(&self, what: &str) -> Error {
        let (why, ago) = match &*lock(&self.fence) {
            Some((why, at)) => (why.clone(), self.clock.monotonic().saturating_sub(*at)),
            None => ("its session is over".into(), Duration::ZERO),
        };
        let (node, name, url) = (self.node, &self.name, lock(&self.link).url.clone());
        Error::new(
            Kind::Fenced,
            format!(
                "{what} on node {name} ({node}): the metadata service at {url} ended the node's session {:.0} s ago ({why}); \
                 what was written and not yet committed is refused, locks are gone; close the file and open it again",
                ago.as_secs_f64()
            ),
        )
    }

    pub fn fence(&self) -> Option<(String, Duration)> {
        let fence = lock(&self.fence).clone();
        fence.map(|(why, at)| (why, self.clock.monotonic().saturating_sub(at)))
    }
}
