//! Whether a token is genuine and counts now.

use std::fmt;
use std::sync::Arc;

use granary_core::{Clock, Error, Kind, Result};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation};
use serde::de::DeserializeOwned;

use super::claims::{AUDIENCE, Claims, now};
use super::{CLOCK_SKEW_SECS, KEYS_MAX, PublicKey, TOKEN_BYTES_MAX, Token, issuer};

/// Whether the token of this id was revoked.
pub type Revoked = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// Why a token does not count. Only the audit log hears of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    TooLong,
    Malformed,
    /// Not signed with Ed25519, or with header fields that change what a signature means.
    Algorithm,
    /// No trusted key made this signature.
    Signature,
    Claims(&'static str),
    /// The service signs what is delegated, and nothing else; others sign everything but that.
    Signer,
    Audience,
    Volume,
    NotYet,
    Expired,
    Revoked,
    /// What it was delegated from.
    ParentRevoked,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::TooLong => "it is too long",
            Refusal::Malformed => "it is malformed",
            Refusal::Algorithm => "it is signed in another way than with Ed25519",
            Refusal::Signature => "no trusted key has signed it",
            Refusal::Claims(why) => why,
            Refusal::Signer => "what it says is not for its signer to say",
            Refusal::Audience => "it is for something else than the metadata service",
            Refusal::Volume => "it is for another volume",
            Refusal::NotYet => "it is not valid yet",
            Refusal::Expired => "it has expired",
            Refusal::Revoked => "it was revoked",
            Refusal::ParentRevoked => "the token that it was delegated from was revoked",
        })
    }
}

/// Checks the tokens of one volume.
pub struct Verifier {
    issuer: String,
    keys: Vec<PublicKey>,
    /// The service's own, which signs what is delegated.
    delegating: Option<PublicKey>,
    clock: Arc<dyn Clock>,
    revoked: Revoked,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("issuer", &self.issuer)
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

impl Verifier {
    /// Trusts these keys for tokens of this volume.
    pub fn new(
        volume: &str,
        keys: Vec<PublicKey>,
        clock: Arc<dyn Clock>,
        revoked: Revoked,
    ) -> Result<Verifier> {
        if keys.is_empty() || keys.len() > KEYS_MAX {
            return Err(Error::new(
                Kind::Invalid,
                format!("{} keys are to be trusted; give one to {KEYS_MAX} with --trust", keys.len()),
            ));
        }
        Ok(Verifier { issuer: issuer(volume), keys, delegating: None, clock, revoked })
    }

    /// With tokens that the service delegates: `key` signs those.
    pub fn delegating(self, key: PublicKey) -> Verifier {
        Verifier { delegating: Some(key), ..self }
    }

    /// For a node: only of what the service delegates, by the key of its greeting. Whether one was revoked only the service knows.
    pub fn of_delegated(volume: &str, key: &[u8], clock: Arc<dyn Clock>) -> Result<Verifier> {
        let (keys, delegating) = (Vec::new(), Some(PublicKey::from_bytes(key)?));
        Ok(Verifier { issuer: issuer(volume), keys, delegating, clock, revoked: Arc::new(|_| false) })
    }

    /// What a genuine token says. Whatever is wrong, the error is the same; the audit log has the reason.
    pub fn check(&self, token: &str) -> Result<Token> {
        self.verify(token).map_err(|refusal| {
            // Its words are nobody's yet: shown, if at all, quoted and short.
            let says = super::inspect(token).ok();
            tracing::warn!(
                target: "granary::audit",
                reason = %refusal,
                token = says.as_ref().map(|t| t.id.as_str()),
                says_user = says.as_ref().map(|t| t.user.as_str()),
                "a token was refused"
            );
            Error::new(
                Kind::Denied,
                "the token is not accepted; `granary token inspect` shows what it says: ask the administrator for another",
            )
        })
    }

    /// The same without a word in the log: for tokens that may be another's to check.
    pub fn is_good(&self, token: &str) -> bool {
        self.verify(token).is_ok()
    }

    pub(super) fn verify(&self, token: &str) -> Result<Token, Refusal> {
        let (kid, claims) = match genuine::<Claims>(token, &self.keys) {
            Err(Refusal::Signature) if self.delegating.is_some() => {
                let (kid, claims) = genuine::<Claims>(token, self.delegating.as_slice())?;
                if claims.par.is_none() {
                    return Err(Refusal::Signer);
                }
                (kid, claims)
            }
            Ok((_, claims)) if claims.par.is_some() => return Err(Refusal::Signer),
            other => other?,
        };
        claims.check().map_err(Refusal::Claims)?;
        if claims.aud != AUDIENCE {
            return Err(Refusal::Audience);
        }
        if claims.iss != self.issuer {
            return Err(Refusal::Volume);
        }
        in_time(claims.nbf.unwrap_or(claims.iat).max(claims.iat), claims.exp, &*self.clock)?;
        if (self.revoked)(&claims.jti) {
            return Err(Refusal::Revoked);
        }
        if claims.par.as_deref().is_some_and(|parent| (self.revoked)(parent)) {
            return Err(Refusal::ParentRevoked);
        }
        Ok(claims.into_token(kid))
    }
}

/// The claims that one of these keys has signed, and the key's id if it is named.
pub(super) fn genuine<C: DeserializeOwned>(
    token: &str,
    keys: &[PublicKey],
) -> Result<(Option<String>, C), Refusal> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Refusal::TooLong);
    }
    let header = jsonwebtoken::decode_header(token).map_err(|e| match e.kind() {
        // An algorithm that the library does not know, such as `none`, is malformed to it.
        ErrorKind::Json(_) => Refusal::Algorithm,
        _ => Refusal::Malformed,
    })?;
    if header.alg != Algorithm::EdDSA || header.crit.is_some() || header.enc.is_some() || header.zip.is_some()
    {
        return Err(Refusal::Algorithm);
    }
    let mut rules = Validation::new(Algorithm::EdDSA);
    // The library would ask the system's clock: times and names are checked by the caller.
    rules.validate_exp = false;
    rules.validate_nbf = false;
    rules.validate_aud = false;
    rules.required_spec_claims.clear();
    let named = |key: &&PublicKey| header.kid.as_deref().is_none_or(|kid| kid == key.id());
    for key in keys.iter().filter(named) {
        match jsonwebtoken::decode::<C>(token, &key.key, &rules) {
            Ok(data) => return Ok((header.kid, data.claims)),
            Err(e) if matches!(e.kind(), ErrorKind::InvalidSignature) => {}
            Err(_) => return Err(Refusal::Malformed),
        }
    }
    Err(Refusal::Signature)
}

/// Whether now lies within, both ends in seconds since 1970.
pub(super) fn in_time(begins: u64, ends: u64, clock: &dyn Clock) -> Result<(), Refusal> {
    let now = now(clock);
    if begins > now.saturating_add(CLOCK_SKEW_SECS) {
        return Err(Refusal::NotYet);
    }
    if now >= ends.saturating_add(CLOCK_SKEW_SECS) {
        return Err(Refusal::Expired);
    }
    Ok(())
}
