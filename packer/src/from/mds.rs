//! MosaicML shards (MDS), as `streaming.MDSWriter` writes them: `index.json` and the shards it names
//! (mosaicml-streaming, `streaming/base/format/mds`).
//!
//! ```text
//! shard  = u32 number of samples n | (n + 1) u32 offsets | a description, JSON | samples          little-endian
//! sample = u32 size of each column whose size is not fixed | the columns one after another
//! ```
//!
//! Each column is a file: `0000000012.image.jpeg`, the number that of the sample in its index, the extension its encoding (`str`
//! gives `txt`, `bytes` gives `bin`). Columns of type `int` become decimal text, `txt`; others stay as they are encoded. Several
//! `index.json` give several folders. Compressed shards are taken when the plain ones lie beside them.

use granary_core::{Error, Kind, Result};
use serde::Deserialize;
use tokio::runtime::Handle;

use super::containers::{Container, Cursor};
use super::{Sink, plain_entry};
use crate::pack::entry::Content;
use crate::place::Place;

/// Bytes of one `index.json`.
const INDEX_BYTES_MAX: u64 = 256 << 20;
const COLUMNS_MAX: usize = 10_000;

/// What an index says of one shard.
#[derive(Clone, Debug)]
pub struct Shard {
    /// Of its files: the index's folder.
    folder: String,
    /// Number of its first sample in its index.
    first: u64,
    samples: u32,
    mtime: i64,
    columns: Vec<Column>,
}

#[derive(Clone, Debug)]
struct Column {
    /// Of a file: `image.jpeg`.
    suffix: String,
    fixed: Option<u64>,
    is_int: bool,
}

#[derive(Deserialize)]
struct Index {
    shards: Vec<Line>,
}

#[derive(Deserialize)]
struct Line {
    format: String,
    #[serde(default)]
    column_names: Vec<String>,
    #[serde(default)]
    column_encodings: Vec<String>,
    #[serde(default)]
    column_sizes: Vec<Option<u64>>,
    raw_data: Raw,
    samples: u32,
}

#[derive(Deserialize)]
struct Raw {
    basename: String,
}

/// The shards that indexes name, and what they say of them.
///
/// Errors: `Corrupt`, `Unsupported` name the index; `NotFound` a shard that is only there compressed, or not at all.
pub fn shards(
    place: &Place,
    indexes: &[Container],
    runtime: &Handle,
) -> Result<(Vec<Container>, Vec<Shard>)> {
    let (mut containers, mut tables) = (Vec::new(), Vec::new());
    for index in indexes {
        let of = format!("{place}/{}", index.name);
        let bytes = runtime.block_on(place.read_whole(&index.name, INDEX_BYTES_MAX))?;
        let parsed: Index = serde_json::from_slice(&bytes)
            .map_err(|e| Error::new(Kind::Corrupt, format!("{of} is no index of MosaicML shards: {e}")))?;
        let folder = index.name.rsplit_once('/').map_or("", |(folder, _)| folder);
        let mut first = 0;
        for line in parsed.shards {
            if line.format != "mds" {
                return Err(Error::new(
                    Kind::Unsupported,
                    format!("{of} names shards of format {:?}; only mds can be packed", line.format),
                ));
            }
            let base = &line.raw_data.basename;
            let name = if folder.is_empty() { base.clone() } else { format!("{folder}/{base}") };
            let found = runtime.block_on(place.head(&name)).map_err(|e| match e.kind() {
                Kind::NotFound => Error::new(
                    Kind::NotFound,
                    format!("{place}/{name}, which {of} names, is not there; are the shards compressed? decompress them beside it first"),
                ),
                _ => e,
            })?;
            let mut columns = columns(&line).ok_or_else(|| {
                Error::new(Kind::Corrupt, format!("{of} has columns of {base} that cannot be"))
            })?;
            columns.shrink_to_fit();
            tables.push(Shard {
                folder: folder.to_owned(),
                first,
                samples: line.samples,
                mtime: found.modified.secs,
                columns,
            });
            first += u64::from(line.samples);
            containers.push(super::containers::container(found));
        }
    }
    Ok((containers, tables))
}

fn columns(line: &Line) -> Option<Vec<Column>> {
    let count = line.column_names.len();
    if count == 0
        || count > COLUMNS_MAX
        || [line.column_encodings.len(), line.column_sizes.len()] != [count; 2]
    {
        return None;
    }
    let column = |n: usize| {
        let plain = |text: &str| -> String {
            text.chars().map(|c| if c.is_alphanumeric() || c == '-' { c } else { '_' }).collect()
        };
        let encoding = &line.column_encodings[n];
        let is_int = encoding == "int" && line.column_sizes[n] == Some(8);
        let extension = match encoding.as_str() {
            "str" => "txt".to_owned(),
            "bytes" => "bin".to_owned(),
            _ if is_int => "txt".to_owned(),
            other => plain(other),
        };
        Column {
            suffix: format!("{}.{extension}", plain(&line.column_names[n])),
            fixed: line.column_sizes[n],
            is_int,
        }
    };
    Some((0..count).map(column).collect())
}

/// Tells of all of a shard's samples.
///
/// Errors: `Corrupt` with the sample's number and offset; what the place says.
pub fn scan(cursor: &mut Cursor<'_>, shard: &Shard, container: u32, sink: &mut Sink<'_>) -> Result<()> {
    let number = u32_of(&cursor.take(4)?);
    if number != shard.samples {
        return Err(Error::new(
            Kind::Corrupt,
            format!("it says that it has {number} samples, and its index {}", shard.samples),
        ));
    }
    let mut offsets = Vec::with_capacity(number.min(1 << 20) as usize + 1);
    for _ in 0..=number {
        offsets.push(u64::from(u32_of(&cursor.take(4)?)));
    }
    for (n, pair) in offsets.windows(2).enumerate() {
        let bad =
            || Error::new(Kind::Corrupt, format!("sample {n} at byte {}: its columns do not fit", pair[0]));
        cursor.skip(pair[0].checked_sub(cursor.at()).ok_or_else(bad)?)?;
        let mut sizes = Vec::with_capacity(shard.columns.len());
        for column in &shard.columns {
            sizes.push(match column.fixed {
                Some(size) => size,
                None => u64::from(u32_of(&cursor.take(4)?)),
            });
        }
        if sizes.iter().try_fold(cursor.at(), |at, &size| at.checked_add(size)) != Some(pair[1]) {
            return Err(bad());
        }
        for (column, &size) in shard.columns.iter().zip(&sizes) {
            let folder = if shard.folder.is_empty() { String::new() } else { format!("{}/", shard.folder) };
            let path = format!("{folder}{:010}.{}", shard.first + n as u64, column.suffix);
            let (length, content) = match column.is_int {
                true => {
                    let bytes = cursor.peek(8)?;
                    let text =
                        bytes.iter().rev().fold(0u64, |value, &byte| value << 8 | u64::from(byte)) as i64;
                    let text = text.to_string().into_bytes();
                    (text.len() as u64, Content::Inline(text))
                }
                false => (size, Content::Range { container, offset: cursor.at() }),
            };
            sink.push(&plain_entry(path.into_bytes(), length, shard.mtime, content))?;
            cursor.skip(size)?;
        }
    }
    Ok(())
}

fn u32_of(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |value, &byte| value << 8 | u32::from(byte))
}
