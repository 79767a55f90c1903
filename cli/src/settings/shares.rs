//! What each namespace has of the read cache: the setting `cache_shares`.

use granary_cache::CacheShare;
use granary_core::NamespaceName;

use crate::units::parse_bytes;

/// Names and patterns at most.
const SHARES_MAX: usize = 4096;
/// The least maximum, as that of `cache_bytes_max`: less holds no more than a few chunks of 1 MiB.
const BYTES_MAX_MIN: u64 = 64 << 20;
/// The same for what a namespace has at least, where that is said at all.
const BYTES_MIN_MIN: u64 = 1 << 20;
const EXAMPLE: &str =
    "write NAME=MIN..MAX, for example group/asr=200GiB..1TiB, user/*=..50GiB or dataset/train=2TiB..";

/// Minimum and maximum by namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheShares {
    /// A namespace's name, or `KIND/*` for each namespace of that kind by itself; each once.
    shares: Vec<(String, CacheShare)>,
}

impl CacheShares {
    /// `NAME=MIN..MAX`, with commas between them; either side may be empty. What is wrong, for a person. `cache_bytes`: of all
    /// disks.
    pub fn parse(text: &str, cache_bytes: u64) -> Result<CacheShares, String> {
        let mut shares: Vec<(String, CacheShare)> = Vec::new();
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let (name, share) = parse_item(item).map_err(|why| format!("{item:?}: {why}"))?;
            if shares.iter().any(|(known, _)| *known == name) {
                return Err(format!("{name} is named twice; say once what it has"));
            }
            if shares.len() == SHARES_MAX {
                return Err(format!("more than {SHARES_MAX} names are given; use patterns like user/*"));
            }
            shares.push((name, share));
        }
        // How many namespaces a pattern stands for is not known; one is the least.
        let minimums = shares.iter().fold(0, |sum: u64, (_, share)| sum.saturating_add(share.bytes_min));
        if minimums > cache_bytes {
            return Err(format!(
                "all minimums are {minimums} bytes, and the read cache has {cache_bytes} (cache_bytes_max and cache_dirs); lower \
                 them, or raise that"
            ));
        }
        Ok(CacheShares { shares })
    }

    /// What a namespace has; its own name counts before a pattern.
    pub fn of(&self, name: &NamespaceName) -> CacheShare {
        let find =
            |wanted: &str| self.shares.iter().find(|(known, _)| known == wanted).map(|(_, share)| *share);
        let pattern = || name.as_str().split_once('/').and_then(|(kind, _)| find(&format!("{kind}/*")));
        find(name.as_str()).or_else(pattern).unwrap_or_default()
    }
}

fn parse_item(item: &str) -> Result<(String, CacheShare), String> {
    let Some((name, range)) = item.split_once('=') else { return Err(format!("it has no `=`; {EXAMPLE}")) };
    let name = name.trim();
    // A pattern is a name with `*` for all that may follow the kind.
    let checked = match name.strip_suffix("/*") {
        Some(kind) => format!("{kind}/any")
            .parse::<NamespaceName>()
            .map_err(|_| format!("{kind:?} is not one of user, group, dataset, bucket; {EXAMPLE}")),
        None => name.parse::<NamespaceName>().map_err(|e| format!("{e}; or KIND/* for all of a kind")),
    };
    checked?;
    let Some((min, max)) = range.split_once("..") else {
        return Err(format!("its minimum and maximum are not apart by `..`; {EXAMPLE}"));
    };
    let bytes = |text: &str, otherwise: u64| match text.trim() {
        "" => Ok(otherwise),
        text => parse_bytes(text),
    };
    let share = CacheShare { bytes_min: bytes(min, 0)?, bytes_max: bytes(max, u64::MAX)? };
    if share == CacheShare::default() {
        return Err(format!("it says neither a minimum nor a maximum; {EXAMPLE}"));
    }
    if share.bytes_max < BYTES_MAX_MIN {
        return Err(format!("a maximum of {} bytes cannot work; give at least 64MiB", share.bytes_max));
    }
    if share.bytes_min > 0 && share.bytes_min < BYTES_MIN_MIN {
        return Err(format!(
            "a minimum of {} bytes is less than one chunk; give at least 1MiB",
            share.bytes_min
        ));
    }
    if share.bytes_min > share.bytes_max {
        return Err("its minimum is more than its maximum; the smaller one comes first".to_owned());
    }
    Ok((name.to_owned(), share))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn of(shares: &CacheShares, name: &str) -> (u64, u64) {
        let share = shares.of(&name.parse().unwrap());
        (share.bytes_min, share.bytes_max)
    }

    #[test]
    fn names_count_before_patterns() {
        let text = "group/asr=200GiB..1TiB, user/* = ..50GiB ,user/alice=1GiB..,dataset/*= 2GiB .. 3GiB,";
        let shares = CacheShares::parse(text, 500 * GIB).unwrap();
        assert_eq!(of(&shares, "group/asr"), (200 * GIB, 1024 * GIB));
        assert_eq!(of(&shares, "group/nlp"), (0, u64::MAX));
        assert_eq!(of(&shares, "user/bob"), (0, 50 * GIB));
        assert_eq!(of(&shares, "user/alice"), (GIB, u64::MAX));
        assert_eq!(of(&shares, "dataset/a"), (2 * GIB, 3 * GIB));
        assert_eq!(CacheShares::parse(" , ", GIB).unwrap(), CacheShares::default());
    }

    #[test]
    fn what_cannot_be_is_told_with_an_example() {
        for (text, parts) in [
            ("group/asr", &["group/asr", "no `=`", "group/asr=200GiB..1TiB"][..]),
            ("group/asr=5GiB", &["`..`", "for example"]),
            ("group/asr=..", &["neither", "for example"]),
            ("team/*=1GiB..", &["\"team\"", "user, group, dataset, bucket"]),
            ("asr=1GiB..", &["user/alice", "KIND/*"]),
            ("*=1GiB..", &["KIND/*"]),
            ("user/a*=1GiB..", &["user/a*", "letter"]),
            ("user/a=much..", &["much"]),
            ("user/a=..1MiB", &["64MiB"]),
            ("user/a=1..", &["1MiB"]),
            ("user/a=3GiB..2GiB", &["smaller one comes first"]),
            ("user/a=3GiB..,user/a=..4GiB", &["user/a", "twice"]),
            ("user/a=6GiB..,user/*=5GiB..", &["cache_bytes_max", "11811160064", "10737418240"]),
        ] {
            let why = CacheShares::parse(text, 10 * GIB).unwrap_err();
            for part in parts {
                assert!(why.contains(part), "{part:?} in {why:?} of {text:?}");
            }
        }
        let many: Vec<String> = (0..=SHARES_MAX).map(|n| format!("user/u{n}=..1GiB")).collect();
        assert!(CacheShares::parse(&many.join(","), GIB).unwrap_err().contains("patterns"));
        assert!(CacheShares::parse(&many[1..].join(","), GIB).is_ok());
    }
}
