//! Tokens that are passed on: made by the service for one namespace, and given to a node that runs.

use granary_core::NamespaceName;
use granary_meta::token::check_lifetime;

use crate::args::PlaceFlags;
use crate::client::{Client, block_on};
use crate::exit::{Failure, Outcome};
use crate::token_file::Secret;
use crate::units::{parse_period_ms, show_wait};
use crate::wire::{TokenReply, TokenRequest};

/// A token that is to be made.
pub struct Wanted<'a> {
    pub namespace: NamespaceName,
    pub read_only: bool,
    pub lifetime_secs: u64,
    pub purpose: &'a str,
}

/// How long a delegated token lasts, as it was given with `flag`.
pub fn lifetime_secs(flag: &str, text: &str) -> Outcome<u64> {
    let secs = parse_period_ms(text).map_err(|why| Failure::usage(format!("{flag}: {why}")))? / 1000;
    check_lifetime(secs).map_err(|e| Failure::from(e).context(flag))?;
    Ok(secs)
}

pub fn delegate(wanted: &Wanted<'_>, flags: &PlaceFlags) -> Outcome<()> {
    let Wanted { namespace, read_only, lifetime_secs, purpose } = wanted;
    let token = super::super::meta::ask(flags, async |_, clients| {
        Ok(clients.own().client.delegate(namespace, *read_only, *lifetime_secs, purpose).await?)
    })?;
    super::super::print(&(token + "\n"))
}

pub fn hand(token: Secret, namespace: Option<&str>, flags: &PlaceFlags) -> Outcome<()> {
    let settings = flags.sources().resolve()?;
    let request = TokenRequest { token, namespace: namespace.map(str::to_owned) };
    let reply: TokenReply =
        block_on(async { Client::new(&settings.socket).post("/v1/token", &request).await })?;
    super::super::print(&describe(&reply))
}

fn describe(reply: &TokenReply) -> String {
    let left = show_wait(reply.left_ms / 1000);
    format!(
        "the node goes on with {} by this token, for {left}; {}\n",
        reply.namespace,
        dirty(reply.dirty_bytes)
    )
}

fn dirty(bytes: u64) -> String {
    match bytes {
        0 => "all of it is in the store".to_owned(),
        bytes => format!(
            "{} are not in the store yet: `granary status` shows how far it is",
            crate::units::show_bytes(bytes)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_that_cannot_be_are_named() {
        assert_eq!(lifetime_secs("--ttl", "1h").unwrap(), 3600);
        for bad in ["0s", "25h", "500ms", "soon"] {
            let e = lifetime_secs("--ttl", bad).unwrap_err();
            assert!(e.message.contains("--ttl"), "{bad}: {e}");
        }
    }

    #[test]
    fn people_see_what_is_left() {
        let mut reply = TokenReply { namespace: "group/asr".into(), left_ms: 3_600_000, dirty_bytes: 0 };
        assert!(describe(&reply).contains("group/asr by this token, for 1 h"), "{}", describe(&reply));
        reply.dirty_bytes = 3 << 20;
        assert!(describe(&reply).contains("3.0 MiB are not in the store yet"));
    }
}
