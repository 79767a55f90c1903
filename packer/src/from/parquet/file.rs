//! A container's bytes as the parquet crate asks for them: headers of pages here and there, pages one after another.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use granary_core::{Error, Kind, Result};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

use crate::from::containers::Containers;

/// Bytes read at once, at least.
const WINDOW_BYTES: u64 = 1 << 20;
/// Places that are read side by side: of values, paths and names, each with a header and a page.
const WINDOWS_MAX: usize = 6;

/// See the module. Clones share what was read.
#[derive(Clone)]
pub struct Chunks {
    files: Arc<Containers>,
    number: u32,
    /// Guards the last ranges that were read, the latest last; held for a look, not while one is read.
    windows: Arc<Mutex<Vec<(u64, Bytes)>>>,
}

impl Chunks {
    pub fn new(files: Arc<Containers>, number: u32) -> Chunks {
        Chunks { files, number, windows: Arc::default() }
    }

    fn bytes(&self) -> u64 {
        self.files.container(self.number).bytes
    }

    /// Bytes from `start` on: at least `least`, and as many more as are at hand.
    fn get(&self, start: u64, least: u64) -> Result<Bytes> {
        let end = start.checked_add(least).filter(|&end| end <= self.bytes()).ok_or_else(|| {
            let there = self.bytes();
            let why = format!("{least} bytes should be at byte {start}, and it ends at byte {there}");
            Error::new(Kind::Corrupt, format!("it is cut or damaged: {why}; get a whole copy of it"))
        })?;
        {
            let windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
            let has = |(at, bytes): &&(u64, Bytes)| *at <= start && end <= at + bytes.len() as u64;
            if let Some((at, bytes)) = windows.iter().find(has) {
                return Ok(bytes.slice((start - at) as usize..));
            }
        }
        let until = end.max(self.bytes().min(start + WINDOW_BYTES));
        let mut buffer = vec![0; (until - start) as usize];
        self.files.read_at(self.number, start, &mut buffer)?;
        let bytes = Bytes::from(buffer);
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.len() == WINDOWS_MAX {
            windows.remove(0);
        }
        windows.push((start, bytes.clone()));
        Ok(bytes)
    }
}

impl Length for Chunks {
    fn len(&self) -> u64 {
        self.bytes()
    }
}

impl ChunkReader for Chunks {
    type T = Onward;

    fn get_read(&self, start: u64) -> std::result::Result<Onward, ParquetError> {
        Ok(Onward { chunks: self.clone(), at: start })
    }

    fn get_bytes(&self, start: u64, length: usize) -> std::result::Result<Bytes, ParquetError> {
        let bytes = self.get(start, length as u64).map_err(|e| ParquetError::External(Box::new(e)))?;
        Ok(bytes.slice(..length))
    }
}

/// Reads on from a place.
pub struct Onward {
    chunks: Chunks,
    at: u64,
}

impl Read for Onward {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.at >= self.chunks.bytes() {
            return Ok(0);
        }
        let bytes = self.chunks.get(self.at, 1).map_err(io::Error::other)?;
        let got = bytes.len().min(buffer.len());
        buffer[..got].copy_from_slice(&bytes[..got]);
        self.at += got as u64;
        Ok(got)
    }
}
