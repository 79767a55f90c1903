//! `granary doctor`: whether this machine can do what a node needs of it. Everything is tried, not assumed: a mount of a
//! moment, a file in the cache directory, a small object in the store. What it made is gone when it ends.

mod clock;
mod disk;
mod kernel;
mod meta;
mod store;

use serde::Serialize;

use crate::args::DoctorArgs;
use crate::exit::{Failure, Outcome};
use crate::log;
use crate::settings::Settings;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub what: &'static str,
    pub state: State,
    pub found: String,
    /// What to do, unless it is good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Good,
    /// It works, with less.
    Lacking,
    /// A node cannot work so.
    Bad,
}

impl Finding {
    fn good(what: &'static str, found: impl Into<String>) -> Finding {
        Finding { what, state: State::Good, found: found.into(), mend: None }
    }

    fn lacking(what: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Finding {
        Finding { what, state: State::Lacking, found: found.into(), mend: Some(mend.into()) }
    }

    fn bad(what: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Finding {
        Finding { what, state: State::Bad, found: found.into(), mend: Some(mend.into()) }
    }

    /// What failed in the product's own words, which say the mend themselves.
    fn failed(what: &'static str, failure: &dyn std::fmt::Display) -> Finding {
        Finding { what, state: State::Bad, found: failure.to_string(), mend: None }
    }
}

pub fn run(args: &DoctorArgs) -> Outcome<()> {
    let settings = args.flags.sources().resolve()?;
    log::start_quiet();
    let findings = examine(&settings);
    if args.json {
        super::print_json(&findings)?;
    } else {
        super::print(&show(&findings))?;
    }
    match findings.iter().filter(|finding| finding.state == State::Bad).count() {
        0 => Ok(()),
        1 => Err(Failure::failed("1 thing keeps a node from working here; what to do stands beside it")),
        n => Err(Failure::failed(format!(
            "{n} things keep a node from working here; what to do stands beside each"
        ))),
    }
}

fn examine(settings: &Settings) -> Vec<Finding> {
    let mut findings = vec![kernel::version()];
    findings.extend(kernel::mounting(settings));
    findings.push(kernel::open_files());
    findings.extend(disk::cache(settings));
    let (metadata, store_url) = meta::look(settings);
    findings.push(metadata);
    findings.extend(match store_url.or_else(|| settings.store.clone()) {
        Some(url) => store::look(settings, &url),
        None => {
            vec![Finding::lacking("store", "not looked at: no volume says where it is", "give --store URL")]
        }
    });
    findings
}

fn show(findings: &[Finding]) -> String {
    let mut out = String::new();
    for Finding { what, state, found, mend } in findings {
        let mark = match state {
            State::Good => "ok",
            State::Lacking => "LESS",
            State::Bad => "BAD",
        };
        out += &format!("{mark:<5} {what:<12} {found}\n");
        if let Some(mend) = mend {
            out += &format!("{:<18} -> {mend}\n", "");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_stands_beside_its_mend() {
        let text = show(&[
            Finding::good("kernel", "6.18"),
            Finding::lacking("io_uring", "off", "switch it on"),
            Finding::failed("store", &"no answer; try again"),
        ]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(lines[0].starts_with("ok ") && lines[1].starts_with("LESS ") && lines[3].starts_with("BAD "));
        assert!(lines[2].trim_start().starts_with("-> switch it on"));
        let json = serde_json::to_value(Finding::good("kernel", "6.18")).unwrap();
        assert_eq!(json, serde_json::json!({"what": "kernel", "state": "good", "found": "6.18"}));
    }
}
