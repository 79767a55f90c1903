//! `granary explain`: where each byte of a file is, why, and what a read of it would cost.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;

use crate::args::ExplainArgs;
use crate::client::{Client, block_on};
use crate::exit::{Failure, Outcome};
use crate::units::{show_bytes, show_period_ms};
use crate::wire::InodeOf;
use crate::wire::observe::*;

/// Stretches that people are shown.
const SHOWN_MAX: usize = 40;

pub fn run(args: &ExplainArgs) -> Outcome<()> {
    let settings = args.flags.sources().resolve()?;
    let path = &args.path;
    let cannot = |e: std::io::Error| Failure::io(format!("cannot find {}", path.display()), &e);
    let real = path.canonicalize().map_err(cannot)?;
    let about = real.symlink_metadata().map_err(cannot)?;
    if !about.is_dir() && !about.is_file() {
        return Err(Failure::usage(format!("{} has no bytes: give a file or a directory", path.display())));
    }
    let inode = InodeOf { ino: about.ino(), directory: about.is_dir() };
    let request = ExplainRequest { path: super::text_of(&real)?, inode };
    let client = Client::new(&settings.socket);
    let explained: Explained = block_on(client.post("/v1/explain", &request))?;
    if args.json {
        return super::print_json(&explained);
    }
    let name = path.display().to_string();
    super::print(&match &explained {
        Explained::File(file) => show_file(&name, file),
        Explained::Directory(below) => show_below(&name, below),
    })
}

/// What a place's name means.
fn meaning(place: &str) -> &str {
    match place {
        "hole" => "nowhere: zeros",
        "stage_log" => "in this node's stage log, not in the store yet",
        "stage_file" => "in this node's stage file, not in the store yet",
        "clean_copy" => "in the store, and in a whole copy on this node",
        "cache" => "in the store, and in this node's cache",
        "peer" => "in the stage of another node, not in the store yet",
        "store" => "in the store only",
        other => other,
    }
}

fn places(of: &BTreeMap<String, u64>) -> String {
    let line =
        |(place, bytes): (&String, &u64)| format!("  {:>10}  {}\n", show_bytes(*bytes), meaning(place));
    of.iter().map(line).collect()
}

fn cost(requests: u64, bytes: u64) -> String {
    match requests {
        0 => "reading all of it now asks the store for nothing\n".to_owned(),
        1 => format!("reading all of it now takes 1 GET for {}\n", show_bytes(bytes)),
        n => format!("reading all of it now takes {n} GETs for {}\n", show_bytes(bytes)),
    }
}

fn show_file(name: &str, file: &FileExplained) -> String {
    let open = if file.open { ", open" } else { "" };
    let mut out =
        format!("{name}: {} in {}, inode {}{open}\n", show_bytes(file.size), file.namespace, file.inode);
    out += &places(&file.places);
    if file.inline {
        out += "the metadata has a copy of all of it\n";
    }
    if let Some(waits) = &file.waits {
        let when = match waits.left_ms {
            None => "leaves for the store when nobody has it open for writing".to_owned(),
            Some(0) => "leaves for the store now".to_owned(),
            Some(ms) => format!("leaves for the store in {}", show_period_ms(ms.div_ceil(1000) * 1000)),
        };
        out += &format!("written {} ago, {when} ({})\n", show_period_ms(waits.since_ms), waits.by);
        if let Some(why) = &waits.failing {
            out += &format!("STORING FAILS, and is tried again: {why}\n");
        }
    }
    out += &cost(file.requests, file.fetch_bytes);
    out += &match &file.passthrough_why_not {
        None => "the kernel reads it past the node process (passthrough)\n".to_owned(),
        Some(why) => format!("no passthrough: {why}\n"),
    };
    if let Some(lease) = &file.lease {
        out += &format!("lease held by this node: {lease}\n");
    }
    out.push_str("where:\n");
    for stretch in file.stretches.iter().take(SHOWN_MAX) {
        let end = stretch.offset + stretch.len;
        out += &format!("  {}..{end}  {}\n", stretch.offset, place(&stretch.place, stretch.len));
    }
    let hidden = file.stretches.len().saturating_sub(SHOWN_MAX);
    if hidden > 0 || file.more {
        out += &format!("  and {hidden}{} more; --json shows them\n", if file.more { " and" } else { "" });
    }
    out
}

