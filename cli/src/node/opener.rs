//! Packed data sets are opened beside the one task that mounts: a first opening may take minutes, and with a store that does not
//! answer as long as requests are tried again, and no other mount must wait for that.
//!
//! ```text
//! mount --order--> keeper: not open, or perhaps not the newest version --Wanted--> Opener --Ready--> the same order again
//! ```
//!
//! A namespace is opened once however many mounts wait for it, and [`OPENINGS_MAX`] are at once: others wait for their turn. An
//! opening goes on when nobody waits for it any more, since what it fetched and put in order makes the next one short; it ends with
//! the node.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use granary_core::{Kind, NamespaceId};
use granary_meta::{NamespaceInfo, PackedSource};
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

use super::Parts;
use super::packed::{self, Opened, Shown};
use super::table::Table;
use crate::exit::{Failure, Outcome};

/// Data sets that are opened at once. Each asks its store for eight indexes at a time, and then has one processor.
const OPENINGS_MAX: usize = 4;

/// What a mount is waiting for.
#[derive(Clone)]
pub(super) struct Wanted {
    pub(super) info: NamespaceInfo,
    pub(super) source: PackedSource,
    /// What is open of it, and serves if it is what a mount now would show.
    pub(super) shown: Option<Shown>,
}

/// What a mount now would show.
#[derive(Clone)]
pub(super) struct Ready {
    id: NamespaceId,
    source: PackedSource,
    pub(super) what: What,
}

#[derive(Clone)]
pub(super) enum What {
    /// What was open.
    Current(Shown),
    Opened(Opened),
}

impl Ready {
    /// Whether it is still an answer: the namespace may be another's by now, or show another data set.
    pub(super) fn is_of(&self, id: NamespaceId, source: &PackedSource) -> bool {
        self.id == id && self.source == *source
    }
}

type Waited = Shared<BoxFuture<'static, Outcome<Ready>>>;

pub(super) struct Opener {
    parts: Arc<Parts>,
    table: Arc<Table>,
    places: Semaphore,
    /// Guards what is under way, for a look or a change.
    under_way: Mutex<HashMap<NamespaceId, Waited>>,
    stop: CancellationToken,
}

impl Opener {
    pub(super) fn new(parts: Arc<Parts>, table: Arc<Table>) -> Arc<Opener> {
        Arc::new(Opener {
            parts,
            table,
            places: Semaphore::new(OPENINGS_MAX),
            under_way: Mutex::default(),
            stop: CancellationToken::new(),
        })
    }

    /// Joins the opening of this namespace that is under way, or begins one.
    pub(super) async fn open(self: &Arc<Self>, wanted: Wanted) -> Outcome<Ready> {
        let waited = {
            let mut under_way = self.lock();
            let waited = under_way.entry(wanted.info.id).or_insert_with(|| self.begin(wanted));
            waited.clone()
        };
        waited.await
    }

    /// Those that are under way end, and no other begins.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    fn begin(self: &Arc<Self>, wanted: Wanted) -> Waited {
        let (tell, told) = oneshot::channel();
        let listed = Listed { of: self.clone(), id: wanted.info.id };
        tokio::spawn(async move {
            let outcome = tokio::select! {
                outcome = listed.of.work(&wanted) => outcome,
                () = listed.of.stop.cancelled() => Err(stopping()),
            };
            drop(listed);
            let _nobody_waits = tell.send(outcome);
        });
        told.map(|told| told.unwrap_or_else(|_| Err(stopping()))).boxed().shared()
    }

    async fn work(&self, wanted: &Wanted) -> Outcome<Ready> {
        let _place = self.places.acquire().await.map_err(|_| stopping())?; // never closed
        let Wanted { info, source, shown } = wanted;
        let current = match shown {
            Some(shown) if packed::is_current(shown, source, &self.parts).await? => Some(shown.clone()),
            _ => None,
        };
        let what = match current {
            Some(shown) => What::Current(shown),
            None => What::Opened(packed::open(&self.parts, info, source, &self.table.openings).await?),
        };
        Ok(Ready { id: info.id, source: source.clone(), what })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NamespaceId, Waited>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stopping() -> Failure {
    Failure::of_kind(Kind::Unavailable, "the node is stopping; start it again with `granary node`")
}

/// Under way until this is dropped, however it ends.
struct Listed {
    of: Arc<Opener>,
    id: NamespaceId,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.of.lock().remove(&self.id);
    }
}
