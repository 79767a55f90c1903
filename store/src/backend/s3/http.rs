//! The HTTP client under object_store's: it gives reads and writes time-outs of their own, and keeps what a server says when it
//! refuses, so that [`error`](super::error) can explain it.

mod patience;

use std::fmt;

use async_trait::async_trait;
use futures::StreamExt;
use http_body_util::BodyExt;
use hyper::header::CONTENT_LENGTH;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
    HttpService, ReqwestConnector,
};

pub(super) use patience::{Late, Timeouts};

/// Bytes of a refusal that are read.
const REFUSAL_BYTES_MAX: usize = 16 << 10;
/// Longest answer to a listing or a batch of deletes, in bytes: a thousand keys of a thousand bytes take two million.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Makes the client for S3, and those that ask elsewhere for keys.
#[derive(Debug)]
pub(super) struct Connector {
    pub timeouts: Timeouts,
    /// Sends what has a body.
    pub writes: reqwest::Client,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let options = options.clone().with_timeout(self.timeouts.request);
        let reads = ReqwestConnector::default().connect(&options)?;
        Ok(HttpClient::new(Service { reads, writes: self.writes.clone(), timeouts: self.timeouts }))
    }
}

#[derive(Debug)]
struct Service {
    reads: HttpClient,
    writes: reqwest::Client,
    timeouts: Timeouts,
}

impl Service {
    /// The head of the answer, in time, and a body that will come in time or fail.
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let answer = if request.body().content_length() == 0 {
            patience::head(self.timeouts.first_byte, self.reads.execute(request)).await?
        } else {
            self.upload(request).await?
        };
        Ok(patience::watched(answer, self.timeouts.stall))
    }

    async fn upload(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (head, body) = request.into_parts();
        let failed = |e: reqwest::Error| HttpError::new(kind_of(&e), e.without_url());
        let len = body.content_length();
        let (pieces, upload) = patience::upload(body);
        let mut request = reqwest::Request::new(
            head.method,
            head.uri.to_string().parse().map_err(|e| HttpError::new(HttpErrorKind::Unknown, e))?,
        );
        *request.headers_mut() = head.headers;
        // A stream's length is not known to the client, and S3 takes no body of unknown length.
        request.headers_mut().insert(CONTENT_LENGTH, len.into());
        *request.body_mut() = Some(reqwest::Body::wrap_stream(pieces));
        let answer = async { self.writes.execute(request).await.map_err(failed) };
        let answer = async {
            let (head, body) = hyper::Response::<reqwest::Body>::from(answer.await?).into_parts();
            Ok(HttpResponse::from_parts(head, HttpResponseBody::new(body.map_err(failed))))
        };
        upload.head(&self.timeouts, answer).await
    }
}

/// As object_store sorts them.
fn kind_of(e: &reqwest::Error) -> HttpErrorKind {
    if e.is_timeout() {
        HttpErrorKind::Timeout
    } else if e.is_connect() {
        HttpErrorKind::Connect
    } else {
        HttpErrorKind::Request
    }
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let root = expected_root(&request);
        let response = self.send(request).await?;
        if response.status().is_success() {
            return match root {
                Some(root) => understood(root, response).await,
                None => Ok(response),
            };
        }
        let (head, body) = response.into_parts();
        let mut text = Vec::new();
        let mut body = body.bytes_stream();
        while let Some(part) = body.next().await {
            // A refusal whose text is lost is still a refusal.
            let Ok(part) = part else { break };
            let room = REFUSAL_BYTES_MAX - text.len();
            text.extend_from_slice(&part[..part.len().min(room)]);
            if text.len() == REFUSAL_BYTES_MAX {
                break;
            }
        }
        let header =
            |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let refusal = Refusal {
            status: head.status.as_u16(),
            date: header("date"),
            region: header("x-amz-bucket-region"),
            ..Refusal::of_xml(&String::from_utf8_lossy(&text))
        };
        Err(HttpError::new(HttpErrorKind::Unknown, refusal))
    }
}

/// The element that the answer must be: what is something else would be read as an empty listing, or as all deleted.
fn expected_root(request: &HttpRequest) -> Option<&'static str> {
    let query = request.uri().query()?;
    if request.method() == hyper::Method::POST {
        // Joining many parts takes long, so servers may say 200 before they know whether it succeeds.
        if query.split('&').any(|word| word.starts_with("uploadId=")) {
            return Some("<CompleteMultipartUploadResult");
        }
        if query.split('&').any(|word| matches!(word, "uploads" | "uploads=")) {
            return Some("<InitiateMultipartUploadResult");
        }
    }
    if query.contains("list-type=2") {
        return Some("<ListBucketResult");
    }
    (query == "delete").then_some("<DeleteResult")
}

/// Some errors come as a success whose body is an error.
async fn understood(root: &'static str, response: HttpResponse) -> Result<HttpResponse, HttpError> {
    let (head, body) = response.into_parts();
    let mut bytes = Vec::new();
    let mut body = body.bytes_stream();
    while let Some(part) = body.next().await {
        bytes.extend_from_slice(&part?);
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err(HttpError::new(HttpErrorKind::Decode, NotS3));
        }
    }
    let begin = String::from_utf8_lossy(&bytes[..bytes.len().min(REFUSAL_BYTES_MAX)]);
    if begin.contains(root) {
        return Ok(HttpResponse::from_parts(head, bytes.into()));
    }
    let refusal = Refusal::of_xml(&begin);
    if refusal.code.is_empty() {
        return Err(HttpError::new(HttpErrorKind::Decode, NotS3));
    }
    Err(HttpError::new(HttpErrorKind::Unknown, Refusal { status: 500, ..refusal }))
}

/// The answer is no XML of S3's.
#[derive(Debug)]
pub(super) struct NotS3;

impl fmt::Display for NotS3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it is not what S3 servers answer")
    }
}

impl std::error::Error for NotS3 {}

/// An answer that is no success.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Refusal {
    pub status: u16,
    /// S3's word for it, `NoSuchKey`; empty when the answer has none (HEAD never has).
    pub code: String,
    /// What the server says to people; may be empty.
    pub message: String,
    /// The server's clock.
    pub date: Option<String>,
    /// Where the bucket really is.
    pub region: Option<String>,
}

impl Refusal {
    fn of_xml(text: &str) -> Refusal {
        let field = |tag: &str| -> Option<String> {
            let (_, rest) = text.split_once(&format!("<{tag}>"))?;
            let (value, _) = rest.split_once(&format!("</{tag}>"))?;
            let value: String = value.chars().filter(|c| !c.is_control()).take(300).collect();
            Some(
                value.replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"),
            )
        };
        Refusal {
            code: field("Code").unwrap_or_default(),
            message: field("Message").unwrap_or_default(),
            region: field("Region"),
            ..Refusal::default()
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        if !self.code.is_empty() {
            write!(f, " {}", self.code)?;
        }
        if !self.message.is_empty() && self.message != "None" {
            write!(f, " ({})", self.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_is_read() {
        let r = Refusal::of_xml(
            "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>a &lt;b&gt; &amp;amp;</Message></Error>",
        );
        assert_eq!((r.code.as_str(), r.message.as_str()), ("AccessDenied", "a <b> &amp;"));
        assert_eq!(Refusal { status: 403, ..r }.to_string(), "403 AccessDenied (a <b> &amp;)");
        for text in ["", "<html>502</html>", "<Code>", "<Code>x", "</Code><Code>"] {
            assert_eq!(Refusal::of_xml(text), Refusal::default(), "{text}");
        }
    }
}
