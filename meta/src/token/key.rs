//! Ed25519 keys, as PEM files that OpenSSL reads and makes too (`openssl genpkey -algorithm ed25519`).
//!
//! | file | label | DER |
//! |---|---|---|
//! | private | `PRIVATE KEY` | PKCS#8 version 1 (RFC 8410): 16 fixed bytes, 32 bytes of seed |
//! | public | `PUBLIC KEY` | SubjectPublicKeyInfo (RFC 8410): 12 fixed bytes, 32 bytes of key |
//!
//! Lines before the PEM block are a comment, as OpenSSL has it.

use std::fmt;

use granary_core::{Error, Kind, Result};
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};

/// A key file is at most this long, in bytes.
const PEM_BYTES_MAX: usize = 16 << 10;
/// SEQUENCE { INTEGER 0, SEQUENCE { OID 1.3.101.112 }, OCTET STRING { OCTET STRING of 32 } }
const PRIVATE_PREFIX: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
/// SEQUENCE { SEQUENCE { OID 1.3.101.112 }, BIT STRING of 32 bytes }
const PUBLIC_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];

/// Signs tokens. Its content is wiped from memory when dropped, and not shown by `Debug`.
pub struct SigningKey {
    pub(super) key: EncodingKey,
    public: PublicKey,
}

/// Verifies them.
#[derive(Clone)]
pub struct PublicKey {
    pub(super) key: DecodingKey,
    bytes: [u8; 32],
    id: String,
}

impl SigningKey {
    /// The key of this seed, which must come from a generator fit for secrets.
    pub fn from_seed(seed: &[u8; 32]) -> Result<SigningKey> {
        SigningKey::from_der(EncodingKey::from_ed_der(&[&PRIVATE_PREFIX[..], seed].concat()))
    }

    /// Of a private key's PEM file.
    pub fn from_pem(text: &str) -> Result<SigningKey> {
        if text.len() > PEM_BYTES_MAX {
            return Err(no_key("private", "it is too long"));
        }
        if text.contains("-----BEGIN PUBLIC KEY-----") {
            return Err(no_key("private", "it is the public part; the file without .pub signs"));
        }
        let key = EncodingKey::from_ed_pem(text.as_bytes()).map_err(|e| no_key("private", &e.to_string()))?;
        SigningKey::from_der(key)
    }

    fn from_der(key: EncodingKey) -> Result<SigningKey> {
        let jwk = Jwk::from_encoding_key(&key, Algorithm::EdDSA);
        let jwk = jwk.map_err(|e| no_key("private", &e.to_string()))?;
        let AlgorithmParameters::OctetKeyPair(pair) = &jwk.algorithm else {
            return Err(no_key("private", "it is not an Ed25519 key"));
        };
        let public = PublicKey::from_key(
            DecodingKey::from_ed_components(&pair.x).map_err(|e| no_key("private", &e.to_string()))?,
        )?;
        Ok(SigningKey { key, public })
    }

    pub fn to_pem(&self) -> String {
        pem("PRIVATE KEY", self.key.as_bytes())
    }

    pub fn public(&self) -> &PublicKey {
        &self.public
    }
}

impl PublicKey {
    /// Of a public key's PEM file.
    pub fn from_pem(text: &str) -> Result<PublicKey> {
        if text.len() > PEM_BYTES_MAX {
            return Err(no_key("public", "it is too long"));
        }
        if text.contains("-----BEGIN PRIVATE KEY-----") {
            return Err(no_key(
                "public",
                "it is the private part, which only signs; give the file that ends in .pub",
            ));
        }
        let key = DecodingKey::from_ed_pem(text.as_bytes()).map_err(|e| no_key("public", &e.to_string()))?;
        PublicKey::from_key(key)
    }

    /// Of the 32 bytes of RFC 8032.
    pub fn from_bytes(bytes: &[u8]) -> Result<PublicKey> {
        if bytes.len() != 32 {
            return Err(no_key("public", "it does not have 32 bytes"));
        }
        PublicKey::from_key(DecodingKey::from_ed_der(bytes))
    }

    fn from_key(key: DecodingKey) -> Result<PublicKey> {
        let bad = |e: jsonwebtoken::errors::Error| no_key("public", &e.to_string());
        let bytes = key.try_get_as_bytes().map_err(bad)?;
        let bytes = <[u8; 32]>::try_from(bytes).map_err(|_| no_key("public", "it does not have 32 bytes"))?;
        let jwk = Jwk::from_decoding_key(&key, Some(Algorithm::EdDSA)).map_err(bad)?;
        let id = jwk.thumbprint(ThumbprintHash::SHA256).map_err(bad)?;
        Ok(PublicKey { key, bytes, id })
    }

    pub fn to_pem(&self) -> String {
        pem("PUBLIC KEY", &[&PUBLIC_PREFIX[..], &self.bytes].concat())
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// Names the key: the thumbprint of RFC 7638, 43 characters.
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public.id)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.id)
    }
}

fn no_key(which: &str, why: &str) -> Error {
    Error::new(
        Kind::Invalid,
        format!("this is no {which} key of Ed25519 in PEM form ({why}); `granary token key` makes a pair"),
    )
}

/// RFC 7468: base64 in lines of 64 characters between two labels.
fn pem(label: &str, der: &[u8]) -> String {
    let mut out = format!("-----BEGIN {label}-----\n");
    let mut line = 0;
    for group in der.chunks(3) {
        if line == 64 {
            out.push('\n');
            line = 0;
        }
        push_base64(&mut out, group);
        line += 4;
    }
    out + &format!("\n-----END {label}-----\n")
}

/// One to three bytes as four characters of RFC 4648's alphabet.
fn push_base64(out: &mut String, group: &[u8]) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
    let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
    for at in 0..4 {
        let sextet = (bits >> (18 - 6 * at)) & 63;
        out.push(if at > group.len() { '=' } else { char::from(ALPHABET[sextet as usize]) });
    }
}
