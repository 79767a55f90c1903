//! What the store's tests share: the suite every backend passes, and servers to test the S3 client against.

#![allow(dead_code, clippy::unwrap_used)] // each test binary uses a part

pub mod bucket;
pub mod http;
pub mod suite;

use granary_store::{Environment, Options};

/// Options for a server at `endpoint`, with time-outs short enough for tests.
pub fn options(endpoint: &str) -> Options {
    Options {
        connect_ms_max: 1_000,
        first_byte_ms_max: 300,
        stall_ms_max: 300,
        request_ms_max: 10_000,
        environment: Environment::default()
            .with("AWS_ENDPOINT_URL", endpoint)
            .with("AWS_ACCESS_KEY_ID", "test-id")
            .with("AWS_SECRET_ACCESS_KEY", "test-secret")
            .with("AWS_REGION", "us-east-1"),
        ..Options::default()
    }
}
