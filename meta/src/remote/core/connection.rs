//! A connection's beginning, what is heard on it, and its end.

use granary_core::{Error, Kind, NamespaceId, Result};

use super::{Core, Link, lock};
use crate::call::{Call, Greeting, Had, Held, Hello};
use crate::remote::calls::{Pending, Waiter};
use crate::wire::{pb, session};

impl Core {
    /// The first words of a connection, and its number.
    pub fn hello(&self) -> (u64, Hello, pb::ClientFrame) {
        let session = lock(&self.life).session;
        let held: Vec<Held> = self.live_spaces().iter().map(|space| space.held()).collect();
        let (name, data_address) = (self.name.clone(), self.data_address.clone());
        let anew = lock(&self.takeover).is_due();
        let hello = Hello { session, node: self.node, name, data_address, held, anew };
        let connection = lock(&self.calls).connect(self.clock.monotonic());
        let frame =
            pb::ClientFrame { number: 1, hello: Some(session::encode_hello(&hello)), ..Default::default() };
        (connection, hello, frame)
    }

    /// The answer to it. From here on calls go out: the first of them tells a service that was started anew that nothing is kept
    /// here from before. `Unavailable`: greet again, the session that another process left is lost.
    pub async fn greeted(&self, hello: &Hello, mut greeting: Greeting) -> Result<()> {
        let (before, restarted) = {
            let life = lock(&self.life);
            let known = life.session.is_some() && !hello.anew;
            (life.session, known && life.incarnation != greeting.incarnation)
        };
        let resumed = before.is_some() && greeting.resumed;
        if hello.anew && resumed {
            self.take_over(greeting.next_call, std::mem::take(&mut greeting.had))?;
        }
        // One that reached no namespace had nothing to lose; a service that was started anew does not know it.
        let had_something = hello.anew || !hello.held.is_empty();
        if before.is_some() && !resumed && had_something {
            self.fenced("the session was ended while its node was not heard of".into());
        } else if restarted {
            // The service knows of no lease but those that it was told of, and of them only that state is held back.
            self.lose_all().await;
        }
        let last = {
            let mut life = lock(&self.life);
            life.session = Some(greeting.session);
            life.incarnation = greeting.incarnation;
            life.lease_time = greeting.lease_time;
            life.volume = Some(greeting.volume);
            life.ticket_key = greeting.ticket_key;
            life.last.replace(greeting.session)
        };
        let spaces = self.live_spaces();
        let mut first = Vec::new();
        if !resumed || restarted {
            for space in &spaces {
                if let Some(held) = hello.held.iter().find(|held| held.ns == space.id() && resumed) {
                    space.reclaimed(held);
                }
                let call = Call::Namespace { name: space.info().name.clone() };
                let now = self.clock.monotonic();
                first.push(Pending::new(None, NamespaceId(0), call, Waiter::None, now, None));
            }
        }
        let waker = lock(&self.calls).greeted(first);
        if let Some(waker) = waker {
            waker.wake();
        }
        if last != Some(greeting.session)
            && let Some(watch) = &self.on_session
        {
            watch(last, greeting.session);
        }
        Ok(())
    }

    /// Frames up to this one were heard.
    pub fn heard(&self, frame: u64) {
        let sent = lock(&self.calls).heard(frame);
        if let Some(sent) = sent {
            self.renew(sent);
        }
    }

    pub fn connected(&self, url: &str) {
        let now = self.clock.monotonic();
        *lock(&self.link) = Link { url: url.to_owned(), connected: true, since: now, last_error: None };
    }

    pub fn disconnected(&self, url: &str, why: &Error) {
        let waker = lock(&self.calls).disconnect();
        if let Some(waker) = waker {
            waker.wake();
        }
        let mut link = lock(&self.link);
        if std::mem::take(&mut link.connected) {
            link.since = self.clock.monotonic();
        }
        link.url = url.to_owned();
        link.last_error = Some((why.kind(), why.to_string()));
    }

    /// There is another token to show: what was said of the one before does not count any more.
    pub fn new_token(&self) {
        {
            let mut link = lock(&self.link);
            if !link.connected {
                (link.last_error, link.since) = (None, self.clock.monotonic());
            }
        }
        self.cut.notify_one();
    }

    fn take_over(&self, next_call: u64, had: Vec<Had>) -> Result<()> {
        if next_call == 0 {
            // It would take our calls for those of the other process. A session of our own, next time.
            let why = "the service is too old to go on with it for another process of the node; upgrade the service first";
            self.fenced(why.into());
            return Err(Error::new(Kind::Unavailable, why));
        }
        let left = had.iter().map(|had| had.changed.len()).sum();
        lock(&self.calls).begin_at(next_call, left);
        lock(&self.takeover).begin(had);
        Ok(())
    }
}
