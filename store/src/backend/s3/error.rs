//! What went wrong with an S3 server, in our kinds and in words that name the store, the reason and the mend.

use std::error::Error as StdError;
use std::fmt;

use granary_core::{Error, Kind};
use object_store::client::{HttpError, HttpErrorKind};

use super::http::{Late, NotS3, Refusal, Timeouts};

/// What was asked of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    Get,
    Put,
    Head,
    Delete,
    List,
}

impl Doing {
    fn verb(self) -> &'static str {
        match self {
            Doing::Get | Doing::Head => "read",
            Doing::Put => "write",
            Doing::Delete => "delete",
            Doing::List => "list",
        }
    }

    /// The right it needs, as S3's policies name it.
    fn right(self) -> &'static str {
        match self {
            Doing::Get | Doing::Head => "s3:GetObject",
            Doing::Put => "s3:PutObject",
            Doing::Delete => "s3:DeleteObject",
            Doing::List => "s3:ListBucket",
        }
    }
}

/// Where the bucket is, for messages.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub bucket: String,
    /// `s3://bucket/prefix`
    pub url: String,
    pub endpoint: Option<String>,
    pub region: String,
    pub timeouts: Timeouts,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.endpoint {
            Some(endpoint) => write!(f, "{} at {endpoint}", self.url),
            None => write!(f, "{} at Amazon ({})", self.url, self.region),
        }
    }
}

impl Place {
    pub fn object(&self, key: &str) -> String {
        format!("object {key} in {self}")
    }

    pub fn explain(&self, doing: Doing, key: &str, error: object_store::Error) -> Error {
        tracing::debug!(store = %self, ?doing, key, error = %error, "request failed");
        if let Some(refusal) = find::<Refusal>(&error) {
            return self.refused(doing, key, refusal);
        }
        if let Some(e) = find::<NotS3>(&error) {
            return self.strange(e);
        }
        if let Some(e) = find::<HttpError>(&error) {
            return self.unreached(e);
        }
        // A batch of deletes succeeds, and then says of some keys what went wrong.
        if let Some(code) = batch_code(&error.to_string()) {
            let status = if code == "AccessDenied" { 403 } else { 500 };
            let refusal = Refusal { status, code: code.to_owned(), ..Refusal::default() };
            return self.refused(doing, key, &refusal);
        }
        self.strange(error)
    }

    fn strange(&self, why: impl fmt::Display) -> Error {
        Error::new(
            Kind::Unavailable,
            format!(
                "{self} gave an answer that cannot be understood: {why}; is the endpoint (AWS_ENDPOINT_URL) an S3 server?"
            ),
        )
    }

    fn refused(&self, doing: Doing, key: &str, refusal: &Refusal) -> Error {
        let verb = doing.verb();
        let name = if key.is_empty() { self.to_string() } else { self.object(key) };
        let (kind, message) = match (refusal.code.as_str(), refusal.status) {
            ("NoSuchBucket", _) => (
                Kind::NotFound,
                format!(
                    "bucket {} does not exist at {}; make it (aws s3 mb s3://{}), or check the store's URL and the endpoint \
                     (AWS_ENDPOINT_URL)",
                    self.bucket,
                    self.endpoint.as_deref().unwrap_or("Amazon"),
                    self.bucket
                ),
            ),
            ("NoSuchUpload", _) => (
                Kind::NotFound,
                format!(
                    "{name} is not being put in parts: it was finished or aborted, here or by a rule of the bucket"
                ),
            ),
            ("EntityTooLarge" | "EntityTooSmall", _) => (
                Kind::Invalid,
                format!(
                    "cannot {verb} {name}: its size, or a part's, is not one the server takes: {refusal}"
                ),
            ),
            // A PUT needs no object: what is missing is the bucket, or the server is none of S3's.
            (_, 404) if doing == Doing::Put => (
                Kind::NotFound,
                format!(
                    "cannot write {name}: the server finds no bucket {} there: {refusal}; make it (aws s3 mb s3://{}), or check \
                     the endpoint (AWS_ENDPOINT_URL)",
                    self.bucket, self.bucket
                ),
            ),
            (_, 404) => (Kind::NotFound, format!("{name} does not exist")),
            ("InvalidAccessKeyId", _) => (
                Kind::Denied,
                format!(
                    "{self} does not know the access key; check AWS_ACCESS_KEY_ID, or the profile in ~/.aws/credentials"
                ),
            ),
            ("SignatureDoesNotMatch", _) => (
                Kind::Denied,
                format!(
                    "{self} says the secret key is wrong; check AWS_SECRET_ACCESS_KEY, or the profile in ~/.aws/credentials"
                ),
            ),
            ("ExpiredToken" | "InvalidToken" | "TokenRefreshRequired", _) => (
                Kind::Denied,
                format!(
                    "{self} says the session token has expired or is wrong; get new keys (AWS_SESSION_TOKEN)"
                ),
            ),
            ("RequestTimeTooSkewed" | "RequestExpired", _) => (
                Kind::Denied,
                format!(
                    "{self} refuses requests because this machine's clock is wrong{}; set it (NTP)",
                    refusal.date.as_ref().map(|d| format!(" (the server's says {d})")).unwrap_or_default()
                ),
            ),
            (
                "AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException",
                _,
            )
            | ("", 301) => (
                Kind::Invalid,
                format!(
                    "{self} is not in region {}{}; set AWS_REGION",
                    self.region,
                    refusal.region.as_ref().map(|r| format!(", but in {r}")).unwrap_or_default()
                ),
            ),
            ("QuotaExceeded" | "InsufficientCapacity" | "XMinioStorageFull", _) | (_, 507) => (
                Kind::NoSpace,
                format!(
                    "cannot {verb} {name}: the store is full or over its quota: {refusal}; ask for more, or delete"
                ),
            ),
            ("OperationAborted" | "ConcurrentModification", _) => {
                (Kind::Busy, format!("cannot {verb} {name} now: {refusal}"))
            }
            ("RequestTimeout" | "BadDigest" | "XAmzContentSHA256Mismatch" | "IncompleteBody", _) => (
                Kind::Unavailable,
                format!(
                    "cannot {verb} {name}: bytes were lost or changed on the way: {refusal}; check the network"
                ),
            ),
            (_, 408 | 429 | 503) => (
                Kind::Unavailable,
                format!(
                    "{self} is overloaded or restarting: {refusal}; granary sends less until it recovers"
                ),
            ),
            (_, 501) => (
                Kind::Unsupported,
                format!("cannot {verb} {name}: {refusal}; the server is not one granary can use"),
            ),
            (_, 500..=599) => (
                Kind::Unavailable,
                format!("cannot {verb} {name}: the server failed: {refusal}; its log says why"),
            ),
            (_, 401 | 403) => (
                Kind::Denied,
                format!(
                    "the keys may not {verb} in {self}: {refusal}; give them the right {} on the bucket {}",
                    doing.right(),
                    self.bucket
                ),
            ),
            (_, 405) if doing != Doing::Get => {
                (Kind::ReadOnly, format!("cannot {verb} {name}: the store is read-only: {refusal}"))
            }
            _ => (
                Kind::Invalid,
                format!(
                    "cannot {verb} {name}: the server refused: {refusal}; is the endpoint (AWS_ENDPOINT_URL) an S3 server?"
                ),
            ),
        };
        let error = Error::new(kind, message);
        // 503 SlowDown of S3; 429 of proxies and other stores.
        if matches!(refusal.status, 429 | 503) || refusal.code == "SlowDown" {
            return error.with_slow_down();
        }
        error
    }

