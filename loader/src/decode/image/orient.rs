//! Exif's orientation: one number of a TIFF directory.
//!
//! | bytes | what |
//! |---|---|
//! | 2 | `II`: numbers have their lowest byte first; `MM`: their highest |
//! | 2 | 42 |
//! | 4 | where the first directory is, counted from the start |
//!
//! A directory is a number of entries (2 bytes) and entries of 12 bytes: tag (2), type (2), count (4), and the value, or where it is (4). Orientation is
//! tag 274, type 3 (2 bytes), count 1 (TIFF 6.0; CIPA DC-008).

const TAG: u16 = 274;
const SHORT: u16 = 3;

/// The orientation in Exif data, 1 to 8; `None` without one, and when they are damaged: the image is not.
pub(super) fn orientation(exif: &[u8]) -> Option<u8> {
    // JPEG's segment has a name before it.
    let exif = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
    let little = match exif.get(..2)? {
        b"II" => true,
        b"MM" => false,
        _ => return None,
    };
    let short = |at: usize| {
        let bytes: [u8; 2] = exif.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    };
    let long = |at: usize| {
        let bytes: [u8; 4] = exif.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    };
    if short(2)? != 42 {
        return None;
    }
    let directory = long(4)? as usize;
    for entry in 0..usize::from(short(directory)?) {
        let at = directory.checked_add(2 + 12 * entry)?;
        if short(at)? == TAG {
            let is_one = short(at + 2)? == SHORT && long(at + 4)? == 1;
            return short(at + 8).filter(|value| is_one && (1..=8).contains(value)).map(|value| value as u8);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Exif data with one entry before it.
    fn made(orientation: u16, little: bool) -> Vec<u8> {
        let short = |n: u16| if little { n.to_le_bytes() } else { n.to_be_bytes() };
        let long = |n: u32| if little { n.to_le_bytes() } else { n.to_be_bytes() };
        let mut out = if little { b"II".to_vec() } else { b"MM".to_vec() };
        out.extend(short(42));
        out.extend(long(8));
        out.extend(short(2));
        for (tag, value) in [(256, 7), (TAG, orientation)] {
            out.extend(short(tag));
            out.extend(short(SHORT));
            out.extend(long(1));
            out.extend(short(value));
            out.extend([0; 2]);
        }
        out.extend(long(0));
        out
    }

    #[test]
    fn it_is_found_in_both_orders_of_bytes() {
        for little in [true, false] {
            for value in 1..=8 {
                assert_eq!(orientation(&made(value, little)), Some(value as u8));
            }
            assert_eq!((orientation(&made(0, little)), orientation(&made(9, little))), (None, None));
        }
        let named = [b"Exif\0\0".to_vec(), made(6, true)].concat();
        assert_eq!(orientation(&named), Some(6));
    }

    #[test]
    fn what_is_cut_or_wild_has_none() {
        let whole = made(3, false);
        for length in 0..whole.len() - 4 {
            let found = orientation(&whole[..length]);
            assert!(found.is_none() || length >= 8 + 2 + 22, "{length}: {found:?}");
        }
        let mut wild = whole;
        wild[4..8].fill(0xff);
        assert_eq!(orientation(&wild), None);
        assert_eq!(orientation(b"II*\0"), None);
    }
}
