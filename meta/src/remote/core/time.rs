//! What time brings, and the client's end.

use std::sync::atomic::Ordering;
use std::time::Duration;

use granary_core::{Error, Kind};

use super::calling::fail;
use super::{Core, Link, closed, lock};

impl Core {
    /// What time brings: the end of leases, heartbeats, the end of connections and of calls that nobody answers.
    pub fn tick(&self) {
        self.expire();
        let now = self.clock.monotonic();
        let lease_time = lock(&self.life).lease_time;
        if !lease_time.is_zero() {
            self.tick_connection(now, lease_time);
        }
        self.give_up(now);
        for space in self.live_spaces() {
            space.tell_closed(&mut space.state());
            // The kernel keeps things under leases that nobody here has told it of yet.
            let settled = lock(&self.takeover).is_settled(space.id());
            if settled {
                space.trim();
            }
        }
    }

    fn tick_connection(&self, now: Duration, lease_time: Duration) {
        let left = self.lease_left();
        let mut calls = lock(&self.calls);
        if !calls.is_greeted() {
            return;
        }
        let unheard = calls.unheard_since().map_or(Duration::ZERO, |at| now.saturating_sub(at));
        if unheard >= lease_time {
            drop(calls);
            // Sent, but not heard for so long: the connection is dead, whatever TCP believes.
            return self.cut.notify_one();
        }
        // An answer may be on its way for what was just sent.
        let due = left <= lease_time - lease_time / 3;
        if due && (calls.unheard_since().is_none() || unheard >= lease_time / 6) {
            calls.beat();
            let waker = calls.waker();
            drop(calls);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// Calls that waited for too long without a connection.
    fn give_up(&self, now: Duration) {
        let link = lock(&self.link).clone();
        if link.connected {
            return;
        }
        let wait_max = Duration::from_millis(self.limits.call_wait_ms_max);
        // What is refused is refused at once from then on, not after another wait for each call.
        let refused_max = Duration::from_millis(self.limits.refused_ms_max);
        let refused = matches!(link.last_error, Some((Kind::Denied, _)))
            && now.saturating_sub(link.since) >= refused_max;
        let lost =
            lock(&self.calls).give_up(|p| refused || now.saturating_sub(p.since.max(link.since)) >= wait_max);
        for pending in lost {
            let waited = now.saturating_sub(pending.since);
            fail(pending, self.unavailable(&link, waited));
        }
        if self.waiting_calls() == 0 {
            self.drained.notify_waiters();
        }
    }

    pub fn unavailable(&self, link: &Link, waited: Duration) -> Error {
        let url = &link.url;
        let why = match &link.last_error {
            // What is wrong with the token, or the certificate, does not pass by itself.
            Some((Kind::Denied, why)) => {
                return Error::new(Kind::Denied, format!("the metadata service at {url}: {why}"));
            }
            Some((_, why)) => why.as_str(),
            None => "no answer",
        };
        Error::new(
            Kind::Unavailable,
            format!(
                "the metadata service at {url} has not answered for {:.0} s ({why}); start it, or mend the network, and try again",
                waited.as_secs_f64()
            ),
        )
    }

    /// Waits until no call is under way.
    pub async fn drained(&self) {
        loop {
            let drained = self.drained.notified();
            if self.waiting_calls() == 0 || self.closed.load(Ordering::Acquire) {
                return;
            }
            drained.await;
        }
    }

    /// Asks for the end of the session, on this connection or the next.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Release);
        self.with_calls(|calls| calls.leave());
    }

    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Acquire)
    }

    /// Ends everything: calls fail from now on.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.room.close();
        self.room_bytes.close();
        self.lease_until.store(0, Ordering::Release);
        let lost = lock(&self.calls).give_up(|_| true);
        lost.into_iter().for_each(|pending| fail(pending, closed()));
        self.stop.send_replace(true);
    }
}
