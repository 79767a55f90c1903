//! Opening a connection: HTTP, until the node says that the rest is [`wire`](super::wire).

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use granary_core::{Error, Kind, Result};
use serde::Deserialize;

use super::wire::{PATH, PROTOCOL, QUESTION_VERSION, SOURCE_HEADER, VERSION_HEADER};

/// The node answers at once; it reads a manifest at most.
const HELLO_WAIT: Duration = Duration::from_secs(20);
/// Of the head of an answer, and of a refusal.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// A connection that is open.
#[derive(Debug)]
pub(super) struct Opened {
    pub socket: UnixStream,
    /// Where the packed data set itself is.
    pub source: Option<String>,
    /// Of questions that the node knows.
    pub version: u8,
}

/// The node's words for why it refuses.
#[derive(Deserialize)]
struct Refusal {
    kind: String,
    message: String,
}

/// Errors: `Unavailable` when no node answers; else what it says: `NotFound` for a namespace that is not mounted, and for one that is not
/// for this user.
pub(super) fn open(path: &Path, root: &str) -> Result<Opened> {
    let away = |e: io::Error| {
        Error::new(
            Kind::Unavailable,
            format!(
                "no granary node answers at {}, which granary://{root} is read through; mount its namespace, or say where the node \
                 listens with GRANARY_SOCKET",
                path.display()
            ),
        )
        .with_source(e)
    };
    let mut socket = UnixStream::connect(path).map_err(away)?;
    let bounded = |time| socket.set_read_timeout(time).and_then(|()| socket.set_write_timeout(time));
    bounded(Some(HELLO_WAIT)).map_err(away)?;
    let hello = format!(
        "GET {PATH}?root={} HTTP/1.1\r\nhost: node\r\nconnection: upgrade\r\nupgrade: {PROTOCOL}\r\n\
         {VERSION_HEADER}: {QUESTION_VERSION}\r\n\r\n",
        escaped(root)
    );
    socket.write_all(hello.as_bytes()).map_err(away)?;
    let (head, rest) = head(&mut socket).map_err(away)?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status != "101" {
        return Err(refusal(&mut socket, &head, rest, root));
    }
    if !rest.is_empty() {
        return Err(Error::new(Kind::Corrupt, "the node spoke before it was asked"));
    }
    // Writes stay bounded: questions are short, and a node that takes none for so long is away.
    socket.set_read_timeout(None).map_err(away)?;
    let version = header(&head, VERSION_HEADER).and_then(|version| version.parse().ok()).unwrap_or(1);
    Ok(Opened { source: header(&head, SOURCE_HEADER).map(str::to_owned), version, socket })
}

/// Up to the empty line, and what came after it.
fn head(socket: &mut UnixStream) -> io::Result<(String, Vec<u8>)> {
    let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        if let Some(end) = all.windows(4).position(|at| at == b"\r\n\r\n") {
            let rest = all.split_off(end + 4);
            return Ok((String::from_utf8_lossy(&all).into_owned(), rest));
        }
        match socket.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ if all.len() > HEAD_BYTES_MAX => return Err(io::ErrorKind::InvalidData.into()),
            n => all.extend_from_slice(&buffer[..n]),
        }
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let of = |line: &'a str| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    };
    head.lines().find_map(of)
}

fn refusal(socket: &mut UnixStream, head: &str, mut body: Vec<u8>, root: &str) -> Error {
    let length = header(head, "content-length").and_then(|length| length.parse::<usize>().ok()).unwrap_or(0);
    let missing = length.min(HEAD_BYTES_MAX).saturating_sub(body.len());
    // What cannot be read of the reason is left out.
    let _ = socket.take(missing as u64).read_to_end(&mut body);
    let Ok(Refusal { kind, message }) = serde_json::from_slice(&body) else {
        let status = head.lines().next().unwrap_or_default();
        return Error::new(Kind::Unavailable, format!("the node does not give granary://{root}: {status}"));
    };
    let known =
        [Kind::NotFound, Kind::Invalid, Kind::Permission, Kind::Unavailable, Kind::Denied, Kind::Corrupt];
    let kind = known.into_iter().find(|known| format!("{known:?}") == kind).unwrap_or(Kind::Io);
    Error::new(kind, format!("the node does not give granary://{root}: {message}"))
}

/// For a URL's query, every byte that is not plain escaped.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out += &format!("%{byte:02X}"),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// What comes of an answer, after the question was read.
    fn answered(answer: &'static str) -> (Result<Opened>, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::scope(|scope| {
            let node = scope.spawn(|| {
                let (mut socket, _) = listener.accept().unwrap();
                let asked = head(&mut socket).unwrap().0;
                socket.write_all(answer.as_bytes()).unwrap();
                asked
            });
            (open(&path, "group/a b/s"), node.join().unwrap())
        })
    }

    #[test]
    fn the_node_says_yes_or_why_not() {
        let (opened, asked) =
            answered("HTTP/1.1 101 Switching Protocols\r\nGranary-Source: s3://b/p\r\n\r\n");
        let opened = opened.unwrap();
        assert_eq!((opened.source.as_deref(), opened.version), (Some("s3://b/p"), 1));
        let (opened, _) = answered("HTTP/1.1 101 Switching Protocols\r\nGranary-Lend-Version: 2\r\n\r\n");
        assert_eq!(opened.unwrap().version, 2);
        assert!(asked.starts_with("GET /v1/lend?root=group/a%20b/s HTTP/1.1\r\n"), "{asked}");
        let (refused, _) = answered(
            "HTTP/1.1 404 Not Found\r\ncontent-length: 36\r\n\r\n{\"kind\":\"NotFound\",\"message\":\"gone\"}",
        );
        let e = refused.unwrap_err();
        assert!(e.kind() == Kind::NotFound && e.to_string().ends_with("granary://group/a b/s: gone"), "{e}");
        let (refused, _) = answered("HTTP/1.1 404 Not Found\r\n\r\n");
        assert_eq!(refused.unwrap_err().kind(), Kind::Unavailable);
        let (refused, _) = answered("HTTP/1.1 101 Switching Protocols\r\n\r\nx");
        assert_eq!(refused.unwrap_err().kind(), Kind::Corrupt);
        let (refused, _) = answered("");
        assert_eq!(refused.unwrap_err().kind(), Kind::Unavailable);
    }

    #[test]
    fn nobody_there_names_the_mend() {
        let dir = tempfile::tempdir().unwrap();
        let e = open(&dir.path().join("none"), "dataset/x").unwrap_err();
        assert!(e.kind() == Kind::Unavailable && e.to_string().contains("GRANARY_SOCKET"), "{e}");
    }
}
