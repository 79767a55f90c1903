//! What files hold: bytes that say which file and which page they belong to, so that every read can be verified at little cost.
//!
//! A page is 4 KiB: a stamp of 16 bytes (file id and page number, LE), then bytes of a pool of noise, from a place that the
//! stamp decides. Checking stamps only costs nanoseconds a page and is done while time is taken; checking every byte is done
//! outside it.

use anyhow::{Result, ensure};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

pub const PAGE: usize = 4096;
const STAMP: usize = 16;
const POOL: usize = 1 << 16;

/// Makes and checks contents for one seed.
#[derive(Debug)]
pub struct Content {
    pool: Vec<u8>,
}

impl Content {
    pub fn new(seed: u64) -> Self {
        let mut pool = vec![0; POOL + PAGE];
        StdRng::seed_from_u64(seed).fill(&mut pool[..]);
        Content { pool }
    }

    fn noise(&self, file: u64, page: u64, len: usize) -> &[u8] {
        let at = (file.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ page.wrapping_mul(0xc2b2_ae3d_27d4_eb4f)) >> 48;
        &self.pool[at as usize..at as usize + len]
    }

    /// Fills `buf` with what `file` holds from `page` on.
    pub fn fill(&self, buf: &mut [u8], file: u64, page: u64) {
        for (i, chunk) in buf.chunks_mut(PAGE).enumerate() {
            let page = page + i as u64;
            chunk.copy_from_slice(self.noise(file, page, chunk.len()));
            let n = chunk.len().min(STAMP);
            chunk[..n].copy_from_slice(&stamp(file, page)[..n]);
        }
    }

    /// Every byte of `buf` is what `file` holds from `page` on.
    pub fn check(&self, buf: &[u8], file: u64, page: u64) -> Result<()> {
        check_stamps(buf, file, page)?;
        for (i, chunk) in buf.chunks(PAGE).enumerate() {
            let page = page + i as u64;
            let same = chunk.iter().skip(STAMP).eq(self.noise(file, page, chunk.len()).iter().skip(STAMP));
            ensure!(same, "file {file} page {page}: wrong bytes");
        }
        Ok(())
    }
}

fn stamp(file: u64, page: u64) -> [u8; STAMP] {
    let mut out = [0; STAMP];
    out[..8].copy_from_slice(&file.to_le_bytes());
    out[8..].copy_from_slice(&page.to_le_bytes());
    out
}

/// Every page of `buf` belongs to `file` and lies where it should.
pub fn check_stamps(buf: &[u8], file: u64, page: u64) -> Result<()> {
    for (i, chunk) in buf.chunks(PAGE).enumerate() {
        let n = chunk.len().min(STAMP);
        let page = page + i as u64;
        ensure!(chunk[..n] == stamp(file, page)[..n], "file {file} page {page}: another page's bytes");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_changed_byte_is_found() {
        let content = Content::new(1);
        let mut buf = vec![0; 3 * PAGE + 100];
        content.fill(&mut buf, 7, 5);
        content.check(&buf, 7, 5).unwrap();
        for at in [0, 8, 15, 16, PAGE - 1, PAGE, 3 * PAGE + 99] {
            buf[at] ^= 1;
            assert!(content.check(&buf, 7, 5).is_err(), "byte {at}");
            buf[at] ^= 1;
        }
        assert!(check_stamps(&buf, 8, 5).is_err());
        assert!(check_stamps(&buf, 7, 6).is_err());
        assert!(check_stamps(&[0; PAGE], 7, 5).is_err());
    }

    #[test]
    fn files_and_pages_differ_and_seeds_repeat() {
        let page = |seed, file, page| {
            let mut buf = vec![0; PAGE];
            Content::new(seed).fill(&mut buf, file, page);
            buf
        };
        assert_eq!(page(1, 2, 3), page(1, 2, 3));
        assert_ne!(page(1, 2, 3)[STAMP..], page(1, 2, 4)[STAMP..]);
        assert_ne!(page(1, 2, 3)[STAMP..], page(1, 4, 3)[STAMP..]);
        assert_ne!(page(1, 2, 3)[STAMP..], page(2, 2, 3)[STAMP..]);
    }
}
