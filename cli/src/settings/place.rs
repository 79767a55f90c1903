//! Where a volume's metadata is: a folder of this machine, or a metadata service for many machines.

use std::fmt;
use std::path::{Path, PathBuf};

use url::Url;

use crate::exit::{Failure, Outcome, plain};

/// Addresses of one service.
const SERVICES_MAX: usize = 16;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetaPlace {
    /// An absolute path.
    Folder(PathBuf),
    /// Addresses of one service, tried in this order: `https://HOST:PORT`.
    Service(Vec<String>),
}

impl MetaPlace {
    /// A path, or addresses with commas between them.
    pub fn parse(text: &str) -> Result<MetaPlace, String> {
        if !text.contains("://") {
            let path =
                std::path::absolute(text).map_err(|e| format!("{text:?} is no path: {}", plain(&e)))?;
            return Ok(MetaPlace::Folder(path));
        }
        let urls: Vec<String> = text.split(',').map(|url| address(url.trim())).collect::<Result<_, _>>()?;
        if urls.len() > SERVICES_MAX {
            return Err(format!("{} addresses are given, {SERVICES_MAX} are allowed", urls.len()));
        }
        Ok(MetaPlace::Service(urls))
    }

    /// For what works on the folder itself.
    pub fn folder(&self) -> Outcome<&Path> {
        match self {
            MetaPlace::Folder(path) => Ok(path),
            MetaPlace::Service(_) => Err(Failure::usage(format!(
                "this works on the metadata's folder, and {self} is a metadata service; do it on the machine where that \
                 runs, with --meta FOLDER"
            ))),
        }
    }

    pub fn service(&self) -> Option<&[String]> {
        match self {
            MetaPlace::Folder(_) => None,
            MetaPlace::Service(urls) => Some(urls),
        }
    }
}

impl fmt::Display for MetaPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MetaPlace::Folder(path) => path.display().fmt(f),
            MetaPlace::Service(urls) => f.write_str(&urls.join(",")),
        }
    }
}

/// An address, checked, as it is kept: scheme, host and port.
fn address(text: &str) -> Result<String, String> {
    let bad = |why: &str| {
        Err(format!("{text:?} is no address of a metadata service: {why}; write https://HOST:PORT"))
    };
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(e) => return bad(&e.to_string()),
    };
    if !["https", "http"].contains(&url.scheme()) {
        return bad("it begins with something else than https://");
    }
    if url.host_str().is_none_or(str::is_empty) {
        return bad("it has no host");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return bad("who asks is said by a token (--token-file), not by the address");
    }
    if !["", "/"].contains(&url.path()) || url.query().is_some() || url.fragment().is_some() {
        return bad("something follows the port");
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_services() {
        assert_eq!(MetaPlace::parse("/m").unwrap(), MetaPlace::Folder("/m".into()));
        assert!(MetaPlace::parse("m").unwrap().folder().unwrap().is_absolute());
        let service = MetaPlace::parse("https://a:7411/, http://127.0.0.1:1").unwrap();
        assert_eq!(service.service().unwrap(), ["https://a:7411", "http://127.0.0.1:1"]);
        assert_eq!(service.to_string(), "https://a:7411,http://127.0.0.1:1");
        assert!(service.folder().unwrap_err().message.contains("--meta FOLDER"));
        for bad in [
            "s3://b/p",
            "https://",
            "https://a:7411/x",
            "https://u:p@a:1",
            "https://a:99999",
            "https://a?x",
            "https://a,",
            &["https://a:1"; 17].join(","),
        ] {
            assert!(MetaPlace::parse(bad).is_err(), "{bad}");
        }
    }
}
