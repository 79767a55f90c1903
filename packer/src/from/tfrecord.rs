//! TFRecord files, as TensorFlow writes them (`tensorflow/core/lib/io/record_writer.h`; features: `tensorflow/core/example/*.proto`).
//!
//! | size | a record |
//! |---|---|
//! | 8 | length, little-endian |
//! | 4 | masked crc32c of the length |
//! | length | bytes |
//! | 4 | masked crc32c of the bytes |
//!
//! A file of `NAME` whose records are taken whole gives `NAME/00000007.bin`; one of `tf.train.Example`s gives a file for each feature,
//! `NAME/00000007.image_encoded.jpg`. What a feature's name has besides letters, digits, `-` and `_` becomes `_`.
//!
//! | feature | file |
//! |---|---|
//! | one byte string | its bytes; the extension by what they begin with: `jpg`, `png`, `webp`, `gif`, `wav`, `flac`, `npy`, else `txt` when it is plain text, else `bin` |
//! | several byte strings | one file each, numbered: `texts.0.txt` |
//! | integers, floats | `json`: a number, or a list of numbers when there are several or none |

mod example;

use bytes::Bytes;
use granary_core::{Error, Kind, Result};

use super::containers::{Container, Cursor};
use super::{Sink, kind, plain_entry};
use crate::pack::entry::{Content, Entry};
use example::{Feature, Value};

/// Longest record that is taken, in bytes: an `Example` is read as a whole.
const RECORD_BYTES_MAX: u64 = 1 << 30;

/// Tells of all of a file's records. `raw`: whole ones.
///
/// Errors: `Corrupt` with the record's number and offset; what the place says.
pub fn scan(
    cursor: &mut Cursor<'_>,
    container: &Container,
    number: u32,
    raw: bool,
    sink: &mut Sink<'_>,
) -> Result<()> {
    let name = stem(&container.name);
    let mut record = 0u64;
    while cursor.at() < cursor.end() {
        let at = cursor.at();
        let bad = |why: &str| Error::new(Kind::Corrupt, format!("record {record} at byte {at}: {why}"));
        let head = cursor.take(12)?;
        let length = u64::from_le_bytes(array(&head[..8]));
        if masked(&head[..8]) != u32::from_le_bytes(array(&head[8..])) {
            return Err(bad("the checksum of its length does not match; is this a TFRecord file?"));
        }
        if length > RECORD_BYTES_MAX {
            return Err(bad("it has more than 1 GiB"));
        }
        let offset = cursor.at();
        let bytes = cursor.take(length)?;
        let sum = cursor.take(4)?;
        let key = format!("{name}/{record:08}");
        if masked(&bytes) != u32::from_le_bytes(array(&sum)) {
            sink.skip(&key, bad("the checksum of its bytes does not match"))?;
        } else if raw {
            sink.push(&entry(&key, "bin", length, container, Content::Range { container: number, offset }))?;
        } else {
            match example::parse(&bytes) {
                Ok(features) => push(&key, &features, &bytes, offset, container, number, sink)?,
                Err(why) => {
                    sink.skip(&key, bad(&format!("{why}; --from tfrecord-raw takes records as they are")))?
                }
            }
        }
        record += 1;
    }
    Ok(())
}

/// A file for each feature, and for each of several byte strings.
fn push(
    key: &str,
    features: &[Feature<'_>],
    record: &Bytes,
    record_at: u64,
    container: &Container,
    number: u32,
    sink: &mut Sink<'_>,
) -> Result<()> {
    for feature in features {
        let name = plain(feature.name);
        match &feature.value {
            Value::Bytes(strings) => {
                for (n, range) in strings.iter().enumerate() {
                    let bytes = &record[range.clone()];
                    let several = if strings.len() > 1 { format!(".{n}") } else { String::new() };
                    let suffix = format!("{name}{several}.{}", kind::of_head(bytes));
                    let content =
                        Content::Range { container: number, offset: record_at + range.start as u64 };
                    sink.push(&entry(key, &suffix, bytes.len() as u64, container, content))?;
                }
            }
            Value::Numbers(texts) => {
                let text =
                    if let [one] = &texts[..] { one.clone() } else { format!("[{}]", texts.join(",")) };
                let suffix = format!("{name}.json");
                sink.push(&entry(
                    key,
                    &suffix,
                    text.len() as u64,
                    container,
                    Content::Inline(text.into_bytes()),
                ))?;
            }
        }
    }
    Ok(())
}

fn entry(key: &str, suffix: &str, length: u64, container: &Container, content: Content) -> Entry {
    plain_entry(format!("{key}.{suffix}").into_bytes(), length, container.mtime, content)
}

/// The file's name without its suffix: the folder of its records.
fn stem(name: &str) -> String {
    let base = name.strip_suffix(".tfrecord").or_else(|| name.strip_suffix(".tfrecords")).unwrap_or(name);
    base.to_owned()
}

/// A feature's name as a part of a file's.
fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_alphanumeric() || c == '-' { c } else { '_' }).collect()
}

/// TensorFlow's masked crc32c: so that a checksum of bytes that hold checksums is not weak.
fn masked(bytes: &[u8]) -> u32 {
    granary_core::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[..N]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(plain("image/encoded.x"), "image_encoded_x");
        assert_eq!(stem("a/train-00001-of-00002"), "a/train-00001-of-00002");
        assert_eq!(stem("a/train.tfrecord"), "a/train");
    }

    /// Of eight zero bytes: the crc32c is 0x8c28_b28a (rotated and masked by hand).
    #[test]
    fn checksums_are_masked() {
        assert_eq!(granary_core::crc32c(&[0; 8]), 0x8c28_b28a);
        assert_eq!(masked(&[0; 8]), 0x8c28_b28a_u32.rotate_right(15).wrapping_add(0xa282_ead8));
    }
}
