//! `granary token`: keys, and tokens that are signed with them.

use std::fmt::Write;
use std::path::Path;

use granary_core::{Clock, SystemClock};
use granary_meta::token::{Grant, Rights, Token, inspect, issue};
use serde_json::json;

use crate::args::{PlaceFlags, RightsArg, TokenArgs, TokenCommand};
use crate::exit::{Failure, Outcome};
use crate::units::{parse_period_ms, show_time, show_wait};
use crate::{randomness, token_file};

mod key;
pub mod pass;

pub use key::{read_public, volume_of};

pub fn run(args: &TokenArgs) -> Outcome<()> {
    match &args.command {
        TokenCommand::Key { key, volume, new_volume, flags } => {
            let volume = if *new_volume { Some(new_uuid()?) } else { volume.clone() };
            key::make(key, volume.as_deref(), flags)
        }
        TokenCommand::Issue { user, groups, rights, namespaces, ttl, key, volume, flags } => {
            let named =
                namespaces.iter().map(|text| text.parse()).collect::<granary_core::Result<Vec<_>>>()?;
            let lifetime = parse_period_ms(ttl).map_err(|why| Failure::usage(format!("--ttl: {why}")))?;
            let grant = Grant {
                user: user.clone(),
                groups: groups.clone(),
                rights: (*rights).into(),
                namespaces: (!named.is_empty()).then_some(named),
                lifetime_secs: lifetime / 1000,
            };
            print_new(&grant, key, volume.as_deref(), flags)
        }
        TokenCommand::Delegate { namespace, read_only, ttl, purpose, flags } => {
            let wanted = pass::Wanted {
                namespace: namespace.parse()?,
                read_only: *read_only,
                lifetime_secs: pass::lifetime_secs("--ttl", ttl)?,
                purpose,
            };
            pass::delegate(&wanted, flags)
        }
        TokenCommand::Hand { token, namespace, flags } => {
            pass::hand(token_file::given(token)?, namespace.as_deref(), flags)
        }
        TokenCommand::Inspect { token, json } => show(token_file::given(token)?.as_str(), *json),
        TokenCommand::Revoke { token, flags } => {
            super::meta::revoke(token_file::given(token)?.as_str(), flags)
        }
    }
}

/// Of a volume.
pub fn new_uuid() -> Outcome<String> {
    Ok(format!("{:032x}", randomness::bits(randomness::generator()?)()))
}

impl From<RightsArg> for Rights {
    fn from(rights: RightsArg) -> Rights {
        match rights {
            RightsArg::ReadOnly => Rights::ReadOnly,
            RightsArg::ReadWrite => Rights::ReadWrite,
            RightsArg::Delegate => Rights::Delegate,
            RightsArg::Admin => Rights::Admin,
        }
    }
}

fn print_new(grant: &Grant, key: &Path, volume: Option<&str>, flags: &PlaceFlags) -> Outcome<()> {
    let file = key::read(key)?;
    let volume = match (volume, &file.volume) {
        (Some(volume), _) => key::checked_volume(volume)?,
        (None, Some(volume)) => volume.clone(),
        (None, None) => key::find_volume(flags)?,
    };
    let random = randomness::bits(randomness::generator()?)();
    let token = issue(&file.key, &volume, grant, &SystemClock, random)?;
    super::print(&(token + "\n"))
}

fn show(token: &str, as_json: bool) -> Outcome<()> {
    let said = inspect(token)?;
    let now = SystemClock.now().unix_ms() / 1000;
    if as_json {
        let text = serde_json::to_string_pretty(&as_value(&said, now))
            .map_err(|e| Failure::failed(format!("cannot print the token: {e}")))?;
        return super::print(&(text + "\n"));
    }
    super::print(&describe(&said, now))
}

/// Where a token is in its life.
fn state(token: &Token, now: u64) -> &'static str {
    match now {
        _ if now >= token.expires => "expired",
        _ if now < token.not_before.unwrap_or(token.issued).max(token.issued) => "not valid yet",
        _ => "valid",
    }
}

