//! Where the headers of a file begin: an index says where its payload does.

use std::io::{BufReader, Read};

use granary_core::{Error, Kind, Result};

use crate::blocking::ShardBytes;
use crate::tar::{BLOCK_BYTES, Members};

/// Where the first header of the file begins whose payload is at `payload`; `end` is where the entry before it ends, or one that is in
/// the index. In between may be directories, links, long names, and files that the index leaves out: then the tar is looked into.
///
/// Errors: `Corrupt` when no entry there has this payload; what the place says.
pub fn header_of(bytes: &ShardBytes, end: u64, payload: u64) -> Result<u64> {
    if payload == end + BLOCK_BYTES as u64 {
        return Ok(end);
    }
    let name = bytes.describe();
    let damaged = || {
        Error::new(
            Kind::Corrupt,
            format!(
                "{name} has no entry between bytes {end} and {payload}, where its index has one; index it with --anew"
            ),
        )
    };
    if payload < end + BLOCK_BYTES as u64 {
        return Err(damaged());
    }
    let from = From { bytes, at: end, end: payload };
    let mut members = Members::new(BufReader::with_capacity(64 << 10, from), &name);
    while let Some(member) = members.next_member()? {
        if member.is_file() && end + members.at() == payload {
            return Ok(end + members.header_at());
        }
    }
    Err(damaged())
}

/// A part of a shard, read as it is asked for.
struct From<'a> {
    bytes: &'a ShardBytes,
    at: u64,
    end: u64,
}

impl Read for From<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let len = (self.end - self.at).min(buffer.len() as u64);
        if len == 0 {
            return Ok(0);
        }
        let got = self.bytes.read(self.at..self.at + len).map_err(std::io::Error::other)?;
        buffer[..got.len()].copy_from_slice(&got);
        self.at += len;
        Ok(got.len())
    }
}
