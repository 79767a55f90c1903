//! An extension by a file's first bytes, for records that have no name of their own.

/// Bytes of a head that tell enough.
pub const HEAD_BYTES: usize = 512;

/// `head`: the first bytes, at least [`HEAD_BYTES`] of them or all.
pub fn of_head(head: &[u8]) -> &'static str {
    let known: [(&[u8], &str); 7] = [
        (b"\xff\xd8\xff", "jpg"),
        (b"\x89PNG\r\n", "png"),
        (b"GIF8", "gif"),
        (b"fLaC", "flac"),
        (b"\x93NUMPY", "npy"),
        (b"OggS", "ogg"),
        (b"ID3", "mp3"),
    ];
    if let Some((_, kind)) = known.iter().find(|(magic, _)| head.starts_with(magic)) {
        return kind;
    }
    match (head.get(..4), head.get(8..12)) {
        (Some(b"RIFF"), Some(b"WEBP")) => return "webp",
        (Some(b"RIFF"), Some(b"WAVE")) => return "wav",
        _ => {}
    }
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        // The head ends within a character.
        Err(e) if e.error_len().is_none() && e.valid_up_to() > 0 && head.len() >= HEAD_BYTES => {
            std::str::from_utf8(&head[..e.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return "bin",
    };
    if text.chars().any(|c| c.is_control() && !c.is_whitespace()) { "bin" } else { "txt" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_tell() {
        for (bytes, wanted) in [
            (&b"\xff\xd8\xff\xe0"[..], "jpg"),
            (b"RIFF....WEBPVP8", "webp"),
            (b"RIFF....WAVEfmt", "wav"),
            (b"plain text\n", "txt"),
            (b"", "txt"),
            (b"\x00\x01", "bin"),
            (b"\xfe\xff", "bin"),
            ("é".repeat(300).as_bytes(), "txt"),
            (&"é".repeat(300).as_bytes()[..HEAD_BYTES], "txt"),
            (&["x".as_bytes(), "é".repeat(300).as_bytes()].concat()[..HEAD_BYTES], "txt"),
            (b"cut \xc3", "bin"),
        ] {
            assert_eq!(of_head(bytes), wanted, "{bytes:?}");
        }
    }
}
