//! What a program says by ioctl(2): which files it will read, in which order.
//!
//! The call may be made on any file or directory of the mount that is open, also where the mount is read-only. Its number is
//! `_IOW(0x67, 1, LENGTH)`, 0x40006701 + LENGTH * 65536, where LENGTH is that of the message, at most 16,383 bytes: the kernel copies as
//! much as the number says. A longer list is several calls, each of which goes on where the last one ended.
//!
//! Integers are little-endian.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | version, 1 |
//! | 1 | 1 | flags: 1 begins the order anew, 2 ends it |
//! | 2 | 2 | how many names follow |
//! | 4 | 4 | zero |
//! | 8 | 8 | the order's number, chosen by the program; each user has numbers of their own |
//! | 16 | | names, each with a zero byte at its end; nothing follows them |
//!
//! A name is a path: from the mount's root when it begins with `/`, or when the call was made on a file; else from the directory.
//! There is no checksum: the bytes come out of the caller's memory, and are kept nowhere.
//!
//! The answer is how many of the names will be followed; those are left out that are no regular file, or that the caller may not
//! read. What [`Vfs::announce`](crate::vfs::Vfs::announce) refuses, it refuses before it takes any.

use super::wire::Malformed;

/// The number of the call, without the length.
const NUMBER: u32 = 0x4000_6701;
const LENGTH_SHIFT: u32 = 16;
const LENGTH_MAX: u32 = (1 << 14) - 1;
const HEADER_BYTES: usize = 16;
const VERSION: u8 = 1;
const ANEW: u8 = 1;
const END: u8 = 2;

/// One call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announcement {
    pub number: u64,
    /// What was announced under the number before does not count any more.
    pub anew: bool,
    /// Nobody will read on in it; it has no names.
    pub end: bool,
    pub names: Vec<Vec<u8>>,
}

/// Whether a call is meant to announce, of whatever length.
pub fn is_announcement(cmd: u32) -> bool {
    cmd & !(LENGTH_MAX << LENGTH_SHIFT) == NUMBER
}

/// The number of a call with a message of so many bytes.
pub fn number(len: usize) -> Option<u32> {
    let len = u32::try_from(len).ok().filter(|len| *len <= LENGTH_MAX)?;
    Some(NUMBER | len << LENGTH_SHIFT)
}

impl Announcement {
    pub fn parse(bytes: &[u8]) -> Result<Announcement, Malformed> {
        let (header, mut rest) = bytes
            .split_first_chunk::<HEADER_BYTES>()
            .ok_or(Malformed("an announcement has a header of 16 bytes"))?;
        let [version, flags, a, b, zeros @ ..] = *header;
        let (zeros, number) = zeros.split_at(4);
        if version != VERSION {
            return Err(Malformed("announcements are of version 1"));
        }
        if flags & !(ANEW | END) != 0 || zeros != [0; 4] {
            return Err(Malformed("an announcement has flags or fields that are not known"));
        }
        let count = usize::from(u16::from_le_bytes([a, b]));
        let mut names = Vec::with_capacity(count.min(rest.len()));
        for _ in 0..count {
            let end =
                rest.iter().position(|&b| b == 0).ok_or(Malformed("an announcement has fewer names"))?;
            if end == 0 {
                return Err(Malformed("a name is empty"));
            }
            names.push(rest[..end].to_vec());
            rest = &rest[end + 1..];
        }
        let (anew, end) = (flags & ANEW != 0, flags & END != 0);
        if !rest.is_empty() {
            return Err(Malformed("an announcement has more behind its names"));
        }
        if end && (anew || !names.is_empty()) {
            return Err(Malformed("an order that ends has no names"));
        }
        let number = u64::from_le_bytes(number.try_into().map_err(|_| Malformed("a number has 8 bytes"))?);
        Ok(Announcement { number, anew, end, names })
    }

    /// Names must be neither empty nor have zero bytes in them, and be at most 65,535.
    pub fn encode(&self) -> Vec<u8> {
        let flags = if self.anew { ANEW } else { 0 } | if self.end { END } else { 0 };
        let [a, b] = (self.names.len() as u16).to_le_bytes();
        let mut bytes = vec![VERSION, flags, a, b, 0, 0, 0, 0];
        bytes.extend(self.number.to_le_bytes());
        for name in &self.names {
            bytes.extend_from_slice(name);
            bytes.push(0);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_are_where_the_table_says() {
        let one = Announcement {
            number: 0x0102,
            anew: true,
            end: false,
            names: vec![b"a/b".to_vec(), b"c".to_vec()],
        };
        let bytes = one.encode();
        assert_eq!(bytes, b"\x01\x01\x02\0\0\0\0\0\x02\x01\0\0\0\0\0\0a/b\0c\0");
        assert_eq!(number(bytes.len()), Some(0x4000_6701 + 22 * 65536));
        assert!(is_announcement(0x4000_6701 + 22 * 65536) && is_announcement(0x7fff_6701));
        assert!(!is_announcement(0xc000_6701) && !is_announcement(0x4000_6702) && number(16_384).is_none());
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let good = Announcement { number: 7, anew: false, end: false, names: vec![b"a".to_vec()] }.encode();
        for (at, with) in [(0, 2), (1, 4), (2, 2), (2, 0), (4, 1), (16, 0)] {
            let mut bytes = good.clone();
            bytes[at] = with;
            assert!(Announcement::parse(&bytes).is_err(), "byte {at} as {with}");
        }
        assert!(Announcement::parse(&good[..17]).is_err() && Announcement::parse(&good[..9]).is_err());
        let mut ends = good.clone();
        ends[1] = END;
        assert!(Announcement::parse(&ends).is_err(), "with a name");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(number: u64, anew: bool, names in proptest::collection::vec(proptest::collection::vec(1_u8.., 1..20), 0..40)) {
            let one = Announcement { number, anew, end: false, names };
            prop_assert_eq!(Announcement::parse(&one.encode()), Ok(one));
        }

        #[test]
        fn any_bytes_are_one_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(one) = Announcement::parse(&bytes) {
                prop_assert_eq!(one.encode(), bytes);
            }
        }
    }
}
