//! A shard cut into pieces of a few MiB that threads make independently.
//!
//! Sizes are known before any file is opened, so where each byte of the tar goes is known too: a segment is a range of the tar,
//! rendered into one buffer and written by itself. Threads take segments, not shards, so that a large file or the last shard keeps
//! all of them busy.

use std::collections::HashSet;
use std::sync::Arc;

use granary_core::{Error, Result};

use super::entry::{Content, Entry};
use super::plan::{self, Entries};
use crate::from::{Source, Want};
use crate::tar::padded;

/// A part of one entry: `len` bytes of its content from `from` on; with its header if it is the first, its padding if it is the last.
#[derive(Clone, Debug)]
pub struct Piece {
    pub entry: Arc<Entry>,
    /// The entry's number in the shard's plan.
    pub ordinal: u32,
    pub header_bytes: u64,
    pub from: u64,
    pub len: u64,
    pub is_last: bool,
}

impl Piece {
    /// Bytes it takes in the tar.
    pub fn bytes(&self) -> u64 {
        self.header_bytes + self.len + self.padding()
    }

    fn padding(&self) -> u64 {
        if self.is_last { padded(self.entry.length) - self.entry.length } else { 0 }
    }
}

/// A range of a shard's tar.
#[derive(Clone, Debug)]
pub struct Segment {
    pub number: u32,
    /// Where in the tar it begins.
    pub at: u64,
    pub bytes: u64,
    pub pieces: Vec<Piece>,
    /// Nothing but the tar's end follows.
    pub is_last: bool,
}

/// Cuts one shard into segments.
#[derive(Debug)]
pub struct Dealer {
    entries: Entries,
    /// Numbers of entries that are left out.
    excluded: Arc<HashSet<u32>>,
    segment_bytes: u64,
    ordinal: u32,
    /// The entry whose content is not dealt wholly, its number, and where it goes on.
    open: Option<(Arc<Entry>, u32, u64)>,
    /// Read ahead, to know which segment is the last.
    next: Option<(Arc<Entry>, u32)>,
    at: u64,
    number: u32,
    ended: bool,
    scratch: Vec<u8>,
}

impl Dealer {
    /// Each segment but the last has `segment_bytes` at least, and hardly more.
    ///
    /// Errors: what the work directory's disk says.
    pub fn new(entries: Entries, excluded: Arc<HashSet<u32>>, segment_bytes: u64) -> Result<Dealer> {
        let mut dealer = Dealer {
            entries,
            excluded,
            segment_bytes,
            ordinal: 0,
            open: None,
            next: None,
            at: 0,
            number: 0,
            ended: false,
            scratch: Vec::new(),
        };
        dealer.look_ahead()?;
        Ok(dealer)
    }

    fn look_ahead(&mut self) -> Result<()> {
        self.next = None;
        while let Some(entry) = self.entries.next_entry()? {
            let ordinal = self.ordinal;
            self.ordinal += 1;
            if !self.excluded.contains(&ordinal) {
                self.next = Some((Arc::new(entry), ordinal));
                break;
            }
        }
        Ok(())
    }

    /// How many were dealt.
    pub fn dealt(&self) -> u32 {
        self.number
    }

    /// The next segment; `None` after the last. Of a shard without entries there is none at all.
    ///
    /// Errors: what the work directory's disk says.
    pub fn next_segment(&mut self) -> Result<Option<Segment>> {
        if self.ended || (self.open.is_none() && self.next.is_none()) {
            return Ok(None);
        }
        let mut segment =
            Segment { number: self.number, at: self.at, bytes: 0, pieces: Vec::new(), is_last: false };
        while segment.bytes < self.segment_bytes {
            let Some(piece) = self.piece(segment.bytes)? else { break };
            segment.bytes += piece.bytes();
            segment.pieces.push(piece);
        }
        segment.is_last = self.open.is_none() && self.next.is_none();
        self.ended = segment.is_last;
        self.at += segment.bytes;
        self.number += 1;
        Ok(Some(segment))
    }

