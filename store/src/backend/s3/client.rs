//! The HTTP clients of one endpoint: one for what has no body, by object_store, and one that tells how far a body is sent.

use std::path::Path;
use std::time::Duration;

use granary_core::{Error, Kind, Result};
use object_store::{Certificate, ClientOptions};

use super::super::Options;
use super::super::aws::Settings;
use super::http::Timeouts;

const USER_AGENT: &str = concat!("granary/", env!("CARGO_PKG_VERSION"));

pub(super) fn timeouts(options: &Options) -> Timeouts {
    Timeouts {
        connect: Duration::from_millis(options.connect_ms_max),
        first_byte: Duration::from_millis(options.first_byte_ms_max),
        stall: Duration::from_millis(options.stall_ms_max),
        request: Duration::from_millis(options.request_ms_max),
    }
}

#[derive(Debug)]
pub(super) struct Clients {
    pub reads: ClientOptions,
    pub writes: reqwest::Client,
}

impl Clients {
    /// A server that is spoken to without TLS, by keys that are at hand, wants nobody's certificates: images without any are enough.
    ///
    /// Errors: `Invalid` when the certificates cannot be used, or there are none.
    pub fn new(options: &Options, endpoint: Option<&str>, settings: &Settings) -> Result<Clients> {
        let timeouts = timeouts(options);
        let plain = endpoint.is_some_and(|e| e.starts_with("http://"));
        // Other keys are asked for elsewhere, over TLS.
        let without_tls = plain && settings.keys.is_some();
        let mut reads = ClientOptions::new()
            .with_user_agent(object_store::HeaderValue::from_static(USER_AGENT))
            .with_allow_http(plain)
            .with_no_system_certificates(without_tls)
            .with_http1_only()
            .with_connect_timeout(timeouts.connect)
            .with_pool_max_idle_per_host(options.idle_connections_max);
        let mut writes = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .https_only(!plain)
            .http1_only()
            .connect_timeout(timeouts.connect)
            .timeout(timeouts.request)
            .pool_max_idle_per_host(options.idle_connections_max);
        if let Some(path) = &settings.ca_bundle {
            let failed = |why: &dyn std::fmt::Display| unusable(path, why);
            let pem = std::fs::read(path).map_err(|e| failed(&e))?;
            for certificate in Certificate::from_pem_bundle(&pem).map_err(|e| failed(&e))? {
                reads = reads.with_root_certificate(certificate);
            }
            let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| failed(&e))?;
            writes = writes.tls_certs_merge(certificates);
        }
        if without_tls {
            writes = writes.tls_certs_only([]);
        }
        let writes = writes.build().map_err(|e| {
            let why = innermost(&e);
            let mend = match why.contains("No CA certificates") {
                true => {
                    "give a PEM file of those that are to be trusted in AWS_CA_BUNDLE, or use an image or a system that has some \
                     (/etc/ssl/certs/ca-certificates.crt)"
                }
                false => "check the AWS_* variables",
            };
            Error::new(
                Kind::Invalid,
                format!("{} cannot be spoken to over HTTP: {why}; {mend}", endpoint.unwrap_or("Amazon S3")),
            )
        })?;
        Ok(Clients { reads, writes })
    }
}

/// Of an error's causes the one that says what is wrong.
fn innermost(e: &dyn std::error::Error) -> String {
    match e.source() {
        Some(cause) => innermost(cause),
        None => e.to_string(),
    }
}

fn unusable(path: &Path, why: &dyn std::fmt::Display) -> Error {
    Error::new(
        Kind::Invalid,
        format!(
            "the certificates in {} (AWS_CA_BUNDLE) cannot be read: {why}; give a PEM file",
            path.display()
        ),
    )
}
