//! Who a token's bearer is to the service: its user, or, where it is for one namespace alone, that.

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
            // A namespace's tokens are one bearer, whoever had them made: a session goes on with the next of them, and with no other.
            user: token.only().map_or(token.user.clone(), ToString::to_string),
            groups: token.groups,
            rights: match token.rights {
                token::Rights::Delegate => Rights::Delegate,
                token::Rights::ReadOnly => Rights::ReadOnly,
                token::Rights::ReadWrite => Rights::ReadWrite,
                token::Rights::Admin => Rights::Admin,
            },
            namespaces: token.namespaces,
            token: token.id,
            parent: token.parent,
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
    use granary_meta::token::{Delegation, Delegator, Grant, Parent, SigningKey, issue};

    const VOLUME: &str = "bcca2754e7590f76dde5e8fb1ce79389";

    #[test]
    fn a_bearers_time_ends_when_the_token_is_refused() {
        let clock = Arc::new(TestClock::default());
        let key = SigningKey::from_seed(&[1; 32]).unwrap();
        let rights = token::Rights::ReadOnly;
        let grant =
            Grant { user: "alice".into(), groups: vec![], rights, namespaces: None, lifetime_secs: 60 };
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

    #[test]
    fn a_token_for_one_namespace_belongs_to_that() {
        let clock = Arc::new(TestClock::default());
        let (key, own) = (SigningKey::from_seed(&[1; 32]).unwrap(), SigningKey::from_seed(&[2; 32]).unwrap());
        let verifier = Verifier::new(VOLUME, vec![key.public().clone()], clock.clone(), Arc::new(|_| false));
        let tokens = Tokens::new(verifier.unwrap().delegating(own.public().clone()));
        let namespace = "group/asr".parse().unwrap();
        let parent = Parent { user: "csi", id: "p", expires: u64::MAX };
        let wanted = Delegation { namespace, read_only: false, lifetime_secs: 60 };
        let made = Delegator::new(VOLUME, own, clock.clone()).delegate(parent, &wanted, 7).unwrap();
        let who = tokens.check(&made.token).unwrap();
        assert_eq!(
            (who.user.as_str(), who.rights, who.parent.as_deref()),
            ("group/asr", Rights::ReadWrite, Some("p"))
        );
        assert!(
            who.may(&"group/asr".parse().unwrap()).is_some()
                && who.may(&"user/csi".parse().unwrap()).is_none()
        );

        let namespaces = Some(vec!["user/*".parse().unwrap()]);
        let rights = token::Rights::Delegate;
        let grant = Grant { user: "csi".into(), groups: vec![], rights, namespaces, lifetime_secs: 60 };
        let who = tokens.check(&issue(&key, VOLUME, &grant, &*clock, 8).unwrap()).unwrap();
        assert_eq!((who.user.as_str(), who.rights, who.parent), ("csi", Rights::Delegate, None));
    }
}
