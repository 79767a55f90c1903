//! A backup of metadata, byte by byte. Integers are little-endian.
//!
//! ```text
//! backup = header | block ... | trailer
//! ```
//!
//! # Header, version 1
//!
//! | size | what |
//! |---|---|
//! | 8 | magic `granaryM` |
//! | 1 | version: 1 |
//! | 3 | 0 |
//! | 4 | length `n` of the fields that follow, at most 64 KiB, without the checksum |
//! | 8 | when it was made: milliseconds since 1970 |
//! | 2 + n | the volume's uuid: length u16, text |
//! | 2 + n | URL of its store: length u16, text |
//! | 4 | crc32c of all before |
//!
//! # Block: records in order of their keys
//!
//! | size | what |
//! |---|---|
//! | 4 | length of the records in bytes, 1 to 16 MiB |
//! | 4 | number of records |
//! | | each: u16 length and bytes of the key, u32 length and bytes of the value |
//! | 4 | crc32c of the block so far |
//!
//! # Trailer: the last 44 bytes
//!
//! | size | what |
//! |---|---|
//! | 4 | 0, where a block has its length |
//! | 4 | number of blocks |
//! | 8 | number of records |
//! | 8 | bytes of keys and values |
//! | 8 | SipHash-1-3 of the records: two backups of the same records have the same |
//! | 8 | 0 |
//! | 4 | crc32c of the trailer so far |
//!
//! Keys and values are the engine's: [`granary_meta::record`] says what they are, and has versions of its own.

use std::hash::Hasher;

use granary_core::codec::{Put, Reader};
use granary_core::{Error, Kind, Result};

const MAGIC: [u8; 8] = *b"granaryM";
const VERSION: u8 = 1;
/// Magic, version, zeros, length.
const FIXED_BYTES: usize = 16;
const HEADER_BYTES_MAX: usize = 64 << 10;
const TRAILER_BYTES: usize = 44;
/// A block is ended when it has this many bytes.
const BLOCK_BYTES: usize = 256 << 10;
/// Larger than any block of records, each of which is bounded by what metadata allows.
const BLOCK_BYTES_MAX: usize = 16 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub created_unix_ms: u64,
    pub uuid: String,
    pub store_url: String,
}

impl Header {
    pub fn encode(&self) -> Vec<u8> {
        let mut fields = Vec::new();
        fields.put_u64(self.created_unix_ms);
        fields.put_bytes16(self.uuid.as_bytes());
        fields.put_bytes16(self.store_url.as_bytes());
        let mut out = MAGIC.to_vec();
        out.put_u8(VERSION);
        out.extend_from_slice(&[0; 3]);
        out.put_u32(fields.len() as u32);
        out.extend_from_slice(&fields);
        let crc = granary_core::crc32c(&out);
        out.put_u32(crc);
        out
    }

    /// The header at the front of `bytes`, and its length; `None` when more bytes are needed.
    fn decode(bytes: &[u8]) -> Result<Option<(Header, usize)>> {
        if bytes.len() < FIXED_BYTES {
            return Ok(None);
        }
        let mut r = Reader::new(bytes, "the backup");
        if r.take(8)? != MAGIC {
            return Err(r.corrupt("it does not begin with `granaryM`, so it is no backup of metadata"));
        }
        r.version(VERSION)?;
        if r.take(3)? != [0; 3] {
            return Err(r.corrupt("its reserved bytes are not 0"));
        }
        let len = r.u32()? as usize;
        if len > HEADER_BYTES_MAX {
            return Err(r.corrupt("its header is too long"));
        }
        let whole = FIXED_BYTES + len + 4;
        if bytes.len() < whole {
            return Ok(None);
        }
        if Reader::new(&bytes[whole - 4..], "the backup").u32()? != granary_core::crc32c(&bytes[..whole - 4])
        {
            return Err(r.corrupt("its header does not match its checksum"));
        }
        let mut r = Reader::new(&bytes[FIXED_BYTES..whole - 4], "the backup's header");
        let created_unix_ms = r.u64()?;
        let mut text = || -> Result<String> {
            let bytes = r.bytes16()?;
            String::from_utf8(bytes.to_vec()).map_err(|_| r.corrupt("it is no text"))
        };
        let header = Header { created_unix_ms, uuid: text()?, store_url: text()? };
        r.finish()?;
        Ok(Some((header, whole)))
    }
}

/// What the trailer says of all records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub blocks: u32,
    pub records: u64,
    /// Of keys and values.
    pub bytes: u64,
    pub digest: u64,
}

/// Counts records as they go by.
#[derive(Clone, Debug, Default)]
struct Tally {
    totals: Totals,
    hash: std::hash::DefaultHasher,
}

impl Tally {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        self.totals.records += 1;
        self.totals.bytes += (key.len() + value.len()) as u64;
        for part in [key, value] {
            self.hash.write_u64(part.len() as u64);
            self.hash.write(part);
        }
    }

    fn totals(&self) -> Totals {
        Totals { digest: self.hash.finish(), ..self.totals }
    }
}

/// Makes the stream. Pure: what is ready is taken from [`Encoder::out`].
#[derive(Debug)]
pub struct Encoder {
    /// What is ready to be written.
    pub out: Vec<u8>,
    block: Vec<u8>,
    count: u32,
    tally: Tally,
}

impl Encoder {
    pub fn new(header: &Header) -> Encoder {
        Encoder { out: header.encode(), block: Vec::new(), count: 0, tally: Tally::default() }
    }

