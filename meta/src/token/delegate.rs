//! Tokens that the service itself signs: short-lived, for one namespace, by the wish of who bears a token with the right to
//! delegate. They say which token that was (`par`), so that revoking it makes them worthless too.

use std::fmt;
use std::sync::Arc;

use granary_core::{Clock, Error, Kind, NamespaceName, Result};

use super::claims::{AUDIENCE, Claims, now, sign};
use super::{DELEGATED_SECS_MAX, PublicKey, Rights, SigningKey, issuer};

/// What is to be delegated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delegation {
    pub namespace: NamespaceName,
    pub read_only: bool,
    /// For how long, in seconds; it ends with the parent in any case.
    pub lifetime_secs: u64,
}

/// Whose right is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent<'a> {
    pub user: &'a str,
    /// The id of its token.
    pub id: &'a str,
    /// When that ends, in seconds since 1970.
    pub expires: u64,
}

/// A token that was made.
#[derive(Clone, PartialEq, Eq)]
pub struct Delegated {
    pub token: String,
    pub id: String,
    /// Seconds since 1970.
    pub expires: u64,
}

impl fmt::Debug for Delegated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delegated")
            .field("id", &self.id)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// Makes them, at the service, which has decided that they may be.
pub struct Delegator {
    issuer: String,
    key: Arc<SigningKey>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for Delegator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delegator").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Delegator {
    pub fn new(volume: &str, key: impl Into<Arc<SigningKey>>, clock: Arc<dyn Clock>) -> Delegator {
        Delegator { issuer: issuer(volume), key: key.into(), clock }
    }

    /// What verifies them.
    pub fn public(&self) -> &PublicKey {
        self.key.public()
    }

    /// Signs one. `random`: 128 random bits, its id. `Invalid` for a life that cannot be, `Denied` when the parent has ended.
    pub fn delegate(&self, parent: Parent<'_>, wanted: &Delegation, random: u128) -> Result<Delegated> {
        check_lifetime(wanted.lifetime_secs)?;
        let issued = now(&*self.clock);
        let expires = issued.saturating_add(wanted.lifetime_secs).min(parent.expires);
        if expires <= issued {
            return Err(Error::new(Kind::Denied, "the token that delegates has ended; give a newer one"));
        }
        let claims = Claims {
            iss: self.issuer.clone(),
            aud: AUDIENCE.to_owned(),
            sub: parent.user.to_owned(),
            groups: Vec::new(),
            rights: if wanted.read_only { Rights::ReadOnly } else { Rights::ReadWrite },
            namespaces: Some(vec![wanted.namespace.clone().into()]),
            par: Some(parent.id.to_owned()),
            jti: format!("{random:032x}"),
            iat: issued,
            nbf: None,
            exp: expires,
        };
        claims.check().map_err(|why| Error::new(Kind::Invalid, format!("cannot delegate: {why}")))?;
        Ok(Delegated { token: sign(&self.key, &claims)?, id: claims.jti, expires })
    }
}

/// `Invalid` for a life that no delegated token has.
pub fn check_lifetime(secs: u64) -> Result<()> {
    if secs == 0 || secs > DELEGATED_SECS_MAX {
        let hours = DELEGATED_SECS_MAX / 3600;
        return Err(Error::new(
            Kind::Invalid,
            format!("a delegated token lives for at least a second and at most {hours} hours, not {secs} s"),
        ));
    }
    Ok(())
}
