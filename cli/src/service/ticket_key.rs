//! The service's own key, `META/granary-ticket.key`: made at the first start, and kept, so that tickets outlive a restart.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use granary_meta::token::SigningKey;

use crate::exit::{Failure, Outcome, plain};

const NAME: &str = "granary-ticket.key";

/// `seed`: 32 bytes of a generator fit for secrets.
pub fn load_or_make(meta: &Path, seed: impl FnOnce() -> [u8; 32]) -> Outcome<SigningKey> {
    let path = meta.join(NAME);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(SigningKey::from_pem(&text).map_err(|e| {
            e.context(format_args!("{} is damaged; delete it, and another is made", path.display()))
        })?),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => make(&path, seed),
        Err(e) => Err(Failure::io(format!("cannot read {}", path.display()), &e)),
    }
}

/// Whole or not at all.
fn make(path: &Path, seed: impl FnOnce() -> [u8; 32]) -> Outcome<SigningKey> {
    let key = SigningKey::from_seed(&seed())?;
    let new = path.with_extension("key.new");
    let write = || {
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(key.to_pem().as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, path)
    };
    write().map_err(|e| Failure::failed(format!("cannot write {}: {}", path.display(), plain(&e))))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn made_once_and_secret() {
        let dir = tempfile::tempdir().unwrap();
        let made = load_or_make(dir.path(), || [7; 32]).unwrap();
        let again = load_or_make(dir.path(), || panic!("made twice")).unwrap();
        assert_eq!(made.public().id(), again.public().id());
        let path = dir.path().join(NAME);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, "x").unwrap();
        assert!(load_or_make(dir.path(), || [7; 32]).unwrap_err().message.contains("is damaged"));
    }
}
