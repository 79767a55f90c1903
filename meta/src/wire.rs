//! The words of [`crate::call`] as protobuf messages (`proto/metadata.proto`), and back.
//!
//! ```text
//!  ClientFrame { number, hello?, items: [request | released | cancel] }      -> the service
//!  ServerFrame { heard, greeting?, items: [response | recall | ended], settings } <- the service
//! ```
//!
//! Items are in order, on both ways. A frame takes whatever waits when it is sent, so that many calls cost one write.
//!
//! What comes from the other side is checked here, once, before anything acts on it:
//!
//! | what | bound | where |
//! |---|---|---|
//! | a frame of a client, of the service | [`CLIENT_FRAME_BYTES_MAX`], [`SERVER_FRAME_BYTES_MAX`] | tonic, before it is read |
//! | items of a frame, namespaces of a Hello | [`FRAME_ITEMS_MAX`] | [`codec`], before they are decoded |
//! | names, xattrs, targets, host names, tokens | as [`bounds`] has them | decoding |
//! | extents, moves, ids, locks | records of fixed widths within a `bytes` field ([`lists`]): never more memory than some times the message | decoding |
//! | enums, times, ranges | only what the types can hold and ranges that do not overflow | decoding |
//!
//! What is malformed is [`granary_core::Kind::Invalid`], with a message that begins with [`MALFORMED`].

use granary_core::{Error, Kind, Result};

/// The generated messages.
#[allow(clippy::all, clippy::unwrap_used, missing_docs)]
pub mod pb {
    tonic::include_proto!("granary.meta.v1");
}

pub mod answer;
pub mod attr;
pub mod bounds;
pub mod codec;
#[doc(hidden)]
pub mod fuzzing;
pub mod kind;
pub mod lists;
pub mod lock;
pub mod namespace;
pub mod request;
pub mod response;
pub mod session;

pub use bounds::{CLIENT_FRAME_BYTES_MAX, FRAME_ITEMS_MAX, SERVER_FRAME_BYTES_MAX};

/// How messages about malformed messages begin.
pub const MALFORMED: &str = "malformed message";

/// What is wrong with a message.
pub(crate) fn malformed(why: &str) -> Error {
    Error::new(Kind::Invalid, format!("{MALFORMED}: {why}"))
}

/// A field that must be there.
pub(crate) fn required<T>(field: Option<T>, what: &str) -> Result<T> {
    field.ok_or_else(|| malformed(&format!("{what} is missing")))
}

#[cfg(test)]
pub(crate) mod tests;
