//! Ogg: packets in pages (RFC 3533). Pages are little-endian.
//!
//! | bytes | what |
//! |---|---|
//! | 4, 1 | `OggS`, version 0 |
//! | 1 | flags: 1 begins with a packet's rest, 2 the stream's first page, 4 its last |
//! | 8 | granule position: of Vorbis the frames up to the last packet that ends here; -1 when none does |
//! | 4, 4 | the stream's number, the page's number in it |
//! | 4 | CRC-32 of the page with this at 0, polynomial 04C11DB7, highest bit first, from 0 |
//! | 1, n | segments, and the length of each; one of less than 255 ends a packet |

use granary_core::Result;

use crate::decode::{damaged, unsupported};

const FIRST: u8 = 2;
const LAST: u8 = 4;

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        let (mut crc, mut bit) = ((at as u32) << 24, 0);
        while bit < 8 {
            crc = if crc >> 31 == 1 { crc << 1 ^ 0x04c1_1db7 } else { crc << 1 };
            bit += 1;
        }
        table[at] = crc;
        at += 1;
    }
    table
};

fn crc(crc: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(crc, |crc, &byte| crc << 8 ^ TABLE[(crc >> 24) as usize ^ usize::from(byte)])
}

/// A page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Page<'a> {
    head: &'a [u8],
    segments: &'a [u8],
    content: &'a [u8],
    pub granule: i64,
    pub serial: u32,
    number: u32,
    flags: u8,
}

impl<'a> Page<'a> {
    /// The page at the start of these bytes. Its checksum is not compared.
    pub fn of(bytes: &'a [u8]) -> Option<Page<'a>> {
        let head = bytes.get(..27)?;
        let segments = bytes.get(27..27 + usize::from(head[26]))?;
        let length: usize = segments.iter().map(|&length| usize::from(length)).sum();
        let content = bytes.get(27 + segments.len()..27 + segments.len() + length)?;
        let long = |at: usize| Some(u32::from_le_bytes(head.get(at..at + 4)?.try_into().ok()?));
        (head.starts_with(b"OggS\0")).then_some(Page {
            head,
            segments,
            content,
            granule: i64::from_le_bytes(head.get(6..14)?.try_into().ok()?),
            serial: long(14)?,
            number: long(18)?,
            flags: head[5],
        })
    }

    pub fn len(&self) -> usize {
        27 + self.segments.len() + self.content.len()
    }

    pub fn is_last(&self) -> bool {
        self.flags & LAST != 0
    }

    /// Packets that end in it.
    pub fn packets(&self) -> u64 {
        self.segments.iter().filter(|&&length| length < 255).count() as u64
    }

    fn is_good(&self) -> bool {
        let stored = u32::from_le_bytes([self.head[22], self.head[23], self.head[24], self.head[25]]);
        let found = crc(crc(crc(crc(0, &self.head[..22]), &[0; 4]), &self.head[26..]), self.segments);
        crc(found, self.content) == stored
    }
}

/// A packet, and what its page says if it is the last that ends there.
#[derive(Debug)]
pub(super) struct Packet {
    pub bytes: Vec<u8>,
    pub granule: Option<i64>,
    pub is_last: bool,
}

/// The packets of the first stream of a file. Streams beside it are passed by.
pub(super) struct Packets<'a> {
    rest: &'a [u8],
    page: Option<Page<'a>>,
    /// Of the page.
    segment: usize,
    offset: usize,
    serial: Option<u32>,
    number: u32,
    /// Of a packet whose end did not come yet.
    begun: Vec<u8>,
}

