//! The request that turns a connection into one for lending ([`granary_loader::node`]).

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::{HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use granary_core::Kind;
use granary_loader::node::wire::{PROTOCOL, QUESTION_VERSION, SOURCE_HEADER, VERSION_HEADER};
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto::upgrade;
use serde::Deserialize;

use super::{On, Who};
use crate::exit::{Failure, Outcome};
use crate::node::lend::{Ground, serve};
use crate::node::server::Connection;

#[derive(Deserialize)]
pub struct Asked {
    /// Namespace, and a folder of it.
    root: String,
}

pub async fn lend(
    State(node): On,
    ConnectInfo(peer): Who,
    Query(Asked { root }): Query<Asked>,
    mut request: Request<Body>,
) -> Outcome<Response> {
    let wanted = request.headers().get(header::UPGRADE).and_then(|value| value.to_str().ok());
    if wanted != Some(PROTOCOL) {
        return Err(Failure::of_kind(
            Kind::Unsupported,
            format!(
                "this node (version {}) lends by {PROTOCOL}, and was asked for {}; use a loader of the same version",
                env!("CARGO_PKG_VERSION"),
                wanted.unwrap_or("nothing")
            ),
        ));
    }
    let says_version = request.headers().contains_key(VERSION_HEADER);
    let stop = node.stop.begin.clone();
    let ground = Ground::open(node, peer, &root).await?;
    let source = ground.source().map(HeaderValue::from_str).transpose();
    let source =
        source.map_err(|_| Failure::usage("the data set's URL has characters that no header may have"))?;
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        // The caller went away before it heard the answer.
        let Ok(upgraded) = upgraded.await else { return };
        match upgrade::downcast::<TokioIo<Connection>>(upgraded) {
            Ok(parts) => {
                let connection = parts.io.into_inner();
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = serve(Arc::new(ground), connection, parts.read_buf) => {}
                }
            }
            Err(_) => tracing::error!("a connection for lending is no socket of this node"),
        }
    });
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static(PROTOCOL));
    if says_version {
        headers.insert(VERSION_HEADER, HeaderValue::from(u16::from(QUESTION_VERSION)));
    }
    if let Some(source) = source {
        headers.insert(SOURCE_HEADER, source);
    }
    Ok(response)
}
