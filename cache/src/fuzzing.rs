//! What the fuzz targets may reach of the private formats. Not for other callers.

use granary_core::NamespaceId;

use crate::read::sums::{self, FrameSums};
use crate::stage::record;
use crate::stage::sums::{self as copy, Sums};

/// Scans bytes as a stage log segment: how many of them are good records, and how many records those are.
pub fn scan_segment(bytes: &[u8], ns: NamespaceId, segment: u64) -> (usize, usize) {
    let scanned = record::scan(bytes, ns, segment);
    (scanned.good_len(), scanned.records.len())
}

/// `bytes` with the checksum of a record's header put right, so that a fuzzer gets past it. `None`: too short for a header.
pub fn sign_header(bytes: &[u8], segment: u64) -> Option<Vec<u8>> {
    let len = usize::from(u16::from_le_bytes([*bytes.get(6)?, *bytes.get(7)?]));
    let signed = len.checked_sub(4)?;
    let mut out = bytes.to_vec();
    let header = bytes.get(..signed)?;
    let crc = granary_core::crc32c_append(
        granary_core::crc32c(&[segment.to_le_bytes(), 0_u64.to_le_bytes()].concat()),
        header,
    );
    out.get_mut(signed..len)?.copy_from_slice(&crc.to_le_bytes());
    Some(out)
}

/// The files of checksums that lie beside what the node keeps on its disk.
#[derive(Clone, Copy, Debug)]
pub enum SumsFile {
    /// Of a large file's clean copy.
    Copy,
    /// Of an object's frames.
    Object,
}

impl SumsFile {
    /// What is accepted of `bytes`, written again; `None` when they are refused.
    pub fn rewrite(self, bytes: &[u8]) -> Option<Vec<u8>> {
        match self {
            SumsFile::Copy => Sums::decode(bytes).ok().map(|sums| sums.encode()),
            SumsFile::Object => FrameSums::decode(bytes).ok().map(|sums| sums.encode()),
        }
    }

    /// `content` in a file whose magic, version and checksum are right, so that a fuzzer gets past them.
    pub fn seal(self, content: &[u8]) -> Vec<u8> {
        let file = match self {
            SumsFile::Copy => copy::FILE,
            SumsFile::Object => sums::FILE,
        };
        file.encode(content.len(), |out| out.extend_from_slice(content))
    }
}
