//! Who a token's bearer is to the service.

use granary_core::{Result, Timestamp};
use granary_meta::server::Authenticate;
use granary_meta::service::{Identity, Rights};
use granary_meta::token::{self, Verifier};

/// The bearers of tokens that trusted keys have signed.
#[derive(Debug)]
pub struct Tokens {
    verifier: Verifier,
}

impl Tokens {
    pub fn new(verifier: Verifier) -> Tokens {
        Tokens { verifier }
    }
}

impl Authenticate for Tokens {
    fn check(&self, bearer: &str) -> Result<Identity> {
        let token = self.verifier.check(bearer)?;
        let expires = i64::try_from(token.expires).map(|secs| Timestamp { secs, nanos: 0 });
        Ok(Identity {
            user: token.user,
            groups: token.groups,
            rights: match token.rights {
                token::Rights::ReadOnly => Rights::ReadOnly,
                token::Rights::ReadWrite => Rights::ReadWrite,
                token::Rights::Admin => Rights::Admin,
            },
            token: token.id,
            expires: expires.ok(),
        })
    }
}
