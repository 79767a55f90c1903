//! Frames of the metadata service's wire, as a client or a service would hear them: refused or understood, and what is
//! understood can be said again.
#![no_main]

use granary_meta::wire::{codec, pb, request, response, session};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(frame) = codec::decode::<pb::ClientFrame>(data) {
        let _ = frame.hello.map(session::decode_hello);
        for item in frame.items {
            if let Some(pb::client_item::Item::Request(wire)) = item.item
                && let Ok(heard) = request::decode(wire)
            {
                let again = request::decode(request::encode(&heard)).expect("what was understood can be said again");
                assert_eq!(again, heard);
            }
        }
    }
    if let Ok(frame) = codec::decode::<pb::ServerFrame>(data) {
        let _ = frame.greeting.map(session::decode_greeting);
        for item in frame.items {
            match item.item {
                Some(pb::server_item::Item::Response(wire)) => drop(response::decode(wire)),
                Some(pb::server_item::Item::Recall(wire)) => drop(response::decode_recall(wire)),
                _ => {}
            }
        }
    }
});
