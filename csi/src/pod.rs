//! The pod that a volume is published to: what kubelet says of it, and the token that proves it.
//!
//! | key in the volume's context | from |
//! |---|---|
//! | `csi.storage.k8s.io/pod.name`, `.namespace`, `.uid`, `csi.storage.k8s.io/serviceAccount.name` | kubelet, with `podInfoOnMount` |
//! | `csi.storage.k8s.io/serviceAccount.tokens` | kubelet, with `tokenRequests`; in `secrets` with `serviceAccountTokenInSecrets` |
//!
//! The first four alone prove nothing: where a CSIDriver object lacks `podInfoOnMount`, a pod's author could write them into the
//! volume's attributes. The token is what counts, and they have to agree with it.

use std::collections::HashMap;
use std::fmt;

use granary_core::{Error, Kind, Result};
use serde::Deserialize;

const PREFIX: &str = "csi.storage.k8s.io/";
const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";

/// Whom tokens are for, as the CSIDriver object asks for them.
pub const AUDIENCE: &str = "granary.dev";

/// As kubelet names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub account: String,
}

impl Pod {
    /// `None` when kubelet says nothing of it.
    pub fn of(context: &HashMap<String, String>) -> Option<Pod> {
        let value =
            |key: &str| context.get(&format!("{PREFIX}{key}")).filter(|value| !value.is_empty()).cloned();
        Some(Pod {
            namespace: value("pod.namespace")?,
            name: value("pod.name")?,
            uid: value("pod.uid")?,
            account: value("serviceAccount.name")?,
        })
    }
}

impl fmt::Display for Pod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A service account's token. It is shown to nobody but the API server.
#[derive(Clone, PartialEq, Eq)]
pub struct PodToken(String);

impl PodToken {
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PodToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PodToken(..)")
    }
}

#[derive(Deserialize)]
struct Projected {
    token: String,
}

/// The token for this driver.
///
/// Errors: `Permission` when there is none, with what the CSIDriver object has to say.
pub fn token(context: &HashMap<String, String>, secrets: &HashMap<String, String>) -> Result<PodToken> {
    let refuse = |why: &str| {
        Err(Error::new(
            Kind::Permission,
            format!(
                "the pod did not prove who it is: {why}; the CSIDriver object needs podInfoOnMount: true and tokenRequests with \
                 the audience {AUDIENCE}"
            ),
        ))
    };
    let Some(text) = secrets.get(TOKENS).or_else(|| context.get(TOKENS)) else {
        return refuse("kubelet sent no token");
    };
    // Never the text itself in a message: it has tokens.
    let Ok(mut all) = serde_json::from_str::<HashMap<String, Projected>>(text) else {
        return refuse("kubelet's tokens cannot be read");
    };
    match all.remove(AUDIENCE) {
        Some(found) if !found.token.is_empty() => Ok(PodToken(found.token)),
        _ => refuse("no token is for this driver"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn a_pod_is_named_in_full_or_not_at_all() {
        let all = [
            ("csi.storage.k8s.io/pod.name", "train-0"),
            ("csi.storage.k8s.io/pod.namespace", "team-a"),
            ("csi.storage.k8s.io/pod.uid", "u-1"),
            ("csi.storage.k8s.io/serviceAccount.name", "trainer"),
        ];
        let pod = Pod::of(&map(&all)).unwrap();
        assert_eq!(
            (pod.to_string().as_str(), pod.uid.as_str(), pod.account.as_str()),
            ("team-a/train-0", "u-1", "trainer")
        );
        for left_out in 0..all.len() {
            let some: Vec<_> =
                all.iter().enumerate().filter(|(n, _)| *n != left_out).map(|(_, pair)| *pair).collect();
            assert_eq!(Pod::of(&map(&some)), None);
        }
    }

    #[test]
    fn the_token_is_this_drivers_and_is_not_shown() {
        let text = r#"{"granary.dev":{"token":"secret-1","expirationTimestamp":"2026-01-01T00:00:00Z"},"vault":{"token":"other"}}"#;
        let found = token(&map(&[(TOKENS, text)]), &HashMap::new()).unwrap();
        assert_eq!(found.reveal(), "secret-1");
        assert!(!format!("{found:?}").contains("secret"));
        // Newer clusters send them apart, and those count.
        let newer = r#"{"granary.dev":{"token":"secret-2"}}"#;
        assert_eq!(token(&map(&[(TOKENS, text)]), &map(&[(TOKENS, newer)])).unwrap().reveal(), "secret-2");
    }

    #[test]
    fn without_a_token_nobody_is_known() {
        for text in [
            None,
            Some("not json: secret-3"),
            Some(r#"{"vault":{"token":"x"}}"#),
            Some(r#"{"granary.dev":{"token":""}}"#),
        ] {
            let context: HashMap<_, _> =
                text.map(|text| (TOKENS.to_owned(), text.to_owned())).into_iter().collect();
            let e = token(&context, &HashMap::new()).unwrap_err();
            assert!(e.kind() == Kind::Permission && e.to_string().contains("tokenRequests"), "{e}");
            assert!(!e.to_string().contains("secret"), "{e}");
        }
    }
}
