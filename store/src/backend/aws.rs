//! Endpoint, region and keys, found where the AWS tools find them: environment variables first, then the profile
//! `AWS_PROFILE` [`default`] of `~/.aws/credentials` and `~/.aws/config` (`AWS_SHARED_CREDENTIALS_FILE`, `AWS_CONFIG_FILE`).
//! Source: AWS SDKs and Tools Reference Guide, "Configuration and credential file settings".

mod profile;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use granary_core::{Error, Kind, Result};

use super::Options;
use profile::Profiles;

/// Servers of one store.
const ENDPOINTS_MAX: usize = 64;

/// Environment variables, handed in.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// This process's `AWS_*` variables and `HOME`.
    pub fn of_process() -> Environment {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        let wanted = |(name, _): &(String, String)| name.starts_with("AWS_") || name == "HOME";
        Environment(std::env::vars_os().filter_map(text).filter(wanted).collect())
    }

    /// An empty value is as good as none.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }

    pub fn with(mut self, name: &str, value: &str) -> Environment {
        self.0.insert(name.to_owned(), value.to_owned());
        self
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// Names only: values are secret.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[derive(Clone, PartialEq, Eq)]
pub(super) struct Keys {
    pub id: String,
    pub secret: String,
    pub token: Option<String>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({}, ...)", self.id)
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// At least one. `None`: Amazon's own, of the region.
    pub endpoints: Vec<Option<String>>,
    pub region: String,
    /// `None`: neither variables nor files have any.
    pub keys: Option<Keys>,
    /// PEM file of certificate authorities to trust besides the system's.
    pub ca_bundle: Option<PathBuf>,
}

impl Settings {
    /// Errors: `Invalid` names the file or variable that cannot be used.
    pub fn find(options: &Options) -> Result<Settings> {
        let env = &options.environment;
        let profiles = Profiles::read(env)?;
        let endpoints = match options.endpoints.as_slice() {
            [] => vec![of_environment(env, &profiles)?],
            several => of_setting(several)?.into_iter().map(Some).collect(),
        };
        let region = env
            .get("AWS_REGION")
            .or_else(|| env.get("AWS_DEFAULT_REGION"))
            .or_else(|| profiles.get("region"))
            .unwrap_or("us-east-1");
        let ca_bundle = env.get("AWS_CA_BUNDLE").or_else(|| profiles.get("ca_bundle")).map(PathBuf::from);
        Ok(Settings { endpoints, region: region.to_owned(), keys: keys(env, &profiles)?, ca_bundle })
    }
}

fn of_environment(env: &Environment, profiles: &Profiles) -> Result<Option<String>> {
    if env.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS") == Some("true") {
        return Ok(None);
    }
    let endpoint = env
        .get("AWS_ENDPOINT_URL_S3")
        .or_else(|| env.get("AWS_ENDPOINT_URL"))
        .or_else(|| profiles.s3_endpoint())
        .map(|e| e.trim_end_matches('/').to_owned());
    if let Some(endpoint) = &endpoint {
        check_endpoint(endpoint, "AWS_ENDPOINT_URL")?;
    }
    Ok(endpoint)
}

/// The servers of the setting `store_endpoints`.
fn of_setting(endpoints: &[String]) -> Result<Vec<String>> {
    let bad = |why: String| {
        Err(Error::new(Kind::Invalid, format!("setting store_endpoints cannot be used: {why}")))
    };
    if endpoints.len() > ENDPOINTS_MAX {
        return bad(format!("it names {} servers; name at most {ENDPOINTS_MAX}", endpoints.len()));
    }
    let mut found: Vec<String> = Vec::new();
    for endpoint in endpoints.iter().map(|e| e.trim_end_matches('/')) {
        check_endpoint(endpoint, "store_endpoints")?;
        if found.iter().any(|e| e == endpoint) {
            return bad(format!("it names {endpoint} twice; name each server once"));
        }
        found.push(endpoint.to_owned());
    }
    Ok(found)
}

fn keys(env: &Environment, profiles: &Profiles) -> Result<Option<Keys>> {
    let pair = |id: Option<&str>,
                secret: Option<&str>,
                token: Option<&str>,
                names: [&str; 2],
                place: &str| match (id, secret) {
        (Some(id), Some(secret)) => {
            Ok(Some(Keys { id: id.to_owned(), secret: secret.to_owned(), token: token.map(str::to_owned) }))
        }
        (None, None) => Ok(None),
        (Some(_), None) => Err((names[0].to_owned(), names[1].to_owned(), place.to_owned())),
        (None, Some(_)) => Err((names[1].to_owned(), names[0].to_owned(), place.to_owned())),
    };
    let half = |(have, lack, place): (String, String, String)| {
        Error::new(Kind::Invalid, format!("{place} gives {have} without {lack}; give both or neither"))
    };
    let names = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
    let token = env.get("AWS_SESSION_TOKEN");
    if let Some(keys) =
        pair(env.get(names[0]), env.get(names[1]), token, names, "the environment").map_err(half)?
    {
        return Ok(Some(keys));
    }
    let names = ["aws_access_key_id", "aws_secret_access_key"];
    for section in profiles.both() {
        let get = |name: &str| section.get(name).map(String::as_str).filter(|v| !v.is_empty());
        let place = format!("the AWS profile {:?}", profiles.name());
        if let Some(keys) =
            pair(get(names[0]), get(names[1]), get("aws_session_token"), names, &place).map_err(half)?
        {
            return Ok(Some(keys));
        }
    }
    Ok(None)
}

fn check_endpoint(endpoint: &str, name: &str) -> Result<()> {
    let why = match url::Url::parse(endpoint) {
        _ if endpoint.contains(',') => "several servers are named by the setting store_endpoints alone",
        Ok(u) if !matches!(u.scheme(), "http" | "https") => "it begins with neither http:// nor https://",
        Ok(u) if u.host().is_none() => "it names no host",
        Ok(u) if !u.username().is_empty() || u.password().is_some() => "it holds a user name or password",
        Ok(u) if u.query().is_some() || u.fragment().is_some() => "something follows its path",
        Ok(_) => return Ok(()),
        Err(_) => "it is no URL",
    };
    Err(Error::new(
        Kind::Invalid,
        format!(
            "endpoint {endpoint:?} ({name}) cannot be used: {why}; write for example http://rgw.example:7480"
        ),
    ))
}

#[cfg(test)]
mod tests;
