//! What a loader asks the node and what it answers, versions 1 and 2. Integers are little-endian.
//!
//! A connection begins as HTTP: `GET /v1/lend?root=ROOT` with `Upgrade: granary-lend-1`. The node answers 101, with the header
//! `granary-source: URL` when the root is a packed data set, and with `granary-lend-version: 2` when it knows questions of version 2 and the
//! loader said by the same header that it does; or refuses as it refuses other requests. Then frames go both ways; answers come in any order.
//!
//! A question:
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 4 | bytes that follow, at most 8 KiB |
//! | 4 | 1 | version, 1 or 2 |
//! | 5 | 1 | 1: bytes of a file; 2: its length; 3: the files of a folder |
//! | 6 | 1 | 1: verify what is cached first (of bytes); else 0 |
//! | 7 | 1 | 0 |
//! | 8 | 4 | number, given back with the answer |
//! | 12 | 8 | first byte; of a folder: names at most |
//! | 20 | 8 | byte behind the last; else 0 |
//! | 28 | 2, n | name below the root; of a folder with a slash at its end |
//! | 30 + n | 2, m | of a folder: only names behind this one; empty: all |
//! | | 1, 4 k | version 2, of bytes: for each mebibyte of the file that the range touches, after how many mebibytes that this loader reads meanwhile it comes to it again; 2^32 - 1: not in its next epoch, either. None: it is not said |
//! | | 4 | crc32c of everything before |
//!
//! An answer:
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 4 | bytes that follow in the frame, at most 2 MiB |
//! | 4 | 1 | version, 1 |
//! | 5 | 1 | 1: parts; 2: files; 3: refused |
//! | 6 | 2 | how many parts or files |
//! | 8 | 4 | number of the question |
//! | 12 | | parts, files or the refusal |
//! | | 4 | crc32c of everything before |
//! | | | the bytes of those parts that are not lent |
//!
//! A part: `u8` 1 if it is lent, 0 if its bytes follow the frame; `u64` where in the lent file it begins; `u32` its length. Parts are in order
//! and begin where the question does; they may end before, and then the rest is asked for again. Descriptors of lent parts come with
//! the frame, in order. A file: `u16` and name; `u64` length; `u64` milliseconds since 1970. A refusal: `u8` kind; `u32` and message.

use std::ops::Range;

use granary_core::codec::{Put, Reader};
use granary_core::{Error, Kind, Result};

/// In the headers `Upgrade`.
pub const PROTOCOL: &str = "granary-lend-1";
/// The header that says where a packed data set itself is.
pub const SOURCE_HEADER: &str = "granary-source";
/// The header that says which questions are known.
pub const VERSION_HEADER: &str = "granary-lend-version";
/// The newest of them.
pub const QUESTION_VERSION: u8 = 2;
/// Pieces of which a question says when they are wanted again.
pub const PIECE_BYTES: u64 = 1 << 20;
/// Such pieces of one question.
pub const NEXT_MAX: usize = (RANGE_BYTES_MAX / PIECE_BYTES) as usize + 1;
/// Of a piece that is not wanted again as far as can be seen.
pub const NEVER: u32 = u32::MAX;
/// The path of the request that begins a connection.
pub const PATH: &str = "/v1/lend";
/// Bytes of one question.
pub const RANGE_BYTES_MAX: u64 = 8 << 20;
/// Parts of one answer.
pub const PARTS_MAX: usize = 16;
/// Questions under way on one connection.
pub const QUESTIONS_MAX: usize = 16;
/// Files of one answer.
pub const FILES_MAX: usize = 1000;
pub const QUESTION_FRAME_BYTES_MAX: usize = 8 << 10;
pub const ANSWER_FRAME_BYTES_MAX: usize = 2 << 20;
/// A frame's own length.
pub const LENGTH_BYTES: usize = 4;

const VERSION: u8 = 1;
const CRC_BYTES: usize = 4;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// `next`: of each piece when it is wanted again; empty: nothing is said.
    Bytes {
        name: String,
        range: Range<u64>,
        check: bool,
        next: Vec<u32>,
    },
    Length {
        name: String,
    },
    Files {
        folder: String,
        after: String,
        max: u64,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub number: u32,
    pub ask: Ask,
}

