//! `granary warmup`: jobs that go through trees and bring their files into the node's cache, look at them, or drop them.
//!
//! A job walks the tree by metadata, in the node, with the rights of who asked: it goes where they may, and counts what it left
//! out. Files go to the cache in batches, several at once; what is already there is not fetched again, so a job that was stopped
//! is simply asked for again. Beside it a second walk counts what there is in all, so that progress can be told.
//!
//! | module | noun |
//! |---|---|
//! | `pins` | the trees that stay on the node |
//! | `walk` | the regular files below a directory, or on a list, as somebody may see them |
//! | `job` | one warmup and how far it is |

pub mod job;
pub mod pins;
pub mod walk;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use granary_core::Kind;
use tokio_util::sync::CancellationToken;

use super::peer::Peer;
use crate::exit::{Failure, Outcome};
use crate::wire::WarmStatus;
use job::Job;

/// Jobs under way at once, in all and of one user who is not an administrator.
const JOBS_MAX: usize = 64;
const JOBS_OF_USER_MAX: usize = 8;
/// Jobs that ended and are still told of.
const ENDED_MAX: usize = 16;

/// All warmups of the node.
#[derive(Debug)]
pub struct Warmups {
    next: AtomicU64,
    /// Guards the table for a look-up or a change.
    jobs: Mutex<BTreeMap<u64, Arc<Job>>>,
    stop: CancellationToken,
}

impl Warmups {
    /// They end when the node stops.
    pub fn new(stop: CancellationToken) -> Warmups {
        Warmups { next: AtomicU64::new(1), jobs: Mutex::default(), stop }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Job>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a job in, unless there are too many.
    pub fn admit(&self, make: impl FnOnce(u64, CancellationToken) -> Job, peer: &Peer) -> Outcome<Arc<Job>> {
        let mut jobs = self.lock();
        let running = |job: &&Arc<Job>| !job.has_ended();
        let mine = jobs.values().filter(running).filter(|job| job.uid == peer.uid).count();
        let all = jobs.values().filter(running).count();
        if all >= JOBS_MAX || !peer.administrator && mine >= JOBS_OF_USER_MAX {
            return Err(Failure::of_kind(
                Kind::Busy,
                "too many warmups are under way; wait for one, or end one: `granary warmup --list`",
            ));
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let job = Arc::new(make(id, self.stop.child_token()));
        jobs.insert(id, job.clone());
        let ended: Vec<u64> = jobs.iter().filter(|(_, job)| job.has_ended()).map(|(id, _)| *id).collect();
        for id in &ended[..ended.len().saturating_sub(ENDED_MAX)] {
            jobs.remove(id);
        }
        Ok(job)
    }

    /// Those that the peer may see, the oldest first.
    pub fn list(&self, peer: &Peer) -> Vec<WarmStatus> {
        let visible = |job: &&Arc<Job>| peer.administrator || job.uid == peer.uid;
        self.lock().values().filter(visible).map(|job| job.status()).collect()
    }

    /// Ends one.
    pub fn cancel(&self, id: u64, peer: &Peer) -> Outcome<WarmStatus> {
        let job = self.lock().get(&id).cloned();
        let job = job.filter(|job| peer.administrator || job.uid == peer.uid).ok_or_else(|| {
            Failure::of_kind(
                Kind::NotFound,
                format!("there is no warmup {id}; `granary warmup --list` shows those there are"),
            )
        })?;
        job.cancel.cancel();
        Ok(job.status())
    }
}
