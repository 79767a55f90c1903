//! Tokens as they are given to commands: in a file, as they are, or from standard input.

use std::fmt;
use std::io::Read;
use std::path::Path;

use granary_core::Kind;
use granary_meta::token::TOKEN_BYTES_MAX;
use serde::{Deserialize, Serialize};

use crate::exit::{Failure, Outcome, plain};

/// A token, which whoever has it may use: not shown by `Debug`.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// A token as the service gave it.
    pub fn new(text: &str) -> Outcome<Secret> {
        checked(text, "the metadata service's answer")
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The token in a file.
pub fn read(path: &Path) -> Outcome<Secret> {
    let cannot = |e: &std::io::Error| {
        let kind = match e.kind() {
            std::io::ErrorKind::NotFound => Kind::NotFound,
            std::io::ErrorKind::PermissionDenied => Kind::Access,
            _ => Kind::Io,
        };
        Failure::of_kind(kind, format!("cannot read the token file {}: {}", path.display(), plain(e)))
    };
    let file = std::fs::File::open(path).map_err(|e| cannot(&e))?;
    let text = bounded(file).map_err(|e| cannot(&e))?;
    checked(&text, &path.display().to_string())
}

/// A token, the file it is in, or `-`.
pub fn given(text: &str) -> Outcome<Secret> {
    if text == "-" {
        let text =
            bounded(std::io::stdin().lock()).map_err(|e| Failure::io("cannot read standard input", &e))?;
        return checked(&text, "standard input");
    }
    // Both parts are JSON objects, in base64: no file is called so.
    if text.starts_with("eyJ") && text.matches('.').count() == 2 {
        return checked(text, "the command line");
    }
    read(Path::new(text))
}

fn bounded(source: impl Read) -> std::io::Result<String> {
    let mut text = String::new();
    source.take(TOKEN_BYTES_MAX as u64 + 64).read_to_string(&mut text)?;
    Ok(text)
}

fn checked(text: &str, place: &str) -> Outcome<Secret> {
    let token = text.trim();
    let why = match token {
        "" => "it is empty",
        _ if token.len() > TOKEN_BYTES_MAX => "it is too long for one",
        _ if !token.bytes().all(|b| b.is_ascii_graphic()) => {
            "it is more than one line of letters, digits and dots"
        }
        _ => return Ok(Secret(token.to_owned())),
    };
    Err(Failure::usage(format!("there is no token in {place}: {why}; `granary token issue` prints one")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_arguments_and_what_is_neither() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        std::fs::write(path, "eyJh.eyJi.c\n").unwrap();
        for text in [path, "eyJh.eyJi.c"] {
            let token = given(text).unwrap();
            assert_eq!((token.as_str(), format!("{token:?}").as_str()), ("eyJh.eyJi.c", "Secret(..)"));
        }
        for bad in [String::new(), "\n\n".into(), "two words".into(), "x".repeat(TOKEN_BYTES_MAX + 1)] {
            std::fs::write(path, bad).unwrap();
            assert_eq!(given(path).unwrap_err().exit, 2);
        }
        assert!(given("/none/such").unwrap_err().is(Kind::NotFound));
    }
}
