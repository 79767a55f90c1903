//! What must hold of a frame from the other side, whatever it is: for this crate's tests and the fuzz targets. Not for other callers.

use super::{codec, pb, request, response, session};

/// Hears `bytes` as the service would and as a node would: they are refused or understood, and a request that is understood can
/// be said again.
///
/// # Panics
///
/// When that does not hold.
#[allow(clippy::expect_used)]
pub fn hear(bytes: &[u8]) {
    if let Ok(frame) = codec::decode::<pb::ClientFrame>(bytes) {
        let _ = frame.hello.map(session::decode_hello);
        for item in frame.items {
            if let Some(pb::client_item::Item::Request(wire)) = item.item
                && let Ok(heard) = request::decode(wire)
            {
                let again =
                    request::decode(request::encode(&heard)).expect("what was understood can be said again");
                assert_eq!(again, heard);
            }
        }
    }
    if let Ok(frame) = codec::decode::<pb::ServerFrame>(bytes) {
        let _ = frame.greeting.map(session::decode_greeting);
        for item in frame.items {
            match item.item {
                Some(pb::server_item::Item::Response(wire)) => drop(response::decode(wire)),
                Some(pb::server_item::Item::Recall(wire)) => drop(response::decode_recall(wire)),
                _ => {}
            }
        }
    }
}
