//! Reading what was lent: right into the memory that the samples are views of.

use std::fs::File;
use std::io;

use granary_core::{Error, Kind, Result};

use super::link::Heard;
use super::wire::{Part, Said};

/// How bytes came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Came {
    pub lent: u64,
    pub copied: u64,
}

/// Adds the bytes of an answer's parts to `all`, no more than `wanted`. May wait for a disk.
///
/// Errors: `Corrupt` when a file is shorter than was said, and for another answer than parts; what the disk says.
pub(super) fn read(heard: Heard, all: &mut Vec<u8>, wanted: u64) -> Result<Came> {
    let Said::Parts(parts) = &heard.said else {
        return Err(Error::new(Kind::Corrupt, "the node answered something else than what was asked"));
    };
    if parts.is_empty() || parts.iter().map(Part::len).sum::<u64>() > wanted {
        return Err(Error::new(Kind::Corrupt, "the node gave no bytes, or more than were asked for"));
    }
    let mut came = Came::default();
    let (mut descriptors, mut inline) = (heard.descriptors.into_iter(), &heard.inline[..]);
    for part in parts {
        match *part {
            Part::Inline { len } => {
                let (now, later) = inline
                    .split_at_checked(len as usize)
                    .ok_or_else(|| Error::new(Kind::Corrupt, "bytes of an answer are missing"))?;
                all.extend_from_slice(now);
                inline = later;
                came.copied += u64::from(len);
            }
            Part::Lent { offset, len } => {
                let descriptor = descriptors
                    .next()
                    .ok_or_else(|| Error::new(Kind::Corrupt, "a descriptor of an answer is missing"))?;
                read_at(&File::from(descriptor), offset, len as usize, all)?;
                came.lent += u64::from(len);
            }
        }
    }
    Ok(came)
}

/// `pread` into memory that was not cleared before: clearing costs as much as reading.
fn read_at(file: &File, offset: u64, len: usize, all: &mut Vec<u8>) -> Result<()> {
    all.reserve(len);
    let mut done = 0;
    while done < len {
        let room = &mut all.spare_capacity_mut()[..len - done];
        match rustix::io::pread(file, room, offset + done as u64) {
            Ok((filled, _)) => {
                let n = filled.len();
                if n == 0 {
                    return Err(Error::new(Kind::Corrupt, "a chunk of the node's cache is cut off"));
                }
                // SAFETY: the kernel has filled the next `n` bytes behind the vector's end, within its capacity.
                unsafe { all.set_len(all.len() + n) };
                done += n;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(Error::io("cannot read a chunk of the node's cache", io::Error::from(e))),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn lent(bytes: &[u8]) -> std::os::fd::OwnedFd {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.into()
    }

    fn heard(parts: Vec<Part>, files: &[&[u8]], inline: &[u8]) -> Heard {
        let descriptors = files.iter().map(|bytes| lent(bytes)).collect();
        Heard { said: Said::Parts(parts), descriptors, inline: inline.to_vec() }
    }

    #[test]
    fn parts_come_in_order_and_behind_what_is_there() {
        let parts = vec![
            Part::Lent { offset: 2, len: 3 },
            Part::Inline { len: 2 },
            Part::Lent { offset: 0, len: 1 },
            Part::Inline { len: 1 },
        ];
        let mut all = b"<".to_vec();
        all.reserve(1000);
        let came = read(heard(parts.clone(), &[b"abcdefgh", b"xyz"], b"123"), &mut all, 7).unwrap();
        assert_eq!((&all[..], came), (&b"<cde12x3"[..], Came { lent: 4, copied: 3 }));
        for (files, inline, wanted) in [
            (&[&b"abcd"[..], b"x"][..], &b"123"[..], 7), // cut off
            (&[b"abcdefgh"], b"123", 7),                 // a descriptor too few
            (&[b"abcdefgh", b"x"], b"12", 7),            // bytes too few
            (&[b"abcdefgh", b"x"], b"123", 6),           // more than asked for
        ] {
            let e = read(heard(parts.clone(), files, inline), &mut Vec::new(), wanted).unwrap_err();
            assert_eq!(e.kind(), Kind::Corrupt);
        }
        assert!(read(heard(Vec::new(), &[], b""), &mut Vec::new(), 7).is_err());
    }
}