impl<'a> Packets<'a> {
    pub fn new(bytes: &'a [u8]) -> Packets<'a> {
        let begun = Vec::new();
        Packets { rest: bytes, page: None, segment: 0, offset: 0, serial: None, number: 0, begun }
    }

    /// None at the end of the stream.
    ///
    /// Errors: `Corrupt`; `Unsupported` for another stream behind it.
    pub fn next(&mut self) -> Result<Option<Packet>> {
        loop {
            let Some(page) = self.page else {
                self.page = self.next_page()?;
                match self.page {
                    Some(_) => continue,
                    None => return Ok(None),
                }
            };
            while let Some(&length) = page.segments.get(self.segment) {
                let end = self.offset + usize::from(length);
                self.begun.extend_from_slice(&page.content[self.offset..end]);
                (self.segment, self.offset) = (self.segment + 1, end);
                if length < 255 {
                    let ends_here = !page.segments[self.segment..].iter().any(|&length| length < 255);
                    return Ok(Some(Packet {
                        bytes: std::mem::take(&mut self.begun),
                        granule: Some(page.granule).filter(|_| ends_here),
                        is_last: ends_here && page.is_last(),
                    }));
                }
            }
            (self.segment, self.offset) = (0, 0);
            self.page = if page.is_last() { self.end()? } else { self.next_page()? };
            if self.page.is_none() {
                return Ok(None);
            }
        }
    }

    fn next_page(&mut self) -> Result<Option<Page<'a>>> {
        loop {
            let page = Page::of(self.rest).ok_or_else(|| match self.serial {
                None => damaged("damaged Ogg: its first page was cut"),
                Some(_) => damaged("damaged Ogg: it was cut, or a page's head is damaged"),
            })?;
            if !page.is_good() {
                return Err(damaged(format!(
                    "damaged Ogg: page {} does not match its checksum",
                    page.number
                )));
            }
            self.rest = &self.rest[page.len()..];
            if *self.serial.get_or_insert(page.serial) != page.serial {
                continue;
            }
            if page.number != self.number {
                return Err(damaged(format!("damaged Ogg: page {} is missing", self.number)));
            }
            self.number = self.number.wrapping_add(1);
            return Ok(Some(page));
        }
    }

    /// What is behind the last page: pages of streams beside this one, or others that follow it.
    fn end(&mut self) -> Result<Option<Page<'a>>> {
        let mut rest = self.rest;
        while let Some(page) = Page::of(rest) {
            if page.flags & FIRST != 0 {
                return Err(unsupported(
                    "Ogg with several streams one after the other is not decoded; cut it at their ends",
                ));
            }
            rest = &rest[page.len()..];
        }
        self.rest = &[];
        if self.begun.is_empty() { Ok(None) } else { Err(damaged("damaged Ogg: its last packet has no end")) }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn page(flags: u8, granule: i64, number: u32, segments: &[u8], content: &[u8]) -> Vec<u8> {
        let mut out = b"OggS\0".to_vec();
        out.push(flags);
        out.extend(granule.to_le_bytes());
        out.extend(7_u32.to_le_bytes());
        out.extend(number.to_le_bytes());
        out.extend([0; 4]);
        out.push(segments.len() as u8);
        out.extend(segments);
        out.extend(content);
        let crc = crc(0, &out);
        out[22..26].copy_from_slice(&crc.to_le_bytes());
        out
    }

    fn all(bytes: &[u8]) -> Result<Vec<(usize, Option<i64>, bool)>> {
        let (mut packets, mut found) = (Packets::new(bytes), Vec::new());
        while let Some(packet) = packets.next()? {
            found.push((packet.bytes.len(), packet.granule, packet.is_last));
        }
        Ok(found)
    }

    fn stream() -> Vec<u8> {
        [
            page(FIRST, 0, 0, &[3], b"abc"),
            // The second packet goes on in the next page, where it is 255 and 2 long.
            page(0, 10, 1, &[4, 255], &[1; 259]),
            page(1 | LAST, 20, 2, &[2, 0, 5], &[2; 7]),
        ]
        .concat()
    }

    #[test]
    fn packets_go_over_pages() {
        let found = all(&stream()).unwrap();
        let expected = [
            (3, Some(0), false),
            (4, Some(10), false),
            (257, None, false),
            (0, None, false),
            (5, Some(20), true),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn the_checksum_is_ogg_s() {
        // The first page of a file that libogg wrote would do as well; this is the check value of the polynomial, from 0 and not reflected.
        assert_eq!(crc(0, b"123456789"), 0x89a1_897f);
    }

    #[test]
    fn what_is_cut_changed_or_missing_is_told() {
        let whole = stream();
        for length in 0..whole.len() {
            assert!(all(&whole[..length]).is_err(), "{length}");
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 4;
            assert!(all(&changed).is_err(), "{at}");
        }
        let gap = [page(FIRST, 0, 0, &[3], b"abc"), page(LAST, 0, 2, &[1], b"a")].concat();
        assert!(all(&gap).unwrap_err().to_string().contains("page 1 is missing"));
        let chained = [whole.clone(), whole].concat();
        assert!(all(&chained).unwrap_err().to_string().contains("several streams"));
    }
}
