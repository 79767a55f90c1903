//! A store in a bucket of Ceph RGW, Amazon S3 or their like, below a prefix.
//!
//! One request for each call, none tried again here. A PUT is one plain request with a signed payload: no multipart unless asked
//! for ([`multipart`]; blocks and packs have at most 16 MiB), no trailing checksum (RGW answers 400), nothing conditional (RGW's is partial). Buckets are
//! addressed by path, which every server and every bucket name can do. Deletes go 1,000 to a request.

mod client;
mod error;
mod http;
mod multipart;

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use granary_core::{Error, Kind, Result, Timestamp};
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig};

use super::Options;
use super::aws::Settings;
use crate::api::{ObjectMeta, PartsId, Store};
use crate::key::{check_key, check_range, too_short};
use client::Clients;
use error::{Doing, Place};
use http::Connector;

/// Largest object that is put, in bytes: larger ones want multipart.
const PUT_BYTES_MAX: usize = 64 << 20;
/// Keys in one DeleteObjects request, and in one page of a listing.
const BATCH: usize = 1000;

/// `s3://bucket/prefix`.
pub struct S3Store {
    client: AmazonS3,
    /// Empty, or ends with a slash.
    prefix: String,
    place: Place,
}

/// Without the client, whose settings hold the keys.
impl fmt::Debug for S3Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "S3Store({})", self.place)
    }
}

impl S3Store {
    /// Sends no request.
    ///
    /// Errors: `Denied` when there are no keys; `Invalid` for settings that cannot be.
    pub(super) fn open(
        bucket: &str,
        prefix: &str,
        endpoint: Option<&str>,
        settings: &Settings,
        options: &Options,
    ) -> Result<S3Store> {
        let place = Place {
            bucket: bucket.to_owned(),
            url: if prefix.is_empty() { format!("s3://{bucket}") } else { format!("s3://{bucket}/{prefix}") },
            endpoint: endpoint.map(str::to_owned),
            region: settings.region.clone(),
            timeouts: client::timeouts(options),
        };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(&settings.region)
            .with_virtual_hosted_style_request(false)
            .with_retry(RetryConfig {
                max_retries: 0,
                retry_timeout: Duration::ZERO,
                ..RetryConfig::default()
            });
        match &settings.keys {
            Some(keys) => {
                builder = builder.with_access_key_id(&keys.id).with_secret_access_key(&keys.secret);
                if let Some(token) = &keys.token {
                    builder = builder.with_token(token);
                }
            }
            None => builder = other_keys(builder, options, &place)?,
        }
        let clients = Clients::new(options, endpoint, settings)?;
        if let Some(endpoint) = endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        let client = builder
            .with_client_options(clients.reads)
            .with_http_connector(Connector { timeouts: place.timeouts, writes: clients.writes })
            .build()
            .map_err(|e| {
                Error::new(
                    Kind::Invalid,
                    format!("{place} cannot be used: {e}; check its URL and the AWS_* variables"),
                )
            })?;
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Ok(S3Store { client, prefix, place })
    }

    fn path(&self, key: &str) -> Result<Path> {
        check_key(key)?;
        let full = format!("{}{key}", self.prefix);
        Path::parse(&full)
            .map_err(|e| Error::new(Kind::Invalid, format!("{full:?} cannot be an object's key: {e}")))
    }

    fn meta(&self, meta: &object_store::ObjectMeta) -> Result<ObjectMeta> {
        let Some(key) = meta.location.as_ref().strip_prefix(&self.prefix) else {
            return Err(Error::new(
                Kind::Corrupt,
                format!("{} lists the key {:?}, which was not asked for", self.place, meta.location.as_ref()),
            ));
        };
        Ok(ObjectMeta {
            key: key.to_owned(),
            size: meta.size,
            modified: Timestamp {
                secs: meta.last_modified.timestamp(),
                nanos: meta.last_modified.timestamp_subsec_nanos(),
            },
        })
    }
}

/// The other places where the AWS tools find keys: a web identity (Kubernetes), a container's, an instance's. The last two are
/// Amazon's own, so they are not asked when the endpoint is not.
fn other_keys(mut builder: AmazonS3Builder, options: &Options, place: &Place) -> Result<AmazonS3Builder> {
    let env = &options.environment;
    let of_identity = env.get("AWS_WEB_IDENTITY_TOKEN_FILE").is_some() && env.get("AWS_ROLE_ARN").is_some();
    let of_container = env.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI").is_some()
        || env.get("AWS_CONTAINER_CREDENTIALS_FULL_URI").is_some();
    if place.endpoint.is_some() && !of_identity && !of_container {
        return Err(Error::new(
            Kind::Denied,
            format!(
                "there are no keys for {place}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile in \
                 ~/.aws/credentials"
            ),
        ));
    }
    for (name, value) in env.iter() {
        let lower = name.to_ascii_lowercase();
        let wanted =
            ["aws_web_identity", "aws_role", "aws_container", "aws_endpoint_url_sts", "aws_metadata"];
        if wanted.iter().any(|w| lower.starts_with(w))
            && let Ok(key) = lower.parse::<AmazonS3ConfigKey>()
        {
            builder = builder.with_config(key, value);
        }
    }
    Ok(builder)
}