fn place(place: &PlaceLine, len: u64) -> String {
    match place {
        PlaceLine::Hole => "hole".to_owned(),
        PlaceLine::StageLog { segment, at } => format!("stage log, segment {segment} at {at}"),
        PlaceLine::StageFile => "stage file".to_owned(),
        PlaceLine::CleanCopy => "whole copy on this node".to_owned(),
        PlaceLine::Peer { node } => format!("stage of node {node}"),
        PlaceLine::Object { key, at, cached_bytes, chunks } => {
            let cached = match *cached_bytes {
                0 => "not cached".to_owned(),
                all if all == len => format!("cached in {} chunks", chunks.len()),
                some => format!("{} of it cached in {} chunks", show_bytes(some), chunks.len()),
            };
            format!("object {key} at {at}, {cached}")
        }
    }
}

fn show_below(name: &str, below: &BelowExplained) -> String {
    let more = if below.more { " (there are more: only these were looked at)" } else { "" };
    let mut out = format!(
        "{name}: {} in {} files and {} folders of {}{more}\n",
        show_bytes(below.bytes),
        below.files,
        below.directories,
        below.namespace
    );
    out += &places(&below.places);
    if below.inline_files > 0 {
        out += &format!("the metadata has copies of {} small files\n", below.inline_files);
    }
    if below.unreadable > 0 {
        out += &format!("{} files and folders that you may not read were left out\n", below.unreadable);
    }
    out += &cost(below.requests, below.fetch_bytes);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> FileExplained {
        FileExplained {
            namespace: "user/alice".into(),
            inode: 12,
            size: 3 << 20,
            version: 4,
            open: true,
            places: BTreeMap::from([("cache".into(), 1 << 20), ("store".into(), 2 << 20)]),
            stretches: vec![StretchLine {
                offset: 0,
                len: 3 << 20,
                place: PlaceLine::Object {
                    key: "ns/1/b/00/x".into(),
                    at: 0,
                    cached_bytes: 1 << 20,
                    chunks: vec![0],
                },
            }],
            more: false,
            inline: false,
            requests: 1,
            fetch_bytes: 2 << 20,
            passthrough: false,
            passthrough_why_not: Some("no whole copy of it is on this node".into()),
            lease: Some("read".into()),
            waits: None,
        }
    }

    #[test]
    fn people_see_where_and_why() {
        let text = show_file("7.pt", &file());
        for part in [
            "7.pt: 3.0 MiB in user/alice, inode 12, open",
            "1.0 MiB  in the store, and in this node's cache",
            "2.0 MiB  in the store only",
            "takes 1 GET for 2.0 MiB",
            "no passthrough: no whole copy",
            "lease held by this node: read",
            "0..3145728  object ns/1/b/00/x at 0, 1.0 MiB of it cached in 1 chunks",
        ] {
            assert!(text.contains(part), "{part:?} in:\n{text}");
        }
    }

    #[test]
    fn people_see_when_it_leaves() {
        let waits =
            LeavesLine { since_ms: 3000, left_ms: Some(26_500), by: "large_period_ms".into(), failing: None };
        let text = show_file("f", &FileExplained { waits: Some(waits), requests: 0, ..file() });
        assert!(
            text.contains("written 3 s ago, leaves for the store in 27 s (large_period_ms)")
                && text.contains("asks the store for nothing"),
            "{text}"
        );
    }

    #[test]
    fn programs_read_it_back() {
        let all = Explained::File(file());
        let json = serde_json::to_value(&all).unwrap();
        assert_eq!(json["file"]["stretches"][0]["place"], "object");
        assert_eq!(serde_json::from_value::<Explained>(json).unwrap(), all);
    }
}
