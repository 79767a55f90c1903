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
        // Until then the verifier accepts it: connections and revocations end no earlier.
        let ends = token.expires.saturating_add(token::CLOCK_SKEW_SECS);
        let expires = i64::try_from(ends).map(|secs| Timestamp { secs, nanos: 0 });
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    use granary_core::{Clock, TestClock};
    use granary_meta::token::{Grant, SigningKey, issue};

    const VOLUME: &str = "bcca2754e7590f76dde5e8fb1ce79389";

    #[test]
    fn a_bearers_time_ends_when_the_token_is_refused() {
        let clock = Arc::new(TestClock::default());
        let key = SigningKey::from_seed(&[1; 32]).unwrap();
        let rights = token::Rights::ReadOnly;
        let grant = Grant { user: "alice".into(), groups: vec![], rights, lifetime_secs: 60 };
        let bearer = issue(&key, VOLUME, &grant, &*clock, 7).unwrap();
        let keys = vec![key.public().clone()];
        let tokens = Tokens::new(Verifier::new(VOLUME, keys, clock.clone(), Arc::new(|_| false)).unwrap());

        let ends = tokens.check(&bearer).unwrap().expires.unwrap();
        let left = u64::try_from(ends.secs - clock.now().secs).unwrap();
        clock.advance(Duration::from_secs(left - 1));
        assert_eq!(tokens.check(&bearer).unwrap().expires, Some(ends));
        clock.advance(Duration::from_secs(1));
        tokens.check(&bearer).unwrap_err();
    }
}
