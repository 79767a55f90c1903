//! After a start: sessions from before come back, everything else waits.
//!
//! Who comes back keeps, under leases that this service knows nothing of, what it has not dropped yet. It calls nothing before
//! it has, so that its first call tells; until then what others change would be changed under its eyes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use granary_core::{Result, SessionId};

use super::space::Job;
use super::{Service, lock};
use crate::Volume;
use crate::engine::Write;
use crate::record::session::{self as records, SessionRecord};

#[derive(Debug)]
pub(super) struct Grace {
    /// By the clock.
    pub until: Duration,
    /// Sessions from before that are not back.
    pub absent: HashMap<SessionId, SessionRecord>,
    /// Sessions that are back and have not called yet.
    pub keeping: HashSet<SessionId>,
    /// Calls of those that are. Each is under way in its session, so there are not too many.
    pub waiting: Vec<Job>,
}

impl Grace {
    pub fn begin(volume: &Volume, until: Duration) -> Result<Grace> {
        let mut absent = HashMap::new();
        volume.scan_records(records::SESSION_PREFIX, &mut |key, value| {
            absent.insert(records::decode_session_key(key)?, SessionRecord::decode(value)?);
            Ok(true)
        })?;
        Ok(Grace { until, absent, keeping: HashSet::new(), waiting: Vec::new() })
    }
}

/// What the volume remembers of a session, to be deleted with it.
pub(super) fn forget(session: SessionId) -> [Write; 2] {
    [Write::Delete(records::session_key(session)), Write::DeletePrefix(records::answered_prefix(session))]
}

impl Service {
    /// Whether a session from before the start may still come back.
    pub(super) fn may_come_back(&self, session: SessionId) -> bool {
        lock(&self.grace).as_ref().is_some_and(|grace| grace.absent.contains_key(&session))
    }

    /// A session calls, or is no more: it keeps nothing of the time before the start.
    pub(super) fn keeps_nothing(&self, session: SessionId) {
        if let Some(grace) = lock(&self.grace).as_mut() {
            grace.keeping.remove(&session);
        }
    }

    /// Ends the grace time when it is over or nobody is missing, and lets what waited go on.
    pub(super) fn end_grace_if_due(self: &Arc<Self>) -> Result<()> {
        if !self.in_grace.load(Ordering::SeqCst) {
            return Ok(());
        }
        let mut guard = lock(&self.grace);
        let Some(grace) = guard.as_ref() else { return Ok(()) };
        let all_are_back = grace.absent.is_empty() && grace.keeping.is_empty();
        if self.clock.monotonic() < grace.until && !all_are_back {
            return Ok(());
        }
        // Ids are taken out first, so that namespaces that are loaded from now on forget them.
        let absent: HashMap<SessionId, SessionRecord> =
            guard.as_mut().map(|grace| std::mem::take(&mut grace.absent)).unwrap_or_default();
        drop(guard);
        self.forget_absent(&absent)?;
        self.volume.free_orphans()?;
        let mut guard = lock(&self.grace);
        let waiting = guard.take().map(|grace| grace.waiting).unwrap_or_default();
        self.in_grace.store(false, Ordering::SeqCst);
        drop(guard);
        for job in waiting {
            self.dispatch(job);
        }
        Ok(())
    }

    /// These sessions did not come back: nothing of them is kept.
    pub(super) fn forget_absent(&self, absent: &HashMap<SessionId, SessionRecord>) -> Result<()> {
        if absent.is_empty() {
            return Ok(());
        }
        let mut batch = Vec::new();
        for (id, record) in absent {
            tracing::warn!(
                "session {id} of node {} ({}) did not come back after the restart of the metadata service; what it held is free",
                record.name,
                record.user
            );
            batch.extend(forget(*id));
        }
        self.counts.fenced.fetch_add(absent.len() as u64, Ordering::Relaxed);
        self.volume.put_records(batch, false)?;
        let spaces: Vec<_> = lock(&self.spaces).values().cloned().collect();
        for space in spaces {
            let mut state = space.lock();
            for id in absent.keys() {
                if let Some(replies) = state.replies.remove(id) {
                    space.local.forget_replies(replies.places().map(|place| (*id, place)));
                }
            }
        }
        // Nobody waits for it.
        self.volume.write_through(Box::new(|_| {}));
        Ok(())
    }
}
