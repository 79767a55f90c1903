//! Who asks, proven: signed tokens that users show to the metadata service, and tickets that nodes show to one another.
//!
//! A token is a JWT (RFC 7519) signed with Ed25519 (`EdDSA`, RFC 8037). The administrator's key signs, the service knows the
//! public part of one or several keys, so that a new key can be brought in before the old one goes.
//!
//! | claim | token | ticket |
//! |---|---|---|
//! | `iss` | `granary:` and the volume's uuid | the same |
//! | `aud` | `granary-meta` | `granary-peer` |
//! | `sub` | the user: `user/SUB` is theirs | the session, 16 hexadecimal digits |
//! | `groups` | `group/NAME` is theirs for each | |
//! | `rights` | `read-only`, `read-write`, `delegate` or `admin` | |
//! | `namespaces` | may be missing; else the only ones that it is for: `KIND/NAME`, `KIND/*`, `*/*` | |
//! | `par` | of a delegated token: the id of the one that it comes from | |
//! | `ns` | | the namespace whose staged bytes may be read |
//! | `jti` | its id, for revoking it | |
//! | `iat`, `exp`, `nbf` | seconds since 1970; `nbf` may be missing | `iat`, `exp` |
//!
//! The header has `alg` and `kid` (the key's thumbprint, RFC 7638). Whatever the header says, only Ed25519 and only the trusted keys
//! are ever tried: a header cannot choose the algorithm, bring its own key or name a place to fetch one from.
//!
//! A token with the right to delegate opens nothing. Its bearer has the service make others ([`Delegator`]): for one of its namespaces,
//! to read or to write, for some hours at most and never beyond its own end. The service signs them with its own key, and
//! that key counts for such tokens alone, as the administrator's keys do for all others: neither can say what is the other's to say. They
//! cannot be delegated again. Revoking a token revokes what was delegated from it.
//!
//! Times are compared with the clock that is handed in, allowing for [`CLOCK_SKEW_SECS`]. Everything has a limit, and is
//! checked both when it is signed and when it is verified.

mod claims;
mod delegate;
mod key;
mod reach;
mod ticket;
mod verify;

pub use claims::{Grant, Rights, Token, inspect, issue};
pub use delegate::{Delegated, Delegation, Delegator, Parent, check_lifetime};
pub use key::{PublicKey, SigningKey};
pub use reach::Pattern;
pub use ticket::{TicketSigner, TicketVerifier};
pub use verify::Verifier;

/// Longest token or ticket, in bytes. What is longer is not even looked at.
pub const TOKEN_BYTES_MAX: usize = 8 << 10;
/// Groups in one token.
pub const GROUPS_MAX: usize = 128;
/// Namespaces, or patterns of them, in one token.
pub const NAMESPACES_MAX: usize = 64;
/// Longest life of a delegated token, in seconds: a day.
pub const DELEGATED_SECS_MAX: u64 = 86_400;
/// Longest life of a token, in seconds: 400 days.
pub const LIFETIME_SECS_MAX: u64 = 400 * 86_400;
/// Life of a ticket, in seconds.
pub const TICKET_SECS: u64 = 600;
/// How far the clocks of two machines may be apart, in seconds.
pub const CLOCK_SKEW_SECS: u64 = 30;
/// Keys that are trusted at once.
pub const KEYS_MAX: usize = 16;

/// Whom a token of this volume is issued by, and for.
fn issuer(volume: &str) -> String {
    format!("granary:{}", volume.to_ascii_lowercase())
}

#[cfg(test)]
mod tests;