    /// The next record. Errors: `Bug` for one that no metadata has.
    pub fn push(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        if key.len() > usize::from(u16::MAX) || value.len() > BLOCK_BYTES_MAX / 2 {
            return Err(Error::new(Kind::Bug, format!("a record of {} bytes cannot be saved", value.len())));
        }
        self.block.put_bytes16(key);
        self.block.put_bytes32(value);
        self.count += 1;
        self.tally.add(key, value);
        if self.block.len() >= BLOCK_BYTES {
            self.end_block();
        }
        Ok(())
    }

    fn end_block(&mut self) {
        if self.count == 0 {
            return;
        }
        let start = self.out.len();
        self.out.put_u32(self.block.len() as u32);
        self.out.put_u32(std::mem::take(&mut self.count));
        self.out.append(&mut self.block);
        let crc = granary_core::crc32c(&self.out[start..]);
        self.out.put_u32(crc);
        self.tally.totals.blocks += 1;
    }

    /// Ends the stream.
    pub fn finish(&mut self) -> Totals {
        self.end_block();
        let totals = self.tally.totals();
        let start = self.out.len();
        self.out.put_u32(0);
        self.out.put_u32(totals.blocks);
        self.out.put_u64(totals.records);
        self.out.put_u64(totals.bytes);
        self.out.put_u64(totals.digest);
        self.out.put_u64(0);
        let crc = granary_core::crc32c(&self.out[start..]);
        self.out.put_u32(crc);
        totals
    }
}

/// Called with key and value of a record.
pub type Take<'a> = dyn FnMut(&[u8], &[u8]) -> Result<()> + 'a;

/// Reads the stream as it comes, and gives each record once its block is verified.
#[derive(Debug, Default)]
pub struct Decoder {
    rest: Vec<u8>,
    header: Option<Header>,
    tally: Tally,
    ended: bool,
    last_key: Option<Vec<u8>>,
}

fn corrupt(why: &str) -> Error {
    Error::new(Kind::Corrupt, format!("the backup is damaged: {why}; use another"))
}

impl Decoder {
    /// Known after the first bytes.
    pub fn header(&self) -> Option<&Header> {
        self.header.as_ref()
    }

    /// Takes the next bytes of the stream, in pieces of any length.
    ///
    /// Errors: `Corrupt`; `Unsupported` when a newer program wrote it; what `record` says.
    pub fn push(&mut self, bytes: &[u8], record: &mut Take<'_>) -> Result<()> {
        self.rest.extend_from_slice(bytes);
        let rest = std::mem::take(&mut self.rest);
        let mut at = 0;
        if self.header.is_none() {
            match Header::decode(&rest)? {
                Some((header, len)) => {
                    self.header = Some(header);
                    at = len;
                }
                None => {
                    self.rest = rest;
                    return Ok(());
                }
            }
        }
        while let Some(len) = self.part(&rest[at..], record)? {
            at += len;
        }
        self.rest = rest[at..].to_vec();
        Ok(())
    }

    /// The block or trailer at the front of `bytes`: its length, `None` when more bytes are needed.
    fn part(&mut self, bytes: &[u8], record: &mut Take<'_>) -> Result<Option<usize>> {
        if self.ended {
            return if bytes.is_empty() { Ok(None) } else { Err(corrupt("bytes follow its end")) };
        }
        if bytes.len() < 4 {
            return Ok(None);
        }
        let len = Reader::new(bytes, "the backup").u32()? as usize;
        if len > BLOCK_BYTES_MAX {
            return Err(corrupt("a block is too long"));
        }
        let whole = if len == 0 { TRAILER_BYTES } else { 8 + len + 4 };
        if bytes.len() < whole {
            return Ok(None);
        }
        let (body, crc) = bytes[..whole].split_at(whole - 4);
        if Reader::new(crc, "the backup").u32()? != granary_core::crc32c(body) {
            return Err(corrupt("a block does not match its checksum"));
        }
        let mut r = Reader::new(&body[4..], "the backup");
        if len == 0 {
            let totals = Totals { blocks: r.u32()?, records: r.u64()?, bytes: r.u64()?, digest: r.u64()? };
            // Another release of the standard library may hash differently: then the digest is only not compared.
            let ours = self.tally.totals();
            if (Totals { digest: 0, ..totals }) != (Totals { digest: 0, ..ours }) || r.u64()? != 0 {
                return Err(corrupt("it has not as many records as its end says"));
            }
            self.tally.totals.digest = totals.digest;
            self.ended = true;
            return Ok(Some(whole));
        }
        let count = r.u32()?;
        for _ in 0..count {
            let (key, value) = (r.bytes16()?, r.bytes32()?);
            if self.last_key.as_deref().is_some_and(|last| last >= key) {
                return Err(corrupt("its records are in no order"));
            }
            self.tally.add(key, value);
            self.last_key = Some(key.to_vec());
            record(key, value)?;
        }
        r.finish()?;
        self.tally.totals.blocks += 1;
        Ok(Some(whole))
    }

    /// The stream has ended. Errors: `Corrupt` when it ended too early.
    pub fn finish(self) -> Result<(Header, Totals)> {
        match self.header {
            Some(header) if self.ended && self.rest.is_empty() => Ok((header, self.tally.totals)),
            _ => Err(corrupt("it ends too early")),
        }
    }
}

#[cfg(test)]
mod tests;