/// A stretch of what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Of the next descriptor.
    Lent { offset: u64, len: u32 },
    /// It follows the frame.
    Inline { len: u32 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileOf {
    pub name: String,
    pub bytes: u64,
    pub modified_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    Parts(Vec<Part>),
    Files(Vec<FileOf>),
    Refused { kind: Kind, message: String },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub number: u32,
    pub said: Said,
}

/// Kinds that are told as they are; all others are `Io`.
const KINDS: [Kind; 9] = [
    Kind::Io,
    Kind::NotFound,
    Kind::Invalid,
    Kind::Unavailable,
    Kind::Corrupt,
    Kind::NoSpace,
    Kind::Access,
    Kind::Stale,
    Kind::Denied,
];

/// How long the frame is that begins with these four bytes.
///
/// Errors: `Corrupt` when it cannot be.
pub fn frame_bytes(length: [u8; LENGTH_BYTES], max: usize) -> Result<usize> {
    match u32::from_le_bytes(length) as usize {
        bytes if (8 + CRC_BYTES..=max).contains(&bytes) => Ok(bytes),
        bytes => Err(Error::new(Kind::Corrupt, format!("a frame of {bytes} bytes cannot be"))),
    }
}

fn framed(fill: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = vec![0; LENGTH_BYTES];
    fill(&mut out);
    let bytes = (out.len() - LENGTH_BYTES + CRC_BYTES) as u32;
    out[..LENGTH_BYTES].copy_from_slice(&bytes.to_le_bytes());
    let crc = granary_core::crc32c(&out);
    out.put_u32(crc);
    out
}

/// A whole frame without its checksum, which was right, behind its length.
fn checked<'a>(frame: &'a [u8], what: &'static str) -> Result<Reader<'a>> {
    let short = || Reader::new(frame, what).corrupt("it is too short");
    let at = frame.len().checked_sub(CRC_BYTES).filter(|at| *at >= LENGTH_BYTES).ok_or_else(short)?;
    let mut crc = Reader::new(&frame[at..], what);
    if crc.u32()? != granary_core::crc32c(&frame[..at]) {
        return Err(Reader::new(frame, what).corrupt("its checksum differs"));
    }
    Ok(Reader::new(&frame[LENGTH_BYTES..at], what))
}

fn text(r: &mut Reader<'_>) -> Result<String> {
    let bytes = r.bytes16()?;
    String::from_utf8(bytes.to_vec()).map_err(|_| r.corrupt("a name is not UTF-8"))
}

impl Question {
    /// `version`: what the node knows. What it does not know is left out.
    ///
    /// Errors: `Invalid` for names that are too long.
    pub fn encode(&self, version: u8) -> Result<Vec<u8>> {
        let (op, check, start, end, name, after) = match &self.ask {
            Ask::Bytes { name, range, check, .. } => (1, *check, range.start, range.end, name, ""),
            Ask::Length { name } => (2, false, 0, 0, name, ""),
            Ask::Files { folder, after, max } => (3, false, *max, 0, folder, &after[..]),
        };
        if name.len() + after.len() > QUESTION_FRAME_BYTES_MAX / 2 {
            return Err(Error::new(Kind::Invalid, format!("{name:?} is too long for a name")));
        }
        Ok(framed(|out| {
            out.extend_from_slice(&[version.clamp(VERSION, QUESTION_VERSION), op, u8::from(check), 0]);
            out.put_u32(self.number);
            out.put_u64(start);
            out.put_u64(end);
            out.put_bytes16(name.as_bytes());
            out.put_bytes16(after.as_bytes());
            if let Ask::Bytes { next, .. } = &self.ask
                && version >= 2
            {
                let next = &next[..next.len().min(NEXT_MAX)];
                out.put_u8(next.len() as u8);
                next.iter().for_each(|after| out.put_u32(*after));
            }
        }))
    }

    /// Of a whole frame.
    ///
    /// Errors: `Corrupt`; `Unsupported` of a later version.
    pub fn decode(frame: &[u8]) -> Result<Question> {
        let mut r = checked(frame, "a question for the node")?;
        let version = r.version(QUESTION_VERSION)?;
        let (op, check) = (r.u8()?, r.u8()? != 0);
        r.take(1)?;
        let (number, start, end) = (r.u32()?, r.u64()?, r.u64()?);
        let (name, after) = (text(&mut r)?, text(&mut r)?);
        let ask = match op {
            1 => {
                let count = if version >= 2 { usize::from(r.u8()?) } else { 0 };
                if count > NEXT_MAX {
                    return Err(r.corrupt("it says too much of when it comes again"));
                }
                let next = (0..count).map(|_| r.u32()).collect::<Result<_>>()?;
                Ask::Bytes { name, range: start..end, check, next }
            }
            2 => Ask::Length { name },
            3 => Ask::Files { folder: name, after, max: start },
            _ => return Err(r.corrupt("it asks for something unknown")),
        };
        r.finish()?;
        Ok(Question { number, ask })
    }
}

impl Answer {
    pub fn refused(number: u32, e: &Error) -> Answer {
        Answer { number, said: Said::Refused { kind: e.kind(), message: e.to_string() } }
    }

    pub fn encode(&self) -> Vec<u8> {
        let (op, count) = match &self.said {
            Said::Parts(parts) => (1, parts.len()),
            Said::Files(files) => (2, files.len()),
            Said::Refused { .. } => (3, 0),
        };
        framed(|out| {
            out.extend_from_slice(&[VERSION, op]);
            out.put_u16(count as u16);
            out.put_u32(self.number);
            match &self.said {
                Said::Parts(parts) => parts.iter().for_each(|part| part.put(out)),
                Said::Files(files) => files.iter().for_each(|file| {
                    out.put_bytes16(file.name.as_bytes());
                    out.put_u64(file.bytes);
                    out.put_u64(file.modified_ms);
                }),
                Said::Refused { kind, message } => {
                    out.put_u8(KINDS.iter().position(|known| known == kind).unwrap_or(0) as u8);
                    out.put_bytes32(message.as_bytes());
                }
            }
        })
    }

    /// Of a whole frame.
    ///
    /// Errors: `Corrupt`; `Unsupported` of a later version.
    pub fn decode(frame: &[u8]) -> Result<Answer> {
        let mut r = checked(frame, "an answer of the node")?;
        r.version(VERSION)?;
        let (op, count, number) = (r.u8()?, r.u16()?, r.u32()?);
        let said = match op {
            1 if usize::from(count) <= PARTS_MAX => {
                Said::Parts((0..count).map(|_| Part::take(&mut r)).collect::<Result<_>>()?)
            }
            2 => {
                let one = |r: &mut Reader<'_>| {
                    Ok(FileOf { name: text(r)?, bytes: r.u64()?, modified_ms: r.u64()? })
                };
                Said::Files((0..count).map(|_| one(&mut r)).collect::<Result<_>>()?)
            }
            3 => {
                let kind = KINDS.get(usize::from(r.u8()?)).copied().unwrap_or(Kind::Io);
                Said::Refused { kind, message: String::from_utf8_lossy(r.bytes32()?).into_owned() }
            }
            _ => return Err(r.corrupt("it says something unknown")),
        };
        r.finish()?;
        Ok(Answer { number, said })
    }

    /// Descriptors that come with it, and bytes that follow its frame.
    pub fn brings(&self) -> (usize, usize) {
        let Said::Parts(parts) = &self.said else { return (0, 0) };
        parts.iter().fold((0, 0), |(lent, bytes), part| match part {
            Part::Lent { .. } => (lent + 1, bytes),
            Part::Inline { len } => (lent, bytes + *len as usize),
        })
    }
}

