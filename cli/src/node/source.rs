//! Where the node has metadata from: a volume in its own process, or a metadata service that other nodes use too. The
//! rest of the node does not care which.

use std::sync::Arc;

use granary_core::{Kind, NamespaceId, NamespaceName};
use granary_meta::{Metadata, NamespaceChange, NamespaceInfo, NewNamespace, Volume, VolumeInfo};

use super::blocking;
use crate::exit::Outcome;
use crate::settings::Settings;
use crate::token_file::Secret;
use crate::volume;
use crate::wire::LinkStatus;

/// One namespace, as one who asks reaches it.
pub struct Reached {
    pub info: NamespaceInfo,
    pub meta: Arc<dyn Metadata>,
    /// Their right is to read only.
    pub read_only: bool,
    /// The connection it works through, when it is not in this process; it lasts as long as this is kept.
    pub link: Option<Link>,
}

/// Tells how a connection to the metadata service is.
pub type Link = Arc<dyn Fn() -> LinkStatus + Send + Sync>;

/// The metadata of one volume.
#[derive(Clone)]
pub enum Source {
    Local(Arc<Volume>),
}

impl Source {
    /// For a command that runs without a node.
    pub async fn for_command(settings: &Settings) -> Outcome<Source> {
        Ok(Source::Local(volume::open(settings)?))
    }

    pub fn volume(&self) -> VolumeInfo {
        match self {
            Source::Local(volume) => volume.info().clone(),
        }
    }

    /// The node's own connection to the service, if there is one.
    pub fn link_status(&self) -> Option<LinkStatus> {
        match self {
            Source::Local(_) => None,
        }
    }

    /// The namespace of this name, if it is granted to the bearer of `token` (`None`: to the node).
    pub async fn find(&self, _token: Option<&Secret>, name: &NamespaceName) -> Outcome<Reached> {
        match self {
            Source::Local(volume) => {
                let (volume, name) = (volume.clone(), name.clone());
                blocking(move || reach(volume.namespace(&name)?)).await
            }
        }
    }

    /// Makes the namespace if it does not exist; whether it was made.
    pub async fn find_or_create(&self, token: Option<&Secret>, new: NewNamespace) -> Outcome<bool> {
        match self.find(token, &new.name).await {
            Ok(_) => return Ok(false),
            Err(failure) if failure.is(Kind::NotFound) => {}
            Err(failure) => return Err(failure),
        }
        match self.create(token, new).await {
            Ok(_) => Ok(true),
            // Somebody else was faster.
            Err(failure) if failure.is(Kind::Exists) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    pub async fn by_id(&self, id: NamespaceId) -> Outcome<Reached> {
        match self {
            Source::Local(volume) => {
                let volume = volume.clone();
                blocking(move || reach(volume.namespace_by_id(id)?)).await
            }
        }
    }

    pub async fn list(&self) -> Outcome<Vec<NamespaceInfo>> {
        match self {
            Source::Local(volume) => {
                let volume = volume.clone();
                blocking(move || Ok(volume.namespaces()?)).await
            }
        }
    }

    /// `Exists` when it is there.
    pub async fn create(&self, _token: Option<&Secret>, new: NewNamespace) -> Outcome<NamespaceInfo> {
        match self {
            Source::Local(volume) => {
                let volume = volume.clone();
                blocking(move || Ok(volume.create_namespace(new)?)).await
            }
        }
    }

    pub async fn set(&self, name: &NamespaceName, change: NamespaceChange) -> Outcome<NamespaceInfo> {
        match self {
            Source::Local(volume) => {
                let (volume, name) = (volume.clone(), name.clone());
                blocking(move || Ok(volume.set_namespace(&name, change)?)).await
            }
        }
    }

    /// `NotEmpty` when it has files, unless `force`; `Busy` while it is in use.
    pub async fn remove(&self, name: &NamespaceName, force: bool) -> Outcome<()> {
        match self {
            Source::Local(volume) => {
                let (volume, name) = (volume.clone(), name.clone());
                blocking(move || Ok(volume.remove_namespace(&name, force)?)).await
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
        }
    }
}

fn reach(meta: Arc<granary_meta::LocalNamespace>) -> Outcome<Reached> {
    Ok(Reached { info: meta.info()?, meta, read_only: false, link: None })
}