fn as_value(token: &Token, now: u64) -> serde_json::Value {
    json!({
        "volume": token.volume,
        "user": token.user,
        "groups": token.groups,
        "rights": token.rights.as_str(),
        "namespaces": token.namespaces,
        "parent": token.parent,
        "id": token.id,
        "issued": token.issued,
        "not_before": token.not_before,
        "expires": token.expires,
        "key": token.key,
        "state": state(token, now),
        "expired": now >= token.expires,
    })
}

/// The namespaces that it names, or that are the user's and the groups'.
fn reached(token: &Token) -> Vec<String> {
    match (&token.namespaces, token.rights) {
        (Some(named), _) => named.iter().map(ToString::to_string).collect(),
        (None, Rights::Delegate) => vec!["all namespaces".to_owned()],
        (None, _) => std::iter::once(format!("user/{}", token.user))
            .chain(token.groups.iter().map(|group| format!("group/{group}")))
            .collect(),
    }
}

/// For people.
fn describe(token: &Token, now: u64) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a string does not fail.
        let _ = writeln!(out, "{name:<8} {value}");
    };
    line("user", token.user.clone());
    line("groups", if token.groups.is_empty() { "none".to_owned() } else { token.groups.join(", ") });
    let what = match token.rights {
        Rights::Admin => "everything: all namespaces, and the service itself".to_owned(),
        rights => {
            let may = match rights {
                Rights::ReadOnly => "read",
                Rights::Delegate => "have short-lived tokens made for",
                _ => "read and write",
            };
            format!("{may} {}", reached(token).join(", "))
        }
    };
    line("rights", format!("{} ({what})", token.rights.as_str()));
    line("volume", token.volume.clone());
    line("issued", show_time(token.issued));
    let expires = show_time(token.expires);
    line(
        "expires",
        match state(token, now) {
            "expired" => {
                format!("{expires}: EXPIRED {} ago; ask for a new one", show_wait(now - token.expires))
            }
            "valid" => format!("{expires}, in {}", show_wait(token.expires - now)),
            _ => {
                let begins = token.not_before.unwrap_or(token.issued).max(token.issued);
                format!("{expires}: NOT VALID YET, only from {} on", show_time(begins))
            }
        },
    );
    line("id", token.id.clone());
    if let Some(parent) = &token.parent {
        line("from", format!("token {parent}: it ends when that is revoked"));
    }
    line("key", token.key.clone().unwrap_or_else(|| "not named".to_owned()));
    out + "Whether it is genuine, and not revoked, only the service can tell.\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_and_programs_see_whether_it_counts() {
        let mut token = Token {
            volume: "v".into(),
            user: "alice".into(),
            groups: vec!["asr".into()],
            rights: Rights::ReadWrite,
            namespaces: None,
            parent: None,
            id: "7".into(),
            issued: 1_000,
            not_before: None,
            expires: 100_000,
            key: None,
        };
        for (now, state, part) in [
            (50_000, "valid", "in 13 h 53 min"),
            (100_000, "expired", "EXPIRED 0 s ago"),
            (500, "not valid yet", "NOT VALID YET, only from 1970-01-01 00:16:40 UTC"),
        ] {
            assert_eq!(as_value(&token, now)["state"], state);
            assert!(describe(&token, now).contains(part), "{}", describe(&token, now));
        }
        assert!(describe(&token, 2000).contains("read-write (read and write user/alice, group/asr)"));
        token.rights = Rights::Admin;
        assert!(describe(&token, 2000).contains("everything"));
        token.rights = Rights::Delegate;
        assert!(
            describe(&token, 2000).contains("delegate (have short-lived tokens made for all namespaces)")
        );
        (token.rights, token.parent) = (Rights::ReadOnly, Some("9".into()));
        token.namespaces = Some(vec!["group/nlp".parse().unwrap()]);
        let text = describe(&token, 2000);
        assert!(text.contains("read-only (read group/nlp)") && text.contains("from     token 9"), "{text}");
        let value = as_value(&token, 2000);
        assert_eq!((&value["namespaces"][0], &value["parent"]), (&json!("group/nlp"), &json!("9")));
    }
}
