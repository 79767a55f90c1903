//! Reading and writing of fixed-width integers and short byte strings, for every format on disk.
//! Values are little-endian, keys big-endian. A reader never panics: what is short is [`Kind::Corrupt`].

use crate::error::{Error, Kind, Result};

/// Appends little-endian values to a buffer.
pub trait Put {
    fn put_u8(&mut self, v: u8);
    fn put_u16(&mut self, v: u16);
    fn put_u32(&mut self, v: u32);
    fn put_u64(&mut self, v: u64);
    fn put_i64(&mut self, v: i64);
    fn put_u128(&mut self, v: u128);
    /// `u16` length, then the bytes. More than 65,535 bytes is a bug of the caller.
    fn put_bytes16(&mut self, v: &[u8]);
    /// `u32` length, then the bytes.
    fn put_bytes32(&mut self, v: &[u8]);
}

impl Put for Vec<u8> {
    fn put_u8(&mut self, v: u8) {
        self.push(v);
    }
    fn put_u16(&mut self, v: u16) {
        self.extend_from_slice(&v.to_le_bytes());
    }
    fn put_u32(&mut self, v: u32) {
        self.extend_from_slice(&v.to_le_bytes());
    }
    fn put_u64(&mut self, v: u64) {
        self.extend_from_slice(&v.to_le_bytes());
    }
    fn put_i64(&mut self, v: i64) {
        self.extend_from_slice(&v.to_le_bytes());
    }
    fn put_u128(&mut self, v: u128) {
        self.extend_from_slice(&v.to_le_bytes());
    }
    fn put_bytes16(&mut self, v: &[u8]) {
        assert!(v.len() <= usize::from(u16::MAX));
        self.put_u16(v.len() as u16);
        self.extend_from_slice(v);
    }
    fn put_bytes32(&mut self, v: &[u8]) {
        assert!(v.len() <= u32::MAX as usize);
        self.put_u32(v.len() as u32);
        self.extend_from_slice(v);
    }
}

/// Takes little-endian values off the front of a slice.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    /// What is being read, for the message.
    what: &'static str,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8], what: &'static str) -> Reader<'a> {
        Reader { rest: bytes, what }
    }

    pub fn corrupt(&self, why: &str) -> Error {
        Error::new(Kind::Corrupt, format!("{} is damaged: {why}", self.what))
    }

    pub fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        if self.rest.len() < n {
            return Err(self.corrupt("it ends too early"));
        }
        let (head, tail) = self.rest.split_at(n);
        self.rest = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    pub fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }
    pub fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }
    pub fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }
    pub fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }
    pub fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_le_bytes(self.array()?))
    }
    pub fn u128(&mut self) -> Result<u128> {
        Ok(u128::from_le_bytes(self.array()?))
    }
    pub fn bytes16(&mut self) -> Result<&'a [u8]> {
        let n = self.u16()?;
        self.take(usize::from(n))
    }
    pub fn bytes32(&mut self) -> Result<&'a [u8]> {
        let n = self.u32()?;
        self.take(n as usize)
    }

    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// All must have been read.
    pub fn finish(self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.corrupt("bytes are left over")) }
    }

    /// Reads the version byte and refuses a newer one with the mend.
    pub fn version(&mut self, known: u8) -> Result<u8> {
        let v = self.u8()?;
        if v == 0 {
            return Err(self.corrupt("its version is 0"));
        }
        if v > known {
            return Err(Error::new(
                Kind::Unsupported,
                format!(
                    "{} has format version {v}, this program knows up to {known}; use a newer granary",
                    self.what
                ),
            ));
        }
        Ok(v)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_put_is_read(a: u8, b: u16, c: u32, d: u64, e: i64, f: u128, g in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut buf = Vec::new();
            buf.put_u8(a); buf.put_u16(b); buf.put_u32(c); buf.put_u64(d); buf.put_i64(e); buf.put_u128(f);
            buf.put_bytes16(&g); buf.put_bytes32(&g);
            let mut r = Reader::new(&buf, "test");
            prop_assert_eq!((r.u8()?, r.u16()?, r.u32()?, r.u64()?, r.i64()?, r.u128()?), (a, b, c, d, e, f));
            prop_assert_eq!(r.bytes16()?, &g[..]);
            prop_assert_eq!(r.bytes32()?, &g[..]);
            r.finish()?;
            for cut in 0..buf.len() {
                let mut r = Reader::new(&buf[..cut], "test");
                let all = (|| { r.u8()?; r.u16()?; r.u32()?; r.u64()?; r.i64()?; r.u128()?; r.bytes16()?; r.bytes32().map(|_| ()) })();
                prop_assert!(all.is_err());
            }
        }
    }
}