    fn piece(&mut self, filled: u64) -> Result<Option<Piece>> {
        let (entry, ordinal, from, header_bytes) = match self.open.take() {
            Some((entry, ordinal, from)) => (entry, ordinal, from, 0),
            None => {
                let Some((entry, ordinal)) = self.next.take() else { return Ok(None) };
                self.look_ahead()?;
                let header = plan::tar_bytes(&entry, &mut self.scratch)? - padded(entry.length);
                (entry, ordinal, 0, header)
            }
        };
        let room = self.segment_bytes.saturating_sub(filled + header_bytes).max(512);
        let len = (entry.length - from).min(room);
        let is_last = from + len == entry.length;
        if !is_last {
            self.open = Some((entry.clone(), ordinal, from + len));
        }
        Ok(Some(Piece { entry, ordinal, header_bytes, from, len, is_last }))
    }
}

/// What came of a piece: the checksum of its bytes.
#[derive(Debug)]
pub struct Done {
    pub piece: Piece,
    pub crc: u32,
}

/// Pieces whose bytes came, and those whose bytes did not, with why.
pub type Rendered = (Vec<Done>, Vec<(Piece, Error)>);

/// Renders a segment into the first `segment.bytes` bytes of `buffer`, which is made as long as that.
///
/// Pieces whose bytes did not come are in the second list, with why; the buffer is then worth nothing.
///
/// Errors: a header that cannot be, which the plan would have met.
pub fn render(
    segment: Segment,
    source: &dyn Source,
    buffer: &mut Vec<u8>,
    scratch: &mut Vec<u8>,
) -> Result<Rendered> {
    let bytes = segment.bytes as usize;
    if buffer.len() < bytes {
        buffer.resize(bytes, 0);
    }
    let mut rest = &mut buffer[..bytes];
    let mut places = Vec::with_capacity(segment.pieces.len());
    for piece in &segment.pieces {
        if piece.header_bytes > 0 {
            scratch.clear();
            plan::encode_header(&piece.entry, scratch)?;
            let header = take(&mut rest, piece.header_bytes);
            header.copy_from_slice(scratch);
        }
        places.push(take(&mut rest, piece.len));
        take(&mut rest, piece.padding()).fill(0);
    }
    let mut wants = Vec::with_capacity(places.len());
    for (piece, into) in segment.pieces.iter().zip(places) {
        if let Content::Inline(bytes) = &piece.entry.content {
            into.copy_from_slice(&bytes[piece.from as usize..][..piece.len as usize]);
        }
        wants.push(Want { entry: &piece.entry, from: piece.from, into, failed: None });
    }
    // Of the others' kinds nothing is to be read.
    let asks = |want: &Want<'_>| matches!(want.entry.content, Content::File | Content::Range { .. });
    let (mut asked, told): (Vec<_>, Vec<_>) = wants.into_iter().enumerate().partition(|(_, want)| asks(want));
    let mut all: Vec<(u32, Option<Error>)> = segment.pieces.iter().map(|_| (0, None)).collect();
    let numbers: Vec<usize> = asked.iter().map(|(number, _)| *number).collect();
    let mut wants: Vec<Want<'_>> = asked.drain(..).map(|(_, want)| want).collect();
    source.read(&mut wants);
    for (number, want) in numbers.into_iter().zip(wants).chain(told) {
        all[number] = (granary_core::crc32c(want.into), want.failed);
    }
    let (mut done, mut failed) = (Vec::with_capacity(all.len()), Vec::new());
    for (piece, (crc, error)) in segment.pieces.into_iter().zip(all) {
        match error {
            None => done.push(Done { piece, crc }),
            Some(e) => failed.push((piece, e)),
        }
    }
    Ok((done, failed))
}

/// Takes so many bytes off the front.
fn take<'a>(rest: &mut &'a mut [u8], bytes: u64) -> &'a mut [u8] {
    let (taken, left) = std::mem::take(rest).split_at_mut(bytes as usize);
    *rest = left;
    taken
}
