//! The kernel's requests.

use granary_fuse::proto::announce::Announcement;
use granary_fuse::proto::request::Dialect;
use granary_fuse::proto::ring::{Delivery, FRONT_BYTES_MAX, HEADER_BYTES, OPERATION_BYTES_MAX};
use granary_fuse::proto::{Operation, Request};

/// Where the ring's header says how much of the payload is used.
const PAYLOAD_LEN_AT: usize = 272;

/// Requests of the kernel: whatever they are, parsing ends, and what is borrowed lies within the message.
pub fn fuse_request(data: &[u8]) {
    announcement(data);
    request(data);
    // With a true length, which is checked first.
    if data.len() >= 4 {
        let mut true_length = data.to_vec();
        true_length[..4].copy_from_slice(&(data.len() as u32).to_ne_bytes());
        request(&true_length);
    }
}

/// What is understood is written the same way.
fn announcement(bytes: &[u8]) {
    if let Ok(one) = Announcement::parse(bytes) {
        assert_eq!(one.encode(), bytes);
    }
}

fn request(bytes: &[u8]) {
    for setxattr_ext in [false, true] {
        let Ok(request) = Request::parse(bytes, Dialect { setxattr_ext }) else { continue };
        assert_eq!(request.header.len as usize, bytes.len());
        match request.operation {
            Operation::Write(write) => assert!(write.data.len() < bytes.len()),
            Operation::BatchForget(forgets) => assert!(forgets.iter().count() * 16 < bytes.len()),
            Operation::Ioctl(call) => {
                assert!(call.data.len() < bytes.len());
                announcement(call.data);
            }
            Operation::Lookup { name } => assert!(!name.is_empty() && !name.contains(&0)),
            _ => {}
        }
    }
}

/// Requests that come in pieces over io_uring: whatever the header says, the pieces lie within their memory, and what they
/// are put together to is parsed like any request.
pub fn fuse_ring(data: &[u8]) {
    let Some((header, payload)) = data.split_first_chunk::<HEADER_BYTES>() else { return };
    delivery(header, payload);
    // With lengths that fit each other, which are checked first; the fixed part's is the header's last byte.
    let mut fitting = *header;
    let operation_bytes = u32::from(header[HEADER_BYTES - 1]);
    let len = 40 + operation_bytes + payload.len() as u32;
    fitting[..4].copy_from_slice(&len.to_ne_bytes());
    fitting[PAYLOAD_LEN_AT..PAYLOAD_LEN_AT + 4].copy_from_slice(&(payload.len() as u32).to_ne_bytes());
    delivery(&fitting, payload);
}

fn delivery(header: &[u8; HEADER_BYTES], payload: &[u8]) {
    let Ok(delivery) = Delivery::parse(header, payload.len()) else { return };
    assert!(delivery.payload_bytes <= payload.len() && delivery.operation_bytes <= OPERATION_BYTES_MAX);
    assert!(delivery.front_bytes() <= FRONT_BYTES_MAX);
    let mut message = delivery.front(header)[..delivery.front_bytes()].to_vec();
    message.extend_from_slice(&payload[..delivery.payload_bytes]);
    let Ok(request) = Request::parse(&message, Dialect { setxattr_ext: true }) else { return };
    assert_eq!(request.header.unique, delivery.unique);
    assert_eq!(request.header.len as usize, message.len());
}
