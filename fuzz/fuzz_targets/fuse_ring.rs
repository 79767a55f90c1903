//! Requests that come in pieces over io_uring: whatever the header says, the pieces lie within their memory, and what they
//! are put together to is parsed like any request.
#![no_main]

use granary_fuse::proto::Request;
use granary_fuse::proto::request::Dialect;
use granary_fuse::proto::ring::{Delivery, FRONT_BYTES_MAX, HEADER_BYTES, OPERATION_BYTES_MAX};
use libfuzzer_sys::fuzz_target;

/// Where the header says how much of the payload is used.
const PAYLOAD_LEN_AT: usize = 272;

fn check(header: &[u8; HEADER_BYTES], payload: &[u8]) {
    let Ok(delivery) = Delivery::parse(header, payload.len()) else { return };
    assert!(delivery.payload_bytes <= payload.len() && delivery.operation_bytes <= OPERATION_BYTES_MAX);
    assert!(delivery.front_bytes() <= FRONT_BYTES_MAX);
    let mut message = delivery.front(header)[..delivery.front_bytes()].to_vec();
    message.extend_from_slice(&payload[..delivery.payload_bytes]);
    let Ok(request) = Request::parse(&message, Dialect { setxattr_ext: true }) else { return };
    assert_eq!(request.header.unique, delivery.unique);
    assert_eq!(request.header.len as usize, message.len());
}

fuzz_target!(|data: &[u8]| {
    let Some((header, payload)) = data.split_first_chunk::<HEADER_BYTES>() else { return };
    check(header, payload);
    // With lengths that fit each other, which are checked first; the fixed part's is the header's last byte.
    let mut fitting = *header;
    let operation_bytes = u32::from(header[HEADER_BYTES - 1]);
    let len = 40 + operation_bytes + payload.len() as u32;
    fitting[..4].copy_from_slice(&len.to_ne_bytes());
    fitting[PAYLOAD_LEN_AT..PAYLOAD_LEN_AT + 4].copy_from_slice(&(payload.len() as u32).to_ne_bytes());
    check(&fitting, payload);
});
