//! Locks, and who holds them without being heard of.

use granary_core::{Error, Ino, Kind};

use super::{Flow, done, failed};
use crate::lease::{Lock, LockRequest};
use crate::service::Service;
use crate::service::locks::{Asked, Owner, normal};
use crate::service::run::interrupted;
use crate::service::space::{Job, Space, State};

impl Service {
    pub(super) fn lock(
        &self,
        space: &Space,
        state: &mut State,
        job: &Job,
        ino: Ino,
        request: LockRequest,
    ) -> Flow {
        let (member, id) = (job.session.member, job.request.id);
        let Some(lock) = normal(request.lock) else { return failed(empty_range()) };
        if !request.unlock {
            if let Err(e) = space.local.attr_now(ino) {
                return failed(e);
            }
            if state.locks.count(member) >= self.options.locks_max {
                return failed(Error::new(Kind::Busy, "this node holds too many locks; release some"));
            }
            if request.wait && job.session.queue.is_cancelled(job.epoch, id) {
                return failed(interrupted());
            }
        }
        let mut granted = Vec::new();
        let owner = (member, request.owner);
        if !request.unlock
            && let Some(silent) = self.silent_holders(state, ino, owner, &lock)
        {
            return silent;
        }
        let asked = state.locks.request(ino, owner, &lock, request.unlock, request.wait, &mut granted);
        self.locks_granted(space, state, granted);
        match asked {
            Asked::Done => done(),
            Asked::Waits(ticket) => Flow::Waits(ticket),
            Asked::WouldBlock => {
                failed(Error::new(Kind::WouldBlock, "somebody else has a lock that is in the way"))
            }
            Asked::Deadlock => failed(Error::new(Kind::Deadlock, "who has the lock waits for this one")),
        }
    }

    /// Whether a lock is held by sessions that were not heard of for the lease time.
    pub(super) fn silent_holders(&self, state: &State, ino: Ino, owner: Owner, lock: &Lock) -> Option<Flow> {
        let now = self.clock.monotonic();
        let holders = state.locks.in_the_way(ino, owner, lock).into_iter();
        let sessions = holders.filter_map(|member| self.sessions.get(member));
        let silent: Vec<_> =
            sessions.filter(|session| session.silent(now) >= self.options.lease_time).collect();
        (!silent.is_empty()).then_some(Flow::Silent(silent))
    }
}

pub(super) fn empty_range() -> Error {
    Error::new(Kind::Invalid, "a lock's range ends before it begins")
}
