//! The connection: made, greeted, read, and made again, by one task on a thread of its own.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use granary_core::{Error, Kind, Result};
use tokio::sync::oneshot;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status, Streaming};

use super::core::{Core, released_at_once};
use super::options::TokenProvider;
use crate::wire::bounds::SERVER_FRAME_BYTES_MAX;
use crate::wire::pb::metadata_client::MetadataClient;
use crate::wire::pb::server_item::Item;
use crate::wire::{kind, namespace, pb, required, response, session};

/// One attempt to reach a URL.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// From the first word to the greeting; a service that was just started reads much.
const GREETING_TIMEOUT: Duration = Duration::from_secs(20);
/// Flow control must not stop a batch of answers.
const WINDOW_BYTES: u32 = 4 << 20;

pub(super) struct Linker {
    pub core: Arc<Core>,
    pub urls: Vec<String>,
    pub token: TokenProvider,
    pub tls_ca: Option<Vec<u8>>,
    pub random: Box<dyn FnMut() -> u64 + Send>,
}

/// Why a connection ended, and whether it had been greeted.
struct Ended {
    why: Error,
    greeted: bool,
}

impl Linker {
    /// Until the client is closed. `first` is told once the first connection is greeted, or cannot be.
    pub async fn run(mut self, first: oneshot::Sender<Result<()>>) {
        let mut first = Some(first);
        let begun = self.core.clock.monotonic();
        let mut stop = self.core.stop.subscribe();
        let core = self.core.clone();
        let ticker = tokio::spawn(async move {
            loop {
                tokio::time::sleep(core.tick_interval()).await;
                core.tick();
            }
        });
        let (mut attempt, mut failures) = (0, 0u32);
        while !*stop.borrow() {
            let url = self.urls[attempt % self.urls.len()].clone();
            attempt += 1;
            let ended = tokio::select! {
                ended = self.connection(&url, &mut first) => ended,
                _ = stop.changed() => break,
            };
            self.core.disconnected(&url, &ended.why);
            // It was told, or will not listen.
            let last_word =
                matches!(ended.why.kind(), Kind::Fenced | Kind::Denied | Kind::Invalid | Kind::Unsupported);
            if last_word && self.core.is_leaving() {
                break;
            }
            if let Some(waiting) = first.take() {
                let waited = self.core.clock.monotonic() - begun;
                let final_ = matches!(ended.why.kind(), Kind::Denied | Kind::Invalid | Kind::Unsupported);
                if final_ || waited >= Duration::from_millis(self.core.limits.connect_wait_ms_max) {
                    let _ = waiting.send(Err(self.core.unavailable(&self.core.link(), waited)));
                    break;
                }
                first = Some(waiting);
            }
            failures = if ended.greeted { 0 } else { failures + 1 };
            if failures <= 1 {
                tracing::warn!("the metadata service at {url}: {}; trying again", ended.why);
            }
            let refused = ended.why.kind() == Kind::Denied;
            tokio::select! {
                () = tokio::time::sleep(self.backoff(failures, refused)) => {}
                // There is another token to show.
                () = self.core.cut.notified() => {}
                _ = stop.changed() => break,
            }
        }
        ticker.abort();
        self.core.close();
    }

    /// `refused`: it was the token, which rarely is another soon; a service takes only so many refused ones of an address.
    fn backoff(&mut self, failures: u32, refused: bool) -> Duration {
        let limits = &self.core.limits;
        let max = if refused { limits.refused_backoff_ms_max } else { limits.backoff_ms_max };
        let whole = limits.backoff_ms_min.saturating_mul(1 << failures.min(20)).min(max);
        let jitter = (self.random)() % (whole / 2 + 1);
        Duration::from_millis(whole / 2 + jitter)
    }

    /// One connection, until it ends.
    async fn connection(&mut self, url: &str, first: &mut Option<oneshot::Sender<Result<()>>>) -> Ended {
        let greeting = tokio::time::timeout(GREETING_TIMEOUT, self.greet(url)).await;
        let mut inbound = match greeting {
            Ok(Ok(inbound)) => inbound,
            Ok(Err(why)) => return Ended { why, greeted: false },
            Err(_) => {
                let why = Error::new(Kind::Unavailable, "it did not greet in time");
                return Ended { why, greeted: false };
            }
        };
        self.core.connected(url);
        if self.core.is_leaving() {
            self.core.leave(); // it may not have heard it
        }
        if let Some(first) = first.take() {
            // Who connects may have given up.
            let _ = first.send(Ok(()));
        }
        let why = loop {
            tokio::select! {
                biased;
                frame = inbound.message() => match frame {
                    Ok(Some(frame)) => {
                        if let Err(e) = self.frame(frame) {
                            break e;
                        }
                    }
                    Ok(None) => break Error::new(Kind::Unavailable, "it ended the connection"),
                    Err(status) => break from_status(&status),
                },
                () = self.core.cut.notified() => {
                    let why = "nothing was heard of it for the lease time, or there is a newer token to show";
                    break Error::new(Kind::Unavailable, why);
                }
            }
        };
        Ended { why, greeted: true }
    }