    fn unreached(&self, error: &HttpError) -> Error {
        let root = root_cause(error);
        let io = find::<std::io::Error>(error).map(std::io::Error::kind);
        let mend = "check the endpoint (AWS_ENDPOINT_URL) and the network";
        if root.contains("certificate") {
            return Error::new(
                Kind::Invalid,
                format!(
                    "{self} shows a certificate that is not trusted: {root}; name its authority's PEM file in AWS_CA_BUNDLE"
                ),
            );
        }
        let message = match (error.kind(), io) {
            (_, Some(std::io::ErrorKind::ConnectionRefused)) => {
                format!("cannot reach {self}: connection refused; {mend}")
            }
            (HttpErrorKind::Timeout, _) => format!("{}; {mend}", self.too_late(error)),
            (HttpErrorKind::Connect, _) => format!("cannot reach {self}: {root}; {mend}"),
            _ => format!("the connection to {self} broke: {root}; {mend}"),
        };
        Error::new(Kind::Unavailable, message)
    }

    /// Which time was over.
    fn too_late(&self, error: &HttpError) -> String {
        let Timeouts { connect, request, .. } = self.timeouts;
        match find::<Late>(error) {
            Some(late @ Late::Upload(_)) => format!("{late} by {self}"),
            Some(late) => format!("{late} from {self}"),
            None if find::<reqwest::Error>(error).is_some_and(reqwest::Error::is_connect) => {
                format!("no connection in {connect:?} to {self}")
            }
            None => format!("a request took longer than {request:?} at {self}"),
        }
    }
}

/// The range begins after the object's end.
pub(super) fn is_past_the_end(error: &object_store::Error) -> bool {
    find::<Refusal>(error).is_some_and(|r| r.status == 416)
}

/// A batch of deletes reports a key that was not there, which some servers do.
pub(super) fn is_absent(error: &object_store::Error) -> bool {
    matches!(batch_code(&error.to_string()), Some("NoSuchKey"))
}

/// The code in object_store's words for one key of a batch of deletes: `... (code: AccessDenied)`.
fn batch_code(text: &str) -> Option<&str> {
    if !text.contains("DeleteObjects request failed for key") {
        return None;
    }
    text.rsplit_once("(code: ")?.1.strip_suffix(')')
}

/// The first error of a type in a chain of sources.
fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut at = Some(error);
    while let Some(e) = at {
        if let Some(found) = e.downcast_ref::<T>() {
            return Some(found);
        }
        at = e.source();
    }
    None
}

fn root_cause(error: &(dyn StdError + 'static)) -> String {
    let mut at = error;
    while let Some(e) = at.source() {
        at = e;
    }
    at.to_string()
}
