//! Namespaces are opened, by whoever asks first, and closed again where nothing of them needs this node.

use granary_cache::{Tree, TreeParts};
use granary_core::{Ino, Kind, NamespaceId, NamespaceName};

use super::{Handed, Keeper, Unopened};
use crate::exit::{Failure, Outcome};
use crate::node::packed::Opened;
use crate::node::source::Reached;
use crate::node::table::Served;
use crate::node::{blocking, packed, unopened};
use crate::recovery;
use crate::removal::stage_dir;
use crate::token_file::Secret;

impl Keeper {
    /// Opens what has a stage directory; what cannot be opened.
    pub(super) async fn recover(&self) -> Outcome<Vec<Unopened>> {
        let cache = &self.parts.settings.cache;
        let mut unopened = Vec::new();
        for id in recovery::staged(cache)? {
            if let Err(failure) = self.reopen(id).await {
                let (at, why) = (cache.clone(), failure.clone());
                self.table.note_unopened(id, blocking(move || Ok(unopened::look(&at, id, &why))).await?);
                unopened.push((stage_dir(cache, id).display().to_string(), failure));
            }
        }
        Ok(unopened)
    }

    /// As the node itself reaches it.
    pub(super) async fn reopen(&self, id: NamespaceId) -> Outcome<Served> {
        if let Some(served) = self.table.get(id) {
            return Ok(served);
        }
        self.open(self.parts.source.by_id(id).await?).await
    }

    /// The namespace, opened if it is not open.
    pub(super) async fn open(&self, reached: Reached) -> Outcome<Served> {
        self.open_kept(reached, &[], None).await
    }

    /// The same, where programs have files open since before this process, or the packed data set that it shows is open.
    pub(super) async fn open_kept(
        &self,
        reached: Reached,
        open: &[(Ino, Option<bool>)],
        ready: Option<Opened>,
    ) -> Outcome<Served> {
        let Reached { info, meta, link, .. } = reached;
        let (id, parts) = (info.id, &self.parts);
        if let Some(served) = self.table.get(id) {
            return Ok(served);
        }
        // Before its first read.
        parts.reads.set_share(id, parts.settings.cache_shares.of(&info.name));
        let opened = match (&info.packed, ready) {
            (Some(source), None) => Some(packed::open(parts, &info, source, &self.table.openings).await?),
            (Some(_), ready) => ready,
            (None, _) => None,
        };
        if let Some(opened) = &opened {
            parts.store.add(id, opened.store.clone());
        }
        let meta = opened.as_ref().map_or(meta, |opened| opened.meta.clone());
        let (stage_dir, limits) = match &opened {
            Some(_) => packed::tree_of(&parts.settings, id),
            None => (stage_dir(&parts.settings.cache, id), parts.settings.limits.clone()),
        };
        let tree_parts = TreeParts {
            stage_dir,
            node: parts.id,
            limits,
            meta: meta.clone(),
            store: parts.store.clone(),
            reads: parts.reads.clone(),
            clock: parts.clock.clone(),
            random: parts.random(),
            memory: parts.memory.clone(),
            runtime: tokio::runtime::Handle::current(),
        };
        let tree = Tree::open_kept(tree_parts, &parts.watch, open).await?;
        if let Some(data) = parts.data.as_ref().filter(|_| opened.is_none()) {
            data.connect(id, &tree, &meta);
        }
        let metrics = granary_fuse::Metrics::new(info.name.as_str());
        let packed = opened.map(|opened| opened.shown);
        let (name, mounted, points) = (info.name, None, Vec::new());
        let served = Served { name, meta, link, tree, mounted, packed, metrics, points };
        self.table.lock().insert(id, served.clone());
        self.table.note_unopened(id, None);
        Ok(served)
    }

    pub(super) async fn hand(&self, name: NamespaceName, token: Secret) -> Outcome<Handed> {
        let reached = self.parts.source.find(Some(&token), &name).await?;
        let (id, left_ms) = (reached.info.id, reached.link.as_ref().map_or(0, |link| link.left_ms()));
        let staged = recovery::staged(&self.parts.settings.cache)?.contains(&id);
        if self.table.get(id).is_none() && !staged {
            return Err(Failure::of_kind(
                Kind::NotFound,
                format!(
                    "nothing of {name} is on this node; a mount takes a token of its own (granary mount --token-file)"
                ),
            ));
        }
        let served = self.open(reached).await?;
        Ok(Handed { left_ms, dirty_bytes: served.tree.status().dirty_bytes })
    }

    /// Closes what is not mounted, and in the store, where a session is for one namespace alone: its tokens end, and who has none to show
    /// would only be refused again and again.
    pub(super) async fn let_go(&self) {
        for served in self.table.all() {
            let Some(link) = served.link.as_ref().filter(|link| link.is_of_namespace()) else { continue };
            // Without the service, closing would keep everybody else waiting.
            if served.session().is_some() || served.tree.status().dirty_files > 0 || !link.is_answered() {
                continue;
            }
            let id = served.meta.namespace();
            if let Err(e) = served.tree.shutdown().await {
                tracing::warn!("cannot close {} cleanly: {e}", served.name);
            }
            self.table.lock().remove(&id);
            self.parts.store.remove(id);
            link.close().await;
            tracing::info!(namespace = %served.name, "let go");
        }
    }
}
