//! Certificates and keys from PEM files, and where the system keeps those that it trusts.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use granary_core::Kind;

use crate::exit::{Failure, Outcome, plain};
use crate::settings::TlsPaths;

/// A file of certificates is at most this long: a system's bundle has a quarter of a megabyte.
const PEM_BYTES_MAX: u64 = 4 << 20;
/// Where distributions keep the certificates that they trust.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Those of this file, or the system's.
pub fn trusted(path: Option<&Path>) -> Outcome<Vec<u8>> {
    if let Some(path) = path {
        return pem(path, "CERTIFICATE");
    }
    let bundle = BUNDLES.iter().map(Path::new).find(|path| path.exists()).ok_or_else(|| {
        Failure::usage(
            "this system has no certificates that it trusts; give the service's with --meta-ca FILE",
        )
    })?;
    pem(bundle, "CERTIFICATE")
}

/// What a server shows: its certificate with the chain, and its key.
pub struct Identity {
    pub cert: Vec<u8>,
    pub key: Vec<u8>,
}

pub fn identity(paths: &TlsPaths) -> Outcome<Identity> {
    let key = pem(&paths.key, "PRIVATE KEY")?;
    let mode = std::fs::metadata(&paths.key).map_or(0, |meta| meta.permissions().mode());
    if mode & 0o007 != 0 {
        tracing::warn!("everybody can read the private key {0}; `chmod 600 {0}`", paths.key.display());
    }
    Ok(Identity { cert: pem(&paths.cert, "CERTIFICATE")?, key })
}

fn pem(path: &Path, label: &str) -> Outcome<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path).and_then(|file| file.take(PEM_BYTES_MAX + 1).read_to_end(&mut bytes)).map_err(
        |e| {
            let kind = if e.kind() == std::io::ErrorKind::NotFound { Kind::NotFound } else { Kind::Io };
            Failure::of_kind(kind, format!("cannot read {}: {}", path.display(), plain(&e)))
        },
    )?;
    let begins =
        |line: &str| line.starts_with("-----BEGIN ") && line.trim_end().ends_with(&format!("{label}-----"));
    let found = String::from_utf8_lossy(&bytes).lines().any(begins);
    if bytes.len() as u64 > PEM_BYTES_MAX || !found {
        return Err(Failure::usage(format!(
            "{} has no {} in PEM form (a block that begins with -----BEGIN {label}-----)",
            path.display(),
            label.to_ascii_lowercase()
        )));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_something_else_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pem");
        assert!(trusted(Some(&path)).unwrap_err().is(Kind::NotFound));
        std::fs::write(&path, "-----BEGIN EC PRIVATE KEY-----\n").unwrap();
        assert!(trusted(Some(&path)).unwrap_err().message.contains("x.pem has no certificate"));
        let paths = TlsPaths { cert: path.clone(), key: path.clone() };
        assert!(identity(&paths).err().unwrap().message.contains("no certificate"));
        std::fs::write(&path, "text\n-----BEGIN CERTIFICATE-----\n").unwrap();
        trusted(Some(&path)).unwrap();
        assert!(identity(&paths).err().unwrap().message.contains("no private key"));
    }
}
