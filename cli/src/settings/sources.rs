//! Where settings are given: flags, variables, the file; and what is wrong with their names.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::build::build;
use super::table::{SETTINGS, dashed, find};
use super::{Settings, memory};
use crate::exit::{Failure, Outcome, plain};

/// Variables of our own that are no settings: the file's name, and what scripts around the program use.
const OTHER_VARIABLES: [&str; 4] =
    ["GRANARY_CONFIG", "GRANARY_BIN", "GRANARY_CACHE_DIR", "GRANARY_FAILPOINTS"];

pub const CONFIG_DEFAULT: &str = "/etc/granary/granary.toml";

/// What was asked for, before it is looked at.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    pub config: Option<PathBuf>,
    /// From flags or mount options: setting and value.
    pub flags: Vec<(String, String)>,
    pub env: Vec<(OsString, OsString)>,
}

#[derive(Clone, Debug)]
pub(super) struct Given {
    pub(super) text: String,
    /// How a message names where it was given: `--meta`, `GRANARY_META`, `/etc/granary/granary.toml`.
    pub(super) origin: String,
}

pub(super) type GivenSettings = BTreeMap<&'static str, Given>;

impl Sources {
    /// The process's environment and these flags.
    pub fn new(config: Option<PathBuf>, flags: Vec<(String, String)>) -> Sources {
        Sources { config, flags, env: std::env::vars_os().collect() }
    }

    /// The file that is read: `None` when there is none and none was asked for.
    pub fn config_file(&self) -> Option<PathBuf> {
        let named =
            self.env.iter().find(|(name, _)| name == "GRANARY_CONFIG").map(|(_, value)| PathBuf::from(value));
        self.config
            .clone()
            .or(named)
            .or_else(|| Some(PathBuf::from(CONFIG_DEFAULT)).filter(|path| path.exists()))
    }

    pub fn resolve(&self) -> Outcome<Settings> {
        let mut given = GivenSettings::new();
        if let Some(path) = self.config_file() {
            read_file(&path, &mut given)?;
        }
        read_env(&self.env, &mut given)?;
        for (name, text) in &self.flags {
            let known = find(name).ok_or_else(|| unknown(name, "on the command line"))?;
            given.insert(known.name, Given { text: text.clone(), origin: format!("--{}", dashed(name)) });
        }
        let mut settings = build(&given)?;
        if !settings.is_given("memory_bytes_max") {
            settings.limits.memory_bytes_max = memory::share_of_process();
        }
        Ok(settings)
    }
}

fn unknown(name: &str, place: &str) -> Failure {
    let mend = match nearest(name) {
        Some(near) => format!("did you mean {near:?}?"),
        None => "`granary node --help` lists all of them".to_owned(),
    };
    Failure::usage(format!("unknown setting {name:?} {place}; {mend}"))
}

/// The known setting nearest to a misspelt one, if it is near at all.
fn nearest(name: &str) -> Option<&'static str> {
    let near = SETTINGS.iter().map(|s| (distance(name, s.name), s.name)).min()?;
    (near.0 <= 1 + name.len() / 5).then_some(near.1)
}

/// Levenshtein's distance, in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substitute = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

fn read_file(path: &Path, given: &mut GivenSettings) -> Outcome<()> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        Failure::usage(format!("cannot read the settings file {}: {}", path.display(), plain(&e)))
    })?;
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| {
        Failure::usage(format!(
            "the settings file {} is not TOML: {}",
            path.display(),
            e.to_string().trim_end()
        ))
    })?;
    for (name, value) in table {
        let known = find(&name).ok_or_else(|| unknown(&name, &format!("in {}", path.display())))?;
        let text = match value {
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            other => {
                return Err(Failure::usage(format!(
                    "setting {name} in {} is a {}; write a number or a string",
                    path.display(),
                    other.type_str()
                )));
            }
        };
        given.insert(known.name, Given { text, origin: path.display().to_string() });
    }
    Ok(())
}

fn read_env(env: &[(OsString, OsString)], given: &mut GivenSettings) -> Outcome<()> {
    for (variable, value) in env {
        let Some(variable) = variable.to_str() else { continue };
        let Some(name) = variable.strip_prefix("GRANARY_") else { continue };
        if OTHER_VARIABLES.contains(&variable) {
            continue;
        }
        let name = name.to_ascii_lowercase();
        let Some(known) = find(&name) else {
            if let Some(near) = nearest(&name) {
                return Err(Failure::usage(format!(
                    "unknown setting in the variable {variable}; did you mean GRANARY_{}?",
                    near.to_ascii_uppercase()
                )));
            }
            continue;
        };
        let text = value.to_str().ok_or_else(|| {
            Failure::usage(format!("the variable {variable} is not UTF-8; give a path or value that is"))
        })?;
        if text.is_empty() {
            continue; // as unset: how shells and service files turn a variable off
        }
        given.insert(known.name, Given { text: text.to_owned(), origin: variable.to_owned() });
    }
    Ok(())
}
