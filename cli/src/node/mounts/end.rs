//! Mounts, namespaces, and all of them at a stop, end.

use std::path::PathBuf;
use std::time::Duration;

use granary_cache::CacheShare;
use granary_core::{Failpoint, Kind, NamespaceId, NamespaceName};
use granary_fuse::Stop;
use tokio_util::sync::CancellationToken;

use super::{BUSY_INTERVAL, Keeper, SESSION_END_WAIT};
use crate::exit::{Failure, Outcome};
use crate::node::source::Reached;
use crate::node::{blocking, shutdown};
use crate::removal;
use crate::token_file::Secret;

impl Keeper {
    pub(super) async fn unmount(&self, dir: PathBuf, lazy: bool) -> Outcome<()> {
        let served = self.table.all().into_iter().find(|served| served.dirs().contains(&dir));
        let Some(served) = served else {
            return Err(Failure::of_kind(
                Kind::NotFound,
                format!(
                    "nothing of this node is mounted at {}; `granary status` shows what is mounted where",
                    dir.display()
                ),
            ));
        };
        let target = dir.clone();
        blocking(move || Ok(granary_fuse::unmount(&target, lazy)?)).await?;
        tracing::info!(namespace = %served.name, dir = %dir.display(), lazy, "unmounted");
        self.release_base(served.meta.namespace()).await;
        let Some(session) = served.mounted.filter(|_| !lazy) else { return Ok(()) };
        if !session.mountpoints()?.is_empty() {
            return Ok(());
        }
        // The last one: what programs did is handed over before we answer.
        match tokio::time::timeout(SESSION_END_WAIT, session.wait()).await {
            Ok(outcome) => Ok(outcome?),
            Err(_) => Err(Failure::of_kind(
                Kind::Busy,
                format!(
                    "{} is unmounted here, and still used in another mount namespace (a container?); end that, to be able to \
                     mount it again",
                    dir.display()
                ),
            )),
        }
    }

    pub(super) async fn remove(
        &self,
        name: NamespaceName,
        force: bool,
        token: Option<&Secret>,
    ) -> Outcome<NamespaceId> {
        // Kept to the end: the session that found it is the one that removes it.
        let Reached { info, link: _session, .. } = self.parts.source.find(token, &name).await?;
        let id = info.id;
        let open = self.table.get(id);
        if let Some(session) = open.as_ref().and_then(|served| served.session()) {
            let dir = session.path().display();
            return Err(Failure::of_kind(
                Kind::Busy,
                format!("namespace {name} is mounted at {dir}; unmount it first"),
            ));
        }
        // What shows a packed data set has nothing for the store.
        let was_staging = open.as_ref().is_some_and(|served| served.packed.is_none());
        if let Some(served) = open {
            served.tree.shutdown().await?;
            self.table.lock().remove(&id);
            self.parts.store.remove(id);
            if let Some(link) = served.link.as_ref().filter(|link| link.is_of_namespace()) {
                link.close().await; // else the service takes it for one that uses the namespace
            }
        }
        if let Err(failure) = self.parts.source.remove(token, &name, force).await {
            if was_staging {
                self.reopen(id).await?; // its bytes go on to the store
            }
            return Err(failure);
        }
        let cache = self.parts.settings.cache.clone();
        blocking(move || {
            removal::remove_stage(&cache, id);
            Ok(())
        })
        .await?;
        self.parts.reads.set_share(id, CacheShare::default()); // what is cached of it has no minimum any more
        Ok(id)
    }

    pub(super) async fn close(&self, hurry: &CancellationToken) -> Outcome<()> {
        let wait = Duration::from_millis(self.parts.settings.stop_wait_ms);
        let deadline = self.parts.clock.monotonic() + wait; // one for all: each is tried at least once
        let all = self.table.all();
        for served in &all {
            let Some(session) = served.session() else { continue };
            let mut told = false;
            while let Err(e) = session.stop(Stop::Clean).await {
                if !told {
                    tracing::warn!("{e}");
                    told = true;
                }
                if hurry.is_cancelled() || self.parts.clock.monotonic() >= deadline {
                    tracing::warn!(
                        "detaching {} although it is in use; its programs get errors from now on",
                        served.name
                    );
                    if let Err(e) = session.stop(Stop::Abort).await {
                        tracing::warn!("{e}");
                    }
                    break;
                }
                tokio::select! {
                    () = tokio::time::sleep(BUSY_INTERVAL) => {}
                    () = hurry.cancelled() => {}
                }
            }
        }
        let drain = Duration::from_millis(self.parts.settings.stop_drain_ms);
        shutdown::store_rest(&all, drain, hurry).await;
        if let Some(keeping) = self.parts.keeping.clone() {
            blocking(move || {
                keeping.bye();
                Ok(())
            })
            .await?;
        }
        Failpoint::StopBeforeFlush.reach();
        let mut outcome = Ok(());
        for served in all {
            if let Err(e) = served.tree.shutdown().await {
                let failure = Failure::from(e).context(format_args!("cannot close {} cleanly", served.name));
                tracing::error!("{failure}");
                outcome = outcome.and(Err(failure));
            }
        }
        self.table.lock().clear();
        Failpoint::StopAfterFlush.reach();
        outcome
    }
}
