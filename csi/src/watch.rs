//! Looking after what is published, while the driver runs.
//!
//! Every half minute each volume is looked at, 16 at once, each within a bound. What is wrong is told once, when it begins and when
//! it ends, as an event of the pod and in the log; NodeGetVolumeStats tells it as the volume's condition.
//!
//! A mount that nobody serves any more is made again at the same place. Programs' open files stay dead: the kernel has no way to
//! give them another server. Whether the pod sees the new mount the kernel decides as well: a container has a copy of the mount as it was
//! at its start. The new one is mounted *over* the dead one, so that a copy which follows the host's (`mountPropagation: HostToContainer`)
//! gets it too; any other pod has to be started again, and the event says so.
//!
//! Where a volume is staged nobody looks, so a dead mount there is only taken away, also one that was made before this driver started:
//! kubelet cannot make its directory while it lies there (lstat fails), and does not come to ask for the volume. What is published needs
//! nothing of what is staged.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use granary_core::{Clock, Error};
use tokio::task::JoinSet;

use crate::DRIVER_NAME;
use crate::health::{Answer, Probes, Room};
use crate::kube::Kube;
use crate::kube::events::Event;
use crate::published::{Publication, Published};
use crate::turns::Turns;
use crate::volumes::Volumes;

/// How often everything is looked at.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(30);
const LOOKS_AT_ONCE: usize = 16;

/// What looking after volumes needs.
#[derive(Clone)]
pub struct Watch {
    pub volumes: Arc<dyn Volumes>,
    pub turns: Arc<Turns>,
    pub published: Arc<Published>,
    pub probes: Probes,
    /// Where events go; `None`: only to the log.
    pub events: Option<Arc<Kube>>,
    /// Where the labels of what the node holds go.
    pub labels: Option<Arc<Kube>>,
    pub node_id: String,
    pub clock: Arc<dyn Clock>,
}

impl Watch {
    /// Until it is dropped.
    pub async fn run(self) {
        let mut tick = tokio::time::interval(LOOK_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.look_at_all().await;
            // Behind what pods have: of mounts that hang each one is waited for once.
            if let Err(e) = self.clear_staged().await {
                tracing::warn!("dead mounts of staged volumes are not taken away: {e}");
            }
            if let Some(kube) = &self.labels
                && let Err(e) = self.label(kube).await
            {
                tracing::warn!("the node's labels are not kept: {e}");
            }
        }
    }

    /// Takes dead mounts away from where kubelet has volumes staged.
    pub async fn clear_staged(&self) -> granary_core::Result<()> {
        for dir in self.volumes.shown().await?.into_iter().filter(|dir| is_staging(dir)) {
            let _turn = self.turns.take(&dir.to_string_lossy()).await;
            if !matches!(self.probes.ask(&dir).await?, Answer::Dead) {
                continue;
            }
            match self.volumes.unmount(&dir).await {
                Ok(()) => tracing::warn!(dir = %dir.display(), "took away a staged mount that nobody serves"),
                Err(e) => tracing::warn!(dir = %dir.display(), "a dead mount is not taken away: {e}"),
            }
        }
        Ok(())
    }

    /// Once at everything.
    pub async fn look_at_all(&self) {
        let (mut looks, mut left) = (JoinSet::new(), self.published.all().into_iter());
        loop {
            while looks.len() < LOOKS_AT_ONCE
                && let Some(publication) = left.next()
            {
                let own = self.clone();
                looks.spawn(async move { own.look(publication).await });
            }
            if looks.join_next().await.is_none() {
                return;
            }
        }
    }

    async fn look(&self, publication: Publication) {
        let dir = &publication.wanted.dir;
        let found = match condition(&*self.volumes, &self.probes, dir).await {
            Ok(found) => found,
            Err(e) => return tracing::warn!(dir = %dir.display(), "a volume cannot be looked at: {e}"),
        };
        if found.is_dead() {
            return self.mend(&publication).await;
        }
        self.note(&publication, found.trouble()).await;
    }

    /// Tells a change.
    async fn note(&self, publication: &Publication, trouble: Option<String>) {
        let (before, dir) = (&publication.trouble, &publication.wanted.dir);
        let event = match (before, &trouble) {
            (None, Some(why)) => Event { reason: "VolumeUnhealthy", warning: true, note: why.clone() },
            (Some(_), None) => Event {
                reason: "VolumeHealthy",
                warning: false,
                note: format!("{} works again", dir.display()),
            },
            _ => return self.published.change(dir, |it| it.trouble = trouble),
        };
        self.published.change(dir, |it| it.trouble = trouble);
        self.tell(publication, event).await;
    }

