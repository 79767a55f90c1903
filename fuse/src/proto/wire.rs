//! Reading and writing of fixed-width integers in the machine's order, and of names that end with a zero byte.

use std::fmt;

/// A message that is not what the protocol says: too short, too long, or a name without end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Malformed {}

/// What is left to read of a message.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor(bytes)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn bytes(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or(Malformed("the message is too short"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Malformed("the message is too short"))?;
        self.0 = rest;
        Ok(*taken)
    }

    pub fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_ne_bytes(self.array()?))
    }

    pub fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_ne_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_ne_bytes(self.array()?))
    }

    pub fn i64(&mut self) -> Result<i64, Malformed> {
        Ok(i64::from_ne_bytes(self.array()?))
    }

    pub fn skip(&mut self, n: usize) -> Result<(), Malformed> {
        self.bytes(n).map(|_| ())
    }

    /// Bytes up to a zero, which is taken too; at least one.
    pub fn name(&mut self) -> Result<&'a [u8], Malformed> {
        let end = self.0.iter().position(|&b| b == 0).ok_or(Malformed("a name has no end"))?;
        if end == 0 {
            return Err(Malformed("a name is empty"));
        }
        let name = self.bytes(end)?;
        self.skip(1)?;
        Ok(name)
    }

    /// All has been read.
    pub fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed("the message is too long")) }
    }
}

/// Longest fixed part of an answer: that of STATX.
const BODY_BYTES_MAX: usize = 288;

/// The fixed part of an answer, on the stack.
#[derive(Clone, Copy)]
pub struct Body {
    bytes: [u8; BODY_BYTES_MAX],
    len: usize,
}

impl Default for Body {
    fn default() -> Body {
        Body { bytes: [0; BODY_BYTES_MAX], len: 0 }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().fmt(f)
    }
}

impl Body {
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn put(mut self, bytes: &[u8]) -> Body {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
        self
    }

    #[must_use]
    pub fn u16(self, value: u16) -> Body {
        self.put(&value.to_ne_bytes())
    }

    #[must_use]
    pub fn u32(self, value: u32) -> Body {
        self.put(&value.to_ne_bytes())
    }

    #[must_use]
    pub fn u64(self, value: u64) -> Body {
        self.put(&value.to_ne_bytes())
    }

    #[must_use]
    pub fn i64(self, value: i64) -> Body {
        self.put(&value.to_ne_bytes())
    }

    #[must_use]
    pub fn zeros(mut self, n: usize) -> Body {
        self.len += n;
        assert!(self.len <= BODY_BYTES_MAX);
        self
    }

    /// One part after the other.
    #[must_use]
    pub fn then(self, next: &Body) -> Body {
        self.put(next.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_end_with_a_zero_and_are_not_empty() {
        let mut cursor = Cursor::new(b"a\0bc\0");
        assert_eq!(cursor.name(), Ok(&b"a"[..]));
        assert_eq!(cursor.name(), Ok(&b"bc"[..]));
        assert!(cursor.end().is_ok() && cursor.is_empty());
        assert!(Cursor::new(b"abc").name().is_err());
        assert!(Cursor::new(b"\0").name().is_err());
    }

    #[test]
    fn what_is_not_there_is_not_read() {
        let mut cursor = Cursor::new(&[1, 0, 0]);
        assert!(cursor.u32().is_err() && cursor.u64().is_err() && cursor.skip(4).is_err());
        assert_eq!(cursor.len(), 3, "a failed read takes nothing");
        assert!(cursor.end().is_err());
    }
}
