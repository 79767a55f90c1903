//! The file. Its byte table is in [`order`](super).

use std::fmt;
use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use granary_core::codec::{Put, Reader};
use granary_core::{Error, Kind, Result};
use memmap2::Mmap;

use super::{Entry, Identity};

const MAGIC: [u8; 8] = *b"granaryT";
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 64;
const ENTRY_BYTES: usize = 8;
/// Entries under one checksum: 64 KiB.
const BLOCK_BYTES: usize = 64 << 10;

/// An open order.
pub struct Order {
    map: Mmap,
    count: u64,
    /// A bit for each block that was found good. Relaxed: who misses a bit checks once more.
    good: Box<[AtomicU64]>,
}

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Order({} entries)", self.count)
    }
}

fn header(of: &Identity, count: u64, sums_crc: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES);
    out.extend_from_slice(&MAGIC);
    out.put_u8(VERSION);
    out.extend_from_slice(&[0; 7]);
    out.extend_from_slice(&of.data_set);
    out.put_u64(of.version);
    out.put_u64(of.digest);
    out.put_u64(count);
    out.put_u32(sums_crc);
    out.put_u32(granary_core::crc32c(&out));
    out
}

impl Order {
    /// Maps a file.
    ///
    /// Errors: `NotFound`; `Corrupt` when it is none, cut, damaged, or of another version of a data set.
    pub fn open(path: &Path, of: &Identity) -> Result<Order> {
        let named = |e: Error| e.context(path.display().to_string());
        let cannot = |e: std::io::Error| match e.kind() {
            std::io::ErrorKind::NotFound => {
                Error::new(Kind::NotFound, format!("{} is not there", path.display()))
            }
            _ => Error::io(format!("cannot open {}", path.display()), e),
        };
        let file = File::open(path).map_err(cannot)?;
        if file.metadata().map_err(cannot)?.len() < HEADER_BYTES as u64 {
            return Err(named(corrupt("it is cut")));
        }
        // SAFETY: nobody writes the file once it has its name; one that somebody cuts ends the process by a signal when it is
        // read, which is no undefined behaviour.
        let map = unsafe { Mmap::map(&file) }.map_err(cannot)?;
        let count = check(&map, of).map_err(named)?;
        let blocks = (count as usize * ENTRY_BYTES).div_ceil(BLOCK_BYTES);
        let good = (0..blocks.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Ok(Order { map, count, good })
    }

    /// Number of entries.
    pub fn len(&self) -> u64 {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Errors: `Bug` when there is no such place; `Corrupt` when it is damaged.
    pub fn entry(&self, place: u64) -> Result<Entry> {
        if place >= self.count {
            return Err(Error::new(
                Kind::Bug,
                format!("the tree order has no place {place} of {}", self.count),
            ));
        }
        let at = place as usize * ENTRY_BYTES;
        let block = at / BLOCK_BYTES;
        let (word, bit) = (&self.good[block / 64], 1u64 << (block % 64));
        if word.load(Ordering::Relaxed) & bit == 0 {
            self.check_block(block)?;
            word.fetch_or(bit, Ordering::Relaxed);
        }
        let mut bytes = [0; ENTRY_BYTES];
        bytes.copy_from_slice(&self.map[HEADER_BYTES + at..HEADER_BYTES + at + ENTRY_BYTES]);
        Ok(Entry::decode(bytes))
    }

    #[cold]
    fn check_block(&self, block: usize) -> Result<()> {
        let entries = HEADER_BYTES..HEADER_BYTES + self.count as usize * ENTRY_BYTES;
        let start = entries.start + block * BLOCK_BYTES;
        let sum = entries.end + block * 4;
        let crc = granary_core::crc32c(&self.map[start..(start + BLOCK_BYTES).min(entries.end)]);
        if crc.to_le_bytes() == self.map[sum..sum + 4] {
            return Ok(());
        }
        Err(corrupt(&format!("its entries from byte {start} on do not match their checksum")))
    }
}

/// Header, length and sums; the number of entries.
fn check(map: &[u8], of: &Identity) -> Result<u64> {
    let mut r = Reader::new(&map[..HEADER_BYTES], "tree order");
    if r.take(8)? != MAGIC {
        return Err(corrupt("it does not begin with `granaryT`"));
    }
    r.version(VERSION)?;
    r.take(7)?;
    let mut found = Identity { data_set: [0; 16], version: 0, digest: 0 };
    found.data_set.copy_from_slice(r.take(16)?);
    (found.version, found.digest) = (r.u64()?, r.u64()?);
    let (count, sums_crc) = (r.u64()?, r.u32()?);
    if r.u32()? != granary_core::crc32c(&map[..HEADER_BYTES - 4]) {
        return Err(corrupt("the checksum of its header does not match"));
    }
    if found != *of {
        return Err(corrupt("it is of another version of the data set"));
    }
    let entries = count.checked_mul(ENTRY_BYTES as u64).ok_or_else(|| corrupt("its count is impossible"))?;
    let sums = entries.div_ceil(BLOCK_BYTES as u64) * 4;
    if map.len() as u64 != HEADER_BYTES as u64 + entries + sums {
        return Err(corrupt("it is cut"));
    }
    if granary_core::crc32c(&map[HEADER_BYTES + entries as usize..]) != sums_crc {
        return Err(corrupt("the checksum of its sums does not match"));
    }
    Ok(count)
}

fn corrupt(why: &str) -> Error {
    Error::new(Kind::Corrupt, format!("the tree order of a data set is damaged: {why}"))
}

/// Writes an order, entry by entry; it has its name only when it is whole.
pub(super) struct Writer<'a> {
    out: BufWriter<tempfile::NamedTempFile>,
    path: &'a Path,
    of: Identity,
    count: u64,
    crc: u32,
    filled: usize,
    sums: Vec<u8>,
}

impl<'a> Writer<'a> {
    pub fn new(path: &'a Path, of: Identity) -> Result<Writer<'a>> {
        let dir = path.parent().unwrap_or(Path::new("."));
        let cannot = |e| Error::io(format!("cannot write {}", path.display()), e);
        let file = tempfile::Builder::new().prefix("new-").tempfile_in(dir).map_err(cannot)?;
        let mut out = BufWriter::with_capacity(1 << 20, file);
        out.write_all(&[0; HEADER_BYTES]).map_err(cannot)?;
        Ok(Writer { out, path, of, count: 0, crc: 0, filled: 0, sums: Vec::new() })
    }

    fn cannot(&self) -> impl Fn(std::io::Error) -> Error + use<> {
        let what = format!("cannot write {}", self.path.display());
        move |e| Error::io(what.clone(), e)
    }

    pub fn push(&mut self, entry: Entry) -> Result<()> {
        let bytes = entry.encode();
        self.crc = granary_core::crc32c_append(self.crc, &bytes);
        self.filled += bytes.len();
        if self.filled == BLOCK_BYTES {
            self.end_block();
        }
        self.count += 1;
        self.out.write_all(&bytes).map_err(self.cannot())
    }

    fn end_block(&mut self) {
        self.sums.put_u32(self.crc);
        (self.crc, self.filled) = (0, 0);
    }

    pub fn finish(mut self) -> Result<()> {
        if self.filled > 0 {
            self.end_block();
        }
        let cannot = self.cannot();
        self.out.write_all(&self.sums).map_err(&cannot)?;
        let mut file = self.out.into_inner().map_err(|e| cannot(e.into_error()))?;
        file.seek(SeekFrom::Start(0)).map_err(&cannot)?;
        file.write_all(&header(&self.of, self.count, granary_core::crc32c(&self.sums))).map_err(&cannot)?;
        // No sync: what a power loss leaves of it is found out by its checksums, and it is made anew.
        file.persist(self.path).map_err(|e| cannot(e.error)).map(drop)
    }
}