    async fn mend(&self, publication: &Publication) {
        let dir = &publication.wanted.dir;
        let _turn = self.turns.take(&dir.to_string_lossy()).await;
        // It may have been unpublished, or published again, while we looked and waited.
        if self.published.get(dir).is_none() {
            return;
        }
        match condition(&*self.volumes, &self.probes, dir).await {
            Ok(found) if found.is_dead() => {}
            _ => return,
        }
        // What the pod may not have any more is not given to it again.
        if let Some(why) = self.published.get(dir).and_then(|it| it.withdrawn) {
            let note = format!(
                "the mount of {} is dead, and is not made again: {why}",
                publication.wanted.namespace
            );
            return self.note(publication, Some(note)).await;
        }
        let event = match self.volumes.mount(publication.wanted.clone(), publication.pod.as_ref()).await {
            Ok(()) => {
                self.published.change(dir, |it| it.trouble = None);
                Event {
                    reason: "VolumeMounted",
                    warning: true,
                    note: format!(
                        "the mount of {} had lost its node process, and was made again; files that were open then stay broken, and \
                         containers without mountPropagation: HostToContainer do not see it: delete the pod if it does not go on",
                        publication.wanted.namespace
                    ),
                }
            }
            Err(e) => {
                let note = format!(
                    "the mount of {} is dead, and cannot be made again now: {e}",
                    publication.wanted.namespace
                );
                return self.note(publication, Some(note)).await;
            }
        };
        self.tell(publication, event).await;
    }

    /// In the log, and at the pod.
    pub async fn tell(&self, publication: &Publication, event: Event) {
        let dir = publication.wanted.dir.display();
        match event.warning {
            true => tracing::warn!(%dir, reason = event.reason, "{}", event.note),
            false => tracing::info!(%dir, reason = event.reason, "{}", event.note),
        }
        let (Some(kube), Some(pod)) = (&self.events, &publication.pod) else { return };
        if let Err(e) = kube.tell(pod, &event, &self.node_id, self.clock.now()).await {
            tracing::warn!("an event of the pod {pod} is not kept: {e}");
        }
    }

    async fn label(&self, kube: &Kube) -> Result<(), Error> {
        let held = self.volumes.held().await?;
        if kube.label(&self.node_id, &held).await? {
            tracing::info!("the node's labels were changed");
        }
        Ok(())
    }
}

/// Whether it is where kubelet has this driver stage a volume: `…/kubernetes.io/csi/csi.granary.dev/VOLUME/globalmount`.
fn is_staging(dir: &Path) -> bool {
    let mut parts = dir.iter().rev();
    parts.next() == Some(OsStr::new("globalmount"))
        && parts.nth(1) == Some(OsStr::new(DRIVER_NAME))
        && parts.next() == Some(OsStr::new("csi"))
        && parts.next() == Some(OsStr::new("kubernetes.io"))
}

/// How a volume is.
#[derive(Clone, Debug)]
pub enum Condition {
    /// Its room, and what is wrong behind it: with the way to the store, or the node's disk.
    Serves(Room, Option<String>),
    /// Nothing of ours is mounted there, or nobody serves it.
    Dead(String),
    Sick(String),
}

impl Condition {
    pub fn is_dead(&self) -> bool {
        matches!(self, Condition::Dead(_))
    }

    pub fn trouble(self) -> Option<String> {
        match self {
            Condition::Serves(_, trouble) => trouble,
            Condition::Dead(why) | Condition::Sick(why) => Some(why),
        }
    }
}

/// Looks at what is mounted at `dir`, within a bound, also when the node process hangs.
pub async fn condition(
    volumes: &dyn Volumes,
    probes: &Probes,
    dir: &Path,
) -> granary_core::Result<Condition> {
    if !volumes.shows(dir).await? {
        return Ok(Condition::Dead(format!("nothing is mounted at {} any more", dir.display())));
    }
    Ok(match probes.ask(dir).await? {
        Answer::Dead => Condition::Dead(format!("the mount at {} has lost its node process", dir.display())),
        Answer::Failed(why) => Condition::Sick(format!("the mount at {} fails: {why}", dir.display())),
        Answer::Silent(wait) => Condition::Sick(format!(
            "the mount at {} has not answered for {} s; see the node process on this machine",
            dir.display(),
            wait.as_secs()
        )),
        Answer::Room(room) => {
            let trouble = match volumes.mounted(dir).await {
                Ok(Some(there)) => there.trouble,
                // It answers: what the node process says of it is only more.
                Ok(None) => None,
                Err(e) => Some(format!("the node process does not say how it is: {e}")),
            };
            Condition::Serves(room, trouble)
        }
    })
}

#[cfg(test)]
mod tests;
