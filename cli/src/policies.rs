//! How a namespace's writes reach the store: read from the command line, and shown to people.

use granary_core::Codec;
use granary_core::policy::WritePolicy;
use granary_meta::{NamespacePolicy, PolicyChange};

use crate::args::PolicyFields;
use crate::exit::{Failure, Outcome};
use crate::units::{parse_bytes, parse_count, parse_period_ms, show_bytes, show_period_ms};

/// What is given instead of a value to leave it to each node's limits.
const DEFAULT: &str = "default";

/// What is asked for, checked; 0 stands for `default`.
pub fn change(what: &PolicyFields) -> Outcome<PolicyChange> {
    let bandwidth = |text: &str| parse_bytes(text.strip_suffix("/s").unwrap_or(text));
    let codec = |text: &str| text.parse().map(Codec::number).map_err(|e: granary_core::Error| e.to_string());
    let change = PolicyChange {
        small_period_ms: value("--small-period", what.small_period.as_deref(), parse_period_ms)?,
        large_period_ms: value("--large-period", what.large_period.as_deref(), parse_period_ms)?,
        small_file_bytes_max: value("--small-size", what.small_size.as_deref(), parse_bytes)?,
        upload_bytes_per_s_max: value("--upload-bandwidth", what.upload_bandwidth.as_deref(), bandwidth)?,
        uploads_max: value("--uploads", what.uploads.as_deref(), parse_count)?,
        dirty_bytes_max: value("--dirty-bytes", what.dirty_bytes.as_deref(), parse_bytes)?,
        dirty_files_max: value("--dirty-files", what.dirty_files.as_deref(), parse_count)?,
        compression: value("--compression", what.compression.as_deref(), codec)?,
        // None of them is what every node does.
        inline_bytes_max: match what.inline.as_deref() {
            Some("0") => Some(0),
            text => value("--inline", text, parse_bytes)?,
        },
    };
    change.validate()?;
    Ok(change)
}

fn value(
    flag: &str,
    text: Option<&str>,
    parse: impl Fn(&str) -> Result<u64, String>,
) -> Outcome<Option<u64>> {
    let Some(text) = text else { return Ok(None) };
    if text == DEFAULT {
        return Ok(Some(0));
    }
    let cannot = |why: &str| {
        Failure::usage(format!("{flag} cannot be used: {why}; or give `default` for the node's own setting"))
    };
    match parse(text) {
        Ok(0) => Err(cannot("0 cannot work")),
        Ok(value) => Ok(Some(value)),
        Err(why) => Err(cannot(&why)),
    }
}

/// Each flag of `granary ns set` and its value, or `default`.
pub fn lines(policy: &NamespacePolicy) -> [(&'static str, String); 9] {
    let of = |value: Option<u64>, show: &dyn Fn(u64) -> String| value.map_or(DEFAULT.to_owned(), show);
    [
        ("small-period", of(policy.small_period_ms, &show_period_ms)),
        ("large-period", of(policy.large_period_ms, &show_period_ms)),
        ("small-size", of(policy.small_file_bytes_max, &show_bytes)),
        ("upload-bandwidth", of(policy.upload_bytes_per_s_max, &|n| format!("{}/s", show_bytes(n)))),
        ("uploads", of(policy.uploads_max, &|n| n.to_string())),
        ("dirty-bytes", of(policy.dirty_bytes_max, &show_bytes)),
        ("dirty-files", of(policy.dirty_files_max, &|n| n.to_string())),
        ("compression", of(policy.compression, &|n| Codec::of_number(n).unwrap_or_default().to_string())),
        ("inline", of(policy.inline_bytes_max, &show_bytes)),
    ]
}

/// What it says itself, in one cell of a table.
pub fn summary(policy: &NamespacePolicy) -> String {
    let own = lines(policy).into_iter().filter(|(_, value)| value != DEFAULT);
    let own: Vec<String> = own.map(|(name, value)| format!("{name} {value}")).collect();
    if own.is_empty() { DEFAULT.to_owned() } else { own.join(", ") }
}

/// What counts on a node, in one line.
pub fn effective(policy: &WritePolicy) -> String {
    let bandwidth = match policy.upload_bytes_per_s_max {
        0 => String::new(),
        max => format!(" and {}/s", show_bytes(max)),
    };
    let compressed = match policy.compression {
        Codec::None => String::new(),
        codec => format!(", compressed by {codec}"),
    };
    let inline = match policy.inline_bytes_max {
        0 => String::new(),
        max => format!("; the metadata keeps copies of files up to {}", show_bytes(max)),
    };
    format!(
        "small files (up to {}) are stored after {}, large ones after {}{compressed}; at most {} uploads at once{bandwidth}{inline}",
        show_bytes(policy.small_file_bytes_max),
        show_period_ms(policy.small_period_ms),
        show_period_ms(policy.large_period_ms),
        policy.uploads_max
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_is_read_and_shown() {
        let given = |text: &str| Some(text.to_owned());
        let what = PolicyFields {
            small_period: given("2s"),
            large_period: given("default"),
            small_size: given("64KiB"),
            upload_bandwidth: given("100MiB/s"),
            uploads: given("9"),
            dirty_bytes: given("1GiB"),
            dirty_files: given("1000"),
            compression: given("zstd"),
            inline: given("2KiB"),
        };
        let change = change(&what).unwrap();
        let policy =
            NamespacePolicy { large_period_ms: Some(5), ..NamespacePolicy::default() }.changed(&change);
        assert_eq!(policy.large_period_ms, None);
        assert_eq!(
            summary(&policy),
            "small-period 2 s, small-size 64.0 KiB, upload-bandwidth 100.0 MiB/s, uploads 9, dirty-bytes 1.0 GiB, \
             dirty-files 1000, compression zstd, inline 2.0 KiB"
        );
        let none = super::change(&PolicyFields { inline: given("0"), ..PolicyFields::default() }).unwrap();
        assert_eq!(policy.changed(&none).inline_bytes_max, None);
        assert_eq!(summary(&NamespacePolicy::default()), "default");
    }

    #[test]
    fn what_cannot_work_is_named_with_the_mend() {
        let e = |what: PolicyFields| change(&what).unwrap_err();
        let dear = e(PolicyFields { uploads: Some("1000".into()), ..PolicyFields::default() });
        assert!(dear.exit == 2 && dear.message.contains("uploads_max = 1000"), "{dear}");
        let gzip = e(PolicyFields { compression: Some("gzip".into()), ..PolicyFields::default() });
        assert!(gzip.exit == 2 && gzip.message.contains("none, lz4 or zstd"), "{gzip}");
        let long = e(PolicyFields { inline: Some("3KiB".into()), ..PolicyFields::default() });
        assert!(long.exit == 2 && long.message.contains("from 1 to 2048"), "{long}");
        for (text, part) in [("0", "0 cannot work"), ("soon", "for example 2s")] {
            let bad = e(PolicyFields { small_period: Some(text.into()), ..PolicyFields::default() });
            assert!(
                bad.exit == 2 && bad.message.contains(part) && bad.message.contains("`default`"),
                "{bad}"
            );
        }
    }
}
