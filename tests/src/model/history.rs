//! What files held, moment by moment, and what is found in them.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::DirEntryExt;
use std::path::Path;
use std::{fmt, fs, io};

/// Length and hash of a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Digest(usize, u64);

impl Digest {
    fn of(bytes: &[u8]) -> Digest {
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        Digest(bytes.len(), hasher.finish())
    }
}

/// What a file held at a moment.
#[derive(Clone, Debug)]
pub(super) enum Version {
    Whole(Digest),
    /// Bytes that may have come one after another: the first of them are at `offset`, and what was there before behind them.
    Part {
        before: Vec<u8>,
        offset: usize,
        bytes: Vec<u8>,
    },
}

impl Version {
    pub fn is(&self, found: &Content) -> bool {
        match self {
            Version::Whole(digest) => *digest == found.digest,
            Version::Part { before, offset, bytes } => {
                let found = &found.bytes;
                let (Some(head), Some(rest)) = (found.get(..*offset), found.get(*offset..)) else {
                    return false;
                };
                let written = rest.iter().zip(bytes).take_while(|(a, b)| a == b).count();
                let end = offset + written;
                before.get(..*offset) == Some(head)
                    && found.len() == before.len().max(end)
                    && found[end..] == before[end.min(before.len())..]
            }
        }
    }

    fn len(&self) -> usize {
        match self {
            Version::Whole(digest) => digest.0,
            Version::Part { before, offset, bytes } => before.len().max(offset + bytes.len()),
        }
    }
}

/// A file, whatever its names are.
#[derive(Debug)]
pub(super) struct History {
    pub now: Vec<u8>,
    /// Every content since the last promise, `now` last.
    pub since: Vec<Version>,
}

impl Default for History {
    fn default() -> History {
        History { now: Vec::new(), since: vec![Version::Whole(Digest::of(&[]))] }
    }
}

impl History {
    /// `now` is another one.
    pub fn note(&mut self) {
        self.since.push(Version::Whole(Digest::of(&self.now)));
    }

    /// These bytes are about to come, in pieces.
    pub fn note_pieces(&mut self, offset: usize, bytes: &[u8]) {
        self.since.push(Version::Part { before: self.now.clone(), offset, bytes: bytes.to_vec() });
    }

    /// What is wrong with what was found.
    pub fn differs(&self, found: &[u8]) -> String {
        let at = found.iter().zip(&self.now).position(|(a, b)| a != b);
        let lens: Vec<_> = self.since.iter().map(Version::len).collect();
        format!(
            "has {} bytes that it may not have (since its last promise it had {lens:?}; from the newest it differs at {at:?})",
            found.len()
        )
    }

    pub fn promise(&mut self) {
        self.since = vec![Version::Whole(Digest::of(&self.now))];
    }
}

/// A file as it was found.
#[derive(Debug)]
pub struct Content {
    /// Names of one file have one number.
    pub(super) ino: u64,
    pub(super) bytes: Vec<u8>,
    digest: Digest,
}

/// What was found on the mount; `None` is a directory.
pub type Found = BTreeMap<String, Option<Content>>;

/// Something has a name, and cannot be read.
#[derive(Debug)]
pub struct Unreadable {
    pub path: String,
    pub error: io::Error,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} has a name and cannot be read: {}", self.path, self.error)
    }
}

/// Reads all that is below `dir`.
pub fn read(dir: &Path) -> Result<Found, Unreadable> {
    let mut found = Found::new();
    let mut todo = vec![String::new()];
    while let Some(at) = todo.pop() {
        let failed = |path: &str, error| Unreadable { path: path.to_owned(), error };
        for entry in fs::read_dir(dir.join(&at)).map_err(|e| failed(&at, e))? {
            let entry = entry.map_err(|e| failed(&at, e))?;
            let name = entry.file_name().into_string().expect("utf-8");
            let path = if at.is_empty() { name } else { format!("{at}/{name}") };
            if entry.file_type().map_err(|e| failed(&path, e))?.is_dir() {
                todo.push(path.clone());
                found.insert(path, None);
            } else {
                let bytes = fs::read(entry.path()).map_err(|e| failed(&path, e))?;
                let digest = Digest::of(&bytes);
                found.insert(path, Some(Content { ino: entry.ino(), bytes, digest }));
            }
        }
    }
    Ok(found)
}