    fn endpoint(&self, url: &str) -> Result<Endpoint> {
        let invalid = |e: tonic::transport::Error| {
            Error::new(Kind::Invalid, format!("the metadata service's address {url:?} cannot be used"))
                .with_source(e)
        };
        let endpoint = Endpoint::from_shared(url.to_owned())
            .map_err(invalid)?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .tcp_keepalive(Some(Duration::from_secs(30)))
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES);
        if !url.starts_with("https:") {
            return Ok(endpoint);
        }
        let Some(ca) = &self.tls_ca else {
            return Err(Error::new(
                Kind::Invalid,
                format!("{url} needs the certificates to trust; give a file of them (meta_ca)"),
            ));
        };
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
        endpoint.tls_config(tls).map_err(invalid)
    }

    async fn greet(&mut self, url: &str) -> Result<Streaming<pb::ServerFrame>> {
        let endpoint = self.endpoint(url)?;
        let token = (self.token)()?;
        let bearer: MetadataValue<Ascii> = format!("Bearer {}", token.trim()).parse().map_err(|_| {
            Error::new(Kind::Denied, "the token holds characters that no token has; is it the right file?")
        })?;
        let channel = endpoint.connect().await.map_err(unreachable)?;
        let mut client = MetadataClient::new(channel).max_decoding_message_size(SERVER_FRAME_BYTES_MAX);
        let (connection, hello, frame) = self.core.hello();
        let mut request = Request::new(Outbound { core: self.core.clone(), connection, hello: Some(frame) });
        request.metadata_mut().insert("authorization", bearer);
        let answer = client.session(request).await.map_err(|status| not_answered(url, &status))?;
        let mut inbound = answer.into_inner();
        let frame = inbound
            .message()
            .await
            .map_err(|status| from_status(&status))?
            .ok_or_else(|| Error::new(Kind::Unavailable, "it ended the connection without a greeting"))?;
        if let Some(pb::ServerItem { item: Some(Item::Ended(failure)) }) = frame.items.first() {
            return Err(self.ended(failure.clone()));
        }
        let greeting = session::decode_greeting(required(frame.greeting, "the greeting")?)?;
        self.core.greeted(&hello, greeting).await?;
        self.core.heard(frame.heard.max(1));
        for item in frame.items {
            self.item(item)?;
        }
        Ok(inbound)
    }

    fn frame(&mut self, frame: pb::ServerFrame) -> Result<()> {
        self.core.heard(frame.heard);
        frame.items.into_iter().try_for_each(|item| self.item(item))?;
        for wire in frame.settings {
            let (ns, settings) = namespace::decode_settings(wire)?;
            self.core.settings(ns, settings);
        }
        Ok(())
    }

    fn item(&mut self, item: pb::ServerItem) -> Result<()> {
        match required(item.item, "the item")? {
            Item::Response(wire) => self.core.answered(response::decode(wire)?),
            Item::Recall(wire) => released_at_once(&self.core, wire)?,
            Item::Ended(failure) => return Err(self.ended(failure)),
        }
        Ok(())
    }

    /// The service's last word.
    fn ended(&mut self, failure: pb::Failure) -> Error {
        let e = kind::decode(failure);
        if e.kind() == Kind::Fenced {
            self.core.fenced(e.to_string());
        }
        e
    }
}

fn unreachable(e: tonic::transport::Error) -> Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&e);
    while let Some(e) = cause {
        // An I/O error shows what it holds only by this.
        let held = e.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let refused = held.and_then(|e| e.downcast_ref()).or_else(|| e.downcast_ref());
        if let Some(rustls::Error::InvalidCertificate(why)) = refused {
            return Error::new(
                Kind::Denied,
                format!(
                    "its certificate is not accepted ({why}); give the authority's certificate with --meta-ca, and reach it by a \
                     name that its own certificate has"
                ),
            );
        }
        cause = e.source();
    }
    Error::new(Kind::Unavailable, "it cannot be reached").with_source(e)
}

fn not_answered(url: &str, status: &Status) -> Error {
    let e = from_status(status);
    // No gRPC at all: this is what TLS looks like to who speaks in the clear.
    let unknown = status.code() == Code::Internal || status.code() == Code::Unknown;
    if unknown && url.starts_with("http:") { e.context("if it serves TLS, it is https://") } else { e }
}

/// The service refuses a token always with the same words; why, its log says.
fn from_status(status: &Status) -> Error {
    let kind = match status.code() {
        Code::Unauthenticated | Code::PermissionDenied => Kind::Denied,
        Code::InvalidArgument => Kind::Invalid,
        Code::Unimplemented => Kind::Unsupported,
        _ => Kind::Unavailable,
    };
    let message = if status.message().is_empty() { "the connection broke" } else { status.message() };
    Error::new(kind, message.to_owned())
}

/// The frames of one connection, as they are asked for.
struct Outbound {
    core: Arc<Core>,
    connection: u64,
    hello: Option<pb::ClientFrame>,
}

impl Stream for Outbound {
    type Item = pb::ClientFrame;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<pb::ClientFrame>> {
        match self.hello.take() {
            Some(hello) => Poll::Ready(Some(hello)),
            None => self.core.poll_frame(self.connection, cx),
        }
    }
}
