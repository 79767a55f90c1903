//! The two files of the AWS tools, `credentials` and `config`.
//!
//! ```text
//! [default]                  ; in config: [profile name], but [default]; in credentials: [name]
//! region = us-east-1         # a comment
//! services = local
//! s3 =
//!   addressing_style = path  ; indented: read as `s3.addressing_style`
//! [services local]
//! s3 =
//!   endpoint_url = http://127.0.0.1:7480
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use granary_core::{Error, Kind, Result};

use super::Environment;

pub(super) type Section = BTreeMap<String, String>;

/// The two sections of one profile, and the services section that it names.
#[derive(Debug, Default)]
pub(super) struct Profiles {
    name: String,
    credentials: Section,
    config: Section,
    services: Section,
}

/// Longest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

impl Profiles {
    /// Missing files are empty; a profile named by `AWS_PROFILE` must be in one of them.
    pub fn read(env: &Environment) -> Result<Profiles> {
        let path = |variable: &str, file: &str| {
            let home = || env.get("HOME").map(|home| Path::new(home).join(".aws").join(file));
            env.get(variable).map(PathBuf::from).or_else(home)
        };
        let credentials = read(path("AWS_SHARED_CREDENTIALS_FILE", "credentials"))?;
        let config = read(path("AWS_CONFIG_FILE", "config"))?;
        let asked = env.get("AWS_PROFILE").or_else(|| env.get("AWS_DEFAULT_PROFILE"));
        let name = asked.unwrap_or("default").to_owned();
        let in_config = config.get(&format!("profile {name}")).or_else(|| {
            // `[default]` needs no `profile`.
            if name == "default" { config.get("default") } else { None }
        });
        let in_credentials = credentials.get(&name);
        if asked.is_some() && in_config.is_none() && in_credentials.is_none() {
            return Err(Error::new(
                Kind::Invalid,
                format!(
                    "the AWS profile {name:?} (AWS_PROFILE) is in neither ~/.aws/credentials nor ~/.aws/config; add it, or unset \
                     AWS_PROFILE"
                ),
            ));
        }
        let section = |s: Option<&Section>| s.cloned().unwrap_or_default();
        let (credentials, in_config) = (section(in_credentials), section(in_config));
        let services =
            section(in_config.get("services").and_then(|name| config.get(&format!("services {name}"))));
        Ok(Profiles { name, credentials, config: in_config, services })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Credentials first, as the tools have it.
    pub fn both(&self) -> [&Section; 2] {
        [&self.credentials, &self.config]
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.both().into_iter().find_map(|s| s.get(key)).map(String::as_str).filter(|v| !v.is_empty())
    }

    /// The services section's S3 endpoint before the profile's endpoint of all services.
    pub fn s3_endpoint(&self) -> Option<&str> {
        let own = self.services.get("s3.endpoint_url").map(String::as_str);
        own.or_else(|| self.get("endpoint_url"))
    }
}

fn read(path: Option<PathBuf>) -> Result<BTreeMap<String, Section>> {
    let Some(path) = path else { return Ok(BTreeMap::new()) };
    let failed = |why: String| {
        Error::new(
            Kind::Invalid,
            format!("AWS settings in {} cannot be read: {why}; mend or remove the file", path.display()),
        )
    };
    match std::fs::metadata(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(e) => return Err(failed(e.to_string())),
        Ok(meta) if meta.len() > FILE_BYTES_MAX => return Err(failed("it is larger than 1 MiB".into())),
        Ok(_) => {}
    }
    let text = std::fs::read_to_string(&path).map_err(|e| failed(e.to_string()))?;
    parse(&text).map_err(|(line, why)| failed(format!("line {line}: {why}")))
}

/// Sections by name. An error comes with its line's number; values are never part of it.
pub(super) fn parse(text: &str) -> Result<BTreeMap<String, Section>, (usize, &'static str)> {
    let mut sections: BTreeMap<String, Section> = BTreeMap::new();
    let mut section = None;
    let mut outer = String::new();
    for (number, line) in text.lines().enumerate().map(|(i, line)| (i + 1, line)) {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let Some(rest) = trimmed.strip_prefix('[') {
            let (name, _comment) = rest.split_once(']').ok_or((number, "a section's `]` is missing"))?;
            let name = name.split_whitespace().collect::<Vec<_>>().join(" ").replace(['"', '\''], "");
            sections.entry(name.clone()).or_default();
            section = Some(name);
            outer.clear();
            continue;
        }
        let Some(into) = section.as_ref().and_then(|name| sections.get_mut(name)) else {
            return Err((number, "a setting stands before the first [section]"));
        };
        let (key, value) = trimmed.split_once('=').ok_or((number, "it has no `=`"))?;
        let (key, value) = (key.trim(), without_comment(value).trim());
        if key.is_empty() {
            return Err((number, "nothing stands before its `=`"));
        }
        if line.starts_with([' ', '\t']) && !outer.is_empty() {
            into.insert(format!("{outer}.{key}"), value.to_owned());
        } else {
            outer = if value.is_empty() { key.to_owned() } else { String::new() };
            into.insert(key.to_owned(), value.to_owned());
        }
    }
    Ok(sections)
}

/// A comment in a value begins with white space and `#` or `;`.
fn without_comment(value: &str) -> &str {
    let mut before = ' ';
    for (at, c) in value.char_indices() {
        if matches!(c, '#' | ';') && before.is_whitespace() {
            return &value[..at];
        }
        before = c;
    }
    value
}
