//! Where objects really are: a local folder (`file:///path`), or a bucket of Ceph RGW, Amazon S3 or their like
//! (`s3://bucket/prefix`). A backend does each request once; trying again is [`RetryStore`](crate::RetryStore)'s business.

mod aws;
mod folder;
mod s3;

use std::sync::Arc;

use granary_core::{Error, Kind, Result};
use url::Url;

pub use aws::Environment;
pub use folder::FolderStore;
pub use s3::S3Store;

use crate::api::Store;

/// How to reach a store, besides its URL. Plain values.
#[derive(Clone, Debug)]
pub struct Options {
    /// `file:` only: make the folder when it is missing. For `granary init`; elsewhere a missing folder is an unmounted disk.
    pub create: bool,
    /// The mode of the folder that is made, less the umask. A volume's has everybody's bytes in it, past all rights of the files.
    pub mode: u32,
    /// `s3:` only, this and the rest: the servers, each as `http://HOST:PORT`; with none, the one of the environment.
    pub endpoints: Vec<String>,
    /// How long making a connection may take.
    pub connect_ms_max: u64,
    /// How long the server may take to begin its answer once it has all of a request.
    pub first_byte_ms_max: u64,
    /// How long no byte may move in the middle of a request or an answer.
    pub stall_ms_max: u64,
    /// How long any one request may take in all.
    pub request_ms_max: u64,
    /// Connections kept open while nothing is asked.
    pub idle_connections_max: usize,
    /// The variables the AWS tools read, and the files they name.
    pub environment: Environment,
}

impl Default for Options {
    /// No variable is known: for tests.
    fn default() -> Options {
        Options {
            create: false,
            mode: 0o777,
            endpoints: Vec::new(),
            connect_ms_max: 5_000,
            first_byte_ms_max: 15_000,
            stall_ms_max: 15_000,
            // 16 MiB at 0.3 MB/s.
            request_ms_max: 60_000,
            idle_connections_max: 128,
            environment: Environment::default(),
        }
    }
}

impl Options {
    /// The defaults, with this process's environment variables.
    pub fn from_env() -> Options {
        Options { environment: Environment::of_process(), ..Options::default() }
    }
}

/// Opens a store, of several endpoints the first. Asks an S3 server nothing yet: [`probe`](crate::probe) does.
///
/// Errors: `Invalid` for a URL or setting that cannot be; `Denied` when there are no keys; `NotFound` for a missing folder.
pub fn open(url: &str, options: &Options) -> Result<Arc<dyn Store>> {
    Ok(open_each(url, options)?.remove(0).1)
}

/// Each of a store's endpoints, with its name; at least one. Errors as [`open`].
pub(crate) fn open_each(url: &str, options: &Options) -> Result<Vec<(String, Arc<dyn Store>)>> {
    let bad = |why: &str| {
        Error::new(
            Kind::Invalid,
            format!("store {url:?} cannot be used: {why}; write file:///folder or s3://bucket/prefix"),
        )
    };
    let parsed = Url::parse(url).map_err(|e| bad(&e.to_string()))?;
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(bad("it holds a user name or password, and it would be shown in messages"));
    }
    if parsed.query().is_some() || parsed.fragment().is_some() {
        return Err(bad("nothing may follow the path"));
    }
    match parsed.scheme() {
        "file" => {
            if parsed.host().is_some() {
                return Err(bad("it names a host; three slashes follow `file:`"));
            }
            let path = parsed.to_file_path().map_err(|()| bad("it has no path"))?;
            let store = FolderStore::open(path, options.create.then_some(options.mode))?;
            Ok(vec![(String::new(), Arc::new(store))])
        }
        "s3" => {
            let bucket =
                parsed.host_str().filter(|b| !b.is_empty()).ok_or_else(|| bad("it names no bucket"))?;
            if parsed.port().is_some() {
                return Err(bad("a port is part of the endpoint (AWS_ENDPOINT_URL), not of the store"));
            }
            let prefix = parsed.path().trim_matches('/');
            if !prefix.is_empty() {
                crate::key::check_key(prefix).map_err(|e| bad(&e.to_string()))?;
            }
            if prefix.contains('%') {
                return Err(bad("its prefix has characters other than letters, digits and `-_.~/`"));
            }
            let settings = aws::Settings::find(options)?;
            let endpoints = settings.endpoints.iter().map(|endpoint| {
                let store = S3Store::open(bucket, prefix, endpoint.as_deref(), &settings, options)?;
                Ok((endpoint.clone().unwrap_or_default(), Arc::new(store) as Arc<dyn Store>))
            });
            endpoints.collect()
        }
        other => Err(bad(&format!("{other:?} is not a kind of store"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_cannot_be_are_refused_with_the_mend() {
        for (url, why) in [
            ("", "relative URL"),
            ("/tmp/x", "relative URL"),
            ("http://h/b", "\"http\" is not a kind of store"),
            ("file://host/x", "names a host"),
            ("s3:///x", "no bucket"),
            ("s3://key:secret@bucket/x", "user name or password"),
            ("s3://bucket:80/x", "a port"),
            ("s3://bucket/x?y=1", "nothing may follow"),
            ("s3://bucket/a//b", "empty"),
            ("s3://bucket/a%20b", "characters"),
        ] {
            let e = open(url, &Options::default()).unwrap_err();
            assert_eq!(e.kind(), Kind::Invalid, "{url}");
            assert!(
                e.to_string().contains(why) && e.to_string().contains("write file:///folder"),
                "{url}: {e}"
            );
        }
    }
}
