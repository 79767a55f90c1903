//! The store of a packed namespace, as the read cache asks it: an object's payload is read from its shard, its footer is made.

use std::fmt;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use granary_core::id::parse_object_key;
use granary_core::limits::FRAME_BYTES;
use granary_core::{Error, Kind, NamespaceId, Result};
use granary_packer::place::Place;
use granary_packer::trailer::Trailer;
use granary_store::format::footer_of_part;
use granary_store::{ObjectMeta, Store};

use super::{Piece, Shards, TRAILER, Which};

/// Of one version. It only reads.
pub struct ShardStore {
    ns: NamespaceId,
    shards: Arc<Shards>,
    place: Place,
}

impl fmt::Debug for ShardStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardStore").field("ns", &self.ns).field("place", &self.place).finish_non_exhaustive()
    }
}

fn read_only<T>() -> Result<T> {
    Err(Error::new(Kind::ReadOnly, "a packed data set is not written to through its namespace"))
}

impl ShardStore {
    pub fn new(ns: NamespaceId, shards: Arc<Shards>, place: Place) -> ShardStore {
        ShardStore { ns, shards, place }
    }

    fn piece(&self, key: &str) -> Result<Piece> {
        let id = parse_object_key(key).filter(|(ns, ..)| *ns == self.ns).map(|(.., id)| id);
        id.and_then(|id| self.shards.piece_of(id)).ok_or_else(|| {
            Error::new(Kind::NotFound, format!("no shard of this version of {} has {key}", self.place))
        })
    }

    /// Bytes of a piece's payload.
    async fn payload(&self, piece: &Piece, range: Range<u64>) -> Result<Bytes> {
        let known = self.shards.known(piece.shard)?;
        let at = piece.start + range.start..piece.start + range.end;
        if piece.which == Which::Index {
            return read_file(known.index_file.clone(), at).await;
        }
        let bytes =
            self.place.get(&known.path, at).await.map_err(|e| missing(e, &known.path, &self.place))?;
        if piece.number != TRAILER {
            self.check(piece, range.start, &bytes)?;
        }
        Ok(bytes)
    }

    /// The frames that are whole among these bytes match their checksums. The cache verifies them again; here the shard and the
    /// place in it can be told.
    fn check(&self, piece: &Piece, offset: u64, bytes: &Bytes) -> Result<()> {
        let known = self.shards.known(piece.shard)?;
        let end = offset + bytes.len() as u64;
        let mut at = offset.next_multiple_of(FRAME_BYTES);
        while at < end {
            let to = (at + FRAME_BYTES).min(piece.len);
            if to > end {
                break;
            }
            let frame = ((piece.start + at) / FRAME_BYTES) as u32;
            if granary_core::crc32c(&bytes[(at - offset) as usize..(to - offset) as usize])
                != known.index.frame(frame)?
            {
                return Err(Error::new(
                    Kind::Corrupt,
                    format!(
                        "shard {} of {} is damaged: its bytes {}..{} do not match their checksum; restore it from a copy",
                        known.path,
                        self.place,
                        piece.start + at,
                        piece.start + to
                    ),
                ));
            }
            at = to;
        }
        Ok(())
    }

    async fn footer(&self, piece: &Piece) -> Result<Bytes> {
        let Some(id) = self.shards.id(piece) else {
            return Err(Error::new(Kind::Bug, "a piece of a shard has no object id"));
        };
        let sums = match (piece.which, piece.number) {
            (Which::Tar, TRAILER) => {
                let bytes = self.payload(piece, 0..piece.len).await?;
                // It has a checksum of its own.
                let known = self.shards.known(piece.shard)?;
                Trailer::parse_end(&bytes, known.bytes)
                    .map_err(|e| e.context(format_args!("shard {} of {}", known.path, self.place)))?;
                sums_of(&bytes)
            }
            (Which::Tar, _) => self.shards.frames(piece)?,
            // A node's own copy, which was verified when it was opened.
            (Which::Index, _) => sums_of(&self.payload(piece, 0..piece.len).await?),
        };
        footer_of_part(self.ns, id, piece.len, &sums)
    }
}

fn sums_of(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks(FRAME_BYTES as usize).map(granary_core::crc32c).collect()
}

fn missing(e: Error, path: &str, place: &Place) -> Error {
    match e.kind() {
        // What is missing is no name that a program asked for.
        Kind::NotFound => {
            Error::new(Kind::Corrupt, format!("shard {path} of {place} is missing; restore it from a copy"))
        }
        _ => e.context(format_args!("shard {path} of {place}")),
    }
}

async fn read_file(path: PathBuf, range: Range<u64>) -> Result<Bytes> {
    let name = path.display().to_string();
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        std::fs::File::open(&path)?.read_exact_at(&mut bytes, range.start).map(|()| Bytes::from(bytes))
    });
    match read.await {
        Ok(read) => read.map_err(|e| Error::io(format!("cannot read {name}"), e)),
        Err(e) => Err(Error::new(Kind::Bug, "reading an index ended early").with_source(e)),
    }
}

#[async_trait]
impl Store for ShardStore {
    async fn get(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        let piece = self.piece(key)?;
        let payload = range.start.min(piece.len)..range.end.min(piece.len);
        let bytes = match payload.is_empty() {
            true => Bytes::new(),
            false => self.payload(&piece, payload).await?,
        };
        if range.end <= piece.len {
            return Ok(bytes);
        }
        let footer = self.footer(&piece).await?;
        let (from, to) = (range.start.saturating_sub(piece.len), range.end - piece.len);
        if to > footer.len() as u64 || from > to {
            return Err(Error::new(Kind::Bug, format!("bytes {range:?} of {key} are past its end")));
        }
        let footer = footer.slice(from as usize..to as usize);
        if bytes.is_empty() {
            return Ok(footer);
        }
        let mut both = BytesMut::with_capacity(bytes.len() + footer.len());
        both.extend_from_slice(&bytes);
        both.extend_from_slice(&footer);
        Ok(both.freeze())
    }

    async fn put(&self, _key: &str, _parts: Vec<Bytes>) -> Result<()> {
        read_only()
    }

    async fn head(&self, key: &str) -> Result<ObjectMeta> {
        let piece = self.piece(key)?;
        let known = self.shards.known(piece.shard)?;
        let modified = match piece.which {
            Which::Tar => {
                self.place.head(&known.path).await.map_err(|e| missing(e, &known.path, &self.place))?.modified
            }
            Which::Index => granary_core::Timestamp { secs: 0, nanos: 0 },
        };
        let size = piece.len + granary_store::format::part_footer_len(piece.len);
        Ok(ObjectMeta { key: key.to_owned(), size, modified })
    }

    async fn delete(&self, _keys: Vec<String>) -> Result<()> {
        read_only()
    }

    /// Nothing: what is there are shards.
    async fn list(&self, _prefix: &str, _after: Option<&str>, _max: usize) -> Result<Vec<ObjectMeta>> {
        Ok(Vec::new())
    }

    fn describe(&self) -> String {
        self.place.to_string()
    }
}
