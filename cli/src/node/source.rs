//! Where the node has metadata from: a volume in its own process, or a metadata service that other nodes use too. The
//! rest of the node does not care which.

use std::sync::Arc;

use granary_core::{Clock, Kind, NamespaceId, NamespaceName, NodeId, SystemClock};
use granary_meta::token::{Rights, inspect};
use granary_meta::{
    LocalNamespace, Metadata, NamespaceChange, NamespaceInfo, NewNamespace, Volume, VolumeInfo,
};
use rand::Rng;

use super::blocking;
use super::clients::{ClientParts, Clients, Link};
use super::keeping::Kept;
use crate::exit::Outcome;
use crate::settings::Settings;
use crate::token_file::Secret;
use crate::wire::LinkStatus;
use crate::{randomness, volume};

/// One namespace, as one who asks reaches it.
pub struct Reached {
    pub info: NamespaceInfo,
    pub meta: Arc<dyn Metadata>,
    /// Their right is to read only.
    pub read_only: bool,
    /// Others who come may have the right to write, through the same connection.
    pub may_widen: bool,
    /// The connection it works through, when it is not in this process; it lasts as long as this is kept.
    pub link: Option<Arc<Link>>,
}

/// The metadata of one volume.
#[derive(Clone)]
pub enum Source {
    Local(Arc<Volume>),
    Service(Arc<Clients>),
}

impl Source {
    /// For a command that runs without a node.
    pub async fn for_command(settings: &Settings) -> Outcome<Source> {
        if settings.meta.service().is_none() {
            return Ok(Source::Local(volume::open(settings)?));
        }
        let mut seeds = randomness::generator()?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        // A node of this moment: it has nothing that others could ask for.
        let (node, settings) = (NodeId(seeds.next_u64()), settings.clone());
        let (data_address, keeping, resume) = (None, None, None);
        let parts = ClientParts { settings, node, data_address, clock, seeds, keeping, resume };
        Ok(Source::Service(Clients::connect(parts).await?))
    }

    pub fn volume(&self) -> Outcome<VolumeInfo> {
        match self {
            Source::Local(volume) => Ok(volume.info().clone()),
            Source::Service(clients) => Ok(clients.own().client.volume()?),
        }
    }

    /// The node's own connection to the service, if there is one.
    pub fn link_status(&self) -> Option<LinkStatus> {
        match self {
            Source::Local(_) => None,
            Source::Service(clients) => Some(clients.own().status()),
        }
    }

    /// Why the metadata takes no changes, where it is in this process.
    pub fn failure(&self) -> Option<String> {
        match self {
            Source::Local(volume) => volume.failure().map(|e| e.to_string()),
            Source::Service(_) => None,
        }
    }

    /// The namespace of this name, if it is granted to the bearer of `token` (`None`: to the node).
    pub async fn find(&self, token: Option<&Secret>, name: &NamespaceName) -> Outcome<Reached> {
        match self {
            Source::Local(volume) => {
                let (volume, name) = (volume.clone(), name.clone());
                blocking(move || reach(volume.namespace(&name)?)).await
            }
            Source::Service(clients) => {
                let link = bearer(clients, token).await?;
                let meta = link.client.namespace(name).await?;
                let reached = reach_through(link, meta, token)?;
                if let Some(token) = token
                    && let Err(failure) = clients.keep_token(reached.info.id, token).await
                {
                    tracing::warn!("{failure}"); // only the next start would need it
                }
                Ok(reached)
            }
        }
    }

    /// Makes the namespace if it does not exist; whether it was made.
    pub async fn find_or_create(&self, token: Option<&Secret>, new: NewNamespace) -> Outcome<bool> {
        let missing = match self.find(token, &new.name).await {
            Ok(_) => return Ok(false),
            Err(failure) if failure.is(Kind::NotFound) => failure,
            Err(failure) => return Err(failure),
        };
        match self.create(token, new).await {
            Ok(_) => Ok(true),
            // Somebody else was faster.
            Err(failure) if failure.is(Kind::Exists) => Ok(false),
            // Whether it is there, and not theirs, or not there, and not theirs to make, is nothing for them to learn.
            Err(failure)
                if [Kind::Permission, Kind::Denied, Kind::ReadOnly, Kind::NotFound]
                    .into_iter()
                    .any(|kind| failure.is(kind)) =>
            {
                Err(missing)
            }
            Err(failure) => Err(failure),
        }
    }