#[async_trait]
impl Store for S3Store {
    async fn get(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        let path = self.path(key)?;
        let len = check_range(key, &range)?;
        if len == 0 {
            return Ok(Bytes::new());
        }
        let failed = |e| {
            if error::is_past_the_end(&e) {
                return too_short(&self.place.object(key), &range, 0);
            }
            self.place.explain(Doing::Get, key, e)
        };
        let options = GetOptions { range: Some(GetRange::Bounded(range.clone())), ..GetOptions::default() };
        let answer = self.client.get_opts(&path, options).await.map_err(failed)?;
        let told = answer.range.end.saturating_sub(answer.range.start);
        if answer.range != range {
            return Err(too_short(&self.place.object(key), &range, told));
        }
        let mut body = answer.into_stream();
        let first = body.next().await.transpose().map_err(failed)?.unwrap_or_default();
        if first.len() == len {
            // In one piece: not copied. Its end must come, for the connection to be kept.
            return match body.next().await.transpose().map_err(failed)? {
                None => Ok(first),
                Some(more) => Err(too_long(&self.place.object(key), len, first.len() + more.len())),
            };
        }
        let mut bytes = BytesMut::with_capacity(len);
        let mut next = Some(first);
        while let Some(part) = next {
            if bytes.len() + part.len() > len {
                return Err(too_long(&self.place.object(key), len, bytes.len() + part.len()));
            }
            bytes.extend_from_slice(&part);
            next = body.next().await.transpose().map_err(failed)?;
        }
        if bytes.len() < len {
            return Err(too_short(&self.place.object(key), &range, bytes.len() as u64));
        }
        Ok(bytes.freeze())
    }

    async fn put(&self, key: &str, parts: Vec<Bytes>) -> Result<()> {
        let path = self.path(key)?;
        let payload: PutPayload = parts.into_iter().collect();
        if payload.content_length() > PUT_BYTES_MAX {
            return Err(Error::new(
                Kind::Invalid,
                format!("object {key} of {} bytes is too large for one put", payload.content_length()),
            ));
        }
        self.client.put(&path, payload).await.map_err(|e| self.place.explain(Doing::Put, key, e))?;
        Ok(())
    }

    async fn head(&self, key: &str) -> Result<ObjectMeta> {
        let path = self.path(key)?;
        let meta = self.client.head(&path).await.map_err(|e| self.place.explain(Doing::Head, key, e))?;
        self.meta(&meta)
    }

    async fn delete(&self, keys: Vec<String>) -> Result<()> {
        let paths = keys.iter().map(|key| self.path(key)).collect::<Result<Vec<_>>>()?;
        for batch in paths.chunks(BATCH) {
            let batch: Vec<_> = batch.iter().cloned().map(Ok).collect();
            let mut answers = self.client.delete_stream(futures::stream::iter(batch).boxed());
            loop {
                match answers.try_next().await {
                    Ok(None) => break,
                    Ok(Some(_)) => {}
                    Err(e) if error::is_absent(&e) => {}
                    Err(e) => return Err(self.place.explain(Doing::Delete, "", e)),
                }
            }
        }
        Ok(())
    }

    async fn list(&self, prefix: &str, after: Option<&str>, max: usize) -> Result<Vec<ObjectMeta>> {
        let full = format!("{}{prefix}", self.prefix);
        let mut found: Vec<ObjectMeta> = Vec::new();
        let mut token = None;
        while found.len() < max {
            let options = PaginatedListOptions {
                offset: after.filter(|_| token.is_none()).map(|after| format!("{}{after}", self.prefix)),
                max_keys: Some((max - found.len()).min(BATCH)),
                page_token: token.take(),
                ..PaginatedListOptions::default()
            };
            let asked = Some(full.as_str()).filter(|p| !p.is_empty());
            let page = self
                .client
                .list_paginated(asked, options)
                .await
                .map_err(|e| self.place.explain(Doing::List, prefix, e))?;
            for object in &page.result.objects {
                let meta = self.meta(object)?;
                let before = found.last().map(|m| m.key.as_str()).or(after);
                if !meta.key.starts_with(prefix) || before.is_some_and(|before| before >= meta.key.as_str()) {
                    return Err(Error::new(
                        Kind::Unsupported,
                        format!(
                            "{} lists its keys out of order at {:?}; granary did not write this key, or the server is not one \
                             granary can use; give the volume a prefix of its own",
                            self.place, meta.key
                        ),
                    ));
                }
                found.push(meta);
            }
            token = page.page_token;
            if token.is_none() {
                break;
            }
        }
        found.truncate(max);
        Ok(found)
    }

    async fn begin(&self, key: &str) -> Result<PartsId> {
        multipart::begin(self, key).await
    }

    async fn put_part(&self, parts: &PartsId, number: u32, bytes: Vec<Bytes>) -> Result<String> {
        multipart::put_part(self, parts, number, bytes).await
    }

    async fn finish(&self, parts: &PartsId, tags: Vec<String>) -> Result<()> {
        multipart::finish(self, parts, tags).await
    }

    async fn abort(&self, parts: &PartsId) -> Result<()> {
        multipart::abort(self, parts).await
    }

    fn describe(&self) -> String {
        self.place.to_string()
    }
}

fn too_long(name: &str, asked: usize, got: usize) -> Error {
    Error::new(Kind::Corrupt, format!("{name}: {asked} bytes were asked for, the store gave {got} or more"))
}
