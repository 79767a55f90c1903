//! Reading objects without the metadata, for tools that check or rebuild.

use granary_core::limits::OBJECT_BYTES_MAX;
use granary_core::{Error, Kind, Result};

use crate::api::{ObjectMeta, Store};
use crate::format::{FOOTER_BYTES_MAX, Footer, Object, Trailer, decode_object};

/// Bytes at an object's end that are asked for first: enough for every block's footer, and most packs'.
const FIRST_BYTES: u64 = 64 << 10;

/// An object's footer, by one or two range reads.
///
/// Errors: `Corrupt` names the object; otherwise what the store says.
pub async fn read_footer(store: &dyn Store, object: &ObjectMeta) -> Result<Footer> {
    let named = |e: Error| e.context(format!("{} in {}", object.key, store.describe()));
    check_size(object).map_err(named)?;
    let from = object.size.saturating_sub(FIRST_BYTES);
    let mut tail = store.get(&object.key, from..object.size).await?;
    let len = Trailer::parse_end(&tail).map_err(named)?.footer_and_trailer_len();
    if len > tail.len() as u64 {
        // The trailer bounds it to `FOOTER_BYTES_MAX`.
        debug_assert!(len <= FOOTER_BYTES_MAX);
        let from = object.size.checked_sub(len).ok_or_else(|| named(too_small()))?;
        tail = store.get(&object.key, from..object.size).await?;
    }
    let footer = tail.len() - len as usize;
    Footer::parse(&tail[footer..], object.size - len).map_err(named)
}

/// A whole object, every byte verified. Holds up to 16 MiB.
///
/// Errors: `Corrupt` names the object; otherwise what the store says.
pub async fn read_object(store: &dyn Store, object: &ObjectMeta) -> Result<Object> {
    let named = |e: Error| e.context(format!("{} in {}", object.key, store.describe()));
    check_size(object).map_err(named)?;
    let bytes = store.get(&object.key, 0..object.size).await?;
    decode_object(&bytes).map_err(named)
}

fn check_size(object: &ObjectMeta) -> Result<()> {
    if object.size > OBJECT_BYTES_MAX {
        return Err(Error::new(
            Kind::Corrupt,
            format!("its {} bytes are more than an object may have", object.size),
        ));
    }
    Ok(())
}

fn too_small() -> Error {
    Error::new(Kind::Corrupt, "its footer would be longer than the object")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use granary_core::{Ino, NamespaceId, ObjectId};

    use super::*;
    use crate::MemoryStore;
    use crate::format::{Content, NewEntry, PackBuilder, Sealed};

    fn pack(files: u64) -> Sealed {
        let mut b = PackBuilder::new(NamespaceId(1), ObjectId::new(1, 2));
        for i in 1..=files {
            let data = Bytes::from(format!("file {i}"));
            let entry = NewEntry {
                ino: Ino(i),
                parent: Ino(1),
                file_offset: 0,
                crc: granary_core::crc32c(&data),
                name: vec![b'n'; 100],
            };
            b.push(entry, vec![data]).unwrap();
        }
        b.seal().unwrap()
    }

    #[tokio::test]
    async fn footers_are_found_from_the_end_short_and_long() {
        let store = MemoryStore::default();
        for files in [1, 2_000] {
            let sealed = pack(files);
            store.put(&sealed.key(), sealed.parts()).await.unwrap();
            let meta = store.head(&sealed.key()).await.unwrap();
            let footer = read_footer(&store, &meta).await.unwrap();
            let Content::Pack(entries) = &footer.content else { panic!("no pack") };
            assert_eq!(entries.len() as u64, files);
            assert_eq!(footer, read_object(&store, &meta).await.unwrap().footer);
        }
    }

    #[tokio::test]
    async fn damage_names_the_object() {
        let store = MemoryStore::default();
        let sealed = pack(3);
        let whole = sealed.parts().concat();
        for cut in [0, 1, whole.len() - 40, whole.len() - 1] {
            store.tamper("k", Bytes::from(whole[cut + 1..].to_vec()));
            let meta = store.head("k").await.unwrap();
            if meta.size > 0 {
                let e = read_object(&store, &meta).await.unwrap_err();
                assert_eq!(e.kind(), Kind::Corrupt);
                assert!(e.to_string().starts_with("k in memory:"), "{e}");
            }
            assert_eq!(read_footer(&store, &meta).await.unwrap_err().kind(), Kind::Corrupt, "cut {cut}");
        }
    }
}
