//! Talking to the node process over its socket, from short-lived commands.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::exit::{Failure, Outcome, plain};
use crate::wire::{SyncLine, WarmLine, WarmRequest, WarmStatus, WorkLine};

/// An answer of the node is at most this long (a metrics page, a list of namespaces).
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// A line of progress is at most this long; the last may hold a whole report.
const LINE_BYTES_MAX: usize = ANSWER_BYTES_MAX;

/// The node's socket. Each request has a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    pub fn new(socket: &Path) -> Client {
        Client { socket: socket.to_owned() }
    }

    /// Whether somebody listens: `Ok(false)` when nobody does.
    pub async fn is_there(&self) -> Outcome<bool> {
        match UnixStream::connect(&self.socket).await {
            Ok(_) => Ok(true),
            Err(e) if nobody(&e) => Ok(false),
            Err(e) => Err(self.unreachable(&e)),
        }
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Outcome<T> {
        let answer = self.send(Method::GET, path, Bytes::new()).await?;
        self.parse(self.body(answer).await?)
    }

    pub async fn text(&self, path: &str) -> Outcome<String> {
        let answer = self.send(Method::GET, path, Bytes::new()).await?;
        Ok(String::from_utf8_lossy(&self.body(answer).await?).into_owned())
    }

    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Outcome<T> {
        let answer = self.send(Method::POST, path, encode(body)?).await?;
        self.parse(self.body(answer).await?)
    }

    /// Sends a request whose answer is lines of progress, and gives each to `on_line` until the last.
    pub async fn follow(
        &self,
        path: &str,
        body: &impl Serialize,
        mut on_line: impl FnMut(&SyncLine),
    ) -> Outcome<()> {
        let lines = self.lines(path, body, |line: SyncLine| {
            on_line(&line);
            match line {
                SyncLine::Progress { .. } => Ok(None),
                SyncLine::Done | SyncLine::Drained(_) => Ok(Some(())),
                SyncLine::Failed(failure) => Err(failure),
            }
        });
        lines.await
    }

    /// Slow requests as they come, until `on_line` has enough.
    pub async fn watch(
        &self,
        request: &crate::wire::observe::TraceRequest,
        on_line: impl FnMut(crate::wire::observe::TraceLine) -> Outcome<Option<()>>,
    ) -> Outcome<()> {
        self.lines("/v1/trace", request, on_line).await
    }

    /// The same for a long work, whose last line is its result.
    pub async fn work<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        mut on_step: impl FnMut(&granary_maintain::progress::Step),
    ) -> Outcome<T> {
        let lines = self.lines(path, body, |line: WorkLine<T>| match line {
            WorkLine::Progress(step) => {
                on_step(&step);
                Ok(None)
            }
            WorkLine::Done(result) => Ok(Some(result)),
            WorkLine::Failed(failure) => Err(failure),
        });
        lines.await
    }

    /// The same for a warmup: what came of it.
    pub async fn warm(
        &self,
        request: &WarmRequest,
        mut on_status: impl FnMut(&WarmStatus),
    ) -> Outcome<WarmStatus> {
        let lines = self.lines("/v1/warmup", request, |line: WarmLine| match line {
            WarmLine::Progress(status) => {
                on_status(&status);
                Ok(None)
            }
            WarmLine::Done(status) => Ok(Some(status)),
            WarmLine::Failed(failure) => Err(failure),
        });
        lines.await
    }

    /// Gives all bytes of an answer to `take`, as they come.
    pub async fn download(&self, path: &str, mut take: impl FnMut(&[u8]) -> Outcome<()>) -> Outcome<()> {
        let mut answer = self.send(Method::GET, path, Bytes::new()).await?;
        while let Some(frame) = answer.frame().await {
            let frame = frame.map_err(|e| self.broken(&e))?;
            take(frame.data_ref().map_or(&[][..], |d| d))?;
        }
        Ok(())
    }

    /// Gives each line of the answer to `on_line`, until that has a result.
    async fn lines<L: DeserializeOwned, T>(
        &self,
        path: &str,
        body: &impl Serialize,
        mut on_line: impl FnMut(L) -> Outcome<Option<T>>,
    ) -> Outcome<T> {
        let mut answer = self.send(Method::POST, path, encode(body)?).await?;
        let mut buffer = Vec::new();
        while let Some(frame) = answer.frame().await {
            let frame = frame.map_err(|e| self.broken(&e))?;
            buffer.extend_from_slice(frame.data_ref().map_or(&[][..], |d| d));
            while let Some(end) = buffer.iter().position(|&b| b == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                if let Some(result) = on_line(self.parse(line.into())?)? {
                    return Ok(result);
                }
            }
            if buffer.len() > LINE_BYTES_MAX {
                return Err(self.strange());
            }
        }
        Err(Failure::failed(format!(
            "the node at {} stopped before it was done; what was written is kept on its disk: start it again and repeat",
            self.socket.display()
        )))
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Outcome<Response<Incoming>> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|e| self.unreachable(&e))?;
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .handshake::<_, Full<Bytes>>(TokioIo::new(stream))
            .await
            .map_err(|e| self.broken(&e))?;
        // Ends by itself with the answer's last byte, or when this command ends.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "granary")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(|e| Failure::failed(format!("cannot form the request {path}: {e}")))?;
        let answer = sender.send_request(request).await.map_err(|e| self.broken(&e))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let body = self.body(answer).await?;
        Err(serde_json::from_slice::<Failure>(&body).unwrap_or_else(|_| {
            Failure::failed(format!(
                "the node at {} answered {status} to {path}; it may be of another version than this command: \
                 restart it with `granary node stop`",
                self.socket.display()
            ))
        }))
    }

    async fn body(&self, answer: Response<Incoming>) -> Outcome<Bytes> {
        let body = http_body_util::Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
        Ok(body.collect().await.map_err(|e| self.broken(&*e))?.to_bytes())
    }

    fn parse<T: DeserializeOwned>(&self, body: Bytes) -> Outcome<T> {
        serde_json::from_slice(&body).map_err(|_| self.strange())
    }

    fn unreachable(&self, e: &std::io::Error) -> Failure {
        let socket = self.socket.display();
        if nobody(e) {
            return Failure::failed(format!(
                "no node is running at {socket}; start one with `granary node`, or name another with --socket"
            ));
        }
        Failure::failed(format!("cannot reach the node at {socket}: {}", plain(e)))
    }

    fn broken(&self, e: &dyn std::fmt::Display) -> Failure {
        Failure::failed(format!(
            "the connection to the node at {} broke ({e}); see its log, and `granary status`",
            self.socket.display()
        ))
    }

    fn strange(&self) -> Failure {
        Failure::failed(format!(
            "the node at {} gave an answer this command does not understand; it may be of another version: \
             restart it with `granary node stop`",
            self.socket.display()
        ))
    }
}

fn encode(body: &impl Serialize) -> Outcome<Bytes> {
    serde_json::to_vec(body)
        .map(Bytes::from)
        .map_err(|e| Failure::failed(format!("cannot form the request: {e}")))
}

/// No socket, or nobody behind it.
fn nobody(e: &std::io::Error) -> bool {
    matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused)
}

/// Runs a command's conversation on a small runtime of its own.
pub fn block_on<T>(work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::io("cannot start the command's runtime", &e))?;
    let outcome = runtime.block_on(work);
    runtime.shutdown_timeout(Duration::from_millis(100));
    outcome
}
