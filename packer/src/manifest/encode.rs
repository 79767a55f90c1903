//! Manifests to bytes and back. The format is in [`manifest`](super).

use granary_core::{Error, Kind, Result};
use serde::{Deserialize, Serialize};

use super::{FORMAT, Manifest, Runs, Shard};
use crate::key::Grouping;
use crate::limits::SHARDS_MAX;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    granary: String,
    format: u32,
    version: u64,
    data_set: String,
    grouping: String,
    note: String,
    shards: usize,
}

/// All that every format's first line has.
#[derive(Deserialize)]
struct AnyHead {
    granary: String,
    format: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    path: String,
    bytes: u64,
    files: u32,
    samples: u32,
    index_bytes: u64,
    index_crc32c: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    dead_samples: Vec<(u32, u32)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    dead_files: Vec<(u32, u32)>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tail {
    crc32c: String,
}

impl Manifest {
    /// The same manifest gives the same bytes.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let head = Head {
            granary: "data set".to_owned(),
            format: FORMAT,
            version: self.version,
            data_set: hex(&self.data_set),
            grouping: match self.grouping {
                Grouping::Stem => "stem",
                Grouping::Directory => "directory",
            }
            .to_owned(),
            note: self.note.clone(),
            shards: self.shards.len(),
        };
        line(&mut out, &head)?;
        for shard in &self.shards {
            let shard = Line {
                path: shard.path.clone(),
                bytes: shard.bytes,
                files: shard.files,
                samples: shard.samples,
                index_bytes: shard.index_bytes,
                index_crc32c: format!("{:08x}", shard.index_crc32c),
                dead_samples: shard.dead_samples.runs().to_vec(),
                dead_files: shard.dead_files.runs().to_vec(),
            };
            line(&mut out, &shard)?;
        }
        let crc32c = format!("{:08x}", granary_core::crc32c(&out));
        line(&mut out, &Tail { crc32c })?;
        Ok(out)
    }

    /// Errors: `Corrupt` says what is damaged; `Unsupported` when a newer program wrote it.
    pub fn decode(bytes: &[u8]) -> Result<Manifest> {
        let corrupt = |why: &str| Error::new(Kind::Corrupt, format!("manifest is damaged: {why}"));
        let ends_early = || corrupt("its end is missing");
        let head_end = bytes.iter().position(|&b| b == b'\n').ok_or_else(ends_early)?;
        let any: AnyHead = serde_json::from_slice(&bytes[..head_end])
            .map_err(|_| corrupt("its first line is not that of a manifest"))?;
        if any.granary != "data set" || any.format == 0 {
            return Err(corrupt("its first line is not that of a manifest"));
        }
        if any.format > FORMAT {
            return Err(Error::new(
                Kind::Unsupported,
                format!(
                    "manifest has format {}, this program knows up to {FORMAT}; use a newer granary",
                    any.format
                ),
            ));
        }
        let whole = bytes.strip_suffix(b"\n").ok_or_else(ends_early)?;
        let tail_at = whole.iter().rposition(|&b| b == b'\n').ok_or_else(ends_early)? + 1;
        let tail: Tail = serde_json::from_slice(&whole[tail_at..]).map_err(|_| ends_early())?;
        if tail.crc32c != format!("{:08x}", granary_core::crc32c(&bytes[..tail_at])) {
            return Err(corrupt("its checksum does not match"));
        }
        let head: Head = serde_json::from_slice(&bytes[..head_end])
            .map_err(|e| corrupt(&format!("its first line: {e}")))?;
        let grouping = match head.grouping.as_str() {
            "stem" => Grouping::Stem,
            "directory" => Grouping::Directory,
            _ => return Err(corrupt("its grouping is unknown")),
        };
        let data_set = unhex(&head.data_set).ok_or_else(|| corrupt("its data set's id is none"))?;
        if head.shards > SHARDS_MAX {
            return Err(corrupt("it tells of too many shards"));
        }
        let mut shards = Vec::new();
        for line in bytes[head_end + 1..tail_at].split_inclusive(|&b| b == b'\n') {
            let line: Line = serde_json::from_slice(line)
                .map_err(|e| corrupt(&format!("the line of shard {}: {e}", shards.len())))?;
            shards.push(line.into_shard().ok_or_else(|| corrupt("a shard's line has impossible values"))?);
        }
        if shards.len() != head.shards {
            return Err(corrupt(&format!("{} of its {} shards are there", shards.len(), head.shards)));
        }
        Manifest::new(head.version, data_set, grouping, &head.note, shards)
            .map_err(|e| corrupt(&e.to_string()))
    }
}

impl Line {
    fn into_shard(self) -> Option<Shard> {
        Some(Shard {
            path: self.path,
            bytes: self.bytes,
            files: self.files,
            samples: self.samples,
            index_bytes: self.index_bytes,
            index_crc32c: unhex::<4>(&self.index_crc32c).map(u32::from_be_bytes)?,
            dead_samples: Runs::from_runs(self.dead_samples)?,
            dead_files: Runs::from_runs(self.dead_files)?,
        })
    }
}

fn line(out: &mut Vec<u8>, value: &impl Serialize) -> Result<()> {
    serde_json::to_writer(&mut *out, value)
        .map_err(|e| Error::new(Kind::Bug, "a manifest cannot be written").with_source(e))?;
    out.push(b'\n');
    Ok(())
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N || !digits.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b)) {
        return None;
    }
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(out)
}
