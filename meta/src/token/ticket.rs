//! Tickets: the service lets one node read the staged bytes of one namespace at another, for some minutes.
//!
//! The service signs them with a key of its own; nodes get its public part with their greeting. A node that shows a ticket
//! of another namespace than the one that it asks for gets nothing.

use std::fmt;
use std::sync::Arc;

use granary_core::{Clock, Error, Kind, NamespaceId, Result, SessionId};
use serde::{Deserialize, Serialize};

use super::claims::{now, sign};
use super::verify::{Refusal, genuine, in_time};
use super::{PublicKey, SigningKey, TICKET_SECS, issuer};

const AUDIENCE: &str = "granary-peer";

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    ns: u32,
    iat: u64,
    exp: u64,
}

/// Makes tickets, at the service.
pub struct TicketSigner {
    issuer: String,
    key: Arc<SigningKey>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for TicketSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketSigner").field("key", &self.key).finish_non_exhaustive()
    }
}

impl TicketSigner {
    pub fn new(volume: &str, key: impl Into<Arc<SigningKey>>, clock: Arc<dyn Clock>) -> TicketSigner {
        TicketSigner { issuer: issuer(volume), key: key.into(), clock }
    }

    /// Lets `session` read what other nodes have staged of `ns`, for [`TICKET_SECS`].
    pub fn ticket(&self, ns: NamespaceId, session: SessionId) -> Result<String> {
        let issued = now(&*self.clock);
        sign(
            &self.key,
            &Claims {
                iss: self.issuer.clone(),
                aud: AUDIENCE.to_owned(),
                sub: session.to_string(),
                ns: ns.0,
                iat: issued,
                exp: issued + TICKET_SECS,
            },
        )
    }

    /// For the greeting: what verifies them, 32 bytes.
    pub fn public(&self) -> &PublicKey {
        self.key.public()
    }
}

/// Checks tickets, at the node that is asked.
pub struct TicketVerifier {
    issuer: String,
    keys: [PublicKey; 1],
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for TicketVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketVerifier").field("keys", &self.keys).finish_non_exhaustive()
    }
}

impl TicketVerifier {
    /// `key`: of the greeting.
    pub fn new(volume: &str, key: &[u8], clock: Arc<dyn Clock>) -> Result<TicketVerifier> {
        Ok(TicketVerifier { issuer: issuer(volume), keys: [PublicKey::from_bytes(key)?], clock })
    }

    /// Whose staged bytes the ticket's bearer may read. Whatever is wrong, the error is the same.
    pub fn check(&self, ticket: &str) -> Result<NamespaceId> {
        self.verify(ticket).map_err(|refusal| {
            tracing::warn!(target: "granary::audit", reason = %refusal, "a peer's ticket was refused");
            Error::new(
                Kind::Denied,
                "the ticket is not accepted; a node asks the metadata service for another",
            )
        })
    }

    pub(super) fn verify(&self, ticket: &str) -> Result<NamespaceId, Refusal> {
        let (_, claims) = genuine::<Claims>(ticket, &self.keys)?;
        if claims.aud != AUDIENCE {
            return Err(Refusal::Audience);
        }
        if claims.iss != self.issuer {
            return Err(Refusal::Volume);
        }
        if claims.ns == 0 || claims.exp <= claims.iat || claims.exp - claims.iat > TICKET_SECS {
            return Err(Refusal::Claims("it is no ticket that the service makes"));
        }
        in_time(claims.iat, claims.exp, &*self.clock)?;
        Ok(NamespaceId(claims.ns))
    }
}
