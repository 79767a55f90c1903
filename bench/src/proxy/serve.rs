//! The way of a request and of its answer.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self as client, SendRequest};
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::count::{Counted, Counts, Way};
use super::{BUFFER_BYTES, CONNECTIONS_MAX, Schedule};

/// What every connection needs.
#[derive(Clone, Debug)]
pub struct Serving {
    /// `host:port` of the store.
    pub upstream: Arc<str>,
    pub schedule: Arc<Schedule>,
    pub counts: Arc<Counts>,
}

/// Serves who connects, until stopped; then every connection ends.
pub async fn accept(listener: TcpListener, serving: Serving, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let next = async {
            let place = places.clone().acquire_owned().await;
            (place, listener.accept().await)
        };
        tokio::select! {
            () = stop.cancelled() => return,
            Some(_) = connections.join_next() => {} // a client that went away is no news
            (place, accepted) = next => {
                // An error here is of one client that left early, or of file descriptors: those who are served go on.
                let Ok((stream, _)) = accepted else { tokio::task::yield_now().await; continue };
                let serving = serving.clone();
                connections.spawn(async move {
                    let _place = place;
                    let _ = serve(stream, serving).await;
                });
            }
        }
    }
}

/// One client's connection: requests one after another, as HTTP/1.1 has them.
async fn serve(stream: TcpStream, serving: Serving) -> Result<()> {
    stream.set_nodelay(true)?;
    // Where the connection to the store lies between two requests. hyper calls the service for one at a time.
    let upstream = Arc::new(Mutex::new(None));
    let service = service_fn(move |request| {
        let (serving, upstream) = (serving.clone(), upstream.clone());
        async move {
            let kept = upstream.lock().unwrap_or_else(PoisonError::into_inner).take();
            let (response, sender) = pass_on(request, &serving, kept).await?;
            *upstream.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
            Ok::<_, anyhow::Error>(response)
        }
    });
    let mut builder = server::Builder::new();
    builder.max_buf_size(BUFFER_BYTES).preserve_header_case(true);
    builder.serve_connection(TokioIo::new(stream), service).await?;
    Ok(())
}

type Upstream = SendRequest<Counted>;

async fn pass_on(
    request: Request<Incoming>,
    serving: &Serving,
    kept: Option<Upstream>,
) -> Result<(Response<Counted>, Upstream)> {
    let number = serving.counts.number();
    let counter = serving.counts.of(request.method());
    counter.request(serving.schedule.stalls(number));
    let mut sender = ready(kept, &serving.upstream).await?;
    let request = request.map(|body| Counted::new(body, counter.clone(), Way::Sent));
    let response = sender.send_request(request).await.context("the store ended the connection")?;
    tokio::time::sleep(serving.schedule.of(number)).await;
    Ok((response.map(|body| Counted::new(body, counter, Way::Received)), sender))
}

/// The connection to the store, made anew when the store has ended it.
async fn ready(kept: Option<Upstream>, address: &str) -> Result<Upstream> {
    if let Some(mut sender) = kept
        && sender.ready().await.is_ok()
    {
        return Ok(sender);
    }
    connect(address).await
}

async fn connect(address: &str) -> Result<Upstream> {
    let stream = TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true)?;
    let mut builder = client::Builder::new();
    builder.max_buf_size(BUFFER_BYTES).preserve_header_case(true);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    // Ends with its sender, which the client's connection has; how it ends, the sender tells.
    tokio::spawn(connection);
    Ok(sender)
}