    /// As the node itself reaches it, or by a token for it alone that was kept.
    pub async fn by_id(&self, id: NamespaceId) -> Outcome<Reached> {
        match self {
            Source::Local(volume) => {
                let volume = volume.clone();
                blocking(move || reach(volume.namespace_by_id(id)?)).await
            }
            Source::Service(clients) => {
                if let Some(token) = clients.kept_token(id).await? {
                    match by_token(clients, id, &token).await {
                        Ok(reached) => return Ok(reached),
                        Err(failure) => tracing::warn!(
                            "the token that was kept of namespace {id} opens it no more: {failure}"
                        ),
                    }
                }
                let link = clients.own().clone();
                let meta = link.client.by_id(id).await?;
                reach_through(link, meta, None)
            }
        }
    }

    /// As a mount of a process before this one reached it.
    pub(super) async fn by_kept(&self, kept: &Kept) -> Outcome<Reached> {
        match (self, &kept.session) {
            (Source::Service(clients), Some(session)) => {
                let link = clients.resuming(session).await?;
                let meta = link.client.by_id(kept.id()).await?;
                reach_through(link, meta, session.token.as_ref())
            }
            _ => self.by_id(kept.id()).await,
        }
    }

    /// All that a process before this one had is served again, or will not be.
    pub fn settle(&self) {
        if let Source::Service(clients) = self {
            clients.settle();
        }
    }

    /// Those that the bearer of `token` (`None`: the node) reaches.
    pub async fn list(&self, token: Option<&Secret>) -> Outcome<Vec<NamespaceInfo>> {
        match self {
            Source::Local(volume) => {
                let volume = volume.clone();
                blocking(move || Ok(volume.namespaces()?)).await
            }
            Source::Service(clients) => Ok(bearer(clients, token).await?.client.namespaces().await?),
        }
    }

    /// `Exists` when it is there.
    pub async fn create(&self, token: Option<&Secret>, new: NewNamespace) -> Outcome<NamespaceInfo> {
        match self {
            Source::Local(volume) => {
                let volume = volume.clone();
                blocking(move || Ok(volume.create_namespace(new)?)).await
            }
            Source::Service(clients) => {
                Ok(bearer(clients, token).await?.client.create_namespace(new).await?)
            }
        }
    }

    pub async fn set(
        &self,
        token: Option<&Secret>,
        name: &NamespaceName,
        change: NamespaceChange,
    ) -> Outcome<NamespaceInfo> {
        match self {
            Source::Local(volume) => {
                let (volume, name) = (volume.clone(), name.clone());
                blocking(move || Ok(volume.set_namespace(&name, change)?)).await
            }
            Source::Service(clients) => {
                Ok(bearer(clients, token).await?.client.set_namespace(name, change).await?)
            }
        }
    }

    /// `NotEmpty` when it has files, unless `force`; `Busy` while it is in use.
    pub async fn remove(&self, token: Option<&Secret>, name: &NamespaceName, force: bool) -> Outcome<()> {
        match self {
            Source::Local(volume) => {
                let (volume, name) = (volume.clone(), name.clone());
                blocking(move || Ok(volume.remove_namespace(&name, force)?)).await
            }
            Source::Service(clients) => {
                Ok(bearer(clients, token).await?.client.remove_namespace(name, force).await?)
            }
        }
    }

    /// Makes everything durable, and lets go.
    pub async fn shutdown(&self) -> Outcome<()> {
        match self {
            Source::Local(volume) => {
                let volume = volume.clone();
                blocking(move || Ok(volume.shutdown()?)).await
            }
            Source::Service(clients) => {
                clients.close().await;
                Ok(())
            }
        }
    }
}

fn reach(meta: Arc<LocalNamespace>) -> Outcome<Reached> {
    Ok(Reached { info: meta.info()?, meta, read_only: false, may_widen: false, link: None })
}

/// `token`: by which it is reached. Others may have given the connection more rights.
fn reach_through(
    link: Arc<Link>,
    meta: Arc<granary_meta::remote::RemoteNamespace>,
    token: Option<&Secret>,
) -> Outcome<Reached> {
    let rights = match token {
        Some(token) => inspect(token.as_str())?.rights,
        None => link.rights(),
    };
    let (read_only, may_widen) = (rights == Rights::ReadOnly, link.is_of_namespace());
    Ok(Reached { info: meta.info().clone(), meta, read_only, may_widen, link: Some(link) })
}

async fn by_token(clients: &Clients, id: NamespaceId, token: &Secret) -> Outcome<Reached> {
    let link = clients.bearing(token).await?;
    let meta = link.client.by_id(id).await?;
    reach_through(link, meta, Some(token))
}

async fn bearer(clients: &Clients, token: Option<&Secret>) -> Outcome<Arc<Link>> {
    match token {
        Some(token) => clients.bearing(token).await,
        None => Ok(clients.own().clone()),
    }
}
