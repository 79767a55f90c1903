//! Objects that come in parts: S3's multipart upload, one request for each call.
//!
//! | call | request |
//! |---|---|
//! | begin | `POST key?uploads` |
//! | part | `PUT key?partNumber=N&uploadId=ID`, numbers from 1; 5 MiB at least but for the last, 10,000 at most |
//! | finish | `POST key?uploadId=ID` with the parts' tags |
//! | abort | `DELETE key?uploadId=ID` |
//!
//! What a killed process began stays in the bucket, unseen, until a rule of the bucket (`AbortIncompleteMultipartUpload`) ends it.

use bytes::Bytes;
use granary_core::{Error, Kind, Result};
use object_store::PutPayload;
use object_store::multipart::{MultipartStore, PartId};

use super::error::Doing;
use super::{PUT_BYTES_MAX, S3Store};
use crate::api::PartsId;
use crate::upload::PARTS_MAX;

pub(super) async fn begin(store: &S3Store, key: &str) -> Result<PartsId> {
    let path = store.path(key)?;
    let id =
        store.client.create_multipart(&path).await.map_err(|e| store.place.explain(Doing::Put, key, e))?;
    Ok(PartsId { key: key.to_owned(), id })
}

pub(super) async fn put_part(
    store: &S3Store,
    parts: &PartsId,
    number: u32,
    bytes: Vec<Bytes>,
) -> Result<String> {
    let PartsId { key, id } = parts;
    let path = store.path(key)?;
    let payload: PutPayload = bytes.into_iter().collect();
    if number >= PARTS_MAX || payload.content_length() > PUT_BYTES_MAX {
        let len = payload.content_length();
        return Err(Error::new(
            Kind::Invalid,
            format!("part {number} of object {key}, {len} bytes, cannot be put"),
        ));
    }
    let part = store.client.put_part(&path, id, number as usize, payload).await;
    Ok(part.map_err(|e| store.place.explain(Doing::Put, key, e))?.content_id)
}

pub(super) async fn finish(store: &S3Store, parts: &PartsId, tags: Vec<String>) -> Result<()> {
    let PartsId { key, id } = parts;
    let path = store.path(key)?;
    if tags.is_empty() {
        return Err(Error::new(Kind::Invalid, format!("object {key} has no parts")));
    }
    let tags = tags.into_iter().map(|content_id| PartId { content_id }).collect();
    let done = store.client.complete_multipart(&path, id, tags).await;
    done.map_err(|e| store.place.explain(Doing::Put, key, e))?;
    Ok(())
}

pub(super) async fn abort(store: &S3Store, parts: &PartsId) -> Result<()> {
    let PartsId { key, id } = parts;
    let path = store.path(key)?;
    let aborted = store.client.abort_multipart(&path, id).await;
    match aborted.map_err(|e| store.place.explain(Doing::Delete, key, e)) {
        Err(e) if e.kind() != Kind::NotFound => Err(e),
        _ => Ok(()),
    }
}
