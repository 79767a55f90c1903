//! Who may have a volume published.
//!
//! ```text
//! kubelet's token --TokenReview--> service account and pod --+--> what the claim made for its own Kubernetes namespace
//!                                  (and kubelet's word agrees)|
//!                                                             +--> the administrator's grants
//! ```
//!
//! | what | believed because |
//! |---|---|
//! | the service account and its Kubernetes namespace | the API server says that the token is theirs, is for this driver, and is bound to the pod that kubelet names |
//! | the handle of a PV, its attributes | PVs are not namespaced: who may write one is an administrator of the cluster. They cannot be changed later |
//! | `claimNamespace` | it stands in a PV's attributes, where CreateVolume put it by the word of the provisioner; in a pod's own attributes it is refused |
//! | `namespace`, `tree` of an inline volume | not at all: the pod's author wrote them, and they are what is asked for |
//!
//! It is asked at each publishing, of a PV as of an inline volume, since who made a claim need not be who mounts it. Staging shows a
//! volume to the host alone, and asks nothing. **Whatever cannot be found out is refused**: no token, no answer of the API server, a
//! file that cannot be read.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use granary_core::{Error, Kind, Result};

use crate::grants::{Account, Granted, Grants, Rights};
use crate::handle::Handle;
use crate::kube::Kube;
use crate::pod::{self, Pod};
use crate::volumes::Mounted;
use crate::wish::{Compared, Wish};

/// How it is decided.
#[derive(Clone, Debug)]
pub enum Gate {
    /// Whoever reaches the socket may: another orchestrator has decided.
    Open,
    Guarded {
        grants: PathBuf,
        kube: Arc<Kube>,
    },
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub volume: &'a Handle,
    /// The Kubernetes namespace of the claim that made it, by its PV.
    pub claimed_by: Option<&'a str>,
    pub context: &'a HashMap<String, String>,
    pub secrets: &'a HashMap<String, String>,
}

/// All that there is.
pub const EVERYTHING: Granted = Granted { rights: Rights::Write, squash: true };

impl Gate {
    /// What the pod may do with the volume.
    ///
    /// Errors: `Permission` for who may nothing, or did not prove who they are; `Unavailable` when the API server does not answer;
    /// `Invalid` for an access file that cannot be used.
    pub async fn check(&self, asked: Asked<'_>) -> Result<Granted> {
        let Gate::Guarded { grants, kube } = self else { return Ok(EVERYTHING) };
        let account = identify(kube, asked).await?;
        if claimed(&account, asked) {
            return Ok(EVERYTHING);
        }
        let file = grants.clone();
        let read = tokio::task::spawn_blocking(move || Grants::read(&file)).await;
        let all =
            read.map_err(|e| Error::new(Kind::Bug, format!("reading the access file failed: {e}")))??;
        all.of(&account, asked.volume).ok_or_else(|| {
            Error::new(
                Kind::Permission,
                format!(
                    "{account} may not mount {}: nothing in the access file grants it; ask whoever administers Granary here, and say \
                     both names",
                    asked.volume
                ),
            )
        })
    }
}

impl Gate {
    /// What is mounted for a pod, beside what it may have. Rights come and go with the administrator's file; where nobody is asked for
    /// them, a mount is what was wanted or another.
    pub fn compare(&self, wish: &Wish, granted: Granted, there: &Mounted) -> Compared {
        match self {
            Gate::Open => Compared::Other,
            Gate::Guarded { .. } => wish.compare(granted, there),
        }
    }
}

/// Whether the claim that made the volume is of the pod's own Kubernetes namespace.
fn claimed(account: &Account, asked: Asked<'_>) -> bool {
    asked.volume.is_made() && asked.claimed_by == Some(account.namespace.as_str())
}

/// The service account, by the API server's word, whose pod is the one that kubelet names.
async fn identify(kube: &Kube, asked: Asked<'_>) -> Result<Account> {
    let token = pod::token(asked.context, asked.secrets)?;
    let refuse =
        |why: &str| Err(Error::new(Kind::Permission, format!("the pod did not prove who it is: {why}")));
    let Some(pod) = Pod::of(asked.context) else {
        return refuse("kubelet does not name it; the CSIDriver object needs podInfoOnMount: true");
    };
    let proved = kube.review(&token).await?;
    let Some(account) = Account::of_user(&proved.user) else {
        return refuse("its token is no service account's");
    };
    if account.namespace != pod.namespace || account.name != pod.account {
        return refuse("its token is another service account's");
    }
    if proved.pod_uid.as_deref() != Some(&pod.uid) || proved.pod_name.as_deref() != Some(&pod.name) {
        return refuse("its token is bound to another pod, or to none");
    }
    Ok(account)
}

#[cfg(test)]
mod tests;
