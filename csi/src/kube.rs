//! Kubernetes' API server, as far as the driver asks it: few calls, each bounded, none of them on the way of a read or a write.
//!
//! | call | for | right that it needs |
//! |---|---|---|
//! | `POST …/authentication.k8s.io/v1/tokenreviews` | whose token a pod's is ([`review`]) | `create tokenreviews` |
//! | `POST …/events.k8s.io/v1/namespaces/NS/events` | a pod's events ([`events`]) | `create events` |
//! | `GET`, `PATCH /api/v1/nodes/NAME` | which data sets a node holds ([`labels`]) | `get`, `patch nodes` |
//!
//! The API server is known by the certificate authority of the pod's own service account, and no other; the account's token is read
//! anew for each call, since kubelet replaces it. Answers are read up to 4 MiB.

pub mod events;
pub mod labels;
pub mod review;

use std::path::{Path, PathBuf};
use std::time::Duration;

use granary_core::{Error, Kind, Result};
use reqwest::{Method, StatusCode, Url};

use crate::status::invalid;

/// Where a pod finds its own account's token and the API server's certificate authority.
pub const CREDENTIALS: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// A call with its answer. Kubelet waits two minutes for a publishing, and asks again.
const CALL_WAIT: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// What is quoted of an answer that says no.
const QUOTE_BYTES_MAX: usize = 300;

/// The way to the API server.
#[derive(Debug)]
pub struct Kube {
    api: Url,
    credentials: PathBuf,
    http: reqwest::Client,
}

/// An answer of the API server.
struct Answer {
    status: StatusCode,
    body: Vec<u8>,
}

/// What was asked, and what right that needs, for messages.
#[derive(Clone, Copy)]
struct Call<'a> {
    what: &'a str,
    right: &'a str,
}

impl Kube {
    /// `api`: `https://HOST:PORT`, or `http://` to this machine alone. `credentials`: a directory with `token` and `ca.crt`.
    ///
    /// Errors: `Invalid` for another address; that of the disk when the certificate authority cannot be read.
    pub fn new(api: &str, credentials: &Path) -> Result<Kube> {
        let url: Url = match api.parse() {
            Ok(url) => url,
            Err(e) => return invalid(format!("the API server's address {api:?} cannot be used: {e}")),
        };
        let mut builder = reqwest::Client::builder()
            .no_proxy()
            .timeout(CALL_WAIT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("granary-csi/", env!("CARGO_PKG_VERSION")));
        match url.scheme() {
            "https" => {
                let path = credentials.join("ca.crt");
                let pem = std::fs::read(&path).map_err(|e| {
                    Error::io(
                        format!("cannot read the API server's certificate authority {}", path.display()),
                        e,
                    )
                })?;
                let bad = |e: reqwest::Error| {
                    Error::new(Kind::Invalid, format!("{} is no certificate authority: {e}", path.display()))
                };
                builder = builder.tls_certs_only(reqwest::Certificate::from_pem_bundle(&pem).map_err(bad)?);
            }
            "http"
                if url.host_str().is_some_and(|host| ["127.0.0.1", "localhost", "[::1]"].contains(&host)) => {
            }
            _ => {
                return invalid(format!(
                    "the API server's address {api:?} cannot be used: write https://HOST:PORT; tokens go there"
                ));
            }
        }
        let http = builder.build().map_err(|e| {
            Error::new(Kind::Invalid, format!("the API server at {api} cannot be asked")).with_source(e)
        })?;
        Ok(Kube { api: url, credentials: credentials.to_owned(), http })
    }

    /// Sends one request. `path`: of plain segments, each of which is checked by whoever makes it.
    async fn send(
        &self,
        call: Call<'_>,
        method: Method,
        path: &str,
        body: Option<(&'static str, Vec<u8>)>,
    ) -> Result<Answer> {
        let mut url = self.api.clone();
        url.set_path(path);
        let mut request = self.http.request(method, url).header("accept", "application/json");
        if let Some(token) = self.own_token().await? {
            request = request.bearer_auth(token);
        }
        if let Some((kind, body)) = body {
            request = request.header("content-type", kind).body(body);
        }
        let silent = |e: reqwest::Error| {
            Error::new(
                Kind::Unavailable,
                format!(
                    "the Kubernetes API server at {} did not answer when asked {}; it is tried again",
                    self.api, call.what
                ),
            )
            .with_source(e.without_url())
        };
        let mut answer = request.send().await.map_err(silent)?;
        let (status, mut body) = (answer.status(), Vec::new());
        while let Some(chunk) = answer.chunk().await.map_err(silent)? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(Error::new(
                    Kind::Unavailable,
                    format!("the API server's answer {} is too long", call.what),
                ));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, body })
    }

    /// `None` where there is none, for an API server on this machine.
    async fn own_token(&self) -> Result<Option<String>> {
        let path = self.credentials.join("token");
        match tokio::fs::read_to_string(&path).await {
            Ok(token) => Ok(Some(token.trim().to_owned())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && self.api.scheme() == "http" => Ok(None),
            Err(e) => Err(Error::io(format!("cannot read the driver's own token {}", path.display()), e)),
        }
    }
}

impl Answer {
    /// The body of an answer that says yes.
    fn good(self, call: Call<'_>) -> Result<Vec<u8>> {
        if self.status.is_success() {
            return Ok(self.body);
        }
        let said = String::from_utf8_lossy(&self.body[..self.body.len().min(QUOTE_BYTES_MAX)]).into_owned();
        let (what, status) = (call.what, self.status);
        Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::new(
                Kind::Denied,
                format!(
                    "the API server refuses the driver ({status}) when asked {what}: its service account needs the right to {}; {said}",
                    call.right
                ),
            ),
            StatusCode::NOT_FOUND => {
                Error::new(Kind::NotFound, format!("the API server knows none when asked {what}: {said}"))
            }
            StatusCode::CONFLICT => {
                Error::new(Kind::Exists, format!("it is there already when asked {what}: {said}"))
            }
            _ if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => Error::new(
                Kind::Unavailable,
                format!("the API server answered {status} when asked {what}; it is tried again: {said}"),
            ),
            _ => Error::new(
                Kind::Invalid,
                format!("the API server answered {status} when asked {what}: {said}"),
            ),
        })
    }
}

/// A name of Kubernetes' that may stand in a path: it cannot lead elsewhere.
fn segment(name: &str) -> Result<&str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    if name.is_empty() || name.len() > 253 || name.starts_with('.') || !name.chars().all(plain) {
        return invalid(format!("{name:?} is no name of Kubernetes'"));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_go_to_an_api_server_that_is_known() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Kube::new("http://127.0.0.1:8001", dir.path()).is_ok());
        for bad in ["http://10.0.0.1", "http://api.example", "ftp://127.0.0.1", "api"] {
            assert_eq!(Kube::new(bad, dir.path()).unwrap_err().kind(), Kind::Invalid, "{bad}");
        }
        // Without its certificate authority it is not asked.
        assert!(Kube::new("https://10.0.0.1", dir.path()).unwrap_err().to_string().contains("ca.crt"));
        std::fs::write(dir.path().join("ca.crt"), "no certificate").unwrap();
        let made = Kube::new("https://10.0.0.1", dir.path());
        assert!(made.is_err() || std::fs::read(dir.path().join("ca.crt")).is_ok());
    }

    #[test]
    fn names_lead_nowhere_else() {
        assert_eq!(segment("node-1.example").unwrap(), "node-1.example");
        for bad in ["", "..", "a/b", "a?b", "a%2f", ".x", &"x".repeat(254)] {
            assert!(segment(bad).is_err(), "{bad}");
        }
    }
}
