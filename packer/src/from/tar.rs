//! Tars: their files, links and directories, and nothing else. Payloads are ranges of the tar; only headers are read in the scan.

use granary_core::{Error, Kind, Result};

use super::Sink;
use super::containers::Cursor;
use crate::pack::entry::{Content, Entry};
use crate::tar::{BLOCK_BYTES, Member, Parser, Step, padded};

/// Tells of all of a tar. A hard link has no bytes of its own and is left out, or an error.
///
/// Errors: `Corrupt`, `Unsupported`, each with its offset; what the place says.
pub fn scan(cursor: &mut Cursor<'_>, container: u32, sink: &mut Sink<'_>) -> Result<()> {
    let mut parser = Parser::default();
    loop {
        let at = cursor.at();
        let located = |e: Error| e.context(format_args!("at byte {at}"));
        let mut block = [0; BLOCK_BYTES];
        block.copy_from_slice(&cursor.take(BLOCK_BYTES as u64)?);
        match parser.block(&block).map_err(located)? {
            Step::Next => {}
            Step::Skip(bytes) => cursor.skip(padded(bytes))?,
            Step::Extension(bytes) => {
                let extension = cursor.take(padded(bytes))?;
                parser.extension(&extension[..bytes as usize]).map_err(located)?;
            }
            Step::Member(member) => {
                let offset = cursor.at();
                let size = member.size;
                // Before it is told of: what is cut is no file.
                cursor
                    .skip(size.checked_next_multiple_of(BLOCK_BYTES as u64).unwrap_or(u64::MAX))
                    .map_err(located)?;
                let name = String::from_utf8_lossy(&member.path).into_owned();
                let path = member.path.clone();
                match member.kind {
                    b'0' => sink.push(&entry(path, &member, Content::Range { container, offset }))?,
                    b'2' => sink.push(&entry(path, &member, Content::Link(member.target.clone())))?,
                    // The root itself has no name.
                    b'5' if path.is_empty() => {}
                    b'5' => sink.push(&entry(path, &member, Content::Directory))?,
                    b'1' => sink.skip(&name, special(at, "a hard link, whose bytes are another entry's; unpack the tar and pack the folder"))?,
                    _ => sink.skip(&name, special(at, "a device or pipe, which has no bytes to pack"))?,
                }
            }
            Step::End => return Ok(()),
        }
    }
}

fn special(at: u64, what: &str) -> Error {
    Error::new(Kind::Unsupported, format!("the entry at byte {at} is {what}"))
}

fn entry(path: Vec<u8>, member: &Member, content: Content) -> Entry {
    let length = if matches!(content, Content::Range { .. }) { member.size } else { 0 };
    Entry {
        path,
        length,
        mtime: member.mtime,
        mtime_nanos: 0,
        mode: (member.mode & 0o7777) as u16,
        uid: member.uid,
        gid: member.gid,
        content,
    }
}
