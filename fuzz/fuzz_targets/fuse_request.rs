//! Requests of the kernel: whatever they are, parsing ends, and what is borrowed lies within the message.
#![no_main]

use granary_fuse::proto::announce::Announcement;
use granary_fuse::proto::request::Dialect;
use granary_fuse::proto::{Operation, Request};
use libfuzzer_sys::fuzz_target;

/// What is understood is written the same way.
fn announcement(bytes: &[u8]) {
    if let Ok(one) = Announcement::parse(bytes) {
        assert_eq!(one.encode(), bytes);
    }
}

fn check(bytes: &[u8]) {
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

fuzz_target!(|data: &[u8]| {
    announcement(data);
    check(data);
    // With a true length, which is checked first.
    if data.len() >= 4 {
        let mut true_length = data.to_vec();
        true_length[..4].copy_from_slice(&(data.len() as u32).to_ne_bytes());
        check(&true_length);
    }
});
