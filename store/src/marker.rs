//! The object `granary-volume`, which says that a store holds a volume, and which: so that two volumes are never mixed in one
//! place, and metadata is never used with another volume's store.
//!
//! It is JSON, so that a person finds out what the bucket is: `{"granary":"volume","format":1,"uuid":"<32 hexadecimal digits>"}`.

use bytes::Bytes;
use granary_core::{Error, Kind, Result};
use serde::{Deserialize, Serialize};

use crate::api::Store;

pub const KEY: &str = "granary-volume";
/// The newest format of a volume's store that this program knows.
pub const FORMAT: u32 = 1;

const BYTES_MAX: u64 = 4096;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// Always `volume`.
    granary: String,
    pub format: u32,
    pub uuid: String,
}

/// Makes the store the volume's. Nothing changes when it already is.
///
/// Errors: `Exists` when it is another volume's; otherwise what the store says.
pub async fn write(store: &dyn Store, uuid: &str) -> Result<()> {
    check_uuid(uuid)?;
    if refuse_other(store, uuid).await? {
        return Ok(());
    }
    let marker = Marker { granary: "volume".to_owned(), format: FORMAT, uuid: uuid.to_owned() };
    let mut json = serde_json::to_vec(&marker)
        .map_err(|e| Error::new(Kind::Bug, "the volume's marker cannot be written").with_source(e))?;
    json.push(b'\n');
    store.put(KEY, vec![Bytes::from(json)]).await?;
    // Another `granary init` may have come between: one of the two reads the other's here, and stops.
    if refuse_other(store, uuid).await? {
        return Ok(());
    }
    Err(Error::new(
        Kind::Corrupt,
        format!("{} does not show the object {KEY} just written", store.describe()),
    ))
}

/// The store is this volume's.
///
/// Errors: `NotFound` when it is nobody's; `Invalid` when it is another volume's; `Unsupported` when a newer program
/// made it; otherwise what the store says.
pub async fn check(store: &dyn Store, uuid: &str) -> Result<()> {
    let place = store.describe();
    match read(store).await? {
        None => Err(Error::new(
            Kind::NotFound,
            format!(
                "{place} holds no granary volume; check the store's URL, or make a volume with `granary init`"
            ),
        )),
        Some(marker) if marker.uuid != uuid => Err(Error::new(
            Kind::Invalid,
            format!(
                "{place} holds volume {}, the metadata is of volume {uuid}; give the store and the metadata of one volume",
                marker.uuid
            ),
        )),
        Some(_) => Ok(()),
    }
}

/// The store's marker, `None` when it has none.
///
/// Errors: `Corrupt`; `Unsupported` when a newer program made it; otherwise what the store says.
pub async fn read(store: &dyn Store) -> Result<Option<Marker>> {
    let damaged = |why: String| {
        Error::new(
            Kind::Corrupt,
            format!(
                "the object {KEY} in {} is damaged: {why}; restore it, or use an empty place",
                store.describe()
            ),
        )
    };
    let size = match store.head(KEY).await {
        Ok(meta) => meta.size,
        Err(e) if e.kind() == Kind::NotFound => {
            // HEAD cannot tell a missing bucket from a missing object; a listing can.
            store.list(KEY, None, 1).await?;
            return Ok(None);
        }
        Err(e) => return Err(e),
    };
    if size == 0 || size > BYTES_MAX {
        return Err(damaged(format!("it has {size} bytes")));
    }
    let bytes = store.get(KEY, 0..size).await?;
    let marker: Marker = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
    if marker.granary != "volume" {
        return Err(damaged("it is no volume's".to_owned()));
    }
    if marker.format > FORMAT {
        return Err(Error::new(
            Kind::Unsupported,
            format!(
                "{} holds a volume of format {}, this program knows up to {FORMAT}; use a newer granary",
                store.describe(),
                marker.format
            ),
        ));
    }
    check_uuid(&marker.uuid).map_err(|e| damaged(e.to_string()))?;
    Ok(Some(marker))
}

/// Whether the marker is there and ours.
async fn refuse_other(store: &dyn Store, uuid: &str) -> Result<bool> {
    match read(store).await? {
        None => Ok(false),
        Some(marker) if marker.uuid == uuid => Ok(true),
        Some(marker) => Err(Error::new(
            Kind::Exists,
            format!(
                "{} already holds volume {}; give the new volume another bucket, prefix or folder",
                store.describe(),
                marker.uuid
            ),
        )),
    }
}

fn check_uuid(uuid: &str) -> Result<()> {
    if uuid.len() == 32 && uuid.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Ok(());
    }
    Err(Error::new(
        Kind::Invalid,
        format!("{uuid:?} is no volume's uuid (32 hexadecimal digits, small letters)"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryStore;

    const ONE: &str = "0123456789abcdef0123456789abcdef";
    const TWO: &str = "ffffffffffffffffffffffffffffffff";

    #[tokio::test]
    async fn one_store_is_one_volumes() {
        let store = MemoryStore::default();
        let e = check(&store, ONE).await.unwrap_err();
        assert_eq!(e.kind(), Kind::NotFound);
        assert!(e.to_string().contains("granary init"), "{e}");
        write(&store, ONE).await.unwrap();
        write(&store, ONE).await.unwrap();
        check(&store, ONE).await.unwrap();
        assert_eq!(
            store.object(KEY).unwrap(),
            format!("{{\"granary\":\"volume\",\"format\":1,\"uuid\":\"{ONE}\"}}\n")
        );
        let e = write(&store, TWO).await.unwrap_err();
        assert_eq!(e.kind(), Kind::Exists);
        assert!(e.to_string().contains(ONE), "{e}");
        let e = check(&store, TWO).await.unwrap_err();
        assert_eq!(e.kind(), Kind::Invalid);
        assert!(e.to_string().contains(ONE) && e.to_string().contains(TWO), "{e}");
        assert_eq!(write(&store, "xyz").await.unwrap_err().kind(), Kind::Invalid);
    }

    #[tokio::test]
    async fn damaged_and_newer_markers_are_told_apart() {
        let store = MemoryStore::default();
        for (json, kind) in [
            ("", Kind::Corrupt),
            ("{", Kind::Corrupt),
            (
                "{\"granary\":\"pack\",\"format\":1,\"uuid\":\"0123456789abcdef0123456789abcdef\"}",
                Kind::Corrupt,
            ),
            ("{\"granary\":\"volume\",\"format\":1,\"uuid\":\"short\"}", Kind::Corrupt),
            ("{\"granary\":\"volume\",\"format\":2,\"uuid\":\"x\"}", Kind::Unsupported),
        ] {
            store.tamper(KEY, Bytes::from_static(json.as_bytes()));
            assert_eq!(check(&store, ONE).await.unwrap_err().kind(), kind, "{json}");
            assert_eq!(write(&store, ONE).await.unwrap_err().kind(), kind, "{json}");
        }
        store.tamper(KEY, Bytes::from(vec![b' '; 5000]));
        assert_eq!(check(&store, ONE).await.unwrap_err().kind(), Kind::Corrupt);
    }
}
