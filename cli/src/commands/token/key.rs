//! Key files: made once, and told which volume they are for, in a line before the key:
//!
//! ```text
//! granary-volume: 0123456789abcdef0123456789abcdef
//! -----BEGIN PRIVATE KEY-----
//! ```

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use granary_core::Kind;
use granary_meta::record::volume::is_uuid;
use granary_meta::token::{PublicKey, SigningKey};

use crate::args::PlaceFlags;
use crate::client::{Client, block_on};
use crate::exit::{Failure, Outcome, plain};
use crate::output::say;
use crate::wire::Status;
use crate::{log, randomness, volume};

const VOLUME_LINE: &str = "granary-volume: ";
/// A key file is at most this long.
const FILE_BYTES_MAX: u64 = 16 << 10;

/// What is in a private key's file.
#[derive(Debug)]
pub struct KeyFile {
    pub key: SigningKey,
    pub volume: Option<String>,
}

pub fn make(path: &Path, volume: Option<&str>, flags: &PlaceFlags) -> Outcome<()> {
    let volume = match volume {
        Some(volume) => checked_volume(volume)?,
        None => find_volume(flags)?,
    };
    let mut seed = [0; 32];
    rand::Rng::fill_bytes(&mut randomness::generator()?, &mut seed);
    let key = SigningKey::from_seed(&seed)?;
    seed.fill(0);
    let public = public_path(path);
    // The public part first: a private key is never there without it.
    write_new(&public, 0o644, &format!("{VOLUME_LINE}{volume}\n{}", key.public().to_pem()))?;
    let written = write_new(path, 0o600, &format!("{VOLUME_LINE}{volume}\n{}", key.to_pem()));
    if let Err(failure) = written {
        let _ = std::fs::remove_file(&public); // it was ours, made above
        return Err(failure);
    }
    super::super::print(&format!(
        "{} signs tokens of volume {volume}: keep it secret, it opens everything\n\
         {} is its public part: start the service with --trust {1}\n",
        path.display(),
        public.display()
    ))
}

/// `granary.key` has its public part in `granary.key.pub`.
fn public_path(path: &Path) -> PathBuf {
    let mut public = path.as_os_str().to_owned();
    public.push(".pub");
    public.into()
}

fn write_new(path: &Path, mode: u32, text: &str) -> Outcome<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(|e| {
        if e.kind() == std::io::ErrorKind::AlreadyExists {
            Failure::of_kind(
                Kind::Exists,
                format!(
                    "{} is there already, and a key that tokens were signed with is never overwritten; give another --key",
                    path.display()
                ),
            )
        } else {
            Failure::io(format!("cannot make the key file {}", path.display()), &e)
        }
    })?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(|e| Failure::io(format!("cannot write the key file {}", path.display()), &e))
}

/// A private key, to sign with.
pub fn read(path: &Path) -> Outcome<KeyFile> {
    let text = text_of(path)?;
    let mode = std::fs::metadata(path).map_or(0, |meta| meta.permissions().mode());
    if mode & 0o077 != 0 {
        say(format_args!(
            "others can read {0}, and who has it can make tokens for everybody; `chmod 600 {0}`",
            path.display()
        ));
    }
    let key = SigningKey::from_pem(&text).map_err(|e| e.context(path.display()))?;
    Ok(KeyFile { key, volume: named(&text)? })
}

fn named(text: &str) -> Outcome<Option<String>> {
    let volume = text.lines().find_map(|line| line.strip_prefix(VOLUME_LINE));
    volume.map(|text| checked_volume(text.trim())).transpose()
}

/// The volume that a key, private or public, was made for.
pub fn volume_of(path: &Path) -> Outcome<String> {
    named(&text_of(path)?)?.ok_or_else(|| {
        Failure::usage(format!(
            "{} does not say which volume it is for; give a key of `granary token key`",
            path.display()
        ))
    })
}

/// A public key, to trust.
pub fn read_public(path: &Path) -> Outcome<PublicKey> {
    Ok(PublicKey::from_pem(&text_of(path)?).map_err(|e| e.context(path.display()))?)
}

fn text_of(path: &Path) -> Outcome<String> {
    let mut text = String::new();
    std::fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text)).map_err(
        |e| {
            Failure::of_kind(
                if e.kind() == std::io::ErrorKind::NotFound { Kind::NotFound } else { Kind::Io },
                format!(
                    "cannot read the key file {}: {}; `granary token key` makes one",
                    path.display(),
                    plain(&e)
                ),
            )
        },
    )?;
    Ok(text)
}

pub fn checked_volume(text: &str) -> Outcome<String> {
    if !is_uuid(text) {
        return Err(Failure::usage(format!(
            "volume {text:?} cannot be one: it has 32 hexadecimal digits; `granary status` shows the one of the node here"
        )));
    }
    Ok(text.to_ascii_lowercase())
}

/// Of the node that runs here, else of the metadata folder.
pub fn find_volume(flags: &PlaceFlags) -> Outcome<String> {
    let settings = flags.sources().resolve()?;
    let client = Client::new(&settings.socket);
    let told = block_on(async {
        if settings.is_given("meta") || !client.is_there().await? {
            return Ok(None);
        }
        Ok(Some(client.get::<Status>("/v1/status").await?.volume))
    })?;
    if let Some(volume) = told {
        return Ok(volume);
    }
    log::start_quiet();
    let opened = volume::open(&settings).map_err(|e| {
        e.context("which volume are the tokens for? Give --volume UUID; I looked myself, but")
    })?;
    let uuid = opened.info().uuid.clone();
    opened.shutdown()?;
    Ok(uuid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOLUME: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn files_are_made_once_and_secret() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        make(&path, Some(VOLUME), &PlaceFlags::default()).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&public_path(&path))), (0o600, 0o644));
        let file = read(&path).unwrap();
        assert_eq!(file.volume.as_deref(), Some(VOLUME));
        assert_eq!(read_public(&public_path(&path)).unwrap().id(), file.key.public().id());
        let before = std::fs::read(&path).unwrap();
        assert!(make(&path, Some(VOLUME), &PlaceFlags::default()).unwrap_err().is(Kind::Exists));
        std::fs::remove_file(public_path(&path)).unwrap();
        assert!(make(&path, Some(VOLUME), &PlaceFlags::default()).unwrap_err().is(Kind::Exists));
        assert!(!public_path(&path).exists(), "nothing is left behind");
        assert_eq!(std::fs::read(&path).unwrap(), before);
        assert!(read(&dir.path().join("none")).unwrap_err().message.contains("granary token key"));
        assert_eq!(checked_volume("x").unwrap_err().exit, 2);
    }
}
