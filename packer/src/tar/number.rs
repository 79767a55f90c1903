//! Numbers in a header: octal digits, or base 256 when those are too few.

/// Writes into a field of a header. What needs more than the digits is written in base 256, the first byte's highest bit set.
pub fn put(field: &mut [u8], value: i64) {
    let digits = field.len() - 1;
    if value >= 0 && (value as u64) < 1u64 << (3 * digits).min(63) {
        let text = format!("{value:0digits$o}");
        field[..digits].copy_from_slice(text.as_bytes());
        field[digits] = 0;
        return;
    }
    let fill = if value < 0 { 0xff } else { 0 };
    field.fill(fill);
    let bytes = value.to_be_bytes();
    let from = bytes.len().saturating_sub(field.len());
    let at = field.len() - (bytes.len() - from);
    field[at..].copy_from_slice(&bytes[from..]);
    field[0] = if value < 0 { 0xff } else { 0x80 };
}

/// `None` when it is no number, or one of more than 63 bits. An empty field is 0.
pub fn get(field: &[u8]) -> Option<i64> {
    let (&first, rest) = field.split_first()?;
    if first & 0x80 == 0 {
        let text: &[u8] = field.split(|&b| b == 0).next().unwrap_or_default();
        let text = text.trim_ascii();
        if text.is_empty() {
            return Some(0);
        }
        return text.iter().try_fold(0i64, |n, &b| {
            let digit = b.checked_sub(b'0').filter(|&d| d < 8)?;
            n.checked_mul(8)?.checked_add(i64::from(digit))
        });
    }
    // The bit below the highest is the sign.
    let negative = first & 0x40 != 0;
    let start = if negative { i128::from(first | 0x80) - 256 } else { i128::from(first & 0x7f) };
    let value = rest.iter().try_fold(start, |n, &b| n.checked_mul(256)?.checked_add(i128::from(b)))?;
    i64::try_from(value).ok()
}
