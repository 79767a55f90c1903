//! TokenReview: whom a token names, by the API server's word.

use std::collections::HashMap;

use granary_core::{Error, Kind, Result};
use reqwest::Method;
use serde::{Deserialize, Serialize};

use super::{Call, Kube};
use crate::pod::{AUDIENCE, PodToken};

const PATH: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const CALL: Call<'static> = Call { what: "whose a pod's token is", right: "create tokenreviews" };
/// What the API server adds for a token that is bound to a pod.
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// Whom a token names, and the pod that it is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proved {
    pub user: String,
    pub pod_name: Option<String>,
    pub pod_uid: Option<String>,
}

#[derive(Serialize)]
struct Review<'a> {
    #[serde(rename = "apiVersion")]
    version: &'static str,
    kind: &'static str,
    spec: Spec<'a>,
}

#[derive(Serialize)]
struct Spec<'a> {
    token: &'a str,
    audiences: [&'static str; 1],
}

#[derive(Deserialize)]
struct Reviewed {
    #[serde(default)]
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    authenticated: bool,
    user: User,
    audiences: Vec<String>,
    error: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct User {
    username: String,
    extra: HashMap<String, Vec<String>>,
}

impl Kube {
    /// Errors: `Permission` for a token that is not good, or not for this driver; `Unavailable`, `Denied` when it cannot be found out.
    pub async fn review(&self, token: &PodToken) -> Result<Proved> {
        let review = Review {
            version: "authentication.k8s.io/v1",
            kind: "TokenReview",
            spec: Spec { token: token.reveal(), audiences: [AUDIENCE] },
        };
        let body = serde_json::to_vec(&review)
            .map_err(|e| Error::new(Kind::Bug, "a review cannot be written").with_source(e))?;
        let answer =
            self.send(CALL, Method::POST, PATH, Some(("application/json", body))).await?.good(CALL)?;
        let reviewed: Reviewed = serde_json::from_slice(&answer).map_err(|e| {
            Error::new(Kind::Unavailable, "the API server's review of a token cannot be read").with_source(e)
        })?;
        proved(reviewed.status)
    }
}

fn proved(status: Status) -> Result<Proved> {
    let refuse =
        |why: &str| Err(Error::new(Kind::Permission, format!("the pod did not prove who it is: {why}")));
    if !status.authenticated {
        let why =
            if status.error.is_empty() { "the API server does not accept its token" } else { &status.error };
        return refuse(why);
    }
    // An API server that knows no audiences says none; then the token could be anybody's.
    if !status.audiences.iter().any(|audience| audience == AUDIENCE) {
        return refuse("its token is for another audience");
    }
    let mut extra = status.user.extra;
    let mut one =
        |key: &str| extra.remove(key).filter(|values| values.len() == 1).and_then(|mut values| values.pop());
    let (pod_name, pod_uid) = (one(POD_NAME), one(POD_UID));
    Ok(Proved { user: status.user.username, pod_name, pod_uid })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Proved> {
        proved(serde_json::from_str::<Reviewed>(text).unwrap().status)
    }

    #[test]
    fn only_a_good_token_for_this_driver_proves_anything() {
        let good = r#"{"status":{"authenticated":true,"audiences":["granary.dev"],"user":{"username":"system:serviceaccount:a:b",
            "uid":"1","groups":["system:serviceaccounts"],"extra":{"authentication.kubernetes.io/pod-name":["p"],
            "authentication.kubernetes.io/pod-uid":["u"],"authentication.kubernetes.io/node-name":["n"]}}}}"#;
        let proved = of(good).unwrap();
        assert_eq!(proved.user, "system:serviceaccount:a:b");
        assert_eq!((proved.pod_name.as_deref(), proved.pod_uid.as_deref()), (Some("p"), Some("u")));
        for (bad, says) in [
            ("{}", "does not accept"),
            (r#"{"status":{"authenticated":false,"error":"token has expired"}}"#, "expired"),
            (r#"{"status":{"authenticated":true,"user":{"username":"x"}}}"#, "another audience"),
            (
                r#"{"status":{"authenticated":true,"audiences":["vault"],"user":{"username":"x"}}}"#,
                "another audience",
            ),
        ] {
            let e = of(bad).unwrap_err();
            assert!(e.kind() == Kind::Permission && e.to_string().contains(says), "{bad}: {e}");
        }
        let unbound = r#"{"status":{"authenticated":true,"audiences":["granary.dev"],"user":{"username":"x",
            "extra":{"authentication.kubernetes.io/pod-uid":["u","v"]}}}}"#;
        let proved = of(unbound).unwrap();
        assert_eq!((proved.pod_name, proved.pod_uid), (None, None));
    }
}