impl Part {
    pub fn len(&self) -> u64 {
        match self {
            Part::Lent { len, .. } | Part::Inline { len } => u64::from(*len),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn put(&self, out: &mut Vec<u8>) {
        let (lent, offset, len) = match *self {
            Part::Lent { offset, len } => (1, offset, len),
            Part::Inline { len } => (0, 0, len),
        };
        out.put_u8(lent);
        out.put_u64(offset);
        out.put_u32(len);
    }

    fn take(r: &mut Reader<'_>) -> Result<Part> {
        let (lent, offset, len) = (r.u8()?, r.u64()?, r.u32()?);
        if len == 0 || u64::from(len) > RANGE_BYTES_MAX {
            return Err(r.corrupt("a part has a length that cannot be"));
        }
        match lent {
            0 => Ok(Part::Inline { len }),
            1 => Ok(Part::Lent { offset, len }),
            _ => Err(r.corrupt("a part is of an unknown kind")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn question() -> impl Strategy<Value = Question> {
        let ask = prop_oneof![
            (
                "[a-z/]{1,60}",
                any::<u64>(),
                any::<u64>(),
                any::<bool>(),
                proptest::collection::vec(any::<u32>(), 0..=NEXT_MAX)
            )
                .prop_map(|(name, start, end, check, next)| Ask::Bytes {
                    name,
                    range: start..end,
                    check,
                    next
                }),
            "[a-zé/]{1,60}".prop_map(|name| Ask::Length { name }),
            ("[a-z]{0,9}/", "[a-z]{0,9}", any::<u64>()).prop_map(|(folder, after, max)| Ask::Files {
                folder,
                after,
                max
            }),
        ];
        (any::<u32>(), ask).prop_map(|(number, ask)| Question { number, ask })
    }

    fn answer() -> impl Strategy<Value = Answer> {
        let len = 1..RANGE_BYTES_MAX as u32;
        let part = prop_oneof![
            (any::<u64>(), len.clone()).prop_map(|(offset, len)| Part::Lent { offset, len }),
            len.prop_map(|len| Part::Inline { len }),
        ];
        let file = ("[a-z]{0,30}", any::<u64>(), any::<u64>())
            .prop_map(|(name, bytes, modified_ms)| FileOf { name, bytes, modified_ms });
        let said = prop_oneof![
            proptest::collection::vec(part, 0..=PARTS_MAX).prop_map(Said::Parts),
            proptest::collection::vec(file, 0..20).prop_map(Said::Files),
            (0..KINDS.len(), ".{0,40}")
                .prop_map(|(kind, message)| Said::Refused { kind: KINDS[kind], message }),
        ];
        (any::<u32>(), said).prop_map(|(number, said)| Answer { number, said })
    }

    fn length(frame: &[u8]) -> [u8; LENGTH_BYTES] {
        frame[..LENGTH_BYTES].try_into().unwrap()
    }

    proptest! {
        #[test]
        fn frames_come_back_and_damage_is_seen(
            question in question(), answer in answer(), at: prop::sample::Index, bit in 0_u8..8,
        ) {
            let old = Question::decode(&question.encode(1).unwrap()).unwrap();
            let unsaid = match question.ask.clone() {
                Ask::Bytes { name, range, check, .. } => Ask::Bytes { name, range, check, next: Vec::new() },
                ask => ask,
            };
            prop_assert_eq!(old, Question { number: question.number, ask: unsaid });
            let mut frame = question.encode(QUESTION_VERSION).unwrap();
            let bytes = frame_bytes(length(&frame), QUESTION_FRAME_BYTES_MAX).unwrap();
            prop_assert_eq!(bytes + LENGTH_BYTES, frame.len());
            prop_assert_eq!(Question::decode(&frame).unwrap(), question);
            prop_assert!(Question::decode(&frame[..at.index(frame.len())]).is_err());
            let place = at.index(frame.len());
            frame[place] ^= 1 << bit;
            prop_assert!(Question::decode(&frame).is_err());

            let mut frame = answer.encode();
            let bytes = frame_bytes(length(&frame), ANSWER_FRAME_BYTES_MAX).unwrap();
            prop_assert_eq!(bytes + LENGTH_BYTES, frame.len());
            prop_assert_eq!(Answer::decode(&frame).unwrap(), answer);
            let place = at.index(frame.len());
            frame[place] ^= 1 << bit;
            prop_assert!(Answer::decode(&frame).is_err());
        }
    }

    #[test]
    fn other_kinds_become_io_and_lengths_are_bounded() {
        let answer = Answer::refused(7, &Error::new(Kind::Bug, "oh"));
        let said = Answer::decode(&answer.encode()).unwrap().said;
        assert_eq!(said, Said::Refused { kind: Kind::Io, message: "oh".to_owned() });
        assert!(frame_bytes([0; 4], 100).is_err() && frame_bytes([101, 0, 0, 0], 100).is_err());
        let name = "x".repeat(QUESTION_FRAME_BYTES_MAX);
        assert!(Question { number: 1, ask: Ask::Length { name } }.encode(QUESTION_VERSION).is_err());
    }
}
